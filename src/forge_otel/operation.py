"""The engine: everything that is observed is a call of an `Operation`.

An operation is an inert description of one kind of call; the instrumentors consist of little else. What it describes is
carried out here, and nowhere else are spans, metrics and events touched. Whatever goes wrong here is swallowed; the
observed function is called exactly once, and what it returns or raises reaches its caller as it is.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Link, Status, StatusCode

from . import guard
from .scope import RUN, RunScope, SampleScope
from .semconv import attributes as a
from .series import Attributes

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from .patching import Layer
    from .semconv.definitions import Event, Metric, Span
    from .telemetry import Telemetry

T = TypeVar("T")

NOTHING: Final[Attributes] = MappingProxyType({})

CALL: ContextVar[Call | None] = ContextVar("forge_otel_call", default=None)
"""The innermost operation with a span that is going on here."""


class Point(NamedTuple):
    """A value for a metric; its attributes come on top of those of the call and of its ending."""

    metric: Metric
    value: float = 1
    attributes: Attributes = NOTHING


class Emission(NamedTuple):
    """An event; its attributes come on top of those that the call started with."""

    event: Event
    body: str
    attributes: Attributes = NOTHING
    error: BaseException | None = None
    """What `exception.*` describes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What came of a call, in the words of the vocabulary."""

    attributes: Attributes = field(default_factory=dict)
    """For the span, and for those metrics that may carry them."""
    error: BaseException | None = None
    """Why the span's status is an error."""
    points: Sequence[Point] = ()
    events: Sequence[Emission] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One kind of call: how to read, from its arguments and its result, what the vocabulary says about it."""

    name: str
    """For messages about faults."""
    end: Callable[[Call, Any, BaseException | None], Ending]
    """Reads the result, or the error that was raised instead; `call.arguments` are there too."""
    start: Callable[..., Attributes] = lambda *_: NOTHING
    """Reads the arguments: all that is known at the start, of which span and metrics each take what they may carry."""
    span: Span | None = None
    """Without one, only metrics and events are written."""
    announce: Callable[[Call], Sequence[Emission]] | None = None
    """The events at the start."""
    samples: Callable[..., Sequence[SampleScope]] = lambda *_: ()
    """The samples that the call works on. If one of them settles before the call comes back, the call is over."""
    links_samples: bool = False
    """Whether the span links to the spans of the samples, as that of a batch does."""
    hooks: str | None = None
    """The user's hooks are the `on_…_start` and `on_…_end` of this name."""
    subject: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments[1:]
    """What hooks are given between the span and the result."""

    def call(self, layer: Layer, original: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Call a function, and record it."""
        telemetry = layer.telemetry
        call = self.open(telemetry, *arguments) if telemetry is not None else None
        if call is None:
            return original(*arguments, **keywords)
        return call.observe(original, *arguments, **keywords)

    async def call_async(
        self, layer: Layer, original: Callable[..., Awaitable[T]], *arguments: Any, **keywords: Any
    ) -> T:
        """The same for a coroutine function."""
        telemetry = layer.telemetry
        call = self.open(telemetry, *arguments) if telemetry is not None else None
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

    def open(
        self, telemetry: Telemetry, *arguments: Any, parent: Context | None = None, links: Sequence[Link] = ()
    ) -> Call | None:
        """Begin: the span is started, but not made current. None where nothing is to be recorded."""
        try:
            if not is_instrumentation_enabled():
                return None
            run = RUN.get()
            if run is not None and run.ended:
                return None
            call = Call(self, telemetry, run, arguments)
            call.scopes = self.samples(*arguments)
            for scope in call.scopes:
                scope.open[call] = None
            # In this order: either the sample's end finds the call, or the call sees that the sample has ended.
            if any(scope.settled for scope in call.scopes):
                call.drop()
                return None
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            guard.swallow(fault, f"the start of {self.name}")
            return None
        call.start(parent, links)
        return call


class Call:
    """One call of an operation, while it goes on."""

    __slots__ = (
        "_claim",
        "_started",
        "arguments",
        "attributes",
        "clock",
        "context",
        "notes",
        "operation",
        "run",
        "scopes",
        "span",
        "telemetry",
    )

    def __init__(
        self, operation: Operation, telemetry: Telemetry, run: RunScope | None, arguments: tuple[Any, ...]
    ) -> None:
        self.operation = operation
        self.telemetry = telemetry
        self.run = run
        self.arguments = arguments
        self.attributes: Attributes = {**operation.start(*arguments), **(run.identity if run else {})}
        self.scopes: Sequence[SampleScope] = ()
        self.span: trace.Span | None = None
        self.context: Context | None = None
        """With the span current; None without a span, which means the context that is current anyway."""
        self.notes: list[Any] = []
        """What is found out on the way, for `Operation.end`."""
        self.clock = run.clock if run else telemetry.clock
        self._started = self.clock()
        self._claim = threading.Lock()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self._started

    def start(self, parent: Context | None, links: Sequence[Link]) -> None:
        operation = self.operation
        with guard.protected(f"the span of {operation.name}"):
            self._start_span(parent, links)
        if operation.announce is not None:
            with guard.protected(f"the events of {operation.name}"):
                self._emit(operation.announce(self))
        if operation.hooks is not None:
            hook = f"on_{operation.hooks}_start"
            with guard.protected(f"the hook {hook}"):
                self._hook(hook)

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
        return result

    def make_current(self) -> None:
        """Make the span current in this context and all copies of it, for good."""
        CALL.set(None)
        if self.context is not None:
            otel_context.attach(self.context)

    def enter(self) -> Tokens | None:
        """Make the span current until `leave`, in the same context."""
        if self.context is None:
            return None
        with guard.protected(f"the context of {self.operation.name}"):
            return Tokens(otel_context.attach(self.context), CALL.set(self))
        return None

    def leave(self, tokens: Tokens | None) -> None:
        if tokens is not None:
            with guard.protected(f"the context of {self.operation.name}"):
                CALL.reset(tokens.call)
                otel_context.detach(tokens.context)

    def close(self, result: Any, error: BaseException | None = None) -> None:
        """Record what came of it: for every outcome, and once, whoever comes first."""
        if not self._claim.acquire(blocking=False):
            return
        for scope in self.scopes:
            scope.open.pop(self, None)
        operation, ending = self.operation, Ending()
        with guard.protected(f"the end of {operation.name}"):
            ending = operation.end(self, result, error)
        if self.run is None or not self.run.ended:
            if operation.hooks is not None:
                hook = f"on_{operation.hooks}_end"
                with guard.protected(f"the hook {hook}"):
                    self._hook(hook, result)
            for point in ending.points:
                with guard.protected(f"the metric {point.metric.name}"):
                    self.write(point, ending.attributes)
            with guard.protected(f"the events of {operation.name}"):
                self._emit(ending.events)
        if self.span is not None:
            with guard.protected(f"the span of {operation.name}"):
                self._end_span(self.span, ending)

    def drop(self) -> None:
        """It is not to be recorded after all."""
        for scope in self.scopes:
            scope.open.pop(self, None)

    def write(self, point: Point, ending: Attributes = NOTHING) -> None:
        """Write a value, as a part of this call."""
        attributes = {**self.attributes, **ending, **point.attributes}
        self.telemetry.series.get(point.metric, attributes).write(point.value, self.context)

    def _start_span(self, parent: Context | None, links: Sequence[Link]) -> None:
        defined = self.operation.span
        if defined is None:
            return
        attributes = self.attributes
        if self.operation.links_samples:
            spans = [scope.call.span for scope in self.scopes]
            links = [Link(span.get_span_context()) for span in spans if span is not None]
        self.span = self.telemetry.tracer.start_span(
            " ".join((defined.type, *(str(attributes[name]) for name in defined.name_attributes))),
            context=parent,
            kind=defined.kind,
            attributes={n: attributes[n] for n in defined.start_attributes if attributes.get(n) is not None},
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        )
        self.context = trace.set_span_in_context(self.span, parent)
        if self.run is not None and self.span.is_recording():
            self.run.count_span()

    def _end_span(self, span: trace.Span, ending: Ending) -> None:
        try:
            span.set_attributes({name: value for name, value in ending.attributes.items() if value is not None})
            if ending.error is not None:
                span.set_status(Status(StatusCode.ERROR, message(ending.error)))
        finally:
            span.end()

    def _emit(self, emissions: Sequence[Emission]) -> None:
        for event, body, more, error in emissions:
            if not self.telemetry.emits(event):
                continue
            attributes = {**self.attributes, **more, **(exception_attributes(error) if error is not None else {})}
            self.telemetry.logger.emit(
                timestamp=time.time_ns(),
                context=self.context,
                severity_number=event.severity,
                severity_text=event.severity.name,
                body=body,
                attributes={name: value for name, value in attributes.items() if value is not None},
                event_name=event.name,
            )

    def _hook(self, name: str, *result: Any) -> None:
        hook = getattr(self.telemetry.config, name)
        if hook is not None and self.span is not None:
            hook(self.span, *self.operation.subject(*self.arguments), *result)


class Tokens(NamedTuple):
    """What `Call.leave` needs to put back what was current before."""

    context: Token[Context]
    call: Token[Call | None]


def exception_attributes(error: BaseException) -> dict[str, str]:
    """What an event says about an exception."""
    return {
        a.EXCEPTION_TYPE: qualified_name(type(error)),
        a.EXCEPTION_MESSAGE: message(error),
        a.EXCEPTION_STACKTRACE: stacktrace(error),
    }


def message(error: BaseException) -> str:
    """What an exception says; where its `__str__` fails, what Python prints instead."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - somebody else's code
        return f"<exception str() failed: {qualified_name(type(error))}>"


def stacktrace(error: BaseException) -> str:
    """The stack trace as Python prints it, but for the marks below the lines.

    To place those it parses each line, which takes long, and which CPython before 3.13 cannot do on several threads at
    once: a stage that parses Python would fail because of us.
    """
    formatted = traceback.TracebackException.from_exception(error)
    pending, seen = [formatted], set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        for frame in part.stack:
            frame.colno = frame.end_colno = None
        pending += [p for p in (part.__cause__, part.__context__, *(part.exceptions or ())) if p is not None]
    return "".join(formatted.format())


def qualified_name(kind: type) -> str:
    """`json.decoder.JSONDecodeError`; built-in classes stand without their module."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
