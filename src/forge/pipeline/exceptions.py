"""Exceptions: their classes, messages and notes.

Those of user code are strangers: an attribute may raise, have another type than usual or refuse to be set, the message
may not be readable. Nothing else reads or sets attributes of exceptions, so that none of this harms a run.

The classes of errors are few on purpose: they stand on metrics. Exceptions of HTTP clients are recognised by their
status attribute and by the names of their classes, so that none of those libraries has to be imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard, TypeVar

from ..errors import RunCancelled
from ..support.text import escape, is_fit

T = TypeVar("T")

RATE_LIMIT = "rate_limit"
SERVER_ERROR = "server_error"
CLIENT_ERROR = "client_error"
NETWORK_ERROR = "network_error"
TIMEOUT = "timeout"
CANCELLED = "cancelled"

TRANSIENT = frozenset({RATE_LIMIT, SERVER_ERROR, NETWORK_ERROR, TIMEOUT})
"""Classes of errors that may not occur again in another attempt."""

_CANCELLATIONS = (asyncio.CancelledError, RunCancelled, KeyboardInterrupt, SystemExit, GeneratorExit)
_STATUS_CLASSES = {
    408: TIMEOUT,
    425: NETWORK_ERROR,  # Too Early: the TLS handshake was not over, and is by the next attempt
    429: RATE_LIMIT,
}
_TIMEOUT_CLASSES = {
    ("requests", "Timeout"),
    ("httpx", "TimeoutException"),
    ("openai", "APITimeoutError"),
    ("anthropic", "APITimeoutError"),
    ("botocore", "ConnectTimeoutError"),
    ("botocore", "ReadTimeoutError"),
    ("urllib3", "TimeoutError"),
}
_NETWORK_CLASSES = {
    ("requests", "ConnectionError"),
    ("requests", "ChunkedEncodingError"),
    ("httpx", "TransportError"),
    ("httpcore", "NetworkError"),
    ("aiohttp", "ClientConnectionError"),
    ("aiohttp", "ClientPayloadError"),
    ("openai", "APIConnectionError"),
    ("anthropic", "APIConnectionError"),
    ("botocore", "HTTPClientError"),
    ("botocore", "ConnectionError"),
    ("http", "IncompleteRead"),
    ("urllib", "URLError"),
    ("urllib3", "HTTPError"),
}
_NETWORK_ERRNOS = {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH}


class RemoteError(Exception):
    """An error of another process that could not be sent; its class has the name of the original."""

    error_type: str
    """The class of the original."""


def classify(error: BaseException) -> str:
    """Return the class of an error: one of the constants above, or the qualified name of the exception's class.

    A status decides first (408, 425, 429, 5xx, other 4xx), then timeouts, then what failed below HTTP. Never the
    message.
    """
    if is_a(error, *_CANCELLATIONS):
        return CANCELLED
    if is_a(error, RemoteError):
        return error.error_type
    status = http_status(error)
    if status is not None:
        return _STATUS_CLASSES.get(status, SERVER_ERROR if status >= 500 else CLIENT_ERROR)
    # A wrapped timeout (URLError keeps the cause as its reason, requests as its argument) is still a timeout.
    for reason in (error, _attribute(error, "reason"), *_ARGUMENTS(error)[:1]):
        if is_a(reason, BaseException) and (is_a(reason, TimeoutError) or _names(type(reason)) & _TIMEOUT_CLASSES):
            return TIMEOUT
    if is_a(error, ConnectionError, socket.gaierror, socket.herror) or _names(type(error)) & _NETWORK_CLASSES:
        return NETWORK_ERROR
    if is_a(error, OSError) and _integer(_attribute(error, "errno")) in _NETWORK_ERRNOS:
        return NETWORK_ERROR
    return class_name(type(error))


def is_a(thing: object, *kinds: type[T]) -> TypeGuard[T]:
    """Return True if an object is an instance of one of these classes, whatever its `__class__` says."""
    return issubclass(type(thing), kinds)


def class_name(kind: type) -> str:
    """Return a qualified name such as `json.decoder.JSONDecodeError`; built-in classes have no module."""
    module, name = _module(kind), _QUALNAME(kind)
    return name if module in {"", "builtins"} else f"{module}.{name}"


def message_of(error: BaseException) -> str:
    """Return the message of an error, even if its `__str__` fails."""
    try:
        return str.__str__(str(error))  # of a subclass, the text alone
    except Exception as fault:  # noqa: BLE001 - somebody else's code
        return f"{class_name(type(error))}, whose message could not be read: {class_name(type(fault))}"


def describe(error: BaseException) -> str:
    """Return the qualified name and the message of an error, on one line that any log takes."""
    message = " ".join(escape(message_of(error)).split())
    name = class_name(type(error))
    return f"{name}: {message}" if message else name


def printable(error: BaseException) -> BaseException | None:
    """Return the error if Python can print its stack trace, and any log take that; otherwise None."""
    try:
        if not _is_honest(error):
            return None
        "".join(traceback.format_exception(error)).encode()
    except Exception:  # noqa: BLE001 - somebody else's code
        return None
    return error


def stack_trace(error: BaseException, *, notes: bool) -> str:
    """Return the stack trace of an error, with or without its own notes; empty if it cannot be formatted."""
    try:
        formatted = traceback.TracebackException.from_exception(error)
        if not notes:
            formatted.__notes__ = None
        return escape("".join(formatted.format()))
    except Exception:  # noqa: BLE001 - somebody else's code
        return ""


def _is_honest(error: BaseException) -> bool:
    """Return True if Python, which formats the errors behind an error as well, finds what is really there.

    A property `__cause__` that makes a new error each time would keep it busy forever.
    """
    pending, seen = [error], set[int]()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        kind = type(each)
        if any(getattr(kind, name) is not found for name, found in _READ_BY_PYTHON.items()):
            return False
        behind = [_READ_BY_PYTHON["__cause__"].__get__(each), _READ_BY_PYTHON["__context__"].__get__(each)]
        if issubclass(kind, BaseExceptionGroup):
            members: Any = getattr(kind, "exceptions", None)
            if members is not _MEMBERS:
                return False
            behind += members.__get__(each)
        pending += [other for other in behind if other is not None]
    return True


_READ_BY_PYTHON: Final[Mapping[str, Any]] = {
    name: vars(BaseException)[name]
    for name in ("__cause__", "__context__", "__getattribute__", "__suppress_context__", "__traceback__")
}
_MEMBERS: Any = vars(BaseExceptionGroup)["exceptions"]


def add_note(error: BaseException, note: str) -> None:
    """Add a note that Python prints below the message, if the error takes one."""
    with contextlib.suppress(Exception):
        error.add_note(note)


def set_context(error: BaseException, context: BaseException) -> None:
    """Say that an error occurred while another one was handled, if it takes that."""
    with contextlib.suppress(Exception):
        error.__context__ = context


def outside_iteration(what: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function that is not an iterator's `__next__`, so that its `StopIteration` does not mean the end of one.

    Raises:
        RuntimeError: as `no_stop` returns it.
        BaseException: anything else that the function raised.
    """
    try:
        return function(*arguments)
    except (StopIteration, StopAsyncIteration) as error:
        raise no_stop(error, what) from error


