"""Switching on and off."""

from __future__ import annotations

import gc
import importlib
import logging
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    ConsoleMetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import forge_otel
from forge import BatchRunner, Measurement, Pipeline, Sample, SQLStorage, stage
from forge.execution.stage_executor import StageExecutor
from forge_otel import ForgeConfig, ForgeInstrumentor
from forge_otel.instrumentors import targets
from forge_otel.patching import faults
from forge_otel.semconv import SCHEMA_URL
from forge_otel.signals.telemetry import Telemetry
from tests.support.telemetry import Recorded


class Providers(Recorded):
    """Providers that keep what they are given; none of them is global."""

    def arguments(self) -> dict[str, Any]:
        return {
            "tracer_provider": self.tracer_provider,
            "meter_provider": self.meter_provider,
            "logger_provider": self.logger_provider,
        }

    def span_names(self) -> list[str]:
        return sorted(span.name for span in self.spans)

    def event_names(self) -> list[str]:
        return sorted(event.name for event in self.events)

    def metric_names(self) -> set[str]:
        return {name for name, points in self.points.items() if points}

    def scopes(self) -> set[tuple[str, str | None, str | None]]:
        """Name, version and schema URL of everything that was recorded."""
        found = [span.instrumentation_scope for span in self.spans]
        found += [log.instrumentation_scope for log in self.log_exporter.get_finished_logs()]
        data = self.metric_reader.get_metrics_data()
        if data is not None:
            found += [scope.scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {(scope.name, scope.version, scope.schema_url) for scope in found if scope is not None}

    def nothing(self) -> bool:
        return not self.spans and not self.events and not self.metric_names()


class Length(Measurement):
    key, version = "length", "1"

    def compute(self, sample: Sample) -> int:
        return len(sample.data)


@stage
def upper(sample: Sample) -> Sample:
    return sample.with_data(sample.data.upper())


def run_a_pipeline() -> None:
    storage = SQLStorage("sqlite://")
    pipeline = Pipeline(
        name="words",
        source=[Sample(data="a", id="a")],
        stages=[upper],
        measurements=[Length()],
        storage=storage,
    )
    with BatchRunner().run(pipeline) as run:
        assert [sample.data for sample in run] == ["A"]
    storage.close()


@pytest.fixture
def providers() -> Providers:
    return Providers()


@pytest.fixture(autouse=True)
def _instrumentor() -> Iterator[None]:
    """Whatever a test leaves is switched off."""
    yield
    if ForgeInstrumentor().is_instrumented_by_opentelemetry:
        ForgeInstrumentor().uninstrument()


def patched() -> dict[str, list[tuple[str, int]]]:
    """The `__dict__` of every class that has a target."""
    found = {}
    for target in targets(ForgeConfig().components):
        module = importlib.import_module(target.module)
        name = target.path.split(".")[0]
        found[f"{target.module}.{name}"] = [(n, id(value)) for n, value in vars(getattr(module, name)).items()]
    return found


def test_public_names() -> None:
    assert sorted(forge_otel.__all__) == ["ForgeConfig", "ForgeInstrumentor", "__version__", "instrument_worker"]


@pytest.mark.slow
def test_on_and_off(providers: Providers) -> None:
    before = patched()

    ForgeInstrumentor().instrument(**providers.arguments())
    run_a_pipeline()
    recorded = providers.span_names()
    assert recorded == [
        "forge.measurement length",
        "forge.pipeline words",
        "forge.sample",
        "forge.stage upper",
        "forge.storage write sqlite",
    ]
    assert patched() != before

    ForgeInstrumentor().uninstrument()
    assert patched() == before
    run_a_pipeline()
    assert providers.span_names() == recorded


def test_scopes_say_version_and_schema(providers: Providers) -> None:
    ForgeInstrumentor().instrument(**providers.arguments())
    run_a_pipeline()

    expected = ("forge_otel", forge_otel.__version__, SCHEMA_URL)
    assert providers.scopes() == {expected}


def test_global_providers_are_not_touched(providers: Providers) -> None:
    def global_ones() -> tuple[Any, ...]:
        return trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()

    before = global_ones()
    ForgeInstrumentor().instrument(**providers.arguments())
    run_a_pipeline()
    ForgeInstrumentor().uninstrument()

    assert all(one is other for one, other in zip(global_ones(), before, strict=True))


@pytest.mark.parametrize(
    ("component", "spans"),
    [
        ("runner", ["forge.pipeline words", "forge.sample"]),
        ("stage", ["forge.stage upper"]),
        ("measurement", ["forge.measurement length"]),
        ("storage", ["forge.storage write sqlite"]),
    ],
)
def test_each_component_alone(component: str, spans: list[str], providers: Providers) -> None:
    ForgeInstrumentor().instrument(**providers.arguments(), components={component})
    run_a_pipeline()

    assert providers.span_names() == spans
    recorded = providers.metric_names()
    # The share of cached values is one of the figures of a run, like the share of ready samples.
    recorded.discard("forge.measurement.cache.hit_ratio")
    namespaces = {"runner": {"pipeline", "sample", "source"}, "stage": {"stage", "dlq"}}.get(component, {component})
    assert {name.split(".")[1] for name in recorded} <= namespaces
    assert recorded


def test_again_without_arguments_changes_nothing(providers: Providers, caplog: pytest.LogCaptureFixture) -> None:
    """As OpenTelemetry calls it for every library that it finds, after a configuration file has instrumented it."""
    ForgeInstrumentor().instrument(**providers.arguments(), components={"stage"})
    before, telemetry = patched(), ForgeInstrumentor().telemetry
    ForgeInstrumentor().instrument(skip_dep_check=True, raise_exception_on_conflict=True)
    ForgeInstrumentor().instrument(tracer_provider=None)

    assert caplog.messages == []
    assert patched() == before
    assert ForgeInstrumentor().telemetry is telemetry
    run_a_pipeline()
    assert providers.span_names() == ["forge.stage upper"]


@pytest.mark.slow
def test_again_replaces_providers_and_settings(providers: Providers, caplog: pytest.LogCaptureFixture) -> None:
    ForgeInstrumentor().instrument(**providers.arguments(), events="all")
    before = patched()
    run_a_pipeline()
    spans, events = providers.span_names(), providers.event_names()
    other = Providers()
    ForgeInstrumentor().instrument(**other.arguments())

    assert patched() == before
    run_a_pipeline()
    assert caplog.messages == []
    assert (providers.span_names(), providers.event_names()) == (spans, events)
    assert other.span_names() == spans
    assert "forge.stage.start" in events
    assert "forge.stage.start" not in other.event_names()
    assert other.total("forge.sample.settled") == 1


def test_again_with_other_components(providers: Providers) -> None:
    untouched = patched()
    ForgeInstrumentor().instrument(**providers.arguments(), components={"stage", "storage"})
    ForgeInstrumentor().instrument(**providers.arguments(), components={"runner", "stage"})
    run_a_pipeline()

    assert providers.span_names() == ["forge.pipeline words", "forge.sample", "forge.stage upper"]
    ForgeInstrumentor().uninstrument()
    assert patched() == untouched


class LastExport(ConsoleMetricExporter):
    """Keeps what was exported last."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[Any]] = {}

    def export(self, metrics_data: MetricsData, *_: Any, **__: Any) -> MetricExportResult:
        self.values = {
            metric.name: [getattr(point, "value", None) for point in metric.data.data_points]
            for resource in metrics_data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        return MetricExportResult.SUCCESS


def test_again_flushes_the_earlier_providers() -> None:
    """They wait for an hour: what they have got is exported when they are replaced, whether in a run or outside."""
    spans, exporter = InMemorySpanExporter(), LastExport()
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=3_600_000))
    meter_provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)], shutdown_on_exit=False)
    ForgeInstrumentor().instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)
    StageExecutor().apply(upper, Sample(data="a", id="a"))
    assert not spans.get_finished_spans()
    ForgeInstrumentor().instrument(**Providers().arguments())

    assert [span.name for span in spans.get_finished_spans()] == ["forge.stage upper"]
    assert exporter.values["forge.stage.executions"] == [1]
    tracer_provider.shutdown()
    meter_provider.shutdown()


def test_the_last_export_of_earlier_meters_has_the_whole_run() -> None:
    exporter = LastExport()
    meter_provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)], shutdown_on_exit=False)
    ForgeInstrumentor().instrument(meter_provider=meter_provider)
    run = BatchRunner().run(Pipeline(name="numbers", source=map(str, range(10)), stages=[upper]))
    next(run)
    ForgeInstrumentor().instrument(**Providers().arguments())
    assert exporter.values["forge.pipeline.active"] == [1]
    assert len(list(run)) == 9

    assert exporter.values["forge.pipeline.active"] == [0]
    assert exporter.values["forge.sample.active"] == [0]
    assert 10 in exporter.values["forge.sample.settled"]
    assert exporter.values["forge.pipeline.progress.timestamp"]
    meter_provider.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.0])
@pytest.mark.parametrize("events", ["default", "all"])
def test_a_run_in_progress_keeps_its_providers(providers: Providers, rate: float, events: str) -> None:
    ForgeInstrumentor().instrument(**providers.arguments(), sampling_rate=rate, events=events)
    storage = SQLStorage("sqlite://")
    numbers = Pipeline(
        name="numbers", source=map(str, range(10)), stages=[upper], measurements=[Length()], storage=storage
    )
    run = BatchRunner().run(numbers)
    for _ in range(4):
        next(run)
    telemetry = ForgeInstrumentor().telemetry
    assert telemetry is not None
    earlier = weakref.ref(telemetry)
    del telemetry
    other = Providers()
    ForgeInstrumentor().instrument(**other.arguments())
    run_a_pipeline()
    assert len(list(run)) == 6
    storage.close()

    assert providers.span_names().count("forge.pipeline numbers") == 1
    assert "forge.pipeline words" not in providers.span_names()
    assert providers.span_names().count("forge.sample") == 10 * rate
    for metric in ("forge.sample.settled", "forge.stage.executions", "forge.measurement.computations"):
        assert providers.total(metric, "pipeline.name=numbers") == 10
        assert providers.total(metric, "pipeline.name=words") == 0
        assert other.total(metric, "pipeline.name=words") == 1
        assert other.total(metric, "pipeline.name=numbers") == 0
    assert providers.event_names().count("forge.stage.start") == (10 if events == "all" and rate else 0)
    assert providers.event_names().count("forge.pipeline.summary") == 1
    assert sorted(set(other.span_names())) == [
        "forge.measurement length",
        "forge.pipeline words",
        "forge.sample",
        "forge.stage upper",
        "forge.storage write sqlite",
    ]
    del run, numbers
    gc.collect()
    assert earlier() is None


def test_a_run_in_progress_is_observed_with_the_next_one_on_the_same_meters(providers: Providers) -> None:
    numbers = Pipeline(name="numbers", source=map(str, range(10)), stages=[upper])
    ForgeInstrumentor().instrument(**providers.arguments())
    first = BatchRunner().run(numbers)
    next(first)
    ForgeInstrumentor().instrument(meter_provider=providers.meter_provider)
    second = BatchRunner().run(Pipeline(name="numbers", source=["a", "b"], stages=[upper]))
    next(second)

    at = "pipeline.name=numbers"
    assert providers.total("forge.pipeline.active", at) == 2
    assert providers.total("forge.stage.concurrency.limit", at) == 2
    assert providers.total("forge.sample.settled", at) == 2
    assert (len(list(first)), len(list(second))) == (9, 1)
    assert providers.total("forge.pipeline.active", at) == 0
    assert providers.total("forge.sample.settled", at) == 12


def test_what_is_wrong_leaves_the_earlier_providers(
    providers: Providers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ForgeInstrumentor().instrument(**providers.arguments())
    with pytest.raises(ValueError, match="events='some'"):
        ForgeInstrumentor().instrument(**Providers().arguments(), events="some")
    monkeypatch.setattr(faults, "RAISE", False)
    ForgeInstrumentor().instrument(tracer_provider=BrokenProvider(LookupError("no tracer today")))

    run_a_pipeline()
    assert providers.span_names().count("forge.pipeline words") == 1
    assert caplog.messages == ["instrumenting failed; the pipeline continues without it: LookupError: no tracer today"]


@pytest.mark.slow
def test_exit_in_a_run_delivers_to_the_earlier_and_the_new_providers(tmp_path: Path) -> None:
    script = """
import sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from forge import BatchRunner, Pipeline, stage
from forge_otel import ForgeInstrumentor

def providers(name):
    tracers = TracerProvider()
    exporter = ConsoleSpanExporter(formatter=lambda span: f"{name}: {span.name}\\n")
    tracers.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
    return {"tracer_provider": tracers}

@stage
def same(sample):
    return sample

ForgeInstrumentor().instrument(**providers("old"))
run = BatchRunner().run(Pipeline(name="open", source=[1, 2], stages=[same]))
next(run)
ForgeInstrumentor().instrument(**providers("new"))
BatchRunner().run(Pipeline(name="later", source=[1], stages=[same])).drain()
"""
    file = tmp_path / "script.py"
    file.write_text(script, encoding="utf-8")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False, timeout=300)

    assert done.stderr == ""
    assert sorted(set(done.stdout.split("\n"))) == [
        "",
        "new: forge.pipeline later",
        "new: forge.sample",
        "new: forge.stage same",
        "old: forge.pipeline open",
        "old: forge.sample",
        "old: forge.stage same",
    ]


def test_two_instrumentors_record_once(providers: Providers) -> None:
    class Another(ForgeInstrumentor):
        _instance = None

    other = Providers()
    before = patched()
    another = Another()
    assert another is not ForgeInstrumentor()
    ForgeInstrumentor().instrument(**providers.arguments())
    another.instrument(**other.arguments())
    try:
        run_a_pipeline()
        assert providers.span_names().count("forge.pipeline words") == 1
        assert other.nothing()
    finally:
        another.uninstrument()
    run_a_pipeline()
    assert providers.span_names().count("forge.pipeline words") == 2
    ForgeInstrumentor().uninstrument()
    assert patched() == before


def test_on_again_writes_to_the_new_providers(providers: Providers) -> None:
    ForgeInstrumentor().instrument(**providers.arguments())
    run_a_pipeline()
    ForgeInstrumentor().uninstrument()
    recorded = providers.span_names()

    other = Providers()
    ForgeInstrumentor().instrument(**other.arguments())
    run_a_pipeline()

    assert other.span_names() == providers.span_names() == recorded
    assert other.metric_names()


@pytest.mark.slow
def test_a_hundred_times_leaves_nothing(providers: Providers) -> None:
    def telemetries() -> int:
        gc.collect()
        return sum(type(each) is Telemetry for each in gc.get_objects())

    before, telemetries_before = patched(), telemetries()
    for _ in range(100):
        ForgeInstrumentor().instrument(**providers.arguments())
        ForgeInstrumentor().uninstrument()

    assert patched() == before
    assert telemetries() == telemetries_before
    run_a_pipeline()
    assert providers.nothing()


def test_a_bad_keyword_is_raised_and_nothing_is_on(providers: Providers) -> None:
    before = patched()
    with pytest.raises(TypeError, match="there is no setting 'event'; there are components, "):
        ForgeInstrumentor().instrument(**providers.arguments(), event="all")
    with pytest.raises(ValueError, match="events='some': it must be one of default, all, none"):
        ForgeInstrumentor().instrument(**providers.arguments(), events="some")
    with pytest.raises(TypeError, match=r"^config='all': it is a str, which has no with_settings\(\)$"):
        ForgeInstrumentor().instrument(config="all")
    with pytest.raises(TypeError, match=r"^meter_provider=.*: it is a TracerProvider, which has no get_meter\(\)$"):
        ForgeInstrumentor().instrument(meter_provider=providers.tracer_provider)

    assert patched() == before
    assert not ForgeInstrumentor().is_instrumented_by_opentelemetry
    ForgeInstrumentor().instrument(**providers.arguments())
    run_a_pipeline()
    assert providers.span_names()


class BrokenProvider(TracerProvider):
    """A provider that cannot give a tracer."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(shutdown_on_exit=False)
        self.error = error

    def get_tracer(self, *_: Any, **__: Any) -> Any:
        raise self.error


def test_a_fault_while_instrumenting_leaves_the_pipeline_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, providers: Providers
) -> None:
    monkeypatch.setattr(faults, "RAISE", False)
    before = patched()

    ForgeInstrumentor().instrument(tracer_provider=BrokenProvider(OSError("no tracer today")))

    assert patched() == before
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "instrumenting failed; the pipeline continues without it: OSError: no tracer today"
    run_a_pipeline()
    ForgeInstrumentor().uninstrument()
    ForgeInstrumentor().instrument(**providers.arguments())
    run_a_pipeline()
    assert providers.span_names()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no tracer today")])
