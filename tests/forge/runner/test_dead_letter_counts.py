"""How many dead letters there are, while a run goes on for long and other processes replay and drop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge import Pipeline, Sample, SQLStorage, stage
from forge.errors import StorageError
from forge.runner.committer import REFRESH_INTERVAL
from tests.support.clock import FakeClock
from tests.support.runs import samples

if TYPE_CHECKING:
    from pathlib import Path

from forge import BatchRunner


@stage
def picky(sample: Sample) -> Sample:
    if sample.data < 0:
        raise ValueError("negative")
    return sample


def depths(pipeline: Pipeline) -> list[int]:
    return list(pipeline.dead_letters.snapshot().depth.values())


def test_a_long_run_sees_what_others_drop(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path / 'x.db'}", FakeClock()
    seen: list[list[int]] = []

    def source() -> Any:
        yield from samples(-1, -2, 3)
        seen.append(depths(pipeline))
        elsewhere = SQLStorage(url)
        elsewhere.drop_dead_letters("p", ["0"])
        clock.advance(REFRESH_INTERVAL - 1)
        yield Sample(id="4", data=4)
        seen.append(depths(pipeline))
        clock.advance(1)
        yield Sample(id="5", data=5)
        seen.append(depths(pipeline))
        elsewhere.drop_dead_letters("p", ["1"])
        elsewhere.close()
        clock.advance(REFRESH_INTERVAL)
        yield Sample(id="6", data=6)
        seen.append(depths(pipeline))

    storage = SQLStorage(url)
    pipeline = Pipeline(name="p", source=source, stages=[picky], storage=storage)
    BatchRunner(clock=clock).run(pipeline).drain()
    storage.close()
    assert seen == [[2], [2], [1], [0]]


def test_a_count_that_fails_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, counted = FakeClock(), []
    original = SQLStorage.dead_letter_state

    def count(self: SQLStorage, pipeline: str) -> Any:
        counted.append(pipeline)
        if len(counted) == 2:
            raise StorageError("gone")
        return original(self, pipeline)

    monkeypatch.setattr(SQLStorage, "dead_letter_state", count)

    @stage
    def slow(sample: Sample) -> Sample:
        clock.advance(REFRESH_INTERVAL)
        return sample

    storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
    pipeline = Pipeline(name="p", source=samples(1, 2), stages=[slow], storage=storage)
    result = BatchRunner(clock=clock).run(pipeline).drain()
    storage.close()
    assert result.ledger.ready == 2
    assert len(counted) == 4  # at the start, with each sample, at the end
    assert "the dead letters of pipeline 'p' cannot be counted" in caplog.messages
