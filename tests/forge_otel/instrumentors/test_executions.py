"""Executions in the worker processes of Ray: recorded as those of other runners are."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from forge import Measurement, Pipeline, RayRunner, Sample, SQLStorage, Stage, StreamingRunner, stage, usage
from forge.runner import Runner
from forge.runner.report import report
from forge.support.layout import to_text
from tests.forge.runner.ray.pipelines import (
    Flaky,
    Picky,
    Ratio,
    Size,
    double,
    fail_some,
    faulty_batch,
    paid,
    paid_batch,
    source,
    split_some,
    wait,
)
from tests.support.ray import ON_RAY
from tests.support.telemetry import Recorded, recording

pytestmark = ON_RAY

OF_THE_RUN = {"forge.run.id", "forge.runner.name", "forge.pipeline.id", "vcs.ref.head.revision"}
OF_THE_PROCESS = {"host.name", "process.pid"}
OF_THE_MOMENT = {
    "forge.stage.queue.wait",
    "forge.stage.retry.delay",
    "forge.duration",
    "exception.stacktrace",
    "forge.trace.late",
}
OF_THE_BATCH = {"forge.stage.batch.size", "forge.measurement.batch.size"}
BATCHES = ("forge.stage.batch", "forge.measurement.batch")


def alone(storage: SQLStorage) -> Pipeline:
    return Pipeline(
        name="p",
        source=source(60),
        stages=[Flaky(), paid, fail_some, split_some],
        measurements=[Size()],
        storage=storage,
    )


def together(storage: SQLStorage) -> Pipeline:
    return Pipeline(
        name="p",
        source=source(60),
        stages=[faulty_batch, paid_batch, wait],
        measurements=[Size(), Ratio(), Picky()],
        storage=storage,
    )


def record(runner: Runner, make: Any, folder: Path, **settings: Any) -> Recorded:
    storage = SQLStorage(f"sqlite:///{folder}/{runner.name}.db")
    with recording(components=["runner", "stage", "measurement"], **settings) as recorded:
        runner.run(make(storage)).drain()
        recorded.points  # noqa: B018 - as they are now
    storage.close()
    return recorded


def shown(attributes: Any, *without: set[str]) -> str:
    left_out = OF_THE_RUN.union(*without)
    return json.dumps({key: value for key, value in sorted(attributes.items()) if key not in left_out})


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def sizes(spans: Iterable[ReadableSpan], attribute: str) -> list[int]:
    return [int(str((span.attributes or {}).get(attribute, 0))) for span in spans]


def is_batch(span: ReadableSpan) -> bool:
    return span.name.split(" ")[0] in BATCHES


def spans(recorded: Recorded) -> Counter[tuple[str, ...]]:
    """The spans, each with what it is below, without what belongs to a run or a process, and without batches."""
    known = {span_id(span): span for span in recorded.spans}

    def place(span: ReadableSpan) -> str:
        return f"{span.name} {(span.attributes or {}).get('forge.sample.id', '')}"

    return Counter(
        (
            place(known[span.parent.span_id]) if span.parent is not None else "",
            place(span),
            shown(span.attributes, OF_THE_PROCESS, OF_THE_MOMENT, OF_THE_BATCH),
            span.status.status_code.name,
            span.status.description or "",
            ", ".join(known[link.context.span_id].name for link in span.links),
        )
        for span in recorded.spans
        if not is_batch(span) and not (span.name.startswith("forge.pipeline") and span.parent is None)
    )


def metrics(recorded: Recorded, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The sums of these metrics, and the counts of histograms."""
    points = {}
    for data in recorded.collected[:1]:
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name in names:
                        points[metric.name] = {
                            shown(point.attributes): point.count if hasattr(point, "count") else point.value
                            for point in metric.data.data_points
                        }
    return points


