"""A runner that processes many samples at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..execution.item import Item
from ..support import sans_io
from ..support.clock import Clock
from .base import Runner
from .committer import WRITE_BATCH, Committer
from .driver import Driver, StageLoad
from .queue import MAX_MICRO_BATCH, QueueClosed, StageQueue
from .sequencer import Sequencer
from .source import reading_source
from .steps import Step, steps_of

if TYPE_CHECKING:
    from .run import Run

LOOK_UP_BATCH = 64
"""Maximum number of samples looked up together in the results of earlier runs."""
MICRO_BATCH_CALL_SECONDS = 25e-6
"""Maximum average seconds of a call in a stage that takes micro-batches: about those of a hand-over between threads."""
MAX_CREDIT = 1000 * MICRO_BATCH_CALL_SECONDS
"""Maximum seconds by which fast calls make up for a slow one in advance. There is no limit afterwards: a call of a
second makes a stage slow for the next 40 000 fast ones."""


class StreamingRunner(Runner):
    """Runs all stages at the same time, joined by bounded queues: a full one holds up what comes before it.

    Samples come out as they become ready, or, with `ordered=True`, in the order in which they were admitted: then one
    slow sample holds back those behind it, and the source with them.
    """

    name = "streaming"

    def __init__(
        self,
        *,
        ordered: bool = False,
        resume: bool = True,
        clock: Clock | None = None,
        shutdown_timeout: float = 5.0,
        handle_signals: bool = True,
        introspect: bool = False,
    ) -> None:
        super().__init__(
            resume=resume,
            clock=clock,
            shutdown_timeout=shutdown_timeout,
            handle_signals=handle_signals,
            introspect=introspect,
        )
        self._ordered = ordered

    def driver(self, run: Run) -> StreamingDriver:
        return StreamingDriver(run, ordered=self._ordered)


class StreamingDriver(Driver):
    """Drives a run with threads (sync steps) and tasks (async steps), each taking from its queue and filling the next.

    One thread reads the source, one stores and settles. Where there are earlier runs, another one looks up together
    what has arrived during its last look: the slower the storage, the more that is, and no sample waits for others.
    """

    remote = False

    def __init__(self, run: Run, *, ordered: bool) -> None:
        self._run = run
        self._committer = Committer(run)
        self._pools = [StageWorkerPool(step, run.clock) for step in steps_of(run)]
        self._arrived = StageQueue(LOOK_UP_BATCH, clock=run.clock)
        self._finished = StageQueue(WRITE_BATCH, clock=run.clock)
        self.output = StageQueue(WRITE_BATCH, clock=run.clock)
        self._queues = [*(pool.queue for pool in self._pools), self._finished]
        self._stage_queues = {s.step.stage_name: s.queue for s in self._pools if s.step.stage_name is not None}
        capacity = sum(pool.capacity for pool in self._pools)
        self._sequencer = Sequencer(capacity + WRITE_BATCH, run.lock, run.clock) if ordered else None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        run = self._run
        self._threads.append(run.thread(self._read, "forge-source"))
        if run.has_history:
            self._threads.append(run.thread(self._look_up, "forge-look-up"))
        self._threads.append(run.thread(self._settle, "forge-settle"))
        for pool in self._pools:
            for number in range(pool.step.concurrency):
                if pool.step.is_async:
                    run.context.copy().run(run.spawn, self._work_async(pool))
                else:
                    self._threads.append(run.thread(self._work, f"forge-{pool.step.index}-{number}", pool))

    def close(self) -> None:
        for queue in (self._arrived, *self._queues, self.output):
            queue.close()
        if self._sequencer:
            self._sequencer.close()

    def join(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            if thread is threading.current_thread():
                continue  # a stage that closes its own run
            thread.join(max(0.0, deadline - time.monotonic()))

    def loads(self) -> Mapping[str, StageLoad]:
        return {name: StageLoad(queue.depth, queue.limit) for name, queue in self._stage_queues.items()}

    def _read(self) -> None:
        look_up_later = self._run.has_history
        with (
            self._run.supervise(self._arrived.finish if look_up_later else self._queues[0].finish),
            reading_source(self._run),
        ):
            while not self._run.stop.is_set():
                if self._sequencer:
                    if waited := self._sequencer.wait_for_room():
                        self._run.source_blocked(waited)
                    if self._run.stop.is_set():
                        break
                item = self._run.take()
                if item is None:
                    break
                if self._sequencer:
                    self._sequencer.add(item)
                if look_up_later:
                    blocked = self._arrived.put(item)
                else:
                    if item.refusal is not None or item.dead_letter is not None:
                        self._run.look_up([item])
                    blocked = self._forward(item)
                if blocked:
                    self._run.source_blocked(blocked)

    def _look_up(self) -> None:
        with self._run.supervise(self._queues[0].finish):
            while items := self._arrived.take_waiting(LOOK_UP_BATCH):
                self._run.look_up(items)
                for item in items:
                    self._forward(item)

    def _work(self, pool: StageWorkerPool) -> None:
        with self._supervise(pool):
            if pool.step.allows_micro_batches:
                self._work_in_micro_batches(pool)
            while items := self._collect(pool):
                blocked = 0.0
                for item in pool.step.process(items):
                    blocked += self._forward(item, pool.step.stage_name)
                if blocked:
                    pool.step.was_blocked(blocked)

    def _work_in_micro_batches(self, pool: StageWorkerPool) -> None:
        """Work for a stage with a single thread, which takes micro-batches of waiting samples while its calls are fast.

        One call follows the other all the same, and the next step may have each sample as soon as it is through.
        """
        step, queue, stopped = pool.step, pool.queue, self._run.stop.is_set
        busy, credit = step.busy, 0.0
        while items := queue.take_waiting(MAX_MICRO_BATCH if queue.micro_batching else 1):
            blocked = 0.0
            for item in items:
                if stopped():
                    raise QueueClosed  # it has not begun, and settles with the run's end
                queue.begin(item)
                for done in step.process([item]):
                    blocked += self._forward(done, step.stage_name)
            if blocked:
                step.was_blocked(blocked)
            spent, busy = step.busy - busy, step.busy
            credit = min(credit + MICRO_BATCH_CALL_SECONDS * len(items) - spent, MAX_CREDIT)
            queue.micro_batching = credit > 0

    async def _work_async(self, pool: StageWorkerPool) -> None:
        with self._supervise(pool):
            while items := await self._collect_async(pool):
                blocked = 0.0
                for item in await pool.step.process_async(items):
                    blocked += await self._queue_for(item).put_async(item, pool.step.stage_name)
                if blocked:
                    pool.step.was_blocked(blocked)

    def _settle(self) -> None:
        release = self._sequencer.release if self._sequencer else None
        self._committer.settle_all(self._finished, self.output, release)

    def _collect(self, pool: StageWorkerPool) -> list[Item]:
        """Take the next item, or the next batch; empty at the end."""
        if pool.step.batch_size is None:
            item = pool.queue.get()
            return [item] if item is not None else []
        return sans_io.run(pool.collect_batch(), pool.get)

    async def _collect_async(self, pool: StageWorkerPool) -> list[Item]:
        if pool.step.batch_size is None:
            item = await pool.queue.get_async()
            return [item] if item is not None else []
        return await sans_io.run_async(pool.collect_batch(), pool.get_async)

    @contextmanager
    def _supervise(self, pool: StageWorkerPool) -> Iterator[None]:
        with self._run.supervise(lambda: self._worker_done(pool)):
            try:
                yield
            except QueueClosed as closed:
                if closed.waited:
                    pool.step.was_blocked(closed.waited)
                raise

    def _worker_done(self, pool: StageWorkerPool) -> None:
        with self._run.lock:
            pool.workers -= 1
            last = pool.workers == 0
        if last:
            self._queues[pool.step.index + 1].finish()

    def _forward(self, item: Item, producer: str | None = None) -> float:
        """Forward a sample to its next queue; returns the seconds waited for room."""
        queue = self._queue_for(item)
        return queue.enqueue_unlocked(item, producer) if queue.micro_batching else queue.put(item, producer)

    def _queue_for(self, item: Item) -> StageQueue:
        return self._queues[item.step] if item.verdict is None else self._finished


class StageWorkerPool:
    """The workers of one step, with the queue in front of it."""

    def __init__(self, step: Step, clock: Clock) -> None:
        self.step = step
        self.queue = StageQueue(step.queue_limit, stage=step.stage_name, clock=clock)
        self.workers = step.concurrency

    @property
    def capacity(self) -> int:
        """Maximum number of samples here: waiting, being processed, or on their way to the next queue."""
        if self.step.allows_micro_batches:
            return self.queue.limit + 2 * MAX_MICRO_BATCH
        return self.queue.limit + self.step.concurrency * (self.step.batch_size or 1)

    def collect_batch(self) -> Generator[float | None, Item | None, list[Item]]:
        """Collect a batch, until it is full, its time is over, or there are no more items.

        Yields the seconds for which to wait for another item (None: any time), answered with the item if one came.
        """
        first = yield None
        if first is None:
            return []
        items = [first]
        until = time.monotonic() + self.step.max_wait
        while len(items) < (self.step.batch_size or 1):
            item = yield max(0.0, until - time.monotonic())
            if item is None:
                break
            items.append(item)
        return items

    def get(self, timeout: float | None) -> Item | None:
        """Take the next item; None if none came in time, or there are no more."""
        try:
            return self.queue.get(timeout)
        except TimeoutError:
            return None

    async def get_async(self, timeout: float | None) -> Item | None:
        """Take the next item; None if none came in time, or there are no more."""
        try:
            return await self.queue.get_async(timeout)
        except TimeoutError:
            return None
