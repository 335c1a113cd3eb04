"""One call of an operation on the slow path: from its span's start to the points and events at its end.

What is called for every sample goes a shorter way, see `lane`. Whatever goes wrong here is suppressed; the observed
function is called exactly once, and what it returns or raises reaches its caller as it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Link

from ..patching import faults
from ..semconv import attributes as a
from ..semconv.attributes import ForgeTelemetryReason as Reason
from ..semconv.attributes import ForgeTelemetrySignal as Signal
from ..signals.exceptions import exception_attributes
from ..signals.metrics import Attributes
from ..signals.spans import end_span, given, span_name, start_attributes
from .deferred_spans import Record, write_step
from .operation import NOTHING, Emission, Ending, Point
from .sampling import Sampler
from .scopes import RUN, SAMPLE, RunScope, SampleScope

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from ..patching.patches import Layer
    from ..semconv.definitions import Event, Span
    from ..signals.telemetry import Telemetry
    from .detected_usage import Spending
    from .operation import Operation

T = TypeVar("T")

CALL: ContextVar[Call | None] = ContextVar("forge_otel_call", default=None)
"""The innermost operation with a span that is going on here."""


def observe(operation: Operation, layer: Layer, original: Callable[..., T], /, *arguments: Any, **keywords: Any) -> T:
    """Call a function, and record it as the operation describes."""
    telemetry = layer.telemetry
    call = open_call(operation, telemetry, *arguments) if telemetry is not None else None
    if call is None:
        return original(*arguments, **keywords)
    return call.observe(original, *arguments, **keywords)


async def observe_async(
    operation: Operation, layer: Layer, original: Callable[..., Awaitable[T]], /, *arguments: Any, **keywords: Any
) -> T:
    """The same for a coroutine function."""
    telemetry = layer.telemetry
    call = open_call(operation, telemetry, *arguments) if telemetry is not None else None
    if call is None:
        return await original(*arguments, **keywords)
    tokens = call.enter()
    try:
        result = await original(*arguments, **keywords)
    except BaseException as error:
        # A coroutine that nobody awaits any more is closed from wherever it is found: its context is gone.
        call.leave(None if isinstance(error, GeneratorExit) else tokens)
        call.close(None, error)
        raise
    call.leave(tokens)
    call.close(result)
    return result


def open_call(operation: Operation, telemetry: Telemetry, *arguments: Any) -> Call | None:
    """Begin: the span is started, but not made current. None where nothing is to be recorded."""
    try:
        if not is_instrumentation_enabled():
            return None
        run = RUN.get()
        if run is not None and run.ended:
            return None
        attributes = {**operation.start(*arguments), **(run.identity if run is not None else NOTHING)}
        call = Call(operation, telemetry, run, arguments, attributes)
        call.works_on(operation.samples(*arguments))
        for scope in call.scopes:
            scope.calls[call] = None
        # In this order: either the sample's end finds the call, or the call sees that the sample has ended.
        if any(scope.settled for scope in call.scopes):
            call.forget()
            return None
    except Exception as fault:  # noqa: BLE001 - the call must go on without us
        faults.suppress(fault, f"the start of {operation.name}")
        return None
    call.start()
    return call


class Call:
    """One call of an operation, while it goes on."""

    __slots__ = (
        "_claim",
        "_sample",
        "_why",
        "arguments",
        "attributes",
        "clock",
        "context",
        "notes",
        "operation",
        "run",
        "scopes",
        "span",
        "spending",
        "started",
        "telemetry",
        "trails",
    )

    def __init__(
        self,
        operation: Operation,
        telemetry: Telemetry,
        run: RunScope | None,
        arguments: tuple[Any, ...],
        attributes: Attributes,
    ) -> None:
        self.operation = operation
        self.telemetry = telemetry
        self.run = run
        self.arguments = arguments
        self.attributes = attributes
        self.scopes: Sequence[SampleScope] = ()
        self.span: trace.Span | None = None
        self.context: Context | None = None
        """With the span current; None without a span, which means the context that is current anyway."""
        self.notes: Sequence[Any] = ()
        """What is found out on the way, for `Operation.end`."""
        self.clock = run.clock if run is not None else telemetry.clock
        self.started = self.clock()
        self.trails: Sequence[SampleScope] | None = None
        """Without a span: the samples that keep what it would say; empty where it would be the run's own."""
        self.spending: Spending | None = None
        """What API calls used that were made for the batch; of one sample, the sample knows it."""
        self._sample: SampleScope | None = None
        """The sample that was worked on alone."""
        self._why: str | None = None
        """Why there is none, where we left it out."""
        self._claim = threading.Lock()

    def works_on(self, scopes: Sequence[SampleScope]) -> None:
        """It was begun for these samples."""
        self.scopes = scopes
        if scopes and not self.operation.links_samples:
            self._sample = scopes[0]

    @property
    def over(self) -> bool:
        """Whether it is recorded what came of it."""
        return self._claim.locked()

    def belongs_to(self, scope: SampleScope, span: trace.Span | None) -> None:
        """It was begun for a sample by a lane, with this span, or without one because the sample is not traced."""
        self._sample = scope
        if span is not None:
            self.span, self.context = span, trace.set_span_in_context(span)
        elif scope.why is not None:
            self.trails, self._why = (scope,), scope.why

    def is_left_out(self, why: str, trails: Sequence[SampleScope] = ()) -> None:
        """It was begun by a lane, for no sample alone, and has no span for this reason."""
        self.trails, self._why = trails, why

    def claim(self) -> bool:
        """Whether it is the caller's to record what came of it."""
        return self._claim.acquire(blocking=False)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    def start(self) -> None:
        operation = self.operation
        if operation.span is not None:
            with faults.protected(f"the span of {operation.name}"):
                if self._is_traced():
                    self._start_span(operation.span)
        if operation.announce is not None:
            with faults.protected(f"the events of {operation.name}"):
                self._emit(operation.announce(self))
        if operation.hooks is not None:
            self._hook(f"on_{operation.hooks}_start")

    def observe(self, original: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Call the function inside the span, and close with what came of it."""
        tokens = self.enter()
        try:
            result = original(*arguments, **keywords)
        except BaseException as error:
            self.leave(tokens)
            self.close(None, error)
            raise
        self.leave(tokens)
        self.close(result)
        try:
            return result
        finally:
            del result  # see `Lane.trace`

    def enter(self) -> Tokens | None:
        """Make the call current until `leave`, and its span, in the same context."""
        if self.operation.span is None:
            return None
        with faults.protected(f"the context of {self.operation.name}"):
            attached = otel_context.attach(self.context) if self.context is not None else None
            return Tokens(attached, CALL.set(self))
        return None

    def leave(self, tokens: Tokens | None) -> None:
        if tokens is not None:
            with faults.protected(f"the context of {self.operation.name}"):
                CALL.reset(tokens.call)
                if tokens.context is not None:
                    otel_context.detach(tokens.context)

    def close(self, result: Any, error: BaseException | None = None) -> None:
        """Record what came of it: for every outcome, and once, whoever comes first."""
        claimed = self.claim()
        spending = self._spending
        if spending is not None:
            spending.count_seen()
        if not claimed:
            return
        self.forget()
        operation, ending = self.operation, Ending()
        with faults.protected(f"the end of {operation.name}"):
            ending = operation.end(self, result, error)
        if ending.notable:
            for scope in (*self.scopes, *(self.trails or ())):
                scope.notable = True
        if self.run is None or not self.run.ended:
            if operation.hooks is not None:
                self._hook(f"on_{operation.hooks}_end", result)
            said = {**self.attributes, **ending.attributes}
            for point in ending.points:
                try:
                    self.write(point, said)
                except Exception as fault:  # noqa: BLE001 - the other points are not to be lost
                    faults.suppress(fault, f"the metric {point.metric.name}")
            with faults.protected(f"the events of {operation.name}"):
                self._emit(ending.events)
        if operation.span is not None:
            with faults.protected(f"the span of {operation.name}"):
                self._end_span(operation.span, ending)

    def forget(self) -> None:
        """The samples need not end it."""
        for scope in self.scopes:
            scope.calls.pop(self, None)

    def write(self, point: Point, said: Attributes | None = None) -> None:
        """Write a value, as a part of this call, with what was said at its start or until its end."""
        attributes = {**(said or self.attributes), **point.attributes}
        self.telemetry.series.get(point.metric, attributes).write(point.value, self.span)

    def _is_traced(self) -> bool:
        """Whether there is a span: as the samples have it; without one, as their ids and the run's budget have it."""
        run = self.run
        scope = SAMPLE.get()
        scopes = self.scopes or ((scope,) if scope is not None else ())
        if scopes:
            for scope in scopes:
                if scope.span is not None:
                    scope.spans += 1
                    return True
            left_out = [scope for scope in scopes if scope.why is not None]
            if left_out:
                self.trails, self._why = left_out, left_out[0].why
            return False
        if run is not None and not run.recording:
            return False
        ids = list(filter(None, self.operation.about(*self.arguments)))
        sampler = run.sampler if run is not None else Sampler(self.telemetry.config.sampling_rate)
        if ids and not any(map(sampler.traces, ids)):
            self._why = Reason.SAMPLING.value
        elif run is not None and not run.span_budget.take(1):
            self._why = Reason.BUDGET.value
        if self._why is not None and run is not None:
            self.trails = ()
        return self._why is None

    def _start_span(self, defined: Span) -> None:
        attributes = self.attributes
        linked = self.scopes if self.operation.links_samples else ()
        links = [Link(scope.span.get_span_context()) for scope in linked if scope.span is not None]
        name, said = span_name(defined, attributes), start_attributes(defined, attributes)
        self.span = self.telemetry.spans.start(name, None, defined.kind, said, links)
        self.context = trace.set_span_in_context(self.span)
        if self.run is not None and self.span.is_recording():
            self.run.count_span()

    def _end_span(self, defined: Span, ending: Ending) -> None:
        """Without one, keep what it would say, for the samples to decide; where there are none, decide."""
        ended, spending = ending.attributes, self._spending
        if spending is not None:
            ended = {**ended, **spending.said_by(span_name(defined, self.attributes))}
        if self.span is not None:
            end_span(self.span, ended, ending.error)
            return
        if self.trails is None or self.run is None:
            return
        alone = not self.trails
        if alone and (ending.error is None or not self.run.span_budget.take(1, from_reserve=True)):
            self.run.suppress(Signal.SPAN.value, self._why or Reason.SAMPLING.value)
            return
        start = start_attributes(defined, self.attributes)
        samples = len(self.trails) if self.operation.links_samples else 0
        record = Record(defined, span_name(defined, start), start, ended, ending.error, samples)
        step = (record, self.started, self.elapsed)
        if alone:
            write_step(self.run, step, time.time_ns())
        for scope in self.trails:
            scope.add_step(step)

    @property
    def _spending(self) -> Spending | None:
        if not self.operation.spends:
            return None
        return self.spending if self._sample is None else self._sample.spending

    def _emit(self, emissions: Sequence[Emission]) -> None:
        for event, body, more, error in emissions:
            if not self.telemetry.emits(event):
                continue
            if not self._may_emit(event, more.get(a.ERROR_TYPE) or self.attributes.get(a.ERROR_TYPE)):
                continue
            attributes = {**self.attributes, **more, **(exception_attributes(error) if error is not None else {})}
            self.telemetry.records.emit(event, body, given(attributes), self.context)

    def _may_emit(self, event: Event, kind: str | None) -> bool:
        """Events of errors, as long as the run's budget for their class lasts; of those that say what spans say as
        well, the ones of samples that are traced.
        """
        if self.run is None:
            return True
        if event.default:
            return kind is None or self.run.may_emit(kind)
        if self._why is not None:
            self.run.suppress(Signal.EVENT.value, self._why)
        return self._why is None

    def _hook(self, name: str, *result: Any) -> None:
        hook = getattr(self.telemetry.config, name)
        if hook is not None:
            with faults.protected(f"the hook {name}"):
                span = self.span if self.span is not None else trace.get_current_span()
                hook(span, *self.operation.subject(*self.arguments), *result)


class Tokens(NamedTuple):
    """What `Call.leave` needs to put back what was current before."""

    context: Token[Context] | None
    call: Token[Call | None]
