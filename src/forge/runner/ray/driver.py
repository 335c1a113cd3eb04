"""The driver of runs on Ray: it reads the source, makes blocks, and settles what comes home."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ...errors import ClusterError, ConfigurationError, SourceError
from ...execution.item import Item
from ...pipeline.exceptions import describe
from ...pipeline.failure import FailureSource
from ..committer import WRITE_BATCH, Committer
from ..driver import Carried, Driver, StageLoad
from ..queue import QueueClosed, StageQueue
from ..source import reading_source
from ..steps import step_names, steps_of
from .blocks import HOW_TO_SEND, Block, History, Row, pack, receive, unpack, unpicklable
from .booking import Booking
from .cluster import Execution, connect, remote_arguments
from .histories import histories_of
from .places import NOWHERE, ClusterState, calls_per_worker, loads_of, slots
from .worker import WorkerSpec

if TYPE_CHECKING:
    from ...pipeline.measurement import Measurement
    from ...pipeline.stages import Stage
    from ..run import Run
    from .exchange import Attempts

logger = logging.getLogger("forge")

MAX_LINGER: Final = 0.1
"""Seconds that a block waits for more samples after its first, while others are in flight."""
MAX_FUTILE: Final = 3
"""Executions of Ray Data in a row that bring no block home, after which the run fails."""
LOOK_INTERVAL: Final = 0.5
"""Seconds between two looks at where blocks are."""
STOP_PATIENCE: Final = 1.5
"""Seconds, if `shutdown_timeout` leaves them, for which a run that ends early waits for its workers, which end by
themselves."""


class RayDriver(Driver):
    """Drives a run with Ray Data: one thread reads the source, one makes blocks, one books those that come home, and
    one stores and settles.

    A block is kept until it is home. What has not come home when an execution of Ray Data ends, because a node or the
    reader has died, goes into another one.
    """

    remote = True

    def __init__(self, run: Run, *, block_size: int) -> None:
        self._run = run
        self._parts: list[Stage | Measurement] = [*run.pipeline.stages, *run.pipeline.measurements]
        if not self._parts:
            raise ConfigurationError(f"{run.pipeline!r} has no stage and no measurement that Ray could run")
        for part in self._parts:
            if (reason := unpicklable(part, "self")) is not None:
                raise ConfigurationError(f"{part!r} cannot be sent to workers: {reason} (make it in setup())")
        self._steps = steps_of(run)
        sizes = [part.batch_size or 1 for part in self._parts]
        sizes += [part.concurrency for part in self._parts if part.is_async and part.min_concurrency is None]
        self._block_size = max(block_size, *sizes, 1)
        self._window = 2 + 2 * sum(slots(part)[1] for part in self._parts)
        """Number of blocks that may be in flight."""
        self._committer = Committer(run)
        self._booking = Booking(run, self._steps)
        self._arrived = StageQueue(self._block_size, clock=run.clock)
        self._finished = StageQueue(WRITE_BATCH, clock=run.clock)
        self.output = StageQueue(WRITE_BATCH, clock=run.clock)
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        """Guards what follows."""
        self._blocks: dict[int, tuple[list[Item], bytes]] = {}
        """Blocks in flight: their samples, and what is sent."""
        self._made = 0
        self._all_made = False
        self._execution: Execution | None = None
        self._sent = 0
        """Number of blocks sent into the execution."""
        self._held: Sequence[Item] = ()
        """Samples of the next block."""
        self._state = ClusterState()
        """State of the execution, as it was seen last."""
        self._past_times = Counter[int]()
        """Seconds of the workers of earlier executions, by step."""
        self._over = threading.Event()

    def start(self) -> None:
        run = self._run
        self._arguments = remote_arguments(self._parts, local=connect())
        self._threads.append(run.thread(self._read, "forge-source"))
        self._threads.append(run.thread(self._make_blocks, "forge-blocks"))
        self._threads.append(run.thread(self._bring_home, "forge-ray"))
        self._threads.append(run.thread(self._committer.settle_all, "forge-settle", self._finished, self.output))
        run.thread(self._look, "forge-look")  # it waits for answers, and nobody waits for it

    def close(self) -> None:
        self._over.set()
        for queue in (self._arrived, self._finished, self.output):
            queue.close()
        with self._changed:
            self._changed.notify_all()
            execution = self._execution
        if execution is not None:
            execution.stop()

    def join(self, timeout: float) -> None:
        deadline = time.monotonic() + max(timeout, min(STOP_PATIENCE, self._run.shutdown_timeout / 4))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def lacking(self) -> dict[str, str]:
        with self._changed:
            execution = self._execution
        if execution is None:
            return {}
        try:
            found = execution.lacking()
        except Exception:  # the cluster does not answer
            logger.debug("%s: the workers could not be counted", self._run.pipeline.name, exc_info=True)
            return {}
        names = step_names(self._run.pipeline)
        return {names[step]: text for step, text in found.items()}

    def loads(self) -> Mapping[str, StageLoad]:
        state, blocks = self._state, list(self._blocks.items())
        found = loads_of(self._parts, state, ((number, len(items)) for number, (items, _) in blocks))
        found[0] = found[0]._replace(queue_depth=found[0].queue_depth + self._arrived.depth + len(self._held))
        return {step.stage_name: load for step, load in zip(self._steps, found, strict=True) if step.stage_name}

    def carried(self) -> Sequence[Carried]:
        places = self._state.places
        blocks = [(items, places.get(number, NOWHERE)) for number, (items, _) in list(self._blocks.items())]
        return [Carried(items, place.step, place.worker, place.duration) for items, place in blocks]

    def _look(self) -> None:
        """Look at the cluster from time to time."""
        while not self._over.wait(LOOK_INTERVAL):
            with self._changed:
                execution = self._execution
            if execution is not None and (state := execution.state()) is not None:
                self._saw(state)

    def _saw(self, state: ClusterState) -> None:
        """Keep a state, and count the workers in it."""
        self._state = state
        for step, part in zip(self._steps, self._parts, strict=True):
            time = self._past_times[step.index] + state.times.get(step.index, 0.0)
            step.had_workers(state.peaks.get(step.index, 0), time * calls_per_worker(part))

    def _read(self) -> None:
        with self._run.supervise(self._arrived.finish), reading_source(self._run):
            while not self._run.stop.is_set():
                item = self._run.take()
                if item is None:
                    break
                if blocked := self._arrived.put(item):
                    self._run.source_blocked(blocked)

    def _make_blocks(self) -> None:
        def done() -> None:
            with self._changed:
                self._all_made = True
                if self._execution is not None:
                    self._execution.end(self._sent)
                self._changed.notify_all()

        with self._run.supervise(done):
            while items := self._arrived.take_waiting(self._block_size, MAX_LINGER):
                self._run.look_up(items)
                going = []
                for item in items:
                    if item.verdict is None:
                        going.append(item)
                    else:
                        self._finished.put(item)
                if going:
                    self._send(going)

    def _send(self, items: list[Item]) -> None:
        """Make a block, and send it when there is room."""
        self._held = items
        with self._changed:
            while len(self._blocks) >= self._window:
                self._changed.wait()
                if self._run.stop.is_set():
                    raise QueueClosed
            number = self._made
            self._made += 1
        items, content = self._packed(number, items)
        self._held = ()
        if not items:
            return
        with self._changed:
            self._blocks[number] = (items, content)
            if self._execution is not None:
                self._execution.put(number, content)
                self._sent += 1

    def _packed(self, number: int, items: list[Item]) -> tuple[list[Item], bytes]:
        """Return the samples of a block, without those that cannot be sent, which fail, and its content."""
        histories = histories_of(self._run, items) if self._run.has_history else {}
        block = Block(number, [_row(item, histories.get(item.sample.id)) for item in items], time.time())
        try:
            return items, pack(block)
        except Exception:  # noqa: BLE001 - one of the user's objects cannot be pickled
            good, rows = [], []
            for item, row in zip(items, block.rows, strict=True):
                reason = unpicklable(row.data, "data")
                if reason is not None:
                    error = SourceError(f"a sample cannot be sent to a worker process: {reason} ({HOW_TO_SEND})")
                    self._run.fail_item(item, error, FailureSource.STAGE, item.derived_by or "source")
                    self._finished.put(item)
                else:
                    good.append(item)
                    rows.append(row)
            block.rows = rows
            return good, pack(block)

    def _bring_home(self) -> None:
        """Bring blocks home, in as many executions of Ray Data as that takes."""
        run = self._run
        carrier = {**run.carrier, **run.worker_carrier}
        stored = run.pipeline.storage is not None
        specs = [
            WorkerSpec(run.pipeline.name, step.index, part, run.pipeline.serializer, stored, carrier)
            for step, part in zip(self._steps, self._parts, strict=True)
        ]
        futile = 0
        attempts: Attempts = {}
        with run.supervise(self._finished.finish):
            while not self._is_over():
                home = 0
                error: BaseException | None = None
                execution = Execution(specs, self._arguments, attempts)
                self._begin(execution)
                try:
                    for number, content in execution:
                        if content is not None:
                            self._book(execution, number, content)
                            home += 1
                        if run.stop.is_set():
                            execution.stop()
                except QueueClosed:
                    execution.stop()
                    raise
                except Exception as fault:  # noqa: BLE001 - Ray's; another execution is tried
                    error = fault
                    execution.stop()
                finally:
                    execution.close()
                    self._saw(execution.last_state)
                self._past_times.update(execution.last_state.times)
                self._state, attempts = ClusterState(), execution.attempts
                if run.stop.is_set():
                    raise QueueClosed
                futile = 0 if home else futile + 1
                if error is not None:
                    logger.warning(
                        "%s: Ray could not go on, and is asked again: %s", run.pipeline.name, describe(error)
                    )
                if futile >= MAX_FUTILE and not self._is_over():
                    raise ClusterError(
                        f"Ray brought no sample home in {futile} executions, and {len(self._blocks)} blocks are left"
                    ) from error

    def _is_over(self) -> bool:
        with self._changed:
            return self._all_made and not self._blocks

    def _begin(self, execution: Execution) -> None:
        """Send everything that is not home into an execution."""
        with self._changed:
            self._execution, self._sent = execution, len(self._blocks)
            for number, (_, content) in self._blocks.items():
                execution.put(number, content)
            if self._all_made:
                execution.end(self._sent)

    def _book(self, execution: Execution, number: int, content: bytes) -> None:
        """Book a block that is home, unless it was already."""
        with self._changed:
            found = self._blocks.get(number)
        if found is None:
            return
        items, _ = found
        block: Block = unpack(content)
        done, left = self._booking.book(block, items)
        if block.fault is not None:
            error = receive(block.fault)
            if block.interrupted:
                self._run.interrupt(error)
            else:
                self._run.fail(error)
            raise QueueClosed
        for item in done:
            self._finished.put(item)
        execution.home(number)
        with self._changed:
            del self._blocks[number]
            again = self._made
            self._made += bool(left)
            self._changed.notify_all()
        if left and not self._run.stop.is_set():
            # Workers took them for finished by an earlier run, which has been undone meanwhile. There need be no room.
            left, content = self._packed(again, left)
            with self._changed:
                self._blocks[again] = left, content
                if not self._all_made:
                    execution.put(again, content)
                    self._sent += 1


def _row(item: Item, history: History | None) -> Row:
    """Return a sample as it is sent."""
    sample = item.sample
    return Row(
        id=sample.id,
        data=sample.data,
        parent=sample.parent,
        digest=sample.digest,
        step=item.step,
        history=history,
        carrier=item.carrier,
    )
