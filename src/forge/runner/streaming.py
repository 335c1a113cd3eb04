"""Many samples at a time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..execution.item import Item
from ..support.clock import Clock
from .base import Runner
from .committer import Settler
from .queue import TOGETHER, QueueClosed, StageQueue
from .sequencer import Sequencer
from .steps import Step, steps_of

if TYPE_CHECKING:
    from .run import Run

LOOK_UP_BATCH = 64
"""How many samples are looked up together at the most, where there are earlier runs to look for."""
WRITE_BATCH = 256
"""How many samples are stored in one transaction at the most."""
QUICK = 25e-6
"""Seconds that a call takes on average in a quick stage: no more than handing a sample from one thread to another."""
MOST_CREDIT = 1000 * QUICK
"""Seconds by which quick calls may make up for a slow one in advance. Afterwards there is no limit to it: a call of a
second makes a stage slow for the next 40 000 quick ones."""
LONGEST_PAUSE = 0.05
"""Nothing is stored for as long as the last transaction took, but at most so many seconds, unless there is enough for a
full one. A transaction costs as much as storing ten samples: for three of them it would be the same as for thirty."""


class StreamingRunner(Runner):
    """Runs all stages at the same time, joined by bounded queues: a full one holds up what comes before it.

    Samples come out as they become ready, or, with `ordered=True`, in the order in which they were admitted: then one
    slow sample holds back those behind it, and the source with them.
    """

    name = "streaming"

    def __init__(self, *, ordered: bool = False, resume: bool = True, clock: Clock | None = None) -> None:
        super().__init__(resume=resume, clock=clock)
        self._ordered = ordered

    def driver(self, run: Run) -> StreamingDriver:
        return StreamingDriver(run, ordered=self._ordered)


class StreamingDriver:
    """Drives a run with threads (sync steps) and tasks (async steps), each taking from its queue and filling the next.

    One thread reads the source, one stores and settles. Where there are earlier runs, another one looks up together
    what has arrived during its last look: the slower the storage, the more that is, and no sample waits for others.
    """

    def __init__(self, run: Run, *, ordered: bool) -> None:
        self._run = run
        self._settler = Settler(run)
        self._stations = [_Station(step, run.clock) for step in steps_of(run)]
        self._arrived = StageQueue(LOOK_UP_BATCH, clock=run.clock)
        self._finished = StageQueue(WRITE_BATCH, clock=run.clock)
        self.output = StageQueue(WRITE_BATCH, clock=run.clock)
        self._queues = [*(station.queue for station in self._stations), self._finished]
        self.queues = {s.step.stage_name: s.queue for s in self._stations if s.step.stage_name is not None}
        capacity = sum(station.capacity for station in self._stations)
        self._sequencer = Sequencer(capacity + WRITE_BATCH, run.lock) if ordered else None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        run = self._run
        self._threads.append(run.thread(self._read, "forge-source"))
        if run.has_history:
            self._threads.append(run.thread(self._look_up, "forge-look-up"))
        self._threads.append(run.thread(self._settle, "forge-settle"))
        for station in self._stations:
            for number in range(station.step.concurrency):
                if station.step.is_async:
                    run.context.copy().run(run.spawn, self._work_async(station))
                else:
                    self._threads.append(run.thread(self._work, f"forge-{station.step.index}-{number}", station))

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

    def _read(self) -> None:
        look_up_later = self._run.has_history
        with self._run.watch(self._arrived.finish if look_up_later else self._queues[0].finish):
            try:
                while not self._run.stop.is_set():
                    if self._sequencer and not self._sequencer.wait_for_room(self._run.stop):
                        break
                    item = self._run.take()
                    if item is None:
                        break
                    if self._sequencer:
                        self._sequencer.add(item)
                    if look_up_later:
                        self._arrived.put(item)
                    else:
                        if item.duplicate or item.dead_letter is not None:
                            self._run.look_up([item])
                        self._hand_on(item)
            finally:
                self._run.close_source()

    def _look_up(self) -> None:
        with self._run.watch(self._queues[0].finish):
            while items := self._arrived.take_waiting(LOOK_UP_BATCH):
                self._run.look_up(items)
                for item in items:
                    self._hand_on(item)

    def _work(self, station: _Station) -> None:
        with self._run.watch(lambda: self._worker_done(station)):
            if station.step.takes_together:
                self._work_together(station)
            while items := self._collect(station):
                blocked = 0.0
                for item in station.step.process(items):
                    blocked += self._hand_on(item, station.step.stage_name)
                if blocked:
                    station.step.was_blocked(blocked)

    def _work_together(self, station: _Station) -> None:
        """The work of a stage with a single thread: while it is quick, it takes together what waits.

        One call follows the other all the same, and the next step may have each sample as soon as it is through.
        """
        step, queue, stopped = station.step, station.queue, self._run.stop.is_set
        busy, credit = step.busy, 0.0
        while items := queue.take_waiting(TOGETHER if queue.quick else 1):
            blocked = 0.0
            for item in items:
                if stopped():
                    raise QueueClosed  # it has not begun, and settles with the run's end
                queue.begin(item)
                for done in step.process([item]):
                    blocked += self._hand_on(done, step.stage_name)
            if blocked:
                step.was_blocked(blocked)
            spent, busy = step.busy - busy, step.busy
            credit = min(credit + QUICK * len(items) - spent, MOST_CREDIT)
            queue.quick = credit > 0

    async def _work_async(self, station: _Station) -> None:
        with self._run.watch(lambda: self._worker_done(station)):
            while items := await self._collect_async(station):
                blocked = 0.0
                for item in await station.step.process_async(items):
                    blocked += await self._queue_for(item).put_async(item, station.step.stage_name)
                if blocked:
                    station.step.was_blocked(blocked)

    def _settle(self) -> None:
        now = self._run.clock.monotonic
        with self._run.watch(self.output.finish):
            rested = now()
            while items := self._finished.take_waiting(WRITE_BATCH, rested - now()):
                started = now()
                ready = self._settler.settle(items)
                ended = now()
                rested = ended + min(ended - started, LONGEST_PAUSE)
                if self._sequencer:
                    ready = self._sequencer.release(items)
                if not self.output.discards:
                    self.output.put_all(ready)

    def _collect(self, station: _Station) -> list[Item]:
        """The next item, or the next batch; empty at the end."""
        first = station.queue.get()
        if first is None:
            return []
        items = [first]
        size = station.step.batch_size
        if size is None:
            return items
        until = time.monotonic() + station.step.max_wait
        while len(items) < size:
            try:
                item = station.queue.get(max(0.0, until - time.monotonic()))
            except TimeoutError:
                break
            if item is None:
                break
            items.append(item)
        return items

    async def _collect_async(self, station: _Station) -> list[Item]:
        first = await station.queue.get_async()
        if first is None:
            return []
        items = [first]
        size = station.step.batch_size
        if size is None:
            return items
        until = time.monotonic() + station.step.max_wait
        while len(items) < size:
            try:
                item = await station.queue.get_async(max(0.0, until - time.monotonic()))
            except TimeoutError:
                break
            if item is None:
                break
            items.append(item)
        return items

    def _worker_done(self, station: _Station) -> None:
        with self._run.lock:
            station.workers -= 1
            last = station.workers == 0
        if last:
            self._queues[station.step.index + 1].finish()

    def _hand_on(self, item: Item, producer: str | None = None) -> float:
        """Put a sample where it goes next; returns the seconds that this had to wait."""
        queue = self._queue_for(item)
        return queue.offer(item, producer) if queue.quick else queue.put(item, producer)

    def _queue_for(self, item: Item) -> StageQueue:
        return self._queues[item.step] if item.verdict is None else self._finished


class _Station:
    """A step, the queue in front of it, and how many workers it has left."""

    def __init__(self, step: Step, clock: Clock) -> None:
        self.step = step
        self.queue = StageQueue(step.queue_limit, stage=step.stage_name, clock=clock)
        self.workers = step.concurrency

    @property
    def capacity(self) -> int:
        """How many samples can be here at the most: waiting, being processed, or on their way to the next queue."""
        if self.step.takes_together:
            return self.queue.limit + 2 * TOGETHER
        return self.queue.limit + self.step.concurrency * (self.step.batch_size or 1)
