"""The workers of a cluster: each runs one stage or measurement on blocks of samples."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import entry_points
from typing import Any, Final

import pyarrow as pa
import ray

from ...costs import usage
from ...costs.usage import Spender, UsageScope
from ...errors import StageResultError, WorkerDiedError
from ...execution import executions
from ...execution.item import Item
from ...execution.measurement_orchestrator import MeasurementOrchestrator
from ...execution.results import (
    BatchMeasurementResult,
    BatchVerdict,
    MeasurementOutcome,
    MeasurementResult,
    StageOutcome,
    Verdict,
)
from ...execution.stage_executor import StageExecutor
from ...pipeline.exceptions import add_note, classify, is_a, outside_iteration
from ...pipeline.measurement import Measurement
from ...pipeline.sample import Sample, SampleStatus, make_sample, private_copies
from ...pipeline.serializer import Serializer, content_of, digest_of
from ...pipeline.stages import Stage
from ...storage.artifacts import artifact_stored
from ..admission import derived_id
from ..loop import LoopThread
from .accounts import WorkerStep
from .blocks import (
    HOW_TO_SEND,
    MEASUREMENT_OUTCOMES,
    STAGE_OUTCOMES,
    Block,
    History,
    Note,
    Row,
    StepRecord,
    pack,
    send,
    unloadable,
    unpack,
    unpicklable,
)
from .places import calls_per_worker

logger = logging.getLogger("forge")

PLUGINS: Final = "forge.worker"
"""Group of entry points: functions that are called with the run's carrier when a worker starts, and return a function
that is called when it ends."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a worker waits for the close of its stage, and for its report."""
STOP_PATIENCE: Final = 1.0
"""Seconds that a worker goes on with a call when the run has ended before its time."""
MAX_DEATHS: Final = 2
"""Deaths of workers in calls with a sample, after the first one in its block, with which it fails."""
_STAGE_CODES: Final = {outcome: code for code, outcome in enumerate(STAGE_OUTCOMES)}
_MEASUREMENT_CODES: Final = {outcome: code for code, outcome in enumerate(MEASUREMENT_OUTCOMES)}


@dataclass(slots=True)
class WorkerSpec:
    """Task of a worker."""

    pipeline: str
    """Name of the pipeline."""
    step: int
    """Index of the step."""
    part: Stage | Measurement
    serializer: Serializer
    stored: bool
    """True if the pipeline has a storage."""
    is_last: bool
    """True for the last step of the pipeline."""
    carrier: Mapping[str, str]
    """Strings of observers."""


class StageWorker:
    """An actor's object, which Ray Data calls with one block after the other, and lets go when there are no more."""

    def __init__(self, name: str, spec: bytes, exchange: Any) -> None:
        self._name = name
        self._process: _Process | None = None
        self._fault: Exception | None = None
        try:
            unpacked = unpack(spec)
        except Exception as error:  # noqa: BLE001 - it ends the run, on the driver
            self._fault = error
        else:
            self._process = _Process(unpacked, exchange)

    def __call__(self, table: pa.Table) -> pa.Table:
        columns = table.to_pydict()
        blocks = [
            content if content is None else self._take(number, content)
            for number, content in zip(columns["number"], columns["block"], strict=True)
        ]
        return pa.table({"number": pa.array(columns["number"], pa.int64()), "block": pa.array(blocks, pa.binary())})

    def _take(self, number: int, content: bytes) -> bytes:
        if self._process is None:
            assert self._fault is not None
            return unloadable(number, self._name, self._fault)
        return self._process.take(number, content)

    def __del__(self) -> None:
        # An actor that is killed never gets here.
        process = getattr(self, "_process", None)
        if process is not None:
            process.close()


