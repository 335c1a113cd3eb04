"""Contexts with a current span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from .sdk.contexts import attach, detach, get_current

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["SPAN_KEY", "attach", "detach", "get_current", "with_span"]

SPAN_KEY: Final = next(iter(set_span_in_context(INVALID_SPAN, Context())))
"""The key under which a context holds its span."""


def with_span(span: Span, around: Context) -> Context:
    """Return a context with a span current; `trace.set_span_in_context` copies the context twice."""
    return Context({**around, SPAN_KEY: span})
