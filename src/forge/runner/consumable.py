"""Consumption of a run: iteration, `with` blocks and `drain`, with and without an event loop of the user's."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..errors import RunCancelled
from ..execution.calls import to_thread
from ..pipeline.exceptions import is_a
from ..pipeline.sample import Sample
from .outcome import RunOutcome
from .queue import MAX_MICRO_BATCH, QueueClosed
from .termination import termination

if TYPE_CHECKING:
    from ..execution.item import Item
    from ..support.clock import Clock
    from .queue import StageQueue
    from .result import RunResult


class Consumable(ABC):
    """The iterator over a run's ready samples, which starts the run and ends it exactly once."""

    result: RunResult | None = None
    """Result of the run; None until it has ended."""
    _output: StageQueue
    _began = False
    _closed = False
    shutdown_timeout: float
    """Seconds in which it ends, and is delivered by observers, when a signal ends the process."""
    handle_signals: bool
    """True if SIGTERM and SIGHUP end it before they end the process."""
    clock: Clock
    interval: float
    """Seconds after which a consumer that waits calls `waited`."""
    _error: BaseException | None = None

    def __init__(self) -> None:
        self._taken: deque[Item] = deque()
        """Items taken from the output, which are returned next."""
        self._taking = threading.Lock()
        """Held while items are added: several threads may iterate."""

    @abstractmethod
    def _start(self) -> None:
        """Begin the run, unless it has begun.

        Raises:
            QueueClosed: it was closed before it began.
        """

    @abstractmethod
    def _finish(self, outcome: RunOutcome, error: BaseException | None = None) -> None:
        """End the run, unless it has ended or never began."""

    @abstractmethod
    def waited(self, since: float) -> None:
        """Do what is due every `interval` seconds while the consumer waits, since this monotonic time. Never raises."""

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        if self.result is not None:
            raise StopIteration
        try:
            if not self._began:
                termination.watch(self)
                self._start()
            item = self._next()
        except QueueClosed:
            item = None
        except BaseException as error:
            self._end(outcome_of(error), error)
            raise
        if item is not None:
            return item.sample
        self._end(RunOutcome.COMPLETED)
        if self._error is not None:
            raise self._error
        raise StopIteration

    def _next(self) -> Item | None:
        """Return the next item; None at the end. Items that are ready are taken together, which is faster.

        Raises:
            QueueClosed: the run was ended.
        """
        item = self._held()
        if item is None:
            with self._taking:
                item = self._held()  # another thread may have taken some meanwhile
                if item is None:
                    self._taken.extend(self._wait())
                    item = self._held()
        return item

    def _wait(self) -> list[Item]:
        """Wait for items, and look for stalls meanwhile: whatever the other threads do, this one has time for
        it."""
        since, interval = self.clock.monotonic(), self.interval
        while True:
            try:
                return self._output.take_waiting(MAX_MICRO_BATCH, timeout=interval)
            except TimeoutError:
                self.waited(since)

    async def _wait_async(self) -> Item | None:
        """Wait for an item in this task; otherwise like `_wait`."""
        since, interval = self.clock.monotonic(), self.interval
        while True:
            try:
                return await self._output.get_async(interval)
            except TimeoutError:
                await to_thread(self.waited, since)

    def _held(self) -> Item | None:
        """Return the next item of those taken; None if there is none, or the run was ended."""
        taken = self._taken
        if not taken:
            return None
        if self._output.closed:
            taken.clear()
        try:
            return taken.popleft()
        except IndexError:  # another thread was quicker
            return None

    def drain(self, *, progress: bool = False) -> RunResult:
        """Run to the end, discarding the samples; with `progress`, show it (see `forge.progress.progress`).

        Raises:
            RunCancelled: the run was closed before it began.
            Exception: what ended the run before its time.
        """
        with self._shown(progress):
            self._output.discard()
            for _ in self:
                pass
        return self._drained()

    def close(self) -> None:
        """End the run now: what is in flight settles as `failed`, with `cancelled`. Does nothing if it has ended.

        A run that never began leaves no trace.
        """
        self._closed = True
        self._end(RunOutcome.CANCELLED)

    def _end(self, outcome: RunOutcome, error: BaseException | None = None) -> None:
        """End the run, unless it has ended or never began. Does not return if a signal is ending the process."""
        try:
            self._finish(outcome, error)
        finally:
            termination.release(self)
        termination.hold()

    async def _end_async(self, outcome: RunOutcome, error: BaseException | None = None) -> None:
        """End the run without blocking the caller's event loop; otherwise like `_end`."""
        try:
            await to_thread(self._finish, outcome, error)
        finally:
            termination.release(self)
        await termination.hold_async()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or not self._began:
            self.close()
        else:
            self._end(outcome_of(error), error)

    def __aiter__(self) -> AsyncIterator[Sample]:
        return self

    async def __anext__(self) -> Sample:
        if self.result is not None:
            raise StopAsyncIteration
        try:
            if not self._began:
                termination.watch(self)
                await to_thread(self._start)
            item = self._held() or await self._wait_async()
        except QueueClosed:
            item = None
        except BaseException as error:
            await self._end_async(outcome_of(error), error)
            raise
        if item is not None:
            return item.sample
        await self._end_async(RunOutcome.COMPLETED)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def adrain(self, *, progress: bool = False) -> RunResult:
        """Run to the end like `drain`, without blocking the caller's event loop."""
        with self._shown(progress):
            self._output.discard()
            async for _ in self:
                pass
        return self._drained()

    @abstractmethod
    def _shown(self, progress: bool) -> AbstractContextManager[object]:
        """Return a context in which the run's progress is shown, if it is to be."""

    def _drained(self) -> RunResult:
        if self.result is None:
            raise RunCancelled("the run was closed before it began")
        return self.result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or not self._began:
            self._closed = True
            await self._end_async(RunOutcome.CANCELLED)
        else:
            await self._end_async(outcome_of(error), error)


def outcome_of(error: BaseException) -> RunOutcome:
    """Return the run's outcome for an exception of the consumer: errors fail it, interrupts cancel it."""
    return RunOutcome.FAILED if is_a(error, Exception) else RunOutcome.CANCELLED
