"""Whatever fails inside the telemetry changes no result, no exception and no order."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.metrics import Counter, Histogram, MeterProvider, NoOpCounter, NoOpHistogram, NoOpMeter
from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from forge import BatchRunner, Measurement, Pipeline, Sample, Stage, StreamingRunner, stage
from forge.execution.stage_executor import StageExecutor
from forge_otel.patching import faults
from forge_otel.signals.delivery import Delivery
from forge_otel.support.exceptions import class_name
from tests.support.clock import FakeClock
from tests.support.runs import both_runners, wait
from tests.support.small_run import small_run
from tests.support.telemetry import Recorded, recording

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opentelemetry.context import Context

    from forge.runner import Runner


class FaultError(Exception):
    """What the parts below raise."""


def fail(*_: Any, **__: Any) -> Any:
    raise FaultError("a fault in the telemetry")


class FailingProcessor(SpanProcessor):
    def __init__(self, *, on_start: bool) -> None:
        self._on_start = on_start

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self._on_start:
            fail()

    def on_end(self, span: ReadableSpan) -> None:
        fail()


class FailingExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return fail()  # type: ignore[no-any-return]

    def shutdown(self) -> None:
        pass


class FailingLogProcessor(LogRecordProcessor):
    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        fail()

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class FailingCounter(NoOpCounter):
    add = fail


class FailingHistogram(NoOpHistogram):
    record = fail


class FailingMeter(NoOpMeter):
    """A meter whose counters and histograms fail whenever they are used."""

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Counter:
        return FailingCounter(name)

    def create_histogram(self, name: str, unit: str = "", description: str = "", **_: Any) -> Histogram:
        return FailingHistogram(name)


class FailingMeterProvider(MeterProvider):
    def get_meter(
        self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Any = None
    ) -> NoOpMeter:
        return FailingMeter(name)


HOOKS = {f"on_{what}_{when}": fail for what in ("run", "stage", "measurement") for when in ("start", "end")}


def with_faults(kind: str) -> tuple[Recorded, dict[str, Any]]:
    """Providers, and settings, with a fault of this kind."""
    recorded = Recorded()
    settings: dict[str, Any] = {}
    if kind == "span start":
        recorded.tracer_provider.add_span_processor(FailingProcessor(on_start=True))
    if kind == "span end":
        recorded.tracer_provider.add_span_processor(FailingProcessor(on_start=False))
    if kind == "exporter":
        recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(FailingExporter()))
    if kind == "event":
        recorded.logger_provider.add_log_record_processor(FailingLogProcessor())
    if kind == "instrument":
        recorded.meter_provider = FailingMeterProvider()  # type: ignore[assignment]
    if kind == "hook":
        settings = HOOKS
    return recorded, settings


def outcome_of(folder: Path) -> tuple[list[Sample], dict[str, Any]]:
    """What a small run gives to its user, but for its id and what only observers put there."""
    run = small_run(folder, FakeClock())
    ready = list(run)
    assert run.result is not None
    return ready, {**dataclasses.asdict(run.result), "run_id": None, "revision": None, "cpu": None, "carrier": None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["span start", "span end", "exporter", "event", "instrument", "hook"])
def test_a_fault_changes_nothing(tmp_path: Path, kind: str) -> None:
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
    recorded, settings = with_faults(kind)
    expected = outcome_of(tmp_path / "without")
    suppressed: list[BaseException] = []
    forget = faults.on_fault(lambda fault, _: suppressed.append(fault))
    with recording(recorded=recorded, raise_faults=False, events="all", **settings):
        assert outcome_of(tmp_path / "with") == expected
    forget()
    # The SDK itself takes care of exporters.
    assert {type(fault) for fault in suppressed} == (set() if kind == "exporter" else {FaultError})


@pytest.mark.parametrize("kind", ["span start", "span end", "exporter", "event", "hook"])
def test_counts_stay_right_where_something_else_fails(tmp_path: Path, kind: str) -> None:
    recorded, settings = with_faults(kind)
    with recording(recorded=recorded, raise_faults=False, events="all", **settings):
        small_run(tmp_path, FakeClock()).drain()
    assert recorded.total("forge.sample.settled") == 7
    assert recorded.total("forge.stage.executions") == 9
    assert recorded.total("forge.measurement.computations") == 7
    assert recorded.total("forge.dlq.enqueued") == 2


def test_faults_are_counted(tmp_path: Path) -> None:
    with recording(raise_faults=False, on_stage_start=fail) as recorded:
        run = small_run(tmp_path, FakeClock())
        run.drain()
    text = "error.type=tests.forge_otel.test_faults.FaultError, pipeline.name=small"
    assert recorded.points["forge.telemetry.faults"] == {text: 7}  # five samples, two batches
    (summary,) = (event for event in recorded.events if event.name == "forge.pipeline.summary")
    assert summary.attributes["forge.summary.faults"] == 7


class OwnBaseError(BaseException):
    pass


class RefusingError(Exception):
    """Raises wherever it is looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __str__(self) -> str:
        raise RuntimeError("no message")


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize(
    "kind",
    [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError, OwnBaseError, RefusingError],
)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_whatever_a_hook_raises_is_suppressed_and_counted(
    runner: Runner, kind: type[BaseException], is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(*_: Any) -> None:
        raise kind

    @stage(batch_size=2)
    async def later(samples: list[Sample]) -> list[Sample]:
        return samples

    @stage(batch_size=2)
    def now(samples: list[Sample]) -> list[Sample]:
        return samples

    class Length(Measurement):
        key = "length"

        async def compute(self, sample: Sample) -> int:
            return 1

    def pipeline() -> Pipeline:
        return Pipeline(name="p", source=[1, 2], stages=[later, now], measurements=[Length()])

    hooks: dict[str, Any] = dict.fromkeys(HOOKS, hook)
    faults._logged.clear()
    with recording(raise_faults=False, **hooks) as recorded:
        run = runner.run(pipeline())
        result = asyncio.run(run.adrain()) if is_async else run.drain()
        assert (result.outcome, result.ledger.ready) == ("completed", 2)
        name = class_name(kind)
        points = recorded.points["forge.telemetry.faults"]
        # The run's own two, of which the first belongs to no run yet.
        assert {text.split(",")[0] for text in points} == {f"error.type={name}"}
        assert recorded.total("forge.telemetry.faults") >= 8
    logged = [record.getMessage() for record in caplog.records if record.name == "forge_otel"]
    assert sum(name in line for line in logged) == len(HOOKS)


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize("sampling_rate", [1.0, 0.0], ids=["traced", "untraced"])
@pytest.mark.parametrize("kind", ["sync", "async", "batch", "measurement", "setup", "source"])
def test_an_error_that_cannot_be_looked_at_has_its_event_without_a_trace(
    runner: Runner, kind: str, sampling_rate: float
) -> None:
    def refuse(_: Any) -> Any:
        raise RefusingError

    async def refuse_later(_: Any) -> Any:
        raise RefusingError

    class Refusing(Measurement):
        key = "work"

        def compute(self, sample: Sample) -> Any:
            raise RefusingError

    class Unready(Stage):
        def setup(self) -> None:
            raise RefusingError

        def process(self, sample: Sample) -> Sample:
            return sample

    def source() -> list[int]:
        raise RefusingError

    stages: dict[str, Stage] = {
        "sync": stage(refuse),
        "async": stage(refuse_later),
        "batch": stage(batch_size=2)(refuse),
        "setup": Unready(),
    }
    pipeline = Pipeline(
        name="p",
        source=source if kind == "source" else [1, 2],
        stages=[stages[kind]] if kind in stages else [],
        measurements=[Refusing()] if kind == "measurement" else [],
    )
    with recording(sampling_rate=sampling_rate) as recorded:
        run = runner.run(pipeline)
        # Not `pytest.raises`, which looks at the error.
        try:
            run.drain()
            ended = None
        except Exception as error:  # noqa: BLE001 - as above
            ended = type(error)
        assert ended is (RefusingError if kind in {"setup", "source"} else None)
        name = f"{__name__}.RefusingError"
        found = [event for event in recorded.events if "exception.type" in event.attributes]
        assert found
        for event in found:
            assert event.attributes["exception.type"] == event.attributes["error.type"] == name
            assert event.attributes["exception.message"] == f"<exception str() failed: {name}>"
            assert "exception.stacktrace" not in event.attributes
        failures = {span.status.description for span in recorded.spans} - {None}
        assert failures == {f"<exception str() failed: {name}>"}


def test_hooks_get_the_span_and_what_it_is_about(tmp_path: Path) -> None:
    seen: list[tuple[str, tuple[Any, ...]]] = []

    def note(name: str) -> Any:
        return lambda span, *arguments: seen.append((f"{name} {span.name}", arguments))

    @stage
    def plain(sample: Sample) -> Sample:
        return sample

    sample = Sample(id="1", data=1)
    with recording(on_stage_start=note("start"), on_stage_end=note("end")):
        verdict = StageExecutor().apply(plain, sample)
    assert seen == [
        ("start forge.stage plain", (plain, sample)),
        ("end forge.stage plain", (plain, sample, verdict)),
    ]


@both_runners
def test_exception_of_the_source_is_the_same_object(runner: Runner) -> None:
    error = ValueError("no more")

    def source() -> Any:
        yield Sample(id="1", data=1)
        raise error

    with recording(), pytest.raises(ValueError, match="no more") as caught:
        runner.run(Pipeline(name="p", source=source)).drain()
    assert caught.value is error
    assert (error.__context__, error.__cause__) == (None, None)
    assert traceback.extract_tb(error.__traceback__)[-1].name == "source"


def test_exception_of_a_stage_is_the_same_object() -> None:
    error = ValueError("not this one")
    calls = []

    @stage
    def broken(sample: Sample) -> Sample:
        calls.append(sample.id)
        raise error

    recorded, settings = with_faults("hook")
    with recording(recorded=recorded, raise_faults=False, **settings):
        verdict = StageExecutor().apply(broken, Sample(id="1", data=1))
    assert verdict.error is error
    assert (error.__context__, error.__cause__) == (None, None)
    assert traceback.extract_tb(error.__traceback__)[-1].name == "broken"
    assert calls == ["1"]


def test_interrupt_passes_through_a_stage() -> None:
    @stage
    def interrupted(sample: Sample) -> Sample:
        raise KeyboardInterrupt

    with recording() as recorded, pytest.raises(KeyboardInterrupt):
        StageExecutor().apply(interrupted, Sample(id="1", data=1))
    assert recorded.points["forge.stage.executions"] == {"stage.name=interrupted, stage.outcome=cancelled": 1}


def test_error_that_cannot_be_put_into_words() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise FaultError("no words")

    @stage
    def broken(sample: Sample) -> Sample:
        raise SilentError

    with recording(raise_faults=False) as recorded:
        run = BatchRunner().run(Pipeline(name="p", source=[Sample(id="1", data=1)], stages=[broken]))
        assert run.drain().ledger.failed == 1
    assert recorded.total("forge.stage.failures") == 1
    assert [span.name for span in recorded.spans] == ["forge.stage broken", "forge.sample", "forge.pipeline p"]


class HangingExporter(MetricExporter):
    """Does not come back before it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.called = threading.Event()
        self.released = threading.Event()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        self.called.set()
        self.released.wait()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        pass


@both_runners
def test_exporter_that_hangs_does_not_hang_the_run(runner: Runner) -> None:
    exporter = HangingExporter()
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
    recorded = Recorded(readers=(reader,), in_memory=False)
    with recording(recorded=recorded, zero_point_timeout=0.01, shutdown_timeout=0.01):
        result = runner.run(Pipeline(name="p", source=[Sample(id="1", data=1)])).drain()
        assert result.ledger.ready == 1
        wait(exporter.called)
    exporter.released.set()
    for thread in threading.enumerate():
        if thread.name == "forge-otel-flush":
            thread.join()
    recorded.meter_provider.shutdown()


@pytest.mark.parametrize(("runs", "telemetry", "wanted"), [(2.0, 5.0, 2.0), (5.0, 3.0, 3.0)])
def test_the_flush_at_the_end_of_a_run_has_the_shorter_timeout(
    runs: float, telemetry: float, wanted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[float] = []
    monkeypatch.setattr(Delivery, "flush", lambda _, timeout: timeouts.append(timeout))
    with recording(shutdown_timeout=telemetry):
        BatchRunner(shutdown_timeout=runs).run(Pipeline(name="p", source=["a"])).drain()
    assert timeouts == [wanted]


def test_order_is_kept() -> None:
    @stage(concurrency=4)
    def plain(sample: Sample) -> Sample:
        return sample

    source = [Sample(id=str(number), data=number) for number in range(100)]
    recorded, settings = with_faults("hook")
    with recording(recorded=recorded, raise_faults=False, **settings):
        run = StreamingRunner(ordered=True).run(Pipeline(name="p", source=source, stages=[plain]))
        assert [sample.data for sample in run] == list(range(100))
