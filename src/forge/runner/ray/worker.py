"""The workers of a cluster: each runs one stage or measurement on blocks of samples."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import entry_points
from typing import Any, Final

import pyarrow as pa
import ray

from ...execution.measurement_orchestrator import MeasurementOrchestrator
from ...execution.stage_executor import StageExecutor
from ...pipeline.exceptions import add_note, is_a, outside_iteration
from ...pipeline.measurement import Measurement
from ...pipeline.serializer import Serializer
from ...pipeline.stages import Stage
from ..loop import LoopThread
from .block_calls import BlockCall, died_outside, fail_unpicklable, named
from .blocks import (
    Block,
    History,
    StepRecord,
    pack,
    send,
    unloadable,
    unpack,
    unprocessed,
)
from .stopping import leave_unless, wait_for_stop

logger = logging.getLogger("forge")

PLUGINS: Final = "forge.worker"
"""Group of entry points: functions that are called with the run's carrier when a worker starts, and return a function
that is called when it ends."""
MAX_DEATHS_OUTSIDE: Final = 5
"""Deaths of workers with a block outside of calls, after the first one, with which the run fails. They may be those of
nodes, too, so there are more than in calls with a sample."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a worker waits for the close of its stage, and for its report."""


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
        self._work: Work | None = None
        threading.Thread(target=self._watch, daemon=True, name="forge-watch").start()
        self._thread = ThreadPoolExecutor(1, "forge-stage")
        self._work = self._thread.submit(Work, spec, exchange, context.get_worker_id(), self._stop).result()
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
        if not wait_for_stop(self._exchange, self._id, lambda: self._closed):
            return
        self._stop.set()
        if self._work is not None:
            self._work.cancel()
        leave_unless(self._idle)


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


class Work:
    """The stage or measurement of a worker, set up."""

    def __init__(self, spec: WorkerSpec, exchange: Any, worker: str, stop: threading.Event) -> None:
        self.spec = spec
        self.exchange = exchange
        part = spec.part
        self._part = part
        self._worker = worker
        self.stop = stop
        self._host, self._pid = socket.gethostname(), os.getpid()
        self.loop = LoopThread()
        self.now = time.monotonic
        self._fault: BaseException | None = None
        self._is_set_up = False
        self._endings = _start_plugins(spec.carrier)
        self.cached = _Cached()
        if isinstance(part, Stage):
            self.name = part.name
            self.executor = StageExecutor(stop=stop)
            if stop.is_set():
                return
            try:
                outside_iteration(f"setup() of stage {part.name!r}", self.loop.call, part.setup)
            except BaseException as error:  # noqa: BLE001 - raised in the consumer of the run
                add_note(error, f"raised by setup() of stage {part.name!r}, so the run has ended")
                self._fault = error
            else:
                self._is_set_up = True
        else:
            self.name = part.key
            storage = self.cached if spec.stored else None
            pipeline: Any = _WorkerPipeline(spec.pipeline, [part], storage, spec.serializer)
            self.orchestrator = MeasurementOrchestrator(pipeline, stop=stop)
            self.orchestrator.costs_stored = True

    def cancel(self) -> None:
        """Cancel async calls, because the run has ended."""
        self.loop.cancel_all(0.2)

    def close(self) -> None:
        """Close the stage."""
        try:
            if isinstance(self._part, Stage) and self._is_set_up:
                outside_iteration(f"close() of stage {self.name!r}", self.loop.call, self._part.close)
        except BaseException:
            logger.exception("stage %r failed to close", self.name)
        for end in self._endings:
            try:
                end()
            except Exception:
                logger.exception("a plug-in of %s failed to end", PLUGINS)
        self.loop.stop(0.1)

    def process(self, number: int, content: bytes, attempt: Any) -> bytes:
        """Process a block."""
        received = time.time()
        attempts, deaths = ray.get(attempt)
        # The first of them died before calls were watched.
        outside = attempts - 2 - sum(deaths.values())
        if outside >= MAX_DEATHS_OUTSIDE:
            return unprocessed(number, died_outside(self._part, attempts - 1))
        begun = self.now()
        try:
            block: Block = unpack(content)
        except Exception as error:  # noqa: BLE001 - it ends the run, on the driver
            return unloadable(number, f"samples for {named(self._part)}", error)
        unpacked = self.now()
        record = StepRecord(
            step=self.spec.step,
            began=received,
            queued=max(0.0, received - block.ended),
            transfer=unpacked - begun,
            host=self._host,
            pid=self._pid,
            worker=self._worker,
            attempt=attempts,
        )
        if block.fault is None and not self.stop.is_set():
            call = BlockCall(self, block, record, deaths)
            try:
                if self._fault is not None:
                    raise self._fault
                call.run()
            except BaseException as error:  # noqa: BLE001 - it ends the run, on the driver
                block.fault, block.where = send(error), self.name
                block.interrupted = is_a(error, KeyboardInterrupt, SystemExit)
            call.account.costs.write(record, call.numbers)
            block.records.append(record)
        block.ended = time.time()
        kept = [row.original for row in block.rows]
        self._drop_originals(block, record)
        try:
            return pack(block)
        except Exception:  # noqa: BLE001 - one of the user's objects cannot be pickled
            for row, original in zip(block.rows, kept, strict=True):
                row.original = original
            fail_unpicklable(block, record, self._part)
            self._drop_originals(block, record)
            return pack(block)

    def _drop_originals(self, block: Block, record: StepRecord) -> None:
        """Drop what samples of the source were at first, unless they have failed here, or may fail later."""
        for number in record.rows:
            row, note = block.rows[number], record.notes.get(number)
            if row.parent is None and (row.settled or self.spec.is_last) and (note is None or note.error is None):
                row.original = None


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