def events(recorded: Recorded, *names: str) -> Counter[tuple[str, ...]]:
    return Counter(
        # The class of an exception that was retried stays in the worker.
        (
            event.name,
            event.severity,
            event.span,
            shown(event.attributes, OF_THE_PROCESS, OF_THE_MOMENT, {"exception.type"}),
        )
        for event in recorded.events
        if event.name in names
    )


COUNTED = (
    "forge.sample.admitted",
    "forge.sample.derived",
    "forge.sample.settled",
    "forge.stage.executions",
    "forge.stage.duration",
    "forge.stage.skips",
    "forge.stage.failures",
    "forge.stage.retries",
    "forge.stage.queue.duration",
    "forge.measurement.computations",
    "forge.measurement.cache.misses",
    "forge.measurement.duration",
    "forge.cost.calls",
    "forge.cost.tokens",
    "forge.cost.amount",
    "forge.dlq.enqueued",
)
OF_ONE = ("forge.stage.retry", "forge.stage.exception", "forge.measurement.exception", "forge.dlq.enqueue")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(StreamingRunner(), alone, tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, local_cluster: None) -> Recorded:
    return record(RayRunner(block_size=16), alone, tmp_path_factory.mktemp("there"))


def test_spans_metrics_and_events_are_those_of_another_runner(here: Recorded, there: Recorded) -> None:
    assert spans(there) == spans(here)
    assert metrics(there, COUNTED) == metrics(here, COUNTED)
    assert events(there, *OF_ONE) == events(here, *OF_ONE)
    executed = [span for span in there.spans if span.name.startswith(("forge.stage", "forge.measurement"))]
    processes = {(span.attributes or {})["process.pid"] for span in executed}
    assert len(processes) == 5
    assert os.getpid() not in processes


def check_times(recorded: Recorded) -> None:
    """Check that each span is within the one that it is below."""
    known = {span_id(span): span for span in recorded.spans}
    for span in recorded.spans:
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
        if span.parent is not None:
            above = known[span.parent.span_id]
            assert above.start_time is not None
            assert above.end_time is not None
            assert above.start_time <= span.start_time
            assert span.end_time <= above.end_time


def test_spans_of_workers_have_their_times(there: Recorded) -> None:
    check_times(there)


def test_batches_have_spans_that_their_samples_link_to(tmp_path: Path) -> None:
    here = record(StreamingRunner(), together, tmp_path)
    there = record(RayRunner(block_size=16), together, tmp_path)

    without = (  # of batches
        "forge.cost.calls",
        "forge.cost.tokens",
        "forge.cost.amount",
        "forge.stage.duration",
        "forge.stage.retries",
        "forge.stage.queue.duration",
        "forge.measurement.duration",
    )
    counted = [name for name in COUNTED if name not in without]
    assert metrics(there, counted) == metrics(here, counted)
    links = Counter(
        link.context.span_id for span in there.spans if span.name == "forge.stage paid_batch" for link in span.links
    )
    batches = {span_id(span): span for span in there.spans if span.name == "forge.stage.batch paid_batch"}
    assert links == dict(zip(batches, sizes(batches.values(), "forge.stage.batch.size"), strict=True))
    assert sizes(batches.values(), "forge.usage.input_tokens") == [16] * len(batches)
    [run] = [span for span in there.spans if span.name == "forge.pipeline p"]
    assert {span.parent.span_id if span.parent else None for span in batches.values()} == {span_id(run)}
    assert [len(span.links) for span in batches.values()] == sizes(batches.values(), "forge.stage.batch.size")


@stage(batch_size=4, max_wait=60)
def paid_apart(samples: Sequence[Sample]) -> list[Sample]:
    usage.report(provider="openai", model="m", input_tokens=len(samples), calls=1, amount=0.001)
    if len(samples) > 1:
        raise ValueError("only alone")
    return list(samples)


