"""Starting and ending spans, exporting deferred ones; names and attributes of spans."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, SpanContext, get_current_span, set_span_in_context

from ..semconv import attributes as a
from ..support.text import fit, fit_values
from .sdk import PLAIN
from .sdk.spans import IdsInFront, LightSpans, decides, root_flags, takes_every_root
from .sdk.spans import end_span as _end_span

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, TraceFlags, Tracer

    from ..semconv import definitions
    from ..semconv.attributes import ForgeLinkType


class Spans:
    """The spans of one tracer: light spans if the difference is not observable, else spans started by the tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._ids = ReservedIds(tracer)
        self.light = LightSpans(tracer)
        self.reserve = self._ids.reserve
        self.restore = self._ids.restore

    def takes_every_root(self) -> bool:
        """Return True if the sampler takes every trace that starts in this process, False if it may take less."""
        return takes_every_root(self._tracer)

    def root_flags(self, trace_id: int) -> TraceFlags:
        """Return the trace flags that the root span of a trace will have, as far as that can be found out."""
        return root_flags(self._tracer, trace_id)

    def start(  # noqa: PLR0917 - the parameters of `Tracer.start_span`, in its order
        self,
        name: str,
        context: Context | None,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        links: Sequence[Link],
        start_time: int,
        own: SpanContext | None = None,
    ) -> Span:
        """Start a span as a child of the current span of a context, by default of the current context.

        It has the ids of `own`, if that is given.
        """
        parent = get_current_span(context).get_span_context()
        light = self._light_below(parent, attributes)
        if light is not None:
            context_of_span = light.child_of(parent, own.span_id if own is not None else None)
            return light.begin(name, context_of_span, parent, attributes, start_time, kind, links)  # type: ignore[no-any-return]
        if own is not None:
            with self._ids.used(own):
                return self._start_by_tracer(name, context, kind, attributes, links, start_time)
        return self._start_by_tracer(name, context, kind, attributes, links, start_time)

    def export(  # noqa: PLR0917 - the parts of a span
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        links: Sequence[Link],
        failure: str | None,
        start_time: int,
        end_time: int,
        exceptions: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[SpanContext, bool]:
        """Export a finished span with a reserved context, as the child of a parent or as a root.

        Returns its context, in which the sampler may have cleared the sampled flag, and True if it was recorded.
        """
        light = self._light_below(parent, attributes) if parent is not None else None
        if light is not None:
            own = light.child_of(parent, context.span_id)
            span = light.begin(name, own, parent, attributes, start_time, kind, links)
        else:
            parent_context = set_span_in_context(NonRecordingSpan(parent) if parent is not None else INVALID_SPAN)
            with self._ids.used(context):
                span = self._start_by_tracer(name, parent_context, kind, attributes, links, start_time)
        recorded = span.is_recording()
        _end_span(span, {}, failure, end_time, exceptions)
        return span.get_span_context(), recorded

    def write(  # noqa: PLR0917 - what a span is made of
        self,
        name: str,
        parent: SpanContext,
        kind: SpanKind,
        attributes: dict[str, Any],
        links: Sequence[Link],
        failure: str | None,
        start_time: int,
        end_time: int,
        context: SpanContext | None = None,
        exceptions: Sequence[Mapping[str, Any]] = (),
        *,
        light: Any,
    ) -> bool:
        """Export a span that is over, below a parent, with a context that was reserved or a new one; returns True if it
        was recorded.

        `light` is the current class of light spans; None where attributes are of other types than those in `PLAIN`.
        """
        if light is not None and not exceptions and decides(parent):
            own = light.child_of(parent, context.span_id if context is not None else None)
            description = fit(failure) if failure is not None else None
            light.write(name, own, parent, attributes, start_time, kind, links, description, end_time)
            return True
        own = context or self.reserve(parent)
        return self.export(name, own, parent, kind, attributes, links, failure, start_time, end_time, exceptions)[1]

    def links(self, kind: ForgeLinkType, *contexts: SpanContext) -> list[Link]:
        """Return links of a kind to spans."""
        light = self.light.current()
        if light is not None:
            return light.make_links(kind.value, contexts)  # type: ignore[no-any-return]
        return [Link(context, {a.FORGE_LINK_TYPE: kind.value}) for context in contexts]

    def _light_below(self, parent: SpanContext, attributes: Mapping[str, Any]) -> Any:
        """Return the class of light spans for one with these attributes below a parent; None if it cannot be light."""
        light = self.light.current()
        usable = light is not None and decides(parent) and are_plain(attributes)
        return light if usable else None

    def _start_by_tracer(  # noqa: PLR0917 - the parameters of `Tracer.start_span`, in its order
        self,
        name: str,
        context: Context | None,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        links: Sequence[Link],
        start_time: int,
    ) -> Span:
        """Start a span of the SDK's, or of whichever provider there is."""
        return self._tracer.start_span(
            name, context, kind, attributes, links, start_time, record_exception=False, set_status_on_exception=False
        )


class ReservedIds(IdsInFront):
    """Ids reserved for spans that are exported later. Replaces a tracer's `id_generator`, and delegates all other ids
    to it.

    `start_span` accepts no id, but logs written before the export refer to one.
    """

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._reserved: dict[int, dict[str, int]] = {}
        """The ids for the next span of each thread."""
        self.generator: Any = getattr(self._tracer, "id_generator", None)
        if self.generator is not None:
            self._tracer.id_generator = self

    def restore(self) -> None:
        """Restore the tracer's own generator."""
        if self.generator is not None and self._tracer.id_generator is self:
            self._tracer.id_generator = self.generator

    def reserve(self, parent: SpanContext | None, flags: TraceFlags | None = None) -> SpanContext:
        """Return the context of a span that may be exported later, as the child of a parent or as a root; with the
        flags that it will have, if they are known."""
        generator = self.generator
        span_id = generator.generate_span_id() if generator is not None else random.getrandbits(64) or 1
        if parent is not None:
            return SpanContext(parent.trace_id, span_id, False, flags, parent.trace_state)
        trace_id = generator.generate_trace_id() if generator is not None else random.getrandbits(128) or 1
        return SpanContext(trace_id, span_id, is_remote=False)

    @contextmanager
    def used(self, context: SpanContext) -> Iterator[None]:
        """Give the reserved ids to the next span that this thread starts within the block."""
        thread = threading.get_ident()
        self._reserved[thread] = {"trace_id": context.trace_id, "span_id": context.span_id}
        try:
            yield
        finally:
            del self._reserved[thread]

    def generate_span_id(self) -> int:
        reserved = self._take("span_id") if self._reserved else None
        return self.generator.generate_span_id() if reserved is None else reserved

    def generate_trace_id(self) -> int:
        reserved = self._take("trace_id") if self._reserved else None
        return self.generator.generate_trace_id() if reserved is None else reserved

    def _take(self, which: str) -> int | None:
        return self._reserved.get(threading.get_ident(), {}).pop(which, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)


def end_span(
    span: Span,
    attributes: Mapping[str, Any],
    failure: str | None,
    end_time: int,
    exceptions: Sequence[Mapping[str, Any]] = (),
) -> None:
    """End a span at a Unix time in nanoseconds, with the message of its error if it failed, and with exceptions as
    events.
    """
    _end_span(span, without_none(attributes), failure, end_time, exceptions)


def are_plain(attributes: Mapping[str, Any]) -> bool:
    """Return True if all values are of types that the SDK takes as they are."""
    return PLAIN.issuperset(map(type, attributes.values()))


def without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that have a value."""
    return {name: value for name, value in attributes.items() if value is not None}


def span_name(defined: definitions.Span, attributes: Mapping[str, Any]) -> str:
    """Return the name of a span with these attributes."""
    return fit(" ".join((defined.type, *(str(attributes[name]) for name in defined.name_attributes))))


def start_attributes(defined: definitions.Span, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes that are set when a span starts."""
    return fit_values({name: attributes[name] for name in defined.start_attributes if attributes.get(name) is not None})
