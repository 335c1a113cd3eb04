"""The slow path: one call of an operation, from its span's start to the points and events at its end.

Stages, measurements and the run's own writes go the fast path, see there. Whatever goes wrong here is suppressed; the
observed function is called exactly once, and what it returns or raises reaches its caller as it is.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import TraceFlags

from ..patching import faults
from ..semconv import attributes as a
from ..semconv.attributes import ForgeLinkType
from ..semconv.attributes import ForgeTelemetryReason as Reason
from ..semconv.attributes import ForgeTelemetrySignal as Signal
from ..signals.context import get_current, with_span
from ..signals.exceptions import exception_attributes, span_event_attributes
from ..signals.metrics import Attributes
from ..signals.spans import end_span, span_name, start_attributes, without_none
from ..support.exceptions import is_a, message
from .deferred_spans import SharedSpan, SpanTemplate, export_alone
from .operation import NOTHING, LogEvent, MetricPoint, Result
from .sampling import Sampler
from .scopes import RUN, SAMPLE, RunScope, SampleScope

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext

    from ..patching.patches import Layer
    from ..semconv.definitions import Event, Span
    from ..signals.telemetry import Telemetry
    from .detected_usage import UsageAccumulator
    from .operation import Operation

_BATCH: Final = ForgeLinkType.BATCH

T = TypeVar("T")

_NONE_RESERVED: Final[Mapping[int | None, SpanContext]] = {}
_NO_EXCEPTIONS: Final[Mapping[int | None, Sequence[Attributes]]] = {}
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
    """`observe` for a coroutine function."""
    telemetry = layer.telemetry
    call = open_call(operation, telemetry, *arguments) if telemetry is not None else None
    if call is None:
        return await original(*arguments, **keywords)
    return await call.observe_async(original, *arguments, **keywords)


def open_call(operation: Operation, telemetry: Telemetry, *arguments: Any, clocks: Clocks | None = None) -> Call | None:
    """Begin a call: its span is started, but not made current. None where nothing is to be recorded.

    `clocks` are by default those of the run that the call is made in.
    """
    try:
        if not is_instrumentation_enabled():
            return None
        run = RUN.get()
        if run is not None:
            if run.ended:
                return None
            if not run.telemetry.is_closed:  # another one may have replaced it since the run began
                telemetry = run.telemetry
        attributes = {**operation.start(*arguments), **(run.identity if run is not None else NOTHING)}
        call = Call(operation, telemetry, run, arguments, attributes, clocks)
        if not call.enter_samples(operation.samples(*arguments)):
            return None
    except Exception as fault:  # noqa: BLE001 - the call must go on without us
        faults.suppress(fault, f"the start of {operation.name}")
        return None
    call.start()
    return call


class Clocks(NamedTuple):
    """Readings in seconds, of which only differences mean something, and Unix time in nanoseconds."""

    monotonic: Callable[[], float]
    wall_ns: Callable[[], int]


class Call:
    """One call of an operation, while it goes on."""

    __slots__ = (
        "_alone",
        "_exceptions",
        "_open",
        "_reserved",
        "_sample",
        "_started_ns",
        "_wall_ns",
        "arguments",
        "attributes",
        "clock",
        "context",
        "deferred_in",
        "drop_reason",
        "notes",
        "operation",
        "own",
        "run",
        "scopes",
        "span",
        "started",
        "telemetry",
        "usage",
        "waited",
    )

    def __init__(  # noqa: PLR0917 - a record
        self,
        operation: Operation,
        telemetry: Telemetry,
        run: RunScope | None,
        arguments: tuple[Any, ...],
        attributes: Attributes,
        clocks: Clocks | None = None,
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
        """Findings during the call, for `Operation.end`."""
        if clocks is None:
            clocks = Clocks(run.clock, run.wall_ns) if run is not None else Clocks(telemetry.clock, time.time_ns)
        self.clock, self._wall_ns = clocks
        self.started = self.clock()
        self._started_ns: int | None = None
        self.deferred_in: Sequence[SampleScope] | None = None
        """Without a span: the samples that keep the call as a step; empty where its span would be the run's own."""
        self.drop_reason: str | None = None
        """The reason for which there is no span, where that is ours."""
        self.usage: UsageAccumulator | None = None
        """Usage of API calls made for the batch; that of one sample is kept by the sample."""
        self.own: SpanContext | None = None
        """The ids that its span is to have; None for new ones."""
        self.waited: float | None = None
        """Seconds that the sample had waited in a queue; None if it had not."""
        self._sample: SampleScope | None = None
        """The sample that is worked on alone."""
        self._alone: bool | None = None
        """True if the span is written later, and alone; None as long as the run's budget was not asked."""
        self._reserved: Mapping[int | None, SpanContext] = _NONE_RESERVED
        """Contexts of spans that are written later, of samples of a batch by place; None: of the call itself."""
        self._exceptions: Mapping[int | None, Sequence[Attributes]] = _NO_EXCEPTIONS
        """Attributes of the exceptions that are events of spans, by the place of the span as above."""
        self._open: dict[Call, None] = {self: None}

    def enter_samples(self, scopes: Sequence[SampleScope]) -> bool:
        """Begin for these samples. False where one of them has settled, so that the call is not to be recorded."""
        self.scopes = scopes
        if scopes and not self.operation.links_samples:
            self._sample = scope = scopes[0]
            # A stage that is called inside of another one has not waited.
            if self.operation.queued and scope.inside is None and not scope.open_calls:
                self.waited = scope.waited
        for scope in scopes:
            if not scope.enter(self):
                self.claim()
                self.forget()
                return False
        return True

    @property
    def over(self) -> bool:
        """True if its end is recorded."""
        return self not in self._open

    def resume(self, scope: SampleScope, started: float, span: trace.Span | None) -> None:
        """Take a call over from the fast path, with its start and its span, or without one for an untraced sample."""
        self._sample = scope
        self.waited = scope.waited if self.operation.queued else None
        self.started = started
        if span is not None:
            self.span, self.context = span, trace.set_span_in_context(span)
        elif scope.drop_reason is not None:
            self.deferred_in, self.drop_reason = (scope,), scope.drop_reason

    def claim(self) -> bool:
        """True if the call is the caller's to end."""
        return self._open.pop(self, self) is None

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    @property
    def started_ns(self) -> int:
        """Unix time of the start, in nanoseconds."""
        if self._started_ns is None:
            if self._sample is not None:
                self._started_ns = self._sample.at(self.started)
            else:
                self._started_ns = self._wall_ns() - round(self.elapsed * 1e9)
        return self._started_ns

    def start(self) -> None:
        """Start the span, if there is one, and say that the call begins."""
        operation = self.operation
        if operation.span is not None:
            with faults.protected(f"the span of {operation.name}"):
                if self._is_traced():
                    self._start_span(operation.span)
        if operation.announce is not None:
            with faults.protected(f"the events of {operation.name}"):
                self.emit(operation.announce(self))
        if operation.hooks is not None:
            self._hook(f"on_{operation.hooks}_start")

    def observe(self, original: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Call the function inside the span, and end with its result."""
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
            del result  # see `fast_path`

    async def observe_async(self, original: Callable[..., Awaitable[T]], *arguments: Any, **keywords: Any) -> T:
        """`observe` for a coroutine function."""
        tokens = self.enter()
        try:
            result = await original(*arguments, **keywords)
        except BaseException as error:
            # A coroutine that nobody awaits any more is closed from wherever it is found: its context is gone.
            self.leave(None if is_a(error, GeneratorExit) else tokens)
            self.close(None, error)
            raise
        self.leave(tokens)
        self.close(result)
        return result

    def enter(self) -> Tokens | None:
        """Make the call current until `leave`, and its span, in the same context."""
        if self.operation.span is None:
            return None
        with faults.protected(f"the context of {self.operation.name}"):
            attached = otel_context.attach(self.context) if self.context is not None else None
            return Tokens(attached, CALL.set(self))
        return None

    def leave(self, tokens: Tokens | None) -> None:
        """Put back what was current before."""
        if tokens is not None:
            with faults.protected(f"the context of {self.operation.name}"):
                CALL.reset(tokens.call)
                if tokens.context is not None:
                    otel_context.detach(tokens.context)

    def close(self, result: Any, error: BaseException | None = None) -> None:
        """Record the end, for every outcome, and once, whoever comes first."""
        claimed = self.claim()
        usage = self._usage
        if usage is not None:
            usage.count_detected()
        if not claimed:
            return
        self.forget()
        operation, ended = self.operation, Result()
        with faults.protected(f"the end of {operation.name}"):
            ended = operation.end(self, result, error)
        if ended.tail_kept:
            for scope in (*self.scopes, *(self.deferred_in or ()), *((self._sample,) if self._sample else ())):
                scope.tail_kept = True
        if self.run is None or not self.run.ended:
            if operation.hooks is not None:
                with faults.protected(f"the result for the hook on_{operation.hooks}_end"):
                    self._hook(
                        f"on_{operation.hooks}_end", operation.hook_result(result) if result is not None else None
                    )
            attributes = {**self.attributes, **ended.attributes}
            for point in ended.points:
                try:
                    self.write(point, attributes)
                except Exception as fault:  # noqa: BLE001 - the other points are not to be lost
                    faults.suppress(fault, f"the metric {point.metric.name}")
            with faults.protected(f"the events of {operation.name}"):
                if self.telemetry.exceptions_on_spans:
                    self._keep_exceptions(ended.events)
                self.emit(ended.events, ended.duration if ended.duration is not None else self.elapsed)
        if operation.span is not None:
            with faults.protected(f"the span of {operation.name}"):
                self._end_span(operation.span, ended, result)

    def forget(self) -> None:
        """Let the samples settle without ending it."""
        for scope in self.scopes:
            scope.leave(self)

    def write(self, point: MetricPoint, attributes: Attributes | None = None) -> None:
        """Write a value, as a part of this call, with its attributes at the start or those given."""
        attributes = {**(attributes or self.attributes), **point.attributes}
        self.telemetry.series.get(point.metric, attributes).write(point.value, self.span)

    def is_suppressed(self, reason: str, scopes: Sequence[SampleScope] = ()) -> None:
        """Have no span for this reason; these samples keep it as a step."""
        self.deferred_in, self.drop_reason = scopes, reason

    def _is_traced(self) -> bool:
        """Decide whether there is a span: as the samples have it; without one, as their ids and the run's budget do."""
        run = self.run
        scope = SAMPLE.get()
        scopes = self.scopes or ((scope,) if scope is not None else ())
        if scopes:
            for scope in scopes:
                if scope.span is not None:
                    scope.spans += 1
                    return True
            dropped = [scope for scope in scopes if scope.drop_reason is not None]
            if dropped:
                self.is_suppressed(dropped[0].drop_reason or "", dropped)
            return False
        if run is not None and not run.recording:
            return False
        ids = list(filter(None, self.operation.sample_ids(*self.arguments)))
        sampler = run.sampler if run is not None else Sampler(self.telemetry.config.sampling_rate)
        if ids and not any(map(sampler.traces, ids)):
            self.drop_reason = Reason.SAMPLING.value
        elif run is not None and not run.span_budget.take(1):
            self.drop_reason = Reason.BUDGET.value
        if self.drop_reason is not None and run is not None:
            self.deferred_in = ()
        return self.drop_reason is None

    def _start_span(self, defined: Span) -> None:
        attributes, spans = self.attributes, self.telemetry.spans
        linked = self.scopes if self.operation.links_samples else ()
        links = spans.links(_BATCH, *[scope.span.get_span_context() for scope in linked if scope.span is not None])
        name, begun = span_name(defined, attributes), start_attributes(defined, attributes)
        if self.waited is not None:
            begun = {**begun, a.FORGE_STAGE_QUEUE_WAIT: self.waited}
        context = self.run.below(otel_context.get_current()) if self.run is not None else None
        self.span = spans.start(name, context, defined.kind, begun, links, self.started_ns, self.own)
        self.context = trace.set_span_in_context(self.span)
        if self.run is not None and self.span.is_recording():
            self.run.count_span()
        if self.over and self.span.is_recording():  # a sample has settled meanwhile, and may not have seen the span
            end_span(self.span, {}, None, self.started_ns)

    def _end_span(self, defined: Span, ended: Result, result: Any) -> None:
        """End the span; without one, let the samples keep it as a step, or decide where there are none."""
        attributes, usage = ended.attributes, self._usage
        if usage is not None:
            attributes = {**attributes, **usage.attributes_of(span_name(defined, self.attributes))}
        duration = self.elapsed
        begun = start_attributes(defined, self.attributes)
        failure = message(ended.error) if ended.error is not None else None
        name, exceptions = span_name(defined, self.attributes), self._exceptions.get(None, ())
        template = SpanTemplate(defined, name, begun, attributes, failure, exceptions=exceptions)
        template.own = self._reserved.get(None)
        if self.operation.links_samples:
            shared = self.end_shared(template, duration)
            if shared is not None and self.operation.each is not None and result is not None:
                self.end_parts(self._parts(self.operation.each, result, shared))
        elif self.span is not None:
            end_span(self.span, template.ended, failure, self.started_ns + round(duration * 1e9), exceptions)
        elif self.deferred_in:
            for scope in self.deferred_in:
                scope.add_step(template, self.started, duration, self.waited)
        elif self.deferred_in is not None and self.run is not None:
            if ended.error is not None and self._is_written_alone():
                ends = self.started_ns + round(duration * 1e9)
                export_alone(self.run, template, self.run.below(otel_context.get_current()), self.started_ns, ends)
            else:
                self.run.suppress(Signal.SPAN.value, self.drop_reason or Reason.SAMPLING.value)

    def _is_written_alone(self) -> bool:
        """Return True if the run's budget has room for the span of a failed call that belongs to no sample."""
        if self._alone is None:
            self._alone = self.run is not None and self.run.span_budget.take(1, from_reserve=True)
        return self._alone

    def end_shared(self, template: SpanTemplate, duration: float) -> SharedSpan | None:
        """End the span of a batch, or let its samples keep it as a step. None where there is neither."""
        if self.span is not None:
            ends = self.started_ns + round(duration * 1e9)
            end_span(self.span, template.ended, template.failure, ends, template.exceptions)
            return SharedSpan(len(self.scopes), self.span.get_span_context())
        if not self.deferred_in:
            return None
        shared = SharedSpan(len(self.deferred_in), own=template.own)
        template = shared.defer(template)
        for scope in self.deferred_in:
            scope.add_step(template, self.started, duration)
        return shared

    def _parts(self, each: Operation, batch: Any, shared: SharedSpan) -> Iterator[SpanTemplate]:
        """The spans of the samples of a batch, in order, linked to that of the batch."""
        assert each.span is not None
        name, begun = span_name(each.span, self.attributes), start_attributes(each.span, self.attributes)
        extra = self.operation.each_attributes(self, batch)
        known: dict[Any, SpanTemplate] = {}
        for place, result in enumerate(self.operation.each_result(batch)):
            key = each.cache_key(result)
            template = known.get(key) if result.error is None else None
            if template is None:
                described = Call(each, self.telemetry, self.run, self.arguments, self.attributes)
                ended = each.end(described, result, None)
                failure = message(ended.error) if ended.error is not None else None
                attributes = {**ended.attributes, **extra}
                exceptions = self._exceptions.get(place, ())
                template = known[key] = SpanTemplate(each.span, name, begun, attributes, failure, shared, exceptions)
                template.own = self._reserved.get(place)
            yield template

    def end_parts(self, parts: Iterable[SpanTemplate]) -> None:
        """Give each sample of a batch a span of its own, or a step."""
        run, spans, duration = self.run, self.telemetry.spans, self.elapsed
        queued = self.operation.each is not None and self.operation.each.queued
        lasted = round(duration * 1e9)
        links: Sequence[Link] | None = None
        last: SpanTemplate | None = None
        common: dict[str, Any] = {}
        for scope, part in zip(self.scopes, parts, strict=False):
            if scope.span is not None and run is not None:
                if links is None:
                    context = part.shared.context if part.shared is not None else None
                    links = spans.links(_BATCH, context) if context is not None and run.recording else []
                if part is not last:  # most samples of a batch have the same one
                    last, common = part, {**part.attributes, a.FORGE_SAMPLE_ID: None, **part.ended}
                    light = spans.light.current() if part.is_plain else None
                attributes = common.copy()
                attributes[a.FORGE_SAMPLE_ID] = scope.exported_id
                if queued and scope.waited is not None:
                    attributes[a.FORGE_STAGE_QUEUE_WAIT] = scope.waited
                began, parent = scope.at(self.started), scope.span.get_span_context()
                kind, own, errors = part.defined.kind, part.own, part.exceptions
                if spans.write(
                    *(part.name, parent, kind, attributes, links, part.failure, began, began + lasted, own, errors),
                    light=light,
                ):
                    scope.spans += 1
                    run.count_span()
            elif scope.drop_reason is not None:
                scope.add_step(part, self.started, duration, scope.waited if queued else None)

    @property
    def _usage(self) -> UsageAccumulator | None:
        if not self.operation.spends:
            return None
        return self.usage if self._sample is None else self._sample.usage

    def emit(self, emitted: Sequence[LogEvent], duration: float = 0.0) -> None:
        """Emit events as a part of this call, if they are enabled and the run's budget allows it."""
        for event, body, extra, error, place in emitted:
            if not self.telemetry.emits(event, error):
                continue
            if not self._may_emit(event, extra.get(a.ERROR_TYPE) or self.attributes.get(a.ERROR_TYPE)):
                continue
            attributes = {**self.attributes, **extra, **(exception_attributes(error) if error is not None else {})}
            if event.timed:
                attributes[a.FORGE_DURATION] = duration
            self.telemetry.records.emit(event, body, without_none(attributes), self._context_of(place))

    def _keep_exceptions(self, emitted: Sequence[LogEvent]) -> None:
        """Keep the exceptions of events as events of spans, each once a span: of the call's or, in a batch, of that of
        the sample at the event's place.
        """
        found: dict[int | None, dict[int, BaseException]] = {}
        for *_, error, place in emitted:
            if error is not None:
                has_span = place is None or len(self.scopes) == len(self.arguments[-1])  # else some are of no run
                found.setdefault(place if has_span else None, {})[id(error)] = error
        self._exceptions = {place: tuple(map(span_event_attributes, each.values())) for place, each in found.items()}

    def _context_of(self, place: int | None) -> Context | None:
        """Return the context of an event: with the span of the call or, in a batch, that of the sample at this place.

        The ids of spans that are written later are drawn now.
        """
        parent, flags = self._parent_of(place)
        if parent is None:
            current = trace.get_current_span() if self.context is None else None
            if isinstance(current, SampleScope) and current.drop_reason is not None:
                return with_span(trace.NonRecordingSpan(current.late_context()), get_current())
            return self.context
        own = self._reserved.get(place)
        if own is None:
            own = self.telemetry.spans.reserve(parent, flags)
            self._reserved = {**self._reserved, place: own}
        return with_span(trace.NonRecordingSpan(own), get_current())

    def _parent_of(self, place: int | None) -> tuple[SpanContext | None, TraceFlags]:
        """Return the parent of a span that is written later, and its flags. None where the span is current, or there
        will be none.
        """
        unset = TraceFlags.get_default()
        if place is None:
            if self.span is not None or self.deferred_in is None or self.run is None:
                return None, unset
            if not self.deferred_in:  # an event of a failure, so the span is written if there is room
                if not self._is_written_alone():
                    return None, unset
                above = trace.get_current_span(self.run.below(get_current())).get_span_context()
                return above, above.trace_flags
            if self.operation.links_samples:  # it is exported with any of them
                batch = self.run.span_context
                granted = [scope.is_granted() for scope in self.deferred_in]
                return batch, batch.trace_flags if batch is not None and any(granted) else unset
            return self.deferred_in[0].get_span_context(), self.deferred_in[0].late_flags()
        if len(self.scopes) != len(self.arguments[-1]):  # some of them are of no run
            return None, unset
        scope = self.scopes[place]
        if scope.span is not None:
            parent = scope.span.get_span_context()
            return parent, parent.trace_flags
        if scope.drop_reason is not None:
            return scope.get_span_context(), scope.late_flags()
        return scope.refused, unset

    def _may_emit(self, event: Event, kind: str | None) -> bool:
        """True for events of errors, as long as the run's budget for their class lasts; of those that say what spans
        say as well, for the ones of samples that are traced.
        """
        if self.run is None:
            return True
        if event.default:
            return kind is None or self.run.may_emit(kind)
        if self.drop_reason is not None:
            self.run.suppress(Signal.EVENT.value, self.drop_reason)
        return self.drop_reason is None

    def _hook(self, name: str, *result: Any) -> None:
        hook = getattr(self.telemetry.config, name)
        if hook is not None:
            with faults.protected(f"the hook {name}"):
                span = self.span if self.span is not None else trace.get_current_span()
                hook(span, *self.operation.hook_arguments(*self.arguments), *result)


class Tokens(NamedTuple):
    """Tokens with which `Call.leave` restores the previous context."""

    context: Token[Context] | None
    call: Token[Call | None]
