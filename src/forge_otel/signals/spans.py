"""Spans: what they are called, what they start with, how they end, and the ids of those that are written later."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanContext

from .exceptions import message
from .sdk.spans import describe

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from ..semconv import definitions


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


def end_span(span: Span, ended: Mapping[str, Any], error: BaseException | None, at: int | None = None) -> None:
    """Say how it ended; now, or at a Unix time in nanoseconds."""
    try:
        describe(span, given(ended), message(error) if error is not None else None)
    finally:
        span.end(at)


def given(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the attributes that have a value."""
    return {name: value for name, value in attributes.items() if value is not None}


def span_name(defined: definitions.Span, attributes: Mapping[str, Any]) -> str:
    """The name of a span with these attributes."""
    return " ".join((defined.type, *(str(attributes[name]) for name in defined.name_attributes)))


def start_attributes(defined: definitions.Span, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the attributes that a span starts with."""
    return {name: attributes[name] for name in defined.start_attributes if attributes.get(name) is not None}
