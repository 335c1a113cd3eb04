"""Stages, the queues in front of them, and the dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import guard
from ..operation import CALL, Call, Emission, Ending, Operation, Point
from ..patching import Layer, Target
from ..scope import SAMPLE, SampleScope
from ..semconv import attributes as a
from ..semconv import events, metrics, spans
from ..semconv.attributes import ForgeStageOutcome
from ..series import Attributes
from ..state import failed_in
from .errors import error_type

if TYPE_CHECKING:
    from forge import DeadLetter, DeadLetterQueue, Sample, Stage
    from forge.executor import StageExecutor
    from forge.item import Item
    from forge.queue import StageQueue
    from forge.results import BatchVerdict, Verdict
    from forge.storage import WriteResult


def current_sample(*_: Any) -> Sequence[SampleScope]:
    """The sample that the current context belongs to, if any."""
    scope = SAMPLE.get()
    return () if scope is None else (scope,)


def samples_of(_: Any, __: Any, items: Iterable[Item]) -> Sequence[SampleScope]:
    """The samples of a batch."""
    return [scope for item in items if (scope := item.context.get(SAMPLE)) is not None]


# One sample, or a batch.


def _start(_: StageExecutor, stage: Stage, sample: Sample) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: sample.pipeline or None,
        a.FORGE_STAGE_NAME: stage.name,
        a.FORGE_SAMPLE_ID: sample.id or None,
    }


def _start_batch(_: StageExecutor, stage: Stage, items: Sequence[Item]) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: items[0].sample.pipeline or None if items else None,
        a.FORGE_STAGE_NAME: stage.name,
        a.FORGE_STAGE_BATCH_SIZE: len(items),
    }


def _announce(call: Call) -> Sequence[Emission]:
    stage: Stage = call.arguments[1]
    return [Emission(events.FORGE_STAGE_START, f"Stage started: {stage.name}")]


def _end(call: Call, verdict: Verdict | None, error: BaseException | None) -> Ending:
    stage: Stage = call.arguments[1]
    if verdict is None:
        return _no_verdict(call, 1, error)
    said = _said(verdict)
    points = [
        Point(metrics.FORGE_STAGE_EXECUTIONS),
        Point(metrics.FORGE_STAGE_DURATION, verdict.duration),
        Point(metrics.FORGE_STAGE_BUSY_TIME, verdict.busy),
        *_retries(call, verdict.attempts),
    ]
    emissions = []
    if verdict.outcome.value == ForgeStageOutcome.ERROR:
        points.append(Point(metrics.FORGE_STAGE_FAILURES))
        emissions.append(_failed(stage, verdict, verdict.attempts))
    emissions.append(Emission(events.FORGE_STAGE_STOP, f"Stage done: {stage.name}, {verdict.outcome.value}", said))
    return Ending(attributes=said, error=verdict.error, points=points, events=emissions)


def _end_batch(call: Call, batch: BatchVerdict | None, error: BaseException | None) -> Ending:
    stage, items = call.arguments[1:]
    if batch is None:
        return _no_verdict(call, len(items), error)
    # The worst verdict stands for the batch; the first failure names the error.
    worst = min(batch.verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.outcome.value), default=None)
    said = _said(worst) if worst is not None else {}
    executions = Counter((verdict.outcome.value, verdict.skip_reason) for verdict in batch.verdicts)
    failures = [
        (item, verdict)
        for item, verdict in zip(items, batch.verdicts, strict=True)
        if verdict.outcome.value == ForgeStageOutcome.ERROR
    ]
    kinds = Counter(verdict.error_type for _, verdict in failures)
    return Ending(
        attributes=said,
        error=worst.error if worst is not None else None,
        points=[
            *(
                Point(metrics.FORGE_STAGE_EXECUTIONS, n, {a.FORGE_STAGE_OUTCOME: outcome, a.FORGE_SKIP_REASON: reason})
                for (outcome, reason), n in executions.items()
            ),
            *(Point(metrics.FORGE_STAGE_FAILURES, n, {a.ERROR_TYPE: kind}) for kind, n in kinds.items()),
            Point(metrics.FORGE_STAGE_DURATION, batch.duration),
            Point(metrics.FORGE_STAGE_BUSY_TIME, batch.busy),
            Point(metrics.FORGE_STAGE_BATCH_SIZE, len(items)),
            *_retries(call, batch.attempts),
        ],
        events=[
            *(_failed(stage, verdict, batch.attempts, item.sample.id) for item, verdict in failures),
            Emission(events.FORGE_STAGE_STOP, f"Stage done: {stage.name}, batch of {len(items)}", said),
        ],
    )


_WORST_FIRST: tuple[str, ...] = (
    ForgeStageOutcome.ERROR,
    ForgeStageOutcome.CANCELLED,
    ForgeStageOutcome.SUCCESS,
    ForgeStageOutcome.SKIP,
)
"""A batch is a skip only if all of it was skipped."""


def _no_verdict(call: Call, samples: int, error: BaseException | None) -> Ending:
    """The run ended first: by what was raised here, or while this went on. The run counts such executions, and nothing
    else about them.
    """
    said = {
        a.FORGE_STAGE_OUTCOME: ForgeStageOutcome.CANCELLED.value,
        a.ERROR_TYPE: error_type(error) if error is not None else None,
    }
    stage: Stage = call.arguments[1]
    return Ending(
        attributes=said,
        error=error,
        points=[
            Point(metrics.FORGE_STAGE_EXECUTIONS, samples),
            Point(metrics.FORGE_STAGE_DURATION, call.elapsed),
        ],
        events=[Emission(events.FORGE_STAGE_STOP, f"Stage done: {stage.name}, cancelled", said)],
    )


def _said(verdict: Verdict) -> dict[str, Any]:
    return {
        a.FORGE_STAGE_OUTCOME: verdict.outcome.value,
        a.FORGE_SKIP_REASON: verdict.skip_reason,
        a.ERROR_TYPE: verdict.error_type,
    }


def _failed(stage: Stage, verdict: Verdict, attempts: int, sample_id: str | None = None) -> Emission:
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    said = {a.ERROR_TYPE: verdict.error_type}
    return Emission(
        events.FORGE_STAGE_EXCEPTION,
        f"Stage failed: {stage.name}, {verdict.error_type}, after {tries}",
        said if sample_id is None else {**said, a.FORGE_SAMPLE_ID: sample_id},
        verdict.error,
    )


def _retries(call: Call, attempts: int) -> list[Point]:
    """The retries that were made: the last wait may have been cut short by the run's end."""
    points = []
    for attempt, kind, delay in call.notes[: attempts - 1]:
        points += [
            Point(metrics.FORGE_STAGE_RETRIES, 1, {a.FORGE_STAGE_ATTEMPT: attempt, a.ERROR_TYPE: kind}),
            Point(metrics.FORGE_STAGE_RETRY_WAIT_TIME, delay, {a.ERROR_TYPE: kind}),
        ]
    return points


