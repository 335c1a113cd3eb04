"""Attributes of spans, set as the SDK's `Span.set_attributes` sets them, in a fraction of its time.

It copies and checks each of them. Ours are of names and types that it takes as they are; docs/sdk-internals.md says
what this relies on. Before the first use `known` compares the spans of both ways; where anything differs, the SDK does
it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .bulk import allowed

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_MOST_ATTRIBUTES: Final = 64
"""No span of ours has so many."""

_logger = logging.getLogger(__package__)


def set_attributes(span: Span, attributes: Mapping[str, Any]) -> None:
    """Set attributes, each a string, a number or a boolean, on a span that is ours alone."""
    if _takes_as_it_is(type(span)) and _put(span, attributes):
        return
    span.set_attributes(attributes)


@functools.lru_cache(maxsize=32)
def _takes_as_it_is(kind: type) -> bool:
    return kind.__module__.startswith("opentelemetry.sdk.") and kind is known()


def _put(span: Any, attributes: Mapping[str, Any]) -> bool:
    """Without a check; False where one is needed."""
    if not _allow_all(span._limits):
        return False
    with span._lock:
        if span._end_time is not None:
            return False
        held = span._attributes
        with held._lock:
            held._dict.update(attributes)
    return True


@functools.lru_cache(maxsize=8)
def _allow_all(limits: Any) -> bool:
    """Whether nothing of a span of ours can be beyond them."""
    most = limits.max_span_attributes
    return (most is None or most >= _MOST_ATTRIBUTES) and limits.max_span_attribute_length is None


@functools.cache
def known() -> type | None:
    """The SDK's class of spans; None where this is not what its `set_attributes` does."""
    try:
        return _tested() if allowed() else None
    except Exception:
        _logger.debug("this SDK's spans are not those that are known here", exc_info=True)
        return None


def _tested() -> type | None:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - it need not be there
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415

    # Given here, the variables for limits count for nothing.
    limits = SpanLimits(max_span_attributes=_MOST_ATTRIBUTES, max_span_attribute_length=SpanLimits.UNSET)
    tracer = TracerProvider(resource=Resource({}), shutdown_on_exit=False, span_limits=limits).get_tracer("test")
    said: dict[str, Any] = {"a": "b", "c": 1, "d": 0.5, "e": True}
    public, put = (tracer.start_span("test", attributes={"a": "a", "f": "g"}) for _ in range(2))
    public.set_attributes(said)
    if not _put(put, said):
        return None
    for span in (public, put):
        span.end()
    if _put(put, {"a": "after the end"}) or _contents(public) != _contents(put):
        return None
    return type(put)


def _contents(span: Any) -> tuple[dict[str, Any], int]:
    return dict(span.attributes), span.dropped_attributes
