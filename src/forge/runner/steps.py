"""The steps of a run: items are processed by a stage or measurement, and routed on."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

from ..costs import usage
from ..costs.usage import Spender, UsageScope
from ..execution.calls import to_thread
from ..execution.item import Item
from ..execution.results import (
    BatchMeasurementResult,
    BatchVerdict,
    MeasurementOutcome,
    MeasurementResult,
    StageOutcome,
    Verdict,
)
from ..pipeline.exceptions import classify, is_a, message_of
from ..pipeline.failure import Failure, FailureSource
from ..pipeline.measurement import Measurement
from ..pipeline.sample import SampleOutcome, SampleStatus, private_copies, replace
from ..pipeline.stages import Stage, default_queue_limit
from ..storage.steps import CACHED, Retry

if TYPE_CHECKING:
    from ..definition import Pipeline
    from .counters import MeasurementCounters, StageCounters
    from .run import Run


_SUCCESS = StageOutcome.SUCCESS  # an enum's members are found slowly


class Step(ABC):
    """One step. Items come out in order; those with a `verdict` are through, the others go to the step `item.step`."""

    spender: Spender
    _counters: StageCounters | MeasurementCounters

    def __init__(self, run: Run, what: Any, name: str, index: int, queue_limit: int) -> None:
        self.run = run
        self.costs = run.costs
        self.gate = run.gate
        self.name = name
        self.index = index
        self.concurrency: int = what.concurrency
        self.batch_size: int | None = what.batch_size
        self.max_wait: float = what.max_wait
        self.is_async: bool = what.is_async
        self.queue_limit = queue_limit
        self.stage_name: str | None = None
        """Name of the stage; None for measurements."""
        self.allows_micro_batches = False
        """True if it may take micro-batches: several waiting samples, processed one after the other, while its calls
        are fast."""

    @property
    def busy(self) -> float:
        """Seconds spent in calls so far; only stages count them."""
        return 0.0

    def was_blocked(self, seconds: float) -> None:  # noqa: B027 - only stages count it
        """Count the seconds that a worker waited for room in the next queue."""

    def had_workers(self, most: int, slot_time: float) -> None:
        """Note the largest number of worker processes at a time so far, and the seconds of all of their slots."""
        with self.run.lock:
            self._counters.workers = max(self._counters.workers or 0, most)
            self._counters.slot_time = slot_time

    def was_transferred(self, seconds: float) -> None:
        """Count the seconds in which a worker process unpacked a block."""
        with self.run.lock:
            self._counters.transfer += seconds

    def was_lost(self, calls: int) -> None:
        """Count calls that were handed out again because worker processes died."""
        with self.run.lock:
            self._counters.lost += calls

    def _context(self, items: list[Item]) -> Context:
        """Copy an item's context, with a scope for usage."""
        context = items[0].context.copy()
        context.run(usage.enter, UsageScope(self, items))
        return context

    @abstractmethod
    def process(self, items: list[Item]) -> list[Item]:
        """Take one item, or a batch, through a sync step. Items whose execution was cut short are left out."""

    @abstractmethod
    async def process_async(self, items: list[Item]) -> list[Item]:
        """Take one item, or a batch, through an async step; otherwise like `process`."""


