"""Spans that cost a fraction of the SDK's until somebody else touches them.

Most spans of ours are never looked at while they are open: they get a context, a few attributes of known types, and an
end. A light span is an instance of the SDK's `Span` whose state is incomplete. Whatever reads or changes what it lacks
completes it by the SDK's own constructor, and from then on it is a span of the SDK like any other. One that was never
touched goes to the span processors as it is.

Who must see a span start sees it: where a sampler decides by more than the parent, or a span processor does something
when a span starts or is about to end, the tracer starts the spans.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from ...semconv import attributes as a
from ...semconv import spans
from ...support.text import escape, fit
from . import PLAIN, is_sdk, tested

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

_ERROR, _INTERNAL = StatusCode.ERROR, SpanKind.INTERNAL  # an enum's members are found slowly

_MOST_ATTRIBUTES: Final = 64
"""No span of ours has so many."""

_new = object.__new__
_lock = threading.RLock()
"""Held for a moment by whoever completes or ends a light span. It can be entered again, since the garbage collector may
call a destructor at any time, and that may touch a span."""


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it when the process was forked
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


class LightSpans:
    """The class of light spans for one tracer, as long as nobody could tell the difference."""

    __slots__ = (
        "_behind",
        "_config",
        "_made",
        "_processor",
        "_resource",
        "_sampler",
        "_supported",
        "_tracer",
        "why_not",
    )

    def __init__(self, tracer: Tracer) -> None:
        self._tracer: Any = tracer
        self.why_not: str | None = None
        """The reason for which the tracer starts the spans; None where they are light."""
        self._sampler: Any = None
        self._processor: Any = None
        self._behind: Any = None
        self._config: Any = None
        self._resource: Any = None
        self._made: Any = None
        self._supported = is_sdk(type(tracer)) and light_spans() is not None
        if self._supported:
            self._look()
        else:
            self.why_not = "the tracer is not one of an SDK that is known"

    def current(self) -> Any:
        """The class for what the tracer's provider has now; None where the tracer must start spans.

        Sampler, processors and configuration of a provider may change at any time.
        """
        if not self._supported:
            return None
        tracer = self._tracer
        processor = tracer.span_processor
        if (
            processor is self._processor
            and processor._span_processors is self._behind
            and tracer.sampler is self._sampler
            and tracer._tracer_config is self._config
            and tracer.resource is self._resource
        ):
            return self._made
        return self._look()

    def _look(self) -> Any:
        tracer = self._tracer
        # Before it is decided: what changes meanwhile is seen by the next look.
        processor = tracer.span_processor
        behind = getattr(processor, "_span_processors", None)
        sampler, config, resource = tracer.sampler, tracer._tracer_config, tracer.resource
        made: Any = light_spans()
        self.why_not = _why_not(tracer)
        self._made = made(tracer) if self.why_not is None else None
        self._sampler, self._config, self._resource = sampler, config, resource
        self._processor, self._behind = processor, behind
        return self._made


def decides(parent: SpanContext) -> bool:
    """True if samplers that follow the parent take a span below this one."""
    # As a tuple: its properties and that of its flags take four times as long.
    _, _, is_remote, flags, _, is_valid = parent
    return bool(is_valid and not is_remote and flags & TraceFlags.SAMPLED)


def end_span(
    span: Span,
    attributes: Mapping[str, Any],
    failure: str | None,
    end_time: int | None = None,
    exceptions: Sequence[Mapping[str, Any]] = (),
    *,
    plain: bool = False,
) -> None:
    """End a span of ours with its last attributes and, if it failed, the message of its error.

    `exceptions` are the attributes of the exceptions that are to be its events; `plain` says that all its own are of
    the types in `PLAIN`.
    """
    kind: Any = type(span)
    is_light = end_time is not None and not exceptions and getattr(kind, "is_light", False)
    if failure is not None:
        failure = fit(failure) if is_light else _description(failure, span)
    plain = is_light and (plain or PLAIN.issuperset(map(type, attributes.values())))
    if plain and kind.end_light(span, attributes, failure, end_time):
        return
    try:
        span.set_attributes(attributes)
        for each in exceptions:
            span.add_event("exception", each, end_time)
        if failure is not None:
            span.set_status(Status(_ERROR, failure))
    finally:
        span.end(end_time)


def _description(failure: str, span: Any) -> str:
    """Return the message of an error as the status of a span of the SDK has it: cut as the SDK cuts attributes."""
    limit = getattr(getattr(span, "_limits", None), "max_span_attribute_length", None)
    return fit(failure) if limit is None else escape(failure[:limit])[:limit]


def _why_not(tracer: Any) -> str | None:
    """Why the spans of a tracer cannot be light: something would not see what it sees of the SDK's own spans."""
    from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor, _tracer_metrics  # noqa: PLC0415 - the SDK is there

    if "start_span" in vars(tracer) or not _is_of_the_sdk(type(tracer).start_span):
        return "the tracer's start_span is patched"
    if not tracer._tracer_config.is_enabled:
        return "a tracer configurator has switched the tracer off"
    if type(tracer._tracer_metrics) is not _tracer_metrics.NoOpTracerMetrics:
        return "the SDK counts its own spans"
    limits = tracer._span_limits
    most = limits.max_span_attributes
    if limits.max_span_attribute_length is not None or (most is not None and most < _MOST_ATTRIBUTES):
        return "span attributes are limited"
    if not _takes_all(tracer.sampler, "_local_parent_sampled"):
        return f"the sampler {type(tracer.sampler).__name__} decides on each span"
    if type(tracer.span_processor) is not SynchronousMultiSpanProcessor:
        return f"spans go to a {type(tracer.span_processor).__name__}"
    for processor in tracer.span_processor._span_processors:
        if not _sees_ends_only(processor):
            return f"{type(processor).__name__} looks at spans that start"
    return None


