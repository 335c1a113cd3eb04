"""Exceptions of user code, as Ray Data brings them to the driver."""

from __future__ import annotations

import builtins
import re
from typing import Any

from ...support.exceptions import is_a, message, with_remote_trace

_HEADLINE = re.compile(r"([A-Za-z_][\w.<>]*)(?:: (.*))?", re.DOTALL)
_COLOR = re.compile(r"\x1b\[[\d;]*m")
_CHAIN = re.compile(
    r"\n\n(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):\n\n"
)


def user_error(error: BaseException) -> BaseException:
    """Return the exception that user code raised, or the error itself if it is Ray's own.

    Ray Data wraps it in a `UserCodeException`, and of the exception inside only its stack trace reaches the driver. It
    is built anew from that: of its class, if that is a built-in one, else of one with the same name.
    """
    from ray.exceptions import RayTaskError, UserCodeException  # noqa: PLC0415 - Ray has raised it, so it is imported

    if not is_a(error, RayTaskError):
        return error
    cause: Any = getattr(error, "cause", None)
    if cause is None or not is_a(cause, BaseException):
        return error
    return _rebuilt(message(error)) or cause if is_a(cause, UserCodeException) else cause


def is_cancelled(error: BaseException | None) -> bool:
    """Return True if Ray has cancelled the task."""
    from ray.exceptions import TaskCancelledError  # noqa: PLC0415 - the caller is Ray

    return error is not None and is_a(error, TaskCancelledError)


def _rebuilt(text: str) -> BaseException | None:
    """Return an exception like the last but one in a chain of stack traces, which is the one that was wrapped; None if
    there is none.
    """
    *chain, _ = _CHAIN.split(_COLOR.sub("", text))
    lines = chain[-1].splitlines() if chain else []
    framed = next((number for number, line in enumerate(lines) if line.startswith("  ")), len(lines))
    first = next((number for number in range(framed, len(lines)) if not lines[number].startswith("  ")), len(lines))
    match = _HEADLINE.fullmatch("\n".join(lines[first:]).rstrip())
    if match is None:
        return None
    module, _, name = match[1].rpartition(".")
    known = getattr(builtins, name, None) if not module else None
    if not isinstance(known, type) or not issubclass(known, Exception):
        known = type(name, (Exception,), {"__module__": module or "builtins"})
    rebuilt: BaseException
    try:
        rebuilt = known(match[2] or "")
    except TypeError:  # it takes more than a message, such as UnicodeDecodeError
        rebuilt = type(name, (Exception,), {"__module__": "builtins"})(match[2] or "")
    return with_remote_trace(rebuilt, "\n".join(lines))
