"""The bounded queues that join the stages."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING

from .clock import Clock, SystemClock

if TYPE_CHECKING:
    from .item import Item


class QueueClosed(Exception):  # noqa: N818 - a signal between a run's threads, never seen outside
    """The run is over; nothing is put or taken any more."""


class StageQueue:
    """Samples on their way from one step to the next, at most `limit` of them.

    Threads use `put` and `get`, tasks on an event loop `put_async` and `get_async`; any mix of them may wait on either
    side. `stage` is the name of the stage that takes from it, None where it leads to something else.
    """

    def __init__(self, limit: int, *, stage: str | None = None, clock: Clock | None = None) -> None:
        self.limit = limit
        self.stage = stage
        self._now = (clock or SystemClock()).monotonic
        self._items: deque[Item] = deque()
        self._lock = threading.Lock()
        self._not_empty = _Waiters(self._lock)
        self._not_full = _Waiters(self._lock)
        self._finished = False
        self._closed = False

    @property
    def depth(self) -> int:
        """How many samples wait."""
        return len(self._items)

    def put(self, item: Item, producer: str | None = None) -> float:  # noqa: ARG002 - said to observers
        """Put a sample in, waiting while the queue is full; returns the seconds waited.

        `producer` is the name of the stage that waits, if it is one.

        Raises:
            QueueClosed: the run is over.
        """
        with self._lock:
            if self._try_put(item):
                return 0.0
            started = self._now()
            while not self._try_put(item):
                self._not_full.wait()
            return self._now() - started

    async def put_async(self, item: Item, producer: str | None = None) -> float:  # noqa: ARG002 - as above
        """The same for a task."""
        with self._lock:
            if self._try_put(item):
                return 0.0
            woken = self._not_full.register()
        started = self._now()
        while True:
            await self._not_full.woken(woken)
            with self._lock:
                if self._try_put(item):
                    return self._now() - started
                woken = self._not_full.register()

    def get(self, timeout: float | None = None) -> Item | None:
        """Take the next sample, waiting for one; None when there will be no more.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            QueueClosed: the run is over.
        """
        with self._lock:
            while True:
                item, taken = self._try_get()
                if taken:
                    return item
                self._not_full.wake()  # for `wait_for_taker`
                if not self._not_empty.wait(timeout):
                    # A sample may have come just now, and this thread alone was told.
                    item, taken = self._try_get()
                    if taken:
                        return item
                    raise TimeoutError

    async def get_async(self, timeout: float | None = None) -> Item | None:
        """The same for a task."""
        while True:
            with self._lock:
                item, taken = self._try_get()
                if taken:
                    return item
                woken = self._not_empty.register()
                self._not_full.wake()
            async with asyncio.timeout(timeout):
                await self._not_empty.woken(woken)

    def take_waiting(self, most: int) -> list[Item]:
        """Wait for one sample, then take what else is there, up to `most`; empty when there will be no more."""
        first = self.get()
        if first is None:
            return []
        items = [first]
        with self._lock:
            while len(items) < most and self._items:
                item, _ = self._try_get()
                if item is not None:
                    items.append(item)
        return items

    def wait_for_taker(self) -> None:
        """Wait until somebody waits for a sample, and none is there.

        Raises:
            QueueClosed: the run is over.
        """
        with self._lock:
            while self._items or not self._not_empty.waiting:
                if self._closed:
                    raise QueueClosed
                self._not_full.wait()

    def finish(self) -> None:
        """Nothing more will be put: takers get None once the queue is empty."""
        with self._lock:
            self._finished = True
            self._not_empty.wake_all()

    def close(self) -> None:
        """End it at once: whoever waits or comes gets `QueueClosed`; what was inside stays inside."""
        with self._lock:
            self._closed = True
            self._not_empty.wake_all()
            self._not_full.wake_all()

    def _try_put(self, item: Item) -> bool:
        if self._closed:
            raise QueueClosed
        if len(self._items) >= self.limit:
            return False
        item.enqueued_at = self._now()
        self._items.append(item)
        self._not_empty.wake()
        return True

    def _try_get(self) -> tuple[Item | None, bool]:
        if self._closed:
            raise QueueClosed
        if self._items:
            item = self._items.popleft()
            item.waited = self._now() - item.enqueued_at
            self._not_full.wake()
            return item, True
        return None, self._finished


class _Waiters:
    """Threads and tasks that wait for one condition of a queue; every method but `woken` needs the queue's lock."""

    def __init__(self, lock: threading.Lock) -> None:
        self._threads = threading.Condition(lock)
        self._waiting = 0
        self._tasks: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> bool:
        return bool(self._waiting or self._tasks)

    def wait(self, timeout: float | None = None) -> bool:
        self._waiting += 1
        try:
            return self._threads.wait(timeout)
        finally:
            self._waiting -= 1

    def register(self) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        self._tasks.append(future)
        return future

    async def woken(self, future: asyncio.Future[None]) -> None:
        """Wait for a registered future; a wake-up that comes to a cancelled task is passed on."""
        try:
            await future
        except asyncio.CancelledError:
            with self._threads:
                if future in self._tasks:
                    self._tasks.remove(future)
                else:
                    self.wake()
            raise

    def wake(self) -> None:
        if self._waiting:
            self._threads.notify()
        # A thread that was notified counts as waiting until it runs, so a task is woken as well:
        # one wake-up too many costs a look, one too few would be a standstill.
        if self._tasks:
            self._wake_task(self._tasks.popleft())

    def wake_all(self) -> None:
        self._threads.notify_all()
        while self._tasks:
            self._wake_task(self._tasks.popleft())

    @staticmethod
    def _wake_task(future: asyncio.Future[None]) -> None:
        def wake() -> None:
            if not future.done():
                future.set_result(None)

        loop = future.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(wake)
