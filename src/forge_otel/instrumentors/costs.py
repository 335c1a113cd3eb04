"""Usage and costs: on spans when they are reported or detected, in metrics when samples settle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.call import CALL
from ..engine.detected_usage import BOOKED_FOR, DetectedCall, amount_of, book, span_of, spender_attributes, usage_of
from ..engine.scopes import RUN, SAMPLE, RunScope
from ..patching import faults
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import metrics, spans
from ..signals.metrics import Attributes
from ..signals.spans import span_name

if TYPE_CHECKING:
    from forge import Charge, Run
    from forge.costs.usage import Usage, UsageScope
    from forge.execution.item import Item

    from ..engine.call import Call
    from ..engine.scopes import SampleScope


def _where(attempt: UsageScope) -> tuple[SampleScope | Call, str] | None:
    """Return the sample or the batch that is current, and the name of the span of its stage or measurement."""
    scope = SAMPLE.get()
    if scope is not None:
        return scope, span_of(attempt)
    call = CALL.get()
    if call is None or not call.operation.spends or call.operation.span is None:
        return None
    return call, span_name(call.operation.span, call.attributes)


# Booked.


def _record(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def record(self: UsageScope, usage: Usage) -> None:
        if layer.telemetry is not None:
            try:
                where = _where(self)
                booked_for = BOOKED_FOR.get() or (where and (usage_of(where[0]), where[1]))
                if booked_for is not None:
                    accumulator, span = booked_for
                    accumulator.total(span).add(usage, usage.amount)
            except Exception as fault:  # noqa: BLE001 - it is booked all the same
                faults.suppress(fault, "the usage of a call")
        original(self, usage)

    return record


# Detected.


def _detect(invocation: Any, error: Any = None) -> None:
    """A call of a GenAI client is over; `error` is what the instrumentation says of its failure."""
    from forge.costs.reading import read  # noqa: PLC0415 - imported when there is a run, and only then needed
    from forge.costs.usage import current  # noqa: PLC0415 - as above

    attempt = current()
    if attempt is None or not getattr(invocation, "_start_span", True):  # what wraps this call is seen as well
        return
    sent, received = invocation.input_tokens, getattr(invocation, "output_tokens", None)
    cached = getattr(invocation, "cache_read_input_tokens", None) or 0
    if isinstance(cached, int) and isinstance(sent, int | None):
        cached = min(cached, sent or 0)
    asked = invocation.request_model or invocation.response_model_name
    reading = read(
        provider=invocation.provider,
        model=asked or None,
        input_tokens=0 if sent is None else sent,
        cached_input_tokens=cached,
        output_tokens=0 if received is None else received,
        error=error,
    )
    if reading.problem is not None:
        attempt.origin.costs.unreadable(reading.usage, reading.problem)
    models = frozenset((asked, invocation.response_model_name))
    owner, span = _where(attempt) or (None, "")
    known = reading.known and (sent is not None or received is not None)
    detected = DetectedCall(attempt, span, reading.usage, models, known)
    if owner is None:
        book(detected)
        return
    accumulator = usage_of(owner)
    accumulator.record_detected(detected)
    if owner.over:  # nobody else will
        accumulator.count_detected()


def _stop(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def stop(self: Any) -> None:
        finished = getattr(self, "_finished", False)
        original(self)
        if layer.telemetry is not None and not finished:
            with faults.protected("a call of a GenAI client"):
                _detect(self)

    return stop


def _fail(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def fail(self: Any, error: Any) -> None:
        finished = getattr(self, "_finished", False)
        original(self, error)
        if layer.telemetry is not None and not finished:
            with faults.protected("a call of a GenAI client"):
                _detect(self, _cause(error))

    return fail


def _cause(error: Any) -> Any:
    """Return the exception behind an error that an instrumentation reports; its class, where there is none."""
    exception = getattr(error, "exception", None)
    return exception if exception is not None else getattr(error, "type", error)


# Counted.


def _book(run: RunScope, item: Item, charges: Sequence[Charge]) -> None:
    """Count the costs of a sample, and keep them for its span."""
    scope = item.context.get(SAMPLE)
    for charge in charges:
        if scope is not None:
            usage_of(scope).total(spans.FORGE_SAMPLE.type).add(charge, amount_of(charge))
        common: Attributes = {
            **run.identity,
            **spender_attributes(charge.kind.value, charge.name),
            a.GEN_AI_PROVIDER_NAME: charge.provider,
            a.GEN_AI_REQUEST_MODEL: charge.model,
            a.FORGE_COST_USE: charge.use.value,
        }
        sent = {**common, a.GEN_AI_TOKEN_TYPE: "input"}
        received = {**common, a.GEN_AI_TOKEN_TYPE: "output"}
        for metric, value, attributes in (
            (metrics.FORGE_COST_CALLS, charge.calls, {**common, a.ERROR_TYPE: charge.error_type}),
            (metrics.FORGE_COST_TOKENS, charge.input_tokens, sent),
            (metrics.FORGE_COST_TOKENS, charge.output_tokens, received),
            (metrics.FORGE_COST_AMOUNT, charge.amount, common),
            (metrics.FORGE_COST_UNPRICED, charge.unpriced, common),
        ):
            if value:
                run.telemetry.series.get(metric, attributes).write(value)


def _spent(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def spent(self: Run, item: Item, charges: Sequence[Charge]) -> None:
        run = self.context.get(RUN) if layer.telemetry is not None else None
        if run is not None and not run.ended:
            try:
                _book(run, item, charges)
            except Exception as fault:  # noqa: BLE001 - the run has counted it
                faults.suppress(fault, "the costs of a sample")
        original(self, item, charges)

    return spent


_GENAI = "opentelemetry.util.genai.invocation"
"""The module that GenAI instrumentations share."""

DETECTION = (
    # Not a span processor, which receives no spans of unsampled traces.
    Target(_GENAI, "InferenceInvocation.stop", _stop),
    Target(_GENAI, "InferenceInvocation.fail", _fail),
    Target(_GENAI, "EmbeddingInvocation.stop", _stop),
    Target(_GENAI, "EmbeddingInvocation.fail", _fail),
)
"""Targets that detect the usage of API calls; in worker processes, there are no others."""

TARGETS = (
    Target("forge.costs.usage", "UsageScope.record", _record),
    Target("forge.runner.run", "Run.spent", _spent),
    *DETECTION,
)
