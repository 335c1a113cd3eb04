"""Durations as people write them."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION: Final = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,9})?)(?P<unit>[smhdw])")


def parse_duration(text: str) -> float:
    """Return the seconds of a number with a unit: `30s`, `1.5h`, `90d`; `m` are minutes, `w` weeks.

    Raises:
        ValueError: it is none; the message says what one looks like.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no duration; write a number with s, m, h, d or w, such as 90d or 1.5h")
    return float(found["number"]) * _UNITS[found["unit"]]