STAGE = Operation(
    name="a stage",
    span=spans.FORGE_STAGE,
    start=_start,
    announce=_announce,
    end=_end,
    samples=current_sample,
    hooks="stage",
)
STAGE_BATCH = Operation(
    name="a stage's batch",
    span=spans.FORGE_STAGE_BATCH,
    start=_start_batch,
    announce=_announce,
    end=_end_batch,
    samples=samples_of,
    links_samples=True,
    hooks="stage",
    subject=lambda _, stage, items: (stage, [item.sample for item in items]),
)


def _apply(original: Callable[..., Verdict], layer: Layer) -> Callable[..., Verdict]:
    def apply(self: StageExecutor, stage: Stage, sample: Sample) -> Verdict:
        return STAGE.call(layer, original, self, stage, sample)

    return apply


def _apply_async(original: Callable[..., Awaitable[Verdict]], layer: Layer) -> Callable[..., Awaitable[Verdict]]:
    async def apply_async(self: StageExecutor, stage: Stage, sample: Sample) -> Verdict:
        return await STAGE.call_async(layer, original, self, stage, sample)

    return apply_async


def _apply_batch(original: Callable[..., BatchVerdict], layer: Layer) -> Callable[..., BatchVerdict]:
    def apply_batch(self: StageExecutor, stage: Stage, items: Sequence[Item]) -> BatchVerdict:
        return STAGE_BATCH.call(layer, original, self, stage, items)

    return apply_batch


