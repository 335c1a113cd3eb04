"""One execution of a pipeline: the seams that observers patch, and the methods that drivers call."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from asyncio import Task
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import Context, copy_context
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BudgetReached, RunCancelled, StorageError
from ..execution.executions import Executions
from ..execution.item import Item
from ..execution.measurement_orchestrator import MeasurementOrchestrator
from ..execution.stage_executor import StageExecutor
from ..pipeline.exceptions import add_note, classify, describe, is_a, message_of, no_stop, outside_iteration, printable
from ..pipeline.failure import Failure, FailureSource
from ..pipeline.sample import Sample, SampleOutcome, replace
from ..pipeline.serializer import content_of, digest_of
from ..pipeline.stages import Stage
from ..storage.gate import Gate, Patience, patience
from ..storage.records import ArtifactResult, DeadLetter, SampleRecord
from ..support.clock import Clock
from ..support.formatting import seconds
from ..support.layout import to_html
from . import active_runs
from .admission import Admission
from .consumable import Consumable, outcome_of
from .driver import Carried, Driver
from .failures import FailureLimit, FailureLog
from .heartbeat import Heartbeat
from .ledger import RunLedger
from .manifest import Manifest
from .outcome import RunOutcome, RunType
from .queue import QueueClosed
from .result import RunResult, RunSnapshot, result_of
from .source import SourceReader
from .stalls import Stall, StallDetector
from .steps import step_names
from .termination import termination

if TYPE_CHECKING:
    from ..costs.summary import Charge
    from ..definition import Pipeline

logger = logging.getLogger("forge")

GRACE = 0.4
"""Seconds that a run waits for its tasks, and then for its threads, when it ends; what still runs then is abandoned."""

CANCEL_PATIENCE = 2.0
"""Seconds for which the record of a cancelled run is tried to be stored."""


class ClockReading(NamedTuple):
    """Readings of both clocks at one moment."""

    time: float
    monotonic: float


class Run(Consumable):
    """One execution of a pipeline.

    Iterate it (`for` or `async for`) to drive the pipeline and get its ready samples, or call `drain`. Nothing happens
    before that. Used as a context manager, it ends when the block ends, finished or not. `result` says how it went.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        runner: str,
        clock: Clock,
        resume: bool,
        driver: Any,
        replay: Sequence[DeadLetter] | None = None,
        limit: int | None = None,
        shutdown_timeout: float,
        handle_signals: bool,
        introspect: bool = False,
    ) -> None:
        super().__init__()
        self.id = str(uuid.uuid4())
        self.pipeline = pipeline
        self.runner = runner
        self.type = RunType.REPLAY if replay is not None else RunType.FULL if limit is None else RunType.PARTIAL
        self.clock = clock
        self.shutdown_timeout = shutdown_timeout
        self.handle_signals = handle_signals
        self._introspect = introspect
        self.context = copy_context()
        """Context of the run's own work; the contexts of its samples are copies of it."""
        self.carrier: dict[str, str] = {}
        """Strings for observers, kept unread in the run's record, such as a trace context."""
        self.worker_carrier: dict[str, str] = {}
        """More strings for observers in worker processes, such as their configuration. Never stored: it may hold
        secrets. Workers get both in one."""
        self.stop = threading.Event()
        """Set when the run ends early."""
        self.gate = pipeline.storage.gate if pipeline.storage is not None else Gate()
        """Closed while the storage does not work: no call of user code begins."""
        self.executor = StageExecutor(clock=clock, stop=self.stop, gate=self.gate)
        self.orchestrator = MeasurementOrchestrator(pipeline, clock=clock, stop=self.stop, gate=self.gate)
        self._manifest = (
            Manifest(pipeline.storage, self.id, step_names(pipeline)) if pipeline.storage is not None else None
        )
        self._stalls = StallDetector(pipeline.stall_after, clock)
        self._stalls_unwritten = False
        self.interval = self._stalls.interval()
        self._heartbeat = Heartbeat(pipeline.storage, self.id) if pipeline.storage is not None else None
        self._admission = Admission(self, resume=resume, replay=replay)
        self._source = SourceReader(pipeline, self._admission.replayed if replay is not None else None, limit)
        self.ledger = RunLedger(pipeline, clock, settled_late=self.spent)
        self.costs = self.ledger.costs
        self.counters = self.ledger.counters
        """To be touched only under `lock`."""
        self.lock = self.ledger.lock
        self._failure_log = FailureLog(pipeline.name)
        self._failure_limit = FailureLimit(1.0 if replay is not None else pipeline.max_failures)
        self._outcome = RunOutcome.COMPLETED
        self._reason: BaseException | None = None
        """Reason for halting the run that is not an error."""
        self.started = ClockReading(0.0, 0.0)
        self.started_cpu = 0.0
        """Processor seconds that the process had used when the run began."""
        self._recorded = False
        self._set_up_stages: list[Stage] = []
        self._end_lock = threading.Lock()
        self._recording = False
        """True once a thread writes the run's end."""
        self._at_end: list[Callable[[], None]] = []
        self._driver: Driver = driver(self)
        self._output = self._driver.output

    # The seams: each is called once for what it names.

    def begin(self) -> None:
        """Begin the run: write its record, set up its stages.

        Raises:
            StorageError: the storage or the artifact store cannot be opened.
            Exception: what a stage's `setup` raised.
        """
        storage = self.pipeline.storage
        if storage is not None:
            storage.open()
            storage.begin_run(
                self.id,
                self.pipeline.name,
                self.pipeline.id,
                self.started.time,
                self._open_record(),
            )
            self._recorded = True
            if self._heartbeat is not None:
                self._heartbeat.start()
            nothing = storage.count(self.pipeline.name) == 0
            self.orchestrator.nothing_stored = nothing
            self.orchestrator.costs_stored = not nothing and storage.has_costs(self.pipeline.name)
            self._admission.reads_storage = not nothing
            self.pipeline.dead_letters.refresh()
        if self.pipeline.artifacts is not None:
            self.pipeline.artifacts.open()
        for stage in () if self._driver.remote else self.pipeline.stages:
            try:
                outside_iteration(f"setup() of stage {stage.name!r}", self._source.loop.call, stage.setup)
            except Exception as error:
                add_note(error, f"raised by setup() of stage {stage.name!r}, so the run has ended")
                raise
            self._set_up_stages.append(stage)

    def pull(self) -> Sample | None:
        """Return the next sample of the source; None at its end.

        Raises:
            SourceError: an iterator was used up by an earlier run.
            Exception: what the source raised.
        """
        return self._source.next()

    def source_blocked(self, seconds: float) -> None:
        """Count seconds in which the thread that reads the source waited for room."""
        self.counters.source.blocked += seconds  # by this thread only

    def pulled(self, seconds: Sequence[float], error: BaseException | None = None) -> None:
        """Report reads of the source that a worker has made, which took so many seconds each; with an error, the last
        one failed.

        Does nothing: it is there to be observed.
        """

    def admit(self, item: Item) -> None:
        """Admit a sample of the source. Called in the item's context."""
        self.ledger.admit(item)

    def derive(self, parent: Item, children: Sequence[Item], stage_name: str) -> None:  # noqa: ARG002 - for observers
        """Admit the samples that a stage derived from one; the parent will settle as `split`."""
        self.ledger.derive(children)

    def settle(self, item: Item, outcome: SampleOutcome, error: BaseException | None = None) -> bool:  # noqa: ARG002
        """Settle a sample, after it was stored. Returns False if it had settled already."""
        charges = self.ledger.settle(item, outcome)
        if charges is None:
            return False
        if charges:
            self.spent(item, charges)
        if item.failure is not None:
            self._failed(item, item.failure)
        elif self._failure_limit.waits:
            self._limit_failures()
        return True

    def spent(self, item: Item, charges: Sequence[Charge]) -> None:
        """Report the costs of a sample as it settles, and again for usage that is reported later.

        Does nothing: it is there to be observed. The run has counted the charges already.
        """

    def executed(self, executions: Executions) -> None:
        """Report executions that worker processes made, when they have come home: after their samples were admitted or
        derived, before these go on to the next step or settle.

        Does nothing: it is there to be observed.
        """

    def artifact_arrived(self, artifact: ArtifactResult) -> None:
        """Count an artifact that a worker process has stored, when it has come home."""
        self.ledger.count_artifact(artifact)

    def stalled(self, stall: Stall) -> None:
        """Report that nothing has settled for the pipeline's `stall_after` seconds; once for each stall."""
        logger.warning("%s: %s", self.pipeline.name, stall)
        self._record_stalls()

    def end(self, outcome: RunOutcome, error: BaseException | None) -> RunResult:
        """End the run, in which everything has settled: complete its record. Returns the run's result."""
        result = result_of(self, outcome, error)
        self._failure_log.ended(result)
        if self.pipeline.storage is not None and self._recorded:
            self._flush_manifest()
            self.pipeline.dead_letters.refresh()
            self.pipeline.storage.end_run(self.id, result.ended, result.outcome.value, result.to_dict())
        return result

    def ended(self, exiting: bool) -> None:
        """Report that the run has ended, and has its `result`; `exiting` if the process is about to end as well.

        Does nothing: it is there to be observed.
        """

    def snapshot(self) -> RunSnapshot:
        """Return counts and states at this moment, consistent with each other."""
        return self.ledger.snapshot(self._driver, self._source)

    # For displays.

    def carried(self) -> Sequence[Carried]:
        """Return the samples that are with worker processes, or on their way between them."""
        return self._driver.carried()

    @property
    def began(self) -> bool:
        """True once the run has begun."""
        return self._began

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call a function when the run has its result, before a signal ends the process. An exception is suppressed."""
        self._at_end.append(callback)

    def _repr_html_(self) -> str:
        """Return the result for a notebook, or the progress as long as there is none."""
        if self.result is not None:
            return self.result._repr_html_()
        from ..progress.tracker import Tracker  # noqa: PLC0415 - above this package: for its users' convenience

        return to_html(Tracker(self).blocks())

    def _shown(self, progress: bool) -> AbstractContextManager[object]:
        if not progress:
            return nullcontext()
        from .. import progress as displays  # noqa: PLC0415 - as above

        return displays.progress(self)

    # For the drivers.

    def take(self) -> Item | None:
        """Pull and admit the next sample; None at the end. It must be looked up next.

        An error of the source fails the run when everything else is through.
        """
        try:
            sample = self.pull()
        except (KeyboardInterrupt, SystemExit) as error:
            self.interrupt(error)
            return None
        except BaseException as error:  # noqa: BLE001 - raised in the consumer
            self.fail(error, now=False)
            return None
        if sample is None:
            return None
        if self.pipeline.max_cost is not None and (reached := self.costs.budget_reached) is not None:
            self.halt(reached)
            return None
        item = self._admission.item(sample)
        item.context.run(self.admit, item)
        return item

    def take_shard(self) -> Iterable[Any] | None:
        """Return the next shard of the source, which workers read; None at the end. Errors as for `take`."""
        began = self.clock.monotonic()
        try:
            return self._source.next_shard()
        except (KeyboardInterrupt, SystemExit) as error:
            self.interrupt(error)
        except BaseException as error:  # noqa: BLE001 - raised in the consumer
            self.context.copy().run(self.pulled, [self.clock.monotonic() - began], error)
            self.fail(error, now=False)
        return None

    def take_read(self, sample_id: str, digest: str | None) -> Item:
        """Admit a sample that a worker has read, and keeps. It must be looked up next."""
        item = self._admission.read(sample_id, digest)
        item.context.run(self.admit, item)
        return item

    def split(
        self, parent: Item, samples: Sequence[Sample], stage_name: str, contents: Sequence[bytes | None] | None = None
    ) -> list[Item]:
        """Derive the children of a sample, which must be looked up next; a worker has serialised their `contents`."""
        children = self._admission.children(parent, samples, stage_name, contents)
        self.derive(parent, children, stage_name)
        with self.lock:
            self.costs.split(parent, children)
        return children

    def look_up(self, items: Sequence[Item]) -> None:
        """Look up new items, and set the `verdict` of those that need no processing."""
        self._admission.look_up(items)

    def is_finished(self, record: SampleRecord) -> bool:
        """Return True if nothing is done for a sample that is stored like this, and has not changed."""
        return self._admission.is_finished(record)

    def note(self, items: Sequence[Item]) -> None:
        """Note items that have settled in the run's manifest. Never raises."""
        if self._manifest is None:
            return
        try:
            self._manifest.add(items)
        except StorageError:
            # All settled samples are stored, and the storage has ended the run; its end tries again.
            logger.exception("the manifest of run %s cannot be written", self.id)
        except Exception:  # the database refuses it, and the samples are stored all the same
            logger.exception("the manifest of run %s cannot be written, and is incomplete", self.id)
            self._manifest = None

    def _flush_manifest(self) -> None:
        """Write the rest of the manifest.

        Raises:
            StorageError: the storage does not work.
        """
        if self._manifest is None:
            return
        try:
            self._manifest.flush()
        except StorageError:
            raise
        except Exception:  # the database refuses it, and the samples are stored all the same
            logger.exception("the manifest of run %s cannot be written, and is incomplete", self.id)
            self._manifest = None

    def waited(self, since: float) -> None:
        """Look for a stall, if it is time. Never raises."""
        if self._output.discards:
            since = self.started.monotonic  # nobody has to take what is ready
        try:
            noticed, over = self._stalls.check(
                self.snapshot(),
                since,
                storage_waits=self.gate.closed,
                retries=list(self.executor.retries),
                lacking=self._driver.lacking,
            )
            if over is not None:
                logger.warning("%s: settles again, after %s", self.pipeline.name, seconds(over.duration))
            if over is not None or self._stalls_unwritten:
                self._record_stalls()
            if noticed is not None:
                self.context.copy().run(self.stalled, noticed)
        except Exception:
            logger.exception("run %s cannot be checked for a stall", self.id)

    @property
    def stalls(self) -> list[Stall]:
        """The times so far in which the run settled nothing although its consumer waited."""
        return self._stalls.stalls

    def _open_record(self) -> dict[str, Any]:
        """Return the record of the run before its end."""
        return {"definition": self.pipeline.definition, "carrier": self.carrier}

    def _record_stalls(self) -> None:
        """Write the stalls to the run's record, in which they stay if the process is killed."""
        if not self._recorded or self.pipeline.storage is None:
            return
        self._stalls_unwritten = True
        if self.gate.closed:
            return
        record = {**self._open_record(), "stalls": [asdict(stall) for stall in self.stalls]}
        try:
            self.pipeline.storage.update_run(self.id, record)
            self._stalls_unwritten = False
        except Exception:
            logger.debug("the stalls of run %s could not be written", self.id, exc_info=True)

    @property
    def is_failing(self) -> bool:
        """True if the run has an error, with which it ends at the latest when all samples have settled."""
        return self._error is not None

    @property
    def has_history(self) -> bool:
        """True if samples must be looked up in the storage. Known once the run has begun."""
        return self._admission.reads_storage

    def fail(self, error: BaseException, outcome: RunOutcome = RunOutcome.FAILED, *, now: bool = True) -> None:
        """End the run with an error, which is raised in the consumer: now, or when all samples have settled."""
        error = no_stop(error, "the run")
        interrupt = is_a(error, KeyboardInterrupt, SystemExit)
        with self.lock:
            # The first one counts, but an interrupt is not lost behind an error.
            undecided = self._error is None and self._outcome is RunOutcome.COMPLETED
            if undecided or (interrupt and is_a(self._error, Exception)):
                self._error, self._outcome = error, outcome
        if now:
            self.stop.set()
            self._driver.close()

    def halt(self, reason: BudgetReached) -> None:
        """End the run as `cancelled` when all admitted samples have settled; nothing is raised."""
        with self.lock:
            if self._error is None and self._outcome is RunOutcome.COMPLETED:
                self._outcome, self._reason = RunOutcome.CANCELLED, reason

    def interrupt(self, error: BaseException) -> None:
        """End the run now as `cancelled` because of an interrupt, which is raised in the consumer."""
        self.fail(error, RunOutcome.CANCELLED)

    @contextmanager
    def supervise(self, done: Callable[[], None]) -> Iterator[None]:
        """Supervise the work of a driver's thread: an exception ends the run, otherwise `done` is called."""
        try:
            yield
        except QueueClosed:
            return
        except (KeyboardInterrupt, SystemExit) as error:
            self.interrupt(error)
        except BaseException as error:  # noqa: BLE001 - raised in the consumer
            self.fail(error)
        else:
            done()

    def thread(self, work: Callable[..., None], name: str, *arguments: Any) -> threading.Thread:
        """Start a thread that works in the run's context. A daemon: the user's code may never return."""
        context = self.context.copy()
        thread = threading.Thread(target=context.run, args=(work, *arguments), daemon=True, name=name)
        try:
            thread.start()
        except RuntimeError as error:
            add_note(error, f"raised for {name!r}: each sync stage has as many threads as its `concurrency`")
            raise
        return thread

    def wait_for(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """Call an async function on the run's loop and wait for it."""
        return self._source.loop.wait_for(function)

    @property
    def tasks(self) -> list[Task[Any]]:
        """The tasks on the run's loop that have not ended."""
        return self._source.loop.tasks()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start a task on the run's loop."""
        self._source.loop.spawn(coroutine)

    def close_source(self) -> None:
        """Close the source; on the thread that read it. Never raises."""
        try:
            outside_iteration("closing the source", self._source.close)
        except (KeyboardInterrupt, SystemExit) as error:
            self.interrupt(error)
        except (QueueClosed, CancelledError):  # the loop has ended
            logger.warning("the source of %r did not close in time, when run %s ended", self.pipeline, self.id)
        except Exception as error:  # noqa: BLE001 - raised in the consumer
            self.fail(error, now=False)

    @property
    def step_count(self) -> int:
        return len(self.pipeline.stages) + len(self.pipeline.measurements)

    def serialise(self, item: Item) -> bool:
        """Serialise an item's data before it is measured and stored; returns True if that succeeded."""
        if self.pipeline.storage is None:
            return True
        try:
            payload = content_of(self.pipeline.serializer, item.sample.data)
            digest = digest_of(payload)
        except Exception as error:  # noqa: BLE001 - the user's serializer may raise anything
            item.original = None  # not replayable: it would fail in the same way
            self.fail_item(item, error, FailureSource.STORAGE, self.pipeline.storage.backend)
            return False
        item.payload = payload
        item.sample = replace(item.sample, digest=digest)
        return True

    def _failed(self, item: Item, failure: Failure) -> None:
        """Log the failure of a sample that has settled, if it is the first of its class, and end the run if there are
        too many."""
        with self.lock:
            first = self.counters.failures.is_first(failure)
        if first:
            self._failure_log.sample_failed(item, failure)
        self._limit_failures()

    def _limit_failures(self) -> None:
        if self.stop.is_set():
            return
        with self.lock:
            error = self._failure_limit.error(self.counters)
        if error is not None:
            self.fail(error)

    def batch_failed(self, items: Sequence[Item], failure: Failure) -> None:
        """Log a batch that failed as a whole, and was counted."""
        with self.lock:
            first = self.counters.batch_failures.is_first(failure)
        if first:
            self._failure_log.batch_failed(items, failure)

    def fail_item(self, item: Item, error: BaseException, source: FailureSource, where: str, attempts: int = 1) -> None:
        """Note the failure of a sample, and the outcome it will settle with."""
        item.failure = Failure(source, where, error, classify(error), message_of(error), attempts)
        item.verdict = SampleOutcome.FAILED if self.pipeline.storage is None else SampleOutcome.DLQ

    def _start(self) -> None:
        termination.hold()
        # Whoever wants to end the run waits until it has begun.
        with self._end_lock:
            if self._began:
                return
            if self._closed:
                raise QueueClosed
            self._began = True
            self.started = ClockReading(self.clock.time(), self.clock.monotonic())
            self.started_cpu = time.process_time()
            self._stalls.begin(*self.started)
            active_runs.add(self)
            if self._introspect:
                from .introspection import introspection  # noqa: PLC0415 - few runs need it

                introspection.add(self)
            self.context.run(self.ledger.count_artifacts)
            patient = Patience(self.stop, storage=self.pipeline.storage, lost=self.fail)
            try:
                self.context.run(patience.set, Patience(eager=True))
                outside_iteration("the begin of the run", self.context.run, self.begin)
                self.context.run(patience.set, patient)
                if self.stop.is_set():  # a signal ended it meanwhile
                    raise QueueClosed
                self._driver.start()
            except BaseException as error:
                self.fail(error, outcome_of(error))
                raise

    def abandon(self) -> None:
        """End the run because the process ends, even while a `setup` or `close` of a stage does not return."""
        locked = self._end_lock.acquire(timeout=GRACE)
        try:
            if self.result is None:
                # Whoever holds the lock may be in the context, which nobody can enter a second time.
                self._end_now(self.context if locked else self.context.copy())
        finally:
            if locked:
                self._end_lock.release()

    def _finish(self, outcome: RunOutcome, error: BaseException | None = None) -> None:
        """End the run exactly once, whoever comes first."""
        with self._end_lock:
            if self.result is not None or not self._began:
                return
            if error is not None or outcome is RunOutcome.CANCELLED:
                with self.lock:
                    if self._error is None and self._outcome is RunOutcome.COMPLETED:
                        self._error, self._outcome = error, outcome
            try:
                self._end_now(self.context)
            except BaseException as fault:
                if self.result is None and not is_a(self._error, KeyboardInterrupt):
                    self._end_after(fault)
                self._give_up()
                raise

    def _end_after(self, fault: BaseException) -> None:
        """End the run all the same after its end has raised something: with what was not closed or written yet."""
        if is_a(fault, KeyboardInterrupt, SystemExit):
            self._error, self._outcome = fault, RunOutcome.CANCELLED
        else:
            self.fail(fault, now=False)
        try:
            self._end_now(self.context)
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Leave the run as it is, unless it has ended: a second interrupt came while it ended after the first."""
        if self.result is None:
            self._recording = True
            self.result = result_of(self, self._outcome, self._error)
            self._release()

    def _end_now(self, context: Context) -> None:
        """Stop everything, settle what is in flight, and write the run's end in the given context."""
        self.stop.set()
        self._driver.close()
        self._source.loop.cancel_all(GRACE / 2)
        self._driver.join(GRACE)
        self.costs.count_calls()
        self._stalls.end()
        self._cancel_the_rest()
        self._close_stages()
        self._source.loop.stop(0.1)
        self.executor.close()
        self.orchestrator.close()
        self._admission.close()
        with self.lock:
            self.costs.close()
            if self._recording:
                return
            self._recording = True
        context.run(patience.set, self._last_patience())
        try:
            why = self._error if self._error is not None else self._reason
            self.result = context.run(self.end, self._outcome, why)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as fault:
            if not (is_a(fault, StorageError) and is_a(self._error, StorageError)):  # raised already
                logger.exception("the record of run %s could not be written", self.id)
            if self._error is None:
                self._outcome, self._error = RunOutcome.FAILED, no_stop(fault, "the end of the run")
            self.result = result_of(self, self._outcome, self._error)
        finally:
            self._recording = self.result is not None
        self._release()
        self.ended(active_runs.is_ending())

    def _last_patience(self) -> Patience:
        """Return how long the run's end waits for the storage."""
        if is_a(self._error, StorageError):
            return Patience(seconds=0)  # the run has waited
        return Patience(seconds=CANCEL_PATIENCE if self._outcome is RunOutcome.CANCELLED else None)

    def _release(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop(GRACE)
        if self.pipeline.storage is not None:
            self.pipeline.storage.release()
        while self._at_end:
            with suppress(Exception):
                self._at_end.pop()()
        if self._introspect:
            from .introspection import introspection  # noqa: PLC0415 - as above

            introspection.remove(self)
        active_runs.remove(self)

    def _cancel_the_rest(self) -> None:
        error = RunCancelled("the run ended before this sample was finished")
        cancelled = [item for item in self.ledger.seal() if self.settle(item, SampleOutcome.FAILED, error)]
        if self._manifest is not None:
            self._manifest.add(cancelled, write=False)  # the run's end has its own patience

    def _close_stages(self) -> None:
        # Whoever cancels a run does not wait for ever. Only the event loop can leave a call, though: a sync `close`
        # needs the thread that it is on, which may have set up what it closes.
        timeout = self.shutdown_timeout if self._outcome is RunOutcome.CANCELLED else None
        while self._set_up_stages:
            stage = self._set_up_stages.pop()
            try:
                call = self._source.loop.call
                outside_iteration(
                    f"close() of stage {stage.name!r}", self.context.copy().run, call, stage.close, timeout
                )
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                logger.error("stage %r failed to close: %s", stage.name, describe(error), exc_info=printable(error))
                self.fail(error, now=False)
