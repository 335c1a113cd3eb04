"""What the generated modules are made of: inert definitions, which the engine reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from opentelemetry._logs import SeverityNumber
from opentelemetry.trace import SpanKind


@dataclass(frozen=True, slots=True)
class Span:
    """One type of span.

    Its name is the type, followed by the values of `name_attributes`. The `start_attributes` are set before it starts,
    so that a sampler sees them; those without a value are left out.
    """

    type: str
    kind: SpanKind
    brief: str
    start_attributes: tuple[str, ...]
    name_attributes: tuple[str, ...] = ()


class Instrument(StrEnum):
    """The kinds of instruments."""

    COUNTER = "counter"
    UPDOWNCOUNTER = "updowncounter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Only the `attributes` may stand on its points. An `observable` one is read when metrics are collected, instead of
    being written when something happens. `boundaries` are those of a histogram, in its unit.
    """

    name: str
    instrument: Instrument
    unit: str
    brief: str
    attributes: tuple[str, ...]
    observable: bool = False
    boundaries: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One type of event. `default` says whether it is emitted unless the configuration asks for all or none."""

    name: str
    severity: SeverityNumber
    brief: str
    default: bool = True


@dataclass(frozen=True, slots=True)
class StatsD:
    """A metric in StatsD: its name there, whether it is a counter, a gauge or a histogram, the attributes by tag, and
    the factor from its own unit to the one there.
    """

    name: str
    type: Literal["c", "g", "h"]
    tags: Mapping[str, str]
    factor: float = 1
