"""Runs of the first samples of a source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from forge import BatchRunner, Pipeline, RunType, Sample, SQLStorage, StreamingRunner, stage
from forge.errors import ConfigurationError

RUNNERS = pytest.mark.parametrize("runner", [BatchRunner, StreamingRunner])


class Numbers:
    """Numbers, of which it is known how many were read, and whether their iterator was closed."""

    def __init__(self) -> None:
        self.read = 0
        self.closed = False

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[Sample]:
        try:
            for number in range(5):
                self.read += 1
                yield Sample(id=str(number), data=number)
        finally:
            self.closed = True


class LaterNumbers(Numbers):
    __iter__ = None  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[Sample]:
        for sample in Numbers():
            self.read += 1
            yield sample
        self.closed = True


@RUNNERS
@pytest.mark.parametrize("kind", [Numbers, LaterNumbers])
def test_a_limit_reads_no_more_than_that(runner: Any, kind: type[Numbers]) -> None:
    source = kind()
    run = runner().run(Pipeline(name="p", source=source), limit=2)
    assert [sample.data for sample in run] == [0, 1]
    assert run.result is not None
    assert (source.read, run.result.ledger.admitted, run.result.type) == (2, 2, RunType.PARTIAL)
    assert str(run.result).startswith("p (partial): completed in ")
    assert run.snapshot().source_remaining == 0


def test_the_source_of_a_partial_run_is_closed() -> None:
    source = Numbers()
    BatchRunner().run(Pipeline(name="p", source=source), limit=2).drain()
    assert source.closed


def test_what_remains_is_counted_up_to_the_limit() -> None:
    run = BatchRunner().run(Pipeline(name="p", source=Numbers()), limit=3)
    next(run)
    assert run.snapshot().source_remaining == 2
    run.close()


def test_a_limit_beyond_the_source_changes_nothing_but_the_type() -> None:
    result = BatchRunner().run(Pipeline(name="p", source=Numbers()), limit=50).drain()
    assert (result.ledger.ready, result.type) == (5, RunType.PARTIAL)


def test_a_full_run_goes_on_behind_a_partial_one(tmp_path: Any) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
    pipeline = Pipeline(name="p", source=Numbers, storage=storage)
    BatchRunner().run(pipeline, limit=2).drain()
    full = BatchRunner().run(pipeline).drain()
    assert (full.type, full.ledger.unchanged, full.ledger.ready) == (RunType.FULL, 2, 3)
    assert [run.record["type"] for run in storage.runs("p")] == ["full", "partial"]


@pytest.mark.slow
def test_a_replay_is_a_run_of_its_own_type(tmp_path: Any) -> None:
    broken = True

    @stage
    def moody(sample: Sample) -> Sample:
        if broken:
            raise ValueError("not today")
        return sample

    pipeline = Pipeline(name="p", source=["a"], stages=[moody], storage=SQLStorage(f"sqlite:///{tmp_path / 'x.db'}"))
    BatchRunner().run(pipeline).drain()
    broken = False
    replayed = BatchRunner().replay(pipeline).drain()
    assert (replayed.type, replayed.ledger.ready) == (RunType.REPLAY, 1)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
def test_a_limit_is_a_positive_number_of_samples(limit: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        BatchRunner().run(Pipeline(name="p", source=Numbers()), limit=limit)
    assert str(raised.value) == (
        f"BatchRunner().run(limit={limit!r}): must be a positive number of samples, or None for all"
    )
