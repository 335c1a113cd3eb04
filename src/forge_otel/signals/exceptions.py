"""Exceptions as attributes of events."""

from __future__ import annotations

from ..semconv import attributes as a
from ..support.exceptions import class_name, message, stacktrace


def exception_attributes(error: BaseException) -> dict[str, str]:
    """Return the attributes of an event for an exception; without a stack trace, if that cannot be formatted."""
    attributes = type_and_message(error)
    trace = stacktrace(error)
    return attributes if trace is None else {**attributes, a.EXCEPTION_STACKTRACE: trace}


def type_and_message(error: BaseException) -> dict[str, str]:
    """Return the attributes of an event for an exception that another event has the stack trace of."""
    return {a.EXCEPTION_TYPE: class_name(type(error)), a.EXCEPTION_MESSAGE: message(error)}