class _Process:
    """The process of a worker, which ends when the run ends before its time.

    The stage is set up, called and closed on one thread, as what it uses may demand.
    """

    def __init__(self, spec: WorkerSpec, exchange: Any) -> None:
        self._exchange = exchange
        context = ray.get_runtime_context()
        self._id: str = context.get_actor_id() or ""  # the same after a death
        self._stop = threading.Event()
        process = f"{os.getpid()} on {socket.gethostname()}"
        if not ray.get(exchange.open.remote(spec.step, self._id, process)):
            self._stop.set()
        self._idle = threading.Event()
        """Set while no call is being made."""
        self._closed = False
        self._work: _Work | None = None
        threading.Thread(target=self._watch, daemon=True, name="forge-watch").start()
        self._thread = ThreadPoolExecutor(1, "forge-stage")
        self._work = self._thread.submit(_Work, spec, exchange, context.get_worker_id(), self._stop).result()
        exchange.set_up.remote(self._id)
        self._idle.set()

    def take(self, number: int, content: bytes) -> bytes:
        """Process a block."""
        work = self._work
        assert work is not None
        step = work.spec.step
        attempt = self._exchange.begin.remote(step, number, self._id)
        self._idle.clear()
        try:
            return self._thread.submit(work.process, number, content, attempt).result()
        finally:
            self._exchange.done.remote(step, number)
            self._idle.set()

    def close(self) -> None:
        """Close the stage, and say so."""
        self._closed = True
        if self._work is None:
            return
        try:
            self._thread.submit(self._work.close).result(CLOSE_TIMEOUT)
            # By this thread: Ray gives calls that different actors make in `__del__` the same id, and two of them at
            # the same time crash the exchange.
            self._thread.submit(self._report_close).result()
        except Exception:
            logger.exception("the worker of %r did not close", self._work.spec.part)

    def _report_close(self) -> None:
        ray.get(self._exchange.close.remote(self._id), timeout=CLOSE_TIMEOUT)

    def _watch(self) -> None:
        """Wait for the end of the run before its time."""
        stopped = None
        while stopped is None and not self._closed:
            try:
                stopped = ray.get(self._exchange.watch.remote(self._id))
            except Exception:  # noqa: BLE001 - the run has ended, or its process has
                return
        if not stopped:
            return
        self._stop.set()
        if self._work is not None:
            self._work.cancel()
        # A sync call cannot be cancelled. Ray puts another worker in the place of this one, which has nothing to do.
        if not self._idle.wait(STOP_PATIENCE):
            os._exit(1)


class _Cached:
    """Stands for the storage in a worker: the cached values that came with a block."""

    def __init__(self) -> None:
        self.histories: Mapping[str, History] = {}

    def measured(self, _: str, pairs: Iterable[tuple[str, str]], key: str, version: str) -> dict[str, bytes]:
        return {each: found[0] for each, found in self._found(pairs, key, version)}

    def costs(self, _: str, pairs: Iterable[tuple[str, str]], key: str, version: str) -> dict[str, Decimal]:
        return {each: found[1] for each, found in self._found(pairs, key, version) if found[1]}

    def _found(
        self, pairs: Iterable[tuple[str, str]], key: str, version: str
    ) -> Iterable[tuple[str, tuple[bytes, Decimal]]]:
        for sample_id, digest in pairs:
            history = self.histories.get(sample_id)
            found = history.cached.get((sample_id, digest, key, version)) if history is not None else None
            if found is not None:
                yield sample_id, found


@dataclass(slots=True)
class _WorkerPipeline:
    """Parts of a pipeline that the orchestrator needs."""

    name: str
    measurements: Sequence[Measurement]
    storage: _Cached | None
    serializer: Serializer


