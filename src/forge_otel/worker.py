"""The telemetry of a worker process: providers, instrumented libraries, and the context of each call.

Workers write no spans, metrics or events of stages and measurements: what they execute comes home, and is recorded on
the driver. What libraries record inside a stage is exported by the worker, below the span that the driver will write.
"""

from __future__ import annotations

import inspect
import os
import random
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs, metrics, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .config.config import ForgeConfig
from .engine.detected_usage import UsageAccumulator
from .engine.remote import carrier_of, context_of
from .engine.scopes import SAMPLE
from .instrumentor import ForgeInstrumentor
from .instrumentors import costs
from .patching import faults
from .patching.patches import Layer, Patches, Target
from .signals.context import attach, get_current, with_span
from .signals.delivery import Delivery

if TYPE_CHECKING:
    from .patching.patches import Function


_DISABLED_INSTRUMENTATIONS: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"
_PREFIXES: Final = ("OTEL_", "FORGE_OTEL_")
_CONFIGURES: Final = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER", "OTEL_CONFIG_FILE")
"""Variables of which one is set where `opentelemetry-instrument` would find something to export to."""

_PROPAGATOR: Final = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
"""Reads the run's carrier, which has this form whatever `OTEL_PROPAGATORS` says here."""

_lock = threading.Lock()
_worker: _Worker | None = None


def start(carrier: Mapping[str, str]) -> Callable[[], None]:
    """Start the telemetry of this process, once; `carrier` is that of the run. Returns the function that flushes it.

    Environment variables of the driver apply where the worker's node has none of its own.
    """
    global _worker  # noqa: PLW0603 - there is one a process
    with _lock:
        if _worker is None:
            _worker = _Worker(carrier)
        else:
            _worker.enter_run(carrier)
        return _worker.flush


class _Worker:
    """The telemetry of this process."""

    def __init__(self, carrier: Mapping[str, str]) -> None:
        for name, value in carrier.items():
            if name.startswith(_PREFIXES):
                os.environ.setdefault(name, value)
        # The driver records what workers execute.
        instrumentor = ForgeInstrumentor()
        if instrumentor.is_instrumented_by_opentelemetry:  # by `opentelemetry-instrument`, say
            instrumentor.uninstrument()
        _append(_DISABLED_INSTRUMENTATIONS, "forge")
        self._timeout = 0.0
        self._delivery = Delivery()
        self._patches = Patches()
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return
        self._timeout = ForgeConfig.from_environment().shutdown_timeout
        if _is_configured() and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            _set_up()
        self._delivery.prepare(trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
        self.enter_run(carrier)
        self._patches.apply((*_TARGETS, *costs.DETECTION), self)

    def enter_run(self, carrier: Mapping[str, str]) -> None:
        """Work for a run from now on: calls begin in its context."""
        self._context = _PROPAGATOR.extract(carrier, Context())
        self._run = get_current_span(self._context).get_span_context()

    def enter(self, carriers: Sequence[str]) -> str:
        """Enter the context of a call, on samples with these carriers. Returns the carrier of the call's own span."""
        SAMPLE.set(_WorkerCall())  # type: ignore[arg-type]  # as far as the detection of usage looks at it
        contexts = [context for context in map(context_of, carriers) if context is not None]
        sampled = next((context for context in contexts if context.trace_flags.sampled), None)
        around = Context({**get_current(), **self._context})
        if sampled is None:
            # Nothing is recorded for a sample that is not traced. Without a trace of the run, others decide that.
            if self._run.is_valid:
                unsampled = contexts[0] if contexts else self._run
                attach(with_span(NonRecordingSpan(_with(unsampled, unsampled.span_id, 0)), around))
            else:
                attach(around)
            return ""
        # A batch belongs to the run's span, in whose trace it is linked to its samples.
        above = sampled if len(carriers) == 1 or not self._run.is_valid else self._run
        own = _with(above, random.getrandbits(64) or 1, sampled.trace_flags)
        attach(with_span(NonRecordingSpan(own), around))
        return carrier_of(own)

    def flush(self) -> None:
        """Deliver what was recorded so far, in bounded time."""
        with faults.protected("the flush of a worker"):
            self._delivery.flush(self._timeout)


def _with(context: SpanContext, span_id: int, flags: int) -> SpanContext:
    return SpanContext(context.trace_id, span_id, True, TraceFlags(flags), context.trace_state)


def _is_configured() -> bool:
    named = any(os.environ.get(name) for name in _CONFIGURES)
    return named or any(name.startswith("OTEL_EXPORTER_OTLP_") and value for name, value in os.environ.items())


def _set_up() -> None:
    """Set the providers and instrument the libraries, as `opentelemetry-instrument` does."""
    from opentelemetry.instrumentation.auto_instrumentation import initialize  # noqa: PLC0415 - only where needed

    # An instance of its own, on its own host: those of the driver, if it says them, are not this process's.
    _append(_RESOURCE, f"service.instance.id={uuid.uuid4()},host.name={socket.gethostname()},process.pid={os.getpid()}")
    initialize()


def _append(variable: str, value: str) -> None:
    """Add to a list in an environment variable, of which the last entry counts."""
    before = os.environ.get(variable)
    os.environ[variable] = f"{before},{value}" if before else value


# The usage of API calls that instrumentations of clients see: booked when the call has come back.


class _WorkerCall:
    """A call, as the owner of usage that is detected in it."""

    over = False

    def __init__(self) -> None:
        self.usage: UsageAccumulator | None = None


def _counted(original: Function, layer: Layer) -> Function:
    def count() -> None:
        call = SAMPLE.get() if layer.telemetry is not None else None
        if call is not None and call.usage is not None:
            call.usage.count_detected()

    if inspect.iscoroutinefunction(original):

        async def call_async(*arguments: Any, **keywords: Any) -> Any:
            try:
                return await original(*arguments, **keywords)
            finally:
                with faults.protected("detected usage"):
                    count()

        return call_async

    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return original(*arguments, **keywords)
        finally:
            with faults.protected("detected usage"):
                count()

    return call


def _executing(original: Callable[..., str], layer: Layer) -> Callable[..., str]:
    def executing(carriers: Sequence[str]) -> str:
        worker: _Worker | None = layer.telemetry
        if worker is not None:
            with faults.protected("the context of a call"):
                return worker.enter(carriers)
        return original(carriers)

    return executing


_TARGETS: Final = (
    Target("forge.execution.executions", "executing", _executing),
    *(
        Target("forge.execution.stage_executor", f"StageExecutor.{name}", _counted)
        for name in ("apply", "apply_async", "apply_batch", "apply_batch_async")
    ),
    *(
        Target("forge.execution.measurement_orchestrator", f"MeasurementOrchestrator.{name}", _counted)
        for name in ("measure", "measure_async", "measure_batch", "measure_batch_async")
    ),
)
