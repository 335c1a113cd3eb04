"""The short way through the engine, for what is called for every sample.

A lane knows everything about an operation on one stage or measurement of a run that can be known beforehand: names,
attributes, series, and the ending that calls usually come to. A call by it leaves a few numbers behind, that is all.
What ends in another way is handed to the operation, which describes it like any other call.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from . import guard
from .operation import Call, Operation, span_name, start_attributes
from .semconv import attributes as a
from .series import FULL, Attributes
from .trail import Record, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .scope import RunScope, SampleScope
    from .semconv.metrics import Metric


class Lane(ABC):
    """An operation on one subject in one run. A subclass for each operation says what its usual ending is."""

    __slots__ = ("_counts", "_duration", "_total", "attributes", "buffer", "operation", "record", "run", "subject")

    def __init__(  # noqa: PLR0917 - a subclass gives them, in this order
        self,
        run: RunScope,
        operation: Operation,
        subject: Any,
        start: Attributes,
        usual: Attributes,
        duration: Metric,
        counts: Sequence[Metric],
        total: Metric | None = None,
    ) -> None:
        """The usual ending has these attributes; it is recorded in the histogram `duration` and counted once by each of
        `counts`; `total` is the counter of its busy seconds.
        """
        assert operation.span is not None
        self.run = run
        self.operation = operation
        self.subject = subject
        self.attributes = {**start, **run.identity}
        at_start = start_attributes(operation.span, self.attributes)
        self.record = Record(operation.span, span_name(operation.span, self.attributes), at_start, usual)
        series, said = run.telemetry.series, {**self.attributes, **usual}
        self._duration = series.get(duration, said)
        self._counts = [series.get(metric, said) for metric in counts]
        self._total = series.get(total, said) if total is not None else None
        self.buffer = series.buffer(operation.name, self._write)

    @abstractmethod
    def usual(self, started: float, result: Any) -> Step | None:
        """The step on the trail, if the result is the usual one."""

    def ended(self, scope: SampleScope, started: float, result: Any) -> None:
        """A call came back. It was entered in `scope.open` when it began."""
        if scope.closed or scope.open.pop(self, None) is None:
            return  # the sample has settled meanwhile, and has ended it
        try:
            step = self.usual(started, result)
            if step is None:
                self._end(scope, started, result, None)
                return
            scope.trail.append(step)
            buffer = self.buffer
            buffer.values.append(step)
            if len(buffer.values) >= FULL:
                buffer.drain()
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            guard.swallow(fault, f"the end of {self.operation.name}")

    def raised(self, scope: SampleScope, started: float, error: BaseException) -> None:
        """A call raised."""
        if not scope.closed and scope.open.pop(self, None) is not None:
            with guard.protected(f"the end of {self.operation.name}"):
                self._end(scope, started, None, error)

    def abandoned(self, scope: SampleScope, started: float, error: BaseException | None) -> None:
        """The sample settles, and a call has not come back: whatever it still brings comes too late."""
        self._end(scope, started, None, error or asyncio.CancelledError())

    def close(self, call: Call, result: Any) -> bool:
        """End a call that went the long way with its span, if it ended as usual; says whether it did."""
        step = self.usual(call.started, result)
        if step is None or call.span is None or self.run.ended:
            return False
        self._duration.write(step[2], call.context)
        self._count(1, step[3])
        call.span.set_attributes(self.record.ended)
        call.span.end()
        return True

    def _end(self, scope: SampleScope, started: float, result: Any, error: BaseException | None) -> None:
        attributes = {**self.attributes, a.FORGE_SAMPLE_ID: scope.sample_id}
        call = Call(self.operation, self.run.telemetry, self.run, (None, self.subject, None), attributes)
        call.left_out_of(scope)
        call.started = started
        call.notes, scope.notes = scope.notes, []
        call.close(result, error)

    def _write(self, steps: list[Step]) -> None:
        self._duration.write_all([step[2] for step in steps])
        self._count(len(steps), sum(step[3] for step in steps))

    def _count(self, calls: int, busy: float) -> None:
        for series in self._counts:
            series.append(calls)
        if self._total is not None:
            self._total.append(busy)