class _Work:
    """The stage or measurement of a worker, set up."""

    def __init__(self, spec: WorkerSpec, exchange: Any, worker: str, stop: threading.Event) -> None:
        self.spec = spec
        self.exchange = exchange
        part = spec.part
        self._part = part
        self._worker = worker
        self._stop = stop
        self._host, self._pid = socket.gethostname(), os.getpid()
        self._loop = LoopThread()
        self.now = time.monotonic
        self._fault: BaseException | None = None
        self._endings = _start_plugins(spec.carrier)
        self._cached = _Cached()
        if isinstance(part, Stage):
            self._name = part.name
            self._origin = WorkerStep(Spender.STAGE, part.name)
            self._executor = StageExecutor(stop=stop)
            if stop.is_set():
                return
            try:
                outside_iteration(f"setup() of stage {part.name!r}", self._loop.call, part.setup)
            except BaseException as error:  # noqa: BLE001 - raised in the consumer of the run
                add_note(error, f"raised by setup() of stage {part.name!r}, so the run has ended")
                self._fault = error
        else:
            self._name = part.key
            self._origin = WorkerStep(Spender.MEASUREMENT, part.key)
            storage = self._cached if spec.stored else None
            pipeline: Any = _WorkerPipeline(spec.pipeline, [part], storage, spec.serializer)
            self._orchestrator = MeasurementOrchestrator(pipeline, stop=stop)
            self._orchestrator.costs_stored = True

    def cancel(self) -> None:
        """Cancel async calls, because the run has ended."""
        self._loop.cancel_all(0.2)

    def close(self) -> None:
        """Close the stage."""
        try:
            if isinstance(self._part, Stage) and self._fault is None:
                outside_iteration(f"close() of stage {self._name!r}", self._loop.call, self._part.close)
        except BaseException:
            logger.exception("stage %r failed to close", self._name)
        for end in self._endings:
            try:
                end()
            except Exception:
                logger.exception("a plug-in of %s failed to end", PLUGINS)
        self._loop.stop(0.1)

    def process(self, number: int, content: bytes, attempt: Any) -> bytes:
        """Process a block."""
        received = time.time()
        begun = self.now()
        try:
            block: Block = unpack(content)
        except Exception as error:  # noqa: BLE001 - it ends the run, on the driver
            return unloadable(number, f"samples for {named(self._part)}", error)
        attempts, deaths = ray.get(attempt)
        record = StepRecord(
            step=self.spec.step,
            began=received,
            queued=max(0.0, received - block.ended),
            transfer=self.now() - begun,
            host=self._host,
            pid=self._pid,
            worker=self._worker,
            attempt=attempts,
        )
        if block.fault is None and not self._stop.is_set():
            recorder = self._origin.begin()
            call = _BlockCall(self, block, record, deaths)
            try:
                if self._fault is not None:
                    raise self._fault
                call.run()
            except BaseException as error:  # noqa: BLE001 - it ends the run, on the driver
                block.fault, block.where = send(error), self._name
                block.interrupted = is_a(error, KeyboardInterrupt, SystemExit)
            recorder.write(record, call.numbers)
            block.records.append(record)
        block.ended = time.time()
        kept = [row.original for row in block.rows]
        self._drop_originals(block, record)
        try:
            return pack(block)
        except Exception:  # noqa: BLE001 - one of the user's objects cannot be pickled
            for row, original in zip(block.rows, kept, strict=True):
                row.original = original
            _fail_unpicklable(block, record, self._part)
            self._drop_originals(block, record)
            return pack(block)

    def _drop_originals(self, block: Block, record: StepRecord) -> None:
        """Drop what samples of the source were at first, unless they have failed here, or may fail later."""
        for number in record.rows:
            row, note = block.rows[number], record.notes.get(number)
            if row.parent is None and (row.settled or self.spec.is_last) and (note is None or note.error is None):
                row.original = None


