"""Dead letters: enqueued with their trace context, replayed, dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..engine.call import Call, observe
from ..engine.operation import LogEvent, MetricPoint, Operation, Result
from ..engine.scopes import SampleScope
from ..patching import faults
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import events, metrics
from ..signals.exceptions import type_and_message
from ..signals.metrics import Attributes
from ..signals.observables import failed_in

if TYPE_CHECKING:
    from forge import DeadLetter, DeadLetterQueue, Sample
    from forge.storage import WriteResult


def _letter(entry: DeadLetter) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: entry.pipeline,
        a.FORGE_SAMPLE_ID: entry.sample_id,
        a.FORGE_DLQ_SOURCE: entry.source.value,
        a.ERROR_TYPE: entry.error_type,
        **failed_in(entry.source.value, entry.where),
    }


def _enqueue_end(call: Call, _: WriteResult | None, error: BaseException | None) -> Result:
    if error is not None:
        return Result()
    entry: DeadLetter = call.arguments[1]
    body = f"Dead letter: {entry.sample_id}, {entry.error_type}, {entry.source.value} {entry.where}"
    exception: BaseException | None = call.arguments[3]
    attributes = {} if exception is None else type_and_message(exception)
    points = [MetricPoint(metrics.FORGE_DLQ_ENQUEUED)]
    return Result(points=points, events=[LogEvent(events.FORGE_DLQ_ENQUEUE, body, attributes)])


def _replay_end(_: Call, __: Sample | None, error: BaseException | None) -> Result:
    return Result() if error is not None else Result(points=[MetricPoint(metrics.FORGE_DLQ_REPLAYED)])


def _drop_end(_: Call, dropped: Sequence[DeadLetter] | None, __: BaseException | None) -> Result:
    return Result(points=[MetricPoint(metrics.FORGE_DLQ_DROPPED, 1, _letter(entry)) for entry in dropped or ()])


ENQUEUE = Operation(name="a dead letter", start=lambda _, entry, *__: _letter(entry), end=_enqueue_end)
REPLAY = Operation(name="a replay", start=lambda _, entry: _letter(entry), end=_replay_end)
DROP = Operation(name="dropping dead letters", end=_drop_end)

_propagator = TraceContextTextMapPropagator()


def _traced(entry: DeadLetter, carrier: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return the carrier with the current trace context, which is the failed sample's."""
    with faults.protected("the carrier of a dead letter"):
        span = trace.get_current_span()
        if is_instrumentation_enabled() and span.get_span_context().is_valid:
            if isinstance(span, SampleScope) and span.drop_reason is not None:
                span = trace.NonRecordingSpan(span.late_context())
            updated = dict(entry.carrier if carrier is None else carrier)
            _propagator.inject(updated, trace.set_span_in_context(span))
            return updated
    return carrier


def _enqueue(original: Callable[..., WriteResult], layer: Layer) -> Callable[..., WriteResult]:
    def enqueue(
        self: DeadLetterQueue,
        entry: DeadLetter,
        carrier: Mapping[str, str] | None = None,
        error: BaseException | None = None,
    ) -> WriteResult:
        telemetry = layer.telemetry
        if telemetry is not None:
            telemetry.observables.track_queue(self)
            carrier = _traced(entry, carrier)
        return observe(ENQUEUE, layer, original, self, entry, carrier, error)

    return enqueue


def _replay(original: Callable[..., Sample], layer: Layer) -> Callable[..., Sample]:
    def replay(self: DeadLetterQueue, entry: DeadLetter) -> Sample:
        return observe(REPLAY, layer, original, self, entry)

    return replay


def _drop(original: Callable[..., Sequence[DeadLetter]], layer: Layer) -> Callable[..., Sequence[DeadLetter]]:
    def drop(self: DeadLetterQueue, sample_ids: Iterable[str]) -> Sequence[DeadLetter]:
        telemetry = layer.telemetry
        if telemetry is not None:
            telemetry.observables.track_queue(self)
        return observe(DROP, layer, original, self, sample_ids)

    return drop


_MODULE = "forge.storage.dead_letters"

TARGETS = (
    Target(_MODULE, "DeadLetterQueue.enqueue", _enqueue),
    Target(_MODULE, "DeadLetterQueue.replay", _replay),
    Target(_MODULE, "DeadLetterQueue.drop", _drop),
)
