"""Running one stage on one sample or batch: attempts, retries, verdict."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Collection, Generator, Sequence
from typing import Any, TypeAlias

from ..costs import usage
from ..errors import RunCancelled, StageResultError, StageStuckError
from ..pipeline.exceptions import CANCELLED, classify, is_a, message_of, set_context
from ..pipeline.retry import RetryPolicy
from ..pipeline.sample import Sample, Skip, private_copies, replace, with_private_values
from ..pipeline.stages import Stage
from ..storage.gate import Gate
from ..storage.steps import MAX_MESSAGE, MAX_RETRIES, Retry
from ..support import sans_io
from ..support.clock import Clock, SystemClock
from ..support.text import shortened
from .calls import Batch, Calls, Interrupted, Payload
from .item import Item
from .results import BatchVerdict, StageOutcome, Verdict

_SUCCESS = StageOutcome.SUCCESS  # reading an enum's member takes long


class StageExecutor:
    """Runs stages; inside a run, one executor runs all of them.

    Sync stages block a thread and async ones must not block their loop, so there are two kinds of methods: `apply`,
    `apply_batch` and `attempt` for sync stages, those ending in `_async` for async ones. All of them work outside of a
    run as well, in a test for example.
    """

    def __init__(
        self, *, clock: Clock | None = None, stop: threading.Event | None = None, gate: Gate | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._now = self._clock.monotonic
        self._stop = stop or threading.Event()
        self._gate = gate or Gate()
        """Holds up further attempts. The first one is held up by the caller, so that the wait is not the stage's."""
        self._calls = Calls(_private_result)
        self.retries: list[str] = []
        """Names of the stages of calls that wait for their next attempt."""

    def apply(self, stage: Stage, sample: Sample, started: float | None = None) -> Verdict:
        """Run all attempts of a sync stage on one sample.

        A caller that has read the clock already passes it as `started`, so that it is not read again.

        Raises:
            StageStuckError: no slot of the stage is left.
            KeyboardInterrupt, SystemExit: raised by the stage.
        """
        if self._stop.is_set():
            attempts = _Attempts(stage, sample, self._clock, started=started)
            attempts.cancel()
            return _verdict(stage, sample, attempts, None)
        now = self._now
        begun = now() if started is None else started
        measured = private_copies(sample.measurements) if sample.measurements else {}
        try:
            result = self.attempt(stage, sample, 1)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it becomes the verdict
            # The attempt may have changed the sample's values in place, which later attempts must not see.
            attempts = _Attempts(stage, replace(sample, measurements=measured), self._clock, started=begun)
            attempts.fail(error)
            if attempts.delay is not None:
                sans_io.run(self._retries(attempts), self._perform)
            return _verdict(stage, sample, attempts, attempts.result)
        ended = now()
        if type(result) is Sample and result.id is sample.id:  # the commonest result of the commonest call
            duration = ended - begun
            return Verdict(outcome=_SUCCESS, samples=(result,), busy=duration, duration=duration)
        attempts = _Attempts(stage, sample, self._clock, started=begun)
        attempts.succeed(result)
        return _verdict(stage, sample, attempts, result)

    async def apply_async(self, stage: Stage, sample: Sample, started: float | None = None) -> Verdict:
        """Run all attempts of an async stage on one sample.

        A `KeyboardInterrupt` or `SystemExit` of the stage is in the verdict's `error`, because raised in a task it
        would end the event loop.
        """
        attempts = await sans_io.run_async(self._attempts(stage, sample, started=started), self._perform_async)
        return _verdict(stage, sample, attempts, attempts.result)

    def apply_batch(self, stage: Stage, items: Sequence[Item]) -> BatchVerdict:
        """Run all attempts of a sync stage on a batch; if they fail, one more for each sample alone.

        Raises:
            StageStuckError, KeyboardInterrupt, SystemExit: as for `apply`.
        """
        return sans_io.run(self._batch_attempts(stage, items), self._perform)

    async def apply_batch_async(self, stage: Stage, items: Sequence[Item]) -> BatchVerdict:
        """Run all attempts of an async stage on a batch; if they fail, one more for each sample alone."""
        return await sans_io.run_async(self._batch_attempts(stage, items), self._perform_async)

    def attempt(self, stage: Stage, payload: Payload, attempt: int) -> Any:  # noqa: ARG002 - for observers
        """Call a sync stage with a sample or a batch: its attempt number `attempt`, from 1."""
        function, argument = _call(stage, payload)
        if stage.provider is None:
            return self._calls.call(stage, function, argument)
        with usage.counting(stage.provider, function) as counted:
            return self._calls.call(stage, counted, argument)

    async def attempt_async(self, stage: Stage, payload: Payload, attempt: int) -> Any:  # noqa: ARG002 - as above
        """Call an async stage with a sample or a batch: its attempt number `attempt`, from 1."""
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
        """End the threads that ran calls with a timeout."""
        self._calls.close()

    # The logic of attempts, for both kinds of stages. It yields attempts to make, and seconds to wait.

    def _attempts(
        self, stage: Stage, payload: Payload, failed_batch: _Attempts | None = None, started: float | None = None
    ) -> _Steps[_Attempts]:
        """Repeat a call until it succeeds or the policy gives up; make it once after a `failed_batch`."""
        attempts = _Attempts(stage, payload, self._clock, failed_batch, started)
        if self._stop.is_set():
            attempts.cancel()
            return attempts
        yield attempts
        if attempts.delay is not None:
            yield from self._retries(attempts)
        return attempts

    def _retries(self, attempts: _Attempts) -> _Steps[None]:
        """Repeat a failed call as long as it fails and the policy allows another attempt."""
        while attempts.delay is not None:
            if not self._announced(attempts) or (yield from self._delayed(attempts)):
                attempts.cancel()
                return
            usage.begin_retry()
            attempts.begin_next()
            yield attempts

    def _delayed(self, attempts: _Attempts) -> _Steps[bool]:
        """Wait before another attempt; returns True if the run ended meanwhile."""
        assert attempts.delay is not None
        self.retries.append(attempts.stage.name)
        try:
            ended: bool = yield attempts.delay
            return ended
        finally:
            self.retries.remove(attempts.stage.name)

    def _batch_attempts(self, stage: Stage, items: Sequence[Item]) -> _Steps[BatchVerdict]:
        items = tuple(items)
        whole = yield from self._attempts(stage, tuple(item.sample for item in items))
        if not whole.needs_isolation:
            return self._batch_verdict(stage, [whole])
        alone: list[_Attempts] = []
        for item in usage.retry_each(items):
            alone.append((yield from self._attempts(stage, (item.sample,), whole)))
        return self._batch_verdict(stage, alone, whole)

    def _announced(self, attempts: _Attempts) -> bool:
        """Announce another attempt; False if the run has ended, and there will be none."""
        if self._stop.is_set():
            return False
        sample = attempts.payload if isinstance(attempts.payload, Sample) else None
        assert attempts.error is not None
        assert attempts.delay is not None
        if len(attempts.retries) < MAX_RETRIES:
            attempts.retries.append(_retry(attempts.error, attempts.delay))
        self.before_retry(attempts.stage, sample, attempts.error, attempts.number, attempts.delay)
        return True

    def _perform(self, request: _Request) -> bool | None:
        """Make an attempt, or wait; returns True if the run ended while waiting."""
        if not isinstance(request, _Attempts):
            return self._clock.wait(self._stop, request)
        if self._gate.closed:
            self._gate.wait(self._stop)
        if self._stop.is_set():  # the end of the run opens the gate as well
            request.cancel()
            return None
        try:
            request.succeed(self.attempt(request.stage, request.next_payload(), request.number))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it becomes the verdict
            request.fail(error)
        return None

    async def _perform_async(self, request: _Request) -> bool | None:
        """Make an attempt, or wait. Only the end of the run cancels the task in which this happens."""
        if not isinstance(request, _Attempts):
            try:
                await self._clock.wait_async(request)
            except asyncio.CancelledError:
                return True
            return False
        try:
            if self._gate.closed:
                await self._gate.wait_async(self._stop)
            if self._stop.is_set():
                request.cancel()
                return None
            request.succeed(await self.attempt_async(request.stage, request.next_payload(), request.number))
        except Interrupted as interrupted:
            request.cancel(interrupted.interrupt)
        except asyncio.CancelledError as error:
            if self._stop.is_set():
                request.cancel()
            else:  # raised by the stage
                request.fail(error)
        except Exception as error:  # noqa: BLE001 - it becomes the verdict
            request.fail(error)
        return None

    def _batch_verdict(self, stage: Stage, parts: Sequence[_Attempts], whole: _Attempts | None = None) -> BatchVerdict:
        verdicts: list[Verdict] = []
        for attempts in parts:
            samples = attempts.samples
            failed = attempts.error is not None or attempts.cancelled
            results = [None] * len(samples) if failed else attempts.result
            ids = frozenset(sample.id for sample in samples)
            verdicts += (
                _verdict(stage, sample, attempts, result, batch=ids)
                for sample, result in zip(samples, results, strict=True)
            )
        first = whole or parts[0]
        error = None if first.cancelled else first.error
        if whole is not None and error is not None:
            first.retries.append(_retry(error, None))  # the samples were processed alone
        for attempts in (first, *parts):
            attempts.release_error()
        return BatchVerdict(
            verdicts=tuple(verdicts),
            attempts=first.number,
            busy=sum(attempts.busy for attempts in parts) + (whole.busy if whole else 0.0),
            duration=self._clock.monotonic() - first.started,
            error=error,
            error_type=None if error is None else classify(error),
            retries=first.retries,
        )


