"""Retry policies: which failed calls are repeated, and after which delay."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import ConfigurationError
from ..support.http_dates import seconds_to_wait
from ..support.numbers import MAX_COUNT, is_count, is_finite, shown
from .exceptions import TRANSIENT, classify, response_header


def retry_after(error: BaseException, now: float | None = None) -> float | None:
    """Return the seconds that the server asked to wait (RFC 9110 `Retry-After`: seconds or a date), or None.

    Possibly infinite, as the number of seconds has no limit.
    """
    value = response_header(error, "Retry-After")
    return None if value is None else seconds_to_wait(value, time.time() if now is None else now)


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
    """Returns True for errors worth another attempt; by default those of a class in `TRANSIENT`: rate limits, 5xx,
    network errors and timeouts, also those that the server reports (408, 425)."""
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
        share = min(1.0, max(0.0, self.random()))  # whatever it returns, the delay can be waited
        delay = self._backoff(attempt) * (1 - self.jitter * share)
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
