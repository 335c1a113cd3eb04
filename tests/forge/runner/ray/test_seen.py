"""What is seen of a run on Ray while it goes on, and in its result: where samples are, and with which workers."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forge import Pipeline, RayRunner, RunResult, Sample, SQLStorage, Stage
from forge.progress.tracker import Tracker
from forge.runner import MeasurementSummary, Run, RunSnapshot, StageSummary
from forge.runner.in_flight import RunInFlight, Whereabouts, look
from forge.runner.introspection import lines_of
from forge.support.layout import to_text
from forge_otel.commands.cli import main_forge
from tests.support.ray import ON_RAY
from tests.support.runs import PATIENCE
from tests.support.telemetry import Recorded, recording

from .pipelines import Size, double, source

pytestmark = ON_RAY


class Held(Stage):
    """Notes its process, and waits until it is released."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        super().__init__(**settings)

    def process(self, sample: Sample) -> Sample:
        (self.folder / f"{os.getpid()}.begun").touch()
        until = time.monotonic() + 8 * PATIENCE
        while not (self.folder / "release").exists() and time.monotonic() < until:
            time.sleep(0.02)
        return sample


@dataclass
class Seen:
    """What was seen of a run while two workers were held, and at its end."""

    snapshot: RunSnapshot
    flight: RunInFlight
    table: list[str]
    during: dict[str, dict[str, Any]]
    processes: set[str]
    result: RunResult
    after: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, local_cluster: None) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("held")
    held = Held(folder, concurrency=2)
    pipeline = Pipeline(name="p", source=source(60), stages=[double, held], measurements=[Size()])
    with recording() as recorded:
        run = RayRunner(block_size=4).run(pipeline)
        thread = threading.Thread(target=run.drain)
        thread.start()
        try:
            _wait_for(run, [8, 38])
            snapshot, flight = run.snapshot(), look(run)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("forge.progress.tracker.WINDOW", 0.0)  # one look is enough
                table = to_text(Tracker(run).blocks(), 120).splitlines()
            during = _points(recorded)
        finally:
            (folder / "release").touch()
            thread.join(4 * PATIENCE)
        assert run.result is not None
        processes = {f"{path.stem} on {os.uname().nodename}" for path in folder.glob("*.begun")}
        yield Seen(snapshot, flight, table, during, processes, run.result, _points(recorded))


def _wait_for(run: Run, depths: list[int]) -> None:
    """Wait until so many samples wait for the stages. Ray takes its time on a busy machine."""
    until = time.monotonic() + 4 * PATIENCE
    while [stage.queue_depth for stage in run.snapshot().stages] != depths:
        assert time.monotonic() < until, f"waited in vain: {run.snapshot()}"
        time.sleep(0.05)


def _points(recorded: Recorded) -> dict[str, dict[str, Any]]:
    return {name: dict(points) for name, points in recorded.points.items()}


def test_a_snapshot_has_calls_workers_and_what_waits(seen: Seen) -> None:
    assert seen.snapshot.ledger.active == 10 * 4 + 4 + 4 + 1  # in blocks, for the next one, behind it, and being read
    assert [
        (stage.name, stage.active, stage.concurrency, stage.workers, stage.queue_depth, stage.queue_limit)
        for stage in seen.snapshot.stages
    ] == [("double", 0, 1, 1, 8, 0), ("Held", 2, 2, 2, 38, 0)]


def test_the_display_has_them(seen: Seen) -> None:
    assert [" ".join(line.split()) for line in seen.table[1:4]] == [
        "stage done per s active workers queue errors retries",
        "double 0 0 0/1 1 8 0 0",
        "Held 0 0 2/2 2 38 0 0",
    ]
    limit = "Held limits the run: it makes all 2 calls that it can make, and 38 samples wait. Give it more workers."
    assert seen.table[4] == limit


def test_blocks_in_flight_are_with_their_workers(seen: Seen) -> None:
    assert len(seen.processes) == 2
    first, second, *waiting = seen.flight.samples
    for each in (first, second):
        assert (each.state, each.where, each.count, each.stack) == (Whereabouts.WORKER, "Held", 4, [])
    assert {first.worker, second.worker} == seen.processes
    assert Counter((each.state, each.where, each.count, each.worker) for each in waiting) == {
        (Whereabouts.QUEUED, "Held", 4, None): 8,
        (Whereabouts.QUEUED, "double", 1, None): 9,
    }
    ids = [int(each.sample_id) for each in seen.flight.samples]
    assert sorted(ids) == [*range(0, 40, 4), *range(40, 49)]
    lines = lines_of(seen.flight.to_dict())
    assert [line.split(", first")[0].split(" for ")[0] for line in lines[:2]] == ["  4 in Held", "  4 in Held"]
    assert sorted(line.split(", first")[0] for line in lines[2:]) == ["  32 queued for Held", "  9 queued for double"]
    assert [line.split(" (")[1] for line in lines[:2]] == [
        f"process {each.worker}), first {each.sample_id}" for each in (first, second)
    ]


def test_metrics_have_them(seen: Seen) -> None:
    def of(name: str, points: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {key.split("stage.name=")[1]: value for key, value in points[name].items()}

    assert of("forge.stage.worker.active", seen.during) == {"double": 1, "Held": 2}
    assert of("forge.stage.concurrency.limit", seen.during) == {"double": 1, "Held": 2}
    assert of("forge.stage.active", seen.during) == {"double": 0, "Held": 2}
    assert of("forge.stage.queue.depth", seen.during) == {"double": 8, "Held": 38}
    assert of("forge.stage.worker.active", seen.after) == {"double": 0, "Held": 0}
    assert of("forge.stage.active", seen.after) == {"double": 0, "Held": 0}


def test_the_source_is_held_up_by_the_blocks_in_flight(seen: Seen) -> None:
    assert seen.result.source.backpressure > 0
    assert seen.after["forge.source.backpressure.time"] == {
        "pipeline.name=p": pytest.approx(seen.result.source.backpressure)
    }


def test_the_result_has_the_workers_and_their_utilization(seen: Seen) -> None:
    result = seen.result
    assert [(stage.name, stage.workers, stage.lost) for stage in result.stages] == [("double", 1, 0), ("Held", 2, 0)]
    assert result.measurements["size"].workers == 1
    parts: list[StageSummary | MeasurementSummary] = [*result.stages, *result.measurements]
    for each in parts:
        assert each.utilization is not None
        assert 0 < each.utilization <= 1
        assert each.transfer is not None
        assert each.transfer > 0
    header = next(line for line in result.report().splitlines() if line.startswith("stage"))
    assert header.split() == [
        *("stage", "done", "skip", "error", "retry", "p50", "p95", "p99", "busy", "wait"),
        *("transfer", "workers", "used"),
    ]


class Busy(Stage):
    """Works longer than it takes to start its worker and to end it."""

    def process(self, sample: Sample) -> Sample:
        time.sleep(0.1)
        return sample


def test_the_slow_stage_is_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/rows.db"
    storage = SQLStorage(url)
    stages = [double, Busy()]
    result = RayRunner(block_size=8).run(Pipeline(name="p", source=source(80), stages=stages, storage=storage)).drain()
    storage.close()
    assert (result.verdict.limit, result.verdict.stage) == ("stage", "Busy")
    assert main_forge(["show", result.run_id, "--storage", url]) == 0
    assert str(result.verdict) in " ".join(capsys.readouterr().out.split())