def test_the_usage_of_a_batch_that_failed_is_that_of_its_samples_alone_as_well(tmp_path: Path) -> None:
    def make(storage: SQLStorage) -> Pipeline:
        return Pipeline(name="p", source=source(16), stages=[paid_apart], storage=storage)

    for runner in (StreamingRunner(), RayRunner(block_size=16)):
        recorded = record(runner, make, tmp_path)
        batches = [span for span in recorded.spans if span.name == "forge.stage.batch paid_apart"]
        assert sizes(batches, "forge.usage.input_tokens") == [4 + 4] * 4


def test_what_is_not_sampled_is_counted(tmp_path: Path) -> None:
    here = record(StreamingRunner(), alone, tmp_path, sampling_rate=0.1)
    there = record(RayRunner(block_size=16), alone, tmp_path, sampling_rate=0.1)

    assert spans(there) == spans(here)  # failed and retried samples among them, after the fact
    names = (*COUNTED, "forge.telemetry.suppressed")
    assert metrics(there, names) == metrics(here, names)


@stage(batch_size=16)
def halve(samples: Sequence[Sample]) -> list[list[Sample]]:
    return [[sample.child(half, sample.data) for half in ("a", "b")] for sample in samples]


def test_batches_that_are_not_sampled_are_counted(tmp_path: Path) -> None:
    def make(storage: SQLStorage) -> Pipeline:
        return Pipeline(name="p", source=source(64), stages=[halve, paid_batch, fail_some], storage=storage)

    here = record(StreamingRunner(), make, tmp_path, sampling_rate=0.0)
    there = record(RayRunner(block_size=16), make, tmp_path, sampling_rate=0.0)

    failed = [span for span in there.spans if span.name == "forge.stage fail_some"]
    assert len(failed) == 2 * 3 * 6 + 2 * 3  # of 64
    assert spans(there) == spans(here)
    check_times(there)
    of_samples = [name for name in COUNTED if not name.startswith("forge.cost.") and name != "forge.stage.duration"]
    assert metrics(there, of_samples) == metrics(here, of_samples)
    batches = metrics(there, ["forge.stage.batch.size"])["forge.stage.batch.size"]
    assert {json.loads(text)["forge.stage.name"]: count for text, count in batches.items()} == {
        "halve": 4,
        "paid_batch": 8,
    }


def test_the_budget_of_spans_is_that_of_the_run(tmp_path: Path) -> None:
    def make(storage: SQLStorage) -> Pipeline:
        return Pipeline(name="p", source=source(60), stages=[double], measurements=[Size()], storage=storage)

    recorded = record(RayRunner(block_size=16), make, tmp_path, span_budget=50)

    # A tenth is kept for failures: there is room for 15 samples of 3 spans each.
    assert len(recorded.spans) == 1 + 15 * 3
    suppressed = metrics(recorded, ["forge.telemetry.suppressed"])["forge.telemetry.suppressed"]
    assert {json.loads(text)["forge.telemetry.reason"]: value for text, value in suppressed.items() if value} == {
        "budget": 45 * 3
    }