class StageStep(Step):
    """A stage."""

    spender = Spender.STAGE
    _counters: StageCounters

    def __init__(self, run: Run, stage: Stage, index: int) -> None:
        super().__init__(run, stage, stage.name, index, stage.queue_limit)
        self.stage = stage
        self.stage_name = stage.name
        # Another thread of the stage would have to wait for what this one has taken; and who sets a limit means it.
        self.allows_micro_batches = (
            stage.concurrency == 1 and stage.batch_size is None and stage.queue_size is None and not self.is_async
        )
        self._counters = run.counters.stages[stage.name]
        self._lock = run.lock

    def process(self, items: list[Item]) -> list[Item]:
        if self.gate.closed:
            self.gate.wait(self.run.stop)
        if self.batch_size is None:
            return self._process_alone(items)
        self._enter(items)
        # On a thread of the run, whose context is the run's.
        with usage.reporting_to(UsageScope(self, items)):
            batch = self.run.executor.apply_batch(self.stage, items)
        try:
            return self._looked_up(*self._leave(items, batch.verdicts, batch))
        finally:
            del batch  # see `_process_alone`

    def _process_alone(self, items: list[Item]) -> list[Item]:
        """Process one item with `_enter`, the call and `_leave` written out: for fast stages they are the cost of a
        run."""
        (item,) = items
        name, counters, lock = self.name, self._counters, self._lock
        with lock:
            counters.active += 1
            item.executing = name
            counters.waits.add(item.waited)
        context = item.context.copy()
        context.run(usage.enter, UsageScope(self, items))
        verdict = context.run(self.run.executor.apply, self.stage, item.sample)
        try:
            if verdict.split:
                return self._looked_up(*self._leave(items, [verdict], verdict))
            with lock:
                if item.executing != name:
                    return []
                self._count(verdict)
                counters.outcomes[verdict.outcome] += 1
                item.executing = None
            item.step = self.index + 1
            item.steps += (item.waited, verdict.duration)
            if verdict.retries:
                self._note_retries(item, verdict.attempts, verdict.retries)
            if verdict.outcome is _SUCCESS:
                # Handed out as it was, it may be changed later, which others are not to see.
                item.sample = replace(item.sample, data=verdict.samples[0].data, measurements={}, digest=None)
                return items
            return items if self._routed(item, verdict, verdict.attempts) else []
        finally:
            del verdict  # or an error in it, whose traceback leads to this frame, would keep itself alive

    def book_batch(self, items: Sequence[Item], batch: BatchVerdict) -> list[Item]:
        """Count a batch that a worker has processed; returns the items derived here, which must be looked up."""
        counters, failure = self._counters, self._batch_failure(batch)
        with self._lock:
            if self.run.ledger.sealed:
                return []
            counters.waits.extend([item.waited for item in items])
            counters.durations.add(batch.duration)
            counters.busy += batch.busy
            counters.retries += batch.attempts - 1
            counters.batches += 1
            if failure is not None:
                counters.batch_failures += 1
                self.run.counters.batch_failures.add(failure, items[0].sample.id)
            for verdict in batch.verdicts:
                counters.outcomes[verdict.outcome] += 1
        if failure is not None:
            self.run.batch_failed(items, failure)
        return self._booked(items, batch.verdicts, batch)

    def book(self, items: Sequence[Item], verdicts: Sequence[Verdict]) -> list[Item]:
        """Count calls with single samples that a worker has made; returns the items derived here, which must be looked
        up."""
        counters = self._counters
        with self._lock:
            if self.run.ledger.sealed:
                return []
            counters.waits.extend([item.waited for item in items])
            counters.durations.extend([verdict.duration for verdict in verdicts])
            for verdict in verdicts:
                counters.busy += verdict.busy
                counters.retries += verdict.attempts - 1
                counters.outcomes[verdict.outcome] += 1
        return self._booked(items, verdicts)

    def _booked(
        self, items: Sequence[Item], verdicts: Sequence[Verdict], batch: BatchVerdict | None = None
    ) -> list[Item]:
        """Note on items whose calls are counted what comes next; returns those that were derived here."""
        index = self.index + 1
        derived: list[Item] = []
        for item, verdict in zip(items, verdicts, strict=True):
            whole = verdict if batch is None else batch
            item.step = index
            item.steps += (item.waited, whole.duration)
            if verdict.outcome is _SUCCESS and not verdict.split and not whole.retries and item.sample.digest is None:
                continue
            if whole.retries:
                self._note_retries(item, whole.attempts, whole.retries)
            if verdict.split:
                derived += self.run.split(item, verdict.samples, self.name, verdict.contents)
            self._routed(item, verdict, whole.attempts)
        return derived

    def _looked_up(self, onward: list[Item], derived: list[Item]) -> list[Item]:
        if derived:
            self.run.look_up(derived)
        return onward

    async def process_async(self, items: list[Item]) -> list[Item]:
        if self.gate.closed:
            await self.gate.wait_async(self.run.stop)
        self._enter(items)
        executor = self.run.executor
        if self.batch_size:
            with usage.reporting_to(UsageScope(self, items)):
                batch = await executor.apply_batch_async(self.stage, items)
            onward, derived = self._leave(items, batch.verdicts, batch)
        else:
            try:
                verdict = await in_context(self._context(items), executor.apply_async(self.stage, items[0].sample))
            except asyncio.CancelledError:
                self._withdraw(items)
                raise
            onward, derived = self._leave(items, [verdict], verdict)
        if derived:
            await to_thread(self.run.look_up, derived)
        return onward

    @property
    def busy(self) -> float:
        return self._counters.busy

    def was_blocked(self, seconds: float) -> None:
        with self._lock:
            self._counters.backpressure += seconds

    def was_lost(self, calls: int) -> None:
        super().was_lost(calls)
        with self._lock:
            self._counters.retries += calls

    def _enter(self, items: Sequence[Item]) -> None:
        with self._lock:
            self._counters.active += 1
            for item in items:
                item.executing = self.name
                self._counters.waits.add(item.waited)

    def _withdraw(self, items: Sequence[Item]) -> None:
        """Withdraw items whose execution had not begun when the run ended."""
        with self._lock:
            if items[0].executing == self.name:
                self._counters.active -= 1
                for item in items:
                    item.executing = None

    def _leave(
        self, items: Sequence[Item], verdicts: Sequence[Verdict], whole: Verdict | BatchVerdict
    ) -> tuple[list[Item], list[Item]]:
        """Count the execution, unless the run has ended meanwhile, and note on each item what comes next.

        Returns the items that go on, and those of them that were derived here.
        """
        pairs = list(zip(items, verdicts, strict=True))
        failure = self._batch_failure(whole) if self.batch_size else None
        with self._lock:
            if items[0].executing != self.name:  # and so are the others of a batch
                return [], []  # counted as cancelled when the run ended
            self._count(whole)
            self._counters.batches += 1 if self.batch_size else 0
            if failure is not None:
                self._counters.batch_failures += 1
                self.run.counters.batch_failures.add(failure, items[0].sample.id)
            for item, verdict in pairs:
                self._counters.outcomes[verdict.outcome] += 1
                item.executing = None
        if failure is not None:
            self.run.batch_failed(items, failure)
        onward: list[Item] = []
        derived: list[Item] = []
        for item, verdict in pairs:
            item.step = self.index + 1
            item.steps += (item.waited, whole.duration)
            if whole.retries:
                self._note_retries(item, whole.attempts, whole.retries)
            if verdict.split:
                derived += self.run.split(item, verdict.samples, self.name, verdict.contents)
                onward += derived[-len(verdict.samples) :]
            if self._routed(item, verdict, whole.attempts):
                onward.append(item)
        return onward, derived

    def _batch_failure(self, batch: Verdict | BatchVerdict) -> Failure | None:
        """Return the failure of a batch as a whole, if it failed."""
        error = batch.error
        if error is None:
            return None
        error_type = batch.error_type or classify(error)
        return Failure(FailureSource.STAGE, self.name, error, error_type, message_of(error), batch.attempts)

    def _note_retries(self, item: Item, attempts: int, retries: Sequence[Retry]) -> None:
        item.retries = [*(item.retries or ()), (self.index, attempts, retries)]

    def _count(self, whole: Verdict | BatchVerdict) -> None:
        """Count what occurs once per sample or batch."""
        counters = self._counters
        counters.active -= 1
        counters.retries += whole.attempts - 1
        counters.busy += whole.busy
        counters.durations.add(whole.duration)

    def _routed(self, item: Item, verdict: Verdict, attempts: int) -> bool:
        """Note the verdict on an item; returns False if it goes nowhere because the run ends."""
        if verdict.outcome is _SUCCESS:
            if verdict.split:
                item.verdict = SampleOutcome.SPLIT
            elif verdict.samples[0] is not item.sample or item.sample.digest is not None:
                item.sample = item.sample.with_data(verdict.samples[0].data)
        elif verdict.outcome is StageOutcome.CANCELLED:
            if is_a(verdict.error, KeyboardInterrupt, SystemExit):
                self.run.interrupt(verdict.error)
            return False  # it settles with the run's end
        elif verdict.outcome is StageOutcome.ERROR:
            assert verdict.error is not None
            self.run.fail_item(item, verdict.error, FailureSource.STAGE, self.name, attempts)
        else:
            item.skip = (self.name, verdict.skip_reason or "")
            item.verdict = SampleOutcome.SKIPPED
        return True


