"""The fast path: an operation compiled for one subject of one run, for what is called for every sample.

All is compiled that can be known beforehand: names, attributes, instruments, and the results that calls come to again
and again, each since the operation has first described it. A call leaves a few numbers behind, and a light span where
its sample is traced. What ends in another way is described by the operation like any other call.

Calls of stages and measurements and storage writes have no other wrappers. The wrappers differ only in `await` and in
their arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, TraceFlags

from ..patching import faults
from ..semconv import attributes as a
from ..semconv.attributes import ForgeTelemetryReason as Reason
from ..semconv.attributes import ForgeTelemetrySignal as Signal
from ..semconv.definitions import Instrument
from ..signals.context import SPAN_KEY, attach, detach, get_current, with_span
from ..signals.exceptions import exception_attributes, span_event_attributes
from ..signals.sdk import PLAIN
from ..signals.sdk.spans import end_span
from ..signals.spans import span_name, start_attributes, without_none
from ..support.exceptions import is_a, message
from .call import Call, observe, observe_async
from .deferred_spans import SharedSpan, SpanTemplate
from .scopes import RUN, SAMPLE, add_batch

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from ..patching.patches import Function, Layer
    from ..semconv.definitions import Event
    from ..signals.metrics import Attributes, BoundInstruments, Series
    from .operation import Operation
    from .scopes import RunScope, SampleScope

_MOST_CACHED: Final = 64
"""Results that a path knows; there may be any number of reasons to skip a sample."""
_SAMPLING: Final = Reason.SAMPLING.value
_SPAN: Final = Signal.SPAN.value


class CachedResult:
    """A result that calls come to again and again, compiled: all of its telemetry but times and error."""

    __slots__ = ("durations", "events", "instruments", "template")

    def __init__(
        self, template: SpanTemplate, instruments: BoundInstruments, events: Sequence[tuple[Event, str, Attributes]]
    ) -> None:
        self.template = template
        self.instruments = instruments
        self.durations = instruments.pending
        self.events = events
        """Each with its body and its attributes."""


Opened = float | tuple[float, "Span", "Context", "Token[Context]"] | Call
"""An open call: the reading of the run's clock at its start; where it has a span, with what is current in it. (A plain
tuple, which is made in a tenth of the time of a named one.) A batch is a call of all of its samples."""


class FastPath:
    """An operation compiled for one subject of one run."""

    __slots__ = (
        "_arguments",
        "_cached",
        "_key",
        "_whole",
        "attributes",
        "begun",
        "each",
        "ended_attributes",
        "is_plain",
        "kind",
        "name",
        "operation",
        "run",
        "series",
        "usual",
    )

    def __init__(
        self, run: RunScope, operation: Operation, start: Attributes, arguments: tuple[Any, ...], usual: Any
    ) -> None:
        """Compile an operation; `usual` is the result of a typical call, with all points that one may have, and
        `arguments` are those of that call, as far as the operation looks at them.
        """
        assert operation.span is not None
        self.run = run
        self.operation = operation
        self._arguments = arguments
        self.attributes: Attributes = {**start, **run.identity}
        self.name = span_name(operation.span, self.attributes)
        self.kind = operation.span.kind
        self.begun = start_attributes(operation.span, self.attributes)
        self.is_plain = PLAIN.issuperset(map(type, self.begun.values()))
        self._key = operation.cache_key
        self._cached: dict[Hashable, CachedResult] = {}
        self.series: Sequence[Series] = ()
        """Series of the values of a usual batch or write."""
        self.ended_attributes: Attributes = {}
        """Attributes at the end of a usual batch."""
        self._whole: tuple[Attributes, SpanTemplate] | None = None
        """Attributes at the start of the last untraced batch, and the template of its span."""
        self.each: FastPath | None = None
        """Path of `operation.each`, of which each sample of a batch has a span."""
        self.usual: Any = None
        """The usual result of a call on one sample, compiled."""
        if operation.values is not None:
            described = operation.end(self._call(), usual, None)
            attributes = {**self.attributes, **described.attributes}
            self.ended_attributes = without_none(described.attributes)
            self.series = [
                run.telemetry.series.get(point.metric, {**attributes, **point.attributes}) for point in described.points
            ]
            if operation.each is not None:
                self.each = FastPath(run, operation.each, start, arguments, operation.each_result(usual)[0])
            return
        self.usual = self._compile(usual)
        self._cached[self._key(usual)] = self.usual

    # Calls on one sample.

    def begin(self, scope: SampleScope, started: float) -> Opened | None:
        """Begin a call on a traced sample, with its span made current. None where the sample has settled.

        Returns the reading at its start where it has no span after all.
        """
        if scope.settled:
            return None
        opened = self._start_span(scope, started)
        if scope.enter_path(self, opened):
            return opened
        self.leave(opened)
        if type(opened) is tuple:  # it has started, so it ends
            with faults.protected(f"the span of {self.operation.name}"):
                end_span(opened[1], {}, None, scope.at(started))
        return None

    def leave(self, opened: Opened) -> None:
        """Put back what was current before the call."""
        if type(opened) is tuple:
            try:
                detach(opened[3])
            except ValueError as fault:  # the user's code has left it current in another context
                faults.suppress(fault, f"the context of {self.operation.name}")

    def ended_as_usual(self, scope: SampleScope, opened: Any, duration: float) -> None:
        """Record a call on a traced sample that has come back with the usual result, and used no API."""
        if not scope.leave_path():
            return
        started, span = opened[0], opened[1]
        usual: CachedResult = self.usual
        usual.instruments.traced.add(duration, span.get_span_context())
        ended, lasted, kind = usual.template.ended, round(duration * 1e9), type(span)
        is_light = self.is_plain and getattr(kind, "is_light", False)
        if not (is_light and kind.end_light(span, ended, None, span._start_time + lasted)):
            end_span(span, ended, None, scope.at(started) + lasted)

    def ended(self, scope: SampleScope, opened: Opened, result: Any) -> None:
        """Record a call that has come back."""
        span: Any = None
        context: Context | None = None
        if type(opened) is tuple:
            started, span, context, _ = opened
        else:
            started = opened  # type: ignore[assignment]  # the other one of two
        if scope.usage is not None:
            scope.usage.count_detected()
        if not scope.leave_path():
            return
        cached = self._lookup(result)
        if cached is None:
            self._describe(scope, started, span, result, None)
            return
        duration, error = result.duration, result.error
        failure, exceptions = (None, ()) if error is None else self._failure(error)
        if span is None:
            if scope.drop_reason is not None:
                template = cached.template
                if failure is not None:
                    template = template.varied(failure=failure, shared=None, exceptions=exceptions)
                    context = self._reserve(scope, template) if cached.events else None
                scope.add_step(template, started, duration, scope.waited if self.operation.queued else None)
            cached.instruments.append(duration)
        else:
            cached.instruments.traced.add(duration, span.get_span_context())
        if cached.events:
            self._emit(scope, context, cached, duration, error)
        if span is not None:
            ended, plain = cached.template.ended, cached.template.is_plain
            if scope.usage is not None:
                ended = {**ended, **without_none(scope.usage.attributes_of(self.name))}
                plain = False
            ends = scope.at(started) + round(duration * 1e9)
            end_span(span, ended, failure, ends, exceptions, plain=plain)

    def _reserve(self, scope: SampleScope, template: SpanTemplate) -> Context:
        """Draw the ids of a span that is written later. Returns the context of its events."""
        template.own = self.run.telemetry.spans.reserve(scope.get_span_context(), scope.late_flags())
        return with_span(NonRecordingSpan(template.own), get_current())

    def _failure(self, error: BaseException) -> tuple[str, Sequence[Attributes]]:
        """Return the message of an error, and what the span has of it as events."""
        return message(error), (span_event_attributes(error),) if self.run.telemetry.exceptions_on_spans else ()

    def raised(self, scope: SampleScope, opened: Opened, error: BaseException) -> None:
        """Record a call that has raised."""
        if scope.usage is not None:
            scope.usage.count_detected()
        if scope.leave_path():
            self.abandon(scope, opened, error)

    def abandon(self, scope: SampleScope, opened: Opened, error: BaseException) -> None:
        """Record a call without a result: it raised, or its sample settles before it comes back."""
        with faults.protected(f"the end of {self.operation.name}"):
            if self.operation.values is not None:
                if isinstance(opened, Call):  # else it has come back in this moment
                    opened.close(None, error)
            elif type(opened) is tuple:
                self._describe(scope, opened[0], opened[1], None, error)
            else:
                self._describe(scope, opened, None, None, error)  # type: ignore[arg-type]  # the other one of two

    def _start_span(self, scope: SampleScope, started: float) -> Opened:
        """Start the span of a call, and make it current. Returns the reading alone where that fails."""
        try:
            around, spans = get_current(), self.run.telemetry.spans
            attributes = {**self.begun, a.FORGE_SAMPLE_ID: scope.exported_id}
            if self.operation.queued and scope.waited is not None:
                attributes[a.FORGE_STAGE_QUEUE_WAIT] = scope.waited
            above: Any = around.get(SPAN_KEY, INVALID_SPAN)
            light, parent = spans.light.current(), above.get_span_context()
            usual = above is scope.span and self.is_plain and parent[3] & TraceFlags.SAMPLED
            if light is not None and usual:
                span: Any = light.begin(self.name, light.child_of(parent), parent, attributes, scope.at(started))
            else:
                span = spans.start(self.name, around, self.kind, attributes, (), scope.at(started))
            if span.is_recording():
                scope.spans += 1
                self.run.count_span()
            context = with_span(span, around)
            return started, span, context, attach(context)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, f"the span of {self.operation.name}")
            return started

    def knows(self, result: Any) -> bool:
        """Return True if the result is one that calls come to again and again."""
        return self._lookup(result) is not None

    def _lookup(self, result: Any) -> CachedResult | None:
        key = self._key(result)
        cached = self._cached.get(key)
        if cached is None and key is not None and len(self._cached) < _MOST_CACHED:
            cached = self._cached.setdefault(key, self._compile(result))
        return cached

    def _compile(self, result: Any) -> CachedResult:
        """Have the operation describe a result, and keep what will be the same with the next one of its key."""
        operation, run = self.operation, self.run
        assert operation.span is not None
        described = operation.end(self._call(), result, None)
        common = {**self.attributes, **described.attributes}
        durations: list[Series] = []
        counts: list[Series] = []
        totals: list[Series] = []
        for metric, _, attributes in described.points:
            series = run.telemetry.series.get(metric, {**common, **attributes})
            if metric.instrument is Instrument.HISTOGRAM:
                durations.append(series)
            else:
                (totals if metric.unit == "s" else counts).append(series)
        return CachedResult(
            SpanTemplate(operation.span, self.name, self.begun, described.attributes),
            run.bind(durations, counts, totals),
            [
                (event, body, without_none({**self.attributes, **attributes}))
                for event, body, attributes, error, _ in described.events
                if run.telemetry.emits(event, error)
            ],
        )

    def _call(self, *arguments: Any) -> Call:
        """A call on the slow path, for the operation to describe."""
        return Call(self.operation, self.run.telemetry, self.run, arguments or self._arguments, self.attributes)

    def _describe(
        self, scope: SampleScope, started: float, span: Span | None, result: Any, error: BaseException | None
    ) -> None:
        """Record a call with a result that is not cached, by the slow path."""
        call = self._call()
        call.attributes = {**self.attributes, a.FORGE_SAMPLE_ID: scope.sample_id}
        call.notes, scope.notes = scope.notes, ()
        call.resume(scope, started, span)
        call.close(result, error)

    def _emit(
        self,
        scope: SampleScope,
        context: Context | None,
        cached: CachedResult,
        duration: float,
        error: BaseException | None,
    ) -> None:
        try:
            for event, body, attributes in cached.events:
                if a.ERROR_TYPE not in attributes or self.run.may_emit(attributes[a.ERROR_TYPE]):
                    full = {**attributes, a.FORGE_SAMPLE_ID: scope.sample_id}
                    if event.timed:
                        full[a.FORGE_DURATION] = duration
                    if error is not None:
                        full.update(exception_attributes(error))
                    self.run.telemetry.records.emit(event, body, full, context)
        except Exception as fault:  # noqa: BLE001 - the span is to be ended
            faults.suppress(fault, f"the events of {self.operation.name}")

    # Batches and writes.

    def begin_together(self, *arguments: Any) -> Call | None:
        """Begin a call on several samples; None where it has to go the slow path."""
        try:
            return self._begin_together(*arguments) if is_instrumentation_enabled() else None
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, f"the start of {self.operation.name}")
            return None

    def _begin_together(self, *arguments: Any) -> Call | None:
        run, operation = self.run, self.operation
        scopes = operation.samples(*arguments)
        if operation.links_samples:
            if not scopes or len(scopes) != len(arguments[-1]):
                return None  # some of them are of no run
        elif SAMPLE.get() is not None or not run.sampled_ids.isdisjoint(operation.sample_ids(*arguments)):
            return None  # a write of traced samples has a span
        call = self._call(*arguments)
        if operation.links_samples:
            call.attributes = {**self.attributes, **operation.start(*arguments), **run.identity}
            call.scopes = scopes
            for scope in scopes:
                if scope.inside is not None or not scope.enter_path(self, call):
                    call.claim()
                    call.forget()
                    return None
            call.start()
        elif run.recording:
            call.is_suppressed(_SAMPLING)
        return call

    def ended_together(self, call: Call, result: Any, is_usual: Callable[[Any], bool]) -> None:
        """Record a batch or a write that has come back."""
        try:
            if call.usage is not None or call.notes or not is_usual(result):
                call.close(result)
            elif call.claim():
                call.forget()
                if not self.run.ended:
                    assert self.operation.values is not None
                    self._write_values(self.operation.values(result, call.elapsed), call.span)
                    self._end_spans(call)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, f"the end of {self.operation.name}")

    def _end_spans(self, call: Call) -> None:
        """End the span of a batch, and give its samples theirs; count the span of a write, which has none."""
        assert self.operation.span is not None
        if not self.operation.links_samples:
            if call.deferred_in is not None:
                self.run.suppress(_SPAN, call.drop_reason or _SAMPLING)
            return
        if call.span is None:
            if call.deferred_in:
                self._defer_together(call.deferred_in, call.attributes, call.started, call.elapsed)
            return
        shared = call.end_shared(SpanTemplate(self.operation.span, self.name, {}, self.ended_attributes), call.elapsed)
        if shared is not None and self.each is not None:
            part = self.each.usual.template.varied(failure=None, shared=shared)
            call.end_parts(part for _ in call.scopes)

    def arrived_together(
        self, scopes: Sequence[SampleScope], attributes: Attributes, started: float, result: Any
    ) -> None:
        """Record a batch of untraced samples that came to its usual result elsewhere, with its attributes there."""
        assert self.operation.values is not None
        self._write_values(self.operation.values(result, result.duration), None)
        deferred = [scope for scope in scopes if scope.drop_reason is not None]
        if deferred:
            self._defer_together(deferred, attributes, started, result.duration)

    def _write_values(self, values: Sequence[float | None], span: Span | None) -> None:
        for series, value in zip(self.series, values, strict=True):
            if value is not None:
                series.write(value, span)

    def _defer_together(
        self, scopes: Sequence[SampleScope], attributes: Attributes, started: float, duration: float
    ) -> None:
        """Let untraced samples keep the span of their batch, and their own, as steps."""
        assert self.operation.span is not None
        known = self._whole
        if known is None or known[0] != attributes:  # most batches have the same size
            begun = start_attributes(self.operation.span, attributes)
            known = attributes, SpanTemplate(self.operation.span, self.name, begun, self.ended_attributes)
            self._whole = known
        shared = SharedSpan(len(scopes))
        whole = shared.defer(known[1])
        if self.each is None:
            for scope in scopes:
                scope.add_step(whole, started, duration)
        else:
            part = self.each.usual.template.varied(failure=None, shared=shared)
            add_batch(scopes, whole, part, started, duration, queued=self.each.operation.queued)


def observed(operation: Operation, usual: Callable[[], Any]) -> Callable[[Function, Layer], Function]:
    """A patch that observes a function as the operation describes: on the fast path, where a run has one for it.

    `usual` is called when the function is patched. Of a call on one sample it returns the outcome that most calls come
    to, at the first attempt: that of the result of which runs compile a path. Of a batch or a write it returns a
    predicate for results whose points are the operation's `values`.
    """

    def patch(original: Function, layer: Layer) -> Function:
        together, awaited = operation.values is not None, inspect.iscoroutinefunction(original)
        if together:
            wrapper: Any = (_await_batch if awaited else _batch)(original, layer, operation, usual())
        else:
            wrapper = (_await if awaited else _call)(original, layer, operation, usual())
            _name_like(original, wrapper)
        wrapper.__signature__ = inspect.signature(original)
        return wrapper  # type: ignore[no-any-return]  # it is one

    return patch


# Local variables are found faster, so each wrapper has its own for all that it needs. A result is deleted when it has
# been returned, or an error in it, whose traceback leads to the frame, would keep itself alive.


def _call(original: Function, layer: Layer, operation: Operation, usual: Any) -> Function:
    sample_of = SAMPLE.get
    tried, timed = operation.has_attempts, "started" in inspect.signature(original).parameters
    queued = operation.queued

    def call(self: Any, subject: Any, sample: Any, started: float | None = None) -> Any:  # noqa: PLR0912 - for speed
        scope: Any = sample_of()
        try:
            path = scope.paths[id(subject)]
        except (AttributeError, KeyError):  # there is no sample, or its run has no path
            path = None
        if path is None or scope.inside is not None:
            given = _given(started) if timed or started is None else _refuse(original)
            return observe(operation, layer, original, self, subject, sample, **given)
        opened = begun = scope.clock() if started is None else started if timed else _refuse(original)
        if scope.span is None:  # `scope.enter_path` written out
            scope.inside, scope.opened = path, begun
            if scope.settled and scope.leave_path():
                opened = None
        else:
            opened = path.begin(scope, begun)
        if opened is None:
            return original(self, subject, sample, *_more(started))
        try:
            result = original(self, subject, sample, begun) if timed else original(self, subject, sample)
        except BaseException as error:
            path.leave(opened)
            path.raised(scope, opened, error)
            raise
        try:
            if result.outcome is not usual or scope.usage is not None or (tried and result.attempts != 1):
                path.leave(opened)
                path.ended(scope, opened, result)
            elif opened is begun:  # `scope.leave_path` written out
                scope.inside = None
                if not scope.settled or scope.claim():
                    duration, cached = result.duration, path.usual
                    cached.durations.append(duration)
                    kept = scope.kept
                    if kept is not None:
                        kept.extend((cached.template, begun, duration, scope.waited if queued else None))
                return result
            else:
                path.leave(opened)
                path.ended_as_usual(scope, opened, result.duration)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, f"the end of {operation.name}")
        try:
            return result
        finally:
            del result

    return call


def _await(original: Function, layer: Layer, operation: Operation, usual: Any) -> Function:
    sample_of = SAMPLE.get
    tried, timed = operation.has_attempts, "started" in inspect.signature(original).parameters
    queued = operation.queued

    async def call_async(self: Any, subject: Any, sample: Any, started: float | None = None) -> Any:  # noqa: PLR0912
        scope: Any = sample_of()
        try:
            path = scope.paths[id(subject)]
        except (AttributeError, KeyError):  # there is no sample, or its run has no path
            path = None
        if path is None or scope.inside is not None:
            given = _given(started) if timed or started is None else _refuse(original)
            return await observe_async(operation, layer, original, self, subject, sample, **given)
        opened = begun = scope.clock() if started is None else started if timed else _refuse(original)
        if scope.span is None:  # `scope.enter_path` written out
            scope.inside, scope.opened = path, begun
            if scope.settled and scope.leave_path():
                opened = None
        else:
            opened = path.begin(scope, begun)
        if opened is None:
            return await original(self, subject, sample, *_more(started))
        try:
            result = await (original(self, subject, sample, begun) if timed else original(self, subject, sample))
        except BaseException as error:
            # A coroutine that nobody awaits any more is closed from wherever it is found: its context is gone.
            if not is_a(error, GeneratorExit):
                path.leave(opened)
            path.raised(scope, opened, error)
            raise
        try:
            if result.outcome is not usual or scope.usage is not None or (tried and result.attempts != 1):
                path.leave(opened)
                path.ended(scope, opened, result)
            elif opened is begun:  # `scope.leave_path` written out
                scope.inside = None
                if not scope.settled or scope.claim():
                    duration, cached = result.duration, path.usual
                    cached.durations.append(duration)
                    kept = scope.kept
                    if kept is not None:
                        kept.extend((cached.template, begun, duration, scope.waited if queued else None))
                return result
            else:
                path.leave(opened)
                path.ended_as_usual(scope, opened, result.duration)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, f"the end of {operation.name}")
        return result

    return call_async


def _batch(original: Function, layer: Layer, operation: Operation, is_usual: Callable[[Any], bool]) -> Function:
    signature, subject_of = inspect.signature(original), operation.subject
    bound, count = signature.bind, len(signature.parameters)

    def batch(*arguments: Any, **keywords: Any) -> Any:
        if keywords or len(arguments) != count:
            arguments = bound(*arguments, **keywords).args
        run = RUN.get()
        path = run.paths.get(id(subject_of(*arguments))) if run is not None else None
        if path is None or (call := path.begin_together(*arguments)) is None:
            return observe(operation, layer, original, *arguments)
        tokens = call.enter()
        try:
            result = original(*arguments)
        except BaseException as error:
            call.leave(tokens)
            call.close(None, error)
            raise
        call.leave(tokens)
        path.ended_together(call, result, is_usual)
        try:
            return result
        finally:
            del result

    return batch


def _await_batch(original: Function, layer: Layer, operation: Operation, is_usual: Callable[[Any], bool]) -> Function:
    signature, subject_of = inspect.signature(original), operation.subject
    bound, count = signature.bind, len(signature.parameters)

    async def batch_async(*arguments: Any, **keywords: Any) -> Any:
        if keywords or len(arguments) != count:
            arguments = bound(*arguments, **keywords).args
        run = RUN.get()
        path = run.paths.get(id(subject_of(*arguments))) if run is not None else None
        if path is None or (call := path.begin_together(*arguments)) is None:
            return await observe_async(operation, layer, original, *arguments)
        tokens = call.enter()
        try:
            result = await original(*arguments)
        except BaseException as error:
            # A coroutine that nobody awaits any more is closed from wherever it is found: its context is gone.
            call.leave(None if is_a(error, GeneratorExit) else tokens)
            call.close(None, error)
            raise
        call.leave(tokens)
        path.ended_together(call, result, is_usual)
        return result

    return batch_async


def _given(started: float | None) -> Mapping[str, float]:
    return {} if started is None else {"started": started}


def _refuse(original: Function) -> NoReturn:
    """Refuse the argument that a wrapper takes, and the original does not."""
    raise TypeError(f"{original.__qualname__}() takes no argument 'started'")


def _more(started: float | None) -> tuple[float, ...]:
    return () if started is None else (started,)


def _name_like(original: Function, wrapper: Function) -> None:
    """Give the parameters of a wrapper the names of the original's, so that it can be called by keyword.

    A wrapper of any arguments would take a quarter of a microsecond more for each sample and stage.
    """
    code: Any = wrapper.__code__
    names = tuple(inspect.signature(original).parameters)[: code.co_argcount]
    assert not set(names[1:]) & set(code.co_varnames[code.co_argcount :])
    wrapper.__code__ = code.replace(co_varnames=names + code.co_varnames[len(names) :])
