"""Constant tags: of settings and of Datadog's variables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ..semconv.statsd import NAMES

Tags = tuple[tuple[str, str], ...]
"""Pairs of a key and a value, "" for a tag that has none."""

INSTANCE: Final = "instance"
"""The tag that distinguishes the gauges of several processes."""

ENTITY_ID: Final = "dd.internal.entity_id"
"""The tag by which Datadog's agent knows the sender's container."""

MAX_TAG: Final = 200
"""Maximum length in bytes of a tag with its value, as of a name, in DogStatsD; longer ones are cut."""

_EXPECTED: Final = "must be tags such as team:ml,region:eu"
_KEY: Final = re.compile(r"[^\W\d_][\w./-]*")
_VALUE: Final = re.compile(r"[\w./:-]*(?<!:)")
_OF_METRICS: Final = frozenset({INSTANCE, *(tag for each in NAMES.values() for tag in each.tags)})


def split_tags(text: str) -> list[str]:
    """Split text at its commas, or, if it has none, at its blanks: as Datadog's clients do."""
    return [tag.strip() for tag in (text.split(",") if "," in text else text.split()) if tag.strip()]


def check_tags(value: Any) -> Tags:
    """Check tags: text, a mapping, or a collection of texts or pairs. Of several with the same key, the last is used.

    Raises:
        ValueError: one of them cannot be sent.
    """
    try:
        return tuple(dict(map(check_tag, _each(value))).items())
    except ValueError as error:
        raise ValueError(f"{_EXPECTED}; {error}") from None
    except TypeError:
        raise ValueError(_EXPECTED) from None


def check_tag(tag: Any) -> tuple[str, str]:
    """Check one tag, a text or a pair.

    Raises:
        ValueError: it cannot be sent.
        TypeError: it is neither a text nor a pair.
    """
    if isinstance(tag, str):
        key, separator, value = tag.partition(":")
    elif isinstance(tag, tuple) and len(tag) == 2:
        key, value = map(str, tag)
        separator = ":" if value else ""
    else:
        raise TypeError
    shown = f"{key}{separator}{value}"
    if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value) or (separator and not value):
        raise ValueError(
            f"{shown!r} is none: a tag begins with a letter, has only letters, digits and _ . / -, and has a value "
            "after its colon"
        )
    if len(shown.encode()) > MAX_TAG:
        raise ValueError(f"{shown!r} has more than {MAX_TAG} bytes")
    if key in _OF_METRICS:
        raise ValueError(f"{shown!r} would replace a tag that the metrics have")
    return key, value


def _each(value: Any) -> Iterable[Any]:
    if isinstance(value, str):
        return split_tags(value)
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, list | tuple):
        return value
    raise TypeError


def datadog_tags(text: str) -> Iterator[tuple[str, str] | ValueError]:
    """Yield the tags of `DD_TAGS`, and the errors of those that cannot be used: other programs read it, too."""
    for tag in split_tags(text):
        try:
            yield check_tag(tag)
        except ValueError as error:
            yield error