def _apply_batch_async(
    original: Callable[..., Awaitable[BatchVerdict]], layer: Layer
) -> Callable[..., Awaitable[BatchVerdict]]:
    async def apply_batch_async(self: StageExecutor, stage: Stage, items: Sequence[Item]) -> BatchVerdict:
        return await STAGE_BATCH.call_async(layer, original, self, stage, items)

    return apply_batch_async


# Retries: an event at once, and counted with the verdict, as the run itself does.


def _retry_end(retry: Call, _: None, __: BaseException | None) -> Ending:
    _, stage, sample, error, attempt, delay = retry.arguments
    kind = error_type(error)
    execution = CALL.get()
    if execution is not None:
        execution.notes.append((attempt, kind, delay))
    said = {
        a.FORGE_STAGE_NAME: stage.name,
        a.FORGE_SAMPLE_ID: sample.id or None if sample is not None else None,
        a.FORGE_STAGE_ATTEMPT: attempt,
        a.FORGE_STAGE_RETRY_DELAY: delay,
        a.ERROR_TYPE: kind,
    }
    body = f"Stage retries: {stage.name}, {kind} in attempt {attempt}, the next one in {delay:.3g} s"
    return Ending(events=[Emission(events.FORGE_STAGE_RETRY, body, said)])


RETRY = Operation(name="a retry", end=_retry_end)


def _before_retry(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def before_retry(  # noqa: PLR0917 - the signature of the original
        self: StageExecutor, stage: Stage, sample: Sample | None, error: BaseException, attempt: int, delay: float
    ) -> None:
        RETRY.call(layer, original, self, stage, sample, error, attempt, delay)

    return before_retry


# Queues.


def _put_end(call: Call, blocked: float | None, _: BaseException | None) -> Ending:
    producer = call.arguments[2]
    if not blocked or producer is None:
        return Ending()
    return Ending(points=[Point(metrics.FORGE_STAGE_BACKPRESSURE_TIME, blocked, {a.FORGE_STAGE_NAME: producer})])


def _get_end(call: Call, item: Item | None, _: BaseException | None) -> Ending:
    queue: StageQueue = call.arguments[0]
    if item is None or queue.stage is None:
        return Ending()
    return Ending(points=[Point(metrics.FORGE_STAGE_QUEUE_DURATION, item.waited, {a.FORGE_STAGE_NAME: queue.stage})])


PUT = Operation(name="putting into a queue", end=_put_end)
GET = Operation(name="taking from a queue", end=_get_end)


def _put(original: Callable[..., float], layer: Layer) -> Callable[..., float]:
    def put(self: StageQueue, item: Item, producer: str | None = None) -> float:
        return PUT.call(layer, original, self, item, producer)

    return put


def _put_async(original: Callable[..., Awaitable[float]], layer: Layer) -> Callable[..., Awaitable[float]]:
    async def put_async(self: StageQueue, item: Item, producer: str | None = None) -> float:
        return await PUT.call_async(layer, original, self, item, producer)

    return put_async


def _get(original: Callable[..., Item | None], layer: Layer) -> Callable[..., Item | None]:
    def get(self: StageQueue, timeout: float | None = None) -> Item | None:
        return GET.call(layer, original, self, timeout)

    return get


def _get_async(original: Callable[..., Awaitable[Item | None]], layer: Layer) -> Callable[..., Awaitable[Item | None]]:
    async def get_async(self: StageQueue, timeout: float | None = None) -> Item | None:
        return await GET.call_async(layer, original, self, timeout)

    return get_async


# Dead letters.


def _letter(entry: DeadLetter) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: entry.pipeline,
        a.FORGE_SAMPLE_ID: entry.sample_id,
        a.FORGE_DLQ_SOURCE: entry.source.value,
        a.ERROR_TYPE: entry.error_type,
        **failed_in(entry.source.value, entry.where),
    }


