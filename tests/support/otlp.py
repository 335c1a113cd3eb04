"""OTLP requests with metrics, as a program in any language would send them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

Attributes = Mapping[str, str | bool | int | float]


def request(*metrics: Metric, instance: str = "", resource: Attributes | None = None) -> ExportMetricsServiceRequest:
    """A request from one process."""
    named = {"service.instance.id": instance} if instance else {}
    origin = Resource(attributes=_attributes({**named, **(resource or {})}))
    scope = ScopeMetrics(metrics=metrics)
    return ExportMetricsServiceRequest(resource_metrics=[ResourceMetrics(resource=origin, scope_metrics=[scope])])


def counter(
    name: str, *points: tuple[float, Attributes], cumulative: bool = False, monotonic: bool = True, unit: str = ""
) -> Metric:
    """A sum of integers or of floats."""
    temporality = AGGREGATION_TEMPORALITY_CUMULATIVE if cumulative else AGGREGATION_TEMPORALITY_DELTA
    data = Sum(data_points=_numbers(points), aggregation_temporality=temporality, is_monotonic=monotonic)
    return Metric(name=name, unit=unit, sum=data)


def gauge(name: str, *points: tuple[float, Attributes]) -> Metric:
    """A gauge."""
    return Metric(name=name, gauge=Gauge(data_points=_numbers(points)))


def histogram(name: str, *points: HistogramDataPoint, cumulative: bool = False, unit: str = "") -> Metric:
    """A histogram of points from `measured`."""
    temporality = AGGREGATION_TEMPORALITY_CUMULATIVE if cumulative else AGGREGATION_TEMPORALITY_DELTA
    return Metric(name=name, unit=unit, histogram=Histogram(data_points=points, aggregation_temporality=temporality))


def measured(
    values: Sequence[float], bounds: Sequence[float], attributes: Attributes | None = None, *, extremes: bool = True
) -> HistogramDataPoint:
    """What a histogram with these bounds has after these values; `extremes` are its least and its greatest."""
    ends = [-float("inf"), *bounds, float("inf")]
    counts = [sum(lower < value <= upper for value in values) for lower, upper in pairwise(ends)]
    point = HistogramDataPoint(
        count=len(values),
        sum=sum(values),
        bucket_counts=counts,
        explicit_bounds=bounds,
        attributes=_attributes(attributes or {}),
    )
    if extremes and values:
        point.min, point.max = min(values), max(values)
    return point


def _numbers(points: Iterable[tuple[float, Attributes]]) -> list[NumberDataPoint]:
    return [
        NumberDataPoint(as_int=value, attributes=_attributes(attributes))
        if isinstance(value, int)
        else NumberDataPoint(as_double=value, attributes=_attributes(attributes))
        for value, attributes in points
    ]


def _attributes(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: str | bool | int | float) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(string_value=value) if isinstance(value, str) else AnyValue(double_value=value)
