"""Checks of numbers that users give: a number has a range, not only a form."""

from __future__ import annotations

import math
import reprlib
from typing import Final, TypeGuard

MAX_COUNT: Final = 10**9
"""Largest number of things that a setting may name: databases and metrics can carry it, and sums of it."""


def is_count(value: object, least: int = 1, most: int = MAX_COUNT) -> TypeGuard[int]:
    """Return True for a whole number in this range."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_finite(value: object, least: float = 0.0) -> TypeGuard[float]:
    """Return True for a number of at least `least` that a float can hold."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def shown(value: object) -> str:
    """Return a short representation of any value, for messages."""
    try:
        return reprlib.repr(value)
    except Exception:  # noqa: BLE001 - the value's own `__repr__`; integers of many digits have none
        return f"one of type {type(value).__name__}"
