"""What can be wrong with a registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .model import Place

RULES: Final[Mapping[str, str]] = {
    "file/unreadable": "A file can be read: it is a regular file, and there is permission.",
    "file/size": "A file has at most 1 MiB, and at most 100 000 values with every alias written out.",
    "file/encoding": "A file is UTF-8 without control characters.",
    "yaml/syntax": "A file is YAML 1.2, and defines an anchor once.",
    "yaml/document": "A file holds exactly one document, a mapping.",
    "yaml/key": "Keys are strings, and stand once in a mapping. There are no merge keys (`<<`).",
    "yaml/tag": "There are no tags (`!!python/object` and the like).",
    "yaml/number": "Integers fit into 64 bits, and doubles are finite.",
    "yaml/depth": "Collections are nested at most 32 deep.",
    "structure": "Files have the fields of `definition/2`, with values of the right types (definition.schema.json), "
    "and the manifest its own (manifest.schema.json).",
    "reference/unknown": "A `ref` names an attribute of the registry or of OpenTelemetry's conventions, a `ref_group` "
    "a group of the registry.",
    "reference/cycle": "No group contains itself.",
    "reference/collision": "A signal has an attribute once: not from two groups, and not by two references.",
    "reference/deprecated": "What is not deprecated itself does not refer to a deprecated attribute.",
    "reference/size": "All signals and groups together refer to at most 100 000 attributes.",
    "name/format": "A name is lowercase words separated by `.` and `_`, and begins with a letter.",
    "name/duplicate": "A name is defined once.",
    "name/root": "All names begin with the same word, the registry's root namespace.",
    "name/opentelemetry": "No name is inside a namespace of OpenTelemetry's conventions.",
    "name/namespace": "Among attributes, and among metrics, no name is the namespace of another one.",
    "name/constant": "Names of one kind still differ when dots become underscores, as they do in code and Prometheus.",
    "name/prometheus": "No two metrics have a series of the same name in Prometheus.",
    "name/statsd": "Metrics with the same StatsD name have the same type, unit and tags there.",
    "text/brief": "A brief is one line, begins with a capital and ends with a period.",
    "unit/ucum": "A unit is UCUM.",
    "unit/annotation": "A unit in braces names one thing: `{sample}`, not `{samples}`.",
    "unit/seconds": "Durations and times are in `s`, and attributes with that unit are doubles.",
    "attribute/members": "The members of an enumeration have different ids and values, all of one type.",
    "attribute/examples": "Examples have the attribute's type, and a string that is no enumeration has some.",
    "metric/name": "A metric's name has neither a unit nor `total` at its end: both are added in Prometheus.",
    "metric/counter": "A counter of things is named by a plural noun or a past participle and has a unit in braces; "
    "one of a quantity ends in `time`, `io` or `amount`.",
    "metric/singular": "The names of up-down counters and gauges are singular.",
    "metric/boundaries": "A histogram has bucket boundaries in increasing order; no other metric has any.",
    "metric/attribute": "A metric has only attributes marked `on_metrics`, or OpenTelemetry's.",
    "metric/statsd": "In StatsD a counter is `c`, a histogram `h`, anything else `g`; only seconds become `ms`; tags "
    "are attributes of the metric.",
    "span/name": "What stands in braces in a span's name is an attribute of the span.",
    "event/body": "What stands in braces in an event's body, and has a dot, is an attribute of the event.",
    "deprecated/target": "What something was renamed to exists, is of the same kind and is not deprecated.",
}
"""What is checked, by rule."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong."""

    place: Place
    rule: str
    """One of `RULES`."""
    message: str

    def __str__(self) -> str:
        line = f"{self.place}: {self.rule}: {self.message}"
        return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)


class RegistryError(Exception):
    """A registry cannot be used; `findings` say what is wrong, and where."""

    def __init__(self, directory: Path, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join([f"{directory}: the registry has errors", *map(str, findings)]))
        self.findings = tuple(findings)


class NoRegistryError(Exception):
    """A directory is not there, or is no registry."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(f"{directory}: {reason}")


def shown(value: object) -> str:
    """A value of a file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
