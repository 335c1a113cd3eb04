"""What a registry says, after its references were resolved. Plain data: everything is generated from it, and telemetry
is verified against it.

The words are those of OpenTelemetry Weaver's `definition/2` files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

RequirementLevel = Literal["required", "conditionally_required", "recommended", "opt_in"]
Annotations = Mapping[str, Any]
"""What stands under `annotations: {forge: …}`: what Weaver has no word for."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where in the registry something stands."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Member:
    """One value of an enumeration."""

    id: str
    value: str | int | bool
    brief: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What attributes, spans, metrics and events have in common."""

    brief: str
    note: str = ""
    stability: str = "development"
    deprecated: Mapping[str, str] | None = None
    annotations: Annotations = field(default_factory=dict)
    component: str = ""
    """The name of the file that it stands in, without the suffix."""
    place: Place
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)
    """The lines of its fields, by name."""

    def at(self, name: str) -> Place:
        """Where one of its fields stands; where it stands itself, if it has no such field."""
        return Place(self.place.file, self.lines.get(name, self.place.line))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute(Definition):
    """An attribute of this registry, or one of the conventions that it builds on."""

    key: str
    type: str | None
    """`string`, `int`, `double`, `boolean`, one of these with `[]`, `template[…]` or `any`. An enumeration has the type
    of its values. None for an attribute of other conventions whose type is not known here."""
    members: tuple[Member, ...] = ()
    """The known values of an enumeration; others may come. Empty where it is none."""
    examples: Sequence[Any] = ()
    upstream: bool = False
    """Whether it is defined by other conventions."""

    @property
    def on_metrics(self) -> bool:
        """Whether its values are few enough for a metric."""
        return bool(self.annotations.get("on_metrics", self.upstream))

    @property
    def unit(self) -> str | None:
        """The UCUM unit of a number."""
        return self.annotations.get("unit")


@dataclass(frozen=True, slots=True)
class Reference:
    """An attribute where a span, a metric or an event has it."""

    attribute: Attribute
    level: RequirementLevel = "recommended"
    condition: str = ""
    """When it is required, where that depends."""
    sampling_relevant: bool = False
    """Whether it is set before a span starts, so that a sampler sees it."""
    place: Place | None = field(default=None, compare=False, repr=False)
    """Where it stands. Where it came from a group, in there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal(Definition):
    """A span, a metric or an event."""

    attributes: tuple[Reference, ...] = ()

    def reference(self, key: str) -> Reference | None:
        """Its reference to an attribute."""
        return next((reference for reference in self.attributes if reference.attribute.key == key), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Signal):
    """One type of span. Its name is a pattern, with the keys of attributes in braces."""

    type: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class StatsD:
    """What a metric is called in StatsD."""

    name: str
    type: Literal["c", "g", "h"]
    tags: Mapping[str, str]
    """The keys of attributes, by tag."""
    unit: Literal["ms"] | None = None
    """The unit of the values there, where it is not the metric's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Signal):
    """One metric."""

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
        """Whether it is read when metrics are collected, instead of being written when something happens."""
        return bool(self.annotations.get("observable", False))

    @property
    def statsd(self) -> StatsD | None:
        """What it is called in StatsD; None where it does not go there."""
        statsd = self.annotations.get("statsd")
        return None if statsd is None else StatsD(statsd["name"], statsd["type"], statsd["tags"], statsd.get("unit"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Signal):
    """One event: a log record that has an event name."""

    name: str

    @property
    def severity(self) -> str:
        """The severity's name, such as `INFO`."""
        return str(self.annotations.get("severity", "INFO"))

    @property
    def default(self) -> bool:
        """Whether it is emitted unless the configuration asks for all events or for none."""
        return bool(self.annotations.get("default", True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All definitions, each kind by name and in the order of the files."""

    schema_url: str
    description: str = ""
    attributes: Mapping[str, Attribute]
    """Those defined here. What references resolve to may also be upstream attributes."""
    spans: Mapping[str, Span]
    metrics: Mapping[str, Metric]
    events: Mapping[str, Event]
    components: tuple[str, ...]
    """The names of the files, without their suffix."""

    @property
    def version(self) -> str:
        """The last segment of the schema URL."""
        return self.schema_url.rpartition("/")[2]

    @property
    def upstream(self) -> Mapping[str, Attribute]:
        """The attributes of other conventions that are referred to, by key."""
        signals: list[Signal] = [*self.spans.values(), *self.metrics.values(), *self.events.values()]
        return {
            reference.attribute.key: reference.attribute
            for signal in signals
            for reference in signal.attributes
            if reference.attribute.upstream
        }