def _enqueue_end(call: Call, _: WriteResult | None, error: BaseException | None) -> Ending:
    if error is not None:
        return Ending()
    entry: DeadLetter = call.arguments[1]
    body = f"Dead letter: {entry.sample_id}, {entry.error_type}, {entry.source.value} {entry.where}"
    return Ending(points=[Point(metrics.FORGE_DLQ_ENQUEUED)], events=[Emission(events.FORGE_DLQ_ENQUEUE, body)])


def _replay_end(_: Call, __: Sample | None, error: BaseException | None) -> Ending:
    return Ending() if error is not None else Ending(points=[Point(metrics.FORGE_DLQ_REPLAYED)])


def _drop_end(_: Call, dropped: Sequence[DeadLetter] | None, __: BaseException | None) -> Ending:
    return Ending(points=[Point(metrics.FORGE_DLQ_DROPPED, 1, _letter(entry)) for entry in dropped or ()])


ENQUEUE = Operation(name="a dead letter", start=lambda _, entry, __: _letter(entry), end=_enqueue_end)
REPLAY = Operation(name="a replay", start=lambda _, entry: _letter(entry), end=_replay_end)
DROP = Operation(name="dropping dead letters", end=_drop_end)

_propagator = TraceContextTextMapPropagator()


def _traced(entry: DeadLetter, carrier: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """The carrier with the current trace context, which is the failed sample's."""
    with guard.protected("the carrier of a dead letter"):
        if is_instrumentation_enabled() and trace.get_current_span().get_span_context().is_valid:
            filled = dict(entry.carrier if carrier is None else carrier)
            _propagator.inject(filled)
            return filled
    return carrier


def _enqueue(original: Callable[..., WriteResult], layer: Layer) -> Callable[..., WriteResult]:
    def enqueue(self: DeadLetterQueue, entry: DeadLetter, carrier: Mapping[str, str] | None = None) -> WriteResult:
        telemetry = layer.telemetry
        if telemetry is not None:
            telemetry.state.saw(self)
            carrier = _traced(entry, carrier)
        return ENQUEUE.call(layer, original, self, entry, carrier)

    return enqueue


def _replay(original: Callable[..., Sample], layer: Layer) -> Callable[..., Sample]:
    def replay(self: DeadLetterQueue, entry: DeadLetter) -> Sample:
        return REPLAY.call(layer, original, self, entry)

    return replay


def _drop(original: Callable[..., Sequence[DeadLetter]], layer: Layer) -> Callable[..., Sequence[DeadLetter]]:
    def drop(self: DeadLetterQueue, sample_ids: Iterable[str]) -> Sequence[DeadLetter]:
        return DROP.call(layer, original, self, sample_ids)

    return drop


_EXECUTOR, _QUEUE, _LETTERS = "forge.executor", "forge.queue", "forge.dead_letters"

TARGETS = (
    Target(_EXECUTOR, "StageExecutor.apply", _apply),
    Target(_EXECUTOR, "StageExecutor.apply_async", _apply_async),
    Target(_EXECUTOR, "StageExecutor.apply_batch", _apply_batch),
    Target(_EXECUTOR, "StageExecutor.apply_batch_async", _apply_batch_async),
    Target(_EXECUTOR, "StageExecutor.before_retry", _before_retry),
    Target(_QUEUE, "StageQueue.put", _put),
    Target(_QUEUE, "StageQueue.put_async", _put_async),
    Target(_QUEUE, "StageQueue.get", _get),
    Target(_QUEUE, "StageQueue.get_async", _get_async),
    Target(_LETTERS, "DeadLetterQueue.enqueue", _enqueue),
    Target(_LETTERS, "DeadLetterQueue.replay", _replay),
    Target(_LETTERS, "DeadLetterQueue.drop", _drop),
)
