"""The driver of runs on Ray: it reads the source, makes blocks, and settles what comes home."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from ...errors import ClusterError, ConfigurationError
from ...execution.item import Item
from ...pipeline.exceptions import describe
from ...pipeline.failure import FailureSource
from ...pipeline.shards import ShardedSource
from ..committer import WRITE_BATCH, Committer
from ..driver import Carried, Driver, StageLoad
from ..outcome import RunType
from ..queue import QueueClosed, StageQueue
from ..source import reading_source
from ..steps import step_names, steps_of
from .blocks import Block, pack, receive, unpack, unpicklable
from .booking import Booking
from .cluster import Execution, connect, resources_of
from .flight import BlocksInFlight, SentBlock, row_of, unsendable
from .histories import histories_of
from .places import NOWHERE, ClusterState, calls_per_worker, loads_of, slots
from .shards import ShardReading
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
    one stores and settles. A source in shards is read by workers, and one thread answers their questions.

    A block is kept until it is home, or can be read again. What has not come home when an execution of Ray Data ends,
    because a node or the reader has died, goes into another one.
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
        self._flight = BlocksInFlight(2 + 2 * sum(slots(part)[1] for part in self._parts))
        self._committer = Committer(run)
        self._booking = Booking(run, self._steps)
        self._arrived = StageQueue(self._block_size, clock=run.clock)
        self._finished = StageQueue(WRITE_BATCH, clock=run.clock)
        self.output = StageQueue(WRITE_BATCH, clock=run.clock)
        self._threads: list[threading.Thread] = []
        self._shards: ShardReading | None = None
        # The first samples of a source are those of its first shard: workers would read the first of each.
        if isinstance(run.pipeline.source, ShardedSource) and run.type is RunType.FULL:
            self._shards = ShardReading(run, self._flight, self._finished, self._block_size)
        # Both are guarded by the condition of the flight.
        self._execution: Execution | None = None
        self._sent = 0
        """Number of blocks that the driver sent into the execution."""
        self._held: Sequence[Item] = ()
        """Samples of the next block."""
        self._state = ClusterState()
        """State of the execution, as it was seen last."""
        self._past_times = Counter[int]()
        """Seconds of the workers of earlier executions, by step."""
        self._over = threading.Event()

    def start(self) -> None:
        run = self._run
        self._resources = resources_of(self._parts, local=connect())
        if self._shards is not None:
            self._threads.append(run.thread(self._shards.answer_all, "forge-source"))
        else:
            self._threads.append(run.thread(self._read, "forge-source"))
            self._threads.append(run.thread(self._make_blocks, "forge-blocks"))
        self._threads.append(run.thread(self._bring_home, "forge-ray"))
        self._threads.append(run.thread(self._committer.settle_all, "forge-settle", self._finished, self.output))
        run.thread(self._look, "forge-look")  # it waits for answers, and nobody waits for it

    def close(self) -> None:
        self._over.set()
        for queue in (self._arrived, self._finished, self.output):
            queue.close()
        with self._flight.changed:
            self._flight.changed.notify_all()
            execution = self._execution
        if execution is not None:
            execution.stop()

    def join(self, timeout: float) -> None:
        deadline = time.monotonic() + max(timeout, min(STOP_PATIENCE, self._run.shutdown_timeout / 4))
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def lacking(self) -> dict[str, str]:
        with self._flight.changed:
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
        state, blocks = self._state, list(self._flight.blocks.items())
        found = loads_of(self._parts, state, ((number, len(block.items)) for number, block in blocks))
        found[0] = found[0]._replace(queue_depth=found[0].queue_depth + self._arrived.depth + len(self._held))
        return {step.stage_name: load for step, load in zip(self._steps, found, strict=True) if step.stage_name}

    def carried(self) -> Sequence[Carried]:
        places = self._state.places
        blocks = [(sent.items, places.get(number, NOWHERE)) for number, sent in list(self._flight.blocks.items())]
        return [Carried(items, place.step, place.worker, place.duration) for items, place in blocks]

    def _look(self) -> None:
        """Look at the cluster from time to time."""
        while not self._over.wait(LOOK_INTERVAL):
            with self._flight.changed:
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
            with self._flight.changed:
                self._flight.all_made = True
                if self._execution is not None:
                    self._execution.end(self._sent)
                self._flight.changed.notify_all()

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
        with self._flight.changed:
            while not self._flight.has_room and not self._run.stop.is_set():
                self._flight.changed.wait()
            if self._run.stop.is_set():
                raise QueueClosed
            number = self._flight.next_number()
        items, content = self._packed(number, items)
        self._held = ()
        if not items:
            return
        with self._flight.changed:
            self._flight.blocks[number] = SentBlock(items, content)
            if self._execution is not None:
                self._execution.put(number, content)
                self._sent += 1

    def _packed(self, number: int, items: list[Item]) -> tuple[list[Item], bytes]:
        """Return the samples of a block, without those that cannot be sent, which fail, and its content."""
        histories = histories_of(self._run, items) if self._run.has_history else {}
        block = Block(number, [row_of(item, histories.get(item.sample.id)) for item in items], time.time())
        try:
            return items, pack(block)
        except Exception:  # noqa: BLE001 - one of the user's objects cannot be pickled
            good, rows = [], []
            for item, row in zip(items, block.rows, strict=True):
                reason = unpicklable(row.data, "data")
                if reason is not None:
                    self._run.fail_item(item, unsendable(reason), FailureSource.STAGE, item.derived_by or "source")
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
        stored, last = run.pipeline.storage is not None, self._parts[-1]
        specs = [
            WorkerSpec(run.pipeline.name, step.index, part, run.pipeline.serializer, stored, part is last, carrier)
            for step, part in zip(self._steps, self._parts, strict=True)
        ]
        reading = () if self._shards is None else (self._shards.spec, self._shards.readers)
        futile = 0
        attempts: Attempts = {}
        with run.supervise(self._end):
            while not self._is_over():
                home = 0
                error: BaseException | None = None
                name = f"{run.pipeline.name}-{run.id[:8]}"
                execution = Execution(specs, self._resources, attempts, *reading, name=name)
                self._begin(execution)
                if run.stop.is_set():  # since before there was something to stop
                    execution.stop()
                try:
                    for number, content in execution:
                        if content is not None:
                            self._come_home(execution, number, content)
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
                if not execution.is_connected:
                    raise ClusterError(
                        "Ray was shut down, or this process was disconnected from it, during the run; another run goes "
                        "on where this one has ended, if the pipeline has a storage"
                    ) from error
                futile = 0 if home else futile + 1
                if error is not None:
                    logger.warning(
                        "%s: Ray could not go on, and is asked again: %s", run.pipeline.name, describe(error)
                    )
                if futile >= MAX_FUTILE and not self._is_over():
                    raise ClusterError(
                        f"Ray brought no sample home in {futile} executions, and {len(self._flight.blocks)} blocks are "
                        "left"
                    ) from error

    def _end(self) -> None:
        """Note that all blocks are home."""
        if self._shards is not None:
            self._shards.end()
        self._finished.finish()

    def _is_over(self) -> bool:
        """Return True if all blocks are home.

        Raises:
            QueueClosed: the run was ended before.
        """
        if self._run.stop.is_set():
            raise QueueClosed
        with self._flight.changed:
            return self._flight.is_over

    def _begin(self, execution: Execution) -> None:
        """Send everything that is not home into an execution, or have it read again."""
        with self._flight.changed:
            self._execution, self._sent = execution, 0
            for number, block in self._flight.blocks.items():
                if block.content is not None:
                    block.is_held = False
                    execution.put(number, block.content)
                    self._sent += 1
            if self._flight.all_made or self._shards is not None:
                execution.end(self._sent)
            if self._shards is not None:
                self._shards.begin(execution)
        if self._shards is not None:
            self._run.thread(self._shards.listen, "forge-questions", execution)

    def _come_home(self, execution: Execution, number: int, content: bytes) -> None:
        """Book a block that is home, and tell the execution.

        Raises:
            QueueClosed: the run ends, since the block cannot be booked. Another execution would bring the same home.
            Exception: the execution's; the block is booked all the same.
        """
        try:
            further = self._book(number, content)
        except QueueClosed:
            raise
        except Exception as error:
            self._run.fail(error)
            raise QueueClosed from error
        execution.home(number)
        if further is not None:
            execution.put(*further)

    def _book(self, number: int, content: bytes) -> tuple[int, bytes] | None:
        """Book a block that is home, unless it was already; returns the number and content of one that is to be sent
        into the execution in its stead."""
        with self._flight.changed:
            sent = self._flight.blocks.get(number)
        if sent is None:
            return None
        try:
            block: Block = unpack(content)
        except Exception as fault:
            raise ConfigurationError(
                f"the driver cannot load the samples that came home: {describe(fault)}; their data must be of classes "
                "that can be imported where the run was started, and that can be pickled and unpickled"
            ) from fault
        unloaded = block.fault is not None and not block.rows
        done, left = ([], []) if unloaded else self._booking.book(block, sent.items)
        if block.fault is not None:
            error = receive(block.fault)
            if block.interrupted:
                self._run.interrupt(error)
            else:
                self._run.fail(error)
            raise QueueClosed
        for item in done:
            self._finished.put(item)
        further = self._further(left) if left and not self._run.stop.is_set() else None
        with self._flight.changed:
            del self._flight.blocks[number]
            if self._shards is not None:
                self._shards.home(sent)
            self._flight.changed.notify_all()
        return further

    def _further(self, left: list[Item]) -> tuple[int, bytes] | None:
        """Make a block of samples that workers took for finished by an earlier run, which has been undone meanwhile;
        returns its number and content if it can be sent into the execution. There need be no room."""
        with self._flight.changed:
            number = self._flight.next_number()
        left, content = self._packed(number, left)
        with self._flight.changed:
            # Beside readers nothing can be sent after the beginning.
            can_be_sent = self._shards is None and not self._flight.all_made
            self._flight.blocks[number] = SentBlock(left, content, is_held=not can_be_sent)
            self._sent += can_be_sent
        return (number, content) if can_be_sent else None
