"""Settings as fields of a dataclass, declared with their check and, where text can set them, their parser."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MAX_COUNT: Final = 10**9
"""Largest number of things that a setting may name."""
MAX_SECONDS: Final = 4_000_000
"""Longest time that a setting may name: some weeks, which threads can wait on every platform."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The check of a field, and its parser; None if text cannot set it.

    `check` normalises a value, or raises a `ValueError` that completes "it …", as in "must be true or false". `parse`
    returns text that it cannot read unchanged, for `check` to refuse.
    """

    check: Callable[[Any], Any]
    parse: Callable[[str], Any] | None = None

    def from_text(self, text: str) -> Any:
        """Parse and check text.

        Raises:
            ValueError: the value is not allowed.
        """
        return self.check(self.parse(text) if self.parse else text.strip())


def setting(check: Callable[[Any], Any], parse: Callable[[str], Any] | None = None) -> dict[str, Setting]:
    """Return the metadata of a dataclass field that is a setting."""
    return {"setting": Setting(check, parse)}


def settings_of(configuration: type[Any]) -> dict[str, Setting]:
    """Return the settings that a dataclass declares, by field name."""
    return {field.name: field.metadata["setting"] for field in dataclasses.fields(configuration)}


def check_fields(instance: Any) -> None:
    """Check and normalise the fields of a frozen dataclass.

    Raises:
        ValueError: a field has a value that is not allowed.
    """
    for name, declared in settings_of(type(instance)).items():
        value = getattr(instance, name)
        try:
            object.__setattr__(instance, name, declared.check(value))
        except ValueError as error:
            raise ValueError(f"{name}={value!r}: it {error}") from None


def one_of(*allowed: str) -> Callable[[Any], str]:
    """Return a check for one of several words."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise ValueError(f"must be one of {', '.join(allowed)}")

    return check


def flag(value: Any) -> bool:
    """Check for a boolean."""
    if isinstance(value, bool):
        return value
    raise ValueError("must be true or false")


def whole(least: int, most: int = MAX_COUNT) -> Callable[[Any], int]:
    """Return a check for a whole number in a range."""

    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise ValueError(f"must be a whole number from {least} to {most}")

    return check


def seconds(value: Any) -> float:
    """Check for a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_SECONDS:
        return float(value)
    raise ValueError(f"must be a number of seconds from 0 to {MAX_SECONDS}")


def word(text: str) -> str:
    """Parse a word, in upper or lower case."""
    return text.strip().lower()


def boolean(text: str) -> bool | str:
    """Parse a boolean."""
    return {"true": True, "false": False}.get(word(text), text)


def number(text: str) -> int | float | str:
    """Parse an integer or a float."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
