"""Data model of a registry with resolved references, for generating code and documents and for verifying telemetry.

The terms are those of OpenTelemetry Weaver's `definition/2` files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

RequirementLevel = Literal["required", "conditionally_required", "recommended", "opt_in"]
Annotations = Mapping[str, Any]
"""The content of `annotations: {forge: …}`: facts that Weaver has no field for."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Member:
    """A value of an enumeration."""

    id: str
    value: str | int | bool
    brief: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The fields common to all kinds of definitions."""

    brief: str
    note: str = ""
    stability: str = "development"
    deprecated: Mapping[str, str] | None = None
    annotations: Annotations = field(default_factory=dict)
    component: str = ""
    """The name of the defining file, without the suffix."""
    place: Place
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """The lines of its fields, by name."""

    def at(self, name: str) -> Place:
        """Return the place of a field, or of the definition if it has no such field."""
        return Place(self.place.file, self.lines.get(name, self.place.line))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute(Definition):
    """An attribute of this registry or of upstream conventions."""

    key: str
    type: str | None
    """`string`, `int`, `double`, `boolean`, one of these with `[]`, `template[…]` or `any`. An enumeration has the type
    of its values. None for an upstream attribute of unknown type."""
    members: tuple[Member, ...] = ()
    """The known values of an enumeration, which may have others; empty for other types."""
    examples: Sequence[Any] = ()
    upstream: bool = False
    """True if it is defined by upstream conventions."""

    @property
    def on_metrics(self) -> bool:
        """True if it has few enough values for a metric."""
        return bool(self.annotations.get("on_metrics", self.upstream))

    @property
    def unit(self) -> str | None:
        """The UCUM unit of a number."""
        return self.annotations.get("unit")


@dataclass(frozen=True, slots=True)
class Reference:
    """An attribute of a span, a metric or an event."""

    attribute: Attribute
    level: RequirementLevel = "recommended"
    condition: str = ""
    """The condition of a conditionally required attribute."""
    sampling_relevant: bool = False
    """True if it is set at the start of a span, for samplers."""
    place: Place | None = field(default=None, compare=False, repr=False)
    """The place of the reference, in a group if it comes from one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal(Definition):
    """A span, a metric or an event."""

    level: Literal["recommended", "opt_in"] = "recommended"
    """`opt_in` if it is not emitted by default."""
    attributes: tuple[Reference, ...] = ()

    def reference(self, key: str) -> Reference | None:
        """Return the reference to an attribute, if any."""
        return next((reference for reference in self.attributes if reference.attribute.key == key), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Signal):
    """A type of span. Its name is a pattern, with the keys of attributes in braces."""

    type: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class StatsD:
    """The name, type and tags of a metric in StatsD."""

    name: str
    type: Literal["c", "g", "h"]
    tags: Mapping[str, str]
    """The keys of attributes, by tag."""
    unit: Literal["ms"] | None = None
    """The unit in StatsD, if it is not the metric's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Signal):
    """A metric."""

    name: str
    instrument: Literal["counter", "updowncounter", "gauge", "histogram"]
    unit: str

    @property
    def boundaries(self) -> tuple[float, ...] | None:
        """The upper bounds of a histogram's buckets, in its unit."""
        boundaries = self.annotations.get("boundaries")
        return None if boundaries is None else tuple(boundaries)

    @property
    def observable(self) -> bool:
        """True if it is read at every collection, instead of being written at every occurrence."""
        return bool(self.annotations.get("observable", False))

    @property
    def statsd(self) -> StatsD | None:
        """Its StatsD form; None if it is not sent to StatsD."""
        statsd = self.annotations.get("statsd")
        return None if statsd is None else StatsD(statsd["name"], statsd["type"], statsd["tags"], statsd.get("unit"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Signal):
    """An event: a log record with an event name."""

    name: str

    @property
    def severity(self) -> str:
        """The severity's name, such as `INFO`."""
        return str(self.annotations.get("severity", "INFO"))

    @property
    def default(self) -> bool:
        """True if it is emitted with the setting `events="default"`."""
        return self.level == "recommended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity(Definition):
    """A thing that telemetry is about."""

    type: str
    level: Literal["recommended", "opt_in"] = "recommended"
    identity: tuple[Reference, ...]
    """The attributes that identify it."""
    description: tuple[Reference, ...] = ()
    """Its other attributes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All definitions of each kind, by name and in the order of the files."""

    schema_url: str
    description: str = ""
    attributes: Mapping[str, Attribute]
    """The attributes defined here. References may also resolve to upstream attributes."""
    spans: Mapping[str, Span]
    metrics: Mapping[str, Metric]
    events: Mapping[str, Event]
    entities: Mapping[str, Entity] = field(default_factory=dict)
    components: tuple[str, ...]
    """The names of the files, without their suffix."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all definitions."""
        return (*self.attributes, *self.entities, *self.spans, *self.metrics, *self.events)

    @property
    def version(self) -> str:
        """The last segment of the schema URL."""
        return self.schema_url.rpartition("/")[2]

    @property
    def upstream(self) -> Mapping[str, Attribute]:
        """The referenced attributes of upstream conventions, by key."""
        signals: list[Signal] = [*self.spans.values(), *self.metrics.values(), *self.events.values()]
        return {
            reference.attribute.key: reference.attribute
            for signal in signals
            for reference in signal.attributes
            if reference.attribute.upstream
        }
