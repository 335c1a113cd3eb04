"""How settings are checked, and read from text: what the configurations of this package have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """How the value of a field is checked and normalised, and how it is read from text; None where it is never text.

    `check` raises a `ValueError` that says what is allowed, as in "must be true or false". `parse` returns text that it
    cannot read as it is, for `check` to refuse.
    """

    check: Callable[[Any], Any]
    parse: Callable[[str], Any] | None = None


def check_fields(instance: Any, settings: Mapping[str, Setting]) -> None:
    """Check and normalise the fields of a frozen dataclass.

    Raises:
        ValueError: a field has a value that is not allowed.
    """
    for name, setting in settings.items():
        value = getattr(instance, name)
        try:
            object.__setattr__(instance, name, setting.check(value))
        except ValueError as error:
            raise ValueError(f"{name}={value!r}: it {error}") from None


def one_of(*allowed: str) -> Callable[[Any], str]:
    """A check for one of several words."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise ValueError(f"must be one of {', '.join(allowed)}")

    return check


def flag(value: Any) -> bool:
    """A check for true or false."""
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def word(text: str) -> str:
    """Reads a word, in capitals or not."""
    return text.strip().lower()


def boolean(text: str) -> bool | str:
    """Reads true or false."""
    return {"true": True, "false": False}.get(word(text), text)


def number(text: str) -> int | float | str:
    """Reads a whole number, or another."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
