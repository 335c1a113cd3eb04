"""The short way through the engine for batches, whose samples are not traced.

What a batch usually comes to is known beforehand, all but its size and its seconds. Whatever is not usual goes the way
of any other call: a sample among the others that is traced, or an ending of another kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from ..patching import faults
from ..signals.spans import span_name, start_attributes
from .call import CALL, Call
from .deferred_spans import Record
from .operation import Operation
from .scopes import SAMPLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from forge.execution.item import Item

    from ..semconv.definitions import Metric
    from ..signals.metrics import Attributes, Series
    from .scopes import RunScope, SampleScope

T = TypeVar("T")


class BatchLane(ABC):
    """An operation on batches for one subject in one run. A subclass for each operation says which ending is usual."""

    __slots__ = ("_at_start", "_name", "_size", "attributes", "operation", "run", "usual")

    def __init__(self, run: RunScope, operation: Operation, start: Attributes, usual: Attributes, size: str) -> None:
        """The usual ending has the attributes `usual`; the one called `size` says how many samples there are."""
        assert operation.span is not None
        self.run = run
        self.operation = operation
        self.attributes = {**start, **run.identity}
        self.usual = usual
        self._size = size
        self._name = span_name(operation.span, self.attributes)
        self._at_start = start_attributes(operation.span, self.attributes)

    @abstractmethod
    def is_usual(self, result: Any) -> bool:
        """Whether the result is the usual one."""

    @abstractmethod
    def count(self, size: int, result: Any) -> None:
        """Write the points of the usual ending of a batch of this size."""

    def series(self, metric: Metric) -> Series:
        """The series of a metric for the usual ending."""
        return self.run.telemetry.series.get(metric, {**self.attributes, **self.usual})

    def begin(self, *arguments: Any) -> Call | None:
        """A call begins; None where it has to go the long way. The last of its arguments are the items."""
        try:
            return self._begin(*arguments)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, f"the start of {self.operation.name}")
            return None

    def _begin(self, *arguments: Any) -> Call | None:
        items: Sequence[Item] = arguments[-1]
        scopes: list[SampleScope] = []
        left_out: list[SampleScope] = []
        for item in items:
            scope = item.context.get(SAMPLE)
            if scope is None or scope.span is not None or scope.settled:
                return None
            scopes.append(scope)
            if scope.why is not None:
                left_out.append(scope)
        if not scopes or not is_instrumentation_enabled():
            return None
        attributes = {**self.attributes, self._size: len(scopes)}
        call = Call(self.operation, self.run.telemetry, self.run, arguments, attributes)
        call.works_on(scopes)
        if left_out:
            call.is_left_out(left_out[0].why or "", left_out)
        for scope in scopes:
            scope.calls[call] = None
        # In this order: either a sample's end finds the call, or the call sees that the sample has ended.
        for scope in scopes:
            if scope.settled:
                call.forget()
                return None
        return call

    def observe(self, call: Call, original: Callable[..., T], *arguments: Any) -> T:
        """Call the function, and close with what came of it."""
        token = CALL.set(call)
        try:
            result = original(*arguments)
        except BaseException as error:
            CALL.reset(token)
            call.close(None, error)
            raise
        CALL.reset(token)
        self._ended(call, result)
        try:
            return result
        finally:
            del result  # see `Lane.trace`

    async def observe_async(self, call: Call, original: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """The same for a coroutine function."""
        token = CALL.set(call)
        try:
            result = await original(*arguments)
        except BaseException as error:
            # A coroutine that nobody awaits any more is closed from wherever it is found: its context is gone.
            if not isinstance(error, GeneratorExit):
                CALL.reset(token)
            call.close(None, error)
            raise
        CALL.reset(token)
        self._ended(call, result)
        return result

    def _ended(self, call: Call, result: Any) -> None:
        try:
            if call.spending is not None or call.notes or not self.is_usual(result):
                call.close(result)
            elif call.claim():
                call.forget()
                self._end(call, result)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, f"the end of {self.operation.name}")

    def _end(self, call: Call, result: Any) -> None:
        span, size = self.operation.span, len(call.scopes)
        assert span is not None
        if call.trails:
            start = {**self._at_start, self._size: size}
            record = Record(span, self._name, start, self.usual, None, len(call.trails))
            step = (record, call.started, call.elapsed)
            for scope in call.trails:
                scope.add_step(step)
        if not self.run.ended:
            self.count(size, result)