class _BlockCall:
    """The calls of one step on one block."""

    def __init__(self, work: _Work, block: Block, record: StepRecord, deaths: Mapping[int, int]) -> None:
        self._work = work
        self._spec = work.spec
        self._part: Any = work.spec.part
        self._block = block
        self._record = record
        self._deaths = deaths
        """Number of workers that have died in a call with each row, noted once one of them has died."""
        self._now = work.now
        self._begun = work.now()
        self.numbers: dict[int, int] = {}
        """Numbers of the rows by the ids of their items."""
        self._items: list[Item] = []
        self._carriers: dict[int, str] = {}
        """Carriers of the calls in progress, by their first rows: async ones end in any order."""
        self._context = copy_context()
        self._context.run(artifact_stored.set, record.artifacts.append)

    def run(self) -> None:
        """Take all rows through the step that have to."""
        index = self._spec.step
        rows = [number for number, row in enumerate(self._block.rows) if not row.settled and row.step <= index]
        if isinstance(self._part, Measurement):
            rows = [number for number in rows if self._serialised(number)]
            self._work._cached.histories = {row.id: row.history for row in self._block.rows if row.history is not None}
        size = self._part.batch_size
        if size is not None:
            self._record.batches = array("I")
            self._record.computed = array("I")
        calls = [rows[start : start + (size or 1)] for start in range(0, len(rows), size or 1)]
        if self._record.attempt > 1:
            calls = self._careful(calls)
        if self._part.is_async:
            self._work._loop.wait_for(lambda: self._run_async(calls))
        else:
            for numbers in calls:
                if self._work._stop.is_set():
                    return
                self._note(numbers, self._now(), self._call(numbers))

    async def _run_async(self, calls: Sequence[list[int]]) -> None:
        slots = asyncio.Semaphore(calls_per_worker(self._part) if self._record.attempt == 1 else 1)

        async def one(numbers: list[int]) -> None:
            async with slots:
                if self._work._stop.is_set():
                    return
                begun = self._now()
                with self._marked(numbers):
                    context, make = self._prepared(numbers)
                    task = asyncio.get_running_loop().create_task(make(), context=context)
                    self._note(numbers, begun, await task)

        await asyncio.gather(*map(one, calls))

    def _call(self, numbers: list[int]) -> Any:
        with self._marked(numbers):
            context, make = self._prepared(numbers)
            return context.run(make)

    def _careful(self, calls: Sequence[list[int]]) -> list[list[int]]:
        """Return the calls after a worker has died: samples that may be the cause are called alone, and fail when their
        worker has died in such a call, too."""
        careful: list[list[int]] = []
        for numbers in calls:
            if not any(self._deaths.get(number, 0) for number in numbers):
                careful.append(numbers)
                continue
            for number in numbers:
                if self._deaths.get(number, 0) < MAX_DEATHS:
                    careful.append([number])
                else:
                    self._fail(number)
        return careful

    def _fail(self, number: int) -> None:
        """Fail a sample in whose calls workers die."""
        attempts = self._record.attempt - 1
        error = WorkerDiedError(
            f"the worker of {named(self._part)} died in {attempts} attempts while it processed this sample"
        )
        kind = classify(error)
        if isinstance(self._part, Stage):
            verdict = Verdict(outcome=StageOutcome.ERROR, error=error, error_type=kind)
            whole: Any = verdict
            if self._part.batch_size is not None:
                whole = BatchVerdict(verdicts=[verdict], attempts=1, busy=0.0, duration=0.0)
        else:
            result = MeasurementResult(outcome=MeasurementOutcome.ERROR, error=error, error_type=kind)
            whole = result
            if self._part.batch_size is not None:
                whole = BatchMeasurementResult(results=[result], computed=1, duration=0.0)
        self._note([number], self._begun, whole)

    @contextmanager
    def _marked(self, numbers: list[int]) -> Iterator[None]:
        """Note during a call that the worker might die in it, if one did already."""
        if self._record.attempt == 1:
            yield
            return
        exchange, step, block = self._work.exchange, self._spec.step, self._block.number
        ray.get(exchange.mark.remote(step, block, numbers))
        try:
            yield
        finally:
            ray.get(exchange.unmark.remote(step, block, numbers))

    def _prepared(self, numbers: list[int]) -> tuple[Context, Callable[[], Any]]:
        """Return the context and the function for one call."""
        items = [self._item(number) for number in numbers]
        context = self._context.copy()
        context.run(usage.enter, UsageScope(self._work._origin, items))
        carriers = [self._block.rows[number].carrier for number in numbers]
        self._carriers[numbers[0]] = context.run(executions.executing, carriers)
        part, sync = self._part, not self._part.is_async
        if isinstance(part, Stage):
            executor = self._work._executor
            if part.batch_size is not None:
                batch: Callable[..., Any] = executor.apply_batch if sync else executor.apply_batch_async
                return context, lambda: batch(part, items)
            alone: Callable[..., Any] = executor.apply if sync else executor.apply_async
            return context, lambda: alone(part, items[0].sample)
        orchestrator = self._work._orchestrator
        if part.batch_size is not None:
            batch = orchestrator.measure_batch if sync else orchestrator.measure_batch_async
            return context, lambda: batch(part, items)
        alone = orchestrator.measure if sync else orchestrator.measure_async
        return context, lambda: alone(part, items[0].sample)

    def _item(self, number: int) -> Item:
        row = self._block.rows[number]
        sample = make_sample(
            row.data,
            row.id,
            self._spec.pipeline,
            private_copies(row.values) if row.values else {},
            SampleStatus.PENDING,
            None,
            row.parent,
            row.digest,
        )
        item = Item(sample, self._context)
        self._items.append(item)  # or another one might get the same id
        self.numbers[id(item)] = number
        return item

    def _serialised(self, number: int) -> bool:
        """Set the digest of a row before its first measurement; returns False if it cannot be serialised."""
        row = self._block.rows[number]
        if not self._spec.stored or row.values is not None:
            return True
        try:
            row.digest = digest_of(content_of(self._spec.serializer, row.data))
        except Exception as error:  # noqa: BLE001 - the user's serializer may raise anything
            self._record.unstorable[number] = send(error)
            row.settle()
            return False
        row.values = {}
        return True

    def _note(self, numbers: list[int], begun: float, result: Any) -> None:
        """Write the result of a call down."""
        record = self._record
        record.offsets.append(begun - self._begun)
        record.durations.append(result.duration)
        record.carriers.append(self._carriers.pop(numbers[0], ""))
        if isinstance(result, Verdict):
            self._note_verdict(numbers[0], result)
            return
        if isinstance(result, MeasurementResult):
            self._note_result(numbers[0], result)
            return
        assert record.batches is not None
        place = len(record.batches)
        record.batches.append(len(numbers))
        if isinstance(result, BatchVerdict):
            if result.error is not None or result.attempts > 1 or result.retries or result.busy != result.duration:
                record.batch_notes[place] = Note(
                    attempts=result.attempts,
                    busy=result.busy,
                    retries=result.retries,
                    error=None if result.error is None else send(result.error, result.error_type),
                )
            for number, verdict in zip(numbers, result.verdicts, strict=True):
                self._note_verdict(number, verdict)
            return
        assert isinstance(result, BatchMeasurementResult)
        assert record.computed is not None
        record.computed.append(result.computed)
        if result.failed and result.error is not None:
            record.batch_notes[place] = Note(error=send(result.error, result.error_type))
        for number, each in zip(numbers, result.results, strict=True):
            self._note_result(number, each)

    def _note_verdict(self, number: int, verdict: Verdict) -> None:
        record, row = self._record, self._block.rows[number]
        record.rows.append(number)
        record.outcomes.append(_STAGE_CODES[verdict.outcome])
        row.step = self._spec.step + 1
        children: list[int] | None = None
        if verdict.outcome is StageOutcome.SUCCESS and not verdict.split:
            row.data, row.digest = verdict.samples[0].data, None
        else:
            if verdict.split:
                children = [self._derive(row, index, child) for index, child in enumerate(verdict.samples)]
            if is_a(verdict.error, KeyboardInterrupt, SystemExit):
                assert verdict.error is not None
                self._block.fault, self._block.interrupted = send(verdict.error), True
                self._block.where = self._part.name
            row.settle()
        alone = record.batches is None
        if children or verdict.error is not None or verdict.skip_reason is not None or verdict.retries:
            record.notes[number] = Note(
                attempts=verdict.attempts,
                busy=verdict.busy if alone else None,
                retries=verdict.retries,
                error=None if verdict.error is None else send(verdict.error, verdict.error_type),
                skip_reason=verdict.skip_reason,
                children=children,
            )

    def _derive(self, parent: Row, index: int, sample: Sample) -> int:
        """Add a row for a sample that the stage derived; returns its number."""
        row = Row(derived_id(parent.id, sample.id, index), sample.data, parent.id, step=self._spec.step + 1)
        row.carrier = parent.carrier
        if self._spec.stored:
            try:
                row.original = content_of(self._spec.serializer, sample.data)
                row.digest = digest_of(row.original)
            except Exception:  # noqa: BLE001 - the user's serializer may raise anything; the driver says so
                row.original = None
        history = parent.history
        if history is not None:
            row.history = history
            if row.digest is not None and history.finished.get(row.id) == row.digest:
                row.settled = True
        self._block.rows.append(row)
        return len(self._block.rows) - 1

    def _note_result(self, number: int, result: MeasurementResult) -> None:
        record, row = self._record, self._block.rows[number]
        record.rows.append(number)
        record.outcomes.append(_MEASUREMENT_CODES[result.outcome])
        row.step = self._spec.step + 1
        if result.outcome is MeasurementOutcome.ERROR:
            assert result.error is not None
            record.notes[number] = Note(error=send(result.error, result.error_type))
            if is_a(result.error, KeyboardInterrupt, SystemExit):
                self._block.fault, self._block.interrupted = send(result.error), True
                self._block.where = self._part.key
            row.settled = True  # its data belongs to the values that were measured before
            return
        record.values[number] = (result.value, result.content, result.saved)
        row.values = {**(row.values or {}), self._part.key: result.value}


