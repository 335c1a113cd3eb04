"""Running one stage on one sample, or on a batch: attempts, retries, verdict."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Collection, Sequence
from typing import Any

from ..costs import usage
from ..errors import RunCancelled, StageResultError, StageStuckError
from ..pipeline.retry import CANCELLED, RetryPolicy, classify
from ..pipeline.sample import Sample, Skip, private_copies, replace, with_private_values
from ..pipeline.stages import Stage
from ..support.clock import Clock, SystemClock
from .calls import Batch, Calls, Interrupted
from .item import Item
from .results import BatchVerdict, StageOutcome, Verdict

Payload = Sample | tuple[Sample, ...]
"""A sample, or those of a batch. What pairs them with results is this; the stage gets a list of its own."""

_SUCCESS = StageOutcome.SUCCESS  # an enum's members are found slowly


class StageExecutor:
    """Runs stages; inside a run, one executor runs all of them.

    The methods come in two colours, because a sync stage blocks a thread and an async one must not block its loop:
    `apply`, `apply_batch` and `attempt` are for sync stages, those ending in `_async` for async ones. All of them
    work outside of a run as well, in a test for example.
    """

    def __init__(self, *, clock: Clock | None = None, stop: threading.Event | None = None) -> None:
        self._clock = clock or SystemClock()
        self._now = self._clock.monotonic
        self._stop = stop or threading.Event()
        self._calls = Calls(_take)

    def apply(self, stage: Stage, sample: Sample, started: float | None = None) -> Verdict:
        """All attempts of a sync stage on one sample.

        Who has read the clock already says when it `started`, and it is not read again.

        Raises:
            StageStuckError: the stage has no slot left.
            KeyboardInterrupt, SystemExit: the stage raised it.
        """
        if self._stop.is_set():
            tried = self._try(stage, sample, started=started)
            return _judge(stage, sample, tried, tried.result)
        now = self._now
        begun = now() if started is None else started
        measured = private_copies(sample.measurements) if sample.measurements else {}
        try:
            result = self.attempt(stage, sample, 1)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it becomes the verdict
            # The attempt may have changed what it was handed, which others are not to see.
            tried = _Tried(stage, replace(sample, measurements=measured), self._clock, None, begun)
            tried.fail(error)
            return _judge(stage, sample, self._try_again(tried), tried.result)
        ended = now()
        if type(result) is Sample and result.id == sample.id:  # the commonest result of the commonest call
            duration = ended - begun
            return Verdict(outcome=_SUCCESS, samples=(result,), busy=duration, duration=duration)
        tried = _Tried(stage, sample, self._clock, None, begun)
        tried.succeed(result)
        return _judge(stage, sample, tried, result)

    async def apply_async(self, stage: Stage, sample: Sample, started: float | None = None) -> Verdict:
        """The same for an async stage.

        A `KeyboardInterrupt` or `SystemExit` of the stage is in the verdict's `error`, because raised in a task it
        would end the event loop.
        """
        tried = await self._try_async(stage, sample, started=started)
        return _judge(stage, sample, tried, tried.result)

    def apply_batch(self, stage: Stage, items: Sequence[Item]) -> BatchVerdict:
        """All attempts of a sync stage on a batch; if they fail, one more for each sample alone."""
        items = tuple(items)
        samples = tuple(item.sample for item in items)
        whole = self._try(stage, samples)
        if not whole.repeat_alone:
            return self._batch_verdict(stage, [whole])
        alone = [self._try(stage, (item.sample,), whole) for item in usage.retry_each(items)]
        return self._batch_verdict(stage, alone, whole)

    async def apply_batch_async(self, stage: Stage, items: Sequence[Item]) -> BatchVerdict:
        """The same for an async stage."""
        items = tuple(items)
        samples = tuple(item.sample for item in items)
        whole = await self._try_async(stage, samples)
        if not whole.repeat_alone:
            return self._batch_verdict(stage, [whole])
        alone = [await self._try_async(stage, (item.sample,), whole) for item in usage.retry_each(items)]
        return self._batch_verdict(stage, alone, whole)

    def attempt(self, stage: Stage, payload: Payload, attempt: int) -> Any:  # noqa: ARG002 - said to observers
        """One call of a sync stage, the `attempt`-th (from 1), with a sample or a list of the samples of a batch."""
        function, argument = _call(stage, payload)
        if stage.provider is None:
            return self._calls.call(stage, function, argument)
        with usage.counting(stage.provider, function) as counted:
            return self._calls.call(stage, counted, argument)

    async def attempt_async(self, stage: Stage, payload: Payload, attempt: int) -> Any:  # noqa: ARG002 - as above
        """One call of an async stage."""
        function, argument = _call(stage, payload)
        if stage.provider is None:
            return await self._calls.call_async(stage, function, argument)
        with usage.counting(stage.provider, function) as counted:
            return await self._calls.call_async(stage, counted, argument)

    def before_retry(
        self, stage: Stage, sample: Sample | None, error: BaseException, attempt: int, delay: float
    ) -> None:
        """Called before the wait of `delay` seconds that follows the failed attempt number `attempt`.

        `sample` is None where a whole batch is repeated. Does nothing: it is there to be observed.
        """

    def close(self) -> None:
        """Let go of the threads that calls with a timeout were made on."""
        self._calls.close()

    def _try(
        self, stage: Stage, payload: Payload, earlier: _Tried | None = None, started: float | None = None
    ) -> _Tried:
        """Attempts until one succeeds or the policy gives up; a single one where `earlier` ones failed as a batch."""
        tried = _Tried(stage, payload, self._clock, earlier, started)
        if self._stop.is_set():
            tried.cancel()
            return tried
        try:
            tried.succeed(self.attempt(stage, tried.handed(), tried.number))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it becomes the verdict
            tried.fail(error)
        return self._try_again(tried)

    def _try_again(self, tried: _Tried) -> _Tried:
        """The attempts that follow the first one, as long as they fail and the policy allows another."""
        while tried.delay is not None:
            if not self._announced(tried) or self._clock.wait(self._stop, tried.delay):
                tried.cancel()
                break
            usage.begin_retry()
            tried.begin_again()
            try:
                tried.succeed(self.attempt(tried.stage, tried.handed(), tried.number))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it becomes the verdict
                tried.fail(error)
        return tried

    async def _try_async(
        self, stage: Stage, payload: Payload, earlier: _Tried | None = None, started: float | None = None
    ) -> _Tried:
        tried = _Tried(stage, payload, self._clock, earlier, started)
        if self._stop.is_set():
            tried.cancel()
            return tried
        try:
            while True:
                try:
                    tried.succeed(await self.attempt_async(stage, tried.handed(), tried.number))
                except Interrupted as interrupted:
                    tried.cancel(interrupted.__cause__)
                except (Exception, asyncio.CancelledError) as error:
                    if self._stop.is_set() and isinstance(error, asyncio.CancelledError):
                        raise
                    tried.fail(error)
                if tried.delay is None:
                    return tried
                if not self._announced(tried):
                    tried.cancel()
                    return tried
                await self._clock.wait_async(tried.delay)
                usage.begin_retry()
                tried.begin_again()
        except asyncio.CancelledError:
            # Only the end of the run cancels the task that this runs in.
            tried.cancel()
            return tried

    def _announced(self, tried: _Tried) -> bool:
        """Say that there will be another attempt; False where the run has ended, and there will be none."""
        if self._stop.is_set():
            return False
        sample = tried.payload if isinstance(tried.payload, Sample) else None
        assert tried.error is not None
        assert tried.delay is not None
        self.before_retry(tried.stage, sample, tried.error, tried.number, tried.delay)
        return True

    def _batch_verdict(self, stage: Stage, parts: Sequence[_Tried], whole: _Tried | None = None) -> BatchVerdict:
        verdicts: list[Verdict] = []
        for tried in parts:
            samples = tried.samples
            results = tried.result if tried.error is None and not tried.cancelled else [None] * len(samples)
            ids = frozenset(sample.id for sample in samples)
            verdicts += (
                _judge(stage, sample, tried, result, batch=ids) for sample, result in zip(samples, results, strict=True)
            )
        for tried in parts:
            tried.forget_error()
        if whole is not None:
            whole.forget_error()
        first = whole or parts[0]
        return BatchVerdict(
            verdicts=tuple(verdicts),
            attempts=first.number,
            busy=sum(tried.busy for tried in parts) + (whole.busy if whole else 0.0),
            duration=self._clock.monotonic() - first.started,
        )


def _call(stage: Stage, payload: Payload) -> tuple[Any, Sample | Batch]:
    """The function of a stage that takes the payload, and what it is called with."""
    if isinstance(payload, Sample):
        return stage.process, payload
    return stage.process_batch, Batch(payload)


def _take(stage: Stage, argument: Sample | Batch, result: Any) -> Any:
    """What a stage returned, in lists of our own: it may keep its lists, and change them later.

    Raises:
        StageResultError: it cannot be said which result of a batch belongs to which sample.
    """
    if not isinstance(result, list):
        return result
    if isinstance(argument, Batch) and argument.reordered and not all(isinstance(part, Sample) for part in result):
        raise StageResultError(
            f"stage {stage.name!r} put its list of samples into another order, and not all of its results have an id; "
            "sort a copy, and return the results in the order in which the samples were given"
        )
    return [list(part) if isinstance(part, list) else part for part in result]


def _judge(
    stage: Stage, sample: Sample, tried: _Tried, result: Any, *, batch: Collection[str] | None = None
) -> Verdict:
    """The verdict on one sample, from the state of its attempts and what the stage returned for it.

    Where it was tried in a `batch`, which is given by the ids in it, attempts and seconds are said of the batch.
    """
    alone = batch is None
    samples: Sequence[Sample] = ()
    error, error_type = tried.error, None
    if alone:
        tried.forget_error()
    if tried.cancelled:
        outcome = StageOutcome.CANCELLED
        error, error_type = error or RunCancelled("the run ended"), CANCELLED
    else:
        if error is None:
            try:
                samples = _checked(stage, sample, result, batch or ())
            except StageResultError as wrong:
                error = wrong
        if error is not None:
            outcome, error_type = StageOutcome.ERROR, classify(error)
        else:
            outcome = StageOutcome.SUCCESS if samples else StageOutcome.SKIP
    return Verdict(
        outcome=outcome,
        samples=samples,
        split=outcome is StageOutcome.SUCCESS and not isinstance(result, Sample),
        skip_reason=result.reason if outcome is StageOutcome.SKIP else None,
        error=error,
        error_type=error_type,
        attempts=tried.number if alone else 1,
        busy=tried.busy if alone else 0.0,
        duration=tried.ended - tried.started if alone else 0.0,
    )


def _checked(stage: Stage, sample: Sample, result: Any, batch: Collection[str] = ()) -> tuple[Sample, ...]:
    """The samples in a result; `batch` has the ids of all samples that the stage was given together.

    Raises:
        StageResultError: the stage returned something else than a sample of the same id, a skip or a non-empty list,
            or a sample that belongs to another one of the batch.
    """
    if isinstance(result, Sample):
        if result.id != sample.id:
            if isinstance(result.id, str) and result.id in batch:
                raise _misplaced_error(stage, sample, f"sample {result.id!r}")
            raise StageResultError(
                f"stage {stage.name!r} returned sample {result.id!r} for {sample.id!r}; return a list to make new ones"
            )
        return (result,)
    if isinstance(result, Skip):
        if not isinstance(result.reason, str) or not result.reason:
            raise StageResultError(f"stage {stage.name!r} returned Skip({result.reason!r}); the reason must be a word")
        return ()
    children = tuple(result) if isinstance(result, list) else ()
    if children and all(isinstance(child, Sample) for child in children):
        for child in children:
            if not isinstance(child.id, str):
                raise StageResultError(f"stage {stage.name!r} made a sample with id {child.id!r}; it must be a string")
            if child.id != sample.id and child.id in batch:
                raise _misplaced_error(stage, sample, f"sample {child.id!r}")
            strange = isinstance(child.parent, str) and child.parent not in {sample.id, sample.parent}
            if strange and child.parent in batch:
                raise _misplaced_error(stage, sample, f"{child.id!r}, a child of {child.parent!r},")
        return children
    what = type(result).__name__
    if isinstance(result, list) and not children:
        what = "an empty list (return Skip(reason) instead)"
    elif inspect.iscoroutine(result):
        what = "a coroutine (await it, in an async def)"
        result.close()  # or Python would complain elsewhere that nobody awaited it
    raise StageResultError(
        f"stage {stage.name!r} returned {what}; it must return a Sample, a Skip or a list of Samples"
    )


def _misplaced_error(stage: Stage, sample: Sample, found: str) -> StageResultError:
    return StageResultError(
        f"stage {stage.name!r} returned {found} in the place of {sample.id!r}; "
        "it must return results in the order in which the samples were given"
    )


class _Tried:
    """The attempts of one call so far."""

    __slots__ = (
        "alone_after",
        "begun",
        "busy",
        "cancelled",
        "clock",
        "delay",
        "ended",
        "error",
        "number",
        "payload",
        "result",
        "stage",
        "started",
    )

    def __init__(
        self, stage: Stage, payload: Payload, clock: Clock, alone_after: _Tried | None, started: float | None
    ) -> None:
        self.stage = stage
        self.payload = payload
        self.clock = clock
        self.alone_after = alone_after
        self.number = 1
        self.started = clock.monotonic() if started is None else started
        self.begun = self.started
        """When the last attempt began."""
        self.ended = self.started
        """When it ended: as the verdict follows at once, the clock is not read again for that."""
        self.busy = 0.0
        self.result: Any = None
        self.error: BaseException | None = None
        self.delay: float | None = None
        """Seconds to wait before the next attempt; None when there is none."""
        self.cancelled = False

    @property
    def repeat_alone(self) -> bool:
        """Whether a batch failed, and has more than one sample to blame."""
        return self.error is not None and not self.cancelled and len(self.samples) > 1

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What is tried together."""
        return (self.payload,) if isinstance(self.payload, Sample) else self.payload

    def handed(self) -> Payload:
        """The payload for another attempt. Of the samples of a batch, each call makes copies itself."""
        return with_private_values(self.payload) if isinstance(self.payload, Sample) else self.payload

    def begin_again(self) -> None:
        self.number += 1
        self.begun = self.clock.monotonic()

    def succeed(self, result: Any) -> None:
        batch = None if isinstance(self.payload, Sample) else self.payload
        if batch is not None and not (isinstance(result, list) and len(result) == len(batch)):
            what = f"a list of {len(result)}" if isinstance(result, list) else type(result).__name__
            raise StageResultError(
                f"stage {self.stage.name!r} returned {what} for a batch of {len(batch)}; "
                "it must return a list with one result for each sample, in order"
            )
        self.end()
        self.result, self.error, self.delay = result, None, None

    def fail(self, error: BaseException) -> None:
        if isinstance(error, StageStuckError):
            raise error
        self.end()
        self.error = error
        policy: RetryPolicy = self.stage.retry
        try:
            self.delay = None if self.alone_after else policy.delay(error, self.number, self.clock.time())
        except (KeyboardInterrupt, SystemExit) as interrupt:
            self.cancel(interrupt)
        except Exception as fault:  # noqa: BLE001 - a faulty retry_on must not end the run
            fault.__context__ = error
            self.error, self.delay = fault, None

    def cancel(self, error: BaseException | None = None) -> None:
        self.cancelled, self.error, self.delay = True, error, None
        self.ended = self.clock.monotonic()

    def forget_error(self) -> None:
        """It is in the verdict now. Here it would keep itself alive, with the sample and all else in the frames of its
        traceback, in which this is, until the garbage collector looks.
        """
        self.error = None

    def end(self) -> None:
        self.ended = self.clock.monotonic()
        self.busy += self.ended - self.begun