class MeasurementStep(Step):
    """A measurement."""

    spender = Spender.MEASUREMENT
    _counters: MeasurementCounters

    def __init__(self, run: Run, measurement: Measurement, index: int) -> None:
        super().__init__(run, measurement, measurement.key, index, default_queue_limit(measurement))
        self.measurement = measurement
        self._version = measurement.version
        self._counters = run.counters.measurements[measurement.key]

    def process(self, items: list[Item]) -> list[Item]:
        if self.gate.closed:
            self.gate.wait(self.run.stop)
        items, failed = self._prepare(items)
        orchestrator = self.run.orchestrator
        if not items:
            return failed
        if self.batch_size:
            with usage.reporting_to(UsageScope(self, items)):
                batch = orchestrator.measure_batch(self.measurement, items)
            try:
                return failed + self._leave_batch(items, batch)
            finally:
                del batch  # see `StageStep._process_alone`
        result = self._context(items).run(orchestrator.measure, self.measurement, items[0].sample)
        try:
            return self._leave(items, [result], result.duration, 1)
        finally:
            del result  # see `StageStep._process_alone`

    async def process_async(self, items: list[Item]) -> list[Item]:
        if self.gate.closed:
            await self.gate.wait_async(self.run.stop)
        items, failed = self._prepare(items)
        orchestrator = self.run.orchestrator
        if not items:
            return failed
        if self.batch_size:
            with usage.reporting_to(UsageScope(self, items)):
                batch = await orchestrator.measure_batch_async(self.measurement, items)
            try:
                return failed + self._leave_batch(items, batch)
            finally:
                del batch
        result = await in_context(self._context(items), orchestrator.measure_async(self.measurement, items[0].sample))
        return self._leave(items, [result], result.duration, 1)

    def book(self, items: Sequence[Item], results: Sequence[MeasurementResult]) -> None:
        """Count results of single samples that a worker has computed."""
        for item, result in zip(items, results, strict=True):
            self._leave([item], [result], result.duration, 1)

    def book_batch(self, items: Sequence[Item], batch: BatchMeasurementResult) -> None:
        """Count the results of a batch that a worker has computed."""
        self._leave_batch(items, batch)

    def _prepare(self, items: list[Item]) -> tuple[list[Item], list[Item]]:
        """Serialise the items; returns those that can be measured, and those whose data cannot be stored."""
        good: list[Item] = []
        bad: list[Item] = []
        for item in items:
            (good if item.payload is not None or self.run.serialise(item) else bad).append(item)
        return good, bad

    def _leave_batch(self, items: Sequence[Item], batch: BatchMeasurementResult) -> list[Item]:
        error = batch.error
        if batch.failed and error is not None:
            error_type = batch.error_type or classify(error)
            failure = Failure(FailureSource.MEASUREMENT, self.name, error, error_type, message_of(error))
            with self.run.lock:
                self.run.counters.batch_failures.add(failure, items[0].sample.id)
            self.run.batch_failed(items, failure)
        return self._leave(items, batch.results, batch.duration, batch.computed)

    def _leave(
        self, items: Sequence[Item], results: Sequence[MeasurementResult], duration: float, computed: int
    ) -> list[Item]:
        with self.run.lock:
            for result in results:
                self._counters.outcomes[result.outcome] += 1
                if result.saved:
                    self.costs.save(self.name, result.saved)
            if computed and any(result.outcome is not MeasurementOutcome.CACHED for result in results):
                self._counters.durations.add(duration)
                self._counters.busy += duration
        onward = []
        for item, result in zip(items, results, strict=True):
            item.step = self.index + 1
            item.steps += (0.0, CACHED if result.outcome is MeasurementOutcome.CACHED else duration)
            if result.outcome is MeasurementOutcome.ERROR:
                assert result.error is not None
                if is_a(result.error, KeyboardInterrupt, SystemExit):
                    self.run.interrupt(result.error)
                if self.run.stop.is_set():
                    continue
                self.run.fail_item(item, result.error, FailureSource.MEASUREMENT, self.name)
            else:
                if result.content is not None:
                    item.values[self.name, self._version] = result.content
                    if item.pending_costs is not None:
                        self._note_cost(item)
                item.measured = {**item.measured, self.name: result.value}
                last = self.index + 1 == self.run.step_count
                status = SampleStatus.MEASURED if last else item.sample.status
                # The values are copied at each step, since a measurement may have kept the sample, to change it later.
                item.sample = replace(item.sample, measurements=private_copies(item.measured), status=status)
            onward.append(item)
        return onward

    def _note_cost(self, item: Item) -> None:
        """Keep the cost of a new value with it: that much is saved when it is read from the cache."""
        with self.run.lock:
            cost = self.costs.spent_on(item, self.name)
        if cost:
            item.value_costs = {**(item.value_costs or {}), (self.name, self._version): cost}


def steps_of(run: Run) -> list[Step]:
    """Return the steps of a run, in order."""
    stages: list[Step] = [StageStep(run, stage, index) for index, stage in enumerate(run.pipeline.stages)]
    offset = len(stages)
    measurements = [
        MeasurementStep(run, measurement, offset + index) for index, measurement in enumerate(run.pipeline.measurements)
    ]
    return stages + measurements


def step_names(pipeline: Pipeline) -> list[str]:
    """Return the names of stages and keys of measurements, in the order of a run's steps."""
    return [stage.name for stage in pipeline.stages] + [measurement.key for measurement in pipeline.measurements]


async def in_context(context: Context, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine as a task in a context.

    The end of the run cancels both tasks. What the inner one comes to then still counts, so it is waited for.

    Raises:
        CancelledError: the run ended before the coroutine had begun.
    """
    task = asyncio.get_running_loop().create_task(coroutine, context=context)
    try:
        return await task
    except asyncio.CancelledError:
        await asyncio.wait({task})
        return task.result()
