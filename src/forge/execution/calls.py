"""Calls of user code, each in a context of its own and within its timeout."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, Final, Protocol, Self, SupportsIndex, TypeVar

from ..errors import StageStuckError, StageTimeoutError
from ..pipeline.exceptions import outside_iteration
from ..pipeline.sample import Sample, with_private_values
from ..support.clock import LONGEST_WAIT

CLEAN_UP: Final = 30.0
"""Seconds that an async call has at least to clean up after its timeout, before its stage counts as stuck."""

T = TypeVar("T")


class Limits(Protocol):
    """Limits on the calls of a stage or measurement."""

    @property
    def concurrency(self) -> int: ...
    @property
    def timeout(self) -> float | None: ...


class Batch(list[Sample]):
    """The samples of a batch as user code is handed them: copies, in a list of its own for every call.

    User code may do with it what it likes. Whether it was put into another order is noticed, because results without an
    id are paired with the samples in the order given, and would be in the wrong place.
    """

    __slots__ = ("_given", "_places", "_popped", "_reordered")

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._given = tuple(map(with_private_values, samples))
        self._places = {sample.id: place for place, sample in enumerate(self._given)}
        self._popped = 0
        """Samples that were taken out from elsewhere than the front."""
        self._reordered = False
        super().__init__(self._given)

    @property
    def size(self) -> int:
        """Number of samples given."""
        return len(self._given)

    @property
    def reordered(self) -> bool:
        """True if the samples were in another order at any time, or were taken out in another one."""
        if not self._reordered and (len(self) != len(self._given) or not all(map(operator.is_, self, self._given))):
            self._look()
        return self._reordered

    def sort(self, **options: Any) -> None:
        super().sort(**options)
        self._look()

    def reverse(self) -> None:
        super().reverse()
        self._look()

    def insert(self, index: SupportsIndex, item: Sample) -> None:
        super().insert(index, item)
        self._look()

    def append(self, item: Sample) -> None:
        super().append(item)
        self._look()

    def extend(self, items: Iterable[Sample]) -> None:
        super().extend(items)
        self._look()

    def __setitem__(self, index: Any, item: Any) -> None:
        super().__setitem__(index, item)
        self._look()

    def __iadd__(self, items: Iterable[Sample]) -> Self:  # type: ignore[misc, override]  # `+` makes a plain list
        self.extend(items)
        return self

    def pop(self, index: SupportsIndex = -1) -> Sample:
        front = len(self) < 2 or operator.index(index) in {0, -len(self)}
        item = super().pop(index)
        self._popped += not front
        # One may be left out; whoever takes several from behind has them in another order.
        self._reordered = self._reordered or self._popped > 1
        return item

    def __reduce__(self) -> tuple[type[list[Sample]], tuple[list[Sample]]]:
        return list, (list(self),)  # another process gets a plain list

    def _look(self) -> None:
        """Notice whether samples stand in another order than the one given; whatever else is in the list."""
        if not self._reordered:
            places = [self._places[item.id] for item in self if isinstance(item, Sample) and item.id in self._places]
            self._reordered = any(map(operator.gt, places, places[1:]))


Payload = Sample | tuple[Sample, ...]
"""A sample, or those of a batch: what pairs samples with results. User code gets a `Batch` of its own."""


class Calls:
    """Calls functions of stages and measurements, each call in a copy of the current context.

    `take(stage or measurement, argument, result)` checks and copies what a function returned. It is called at once, on
    the same thread or task: whatever runs next may change what the user has kept.
    """

    def __init__(self, take: Callable[[Any, Any, Any], Any]) -> None:
        self._take = take
        self._slots: dict[int, _Slots] = {}
        self._task_slots: dict[int, _TaskSlots] = {}
        self._lock = threading.Lock()

    def call(self, what: Limits, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call a sync function.

        Raises:
            StageTimeoutError: it took longer than `what.timeout`. Its thread goes on, and what it returns is dropped.
            StageStuckError: no slot came free, because calls that timed out still hold all of them.
        """
        run, take = copy_context().run, self._take
        if what.timeout is None:
            return take(what, argument, run(function, argument))
        with self._lock:
            slots = self._slots.get(id(what))
            if slots is None:
                slots = self._slots[id(what)] = _Slots(what, what.timeout)
        return slots.call(lambda: take(what, argument, run(function, argument)))

    def close(self) -> None:
        """End the threads that ran calls with a timeout; busy ones end when their call returns."""
        with self._lock:
            for slots in self._slots.values():
                slots.close()
            self._slots.clear()

    async def call_async(self, what: Limits, function: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
        """Call an async function in a task of its own, which is cancelled when its time is over.

        Raises:
            StageTimeoutError: it took longer than `what.timeout`. Its task goes on until it has cleaned up, and what it
                returns is dropped.
            StageStuckError: no slot came free, because calls that timed out hold all of them: they have not ended
                within another `timeout`, or `CLEAN_UP` if that is longer.
            Interrupted: it raised `KeyboardInterrupt` or `SystemExit`, which must not leave a task: the loop would end.
        """
        slots = None
        if what.timeout is not None:
            slots = self._task_slots.get(id(what))
            if slots is None or slots.loop is not asyncio.get_running_loop():
                slots = self._task_slots[id(what)] = _TaskSlots(what, what.timeout)
            await slots.take()
        task = asyncio.create_task(self._call_and_take(what, function, argument), context=copy_context())
        if slots is not None:
            task.add_done_callback(slots.release)
        try:
            done, _ = await asyncio.wait({task}, timeout=what.timeout)
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(_retrieve)
            raise
        if not done:
            if slots is not None:
                slots.abandon(task)
            task.cancel()
            task.add_done_callback(_retrieve)
            raise StageTimeoutError(f"{what!r} took longer than its timeout of {what.timeout} s")
        try:
            return task.result()
        finally:
            del task, done  # or an exception, and this frame on its traceback, would keep each other alive

    async def _call_and_take(self, what: Limits, function: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
        return self._take(what, argument, await guarded(function, argument))


class Interrupted(Exception):  # noqa: N818 - carries an interrupt through an event loop
    """A `KeyboardInterrupt` or `SystemExit` that an async function raised."""

    def __init__(self, interrupt: BaseException) -> None:
        super().__init__(interrupt)
        self.interrupt = interrupt


async def guarded(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Call an async function, with interrupts turned into `Interrupted`."""
    try:
        return await function(*arguments)
    except (KeyboardInterrupt, SystemExit) as error:
        raise Interrupted(error) from error


async def to_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a blocking function on another thread. `StopIteration`, which no future takes, becomes a `RuntimeError`."""
    return await asyncio.to_thread(outside_iteration, "a call on another thread", function, *arguments)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve an abandoned task's exception, so that asyncio does not log that nobody did."""
    if not task.cancelled():
        task.exception()


class _Slots:
    """Calls of one sync function with a timeout: `concurrency` slots, each held until its call has returned.

    The threads are daemons, unlike those of `concurrent.futures`: a call that never returns must not keep the
    process from ending.
    """

    def __init__(self, what: Limits, timeout: float) -> None:
        self._what = what
        self._timeout = min(timeout, LONGEST_WAIT)
        self._free = threading.Semaphore(what.concurrency)
        self._lock = threading.Lock()
        self._abandoned = 0
        self._idle: list[SimpleQueue[_Call | None]] = []
        self._closed = False

    def call(self, function: Callable[[], Any]) -> Any:
        while not self._free.acquire(timeout=self._timeout):
            if self._abandoned >= self._what.concurrency:
                raise _stuck(self._what, self._abandoned, self._timeout)
        call = _Call(function)
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), daemon=True, name="forge-call").start()
        inbox.put(call)
        if not call.done.wait(self._timeout):
            with self._lock:
                if not call.done.is_set():
                    call.abandoned = True
                    self._abandoned += 1
            if call.abandoned:
                raise StageTimeoutError(f"{self._what!r} took longer than its timeout of {self._timeout} s")
        error, result = call.error, call.result
        try:
            if error is not None:
                raise error
            return result
        finally:
            del call, error, result  # or an exception, and this frame on its traceback, would keep each other alive

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for inbox in self._idle:
                inbox.put(None)

    def _serve(self, inbox: SimpleQueue[_Call | None]) -> None:
        while (call := inbox.get()) is not None:
            try:
                call.result = call.function()
            except BaseException as error:  # noqa: BLE001 - raised again where the call was made
                call.error = error
            with self._lock:
                self._abandoned -= call.abandoned
                self._idle.append(inbox)
                if self._closed:
                    inbox.put(None)
                done = call.done
                del call  # as above; and nothing of it is kept until the next one comes
                done.set()
            self._free.release()


class _TaskSlots:
    """Calls of one async function with a timeout: `concurrency` slots, each held until its task has ended."""

    def __init__(self, what: Limits, timeout: float) -> None:
        self._what = what
        self._timeout = timeout
        self._patience = max(timeout, CLEAN_UP)
        self.loop = asyncio.get_running_loop()
        self._free = asyncio.Semaphore(what.concurrency)
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def take(self) -> None:
        """Wait for a slot.

        Raises:
            StageStuckError: none came free.
        """
        while self._free.locked():
            try:
                async with asyncio.timeout(self._patience):
                    await self._free.acquire()
            except TimeoutError:
                if len(self._abandoned) >= self._what.concurrency:
                    raise _stuck(self._what, len(self._abandoned), self._timeout) from None
            else:
                return
        await self._free.acquire()  # at once

    def abandon(self, task: asyncio.Task[Any]) -> None:
        """Note that nobody waits for the task any longer."""
        self._abandoned.add(task)

    def release(self, task: asyncio.Task[Any]) -> None:
        """Release the slot of a task that has ended."""
        self._abandoned.discard(task)
        self._free.release()


def _stuck(what: Limits, calls: int, timeout: float) -> StageStuckError:
    return StageStuckError(
        f"{what!r}: {calls} calls ran into the timeout of {timeout} s and have not returned since; "
        "no slot is left to go on with"
    )


class _Call:
    __slots__ = ("abandoned", "done", "error", "function", "result")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.abandoned = False
