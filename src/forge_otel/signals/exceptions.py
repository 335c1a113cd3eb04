"""Text of exceptions: type, message and stack trace."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from types import CodeType, TracebackType
from typing import Final

from ..semconv import attributes as a


def exception_attributes(error: BaseException) -> dict[str, str]:
    """Return the attributes of an event for an exception."""
    name, text = qualified_name(type(error)), _text_of(error)
    return {
        a.EXCEPTION_TYPE: name,
        a.EXCEPTION_MESSAGE: text if text is not None else _placeholder(name),
        a.EXCEPTION_STACKTRACE: _stacktrace(error, name, text),
    }


def message(error: BaseException) -> str:
    """Return the message of an exception, or a placeholder similar to Python's if its `__str__` fails."""
    text = _text_of(error)
    return text if text is not None else _placeholder(qualified_name(type(error)))


def _placeholder(name: str) -> str:
    return f"<exception str() failed: {name}>"


def _text_of(error: BaseException) -> str | None:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - somebody else's code
        return None


def stacktrace(error: BaseException) -> str:
    """Return the stack trace as Python prints it, without the position markers below the lines.

    To place the markers, Python parses each line. That is slow, and before CPython 3.13 not thread-safe: a stage that
    parses Python code could fail because of it.
    """
    return _stacktrace(error, qualified_name(type(error)), _text_of(error))


def _stacktrace(error: BaseException, name: str, text: str | None) -> str:
    context = None if error.__suppress_context__ else error.__context__
    if error.__cause__ is None and context is None and not isinstance(error, BaseExceptionGroup):
        frames = _frames(error.__traceback__) if error.__traceback__ is not None else ""
        return frames + _last_lines(error, name, text)
    formatted = traceback.TracebackException.from_exception(error)
    pending, visited = [formatted], set()
    while pending:
        part = pending.pop()
        if id(part) in visited:
            continue
        visited.add(id(part))
        for frame in part.stack:
            frame.colno = frame.end_colno = None
        pending += [p for p in (part.__cause__, part.__context__, *(part.exceptions or ())) if p is not None]
    return "".join(formatted.format())


def _last_lines(error: BaseException, name: str, text: str | None) -> str:
    """Return the lines below the frames: for most exceptions a single line, which Python formats slowly."""
    if text is None or isinstance(error, _WITH_HINTS) or hasattr(error, "__notes__"):
        return "".join(traceback.format_exception_only(error))
    kind = type(error)
    if kind.__module__ == "__main__":
        name = kind.__qualname__
    return f"{name}: {text}\n" if text else f"{name}\n"


_WITH_HINTS: Final = (SyntaxError, ImportError, NameError, AttributeError)
"""Exceptions for which Python prints the position of the error or a suggestion."""

_MAX_FRAMES: Final = 256
_formatted: dict[tuple[int, ...], tuple[str, Sequence[CodeType]]] = {}
"""Formatted frames, by the ids and offsets of their code. During an outage the same line fails repeatedly, so its text
is looked up once. (The code objects are kept, so that their ids are not reused; hashing them would take longer.)"""


def _frames(raised: TracebackType) -> str:
    places: list[int] = []
    frame: TracebackType | None = raised
    while frame is not None:
        places += id(frame.tb_frame.f_code), frame.tb_lasti
        frame = frame.tb_next
    key = tuple(places)
    found = _formatted.get(key)
    if found is None:
        stack = traceback.StackSummary.extract(traceback.walk_tb(raised))
        text = "".join(["Traceback (most recent call last):\n", *stack.format()])
        if len(_formatted) >= _MAX_FRAMES:
            _formatted.clear()
        found = _formatted[key] = text, [frame.f_code for frame, _ in traceback.walk_tb(raised)]
    return found[0]


def qualified_name(kind: type) -> str:
    """Return the qualified name of a class, such as `json.decoder.JSONDecodeError`; built-in classes have no module."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
