"""Rules for registries, and findings of their violations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .model import Place

RULES: Final[Mapping[str, str]] = {
    "file/unreadable": "A file is a regular file that can be read.",
    "file/size": "A file has at most 1 MiB, and at most 100 000 values with all aliases expanded.",
    "file/encoding": "A file is UTF-8 without control characters.",
    "yaml/syntax": "A file is YAML 1.2, and defines an anchor once.",
    "yaml/document": "A file contains exactly one document, a mapping.",
    "yaml/key": "Keys are strings, and unique within a mapping. There are no merge keys (`<<`).",
    "yaml/tag": "There are no tags such as `!!python/object`.",
    "yaml/number": "Integers fit into 64 bits, and doubles are finite.",
    "yaml/depth": "Collections are nested at most 32 deep.",
    "structure": "Files conform to definition.schema.json, and the manifest to manifest.schema.json.",
    "registry/empty": "A registry defines something.",
    "reference/unknown": "A `ref` names an attribute of the registry or of OpenTelemetry's semantic conventions, a "
    "`ref_group` a group of the registry.",
    "reference/cycle": "No group contains itself.",
    "reference/collision": "A signal has each attribute once: not from two groups, and not by two references.",
    "reference/deprecated": "Only deprecated definitions refer to deprecated attributes.",
    "reference/size": "All signals and groups together refer to at most 100 000 attributes.",
    "name/format": "A name consists of lowercase words separated by `.` and `_`, and begins with a letter.",
    "name/duplicate": "A name is defined once.",
    "name/root": "All names begin with the same word, the registry's root namespace.",
    "name/opentelemetry": "No name is in a namespace of OpenTelemetry's semantic conventions.",
    "name/namespace": "No name is the namespace of another name of its kind, among attributes and among metrics.",
    "name/constant": "Names of one kind differ even with dots replaced by underscores, as in code and Prometheus.",
    "name/prometheus": "No two metrics share the name of a Prometheus series.",
    "name/statsd": "Metrics with the same StatsD name have the same type, unit and tags there.",
    "text/brief": "A brief is one line that begins with a capital and ends with a period.",
    "unit/ucum": "A unit is UCUM.",
    "unit/annotation": "A unit in braces is singular: `{sample}`, not `{samples}`.",
    "unit/seconds": "Durations and times are in `s`, and attributes with that unit are doubles.",
    "attribute/members": "The members of an enumeration have unique ids and unique values of one type.",
    "attribute/examples": "Examples have the attribute's type, and strings that are not enumerations have examples.",
    "metric/name": "A metric's name ends neither with a unit nor with `total`: both are added in Prometheus.",
    "metric/counter": "A counter of things ends with a plural noun or a past participle and has a unit in braces; "
    "a counter of a quantity ends with `time`, `io` or `amount`.",
    "metric/singular": "The names of up-down counters and gauges are singular.",
    "metric/boundaries": "Histograms, and only histograms, have bucket boundaries, in increasing order.",
    "metric/attribute": "A metric has only attributes marked `on_metrics`, or OpenTelemetry's.",
    "metric/statsd": "In StatsD a counter is `c`, a histogram `h`, any other metric `g`; only seconds become `ms`; "
    "tags are attributes of the metric.",
    "span/name": "A placeholder in a span's name is an attribute of the span.",
    "event/body": "A placeholder with a dot in an event's body is an attribute of the event.",
    "deprecated/target": "The target of `renamed_to` exists, is of the same kind and is not deprecated.",
}
"""The rules that are checked."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A violation of a rule."""

    place: Place
    rule: str
    """One of `RULES`."""
    message: str

    def __str__(self) -> str:
        line = f"{self.place}: {self.rule}: {self.message}"
        return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)


class RegistryError(Exception):
    """A registry is invalid; `findings` lists the violations."""

    def __init__(self, directory: Path, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join([f"{directory}: the registry has errors", *map(str, findings)]))
        self.findings = tuple(findings)


class NoRegistryError(Exception):
    """A directory does not exist, or is not a registry."""

    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(f"{directory}: {reason}")


def shown(value: object) -> str:
    """Return the representation of a value, shortened for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
