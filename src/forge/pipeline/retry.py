"""Retry policies, and classes of errors.

The classes are few on purpose: they stand on metrics. Exceptions of HTTP clients are recognised by their status
attribute and by the names of their classes, so that none of those libraries has to be imported.
"""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigurationError, RunCancelled
from ..support.http_dates import seconds_to_wait
from ..support.numbers import MAX_COUNT, is_count, is_finite, shown

RATE_LIMIT = "rate_limit"
SERVER_ERROR = "server_error"
CLIENT_ERROR = "client_error"
NETWORK_ERROR = "network_error"
TIMEOUT = "timeout"
CANCELLED = "cancelled"

TRANSIENT = frozenset({RATE_LIMIT, SERVER_ERROR, NETWORK_ERROR, TIMEOUT})
"""Classes of errors that may not occur again in another attempt."""

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


def classify(error: BaseException) -> str:
    """Return the class of an error: one of the constants above, or the qualified name of the exception's class.

    A status decides first (429, 5xx, other 4xx), then timeouts, then what failed below HTTP. Never the message.
    """
    if isinstance(error, asyncio.CancelledError | RunCancelled | KeyboardInterrupt | SystemExit | GeneratorExit):
        return CANCELLED
    status = http_status(error)
    if status is not None:
        if status == 429:
            return RATE_LIMIT
        return SERVER_ERROR if status >= 500 else CLIENT_ERROR
    # A wrapped timeout (URLError keeps the cause as its reason, requests as its argument) is still a timeout.
    reasons = (error, _attribute(error, "reason"), *error.args[:1])
    if any(isinstance(reason, TimeoutError) or _names(reason) & _TIMEOUT_CLASSES for reason in reasons):
        return TIMEOUT
    if isinstance(error, ConnectionError | socket.gaierror | socket.herror) or _names(error) & _NETWORK_CLASSES:
        return NETWORK_ERROR
    if isinstance(error, OSError) and error.errno in _NETWORK_ERRNOS:
        return NETWORK_ERROR
    return _class_name(type(error))


def _class_name(kind: type) -> str:
    """Return a qualified name such as `json.decoder.JSONDecodeError`; built-in classes have no module."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """Return the message of an error, even if its `__str__` fails."""
    try:
        return str(error)
    except Exception as fault:  # noqa: BLE001 - somebody else's code
        return f"{_class_name(type(error))}, whose message could not be read: {type(fault).__name__}"


def http_status(error: BaseException) -> int | None:
    """Return the HTTP error status of an exception, if it has one."""
    response = _attribute(error, "response")
    if isinstance(response, Mapping):  # botocore
        metadata = response.get("ResponseMetadata")
        found = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
        return _error_status(found)
    for owner in (error, response):
        # One after the other: aiohttp warns about whoever looks at `code`, and has `status`.
        for name in ("status_code", "status", "code"):
            found = _error_status(_attribute(owner, name))
            if found is not None:
                return found
    return None


def retry_after(error: BaseException, now: float | None = None) -> float | None:
    """Return the seconds that the server asked to wait (RFC 9110 `Retry-After`: seconds or a date), or None.

    Possibly infinite, as the number of seconds has no limit.
    """
    response = _attribute(error, "response")
    if isinstance(response, Mapping):
        metadata = response.get("ResponseMetadata")
        headers = metadata.get("HTTPHeaders") if isinstance(metadata, Mapping) else None
    else:
        headers = _attribute(error, "headers") or _attribute(response, "headers")
    value = _header(headers, "Retry-After")
    return None if value is None else seconds_to_wait(value, time.time() if now is None else now)


def _header(headers: Any, name: str) -> str | None:
    get = getattr(headers, "get", None)
    if get is None:
        return None
    # Plain dicts (botocore's are lower case) know nothing of case.
    value = get(name)
    if value is None:
        value = get(name.lower())
    return value if isinstance(value, str) else None


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute; None if there is none, or it is a property that raises."""
    try:
        return getattr(owner, name, None)
    except Exception:  # noqa: BLE001 - somebody else's code
        return None


def _names(thing: Any) -> set[tuple[str, str]]:
    """Return the names of an object's class and base classes, with their packages."""
    return {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(thing).__mro__}


def _error_status(value: Any) -> int | None:
    is_status = isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599
    return int(value) if is_status else None


def _transient(error: BaseException) -> bool:
    return classify(error) in TRANSIENT


def _random() -> float:
    # Pickled by name, unlike `random.random`, which takes along the state of its generator: all processes that are
    # given the same policy would come back at the same time.
    return random.random()  # noqa: S311 - nothing is secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The number of attempts of a failing call, and the delays between them.

    The wait before attempt n + 1 is `initial_delay * multiplier ** (n - 1)`, at most `max_delay`, of which a random
    share of `jitter` (0 to 1) is taken away so that many workers do not come back together. A `Retry-After` of the
    server replaces a shorter wait; one longer than `max_retry_after` is not waited for: the sample fails.

    Raises:
        ConfigurationError: for values that make no sense.
    """

    max_attempts: int = 3
    """Total number of attempts, at least 1; 1 disables retries."""
    initial_delay: float = 0.5
    """Seconds to wait before the second attempt."""
    multiplier: float = 2.0
    """Factor, at least 1, by which the delay grows with each further attempt."""
    max_delay: float = 30.0
    """Upper bound of the computed delay, in seconds."""
    jitter: float = 0.5
    """Share of the delay, 0 to 1, that is randomised."""
    max_retry_after: float = 300.0
    """Longest `Retry-After` to honour, in seconds; the sample fails if the server asks for more."""
    retry_on: Callable[[BaseException], bool] = _transient
    """Returns True for errors worth another attempt; by default rate limits, 5xx, network errors and timeouts."""
    random: Callable[[], float] = field(default=_random, repr=False)
    """Source of the jitter: random numbers from 0 to 1."""

    def __post_init__(self) -> None:
        seconds = "a number of seconds, and not negative"
        for name, good, wanted in (
            ("max_attempts", is_count(self.max_attempts), f"a whole number from 1 to {MAX_COUNT}"),
            ("jitter", is_finite(self.jitter) and self.jitter <= 1, "between 0 and 1"),
            ("initial_delay", is_finite(self.initial_delay), seconds),
            ("max_delay", is_finite(self.max_delay), seconds),
            ("max_retry_after", is_finite(self.max_retry_after), seconds),
            ("multiplier", is_finite(self.multiplier, 1), "a number of at least 1"),
        ):
            if not good:
                raise ConfigurationError(f"RetryPolicy({name}={shown(getattr(self, name))}): must be {wanted}")

    def delay(self, error: BaseException, attempt: int, now: float | None = None) -> float | None:
        """Return the seconds to wait after the failed attempt number `attempt` (from 1), or None to give up.

        `now` is the Unix time with which a `Retry-After` date is compared, by default the machine's.
        """
        if attempt >= self.max_attempts or not self.retry_on(error):
            return None
        delay = self._backoff(attempt) * (1 - self.jitter * self.random())
        asked = retry_after(error, now)
        if asked is None:
            return delay
        return max(delay, asked) if asked <= self.max_retry_after else None

    def _backoff(self, attempt: int) -> float:
        """Return the delay after an attempt, without jitter."""
        try:
            return min(self.max_delay, self.initial_delay * float(self.multiplier) ** (attempt - 1))
        except OverflowError:
            return self.max_delay if self.initial_delay else 0.0


NO_RETRY = RetryPolicy(max_attempts=1)
