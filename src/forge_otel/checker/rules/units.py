"""Rules for units."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from lark import Lark
from lark.exceptions import LarkError
from ucumvert import get_ucum_parser  # type: ignore[import-untyped]

from ..findings import Finding, shown
from ..model import Place, Registry
from .word_forms import is_plural, last_word

_TIMES: Final = frozenset(("ns", "us", "ms", "min", "h", "d", "wk", "mo", "a"))
_DURATIONS: Final = frozenset(("duration", "latency", "time"))
_ANNOTATION: Final = re.compile(r"\{([^{}]*)\}")


def _units(registry: Registry) -> Iterator[tuple[str, str, Place]]:
    """Yield the unit of each metric and attribute, with its name and place."""
    for name, metric in registry.metrics.items():
        yield name, metric.unit, metric.at("unit")
    for key, attribute in registry.attributes.items():
        if attribute.unit is not None:
            yield key, attribute.unit, attribute.at("annotations")


def _ucum(registry: Registry) -> Iterator[Finding]:
    for name, unit, place in _units(registry):
        if not _is_ucum(unit):
            message = f"{name}: {shown(unit)} is not UCUM; examples are `s`, `By`, `1` and `{{sample}}`"
            yield Finding(place, "unit/ucum", message)


@cache
def _is_ucum(unit: str) -> bool:
    try:
        _parser().parse(unit)
    except LarkError:
        return False
    return True


@cache
def _parser() -> Lark:
    parser: Lark = get_ucum_parser()
    return parser


def _annotation(registry: Registry) -> Iterator[Finding]:
    for name, unit, place in _units(registry):
        for thing in _ANNOTATION.findall(unit):
            if is_plural(last_word(thing)):
                yield Finding(place, "unit/annotation", f"{name}: {shown(unit)} is a plural; write the singular")


def _seconds(registry: Registry) -> Iterator[Finding]:
    for name, unit, place in _units(registry):
        if unit in _TIMES or (last_word(name) in _DURATIONS and unit != "s"):
            yield Finding(place, "unit/seconds", f"{name} is a time in {shown(unit)}; write `s`")
    for key, attribute in registry.attributes.items():
        if attribute.unit == "s" and attribute.type != "double":
            yield Finding(attribute.at("type"), "unit/seconds", f"{key} is in seconds and has type {attribute.type}")


UNIT_RULES: Final = (_ucum, _annotation, _seconds)