def _takes_all(sampler: Any, which: str) -> bool:
    """Return True if a sampler takes every span and adds nothing to it; of one based on the parent, if the sampler in
    the attribute `which` does.
    """
    from opentelemetry.sdk.trace import sampling  # noqa: PLC0415 - the SDK is there

    decides = _function(sampler, "should_sample")
    if decides is sampling.ParentBased.should_sample:
        return _takes_all(getattr(sampler, which), which)
    return decides is sampling.StaticSampler.should_sample and sampler._decision is sampling.Decision.RECORD_AND_SAMPLE


def takes_every_root(tracer: Any) -> bool:
    """Return True if a tracer's sampler takes every trace that starts in this process."""
    return is_sdk(type(tracer)) and _takes_all(tracer.sampler, "_root")


def root_flags(tracer: Any, trace_id: int) -> TraceFlags:
    """Return the trace flags that the root span of a trace will have. It counts as not sampled where that cannot be
    found out: samplers that are not the SDK's may decide by more than the trace, and may count how often they do.
    """
    if not is_sdk(type(tracer)):
        return TraceFlags.get_default()
    from opentelemetry.sdk.trace import sampling  # noqa: PLC0415 - the SDK is there

    sampler, flags = tracer.sampler, 0
    while _function(sampler, "should_sample") is sampling.ParentBased.should_sample:
        sampler = sampler._root
    if type(sampler).__module__.startswith(_SAMPLERS):
        asked = sampler.should_sample(set_span_in_context(INVALID_SPAN), trace_id, spans.FORGE_SAMPLE.type)
        flags = TraceFlags.SAMPLED if asked.decision.is_sampled() else 0
    is_random = getattr(tracer.id_generator, "is_trace_id_random", bool)()
    return TraceFlags(flags | (_RANDOM if is_random else 0))


_SAMPLERS: Final = "opentelemetry.sdk.trace."
_RANDOM: Final = getattr(TraceFlags, "RANDOM_TRACE_ID", 0)


def _sees_ends_only(processor: Any) -> bool:
    """True if a span processor does nothing before a span has ended."""
    from opentelemetry.sdk.trace import SpanProcessor, export  # noqa: PLC0415 - the SDK is there

    idle = SpanProcessor, export.BatchSpanProcessor, export.SimpleSpanProcessor
    methods = ("on_start", "_on_ending")
    return all(_function(processor, method) in [getattr(each, method) for each in idle] for method in methods)


def _is_of_the_sdk(function: Any) -> bool:
    """True if a function is one that the SDK defines."""
    return getattr(function, "__module__", "") == "opentelemetry.sdk.trace" and not hasattr(function, "__wrapped__")


