"""Metrics: every point of a small run, the state while a run goes on, zero points, and what the instruments are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics.export import (
    Gauge,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData

from forge import BatchRunner, Measurement, Pipeline, Sample, SQLStorage, StreamingRunner, stage
from forge.execution.item import Item
from forge.runner.queue import StageQueue
from forge_otel.semconv import SCHEMA_URL, metrics
from forge_otel.semconv.definitions import Instrument
from tests.support.clock import FakeClock
from tests.support.runs import wait
from tests.support.small_run import small_run
from tests.support.telemetry import Histogram, Recorded, recording

if TYPE_CHECKING:
    from pathlib import Path

EXPECTED: dict[str, dict[str, Any]] = {
    "forge.cost.budget": {
        "pipeline.name=small": 2.5,
    },
    "forge.dlq.depth": {
        "dlq.source=measurement, measurement.key=density, pipeline.name=small": 1,
        "dlq.source=measurement, measurement.key=length, pipeline.name=small": 0,
        "dlq.source=stage, pipeline.name=small, stage.name=clean": 1,
        "dlq.source=stage, pipeline.name=small, stage.name=tag": 0,
        "dlq.source=storage, pipeline.name=small": 0,
    },
    "forge.dlq.enqueued": {
        "error.type=ValueError, dlq.source=stage, pipeline.name=small, stage.name=clean": 1,
        "error.type=ZeroDivisionError, dlq.source=measurement, measurement.key=density, pipeline.name=small": 1,
    },
    "forge.dlq.oldest.timestamp": {
        "pipeline.name=small": 1700000003.0625,
    },
    "forge.measurement.batch.duration": {
        "measurement.key=length, pipeline.name=small": Histogram(2, 0.125, 0.0625, 0.0625),
    },
    "forge.measurement.batch.size": {
        "measurement.key=length, pipeline.name=small": Histogram(2, 3, 1, 2),
    },
    "forge.measurement.cache.hit_ratio": {
        "measurement.key=density, pipeline.name=small": 0.0,
        "measurement.key=length, pipeline.name=small": 0.0,
    },
    "forge.measurement.cache.hits": {
        "measurement.key=density, pipeline.name=small": 0,
        "measurement.key=length, pipeline.name=small": 0,
    },
    "forge.measurement.cache.misses": {
        "measurement.key=density, pipeline.name=small": 4,
        "measurement.key=length, pipeline.name=small": 3,
    },
    "forge.measurement.computations": {
        "measurement.key=density, measurement.outcome=cached, pipeline.name=small": 0,
        "measurement.key=density, measurement.outcome=computed, pipeline.name=small": 3,
        "measurement.key=density, measurement.outcome=error, pipeline.name=small": 1,
        "measurement.key=length, measurement.outcome=cached, pipeline.name=small": 0,
        "measurement.key=length, measurement.outcome=computed, pipeline.name=small": 3,
        "measurement.key=length, measurement.outcome=error, pipeline.name=small": 0,
    },
    "forge.measurement.duration": {
        "error.type=ZeroDivisionError, measurement.key=density, pipeline.name=small": Histogram(1, 0.125, 0.125, 0.125),
        "measurement.key=density, pipeline.name=small": Histogram(3, 0.375, 0.125, 0.125),
    },
    "forge.pipeline.active": {
        "pipeline.name=small, run.type=full, runner.name=batch": 0,
    },
    "forge.pipeline.completed": {
        "pipeline.name=small, run.outcome=cancelled, run.type=full, runner.name=batch": 0,
        "pipeline.name=small, run.outcome=completed, run.type=full, runner.name=batch": 1,
        "pipeline.name=small, run.outcome=failed, run.type=full, runner.name=batch": 0,
    },
    "forge.pipeline.duration": {
        "pipeline.name=small, run.outcome=completed, run.type=full, runner.name=batch": Histogram(
            1, 4.625, 4.625, 4.625
        ),
    },
    "forge.pipeline.end.timestamp": {
        "pipeline.name=small": 1700000004.625,
    },
    "forge.pipeline.expected_interval": {
        "pipeline.name=small": 3600.0,
    },
    "forge.pipeline.progress.timestamp": {
        "pipeline.name=small": 1700000004.625,
    },
    "forge.pipeline.last_run.size": {
        "pipeline.name=small, sample.outcome=dlq": 2,
        "pipeline.name=small, sample.outcome=failed": 0,
        "pipeline.name=small, sample.outcome=ready": 3,
        "pipeline.name=small, sample.outcome=skipped": 1,
        "pipeline.name=small, sample.outcome=split": 1,
        "pipeline.name=small, sample.outcome=unchanged": 0,
    },
    "forge.pipeline.started": {
        "pipeline.name=small, run.type=full, runner.name=batch": 1,
    },
    "forge.pipeline.success.timestamp": {
        "pipeline.name=small": 1700000004.625,
    },
    "forge.pipeline.last_run.success_ratio": {
        "pipeline.name=small": 0.6,
    },
    "forge.sample.active": {
        "pipeline.name=small": 0,
    },
    "forge.sample.admitted": {
        "pipeline.name=small": 5,
    },
    "forge.sample.derived": {
        "pipeline.name=small, stage.name=clean": 2,
        "pipeline.name=small, stage.name=tag": 0,
    },
    "forge.sample.duration": {
        "pipeline.name=small, sample.outcome=dlq": Histogram(2, 1.8125, 0.5, 1.3125),
        "pipeline.name=small, sample.outcome=ready": Histogram(3, 6.4375, 1.3125, 2.5625),
        "pipeline.name=small, sample.outcome=skipped": Histogram(1, 0.5, 0.5, 0.5),
        "pipeline.name=small, sample.outcome=split": Histogram(1, 1.5625, 1.5625, 1.5625),
    },
    "forge.sample.settled": {
        "pipeline.name=small, sample.outcome=dlq": 2,
        "pipeline.name=small, sample.outcome=failed": 0,
        "pipeline.name=small, sample.outcome=ready": 3,
        "pipeline.name=small, sample.outcome=skipped": 1,
        "pipeline.name=small, sample.outcome=split": 1,
        "pipeline.name=small, sample.outcome=unchanged": 0,
    },
    "forge.source.backpressure.time": {
        "pipeline.name=small": 0,
    },
    "forge.source.duration": {
        "pipeline.name=small": Histogram(5, 0.0, 0.0, 0.0),
    },
    "forge.source.reads": {
        "pipeline.name=small": 5,
    },
    "forge.stage.active": {
        "pipeline.name=small, stage.name=clean": 0,
        "pipeline.name=small, stage.name=tag": 0,
    },
    "forge.stage.backpressure.time": {
        "pipeline.name=small, stage.name=clean": 0,
        "pipeline.name=small, stage.name=tag": 0,
    },
    "forge.stage.batch.size": {
        "pipeline.name=small, stage.name=tag": Histogram(2, 4, 2, 2),
    },
    "forge.stage.busy.time": {
        "pipeline.name=small, stage.name=clean": 1.5,
        "pipeline.name=small, stage.name=tag": 2.0,
    },
    "forge.stage.concurrency.limit": {
        "pipeline.name=small, stage.name=clean": 0,
        "pipeline.name=small, stage.name=tag": 0,
    },
    "forge.stage.duration": {
        "error.type=ValueError, pipeline.name=small, stage.name=clean, stage.outcome=error": Histogram(
            1, 0.25, 0.25, 0.25
        ),
        "pipeline.name=small, stage.name=clean, stage.outcome=skip": Histogram(1, 0.25, 0.25, 0.25),
        "pipeline.name=small, stage.name=clean, stage.outcome=success": Histogram(3, 1.5, 0.25, 1.0),
        "pipeline.name=small, stage.name=tag, stage.outcome=success": Histogram(2, 2.0, 1.0, 1.0),
    },
    "forge.stage.executions": {
        "pipeline.name=small, stage.name=clean, stage.outcome=cancelled": 0,
        "pipeline.name=small, stage.name=clean, stage.outcome=error": 1,
        "pipeline.name=small, stage.name=clean, stage.outcome=skip": 1,
        "pipeline.name=small, stage.name=clean, stage.outcome=success": 3,
        "pipeline.name=small, stage.name=tag, stage.outcome=cancelled": 0,
        "pipeline.name=small, stage.name=tag, stage.outcome=error": 0,
        "pipeline.name=small, stage.name=tag, stage.outcome=skip": 0,
        "pipeline.name=small, stage.name=tag, stage.outcome=success": 4,
    },
    "forge.stage.failures": {
        "error.type=ValueError, pipeline.name=small, stage.name=clean": 1,
    },
    "forge.stage.latency_budget": {
        "pipeline.name=small, stage.name=clean": 2.0,
    },
    "forge.stage.retries": {
        "error.type=rate_limit, pipeline.name=small, stage.attempt=1, stage.name=clean": 1,
    },
    "forge.stage.retry_wait.time": {
        "error.type=rate_limit, pipeline.name=small, stage.name=clean": 0.5,
    },
    "forge.stage.skips": {"pipeline.name=small, skip.reason=too short, stage.name=clean": 1},
    "forge.storage.artifacts.downloaded": {
        "pipeline.name=small, storage.backend=file": 0,
    },
    "forge.storage.artifacts.uploaded": {
        "artifact.deduplicated=False, pipeline.name=small, storage.backend=file": 1,
        "artifact.deduplicated=True, pipeline.name=small, storage.backend=file": 0,
    },
    "forge.storage.io": {
        "pipeline.name=small, storage.backend=file, storage.direction=read": 0,
        "pipeline.name=small, storage.backend=file, storage.direction=write": 7,
        "pipeline.name=small, storage.backend=sqlite, storage.direction=read": 0,
        "pipeline.name=small, storage.backend=sqlite, storage.direction=write": 43,
    },
    "forge.storage.operation.duration": {
        "pipeline.name=small, storage.backend=file, storage.operation=upload": Histogram(1, 0.0, 0.0, 0.0),
        "pipeline.name=small, storage.backend=sqlite, storage.operation=write": Histogram(5, 0.0, 0.0, 0.0),
    },
    "forge.storage.samples.read": {
        "pipeline.name=small, storage.backend=sqlite": 0,
    },
    "forge.storage.samples.written": {
        "pipeline.name=small, storage.backend=sqlite, storage.write.result=inserted": 7,
        "pipeline.name=small, storage.backend=sqlite, storage.write.result=unchanged": 0,
        "pipeline.name=small, storage.backend=sqlite, storage.write.result=updated": 0,
    },
}


@pytest.mark.slow
def test_every_point_of_a_small_run(tmp_path: Path) -> None:
    with recording() as recorded:
        small_run(tmp_path, FakeClock()).drain()
        assert recorded.points == EXPECTED


def test_instruments_are_as_the_vocabulary_defines_them(tmp_path: Path) -> None:
    with recording() as recorded:
        small_run(tmp_path, FakeClock()).drain()
        data = recorded.metric_reader.get_metrics_data()
    assert data is not None
    (scope,) = (scope for resource in data.resource_metrics for scope in resource.scope_metrics)
    assert (scope.scope.name, scope.scope.schema_url) == ("forge_otel", SCHEMA_URL)
    defined = {metric.name: metric for metric in metrics.ALL}
    for metric in scope.metrics:
        definition = defined[metric.name]
        assert (metric.unit, metric.description) == (definition.unit, definition.brief)
        assert _instrument(metric) == definition.instrument
        for point in metric.data.data_points:
            assert set(point.attributes or {}) <= set(definition.attributes)
            if isinstance(point, HistogramDataPoint):
                assert point.explicit_bounds == definition.boundaries


def test_seconds_are_doubles_from_the_initial_point_on(tmp_path: Path) -> None:
    with recording() as recorded:
        small_run(tmp_path, FakeClock()).drain()
    points = recorded.points
    values = {
        metric.name: {type(value) for value in points.get(metric.name, {}).values()}
        for metric in metrics.ALL
        if metric.unit == "s" and metric.instrument is not Instrument.HISTOGRAM
    }
    assert set(values.pop("forge.stage.backpressure.time")) == {float}  # nothing but the initial point
    assert set().union(*values.values()) == {float}


def test_exemplars_point_to_the_spans(tmp_path: Path) -> None:
    with recording() as recorded:
        small_run(tmp_path, FakeClock()).drain()
        data = recorded.metric_reader.get_metrics_data()
    assert data is not None
    names = {span.context.span_id: span.name for span in recorded.spans if span.context}
    exemplars = {
        (metric.name, names[exemplar.span_id or 0])
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if isinstance(point, HistogramDataPoint)
        for exemplar in point.exemplars
    }
    assert ("forge.stage.duration", "forge.stage clean") in exemplars
    assert ("forge.measurement.batch.duration", "forge.measurement.batch length") in exemplars
    assert ("forge.sample.duration", "forge.sample") in exemplars


def _instrument(metric: Metric) -> Instrument:
    if isinstance(metric.data, Sum):
        return Instrument.COUNTER if metric.data.is_monotonic else Instrument.UPDOWNCOUNTER
    if isinstance(metric.data, Gauge):
        return Instrument.GAUGE
    assert isinstance(metric.data, HistogramData)
    return Instrument.HISTOGRAM


def test_state_while_a_run_goes_on() -> None:
    seen: dict[str, Any] = {}
    with recording() as recorded:

        @stage(concurrency=3)
        def look(sample: Sample) -> Sample:
            seen.update(recorded.points)
            return sample

        pipeline = Pipeline(name="p", source=[Sample(id="1", data=1)], stages=[look])
        StreamingRunner().run(pipeline).drain()
        after = recorded.points
    state = (
        "forge.pipeline.active",
        "forge.sample.active",
        "forge.stage.active",
        "forge.stage.concurrency.limit",
        "forge.stage.queue.depth",
        "forge.stage.queue.limit",
    )
    at = "pipeline.name=p, stage.name=look"
    keys = ("pipeline.name=p, run.type=full, runner.name=streaming", "pipeline.name=p", at, at, at, at)
    assert [seen[name] for name in state] == [
        {key: value} for key, value in zip(keys, (1, 1, 1, 3, 0, 16), strict=True)
    ]
    assert [after[name] for name in state] == [{key: 0} for key in keys]


@pytest.mark.parametrize("given", [list, iter], ids=["list", "iterator"])
def test_what_the_source_still_has_is_known_where_it_says_its_size(given: Callable[[list[Sample]], Any]) -> None:
    seen: list[Any] = []
    with recording() as recorded:

        @stage
        def look(sample: Sample) -> Sample:
            seen.append(recorded.points.get("forge.source.remaining"))
            return sample

        source = given([Sample(id=str(number), data=number) for number in range(3)])
        BatchRunner().run(Pipeline(name="p", source=source, stages=[look])).drain()
        after = recorded.points.get("forge.source.remaining")
    known = [{"pipeline.name=p": number} for number in (2, 1, 0, 0)]
    assert [*seen, after] == (known if given is list else [None] * 4)


def test_of_two_runs_what_remains_is_added_up_and_the_budget_is_not() -> None:
    seen: list[Any] = []
    with recording() as recorded:
        inner = Pipeline(name="p", source=range(10), hourly_budget=7)

        @stage
        def look(sample: Sample) -> Sample:
            with BatchRunner().run(inner) as run:
                next(run)
                points = recorded.points
                seen.append((points["forge.source.remaining"], points["forge.cost.budget"]))
            return sample

        BatchRunner().run(Pipeline(name="p", source=[1, 2, 3], stages=[look], hourly_budget=7)).drain()
    at = "pipeline.name=p"
    assert seen == [({at: left + 9}, {at: 7.0}) for left in (2, 1, 0)]


def test_queue_waits() -> None:
    clock = FakeClock()

    @stage
    def first(sample: Sample) -> Sample:
        return sample

    @stage(queue_size=1)
    def second(sample: Sample) -> Sample:
        return sample

    pipeline = Pipeline(name="p", source=[Sample(id=str(n), data=n) for n in range(20)], stages=[first, second])
    with recording() as recorded:
        StreamingRunner(clock=clock).run(pipeline).drain()
    waits = recorded.points["forge.stage.queue.duration"]
    assert waits == {
        f"pipeline.name=p, stage.name={name}": Histogram(20, 0.0, 0.0, 0.0) for name in ("first", "second")
    }
    assert recorded.points["forge.stage.backpressure.time"] == {
        "pipeline.name=p, stage.name=first": 0,
        "pipeline.name=p, stage.name=second": 0,
    }


class WatchedClock(FakeClock):
    """Says when somebody has looked at it."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at = threading.Event()

    def monotonic(self) -> float:
        now = super().monotonic()
        self.looked_at.set()
        return now