def _retry(error: BaseException, delay: float | None) -> Retry:
    """Return the record of a failed attempt, which must not keep the error alive."""
    return Retry(classify(error), shortened(message_of(error), MAX_MESSAGE), delay)


def _call(stage: Stage, payload: Payload) -> tuple[Any, Sample | Batch]:
    """Return the stage's function for the payload, and its argument."""
    if isinstance(payload, Sample):
        return stage.process, payload
    return stage.process_batch, Batch(payload)


def _private_result(stage: Stage, argument: Sample | Batch, result: Any) -> Any:
    """Copy the lists that a stage returned: it may keep its own, and change them later.

    Raises:
        StageResultError: results of a batch cannot be assigned to its samples.
    """
    if not isinstance(result, list):
        if isinstance(argument, Batch) and inspect.iscoroutine(result):
            result.close()  # or Python would complain elsewhere that nobody awaited it
            raise StageResultError(
                f"stage {stage.name!r} returned a coroutine for its batch (await it, in an async def)"
            )
        return result
    if isinstance(argument, Batch) and argument.reordered and not all(isinstance(part, Sample) for part in result):
        raise StageResultError(
            f"stage {stage.name!r} put its list of samples into another order, and not all of its results have an id; "
            "sort a copy, and return the results in the order in which the samples were given"
        )
    return [list(part) if isinstance(part, list) else part for part in result]