def _function(of: Any, method: str) -> Any:
    """The function behind a method; None where it is something else than a method."""
    return getattr(getattr(of, method, None), "__func__", None)


@tested
def light_spans() -> Any:
    """A function that makes the class of light spans for a tracer; None where its spans differ from the SDK's."""
    from opentelemetry.sdk import trace as sdk  # noqa: PLC0415 - it need not be there
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace._tracer_metrics import NoOpTracerMetrics  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    # Given here, the variables for limits, for the sampler and for metrics about spans count for nothing.
    limits = sdk.SpanLimits(max_span_attributes=_MOST_ATTRIBUTES, max_span_attribute_length=sdk.SpanLimits.UNSET)
    provider = sdk.TracerProvider(ALWAYS_ON, Resource({"a": "b"}), shutdown_on_exit=False, span_limits=limits)
    seen: list[Any] = []

    class Keep(sdk.SpanProcessor):
        def on_end(self, span: Any) -> None:
            seen.append(span)

    provider.add_span_processor(Keep())
    tracer: Any = provider.get_tracer("test", "1", "schema")
    tracer._tracer_metrics = NoOpTracerMetrics()
    if _why_not(tracer) is not None:
        return None
    fields = frozenset(vars(tracer.start_span("test")))
    every_flag = set_span_in_context(NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(0xFF))))
    inherited = int(tracer.start_span("test", every_flag).get_span_context().trace_flags)

    def made(tracer: Any) -> Any:
        return _class_for(tracer, sdk._Span, fields, inherited)

    light = made(tracer)
    with tracer.start_as_current_span("parent") as above:
        parent = above.get_span_context()
        for attributes, failure in (({"c": 1, "d": 0.5}, None), ({"e": True}, "failed"), ({}, None)):
            links = light.make_links("run", [parent])
            public = tracer.start_span("test", kind=SpanKind.CLIENT, attributes={"a": "b"}, links=links, start_time=1)
            begun = "test", public.get_span_context(), parent, {"a": "b"}, 1, SpanKind.CLIENT, links
            others = [light.begin(*begun) for _ in range(2)]
            others[1].add_event("touched", {"f": "g"}, 2)
            public.add_event("touched", {"f": "g"}, 2)
            for span in (public, others[1], others[0]):
                seen.clear()
                end_span(span, attributes, failure, 3)
                if len(seen) != 1:
                    return None
                if span is public:
                    right = _contents(seen[0])
                elif _contents(seen[0]) != (right if span is others[1] else {**right, "events": ()}):
                    return None
            if type(others[0]) is not light or type(others[1]) is not type(public) or vars(others[1]).keys() != fields:
                return None
        ours, theirs = light.child_of(parent), tracer.start_span("test").get_span_context()
        if (ours.trace_id, *ours[2:]) != (theirs.trace_id, *theirs[2:]) or type(ours) is not SpanContext:
            return None
    return made


_READ: Final = (
    *("name", "context", "kind", "parent", "start_time", "end_time", "resource", "instrumentation_scope"),
    *("dropped_attributes", "dropped_events", "dropped_links"),
)


_LIGHT_STATE: Final = (
    *("_name", "_context", "_parent", "_start_time", "_light_attributes", "_begun_links", "_kind"),
    *("_events", "_links", "_status", "_end_time", "_attributes"),
)
"""All that a light span may have until it is completed. The first instance of a class gets it: Python stores attributes
that it knows of early without a dict for each instance, which would take longer, and occupy the garbage collector.
"""


def _contents(span: Any) -> dict[str, Any]:
    """All that an exporter reads of a span."""
    found = {name: getattr(span, name) for name in _READ}
    events = tuple((event.name, dict(event.attributes), event.timestamp) for event in span.events)
    links = tuple((link.context, dict(link.attributes)) for link in span.links)
    status = span.status.status_code, span.status.description
    return {**found, "attributes": dict(span.attributes), "events": events, "links": links, "status": status}


