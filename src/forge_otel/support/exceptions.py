"""Exceptions: the names of their classes, their messages and stack traces.

Those of user code are strangers: an attribute may raise or have another type than usual, the message may not be
readable. Nothing else reads attributes of exceptions, so that none of this harms the pipeline, or costs more telemetry
than it must.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, TracebackType
from typing import Any, Final

from .text import escape


class RemoteTrace(Exception):  # noqa: N818 - no error, but where a text can stand, as in `concurrent.futures`
    """The stack trace of another process."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return f'\n"""\n{self._text}\n"""'


def class_name(kind: type) -> str:
    """Return the qualified name of a class, such as `json.decoder.JSONDecodeError`; built-in classes have no module."""
    # A class whose metaclass is not Python's own may say of itself that it equals another one.
    known = _names.get(kind) if type(kind) is type else None
    if known is not None:
        return known
    module, name = _module(kind), _QUALNAME(kind)
    full = name if module in {"", "builtins"} else f"{module}.{name}"
    if type(kind) is type:
        if len(_names) >= _MAX_KINDS:
            _names.clear()
        _names[kind] = full
    return full


def is_a(thing: object, kind: type) -> bool:
    """Return True if an object is an instance of a class, whatever its `__class__` says."""
    return issubclass(type(thing), kind)


def message(error: BaseException) -> str:
    """Return the message of an exception, or a placeholder similar to Python's if its `__str__` fails."""
    text = _text_of(error)
    return text if text is not None else f"<exception str() failed: {class_name(type(error))}>"


def stacktrace(error: BaseException) -> str | None:
    """Return the stack trace as Python prints it, without the position markers below the lines; None if Python cannot.

    To place the markers, Python parses each line. That is slow, and before CPython 3.13 not thread-safe: a stage that
    parses Python code could fail because of it.
    """
    try:
        return _stacktrace(error, class_name(type(error)), _text_of(error)) if _is_honest(error) else None
    except Exception:  # noqa: BLE001 - somebody else's code
        return None


def with_remote_trace(error: BaseException, trace: str) -> BaseException:
    """Return an exception of another process with the stack trace from there, as a cause that stack traces show."""
    error.__cause__ = RemoteTrace(trace)
    return error


def printable(error: BaseException) -> BaseException | None:
    """Return the error if Python can print its stack trace, and any log take that; otherwise None."""
    try:
        if not _is_honest(error):
            return None
        "".join(traceback.format_exception(error)).encode()
    except Exception:  # noqa: BLE001 - somebody else's code
        return None
    return error


def _is_honest(error: BaseException) -> bool:
    """Return True if Python, which formats the errors behind an error as well, finds what is really there.

    A property `__cause__` that makes a new error each time would keep it busy forever.
    """
    if _CAUSE(error) is None and _CONTEXT(error) is None and not is_a(error, BaseExceptionGroup):  # the usual one
        return _has_real_attributes(type(error))
    pending, seen = [error], set[int]()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        kind = type(each)
        if not _has_real_attributes(kind):
            return False
        behind = [_CAUSE(each), _CONTEXT(each)]
        if issubclass(kind, BaseExceptionGroup):
            members: Any = getattr(kind, "exceptions", None)
            if members is not _MEMBERS:
                return False
            behind += members.__get__(each)
        pending += [other for other in behind if other is not None]
    return True


def _has_real_attributes(kind: type) -> bool:
    """Return True if an exception class leaves the attributes that Python reads as they are."""
    # A class whose metaclass is not Python's own may say of itself that it equals another one.
    if type(kind) is type and kind in _honest_kinds:
        return True
    if any(getattr(kind, name) is not found for name, found in _READ_BY_PYTHON.items()):
        return False
    if type(kind) is type:
        if len(_honest_kinds) >= _MAX_KINDS:
            _honest_kinds.clear()
        _honest_kinds.add(kind)
    return True


_MAX_KINDS: Final = 256
"""Classes that are known: during an outage the same ones occur again and again."""
_honest_kinds: set[type] = set()
"""Classes that have the real attributes."""
_names: dict[type, str] = {}
"""Qualified names."""

_READ_BY_PYTHON: Final[Mapping[str, Any]] = {
    name: vars(BaseException)[name]
    for name in ("__cause__", "__context__", "__getattribute__", "__suppress_context__", "__traceback__")
}
_CAUSE: Any = vars(BaseException)["__cause__"].__get__
_CONTEXT: Any = vars(BaseException)["__context__"].__get__
_MEMBERS: Any = vars(BaseExceptionGroup)["exceptions"]


# The real attributes, of which a metaclass may have others of the same name.
_QUALNAME: Callable[[type], str] = vars(type)["__qualname__"].__get__
_GET_MODULE: Callable[[type], Any] = vars(type)["__module__"].__get__


def _module(kind: type) -> str:
    """Return the name of a class's module; empty if it has none, or one that cannot be encoded."""
    try:
        module = _GET_MODULE(kind)
    except AttributeError:  # made by `type()` outside of a module
        return ""
    return str.__str__(module) if is_a(module, str) and escape(module) == module else ""


def _text_of(error: BaseException) -> str | None:
    try:
        return str.__str__(str(error))  # of a subclass, the text alone
    except Exception:  # noqa: BLE001 - somebody else's code
        return None


def _stacktrace(error: BaseException, name: str, text: str | None) -> str:
    context = None if error.__suppress_context__ else error.__context__
    if error.__cause__ is None and context is None and not is_a(error, BaseExceptionGroup):
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
    if text is None or issubclass(type(error), _WITH_HINTS) or hasattr(error, "__notes__"):
        return "".join(traceback.format_exception_only(error))
    name = name.removeprefix("__main__.")
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
