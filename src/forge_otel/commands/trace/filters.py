"""Conditions on spans and log records: `forge.stage.name=annotate error.type=rate_limit duration>1s`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ...support.spelling import similar
from ..errors import CommandError
from .records import LogRecord, Span

_CONDITION: Final = re.compile(r"([\w.\-/]+)(!=|>=|<=|!~|=|>|<|~)(.*)", re.DOTALL)
_DURATION: Final = re.compile(r"([\d.]+(?:e-?\d+)?)(ns|us|µs|ms|s|m|h)?")
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_MAX_KEYS: Final = 1_000

FIELDS: Final[dict[str, Callable[[Span | LogRecord], Any]]] = {
    "name": lambda record: record.name,
    "trace_id": lambda record: record.trace_id,
    "span_id": lambda record: record.span_id,
    "duration": lambda record: record.duration if isinstance(record, Span) else None,
    "status": lambda record: ("error" if record.failed else "ok") if isinstance(record, Span) else None,
    "message": lambda record: record.message if isinstance(record, Span) else record.body,
    "severity": lambda record: record.severity.lower() if isinstance(record, LogRecord) else None,
}
"""Names in a condition beside attributes of the record and of its resource."""


@dataclass(slots=True)
class Filter:
    """A condition on spans and log records."""

    text: str
    _tests: list[Callable[[Span | LogRecord], bool]] = field(default_factory=list)
    _keys: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def __call__(self, record: Span | LogRecord) -> bool:
        """Return True if a record meets all conditions."""
        if len(self._seen) < _MAX_KEYS:
            self._seen.update(record.attributes, record.resource)
        return all(test(record) for test in self._tests)

    def suggestion(self) -> str:
        """Return a hint at a key that no record has; nothing if there is none."""
        known = [*FIELDS, *sorted(self._seen)]
        for key in self._keys:
            if key not in known:
                nearest = similar(key, known)
                return f"no record has {key}" + (f"; there is {nearest}" if nearest else "")
        return ""


def parse(text: str) -> Filter:
    """Return a filter: words separated by blanks, all of which must hold.

    A word is `KEY=VALUE`, with one of the operators `=`, `!=`, `<`, `<=`, `>`, `>=`, and `~` and `!~` for a regular
    expression found in the value; or any other text, which must occur in a name, message or value. `KEY=` is true where
    there is no such attribute. Durations may have a unit.

    Raises:
        CommandError: it is not a filter.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CommandError(f"{text!r}: {error}; quote values with blanks, like forge.sample.id='a b'") from None
    found = Filter(text)
    for word in words:
        if condition := _CONDITION.fullmatch(word):
            key, operator, value = condition.groups()
            found._keys.append(key)
            found._tests.append(_test(key, operator, value))
        else:
            found._tests.append(_occurrence(word))
    return found


def _occurrence(word: str) -> Callable[[Span | LogRecord], bool]:
    wanted = word.casefold()

    def test(record: Span | LogRecord) -> bool:
        message = record.message if isinstance(record, Span) else record.body
        texts = (record.name, message, *map(str, record.attributes.values()))
        return any(wanted in text.casefold() for text in texts)

    return test


def _test(key: str, operator: str, value: str) -> Callable[[Span | LogRecord], bool]:
    get = _getter(key)
    if operator in ("=", "!="):
        number = _number(value)

        def equal(record: Span | LogRecord) -> bool:
            has = get(record)
            if isinstance(has, bool):
                return str(has).lower() == value.lower()
            if isinstance(has, int | float) and number is not None:
                return has == number
            return ("" if has is None else str(has)) == value

        return equal if operator == "=" else lambda record: not equal(record)
    if operator in ("~", "!~"):
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise CommandError(f"{key}{operator}{value}: is not a regular expression: {error}") from None

        def found(record: Span | LogRecord) -> bool:
            has = get(record)
            return has is not None and pattern.search(str(has)) is not None

        return found if operator == "~" else lambda record: not found(record)
    limit = _number(value)
    if limit is None:
        raise CommandError(f"{key}{operator}{value}: {value!r} is not a number, or a duration like 1.5s")
    compare = _COMPARISONS[operator]

    def compared(record: Span | LogRecord) -> bool:
        has = get(record)
        return isinstance(has, int | float) and compare(has, limit)

    return compared


_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": lambda has, limit: has < limit,
    "<=": lambda has, limit: has <= limit,
    ">": lambda has, limit: has > limit,
    ">=": lambda has, limit: has >= limit,
}


def _getter(key: str) -> Callable[[Span | LogRecord], Any]:
    if named := FIELDS.get(key):
        return named
    return lambda record: record.attributes.get(key, record.resource.get(key))


def _number(text: str) -> float | None:
    """Return a number; with a unit, as durations have it, in seconds."""
    if match := _DURATION.fullmatch(text):
        try:
            return float(match[1]) * _UNITS[match[2]]
        except ValueError:
            return None
    try:
        return float(text)
    except ValueError:
        return None