def _verdict(
    stage: Stage, sample: Sample, attempts: _Attempts, result: Any, *, batch: Collection[str] | None = None
) -> Verdict:
    """Return the verdict on one sample, given the stage's result for it.

    `batch` has the ids of the batch that the sample was part of; attempts and seconds are then left to its verdict.
    """
    alone = batch is None
    samples: Sequence[Sample] = ()
    error, error_type = attempts.error, None
    if alone:
        attempts.release_error()
    if attempts.cancelled:
        outcome = StageOutcome.CANCELLED
        error, error_type = error if error is not None else RunCancelled("the run ended"), CANCELLED
    else:
        if error is None:
            try:
                samples = _validated(stage, sample, result, batch or ())
            except Exception as wrong:  # noqa: BLE001 - a result's class may be as strange as an exception's
                error = wrong
        if error is not None:
            outcome, error_type = StageOutcome.ERROR, classify(error)
        else:
            outcome = StageOutcome.SUCCESS if samples else StageOutcome.SKIP
    try:
        return Verdict(
            outcome=outcome,
            samples=samples,
            split=outcome is StageOutcome.SUCCESS and not isinstance(result, Sample),
            skip_reason=result.reason if outcome is StageOutcome.SKIP else None,
            error=error,
            error_type=error_type,
            attempts=attempts.number if alone else 1,
            busy=attempts.busy if alone else 0.0,
            duration=attempts.ended - attempts.started if alone else 0.0,
            retries=attempts.retries if alone else (),
        )
    finally:
        del error  # its traceback leads to this frame, if a result was refused here


