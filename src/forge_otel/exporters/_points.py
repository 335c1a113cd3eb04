"""Converting OTLP metrics to counters, gauges and histograms with the StatsD names and tags of the registry."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK,
    Metric,
    NumberDataPoint,
)
from opentelemetry.semconv.attributes.service_attributes import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION

from ..semconv.definitions import StatsD
from ..semconv.metrics import ALL
from ..semconv.statsd import NAMES
from ._histograms import Distribution, explicit, exponential

_OWN: Final = frozenset(metric.name for metric in ALL)


_ENVIRONMENT: Final = "deployment.environment.name"  # not in all versions of the conventions' package
_UNKNOWN_SERVICE: Final = "unknown_service"
"""The SDKs' name for a service without one; some add the program's."""


class Origin(NamedTuple):
    """The process that points come from, as its resource names it; "" for what is not known."""

    service: str
    env: str
    version: str
    instance: str

    @classmethod
    def of(cls, resource: Iterable[KeyValue]) -> Origin:
        """Return the origin of a resource."""
        found = {attribute.key: _text(attribute.value) for attribute in resource}
        service = found.get(SERVICE_NAME, "")
        return cls(
            "" if service.startswith(_UNKNOWN_SERVICE) else service,
            found.get(_ENVIRONMENT, ""),
            found.get(SERVICE_VERSION, ""),
            found.get(SERVICE_INSTANCE_ID, ""),
        )


class StatsDSeries(NamedTuple):
    """A name with tags, and its origin."""

    name: str
    tags: tuple[tuple[str, str], ...]
    """The values by tag. A metric of the registry has all of its tags, with "" for an attribute that is absent."""
    registered: bool
    """True for a metric of the registry."""
    origin: Origin


@dataclass(slots=True)
class StatsDPoints:
    """The points of a request. A series may have several."""

    counters: list[tuple[StatsDSeries, float]] = field(default_factory=list)
    gauges: list[tuple[StatsDSeries, float]] = field(default_factory=list)
    histograms: list[tuple[StatsDSeries, Distribution]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """Number of points that StatsD does not support, by reason."""

    @classmethod
    def of(cls, request: ExportMetricsServiceRequest) -> StatsDPoints:
        """Return the points of a request, without Forge's metrics that have no StatsD form in the registry."""
        points = cls()
        for of_resource in request.resource_metrics:
            origin = Origin.of(of_resource.resource.attributes)
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    if metric.name in NAMES or metric.name not in _OWN:
                        points._add(metric, origin)
        return points

    def _add(self, metric: Metric, origin: Origin) -> None:
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data: Any = getattr(metric, kind)
        delta = getattr(data, "aggregation_temporality", None) == AGGREGATION_TEMPORALITY_DELTA
        target: Any
        if kind == "gauge" or (kind == "sum" and not data.is_monotonic and not delta):
            target = self.gauges
        elif delta:
            target = self.counters if kind == "sum" else self.histograms
        else:
            reason = "a summary, whose quantiles cannot be added up" if kind == "summary" else "cumulative; send deltas"
            self.refused[f"{metric.name}: {reason}"] += len(data.data_points)
            return
        named = NAMES.get(metric.name)
        factor = _factor(metric, named)
        for point in data.data_points:
            if point.flags & DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK:
                continue
            try:
                value = _READ[kind](point, factor)
            except ValueError as error:
                self.refused[f"{metric.name}: {error}"] += 1
            else:
                target.append((_series(metric, named, point, origin), value))


def _number(point: NumberDataPoint, factor: float) -> float:
    value = (point.as_int if point.WhichOneof("value") == "as_int" else point.as_double) * factor
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a number that StatsD accepts")
    return value


_READ: Final[Mapping[str, Callable[[Any, float], float | Distribution]]] = {
    "gauge": _number,
    "sum": _number,
    "histogram": lambda point, factor: explicit(point).scaled(factor),
    "exponential_histogram": lambda point, factor: exponential(point).scaled(factor),
}
"""Functions that read the value of a point, by its kind in OTLP."""


def _factor(metric: Metric, named: StatsD | None) -> float:
    """Return the factor from a metric's unit to StatsD's; timers are in milliseconds."""
    if named is not None:
        return named.factor
    return 1000 if metric.unit == "s" and metric.WhichOneof("data") in ("histogram", "exponential_histogram") else 1


def _series(metric: Metric, named: StatsD | None, point: Any, origin: Origin) -> StatsDSeries:
    """Return the series of a point: name and tags of the registry; for other metrics the name and all attributes."""
    attributes = {attribute.key: text for attribute in point.attributes if (text := _text(attribute.value))}
    if named is None:
        return StatsDSeries(metric.name, tuple(sorted(attributes.items())), registered=False, origin=origin)
    tags = tuple((tag, attributes.get(key, "")) for tag, key in named.tags.items())
    return StatsDSeries(named.name, tags, registered=True, origin=origin)


def _text(value: AnyValue) -> str:
    """Return the text of an attribute value for a tag; "" for types that tags cannot have, such as lists."""
    kind = value.WhichOneof("value")
    if kind == "bool_value":
        return str(value.bool_value).lower()
    return str(getattr(value, kind)) if kind in ("string_value", "int_value", "double_value") else ""