def test_backpressure_is_that_of_the_stage_that_waits() -> None:
    clock = WatchedClock()
    queue = StageQueue(1, stage="second", clock=clock)
    one, two = (Item(Sample(id=name, data=name), copy_context()) for name in ("1", "2"))
    queue.put(one, "first")
    with recording() as recorded:
        clock.looked_at.clear()
        blocked = threading.Thread(target=queue.put, args=(two, "first"))
        blocked.start()
        wait(clock.looked_at)  # it found the queue full, and holds its lock until it waits
        clock.advance(2.5)
        assert queue.get() is one
        blocked.join()
    assert recorded.points["forge.stage.backpressure.time"] == {"stage.name=first": 2.5}
    assert recorded.points["forge.stage.queue.duration"] == {"stage.name=second": Histogram(1, 2.5, 2.5, 2.5)}


class Length(Measurement):
    key = "length"

    def compute(self, sample: Sample) -> int:
        return len(sample.data)


def test_cached_measurements_are_hits_without_a_duration(tmp_path: Path) -> None:
    pipeline = Pipeline(
        name="p",
        source=[Sample(id="1", data="a"), Sample(id="2", data="bc")],
        measurements=[Length()],
        storage=SQLStorage(f"sqlite:///{tmp_path / 'x.db'}"),
    )
    BatchRunner().run(pipeline).drain()
    with recording() as recorded:
        BatchRunner(resume=False).run(pipeline).drain()
    points = recorded.points
    of = "measurement.key=length, pipeline.name=p"
    assert points["forge.measurement.cache.hits"] == {of: 2}
    assert points["forge.measurement.cache.misses"] == {of: 0}
    assert points["forge.measurement.cache.hit_ratio"] == {of: 1.0}
    assert "forge.measurement.duration" not in points


