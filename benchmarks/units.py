"""Unit costs: what one of each costs, declared as fields of a dataclass; and counts of what is in an export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field, fields
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint

from .tables import micro

Point = NumberDataPoint | HistogramDataPoint


def cost(what: str, unit: str) -> Any:
    """Declare a field of unit costs, in seconds if the unit is µs."""
    return field(metadata={"what": what, "unit": unit})


def rows_of(costs: Any) -> Iterator[Sequence[str]]:
    """Yield the rows of a table of unit costs: what it is, the value, the unit."""
    for each in fields(costs):
        value, unit = getattr(costs, each.name), each.metadata["unit"]
        yield each.metadata["what"], micro(value) if unit == "µs" else f"{value:,.0f}", unit


def spans_of(request: ExportTraceServiceRequest) -> int:
    """Return the number of spans in an export."""
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def points_of(request: ExportMetricsServiceRequest) -> Sequence[Point]:
    """Return the points in an export."""
    points: list[Point] = []
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points += [*metric.sum.data_points, *metric.gauge.data_points]
                points += metric.histogram.data_points
    return points


def series_of(request: ExportMetricsServiceRequest) -> int:
    """Return the number of series that Prometheus makes of an export, `target_info` included."""
    points = points_of(request)
    buckets = sum(len(point.bucket_counts) + 1 for point in points if isinstance(point, HistogramDataPoint))
    return len(request.resource_metrics) + len(points) + buckets
