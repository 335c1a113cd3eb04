"""What only rare runs emit: all of the vocabulary is, as `tests/support/coverage.py` sees after the last test."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from forge import ArtifactStore, BatchRunner, Measurement, Pipeline, Sample, SQLStorage, stage
from tests.support.clock import FakeClock
from tests.support.telemetry import recording


def test_sample_that_the_storage_refuses(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
    storage.query("p")  # creates the tables
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON forge_samples WHEN NEW.status = 'ready' "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    with recording() as recorded:
        run = BatchRunner().run(Pipeline(name="p", source=[Sample(id="1", data=1)], storage=storage))
        run.drain()
    storage.close()
    kind = "error.type=sqlalchemy.exc.IntegrityError, dlq.source=storage, pipeline.name=p"
    assert recorded.points["forge.dlq.enqueued"] == {kind: 1}
    failed, letter = (e for e in recorded.events if e.name in ("forge.storage.exception", "forge.dlq.enqueue"))
    for event in (failed, letter):
        assert (event.attributes["forge.pipeline.name"], event.attributes["forge.run.id"]) == ("p", run.id)
    assert letter.attributes["forge.dlq.source"] == "storage"


class Unmeasurable(Measurement):
    key = "unmeasurable"
    batch_size = 2

    def compute_batch(self, samples: Sequence[Sample]) -> Sequence[Any]:
        raise ValueError("no")


@pytest.mark.slow
def test_batch_that_cannot_be_measured_and_its_dead_letters(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
    source = [Sample(id=name, data=name) for name in "ab"]
    pipeline = Pipeline(name="p", source=source, measurements=[Unmeasurable()], storage=storage)
    with recording(events="all") as recorded:
        BatchRunner().run(pipeline).drain()
        assert len(pipeline.dead_letters.drop(["a", "b"])) == 2
    storage.close()
    batches = [event for event in recorded.events if event.name == "forge.measurement.batch_complete"]
    ends = [(batch.attributes["forge.measurement.outcome"], batch.attributes["error.type"]) for batch in batches]
    assert ends == [("error", "ValueError")]
    kind = "error.type=ValueError, dlq.source=measurement, measurement.key=unmeasurable, pipeline.name=p"
    assert recorded.points["forge.dlq.dropped"] == {kind: 2}


def test_artifact_that_a_stage_reads(tmp_path: Path) -> None:
    artifacts = ArtifactStore(str(tmp_path))
    key = artifacts.put(b"content").key

    @stage
    def reads(sample: Sample) -> Sample:
        return sample.with_data(artifacts.get(key).size)

    with recording(events="all") as recorded:
        run = BatchRunner(clock=FakeClock()).run(Pipeline(name="p", source=[Sample(id="1", data=1)], stages=[reads]))
        run.drain()
    (event,) = (event for event in recorded.events if event.name == "forge.storage.artifact_download")
    assert event.attributes == {
        "forge.artifact.key": key,
        "forge.duration": 0.0,
        "forge.pipeline.name": "p",
        "forge.run.id": run.id,
        "forge.storage.backend": "file",
        "forge.storage.operation": "download",
        "forge.storage.size": 7,
    }
