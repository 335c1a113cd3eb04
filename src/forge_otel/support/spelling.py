"""Suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_SHORT: Final = 12
"""Length below which names with two typing errors in common are different names."""


def similar(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name`, which is certainly wrong, most resembles; None if it resembles none."""
    names = list(known)
    matches = get_close_matches(name, names, n=1) or [each for each in names if name and each.startswith(name)]
    return matches[0] if matches else None


def misspelled(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is a misspelling of; None if it may well be another name.

    A misspelling has one typing error, or two if it is long; the same words in another order; or all but one of them.
    """
    allowed = 1 if len(name) < _SHORT else 2
    words = sorted(name.split("_"))
    nearest: tuple[int, str] | None = None
    for each in known:
        errors = _errors(name, each, allowed)
        if errors > allowed and _has_the_words(words, sorted(each.split("_"))):
            errors = allowed
        if errors <= allowed and (nearest is None or errors < nearest[0]):
            nearest = errors, each
    return nearest[1] if nearest else None


def _has_the_words(words: list[str], others: list[str]) -> bool:
    if len(words) == len(others):
        return words == others
    return len(words) > 2 and len(words) + 1 == len(others) and all(word in others for word in words)


def _errors(name: str, other: str, limit: int) -> int:
    """Return the number of typing errors (a letter more, less, other, or swapped with the next), up to `limit` + 1."""
    if abs(len(name) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(name, 1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and name[i - 2] == wanted:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > limit + 1:
            return limit + 1
    return row[-1]
