"""The short way through the engine, for what is called for every sample.

A lane knows everything about an operation on one stage or measurement of a run that can be known beforehand: names,
attributes, series, and the endings that calls come to again and again, each since the operation has first described it.
A call by it leaves a few numbers behind, that is all. What ends in another way is described by the operation like any
other call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry import context as otel_context

from ..patching import faults
from ..semconv import attributes as a
from ..semconv.definitions import Instrument
from ..signals.context import with_span
from ..signals.exceptions import exception_attributes
from ..signals.metrics import Attributes
from ..signals.spans import end_span, given, span_name, start_attributes
from .call import Call
from .deferred_spans import Record
from .operation import Operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence
    from contextvars import Token

    from opentelemetry.context import Context

    from forge.execution.results import MeasurementResult, Verdict

    from ..semconv.definitions import Event
    from ..signals.metrics import Series, Tally
    from .scopes import RunScope, SampleScope

T = TypeVar("T")


class Known:
    """An ending that calls come to again and again, with what is known about it: all but its times and its error."""

    __slots__ = ("events", "record", "tally")

    def __init__(self, record: Record, tally: Tally, events: Sequence[tuple[Event, str, Attributes]]) -> None:
        self.record = record
        self.tally = tally
        self.events = events
        """Each with its body and its attributes."""


_MOST_KNOWN: Final = 64
"""How many endings are known to a lane; there may be any number of reasons to skip a sample."""


class Lane(ABC):
    """An operation on one subject in one run. A subclass for each operation says which endings are alike."""

    __slots__ = ("_known", "attributes", "durations", "operation", "record", "run", "subject", "tally")

    def __init__(
        self, run: RunScope, operation: Operation, subject: Any, start: Attributes, usual: Verdict | MeasurementResult
    ) -> None:
        """`usual` is a result as most calls come to."""
        self.run = run
        self.operation = operation
        self.subject = subject
        self.attributes = {**start, **run.identity}
        known = self._learn(usual)
        self._known = {self.likeness(usual): known}
        self.record = known.record
        self.tally = known.tally
        self.durations = self.tally.values
        """Where durations are put. Whoever appends here itself calls `tally.drain` when there are `FULL` of them."""

    @abstractmethod
    def likeness(self, result: Any) -> Hashable:
        """The same for results that differ only in their seconds, in the words of their error, and in what comes of
        them; None for those that are like no other.
        """

    def _find(self, result: Any) -> Known | None:
        likeness = self.likeness(result)
        known = self._known.get(likeness)
        if known is None and likeness is not None and len(self._known) < _MOST_KNOWN:
            known = self._known.setdefault(likeness, self._learn(result))
        return known

    def _learn(self, result: Any) -> Known:
        """Have the operation describe an ending, and keep what will be the same with the next one like it."""
        operation, run = self.operation, self.run
        assert operation.span is not None
        ending = operation.end(self._call(), result, None)
        said = {**self.attributes, **ending.attributes}
        durations: list[Series] = []
        counts: list[Series] = []
        totals: list[Series] = []
        for metric, _, attributes in ending.points:
            series = run.telemetry.series.get(metric, {**said, **attributes})
            if metric.instrument is Instrument.HISTOGRAM:
                durations.append(series)
            else:
                (totals if metric.unit == "s" else counts).append(series)
        name, start = span_name(operation.span, self.attributes), start_attributes(operation.span, self.attributes)
        return Known(
            Record(operation.span, name, start, given(ending.attributes)),
            run.tally(durations, counts, totals),
            [
                (event, body, given({**self.attributes, **attributes}))
                for event, body, attributes, _ in ending.events
                if run.telemetry.emits(event)
            ],
        )

    def _call(self) -> Call:
        return Call(self.operation, self.run.telemetry, self.run, (None, self.subject, None), self.attributes)

    def begin(self, scope: SampleScope) -> bool:
        """A call begins; False where the sample has settled, so that it is not to be recorded."""
        scope.busy, scope.busy_since = self, scope.clock()
        if scope.settled:
            scope.busy = None
            return False
        return True

    def ended(self, scope: SampleScope, result: Any, context: Context | None = None) -> None:
        """A call came back; `context` is the one that it was made in, with its span, if it has one."""
        spending = scope.spending
        if spending is not None:
            spending.count_seen()
        started, span = scope.busy_since, scope.busy_span
        if not scope.end_busy():
            return
        try:
            known = self._find(result)
            if known is None:
                self.end(scope, started, result, None)
                return
            error = result.error
            if span is None:
                record = known.record if error is None else known.record.failed(error)
                scope.add_step((record, started, result.duration))
                known.tally.append(result.duration)
            else:
                known.tally.traced.append((result.duration, span.get_span_context()))
            if known.events:
                self._emit(scope, context, known, error)
            if span is not None:
                said = known.record.ended
                if spending is not None:
                    said = {**said, **spending.said_by(known.record.name)}
                end_span(span, said, error)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, f"the end of {self.operation.name}")

    def _emit(self, scope: SampleScope, context: Context | None, known: Known, error: BaseException | None) -> None:
        try:
            for event, body, attributes in known.events:
                if a.ERROR_TYPE not in attributes or self.run.may_emit(attributes[a.ERROR_TYPE]):
                    said = {**attributes, a.FORGE_SAMPLE_ID: scope.sample_id}
                    if error is not None:
                        said.update(exception_attributes(error))
                    self.run.telemetry.records.emit(event, body, said, context)
        except Exception as fault:  # noqa: BLE001 - the span is to be ended
            faults.suppress(fault, f"the events of {self.operation.name}")

    def raised(self, scope: SampleScope, error: BaseException) -> None:
        """A call raised."""
        if scope.spending is not None:
            scope.spending.count_seen()
        started = scope.busy_since
        if scope.end_busy():
            with faults.protected(f"the end of {self.operation.name}"):
                self.end(scope, started, None, error)

    def end(self, scope: SampleScope, started: float, result: Any, error: BaseException | None) -> None:
        """A call has come to an ending that is not known: describe it."""
        call = self._call()
        call.attributes = {**self.attributes, a.FORGE_SAMPLE_ID: scope.sample_id}
        call.started = started
        call.notes, scope.notes = scope.notes, ()
        call.belongs_to(scope, scope.busy_span)
        call.close(result, error)

    def trace(self, scope: SampleScope, original: Callable[..., T], *arguments: Any) -> T:
        """Call a function for a sample that is traced."""
        if not self.begin(scope):
            return original(*arguments)
        context, token = self._start(scope)
        try:
            result = original(*arguments)
        except BaseException as error:
            self._leave(token)
            self.raised(scope, error)
            raise
        self._leave(token)
        try:
            self.ended(scope, result, context)
            return result
        finally:
            del result  # or an error in it, whose traceback leads here, would keep itself alive

    async def trace_async(self, scope: SampleScope, original: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """The same for a coroutine function."""
        if not self.begin(scope):
            return await original(*arguments)
        context, token = self._start(scope)
        try:
            result = await original(*arguments)
        except BaseException as error:
            # A coroutine that nobody awaits any more is closed from wherever it is found: its context is gone.
            self._leave(None if isinstance(error, GeneratorExit) else token)
            self.raised(scope, error)
            raise
        self._leave(token)
        self.ended(scope, result, context)
        return result

    def _start(self, scope: SampleScope) -> tuple[Context, Token[Context]] | tuple[None, None]:
        """Start the span, and make it current."""
        scope.busy_span = None
        try:
            record, around = self.record, otel_context.get_current()
            said = {**record.attributes, a.FORGE_SAMPLE_ID: scope.sample_id}
            # With the context, or the SDK looks for it again and again.
            span = self.run.telemetry.spans.start(record.name, around, record.defined.kind, said)
            scope.busy_span = span
            if span.is_recording():
                scope.spans += 1
                self.run.count_span()
            context = with_span(span, around)
            return context, otel_context.attach(context)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, f"the span of {self.operation.name}")
            return None, None

    def _leave(self, token: Token[Context] | None) -> None:
        if token is not None:
            otel_context.detach(token)  # logs what goes wrong, and does not raise it