def _class_for(tracer: Any, whole: Any, fields: frozenset[str], inherited: int) -> Any:
    """The class of light spans for what a tracer has now. (What its methods need are variables of this function, which
    are found faster than attributes.)

    `whole` is the SDK's own, which has these fields; `inherited` are the trace flags that a span has from its parent.
    """
    from opentelemetry.sdk.util import BoundedList  # noqa: PLC0415 - the SDK is there

    processor, limits = tracer.span_processor, tracer._span_limits
    behind, unset = processor._span_processors, Status()
    empty: Any = ()
    most_links, last_links = limits.max_links, BoundedList.from_seq
    new_attributes = _attributes_for(limits)

    class LightSpan(whole):  # type: ignore[misc]  # it is a class
        """A span that was started, and that nobody has touched."""

        is_light = True
        _kind = _INTERNAL
        _begun_links: Sequence[Link] = ()
        _status = unset
        _end_time = None
        _resource = tracer.resource
        _instrumentation_info = tracer.instrumentation_info
        _instrumentation_scope = tracer._instrumentation_scope

        child_of = staticmethod(_child_of(tracer, inherited))
        make_links = staticmethod(_make_links(limits))

        @classmethod
        def begin(  # noqa: PLR0917 - named arguments take longer
            cls,
            name: str,
            context: SpanContext,
            parent: SpanContext,
            attributes: Mapping[str, Any],
            start_time: int,
            kind: SpanKind = _INTERNAL,
            links: Sequence[Link] = (),
        ) -> LightSpan:
            """Start a span; the attributes are of plain types, the links made by `make_links`."""
            span = _new(cls)
            span._name = name
            span._context = context
            span._parent = parent
            span._start_time = start_time
            span._light_attributes = attributes
            if links:
                span._begun_links = links
            if kind is not _INTERNAL:
                span._kind = kind
            return span

        @staticmethod
        def end_light(span: LightSpan, attributes: Mapping[str, Any], failure: str | None, end_time: int) -> bool:
            """End an untouched span; False where the SDK has to do it. The attributes are plain, as at the start."""
            if processor._span_processors is not behind:
                complete(span)
                return False
            if type(span) is not LightSpan:
                return False
            links = span._begun_links
            if most_links is not None and len(links) > most_links:
                links = last_links(most_links, links)  # and the number of those dropped
            status = Status(_ERROR, failure) if failure is not None else unset
            with _lock:
                if type(span) is not LightSpan or span._end_time is not None:
                    return False
                span._light_attributes = {**span._light_attributes, **attributes}
                span._events = empty
                span._links = links
                span._status = status
                span._end_time = end_time
            for each in behind:
                each.on_end(span)
            return True

        @classmethod
        def write(  # noqa: PLR0917 - named arguments take longer
            cls,
            name: str,
            context: SpanContext,
            parent: SpanContext,
            attributes: dict[str, Any],
            start_time: int,
            kind: SpanKind,
            links: Sequence[Link],
            failure: str | None,
            end_time: int,
        ) -> None:
            """Export a span that is over; what it is made of is as for `begin`."""
            # It is in nobody's hands until a processor has it, so that nothing of `begin` and `end_light` has to be
            # guarded or can have changed.
            span = _new(cls)
            span._name = name
            span._context = context
            span._parent = parent
            span._start_time = start_time
            span._end_time = end_time
            span._light_attributes = attributes
            span._events = empty
            few = most_links is None or len(links) <= most_links
            span._links = links if few else last_links(most_links, links)
            if failure is not None:
                span._status = Status(_ERROR, failure)
            if kind is not _INTERNAL:
                span._kind = kind
            for each in behind:
                each.on_end(span)

        def get_span_context(self) -> SpanContext:
            return self._context  # type: ignore[no-any-return]

        def __getattr__(self, name: str) -> Any:
            # Only what is missing comes here.
            if name not in fields:
                raise AttributeError(f"{whole.__name__!r} object has no attribute {name!r}")
            if name == "_attributes" and self._end_time is not None:
                with _lock:
                    if type(self) is LightSpan:  # else somebody has completed it meanwhile
                        # They are made when somebody reads them: until the span is exported, the garbage collector
                        # would look at them again and again.
                        self._attributes = new_attributes(self._light_attributes)
            else:
                complete(self)
            return getattr(self, name)

    complete = _completion(tracer, whole, LightSpan, new_attributes)
    first = _new(LightSpan)
    for name in _LIGHT_STATE:
        setattr(first, name, None)
    return LightSpan


