"""The gauges of the last run are those of the last full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge import BatchRunner, Pipeline, Sample, SQLStorage, stage
from tests.support.clock import FakeClock
from tests.support.telemetry import Recorded, recording

GAUGES = (
    "forge.pipeline.end.timestamp",
    "forge.pipeline.success.timestamp",
    "forge.pipeline.last_run.size",
    "forge.pipeline.last_run.success_ratio",
)


def gauges(recorded: Recorded) -> dict[str, object]:
    points = recorded.points
    return {name: points[name] for name in GAUGES}


@pytest.mark.slow
def test_partial_runs_and_replays_are_no_successes(tmp_path: Path) -> None:
    clock, healthy = FakeClock(), True

    @stage
    def moody(sample: Sample) -> Sample:
        if not healthy:
            raise ValueError("not tonight")
        return sample

    storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
    pipeline = Pipeline(name="p", source=["a", "b"], stages=[moody], storage=storage)
    with recording() as recorded:
        BatchRunner(clock=clock, resume=False).run(pipeline).drain()
        first = gauges(recorded)
        assert first["forge.pipeline.success.timestamp"] == {"pipeline.name=p": clock.time()}

        clock.advance(86400)
        healthy = False
        BatchRunner(clock=clock, resume=False).run(pipeline, limit=1).drain()
        healthy = True
        BatchRunner(clock=clock).replay(pipeline).drain()
        assert gauges(recorded) == first

        BatchRunner(clock=clock).run(pipeline).drain()
        assert gauges(recorded)["forge.pipeline.success.timestamp"] == {"pipeline.name=p": clock.time()}
    completed = {name: count for name, count in recorded.points["forge.pipeline.completed"].items() if count}
    assert completed == {
        "pipeline.name=p, run.outcome=completed, run.type=full, runner.name=batch": 2,
        "pipeline.name=p, run.outcome=completed, run.type=partial, runner.name=batch": 1,
        "pipeline.name=p, run.outcome=completed, run.type=replay, runner.name=batch": 1,
    }
