"""Exceptions as attributes of log events and of events of spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..semconv import attributes as a
from ..support.exceptions import class_name, message, stacktrace
from ..support.text import fit_values

_ESCAPED: Final = "exception.escaped"
"""Deprecated, and no name of ours; the SDK writes it on every exception of a span."""


def exception_attributes(error: BaseException) -> dict[str, str]:
    """Return the attributes of an event for an exception; without a stack trace, if that cannot be formatted."""
    attributes = type_and_message(error)
    trace = stacktrace(error)
    if trace is not None:
        attributes[a.EXCEPTION_STACKTRACE] = trace
    return attributes


def type_and_message(error: BaseException) -> dict[str, str]:
    """Return the attributes of an event for an exception that another event has the stack trace of."""
    return {a.EXCEPTION_TYPE: class_name(type(error)), a.EXCEPTION_MESSAGE: message(error)}


def span_event_attributes(error: BaseException) -> Mapping[str, str]:
    """Return the attributes of the event that `Span.record_exception` of the SDK adds for an exception.

    The SDK would read an exception of user code without a guard, and adds position markers to its stack trace.
    """
    return fit_values({**exception_attributes(error), _ESCAPED: "False"})
