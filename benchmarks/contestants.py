"""The contestants: ways to get telemetry out of a stage call.

All of them have what a process in production has: spans go through a batch processor, and the exporter behind it
discards them, because the cost of export depends on the exporter. Metrics wait for a reader.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from forge import Sample, Stage, stage

from . import discarding

Instrumented = Callable[[Stage], AbstractContextManager[Stage]]
"""Instruments a stage's calls for the time of a `with` block, which gives the stage to call."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to instrument."""

    name: str
    label: str
    setup: Callable[[], Instrumented]
    """Called once in a process of the contestant's own."""
    scenarios: Sequence[str]
    packages: Sequence[str] = ()
    """Packages to install, in an environment of its own; none where it needs no more than `forge_otel` does."""


EVERYTHING = ("call", "failed", "retried", "async", "batch")


def tracer_provider(*, recording: bool = True) -> Any:
    """Records every span, or none."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - not everybody has it
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON  # noqa: PLC0415

    provider = TracerProvider(sampler=ALWAYS_ON if recording else ALWAYS_OFF)
    provider.add_span_processor(BatchSpanProcessor(discarding.span_exporter()))
    return provider


def meter_provider() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - not everybody has it
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415

    return MeterProvider([InMemoryMetricReader()])


def logger_provider() -> Any:
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - not everybody has it
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415

    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(discarding.log_exporter()))
    return provider


def forge_otel(**settings: Any) -> Instrumented:
    """`forge_otel` with providers for all signals."""
    providers = {
        "tracer_provider": tracer_provider(),
        "meter_provider": meter_provider(),
        "logger_provider": logger_provider(),
    }
    return _forge_otel(**providers, **settings)


def without_sdk() -> Instrumented:
    """`forge_otel` in a process that has configured no OpenTelemetry SDK."""
    return _forge_otel()


def _forge_otel(**arguments: Any) -> Instrumented:
    from forge_otel import ForgeInstrumentor  # noqa: PLC0415 - the other environments have none

    @contextmanager
    def instrumented(stage: Stage) -> Iterator[Stage]:
        ForgeInstrumentor().instrument(**arguments)
        try:
            yield stage
        finally:
            ForgeInstrumentor().uninstrument()

    return instrumented


def by_hand(*, recording: bool) -> Instrumented:
    from . import by_hand as reference  # noqa: PLC0415 - it needs OpenTelemetry

    tracers, meters = tracer_provider(recording=recording), meter_provider()

    @contextmanager
    def instrumented(stage: Stage) -> Iterator[Stage]:
        reference.instrument(tracers, meters)
        try:
            yield stage
        finally:
            reference.uninstrument()

    return instrumented


def logfire() -> Instrumented:
    """Spans only; without the arguments, which it would record by default."""
    library: Any = importlib.import_module("logfire")
    export: Any = importlib.import_module("opentelemetry.sdk.trace.export")
    library.configure(
        send_to_logfire=False,
        console=False,
        inspect_arguments=False,
        additional_span_processors=[export.BatchSpanProcessor(discarding.span_exporter())],
    )
    return _decorated(library.instrument("stage", extract_args=False))


def traceloop() -> Instrumented:
    """Spans only; without the arguments and results, which it would record by default."""
    os.environ["TRACELOOP_TRACE_CONTENT"] = "false"
    sdk: Any = importlib.import_module("traceloop.sdk")
    decorators: Any = importlib.import_module("traceloop.sdk.decorators")
    sdk.Traceloop.init(
        app_name="benchmark", exporter=discarding.span_exporter(), instruments=set(), telemetry_enabled=False
    )
    return _decorated(decorators.task(name="stage"))


def ddtrace() -> Instrumented:
    """Spans only, to a writer that discards them: there is no agent, and nothing that only an agent would want."""
    for name in ("INSTRUMENTATION_TELEMETRY_ENABLED", "REMOTE_CONFIGURATION_ENABLED", "RUNTIME_METRICS_ENABLED"):
        os.environ[f"DD_{name}"] = "false"
    tracer: Any = importlib.import_module("ddtrace.trace").tracer
    base: Any = importlib.import_module("ddtrace.internal.writer").TraceWriter

    class Discard(base):  # type: ignore[misc]  # it is a class
        def write(self, spans: object = None) -> None:
            pass

        def flush_queue(self) -> None:
            pass

        def stop(self, timeout: float | None = None) -> None:
            pass

        def recreate(self, *_: object, **__: object) -> Any:
            return self

    tracer._span_aggregator.writer = Discard()  # there is no public way to give it one
    return _decorated(tracer.wrap("stage", resource="same"))


def prometheus() -> Instrumented:
    """A histogram and two counters; their labels are looked up once."""
    client: Any = importlib.import_module("prometheus_client")
    names, labels = ("pipeline", "stage", "outcome"), ("benchmark", "same", "success")
    duration = client.Histogram("stage_duration_seconds", "Duration", names).labels(*labels)
    executions = client.Counter("stage_executions", "Executions", names).labels(*labels)
    busy = client.Counter("stage_busy_seconds", "Busy time", names[:2]).labels(*labels[:2])

    def decorate(function: Callable[[Sample], Any]) -> Callable[[Sample], Any]:
        def process(sample: Sample) -> Any:
            started = perf_counter()
            result = function(sample)
            elapsed = perf_counter() - started
            duration.observe(elapsed)
            executions.inc()
            busy.inc(elapsed)
            return result

        return process

    return _decorated(decorate)


def _decorated(decorate: Callable[[Any], Any]) -> Instrumented:
    """Decorates the stage's function, which is how users of these libraries do it."""

    @contextmanager
    def instrumented(plain: Stage) -> Iterator[Stage]:
        yield stage(name=plain.name)(decorate(plain.process))

    return instrumented


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(name="no_sdk", label="forge_otel, no SDK", setup=without_sdk, scenarios=EVERYTHING),
        Contestant(
            name="untraced",
            label="forge_otel, untraced",
            setup=lambda: forge_otel(sampling_rate=0),
            scenarios=EVERYTHING,
        ),
        Contestant(name="traced", label="forge_otel, traced", setup=forge_otel, scenarios=EVERYTHING),
        Contestant(
            name="by_hand_unsampled",
            label="by hand, span not recorded",
            setup=lambda: by_hand(recording=False),
            scenarios=("call", "failed", "async"),
        ),
        Contestant(
            name="by_hand",
            label="by hand, span recorded",
            setup=lambda: by_hand(recording=True),
            scenarios=("call", "failed", "async"),
        ),
        Contestant(
            name="prometheus",
            label="prometheus_client (metrics only)",
            setup=prometheus,
            scenarios=("call",),
            packages=("prometheus-client",),
        ),
        Contestant(
            name="logfire", label="logfire (spans only)", setup=logfire, scenarios=("call",), packages=("logfire",)
        ),
        Contestant(
            name="traceloop",
            label="traceloop (spans only)",
            setup=traceloop,
            scenarios=("call",),
            packages=("traceloop-sdk", "httpx"),  # which it imports, and does not ask for
        ),
        Contestant(
            name="ddtrace", label="ddtrace (spans only)", setup=ddtrace, scenarios=("call",), packages=("ddtrace",)
        ),
    )
}
