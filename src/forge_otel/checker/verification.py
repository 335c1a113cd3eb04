"""Results of verifying telemetry against a registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from .model import Place, Registry, Signal

SubjectKind = Literal["span", "metric", "event", "resource", "scope", "file"]

VERIFICATION_RULES: Final[Mapping[str, str]] = {
    "file/unreadable": "A file contains OTLP/JSON.",
    "file/empty": "A file contains telemetry.",
    "file/foreign": "A file contains telemetry of the registry.",
    "scope/schema": "The schema URL is that of the registry's version.",
    "span/unknown": "The registry has a type of span for the name.",
    "span/name": "The name follows from the type's pattern and the attributes.",
    "span/kind": "The kind is that of the type.",
    "metric/unknown": "The registry has the metric.",
    "metric/instrument": "The instrument is the metric's.",
    "metric/unit": "The unit is the metric's.",
    "metric/attribute": "Metrics have no attributes with many values, such as ids.",
    "event/unknown": "The registry has the event, and it is a log record.",
    "event/severity": "The severity is the event's.",
    "attribute/unknown": "The registry has the attribute.",
    "attribute/unlisted": "The span, metric or event lists the attribute.",
    "attribute/missing": "The required attributes of the span, metric or event are present.",
    "attribute/type": "The type is the attribute's.",
    "attribute/member": "The value of an enumeration is one of its members.",
}
"""The rules that telemetry is verified against."""

MAX_DEVIATIONS: Final = 1000
"""Maximum number of distinct deviations in a report; further ones are only counted."""
MAX_TEXT: Final = 200
"""Maximum length of a name, a message or an example in a report."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A deviation from the registry, with the number of its occurrences."""

    rule: str
    """One of `VERIFICATION_RULES`."""
    place: Place
    """The place of the first occurrence."""
    signal: SubjectKind
    name: str
    """The type of the span, or the name of the metric or event; empty for a file."""
    message: str
    attribute: str = ""
    """The key of the attribute; empty if the deviation is not one of an attribute."""
    example: str = ""
    """The value of the first occurrence."""
    count: int = 1

    def __str__(self) -> str:
        where = f"{self.signal} {self.name}".rstrip() + f", {self.attribute}" * bool(self.attribute)
        example = f": {self.example}" if self.example else ""
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.place}: {self.rule}: {where}: {self.message}{example}{times}"


class Element(NamedTuple):
    """An element of a registry that telemetry can contain: a span, a metric, an event or an attribute, an attribute of
    one of these, or a member of an enumeration.
    """

    kind: Literal["span", "metric", "event", "attribute"]
    name: str
    part: str = ""
    """The key of an attribute, or the value of a member."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f": {self.part}" if self.part else "")


def signals(registry: Registry) -> Iterator[tuple[Element, Signal]]:
    """Yield the spans, metrics and events of a registry, in its order."""
    yield from ((Element("span", name), span) for name, span in registry.spans.items())
    yield from ((Element("metric", name), metric) for name, metric in registry.metrics.items())
    yield from ((Element("event", name), event) for name, event in registry.events.items())


def elements(registry: Registry) -> Iterator[Element]:
    """Yield the elements of a registry that telemetry can contain, in its order."""
    for attribute in registry.attributes.values():
        yield Element("attribute", attribute.key)
        yield from (Element("attribute", attribute.key, str(member.value)) for member in attribute.members)
    for element, signal in signals(registry):
        yield element
        yield from (element._replace(part=reference.attribute.key) for reference in signal.attributes)


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """The deviations that were found, and the elements that were observed."""

    findings: tuple[Deviation, ...]
    """Distinct deviations, in the order of their first occurrences."""
    omitted: int
    """Number of deviations beyond `MAX_DEVIATIONS` distinct ones."""
    records: Mapping[str, int]
    """Number of verified spans, metric points and events, and of skipped `others`."""
    observed: frozenset[Element]

    def unobserved(self, registry: Registry) -> tuple[Element, ...]:
        """Return the elements of the registry that were not observed, in its order."""
        return tuple(one for one in elements(registry) if one not in self.observed)

    def text(self) -> str:
        """Return one line for each deviation, and a summary line."""
        lines = [str(finding) for finding in self.findings]
        if self.omitted:
            lines.append(f"{self.omitted} more findings were omitted.")
        number = len(self.findings)
        findings = {0: "No findings", 1: "1 finding"}.get(number, f"{number} findings")
        records = ", ".join(f"{self.records[kind]} {kind}" for kind in ("spans", "points", "events"))
        counts = Counter(element.kind for element in self.observed if not element.part)
        kinds = ", ".join(f"{counts[kind]} {kind}s" for kind in ("attribute", "span", "metric", "event"))
        lines.append(f"{findings} in {records}; {self.records['others']} others were skipped. Observed: {kinds}.")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the report as data for `json.dumps`."""
        return {
            "findings": [
                {
                    "rule": finding.rule,
                    "file": str(finding.place.file),
                    "line": finding.place.line,
                    "signal": finding.signal,
                    "name": finding.name,
                    "attribute": finding.attribute,
                    "message": finding.message,
                    "example": finding.example,
                    "count": finding.count,
                }
                for finding in self.findings
            ],
            "omitted": self.omitted,
            "records": dict(self.records),
            "seen": [element._asdict() for element in sorted(self.observed)],
        }


class DeviationCollector:
    """Collects deviations, and counts equal ones of different records."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], Deviation] = {}
        self._counts: Counter[tuple[str, ...]] = Counter()
        self.omitted = 0

    def add(
        self,
        rule: str,
        place: Place,
        signal: SubjectKind,
        name: str,
        *,
        message: str,
        attribute: str = "",
        example: object = "",
    ) -> None:
        """Count a deviation. The texts may come from untrusted input."""
        key = rule, signal, printable(name), printable(attribute), printable(message)
        if key not in self._first:
            if len(self._first) == MAX_DEVIATIONS:
                self.omitted += 1
                return
            self._first[key] = Deviation(
                rule, place, signal, key[2], key[4], attribute=key[3], example=printable(str(example))
            )
        self._counts[key] += 1

    @property
    def all(self) -> tuple[Deviation, ...]:
        """The distinct deviations, in the order of their first occurrences."""
        return tuple(replace(finding, count=self._counts[key]) for key, finding in self._first.items())


def printable(text: str) -> str:
    """Return a text shortened, and with control characters escaped."""
    shown = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
    return shown if shown.isprintable() else repr(shown)[1:-1]