def test_dead_letters_are_counted_when_replayed_and_dropped(tmp_path: Path) -> None:
    @stage
    def broken(sample: Sample) -> Sample:
        raise ValueError(sample.id)

    pipeline = Pipeline(
        name="p",
        source=[Sample(id="1", data=1), Sample(id="2", data=2)],
        stages=[broken],
        storage=SQLStorage(f"sqlite:///{tmp_path / 'x.db'}"),
    )
    at, stored = "dlq.source=stage, pipeline.name=p, stage.name=broken", {"dlq.source=storage, pipeline.name=p": 0}
    with recording() as recorded:
        BatchRunner().run(pipeline).drain()
        pipeline.dead_letters.replay(pipeline.dead_letters.list()[0])
        assert recorded.points["forge.dlq.depth"] == {at: 2, **stored}
        pipeline.dead_letters.drop(["2", "no such sample"])
        points = recorded.points
    kind = f"error.type=ValueError, {at}"
    assert points["forge.dlq.enqueued"] == {kind: 2}
    assert points["forge.dlq.replayed"] == {kind: 1}
    assert points["forge.dlq.dropped"] == {kind: 1}
    assert points["forge.dlq.depth"] == {at: 1, **stored}


class Odd(Measurement):
    key = "odd"

    def compute(self, sample: Sample) -> int:
        if sample.data == "unmeasurable":
            raise ValueError("odd")
        return 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_the_depth_of_each_place_goes_to_zero_when_its_dead_letters_are_replayed(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}" if backend == "sqlite" else request.getfixturevalue("postgresql_url")
    broken, original = {"unworkable", "unmeasurable", "unwritten"}, SQLStorage.write

    @stage
    def one(sample: Sample) -> Sample:
        if sample.data in broken & {"unworkable"}:
            raise ValueError("unworkable")
        return sample.with_data("fine" if not broken else sample.data)

    @stage
    def two(sample: Sample) -> Sample:
        return sample

    def write(self: SQLStorage, records: Any) -> Any:
        if any(record.id in broken & {"unwritten"} and record.status.value == "ready" for record in records):
            raise OSError("no space left")
        return original(self, records)

    monkeypatch.setattr(SQLStorage, "write", write)

    def made() -> Pipeline:
        source = [Sample(id=name, data=name) for name in ("fine", "unworkable", "unmeasurable", "unwritten")]
        storage = SQLStorage(url)
        return Pipeline(name="p", source=source, stages=[one, two], measurements=[Odd()], storage=storage)

    def depths(recorded: Recorded) -> dict[str, int]:
        return recorded.points["forge.dlq.depth"]

    def expected(number: int) -> dict[str, int]:
        return {
            "dlq.source=stage, pipeline.name=p, stage.name=one": number,
            "dlq.source=stage, pipeline.name=p, stage.name=two": 0,
            "dlq.source=measurement, measurement.key=odd, pipeline.name=p": number,
            "dlq.source=storage, pipeline.name=p": number,
        }

    with recording() as recorded:
        pipeline = made()
        BatchRunner().run(pipeline).drain()
        assert depths(recorded) == expected(1)
        broken.clear()
        BatchRunner().replay(pipeline).drain()
        BatchRunner().run(pipeline).drain()  # what could not be stored has no data to be replayed with
        assert depths(recorded) == expected(0)
        assert pipeline.storage is not None
        pipeline.storage.close()
    with recording() as recorded:  # another process, which knows no dead letters
        pipeline = made()
        BatchRunner().run(pipeline).drain()
        assert depths(recorded) == expected(0)
        assert pipeline.storage is not None
        pipeline.storage.close()


