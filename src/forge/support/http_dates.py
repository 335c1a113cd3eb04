"""Dates and waits in HTTP headers (RFC 9110)."""

from __future__ import annotations

import email.utils
import re
from datetime import UTC, datetime

_SECONDS = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")
"""A number of seconds; signs and fractions are not in the RFC, but in use."""
_RFC_850 = re.compile(r"[A-Za-z]+, *[0-9]{1,2}-[A-Za-z]{3}-[0-9]{2} ")
"""The beginning of a date whose year has two digits."""


def seconds_to_wait(retry_after: str, now: float) -> float | None:
    """Return the seconds, from `now` (Unix time) on, that a `Retry-After` asks to wait; None if it cannot be read.

    It is a number of seconds or a date. Numbers beyond those of a float are infinite.
    """
    retry_after = retry_after.strip()
    if _SECONDS.fullmatch(retry_after):
        return max(0.0, float(retry_after))
    moment = parse_date(retry_after, now)
    return None if moment is None else max(0.0, moment - now)


def parse_date(text: str, now: float) -> float | None:
    """Return the Unix time of an HTTP date in any of its three forms; None if it is none.

    All of them are in UTC (section 5.6.7), whatever the local zone is; offsets, as mail has them, are taken as written.
    """
    try:
        date = email.utils.parsedate_to_datetime(text)
        if date.tzinfo is None:  # without a zone, as asctime writes it, or with `-0000`
            date = date.replace(tzinfo=UTC)
        if _RFC_850.match(text):  # at most 50 years in the future
            latest = datetime.fromtimestamp(now, UTC).year + 50
            date = date.replace(year=latest - (latest - date.year) % 100)
        return date.timestamp()
    except (ValueError, OverflowError, OSError):
        return None