class Deadly(Stage):
    """Kills its process once."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark
        super().__init__()

    def process(self, sample: Sample) -> Sample:
        die_once(sample, self.mark)
        return sample


class DeadlySize(Measurement):
    """Kills its process once."""

    key = "size"

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def compute(self, sample: Sample) -> int:
        die_once(sample, self.mark)
        return 1


def die_once(sample: Sample, mark: Path) -> None:
    if sample.data["n"] == 20 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_worker_did_is_counted_once(tmp_path: Path) -> None:
    def make(storage: SQLStorage) -> Pipeline:
        return Pipeline(name="p", source=source(60), stages=[Deadly(tmp_path / "died"), double], storage=storage)

    recorded = record(RayRunner(block_size=16), make, tmp_path)

    storage = SQLStorage(f"sqlite:///{tmp_path}/ray.db")
    rows = Counter(each.status.value for each in storage.query("p").samples)
    storage_runs = storage.runs("p")
    storage.close()
    assert rows == {"ready": 60}
    points = metrics(recorded, ["forge.sample.settled", "forge.stage.executions", "forge.stage.retries"])
    assert sum(points["forge.sample.settled"].values()) == 60
    assert sum(points["forge.stage.executions"].values()) == 120
    assert Counter(span.name for span in recorded.spans)["forge.stage Deadly"] == 60
    [(lost, calls)] = [(json.loads(text), value) for text, value in points["forge.stage.retries"].items() if value]
    assert lost["error.type"] == "worker_lost"
    assert (lost["forge.stage.name"], lost["forge.stage.attempt"]) == ("Deadly", 1)
    assert calls >= 1
    assert [event.attributes["error.type"] for event in recorded.events if event.name == "forge.stage.retry"]
    # What was lost is counted in the same way everywhere: in the metric, the event, the record and the report.
    [run] = storage_runs
    stages = {each["name"]: each for each in run.record["stages"]}
    assert (stages["Deadly"]["lost"], stages["Deadly"]["retries"]) == (calls, calls)
    assert (stages["double"]["lost"], stages["double"]["retries"]) == (0, 0)
    summaries = [event.attributes for event in recorded.events if event.name == "forge.stage.summary"]
    assert {each["forge.stage.name"]: each["forge.summary.retries"] for each in summaries} == {
        "Deadly": calls,
        "double": 0,
    }

    lost_line = f"{calls} calls of Deadly handed out again because worker processes died; usage reported before is lost"
    assert f"  {lost_line}" in to_text(report(run.record)).splitlines()


def test_all_events_say_where_they_come_from(tmp_path: Path) -> None:
    def make(storage: SQLStorage) -> Pipeline:
        measurements = [Size(), Ratio()]
        return Pipeline(
            name="p", source=source(8), stages=[double, paid_batch], measurements=measurements, storage=storage
        )

    recorded = record(RayRunner(), make, tmp_path, events="all")

    names = ("forge.stage.start", "forge.stage.stop", "forge.measurement.start", "forge.measurement.stop")
    found = [event for event in recorded.events if event.name in (*names, "forge.measurement.batch_complete")]
    assert Counter(event.name for event in found) == {
        "forge.stage.start": 9,
        "forge.stage.stop": 9,
        "forge.measurement.start": 9,
        "forge.measurement.stop": 8,
        "forge.measurement.batch_complete": 1,
    }
    places = {
        (event.attributes.get("forge.stage.name", event.attributes.get("forge.measurement.key")), *where_of(event))
        for event in found
    }
    executed = [span for span in recorded.spans if span.name.startswith(("forge.stage", "forge.measurement"))]
    assert places == {(span.name.split(" ")[1], *where_of(span)) for span in executed}
    assert len(places) == 4


def where_of(one: Any) -> tuple[str, int]:
    return one.attributes["host.name"], one.attributes["process.pid"]


def test_computations_that_a_killed_worker_lost_are_counted(tmp_path: Path) -> None:
    def make(storage: SQLStorage) -> Pipeline:
        return Pipeline(name="p", source=source(60), measurements=[DeadlySize(tmp_path / "died")], storage=storage)

    recorded = record(RayRunner(block_size=16), make, tmp_path)

    storage = SQLStorage(f"sqlite:///{tmp_path}/ray.db")
    [run] = storage.runs("p")
    storage.close()
    [size] = run.record["measurements"]
    assert size["lost"] >= 1
    points = metrics(recorded, ["forge.measurement.computations", "forge.measurement.retries"])
    assert sum(points["forge.measurement.computations"].values()) == 60
    [(attributes, lost)] = points["forge.measurement.retries"].items()
    assert json.loads(attributes) == {
        "error.type": "worker_lost",
        "forge.measurement.key": "size",
        "forge.pipeline.name": "p",
    }
    assert lost == size["lost"]
