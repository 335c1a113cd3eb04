"""The short way through the engine, for what is called for every sample.

A lane knows everything about an operation on one stage or measurement of a run that can be known beforehand: names,
attributes, series, and the ending that calls usually come to. A call by it leaves a few numbers behind, that is all.
What ends in another way is handed to the operation, which describes it like any other call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace

from . import guard
from .operation import Call, Operation
from .semconv import attributes as a
from .series import Attributes
from .trail import Record, Step, set_known, span_name, start_attributes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextvars import Token

    from opentelemetry.context import Context

    from .scope import RunScope, SampleScope
    from .semconv.definitions import Metric

T = TypeVar("T")


class Lane(ABC):
    """An operation on one subject in one run. A subclass for each operation says what its usual ending is."""

    __slots__ = (
        "_counts",
        "_duration",
        "_total",
        "attributes",
        "buffer",
        "durations",
        "operation",
        "record",
        "run",
        "subject",
    )

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
        `counts`; `total` is the counter of its busy seconds, which are all of them.
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
        self.durations = self.buffer.values
        """Where durations are put. Whoever appends here itself calls `buffer.drain` when there are `FULL` of them."""

    def close(self) -> None:
        """Nothing comes by it any more."""
        self.run.telemetry.series.release(self.buffer)

    @abstractmethod
    def usual(self, started: float, result: Any) -> Step | None:
        """The step on the trail, if the result is the usual one."""

    def begin(self, scope: SampleScope) -> bool:
        """A call begins; False where the sample has settled, so that it is not to be recorded."""
        scope.busy, scope.busy_since = self, scope.clock()
        if scope.settled:
            scope.busy = None
            return False
        return True

    def ended(self, scope: SampleScope, result: Any) -> None:
        """A call came back."""
        if scope.spending is not None:
            scope.spending.count_seen()
        started, span = scope.busy_since, scope.busy_span
        if not scope.end_busy():
            return
        try:
            step = self.usual(started, result)
            if step is None:
                self.end(scope, started, result, None)
            elif span is None:
                scope.trail.append(step)
                self.buffer.append(step[2])
            else:
                self._duration.write(step[2], span)
                self._count(1, step[2])
                span.set_attributes(self.record.ended)
                if scope.spending is not None:
                    set_known(span, scope.spending.said_by(self.record.name))
                span.end()
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            guard.swallow(fault, f"the end of {self.operation.name}")

    def raised(self, scope: SampleScope, error: BaseException) -> None:
        """A call raised."""
        if scope.spending is not None:
            scope.spending.count_seen()
        started = scope.busy_since
        if scope.end_busy():
            with guard.protected(f"the end of {self.operation.name}"):
                self.end(scope, started, None, error)

    def end(self, scope: SampleScope, started: float, result: Any, error: BaseException | None) -> None:
        """A call has not come to its usual ending: describe what it came to."""
        attributes = {**self.attributes, a.FORGE_SAMPLE_ID: scope.sample_id}
        call = Call(self.operation, self.run.telemetry, self.run, (None, self.subject, None), attributes)
        call.started = started
        call.notes, scope.notes = scope.notes, ()
        call.belongs_to(scope, scope.busy_span)
        call.close(result, error)

    def trace(self, scope: SampleScope, original: Callable[..., T], *arguments: Any) -> T:
        """Call a function for a sample that is traced."""
        if not self.begin(scope):
            return original(*arguments)
        token = self._start(scope)
        try:
            result = original(*arguments)
        except BaseException as error:
            self._leave(token)
            self.raised(scope, error)
            raise
        self._leave(token)
        self.ended(scope, result)
        return result

    async def trace_async(self, scope: SampleScope, original: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """The same for a coroutine function."""
        if not self.begin(scope):
            return await original(*arguments)
        token = self._start(scope)
        try:
            result = await original(*arguments)
        except BaseException as error:
            # A coroutine that nobody awaits any more is closed from wherever it is found: its context is gone.
            self._leave(None if isinstance(error, GeneratorExit) else token)
            self.raised(scope, error)
            raise
        self._leave(token)
        self.ended(scope, result)
        return result

    def _start(self, scope: SampleScope) -> Token[Context] | None:
        """Start the span, and make it current."""
        scope.busy_span = None
        try:
            record = self.record
            span = self.run.telemetry.tracer.start_span(
                record.name,
                kind=record.defined.kind,
                attributes={**record.attributes, a.FORGE_SAMPLE_ID: scope.sample_id},
                record_exception=False,
                set_status_on_exception=False,
            )
            scope.busy_span = span
            if span.is_recording():
                scope.spans += 1
                self.run.count_span()
            return otel_context.attach(trace.set_span_in_context(span))
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            guard.swallow(fault, f"the span of {self.operation.name}")
            return None

    def _leave(self, token: Token[Context] | None) -> None:
        if token is not None:
            otel_context.detach(token)  # logs what goes wrong, and does not raise it

    def _write(self, durations: list[float]) -> None:
        self._duration.write_all(durations)
        self._count(len(durations), sum(durations))

    def _count(self, calls: int, seconds: float) -> None:
        for series in self._counts:
            series.append(calls)
        if self._total is not None:
            self._total.append(seconds)
