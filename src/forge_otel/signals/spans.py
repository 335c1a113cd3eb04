"""Spans: started, exported after the fact, attributes; their names and attributes."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, SpanContext, get_current_span, set_span_in_context

from .exceptions import message
from .sdk import PLAIN
from .sdk.spans import LightSpans, decides
from .sdk.spans import end_span as _end_span

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, Tracer

    from ..semconv import definitions


class Spans:
    """The spans of one tracer: light ones where nobody could tell the difference, else those that it starts."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._ids = ReservedIds(tracer)
        self.light = LightSpans(tracer)
        self.reserve = self._ids.reserve
        self.restore = self._ids.restore

    def start(  # noqa: PLR0917 - those of `Tracer.start_span`, in its order
        self,
        name: str,
        context: Context | None,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        links: Sequence[Link],
        start_time: int,
    ) -> Span:
        """Start a span below the one that is current in a context, by default the current one."""
        light = self.light.current()
        if light is not None:
            parent = get_current_span(context).get_span_context()
            if decides(parent) and PLAIN.issuperset(map(type, attributes.values())):
                return light.begin(name, light.child_of(parent), parent, attributes, start_time, kind, links)  # type: ignore[no-any-return]
        return self._tracer.start_span(
            name,
            context,
            kind,
            attributes,
            links,
            start_time,
            record_exception=False,
            set_status_on_exception=False,
        )

    def export(  # noqa: PLR0917 - what a span is made of
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
    ) -> tuple[SpanContext, bool]:
        """Export a span that is over, with a reserved context, below a parent or as a root.

        Returns its context, in which the sampler may have cleared the sampled flag, and whether it was recorded.
        """
        light = self.light.current()
        if (
            light is not None
            and parent is not None
            and decides(parent)
            and PLAIN.issuperset(map(type, attributes.values()))
        ):
            own = SpanContext(context.trace_id, context.span_id, False, parent.trace_flags, parent.trace_state)
            span = light.begin(name, own, parent, attributes, start_time, kind, links)
        else:
            parent_context = set_span_in_context(NonRecordingSpan(parent) if parent is not None else INVALID_SPAN)
            with self._ids.used(context):
                span = self._tracer.start_span(
                    name,
                    parent_context,
                    kind,
                    attributes,
                    links,
                    start_time,
                    record_exception=False,
                    set_status_on_exception=False,
                )
        recorded = span.is_recording()
        _end_span(span, {}, failure, end_time)
        return span.get_span_context(), recorded

    def link(self, context: SpanContext) -> Link:
        """A link to a span."""
        light = self.light.current()
        return light.link(context) if light is not None else Link(context)


class ReservedIds:
    """The ids of spans that are written later, in place of a tracer's `id_generator`, to which it leaves all others.

    `start_span` takes no id, but logs that were written in between refer to one.
    """

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._reserved: dict[int, dict[str, int]] = {}
        """By thread, the ids that its next span gets."""
        self.generator: Any = getattr(self._tracer, "id_generator", None)
        if self.generator is not None:
            self._tracer.id_generator = self

    def restore(self) -> None:
        """Give the tracer its own generator back."""
        if self.generator is not None and self._tracer.id_generator is self:
            self._tracer.id_generator = self.generator

    def reserve(self, parent: SpanContext | None) -> SpanContext:
        """The context of a span that may be written later: below a parent, or of a trace of its own."""
        generator = self.generator
        span_id = generator.generate_span_id() if generator is not None else random.getrandbits(64) or 1
        if parent is not None:
            return SpanContext(parent.trace_id, span_id, False, trace_state=parent.trace_state)
        trace_id = generator.generate_trace_id() if generator is not None else random.getrandbits(128) or 1
        return SpanContext(trace_id, span_id, is_remote=False)

    @contextmanager
    def used(self, context: SpanContext) -> Iterator[None]:
        """Within the block, on this thread, the next span is the one that was reserved."""
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


def end_span(span: Span, attributes: Mapping[str, Any], error: BaseException | None, at: int) -> None:
    """End a span at a Unix time in nanoseconds."""
    _end_span(span, without_none(attributes), message(error) if error is not None else None, at)


def without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that have a value."""
    return {name: value for name, value in attributes.items() if value is not None}


def span_name(defined: definitions.Span, attributes: Mapping[str, Any]) -> str:
    """The name of a span with these attributes."""
    return " ".join((defined.type, *(str(attributes[name]) for name in defined.name_attributes)))


def start_attributes(defined: definitions.Span, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the attributes that a span starts with."""
    return {name: attributes[name] for name in defined.start_attributes if attributes.get(name) is not None}
