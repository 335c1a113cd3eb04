"""The bounded queues that join the stages."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..support.clock import LONGEST_WAIT, Clock, SystemClock

if TYPE_CHECKING:
    from ..execution.item import Item


MAX_MICRO_BATCH = 32
"""Maximum number of samples handed over together, to a stage whose calls take less time than a hand-over."""


class QueueClosed(Exception):  # noqa: N818 - a signal between a run's threads, never seen outside
    """The run is over; nothing is put or taken any more."""

    waited = 0.0
    """Seconds that whoever puts had waited for room by then."""


class StageQueue:
    """A bounded queue between two steps, for at most `limit` samples.

    Threads use `put` and `get`, tasks on an event loop `put_async` and `get_async`; any mix of them may wait on either
    side. Whoever has found it full goes on when half of it is free. `stage` is the name of the stage that takes from
    it, None where it leads to something else.
    """

    def __init__(self, limit: int, *, stage: str | None = None, clock: Clock | None = None) -> None:
        self.limit = limit
        self.stage = stage
        self._now = (clock or SystemClock()).monotonic
        self._items: deque[Item] = deque()
        self._unlocked: deque[Item] = deque()
        """Samples enqueued without the lock, behind the others; they are taken with it."""
        self._lock = threading.Lock()
        self._takers = _Waiters(self._lock)
        self._putters = _Waiters(self._lock)
        self._taker_wanted = _Waiters(self._lock)
        self.micro_batching = False
        """Set by the worker while it takes micro-batches, so that producers call `enqueue_unlocked`."""
        self._wanted = 1
        """Number of samples for which a waiting consumer is woken."""
        self._discards = False
        self._finished = False
        self._closed = False

    @property
    def depth(self) -> int:
        """Number of waiting samples."""
        return len(self._items)

    @property
    def closed(self) -> bool:
        """True if the queue was closed."""
        return self._closed

    @property
    def discards(self) -> bool:
        """True if samples are discarded, because nobody looks at them."""
        return self._discards

    def put(self, item: Item, producer: str | None = None) -> float:
        """Put a sample in, waiting while the queue is full; returns the seconds waited.

        `producer` is the name of the stage that waits, if it is one.

        Raises:
            QueueClosed: the run is over.
        """
        with self._lock:
            if self._try_put(item):
                return 0.0
            started = self._now()
            with self._noting_waits(started):
                while not self._try_put(item):
                    self._putters.wait()
        return self._was_full(producer, self._now() - started)

    def put_all(self, items: Iterable[Item]) -> None:
        """Put several samples in, in a fraction of the time of `put`. Waiting is not reported to observers.

        Raises:
            QueueClosed: the run is over.
        """
        with self._lock:
            for item in items:
                while not self._try_put(item):
                    self._putters.wait()

    async def put_async(self, item: Item, producer: str | None = None) -> float:
        """Put a sample in, waiting in this task; otherwise like `put`."""
        with self._lock:
            if self._try_put(item):
                return 0.0
            woken = self._putters.register()
        started = self._now()
        with self._noting_waits(started):
            while True:
                await self._putters.woken(woken)
                with self._lock:
                    if self._try_put(item):
                        break
                    woken = self._putters.register()
        return self._was_full(producer, self._now() - started)

    def enqueue_unlocked(self, item: Item, producer: str | None = None) -> float:
        """Enqueue a sample without the lock, in a fraction of the time of `put`; only while `micro_batching` is set.

        It is placed behind the others, and put in at once if a consumer waits, so it never waits for an idle one. Up to
        `MAX_MICRO_BATCH` samples may wait there beyond the limit.
        """
        if self.stage is not None:  # otherwise nobody asks how long it waits
            item.enqueued_at = self._now()
        unlocked = self._unlocked
        unlocked.append(item)
        # A consumer does the opposite: it registers, and then looks at what was enqueued. One of them sees the other.
        if not self._takers.wakes and len(unlocked) < MAX_MICRO_BATCH:
            return 0.0
        with self._lock:
            self._collect_unlocked()
            if len(unlocked) < MAX_MICRO_BATCH:
                return 0.0
            started = self._now()
            with self._noting_waits(started):
                while len(unlocked) >= MAX_MICRO_BATCH:
                    self._putters.wait()
                    self._collect_unlocked()
        return self._was_full(producer, self._now() - started)

    def blocked(self, producer: str, seconds: float) -> None:
        """Report the seconds that the stage `producer` waited for room. Does nothing: it is there to be observed."""

    def get(self, timeout: float | None = None) -> Item | None:
        """Take the next sample, waiting for one; None when there will be no more.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            QueueClosed: the run is over.
        """
        with self._lock:
            if not self._wait_for_samples(timeout):
                return None
            (item,) = self._take(1)
        if self.stage is not None:
            self.begin(item)
        return item

    async def get_async(self, timeout: float | None = None) -> Item | None:
        """Take the next sample, waiting in this task; otherwise like `get`."""
        while True:
            with self._lock:
                if self._has_samples():
                    (item,) = self._take(1)
                    break
                if self._at_end():
                    return None
                woken = self._takers.register(self._unlocked)
                self._taker_wanted.wake()
            async with asyncio.timeout(timeout):
                await self._takers.woken(woken)
        if self.stage is not None:
            self.begin(item)
        return item

    def take_waiting(self, most: int, patience: float = 0.0, timeout: float | None = None) -> list[Item]:
        """Wait for one sample, then take what else is there, up to `most`; empty when there will be no more.

        Where there is less, wait `patience` seconds for more. Nobody else may take from it meanwhile. Whoever takes
        samples of a stage says of each of them when it begins.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            QueueClosed: the run is over.
        """
        with self._lock:
            if not self._wait_for_samples(timeout):
                return []
            if patience <= 0:
                return self._take(most)
            taken = self._take(1)
            if len(self._items) < most - 1 and not self._at_end():
                self._wanted = most - 1
                self._takers.wait(patience)
                self._wanted = 1
                self._at_end()
            return taken + self._take(most - 1)

    def begin(self, item: Item) -> None:
        """Begin processing a taken sample: note how long it waited for the stage."""
        item.waited = self._now() - item.enqueued_at

    def wait_for_taker(self) -> None:
        """Wait until a consumer waits for a sample, and none is there.

        Raises:
            QueueClosed: the run is over.
        """
        with self._lock:
            while True:
                if self._closed:
                    raise QueueClosed
                if self._discards or (self._takers.wakes and not self._items):
                    return
                self._taker_wanted.wait()

    def discard(self) -> None:
        """Discard all samples, now and later. Consumers wait for the end."""
        with self._lock:
            self._discards = True
            self._items.clear()
            self._putters.wake_all()
            self._taker_wanted.wake_all()

    def finish(self) -> None:
        """End the input: consumers get None once the queue is empty."""
        with self._lock:
            self._finished = True
            self._takers.wake_all()

    def close(self) -> None:
        """Close the queue at once: producers and consumers get `QueueClosed`, and its samples stay in it."""
        with self._lock:
            self._closed = True
            for waiters in (self._takers, self._putters, self._taker_wanted):
                waiters.wake_all()

    @contextmanager
    def _noting_waits(self, started: float) -> Iterator[None]:
        """Note in `QueueClosed` the seconds waited since `started`."""
        try:
            yield
        except QueueClosed as closed:
            closed.waited = self._now() - started
            raise

    def _was_full(self, producer: str | None, seconds: float) -> float:
        if producer is not None:
            self.blocked(producer, seconds)
        return seconds

    # The methods below are called with the lock held.

    def _try_put(self, item: Item) -> bool:
        if self._closed:
            raise QueueClosed
        if self._discards:
            return True
        if len(self._items) >= self.limit:
            return False
        if self.stage is not None:  # otherwise nobody asks how long it waits
            item.enqueued_at = self._now()
        self._items.append(item)
        if self._takers.wakes and len(self._items) >= self._wanted:
            self._takers.wake()
        return True

    def _collect_unlocked(self) -> None:
        """Move samples that were enqueued unlocked into the queue, as far as there is room."""
        if self._closed:
            raise QueueClosed
        items, unlocked = self._items, self._unlocked
        while unlocked and len(items) < self.limit:
            items.append(unlocked.popleft())
            if self._takers.wakes and len(items) >= self._wanted:
                self._takers.wake()

    def _has_samples(self) -> bool:
        """Return True if there is a sample to take."""
        return bool(self._items or self._unlocked)

    def _wait_for_samples(self, timeout: float | None = None) -> bool:
        """Wait for a sample; returns False if there will be no more. TimeoutError as for `get`."""
        while not self._has_samples():
            if self._at_end():
                return False
            self._taker_wanted.wake()
            if not self._takers.wait(timeout, self._unlocked):
                raise TimeoutError
        return True

    def _take(self, most: int) -> list[Item]:
        if self._closed:
            raise QueueClosed
        items, unlocked = self._items, self._unlocked
        taken = [items.popleft() for _ in range(min(most, len(items)))]
        if unlocked:
            taken += [unlocked.popleft() for _ in range(min(most - len(taken), len(unlocked)))]
            self._collect_unlocked()
        # Whoever waits to put is woken when half of it is free. Woken at once, it would wait again after every sample.
        if self._putters.wakes and len(items) <= self.limit // 2 and len(unlocked) <= MAX_MICRO_BATCH // 2:
            for _ in taken:
                self._putters.wake()
        return taken

    def _at_end(self) -> bool:
        """Return True if the input has ended. QueueClosed if the queue is closed."""
        if self._closed:
            raise QueueClosed
        return self._finished


class _Waiters:
    """Threads and tasks that wait for one condition of a queue; every method but `woken` needs the queue's lock.

    They are woken one at a time, in the order in which they came, and whoever was woken waits no longer. So nothing is
    done where nobody waits: a `threading.Condition` would be told again and again until the thread that it has woken
    runs, and knows no tasks.
    """

    __slots__ = ("_lock", "wakes")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self.wakes: deque[Callable[[], None]] = deque()
        """Functions that wake each of them. Check it before `wake` on hot paths."""

    def wait(self, timeout: float | None = None, unless: Collection[Item] = ()) -> bool:
        """Let go of the queue's lock, wait in this thread, and take the lock again; False where nobody woke it.

        Not where there is something in `unless`, to which others add without the lock, before they look at `wakes`.
        """
        gate = threading.Lock()
        gate.acquire()
        self.wakes.append(gate.release)
        if unless:
            return self._gave_up(gate.release)
        self._lock.release()
        try:
            woken = gate.acquire(timeout=-1 if timeout is None else min(timeout, LONGEST_WAIT))
        except BaseException:
            self._lock.acquire()
            if not self._gave_up(gate.release):
                self.wake()
            raise
        self._lock.acquire()
        return woken or not self._gave_up(gate.release)

    def register(self, unless: Collection[Item] = ()) -> _Woken:
        """Wait in this task, with `woken`, once the lock is free; `unless` as above."""
        woken = _Woken()
        self.wakes.append(woken.set)
        if unless and self._gave_up(woken.set):
            woken.set()
        return woken

    async def woken(self, woken: _Woken) -> None:
        """Wait for what was registered; a wake-up that comes to a cancelled task is passed on."""
        try:
            await woken.future
        except asyncio.CancelledError:
            with self._lock:
                if not self._gave_up(woken.set):
                    self.wake()
            raise

    def wake(self) -> None:
        """Wake one, if there is one."""
        if self.wakes:
            self.wakes.popleft()()

    def wake_all(self) -> None:
        while self.wakes:
            self.wakes.popleft()()

    def _gave_up(self, wake: Callable[[], None]) -> bool:
        """Wait no longer; False where the wake-up has come already."""
        try:
            self.wakes.remove(wake)
        except ValueError:
            return False
        return True


class _Woken:
    """The wake-up of a task."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def set(self) -> None:
        """Wake the task, from any thread."""
        loop = self.future.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)