def test_instrumenting_that_is_interrupted_leaves_nothing(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, providers: Providers
) -> None:
    monkeypatch.setattr(faults, "RAISE", True)
    before = patched()

    with pytest.raises(type(error)):
        ForgeInstrumentor().instrument(tracer_provider=BrokenProvider(error))

    assert patched() == before
    assert not ForgeInstrumentor().is_instrumented_by_opentelemetry
    ForgeInstrumentor().instrument(**providers.arguments())
    run_a_pipeline()
    assert providers.span_names()


def test_the_environment_counts(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_OTEL_EVENTS", "none")
    monkeypatch.setenv("FORGE_OTEL_COMPONENTS", "stage,runner")
    ForgeInstrumentor().instrument(**providers.arguments())
    run_a_pipeline()

    assert providers.event_names() == []
    assert providers.span_names() == ["forge.pipeline words", "forge.sample", "forge.stage upper"]


def test_a_keyword_counts_more_than_the_environment(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_OTEL_EVENTS", "none")
    monkeypatch.setenv("FORGE_OTEL_COMPONENTS", "stage")
    ForgeInstrumentor().instrument(**providers.arguments(), events="all")
    run_a_pipeline()

    assert providers.event_names() == ["forge.stage.start", "forge.stage.stop"]


def test_a_config_counts_more_than_the_environment(providers: Providers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_OTEL_EVENTS", "none")
    monkeypatch.setenv("FORGE_OTEL_COMPONENTS", "runner")
    config = ForgeConfig(events="all", components=frozenset({"stage"}))
    ForgeInstrumentor().instrument(**providers.arguments(), config=config)
    run_a_pipeline()

    assert providers.event_names() == ["forge.stage.start", "forge.stage.stop"]


def test_a_keyword_counts_more_than_a_config(providers: Providers) -> None:
    config = ForgeConfig(events="none", components=frozenset({"stage"}))
    ForgeInstrumentor().instrument(**providers.arguments(), config=config, events="all")
    run_a_pipeline()

    assert providers.event_names() == ["forge.stage.start", "forge.stage.stop"]
    assert config.events == "none"


def test_nothing_is_required_to_be_installed() -> None:
    assert ForgeInstrumentor().instrumentation_dependencies() == ()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["forge", "forge_otel"])
def test_forge_may_be_imported_before_or_after(first: str) -> None:
    """In a process of its own, where nothing has been imported yet."""
    script = f"""
import sys
if {first!r} == "forge":
    import forge
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from forge_otel import ForgeInstrumentor

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
ForgeInstrumentor().instrument(tracer_provider=provider)
assert ("forge" in sys.modules) is ({first!r} == "forge"), "forge was imported by forge_otel"
from forge import BatchRunner, Pipeline, Sample, stage

@stage
def same(sample):
    return sample

BatchRunner().run(Pipeline(name="words", source=[Sample(data=1, id="a")], stages=[same])).drain()
print([span.name for span in exporter.get_finished_spans()])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)

    assert done.stderr == ""
    assert done.stdout.strip() == "['forge.stage same', 'forge.sample', 'forge.pipeline words']"
