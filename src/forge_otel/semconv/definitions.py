"""Classes of the generated definitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from opentelemetry._logs import SeverityNumber
from opentelemetry.trace import SpanKind


@dataclass(frozen=True, slots=True)
class Span:
    """A type of span.

    A span's name is the type, followed by the values of `name_attributes`. The `start_attributes` are set at the start,
    for samplers; those without a value are omitted.
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
    """A metric.

    Its points have only the `attributes`. An `observable` metric is read at every collection, instead of being written
    at every occurrence. `boundaries` are the bucket boundaries of a histogram, in its unit.
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
    """A type of event. `default` events are emitted with the setting `events="default"`; `timed` ones have the duration
    of the operation that ended.
    """

    name: str
    severity: SeverityNumber
    brief: str
    default: bool = True
    timed: bool = False


@dataclass(frozen=True, slots=True)
class StatsD:
    """A metric in StatsD: its name, its type (counter, gauge or histogram), attributes by tag, and the factor from the
    metric's unit to the unit in StatsD.
    """

    name: str
    type: Literal["c", "g", "h"]
    tags: Mapping[str, str]
    factor: float = 1