def no_stop(error: BaseException, what: str) -> BaseException:
    """Return the error; for `StopIteration` and `StopAsyncIteration`, which would end a loop of the consumer as if all
    were well, and which no future takes, a `RuntimeError` caused by it, as PEP 479 has it.
    """
    if not is_a(error, StopIteration, StopAsyncIteration):
        return error
    wrapped = RuntimeError(f"{what} raised {class_name(type(error))}")
    wrapped.__cause__ = error
    return wrapped


def http_status(error: BaseException) -> int | None:
    """Return the HTTP error status of an exception, if it has one."""
    response = _attribute(error, "response")
    if is_a(response, dict):  # botocore
        return _error_status(_entry(_entry(response, "ResponseMetadata"), "HTTPStatusCode"))
    for owner in (error,) if response is None else (error, response):
        # One after the other: aiohttp warns about whoever looks at `code`, and has `status`.
        for name in ("status_code", "status", "code"):
            found = _error_status(_attribute(owner, name))
            if found is not None:
                return found
    return None


def response_header(error: BaseException, name: str) -> str | None:
    """Return a header of the HTTP response that an exception is about, if it has one."""
    response = _attribute(error, "response")
    botocore = _entry(_entry(response, "ResponseMetadata"), "HTTPHeaders") if is_a(response, dict) else None
    for headers in (botocore, _attribute(error, "headers"), _attribute(response, "headers")):
        # Plain dicts (botocore's are lower case) know nothing of case.
        for spelling in (name, name.lower()):
            value = _entry(headers, spelling)
            if is_a(value, str):
                return str.__str__(value)
    return None


# The real attributes, of which a class may have others of the same name.
_ARGUMENTS: Callable[[BaseException], tuple[Any, ...]] = vars(BaseException)["args"].__get__
_QUALNAME: Callable[[type], str] = vars(type)["__qualname__"].__get__
_NAME: Callable[[type], str] = vars(type)["__name__"].__get__
_BASES: Callable[[type], tuple[type, ...]] = vars(type)["__mro__"].__get__


def _module(kind: type) -> str:
    """Return the name of a class's module; empty if it has none, or one that cannot be encoded."""
    try:
        module: object = vars(type)["__module__"].__get__(kind)
    except AttributeError:  # made by `type()` outside of a module
        return ""
    return str.__str__(module) if is_a(module, str) and is_fit(module) else ""


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute; None if there is none, or it is a property that raises."""
    try:
        return getattr(owner, name, None)
    except Exception:  # noqa: BLE001 - somebody else's code
        return None


def _entry(owner: Any, key: str) -> Any:
    """Return the entry of a mapping, or of whatever has a method `get`; None if there is none, or it raises."""
    try:
        return owner.get(key)
    except Exception:  # noqa: BLE001 - somebody else's code
        return None


def _integer(value: Any) -> int | None:
    """Return an integer, also of a subclass such as `http.HTTPStatus`; None for anything else."""
    return int.__index__(value) if is_a(value, int) and not is_a(value, bool) else None


def _error_status(value: Any) -> int | None:
    status = _integer(value)
    return status if status is not None and 400 <= status <= 599 else None


def _names(kind: type) -> frozenset[tuple[str, str]]:
    """Return the names of a class and its base classes, with their packages."""
    # A class whose metaclass is not Python's own may say of itself that it equals another one.
    known = _known_names.get(kind) if type(kind) is type else None
    if known is None:
        known = frozenset((_module(base).partition(".")[0], _NAME(base)) for base in _BASES(kind))
        if type(kind) is type:
            if len(_known_names) >= _MOST_KNOWN:
                _known_names.clear()
            _known_names[kind] = known
    return known


_MOST_KNOWN: Final = 256
_known_names: dict[type, frozenset[tuple[str, str]]] = {}
"""The names of the classes of errors so far: during an outage the same ones are asked for again and again."""
