"""How a user consumes a run: by iterating it, in a `with` block, with or without an event loop of their own."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..errors import RunCancelled
from ..queue import QueueClosed
from ..results import RunOutcome
from ..sample import Sample

if TYPE_CHECKING:
    from ..queue import StageQueue
    from .result import RunResult


class Consumable(ABC):
    """The iterator that a user holds; drives the run underneath and ends it exactly once."""

    result: RunResult | None = None
    """How the run went; None until it has ended."""
    _output: StageQueue
    _began = False
    _closed = False
    _error: BaseException | None = None

    @abstractmethod
    def _start(self) -> None:
        """Begin, unless it was begun.

        Raises:
            QueueClosed: it was closed before it began.
        """

    @abstractmethod
    def _finish(self, outcome: RunOutcome, error: BaseException | None = None) -> None:
        """End, unless it was ended or never began."""

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        if self.result is not None:
            raise StopIteration
        try:
            if not self._began:
                self._start()
            item = self._output.get()
        except QueueClosed:
            item = None
        except BaseException as error:
            self._finish(outcome_of(error), error)
            raise
        if item is not None:
            return item.sample
        self._finish(RunOutcome.COMPLETED)
        if self._error is not None:
            raise self._error
        raise StopIteration

    def drain(self) -> RunResult:
        """Run to the end without looking at the samples.

        Raises:
            RunCancelled: the run was closed before it began.
            Exception: what ended the run before its time.
        """
        self._output.discard()
        for _ in self:
            pass
        return self._drained()

    def close(self) -> None:
        """End the run now: what is in flight settles as `failed`, with `cancelled`. Does nothing if it has ended.

        A run that never began leaves no trace.
        """
        self._closed = True
        self._finish(RunOutcome.CANCELLED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or not self._began:
            self.close()
        else:
            self._finish(outcome_of(error), error)

    def __aiter__(self) -> AsyncIterator[Sample]:
        return self

    async def __anext__(self) -> Sample:
        if self.result is not None:
            raise StopAsyncIteration
        try:
            if not self._began:
                await asyncio.to_thread(self._start)
            item = await self._output.get_async()
        except QueueClosed:
            item = None
        except BaseException as error:
            await asyncio.to_thread(self._finish, outcome_of(error), error)
            raise
        if item is not None:
            return item.sample
        await asyncio.to_thread(self._finish, RunOutcome.COMPLETED)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def adrain(self) -> RunResult:
        """`drain` for a caller that has an event loop to keep free."""
        self._output.discard()
        async for _ in self:
            pass
        return self._drained()

    def _drained(self) -> RunResult:
        if self.result is None:
            raise RunCancelled("the run was closed before it began")
        return self.result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, traceback)


def outcome_of(error: BaseException) -> RunOutcome:
    """An exception of the consumer fails the run; a wish to stop cancels it."""
    return RunOutcome.FAILED if isinstance(error, Exception) else RunOutcome.CANCELLED
