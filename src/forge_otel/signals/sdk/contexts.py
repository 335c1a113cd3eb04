"""The current context, past the layers between the functions of the API and the context variable.

Each of those functions is called for every span, and they take longer than what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from . import switched_off

SPAN_KEY: Final = next(iter(set_span_in_context(INVALID_SPAN, Context())))
"""The key under which a context holds its span."""


def _functions() -> tuple[Callable[[], Context], Callable[[Context], Any], Callable[[Any], None]]:
    """Return `get_current`, `attach` and `detach`; those of the API where its runtime is another one than is known."""
    runtime = otel_context._RUNTIME_CONTEXT
    variable = getattr(runtime, "_current_context", None)
    if switched_off() or type(runtime) is not ContextVarsRuntimeContext or type(variable) is not ContextVar:
        return otel_context.get_current, otel_context.attach, otel_context.detach
    token = variable.set(probe := Context())
    try:
        if otel_context.get_current() is not probe:
            return otel_context.get_current, otel_context.attach, otel_context.detach
    finally:
        variable.reset(token)
    return variable.get, variable.set, variable.reset


get_current, attach, detach = _functions()
"""Return the current context; make one current, which returns a token; put back what was current before it.

`detach` raises a `ValueError` in another context than that of `attach`, which the API would log.
"""