def _completion(
    tracer: Any, whole: Any, light: Any, new_attributes: Callable[[dict[str, Any]], BoundedAttributes]
) -> Callable[[Any], None]:
    """The function that makes of light spans what the tracer would have made."""
    processor, limits = tracer.span_processor, tracer._span_limits

    def complete(span: Any) -> None:
        """Make of a span what the tracer would have made.

        Until all of it is there nothing is changed: its making may be interrupted, and may touch this very span.
        """
        made = vars(span)
        full = _new(whole)
        whole.__init__(
            full,
            name=span._name,
            context=span._context,
            parent=span._parent,
            sampler=tracer.sampler,
            resource=tracer.resource,
            attributes=made.get("_light_attributes"),
            links=made.get("_begun_links", ()),
            kind=span._kind,
            span_processor=processor,
            instrumentation_info=tracer.instrumentation_info,
            record_exception=False,
            set_status_on_exception=False,
            limits=limits,
            instrumentation_scope=tracer._instrumentation_scope,
        )
        with _lock:
            if type(span) is not light:
                return
            if span._end_time is not None:
                made.setdefault("_attributes", new_attributes(span._light_attributes))
            for name, value in vars(full).items():
                made.setdefault(name, value)  # what is there stays, such as all of a span that has ended
            span.__class__ = whole
            made.pop("_light_attributes", None)
            made.pop("_begun_links", None)

    return complete


class IdsInFront:
    """Base of our own generator of ids, which stands in front of a tracer's."""

    generator: Any
    """The tracer's own, or another one in front of it."""


def _child_of(tracer: Any, inherited: int) -> Callable[..., SpanContext]:
    """The function that makes contexts of spans. `inherited` are the trace flags that a span has from its parent."""
    new_context: Callable[..., SpanContext] = tuple.__new__
    generator = tracer.id_generator
    # By type: a generator of the user's may have an attribute of this name as well.
    draw = (generator.generator if isinstance(generator, IdsInFront) else generator).generate_span_id

    def child_of(parent: SpanContext, span_id: int | None = None) -> SpanContext:
        """The context of a span below a sampled one of this process, by default of a new one."""
        flags = parent[3]
        if flags & ~inherited:
            flags = TraceFlags(flags & inherited)
        # Past the constructor, which takes half of a microsecond to find out whether a context is valid.
        drawn = draw() if span_id is None else span_id
        return new_context(SpanContext, (parent[0], drawn, False, flags, parent[4], True))

    return child_of


def _make_links(limits: Any) -> Callable[[str, Iterable[SpanContext]], list[Link]]:
    """The function that makes links."""
    known: dict[str, BoundedAttributes] = {}

    def make_links(kind: str, contexts: Iterable[SpanContext]) -> list[Link]:
        """Links of a kind as the SDK keeps them, past two constructors."""
        attributes = known.get(kind)
        if attributes is None:
            attributes = known[kind] = BoundedAttributes(
                limits.max_link_attributes,
                {a.FORGE_LINK_TYPE: kind},
                immutable=True,
                max_value_len=limits.max_attribute_length,
            )
        links = []
        for context in contexts:
            link = _new(Link)
            link._context = context
            link._attributes = attributes
            links.append(link)
        return links

    return make_links


def _attributes_for(limits: Any) -> Callable[[dict[str, Any]], BoundedAttributes]:
    """The function that makes attributes of spans that have ended."""

    class LightAttributes(BoundedAttributes):
        """Attributes of a span that has ended: those of the SDK, read without a copy."""

        maxlen = limits.max_span_attributes
        max_value_len = limits.max_span_attribute_length
        dropped = 0
        _immutable = True
        _dict: dict[str, Any]

        def __iter__(self) -> Iterator[str]:
            return iter(self._dict)

        def items(self) -> ItemsView[str, Any]:
            return self._dict.items()

        def __getattr__(self, name: str) -> Any:
            if name != "_lock":
                raise AttributeError(name)
            return vars(self).setdefault("_lock", threading.Lock())

    def new_attributes(values: dict[str, Any]) -> BoundedAttributes:
        attributes = _new(LightAttributes)
        attributes._dict = values
        return attributes

    return new_attributes
