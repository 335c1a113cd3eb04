"""The manifest of a run while it goes on, and where it cannot be written."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from forge import BatchRunner, Pipeline, Sample, SQLStorage, StreamingRunner
from forge.runner.manifest import CHUNK
from tests.support.runs import ledger

if TYPE_CHECKING:
    from pathlib import Path

    from forge.runner import Runner


@pytest.mark.slow
def test_full_chunks_are_written_while_the_run_goes_on() -> None:
    storage = SQLStorage("sqlite://")
    source = [Sample(id=str(number), data=number) for number in range(CHUNK + 5)]
    with BatchRunner().run(Pipeline(name="p", source=source, storage=storage)) as run:
        for sample in run:
            written = len(list(storage.manifest(run.id)))
            if sample.data < CHUNK - 1:
                assert written == 0
                continue
            assert written == CHUNK
    storage.close()


@pytest.mark.parametrize("runner", [BatchRunner(), StreamingRunner()], ids=["batch", "streaming"])
def test_a_run_goes_on_without_its_manifest(
    tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("forge.runner.manifest.CHUNK", 3)
    storage = SQLStorage(f"sqlite:///{tmp_path}/p.db")
    storage.open()
    with sqlite3.connect(tmp_path / "p.db") as connection:
        connection.execute("CREATE TRIGGER no BEFORE INSERT ON forge_manifests BEGIN SELECT RAISE(ABORT, 'no'); END")
    connection.close()
    source = [Sample(id=str(number), data=number) for number in range(5)]
    run = runner.run(Pipeline(name="p", source=source, storage=storage))
    assert run.drain().outcome == "completed"
    assert ledger(run) == {"admitted": 5, "ready": 5}
    [row] = storage.runs("p")
    storage.close()
    assert row.outcome == "completed"
    assert caplog.messages == [f"the manifest of run {run.id} cannot be written, and is incomplete"]