def test_no_depth_is_said_before_the_storage_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    with recording() as recorded:
        original = SQLStorage.dead_letter_state

        def look(self: SQLStorage, pipeline: str) -> Any:
            seen.append(recorded.points.get("forge.dlq.depth"))
            return original(self, pipeline)

        monkeypatch.setattr(SQLStorage, "dead_letter_state", look)
        storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
        BatchRunner().run(Pipeline(name="p", source=[], stages=[], storage=storage)).drain()
        storage.close()
    assert seen == [None, {"dlq.source=storage, pipeline.name=p": 0}]


class _Exporter(MetricExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.exported: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        self.exported.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        pass


def _exported_values(data: MetricsData, name: str) -> list[Any]:
    return [
        point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    ]


def test_zero_points_are_exported_before_anything_is_counted() -> None:
    exporter = _Exporter()
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
    recorded = Recorded(readers=(reader,), in_memory=False)

    @stage
    def plain(sample: Sample) -> Sample:
        return sample

    pipeline = Pipeline(name="p", source=[Sample(id="1", data=1)], stages=[plain])
    with recording(recorded=recorded):
        BatchRunner().run(pipeline).drain()
        assert len(exporter.exported) == 2, "the second one at the end of the run"
        assert _exported_values(exporter.exported[0], "forge.sample.settled") == [0] * 6
        assert _exported_values(exporter.exported[0], "forge.pipeline.started") == [0]
        BatchRunner().run(pipeline).drain()
        assert len(exporter.exported) == 3, "zeros are written once a process"
        reader.force_flush()
    assert sum(_exported_values(exporter.exported[-1], "forge.sample.settled")) == 2
    recorded.meter_provider.shutdown()


def test_zero_points_do_not_flush_a_reader_that_is_scraped() -> None:
    class Scraped(InMemoryMetricReader):
        flushes = 0

        def force_flush(self, timeout_millis: float = 10_000) -> bool:
            self.flushes += 1
            return super().force_flush(timeout_millis)

    scraped = Scraped()
    with recording(recorded=Recorded(readers=(scraped,))) as recorded:
        BatchRunner().run(Pipeline(name="p", source=[])).drain()
    assert scraped.flushes == 0
    assert recorded.points["forge.sample.admitted"] == {"pipeline.name=p": 0}


def test_zero_points_can_be_switched_off() -> None:
    with recording(zero_points=False) as recorded:
        BatchRunner().run(Pipeline(name="p", source=[])).drain()
    assert "forge.sample.settled" not in recorded.points


def test_state_follows_the_instrumentor_that_is_active() -> None:
    recorded = Recorded()
    with recording(recorded=recorded):
        BatchRunner().run(Pipeline(name="a", source=[])).drain()
    assert "forge.pipeline.active" not in recorded.points
    with recording(recorded=recorded):
        BatchRunner().run(Pipeline(name="b", source=[])).drain()
        assert recorded.points["forge.pipeline.active"] == {"pipeline.name=b, run.type=full, runner.name=batch": 0}
    assert recorded.points["forge.pipeline.started"] == {
        "pipeline.name=a, run.type=full, runner.name=batch": 1,
        "pipeline.name=b, run.type=full, runner.name=batch": 1,
    }
