"""Stages: executions for a sample or a batch, with all attempts."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..engine.call import CALL, Call, observe
from ..engine.fast_path import FastPath, observed
from ..engine.operation import NOTHING, LogEvent, MetricPoint, Operation, Result
from ..engine.scopes import SAMPLE, SampleScope
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import events, metrics, spans
from ..semconv.attributes import ForgeStageOutcome
from ..signals.exceptions import type_and_message
from ..signals.metrics import Attributes
from .error_types import error_type

if TYPE_CHECKING:
    from forge import Sample, Stage
    from forge.execution.item import Item
    from forge.execution.results import BatchVerdict, StageOutcome, Verdict
    from forge.execution.stage_executor import StageExecutor

    from ..engine.scopes import RunScope


def current_sample(*_: Any) -> Sequence[SampleScope]:
    """Return the scope of the current sample, if any."""
    scope = SAMPLE.get()
    return () if scope is None else (scope,)


def samples_of(_: Any, __: Any, items: Iterable[Item]) -> Sequence[SampleScope]:
    """Return the scopes of a batch's samples."""
    return [item.scope for item in items if item.scope is not None]


def own_sample(sample: Sample) -> Sample:
    """Return a copy of a sample that a hook may change in place."""
    from forge.pipeline.sample import with_private_values  # noqa: PLC0415 - there is a sample, so it is imported

    return with_private_values(sample)


def ids_of(_: Any, __: Any, items: Iterable[Item]) -> Sequence[str]:
    """Return the ids of a batch's samples."""
    return [item.sample.id for item in items]


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


def _announce(call: Call) -> Sequence[LogEvent]:
    stage: Stage = call.arguments[1]
    return [LogEvent(events.FORGE_STAGE_START, f"Stage started: {stage.name}")]


def _end(call: Call, verdict: Verdict | None, error: BaseException | None) -> Result:
    stage: Stage = call.arguments[1]
    if verdict is None:
        return _no_verdict(call, 1, error)
    attributes = _verdict_attributes(verdict)
    points = [
        MetricPoint(metrics.FORGE_STAGE_EXECUTIONS),
        MetricPoint(metrics.FORGE_STAGE_DURATION, verdict.duration),
        MetricPoint(metrics.FORGE_STAGE_BUSY_TIME, verdict.busy),
        *_retries(call, verdict.attempts),
    ]
    log_events = []
    if verdict.skip_reason is not None:
        points.append(MetricPoint(metrics.FORGE_STAGE_SKIPS))
    if verdict.outcome.value == ForgeStageOutcome.ERROR:
        points.append(MetricPoint(metrics.FORGE_STAGE_FAILURES))
        log_events.append(_failed(stage, verdict, verdict.attempts))
    log_events.append(
        LogEvent(events.FORGE_STAGE_STOP, f"Stage done: {stage.name}, {verdict.outcome.value}", attributes)
    )
    tail_kept = verdict.attempts > 1
    return Result(
        attributes=attributes,
        error=verdict.error,
        points=points,
        events=log_events,
        duration=verdict.duration,
        tail_kept=tail_kept,
    )


def _end_batch(call: Call, batch: BatchVerdict | None, error: BaseException | None) -> Result:
    stage, items = call.arguments[1:]
    if batch is None:
        return _no_verdict(call, len(items), error)
    # The batch call represents the batch if it failed, else the worst verdict; the first failure gives the error.
    worst = min(batch.verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.outcome.value), default=None)
    attributes = _verdict_attributes(worst) if worst is not None else {}
    error = worst.error if worst is not None else None
    points, log_events = [], []
    if batch.error is not None:
        error = batch.error
        attributes = {a.FORGE_STAGE_OUTCOME: ForgeStageOutcome.ERROR.value, a.ERROR_TYPE: batch.error_type}
        points.append(MetricPoint(metrics.FORGE_STAGE_BATCH_FAILURES))
        body = f"Batch failed: {stage.name}, {batch.error_type}, {len(items)} samples, after {_tries(batch.attempts)}"
        log_events.append(LogEvent(events.FORGE_STAGE_BATCH_EXCEPTION, body, {a.ERROR_TYPE: batch.error_type}, error))
    executions = Counter(verdict.outcome.value for verdict in batch.verdicts)
    skips = Counter(verdict.skip_reason for verdict in batch.verdicts if verdict.skip_reason is not None)
    failures = [
        (place, verdict)
        for place, verdict in enumerate(batch.verdicts)
        if verdict.outcome.value == ForgeStageOutcome.ERROR
    ]
    kinds = Counter(verdict.error_type for _, verdict in failures)
    return Result(
        attributes=attributes,
        error=error,
        points=[
            *points,
            *(
                MetricPoint(metrics.FORGE_STAGE_EXECUTIONS, n, {a.FORGE_STAGE_OUTCOME: outcome})
                for outcome, n in executions.items()
            ),
            *(MetricPoint(metrics.FORGE_STAGE_SKIPS, n, {a.FORGE_SKIP_REASON: reason}) for reason, n in skips.items()),
            *(MetricPoint(metrics.FORGE_STAGE_FAILURES, n, {a.ERROR_TYPE: kind}) for kind, n in kinds.items()),
            MetricPoint(metrics.FORGE_STAGE_DURATION, batch.duration),
            MetricPoint(metrics.FORGE_STAGE_BUSY_TIME, batch.busy),
            MetricPoint(metrics.FORGE_STAGE_BATCH_SIZE, len(items)),
            *_retries(call, batch.attempts),
        ],
        duration=batch.duration,
        tail_kept=batch.attempts > 1 or batch.error is not None,
        events=[
            *log_events,
            *(
                _failed(
                    stage,
                    verdict,
                    batch.attempts,
                    place,
                    {a.FORGE_SAMPLE_ID: items[place].sample.id, **_batch_attributes(call, batch)},
                )
                for place, verdict in failures
            ),
            LogEvent(events.FORGE_STAGE_STOP, f"Stage done: {stage.name}, batch of {len(items)}", attributes),
        ],
    )