def _validated(stage: Stage, sample: Sample, result: Any, batch: Collection[str] = ()) -> tuple[Sample, ...]:
    """Return the samples in a result; `batch` has the ids of the samples that the stage was given with this one.

    Raises:
        StageResultError: the result is neither a sample of the same id nor a skip nor a non-empty list, or belongs to
            another sample of the batch.
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
    raise StageResultError(
        f"stage {stage.name!r} returned {_described(result)}; it must return a Sample, a Skip or a list of Samples"
    )


def _described(result: Any) -> str:
    """Describe a result that is none, with what to return instead."""
    if result is None:
        return "None (return the sample, or Skip(reason) to leave it out)"
    if inspect.iscoroutine(result):
        result.close()  # or Python would complain elsewhere that nobody awaited it
        return "a coroutine (await it, in an async def)"
    if inspect.isgenerator(result):
        return "a generator (return a list of samples instead of yielding them)"
    if isinstance(result, tuple) and result and all(isinstance(member, Sample) for member in result):
        return "a tuple of Samples (return a list)"
    if not isinstance(result, list):
        return f"{type(result).__name__} (return sample.with_data(…) if it is the sample's new data)"
    for place, member in enumerate(result):
        if not isinstance(member, Sample):
            return (
                f"a list with {_type_name(member)} at index {place} (return sample.with_data(…) if the list is the "
                "sample's new data, or sample.child(key, …) for each member that is to become a sample)"
            )
    return "an empty list (return Skip(reason) instead)"


def _type_name(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _misplaced_error(stage: Stage, sample: Sample, found: str) -> StageResultError:
    return StageResultError(
        f"stage {stage.name!r} returned {found} in the place of {sample.id!r}; "
        "it must return results in the order in which the samples were given"
    )


class _Attempts:
    """The attempts of one call: how many there were, and the outcome of the last one."""

    __slots__ = (
        "begun",
        "busy",
        "cancelled",
        "clock",
        "delay",
        "ended",
        "error",
        "failed_batch",
        "number",
        "payload",
        "result",
        "retries",
        "stage",
        "started",
    )

    def __init__(
        self,
        stage: Stage,
        payload: Payload,
        clock: Clock,
        failed_batch: _Attempts | None = None,
        started: float | None = None,
    ) -> None:
        self.stage = stage
        self.payload = payload
        self.clock = clock
        self.failed_batch = failed_batch
        """Attempts of the batch that the sample was part of; after them, one attempt is made."""
        self.number = 1
        self.started = clock.monotonic() if started is None else started
        self.begun = self.started
        """Start of the last attempt."""
        self.ended = self.started
        """End of the last attempt. The verdict follows at once, so it needs no reading of its own."""
        self.busy = 0.0
        self.result: Any = None
        self.error: BaseException | None = None
        self.delay: float | None = None
        """Seconds to wait before the next attempt; None if there is none."""
        self.cancelled = False
        self.retries: list[Retry] = []

    @property
    def needs_isolation(self) -> bool:
        """True if a batch failed that has more than one sample to blame."""
        return self.error is not None and not self.cancelled and len(self.samples) > 1

    @property
    def samples(self) -> tuple[Sample, ...]:
        return (self.payload,) if isinstance(self.payload, Sample) else self.payload

    def next_payload(self) -> Payload:
        """Return the payload for another attempt. The samples of a batch are copied for each call anyway."""
        return with_private_values(self.payload) if isinstance(self.payload, Sample) else self.payload

    def begin_next(self) -> None:
        self.number += 1
        self.begun = self.clock.monotonic()

    def succeed(self, result: Any) -> None:
        """Note a result.

        Raises:
            StageResultError: it does not have one result for each sample of the batch.
        """
        batch = None if isinstance(self.payload, Sample) else self.payload
        if batch is not None and not (isinstance(result, list) and len(result) == len(batch)):
            what = f"a list of {len(result)}" if isinstance(result, list) else _type_name(result)
            raise StageResultError(
                f"stage {self.stage.name!r} returned {what} for a batch of {len(batch)}; "
                "it must return a list with one result for each sample, in order"
            )
        self._end()
        self.result, self.error, self.delay = result, None, None

    def fail(self, error: BaseException) -> None:
        """Note an error, and ask the policy for the delay before the next attempt.

        Raises:
            StageStuckError: it is the error.
        """
        if is_a(error, StageStuckError):
            raise error
        self._end()
        self.error = error
        policy: RetryPolicy = self.stage.retry
        try:
            self.delay = None if self.failed_batch else policy.delay(error, self.number, self.clock.time())
        except (KeyboardInterrupt, SystemExit) as interrupt:
            self.cancel(interrupt)
        except Exception as fault:  # noqa: BLE001 - a faulty retry_on must not end the run
            set_context(fault, error)
            self.error, self.delay = fault, None

    def cancel(self, error: BaseException | None = None) -> None:
        self.cancelled, self.error, self.delay = True, error, None
        self.ended = self.clock.monotonic()

    def release_error(self) -> None:
        """Drop the error, which is in the verdict now.

        It would keep itself alive, with the sample and everything else in the frames of its traceback, which refer to
        this, until the garbage collector runs.
        """
        self.error = None

    def _end(self) -> None:
        self.ended = self.clock.monotonic()
        self.busy += self.ended - self.begun


_Request: TypeAlias = _Attempts | float
"""An attempt to make, or seconds to wait."""
_Steps: TypeAlias = Generator[_Request, Any, sans_io.Result]
