"""The telemetry of a stage call as one would write it by hand: the reference that `forge_otel` is measured against.

It is written the way OpenTelemetry's own instrumentations are: wrapt puts a wrapper around the method, which works in
`start_as_current_span` and records into instruments that were created once. The span and the metrics are those of
`forge_otel`, attribute by attribute; a test compares them. Where there was a choice, it fell in favour of this code: it
does not ask whether instrumentation is suppressed, has no hooks, emits no log events, and survives no fault of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from timeit import default_timer
from typing import Any
from uuid import uuid4

from opentelemetry.instrumentation.utils import unwrap
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, Status, StatusCode, TracerProvider
from wrapt import wrap_function_wrapper

from forge.execution.results import Verdict
from forge.execution.stage_executor import StageExecutor

RUN_ID = str(uuid4())
"""The id of the run, of which by hand there is one in a process."""


def instrument(tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
    """Put the telemetry around `StageExecutor.apply` and `apply_async`."""
    tracer = tracer_provider.get_tracer("by hand")
    meter = meter_provider.get_meter("by hand")
    duration = meter.create_histogram("forge.stage.duration", "s")
    executions = meter.create_counter("forge.stage.executions", "{execution}")
    busy = meter.create_counter("forge.stage.busy.time", "s")
    failures = meter.create_counter("forge.stage.failures", "{failure}")

    def apply(wrapped: Callable[..., Verdict], _: StageExecutor, args: Any, kwargs: Any) -> Verdict:
        stage, sample = args
        known = {"forge.pipeline.name": sample.pipeline, "forge.stage.name": stage.name}
        with tracer.start_as_current_span(
            f"forge.stage {stage.name}", attributes={**known, "forge.run.id": RUN_ID, "forge.sample.id": sample.id}
        ) as span:
            started = default_timer()
            verdict = wrapped(*args, **kwargs)
            record(span, known, verdict, default_timer() - started)
        return verdict

    async def apply_async(
        wrapped: Callable[..., Awaitable[Verdict]], _: StageExecutor, args: Any, kwargs: Any
    ) -> Verdict:
        stage, sample = args
        known = {"forge.pipeline.name": sample.pipeline, "forge.stage.name": stage.name}
        with tracer.start_as_current_span(
            f"forge.stage {stage.name}", attributes={**known, "forge.run.id": RUN_ID, "forge.sample.id": sample.id}
        ) as span:
            started = default_timer()
            verdict = await wrapped(*args, **kwargs)
            record(span, known, verdict, default_timer() - started)
        return verdict

    def record(span: Span, known: dict[str, str], verdict: Verdict, elapsed: float) -> None:
        """Within the span, so that exemplars point to it."""
        outcome = {"forge.stage.outcome": verdict.outcome.value}
        ending = outcome
        if verdict.error is not None:
            assert verdict.error_type is not None
            ending = {**outcome, "error.type": verdict.error_type}
            failures.add(1, {**known, "error.type": verdict.error_type})
            if span.is_recording():
                # What `start_as_current_span` itself does with an exception that leaves its block.
                span.record_exception(verdict.error)
                span.set_status(Status(StatusCode.ERROR, str(verdict.error)))
        if span.is_recording():
            span.set_attributes(ending)
        duration.record(elapsed, {**known, **ending})
        executions.add(1, {**known, **outcome})
        busy.add(verdict.busy, known)

    wrap_function_wrapper("forge.execution.stage_executor", "StageExecutor.apply", apply)
    wrap_function_wrapper("forge.execution.stage_executor", "StageExecutor.apply_async", apply_async)


def uninstrument() -> None:
    """Take it away again."""
    unwrap(StageExecutor, "apply")
    unwrap(StageExecutor, "apply_async")