_WORST_FIRST: tuple[str, ...] = (
    ForgeStageOutcome.ERROR,
    ForgeStageOutcome.CANCELLED,
    ForgeStageOutcome.SUCCESS,
    ForgeStageOutcome.SKIP,
)
"""Outcomes in order of severity. The outcome of a batch is `skip` only if all its samples were skipped."""


def _no_verdict(call: Call, samples: int, error: BaseException | None) -> Result:
    """Describe an execution that the end of the run cut off, or that ended the run. The run counts such executions, but
    not their failures.
    """
    attributes = {
        a.FORGE_STAGE_OUTCOME: ForgeStageOutcome.CANCELLED.value,
        a.ERROR_TYPE: error_type(error) if error is not None else None,
    }
    stage: Stage = call.arguments[1]
    return Result(
        attributes=attributes,
        error=error,
        points=[
            MetricPoint(metrics.FORGE_STAGE_EXECUTIONS, samples),
            MetricPoint(metrics.FORGE_STAGE_DURATION, call.elapsed),
        ],
        events=[LogEvent(events.FORGE_STAGE_STOP, f"Stage done: {stage.name}, cancelled", attributes)],
    )


def _verdict_attributes(verdict: Verdict) -> dict[str, Any]:
    return {
        a.FORGE_STAGE_OUTCOME: verdict.outcome.value,
        a.FORGE_SKIP_REASON: verdict.skip_reason,
        a.ERROR_TYPE: verdict.error_type,
    }


def _failed(
    stage: Stage, verdict: Verdict, attempts: int, place: int | None = None, extra: Attributes = NOTHING
) -> LogEvent:
    return LogEvent(
        events.FORGE_STAGE_EXCEPTION,
        f"Stage failed: {stage.name}, {verdict.error_type}, after {_tries(attempts)}",
        {a.ERROR_TYPE: verdict.error_type, **extra},
        verdict.error,
        place,
    )


