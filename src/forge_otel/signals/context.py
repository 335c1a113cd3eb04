"""Contexts with a current span."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import get_current_span

from .sdk.contexts import SPAN_KEY, attach, detach, get_current

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["SPAN_KEY", "attach", "detach", "environment_context", "get_current", "missing_parent", "with_span"]

_logger = logging.getLogger("forge_otel")


def with_span(span: Span, around: Context) -> Context:
    """Return a context with a span current; `trace.set_span_in_context` copies the context twice."""
    return Context({**around, SPAN_KEY: span})


class _EnvironmentGetter(Getter[Mapping[str, str]]):
    """Reads the fields of propagators from environment variables, by the names that OpenTelemetry's specification
    gives them there: `traceparent` from `TRACEPARENT`.

    The SDK has such a getter, too, in a private module of its newer versions.
    """

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        value = carrier.get(_variable(key))
        return [value] if value else None

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return list(carrier)


def environment_context() -> Context:
    """Return the current context with the parent span and the baggage that environment variables name.

    A value that no propagator can read is logged.
    """
    context = propagate.extract(os.environ, get_current(), _EnvironmentGetter())
    parent = os.environ.get("TRACEPARENT")
    if parent and not get_current_span(context).get_span_context().is_valid:
        _logger.warning("TRACEPARENT=%r is ignored: none of the propagators in OTEL_PROPAGATORS can read it", parent)
    return context


def missing_parent(from_environment: bool) -> Context | None:
    """Return the context that environment variables name, if that is asked for and no span is current."""
    if not from_environment or get_current_span().get_span_context().is_valid:
        return None
    return environment_context()


def _variable(field: str) -> str:
    """Return the environment variable for a field of a propagator."""
    name = re.sub(r"[^A-Z0-9_]", "_", field.upper())
    return f"_{name}" if name[:1].isdigit() else name
