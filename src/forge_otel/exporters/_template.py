"""The template of names in StatsD."""

from __future__ import annotations

import re
from string import Formatter
from typing import Any, Final

PLACEHOLDERS: Final = ("name", "tags", "pipeline", "service", "env", "version", "instance")
"""Placeholders, in the order of the documentation."""

ABSENT: Final = "_"
"""The segment of a name for a value that is not known: segments keep their positions."""

_LITERAL: Final = re.compile(r"[A-Za-z0-9_.-]*")
_KNOWN: Final = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)


def check_template(value: Any) -> str:
    """Check a template.

    Raises:
        ValueError: it is not a text with `{name}` and other known placeholders.
    """
    if not isinstance(value, str):
        raise ValueError("must be text such as {name}.{tags}")
    try:
        parts = [(literal, field, spec, conversion) for literal, field, spec, conversion in Formatter().parse(value)]
    except ValueError:
        raise ValueError(f"must have a placeholder between every {{ and }}; there are {_KNOWN}") from None
    for literal, field, spec, conversion in parts:
        if field is not None and (field not in PLACEHOLDERS or spec or conversion):
            shown = f"{field}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}"
            raise ValueError(f"must not have the unknown placeholder {{{shown}}}; there are {_KNOWN}")
        if not _LITERAL.fullmatch(literal):
            raise ValueError(f"must have only letters, digits and _ . - around its placeholders, not {literal!r}")
    if all(field != "name" for _, field, _, _ in parts):
        raise ValueError("must have the placeholder {name}: without it, different metrics would be one")
    return value


def placeholders(template: str) -> frozenset[str]:
    """Return the placeholders of a template."""
    return frozenset(field for _, field, _, _ in Formatter().parse(template) if field)