def _tries(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


def _batch_attributes(call: Call, batch: BatchVerdict) -> Attributes:
    """Return the attributes of a batch's samples: of those that were processed alone because the batch call failed."""
    size = len(call.arguments[2])
    failed = batch.error is not None and size > 1
    return {a.FORGE_STAGE_BATCH_SIZE: size, a.FORGE_STAGE_BATCH_FAILED: True} if failed else NOTHING


def _retries(call: Call, attempts: int) -> list[MetricPoint]:
    """Return the points of the retries that were made: the end of the run may have cut off the last wait."""
    points = []
    for attempt, kind, delay in call.notes[: attempts - 1]:
        points += [
            MetricPoint(metrics.FORGE_STAGE_RETRIES, 1, {a.FORGE_STAGE_ATTEMPT: attempt, a.ERROR_TYPE: kind}),
            MetricPoint(metrics.FORGE_STAGE_RETRY_WAIT_TIME, delay, {a.ERROR_TYPE: kind}),
        ]
    return points


def _cache_key(verdict: Verdict) -> Hashable:
    outcome = verdict.outcome._value_  # `value` is the same, and found slowly
    # A stage is busy for the whole duration only in a single attempt that was not cut off.
    if verdict.attempts > 1 or outcome == _CANCELLED:
        return None
    return outcome, verdict.skip_reason, verdict.error_type


_CANCELLED: Final = ForgeStageOutcome.CANCELLED.value


def usual_outcome() -> StageOutcome:
    """Return the outcome that most calls come to."""
    from forge.execution.results import StageOutcome  # noqa: PLC0415 - it is being patched, so it is imported

    return StageOutcome.SUCCESS


def usual_batch() -> Callable[[BatchVerdict], bool]:
    """Return a predicate for batches in which every sample came to it, at the first attempt."""
    success = usual_outcome()
    return lambda batch: (
        batch.error is None and batch.attempts == 1 and all(verdict.outcome is success for verdict in batch.verdicts)
    )


def _batch_values(batch: BatchVerdict, _: float) -> Sequence[float]:
    samples = len(batch.verdicts)
    return samples, batch.duration, batch.busy, samples


def _own_batch(batch: BatchVerdict) -> BatchVerdict:
    return dataclasses.replace(batch, verdicts=tuple(map(copy.copy, batch.verdicts)))


STAGE = Operation(
    name="a stage",
    span=spans.FORGE_STAGE,
    start=_start,
    announce=_announce,
    end=_end,
    samples=current_sample,
    spends=True,
    queued=True,
    sample_ids=lambda _, __, sample: [sample.id],
    hooks="stage",
    hook_arguments=lambda _, stage, sample: (stage, own_sample(sample)),
    hook_result=copy.copy,
    cache_key=_cache_key,
    has_attempts=True,
)
STAGE_BATCH = Operation(
    name="a stage's batch",
    span=spans.FORGE_STAGE_BATCH,
    start=_start_batch,
    announce=_announce,
    end=_end_batch,
    samples=samples_of,
    spends=True,
    sample_ids=ids_of,
    links_samples=True,
    hooks="stage",
    hook_arguments=lambda _, stage, items: (stage, [own_sample(item.sample) for item in items]),
    hook_result=_own_batch,
    values=_batch_values,
    each=STAGE,
    each_result=lambda batch: batch.verdicts,
    each_attributes=_batch_attributes,
)


def fast_path(run: RunScope, stage: Stage, where: Attributes = NOTHING) -> FastPath:
    """Return the fast path of a stage, whose usual verdict is success at the first attempt.

    `where` are the attributes of the process that executes it, if that is another one.
    """
    from forge.execution.results import BatchVerdict, StageOutcome, Verdict  # noqa: PLC0415 - `forge` is imported by now

    start = {a.FORGE_STAGE_NAME: stage.name, **where}
    usual = Verdict(outcome=StageOutcome.SUCCESS)
    if not stage.batch_size:
        return FastPath(run, STAGE, start, (None, stage, None), usual)
    batch = BatchVerdict(verdicts=(usual,), attempts=1, busy=0.0, duration=0.0)
    return FastPath(run, STAGE_BATCH, start, (None, stage, [None]), batch)


# Retries: an event each, and points with the verdict, when the run counts them.


def _retry_start(_: StageExecutor, stage: Stage, sample: Sample | None, *__: Any) -> Attributes:
    # For a batch, only the call of its execution has the name of the pipeline.
    execution = CALL.get()
    return {
        a.FORGE_PIPELINE_NAME: execution.attributes.get(a.FORGE_PIPELINE_NAME) if execution is not None else None,
        a.FORGE_STAGE_NAME: stage.name,
        a.FORGE_SAMPLE_ID: sample.id or None if sample is not None else None,
    }


def _retry_end(retry: Call, _: None, __: BaseException | None) -> Result:
    _, stage, _, error, attempt, delay = retry.arguments
    kind = error_type(error)
    # On the fast path there is no call before the end of the execution.
    execution = CALL.get() or SAMPLE.get()
    if execution is not None:
        execution.notes = (*execution.notes, (attempt, kind, delay))
    return Result(events=[retry_event(stage, attempt, kind, delay, type_and_message(error))])


def retry_event(stage: Stage, attempt: int, kind: str, delay: float, exception: Attributes) -> LogEvent:
    """Return the event of a failed attempt that is retried."""
    attributes = {
        a.FORGE_STAGE_ATTEMPT: attempt,
        a.FORGE_STAGE_RETRY_DELAY: delay,
        a.ERROR_TYPE: kind,
        **exception,
    }
    body = f"Stage retries: {stage.name}, {kind} in attempt {attempt}, the next one in {delay:.3g} s"
    return LogEvent(events.FORGE_STAGE_RETRY, body, attributes)


RETRY = Operation(name="a retry", start=_retry_start, end=_retry_end)


def _before_retry(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def before_retry(  # noqa: PLR0917 - the signature of the original
        self: StageExecutor, stage: Stage, sample: Sample | None, error: BaseException, attempt: int, delay: float
    ) -> None:
        observe(RETRY, layer, original, self, stage, sample, error, attempt, delay)

    return before_retry


_MODULE = "forge.execution.stage_executor"

TARGETS = (
    Target(_MODULE, "StageExecutor.apply", observed(STAGE, usual_outcome)),
    Target(_MODULE, "StageExecutor.apply_async", observed(STAGE, usual_outcome)),
    Target(_MODULE, "StageExecutor.apply_batch", observed(STAGE_BATCH, usual_batch)),
    Target(_MODULE, "StageExecutor.apply_batch_async", observed(STAGE_BATCH, usual_batch)),
    Target(_MODULE, "StageExecutor.before_retry", _before_retry),
)