def _fail_unpicklable(block: Block, record: StepRecord, part: Stage | Measurement) -> None:
    """Fail the samples of which a step has made something that cannot be pickled, and so sent to another process."""
    for place, number in enumerate(record.rows):
        row, note = block.rows[number], record.notes.get(number)
        children = [block.rows[child] for child in (note.children or ())] if note is not None else []
        made: list[tuple[str, Any]] = [("data", row.data), ("value", record.values.get(number, (None,))[0])]
        made += [(f"samples[{place}].data", child.data) for place, child in enumerate(children)]
        reason = next((found for name, thing in made if (found := unpicklable(thing, name)) is not None), None)
        if reason is not None:
            refused = StageResultError(
                f"{named(part)} returned what cannot be sent to another process: {reason} ({HOW_TO_SEND})"
            )
            stage = isinstance(part, Stage)
            record.outcomes[place] = (
                _STAGE_CODES[StageOutcome.ERROR] if stage else _MEASUREMENT_CODES[MeasurementOutcome.ERROR]
            )
            attempts = note.attempts if note is not None else 1
            record.notes[number] = Note(attempts=attempts, error=send(refused))
            record.values.pop(number, None)
            for each in (row, *children):
                each.settle()


def named(part: Stage | Measurement) -> str:
    return f"stage {part.name!r}" if isinstance(part, Stage) else f"measurement {part.key!r}"


def _start_plugins(carrier: Mapping[str, str]) -> list[Callable[[], None]]:
    """Start the plug-ins of workers; returns functions that end them. Never raises."""
    endings: list[Callable[[], None]] = []
    if not carrier:
        return endings
    for entry in entry_points(group=PLUGINS):
        try:
            endings.append(entry.load()(dict(carrier)))
        except Exception:
            logger.exception("the plug-in %r of %s failed to start", entry.name, PLUGINS)
    return endings
