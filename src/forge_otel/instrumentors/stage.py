"""Stages: one sample or a batch, with all attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.batch_lane import BatchLane
from ..engine.call import CALL, Call, observe, observe_async
from ..engine.lane import Lane
from ..engine.operation import Emission, Ending, Operation, Point
from ..engine.scopes import RUN, SAMPLE, SampleScope
from ..patching import faults
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import events, metrics, spans
from ..semconv.attributes import ForgeStageOutcome
from ..signals.metrics import FULL, Attributes
from .errors import error_type

if TYPE_CHECKING:
    from forge import Sample, Stage
    from forge.execution.item import Item
    from forge.execution.results import BatchVerdict, Verdict
    from forge.execution.stage_executor import StageExecutor

    from ..engine.scopes import RunScope


def current_sample(*_: Any) -> Sequence[SampleScope]:
    """The sample that the current context belongs to, if any."""
    scope = SAMPLE.get()
    return () if scope is None else (scope,)


def samples_of(_: Any, __: Any, items: Iterable[Item]) -> Sequence[SampleScope]:
    """The samples of a batch."""
    return [scope for item in items if (scope := item.context.get(SAMPLE)) is not None]


def ids_of(_: Any, __: Any, items: Iterable[Item]) -> Sequence[str]:
    """The ids of a batch."""
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
    notable = verdict.attempts > 1
    return Ending(attributes=said, error=verdict.error, points=points, events=emissions, notable=notable)


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
        notable=batch.attempts > 1,
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
    spends=True,
    about=lambda _, __, sample: [sample.id],
    hooks="stage",
)
STAGE_BATCH = Operation(
    name="a stage's batch",
    span=spans.FORGE_STAGE_BATCH,
    start=_start_batch,
    announce=_announce,
    end=_end_batch,
    samples=samples_of,
    spends=True,
    about=ids_of,
    links_samples=True,
    hooks="stage",
    subject=lambda _, stage, items: (stage, [item.sample for item in items]),
)


class StageLane(Lane):
    """A stage, which usually succeeds at the first attempt."""

    __slots__ = ("_cancelled",)

    def __init__(self, run: RunScope, stage: Stage) -> None:
        from forge.execution.results import StageOutcome, Verdict  # noqa: PLC0415 - there is a run, so it is imported

        self._cancelled = StageOutcome.CANCELLED
        super().__init__(run, STAGE, stage, {a.FORGE_STAGE_NAME: stage.name}, Verdict(outcome=StageOutcome.SUCCESS))

    def likeness(self, result: Verdict) -> Hashable:
        # In a single attempt that was not cut short the stage was busy all the time.
        if result.attempts > 1 or result.outcome is self._cancelled:
            return None
        return result.outcome, result.skip_reason, result.error_type


class StageBatchLane(BatchLane):
    """A stage that takes batches, which usually succeed at the first attempt."""

    __slots__ = ("_busy", "_duration", "_executions", "_sizes", "_success")

    def __init__(self, run: RunScope, stage: Stage) -> None:
        from forge.execution.results import StageOutcome  # noqa: PLC0415 - there is a run, so it is imported

        self._success = StageOutcome.SUCCESS
        start, usual = {a.FORGE_STAGE_NAME: stage.name}, {a.FORGE_STAGE_OUTCOME: self._success.value}
        super().__init__(run, STAGE_BATCH, start, usual, a.FORGE_STAGE_BATCH_SIZE)
        self._executions = self.series(metrics.FORGE_STAGE_EXECUTIONS)
        self._duration = self.series(metrics.FORGE_STAGE_DURATION)
        self._busy = self.series(metrics.FORGE_STAGE_BUSY_TIME)
        self._sizes = self.series(metrics.FORGE_STAGE_BATCH_SIZE)

    def is_usual(self, result: BatchVerdict) -> bool:
        success = self._success
        return result.attempts == 1 and all(verdict.outcome is success for verdict in result.verdicts)

    def count(self, size: int, result: BatchVerdict) -> None:
        self._executions.append(size)
        self._duration.append(result.duration)
        self._busy.append(result.busy)
        self._sizes.append(size)


def _apply(original: Callable[..., Verdict], layer: Layer) -> Callable[..., Verdict]:
    from forge.execution.results import StageOutcome  # noqa: PLC0415 - it is being patched, so it is imported

    success, sample_of, full = StageOutcome.SUCCESS, SAMPLE.get, FULL  # what is local is found faster

    def apply(self: StageExecutor, stage: Stage, sample: Sample, started: float | None = None) -> Verdict:
        scope = sample_of()
        if scope is None or scope.busy is not None or (lane := scope.stages.get(stage.name)) is None:
            return observe(STAGE, layer, original, self, stage, sample)
        if scope.span is not None:
            return lane.trace(scope, original, self, stage, sample)
        # From here on this is `apply_async` with `Lane.begin` and `Lane.ended` written out: it is the commonest call.
        scope.busy = lane
        scope.busy_since = started = scope.clock()
        if scope.settled:
            scope.busy = None
            return original(self, stage, sample)
        try:
            verdict = original(self, stage, sample, started)
        except BaseException as error:
            lane.raised(scope, error)
            raise
        try:
            if verdict.outcome is success and verdict.attempts == 1 and scope.spending is None:
                duration = verdict.duration
                scope.busy = None
                trail = scope.trail
                trail += lane.record, started, duration
                if not scope.settled or scope.claim():
                    durations = lane.durations
                    durations.append(duration)
                    if len(durations) >= full:
                        lane.tally.drain()
            else:
                lane.ended(scope, verdict)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, "the end of a stage")
        try:
            return verdict
        finally:
            del verdict  # see `Lane.trace`

    return apply


def _apply_async(original: Callable[..., Awaitable[Verdict]], layer: Layer) -> Callable[..., Awaitable[Verdict]]:
    async def apply_async(self: StageExecutor, stage: Stage, sample: Sample, started: float | None = None) -> Verdict:
        scope = SAMPLE.get()
        if scope is None or scope.busy is not None or (lane := scope.stages.get(stage.name)) is None:
            return await observe_async(STAGE, layer, original, self, stage, sample)
        if scope.span is not None:
            return await lane.trace_async(scope, original, self, stage, sample)
        if not lane.begin(scope):
            return await original(self, stage, sample)
        started = scope.busy_since
        try:
            verdict = await original(self, stage, sample, started)
        except BaseException as error:
            lane.raised(scope, error)
            raise
        lane.ended(scope, verdict)
        return verdict

    return apply_async


def _apply_batch(original: Callable[..., BatchVerdict], layer: Layer) -> Callable[..., BatchVerdict]:
    def apply_batch(self: StageExecutor, stage: Stage, items: Sequence[Item]) -> BatchVerdict:
        run = RUN.get()
        lane = run.stage_batches.get(stage.name) if run is not None else None
        if lane is None or (call := lane.begin(self, stage, items)) is None:
            return observe(STAGE_BATCH, layer, original, self, stage, items)
        return lane.observe(call, original, self, stage, items)

    return apply_batch


def _apply_batch_async(
    original: Callable[..., Awaitable[BatchVerdict]], layer: Layer
) -> Callable[..., Awaitable[BatchVerdict]]:
    async def apply_batch_async(self: StageExecutor, stage: Stage, items: Sequence[Item]) -> BatchVerdict:
        run = RUN.get()
        lane = run.stage_batches.get(stage.name) if run is not None else None
        if lane is None or (call := lane.begin(self, stage, items)) is None:
            return await observe_async(STAGE_BATCH, layer, original, self, stage, items)
        return await lane.observe_async(call, original, self, stage, items)

    return apply_batch_async


# Retries: an event at once, and counted with the verdict, as the run itself does.


def _retry_start(_: StageExecutor, stage: Stage, sample: Sample | None, *__: Any) -> Attributes:
    # Of a batch, only its own call says which pipeline it is.
    execution = CALL.get()
    return {
        a.FORGE_PIPELINE_NAME: execution.attributes.get(a.FORGE_PIPELINE_NAME) if execution is not None else None,
        a.FORGE_STAGE_NAME: stage.name,
        a.FORGE_SAMPLE_ID: sample.id or None if sample is not None else None,
    }


def _retry_end(retry: Call, _: None, __: BaseException | None) -> Ending:
    _, stage, _, error, attempt, delay = retry.arguments
    kind = error_type(error)
    # What goes by a lane is no call of its own before it has ended.
    execution = CALL.get() or SAMPLE.get()
    if execution is not None:
        execution.notes = (*execution.notes, (attempt, kind, delay))
    said = {
        a.FORGE_STAGE_ATTEMPT: attempt,
        a.FORGE_STAGE_RETRY_DELAY: delay,
        a.ERROR_TYPE: kind,
    }
    body = f"Stage retries: {stage.name}, {kind} in attempt {attempt}, the next one in {delay:.3g} s"
    return Ending(events=[Emission(events.FORGE_STAGE_RETRY, body, said)])


RETRY = Operation(name="a retry", start=_retry_start, end=_retry_end)


def _before_retry(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def before_retry(  # noqa: PLR0917 - the signature of the original
        self: StageExecutor, stage: Stage, sample: Sample | None, error: BaseException, attempt: int, delay: float
    ) -> None:
        observe(RETRY, layer, original, self, stage, sample, error, attempt, delay)

    return before_retry


_MODULE = "forge.execution.stage_executor"

TARGETS = (
    Target(_MODULE, "StageExecutor.apply", _apply),
    Target(_MODULE, "StageExecutor.apply_async", _apply_async),
    Target(_MODULE, "StageExecutor.apply_batch", _apply_batch),
    Target(_MODULE, "StageExecutor.apply_batch_async", _apply_batch_async),
    Target(_MODULE, "StageExecutor.before_retry", _before_retry),
)
