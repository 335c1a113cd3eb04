"""The spans, log events and metrics in OTLP JSON files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...checker import otlp_json as otlp
from ...checker.model import Place
from ...checker.otlp_json import Json, MalformedError
from ..trace import records
from ..trace.records import Attributes, LogRecord, Span
from ..trace.sources import is_request

_DELTA: Final = "1"
"""OTLP's number of delta temporality, as text."""


@dataclass(slots=True)
class Total:
    """A counter, or the values of a histogram, over all processes."""

    value: float = 0.0
    """The count of a counter, the sum of a histogram."""
    count: int = 0
    """Number of values of a histogram."""
    max: float = 0.0

    def add(self, other: Total) -> None:
        """Add another total."""
        self.value += other.value
        self.count += other.count
        self.max = max(self.max, other.max)


@dataclass(slots=True)
class Telemetry:
    """The contents of files."""

    metrics: Collection[str]
    """The names of the metrics that are read."""
    spans: list[Span] = field(default_factory=list)
    events: list[LogRecord] = field(default_factory=list)
    log_records: int = 0
    points: int = 0
    """Number of all metric points."""
    problems: list[str] = field(default_factory=list)
    """Lines that are not OTLP JSON, as `FILE:LINE: PROBLEM`."""
    _series: dict[tuple[str, frozenset[tuple[str, Any]], str, int], tuple[int, Total]] = field(default_factory=dict)
    """Totals and their time, by metric, attributes, process and start."""

    @property
    def is_empty(self) -> bool:
        """True if there are no records."""
        return not (self.spans or self.log_records or self.points)

    def totals(self, metric: str) -> Iterator[tuple[dict[str, Any], Total]]:
        """Yield the attributes and totals of a metric."""
        found: dict[frozenset[tuple[str, Any]], Total] = {}
        for (name, attributes, _, _), (_, each) in self._series.items():
            if name == metric:
                found.setdefault(attributes, Total()).add(each)
        for attributes, total in found.items():
            yield dict(attributes), total

    def add(self, request: Any, place: Place) -> None:
        """Add an export request: decoded JSON."""
        if not is_request(request):
            self.problems.append(f"{place}: is not OTLP JSON")
            return
        for add in (self._add_spans, self._add_log_records, self._add_metrics):
            try:
                add(request)
            except MalformedError as error:
                self.problems.append(f"{place}: {error}")

    def _add_spans(self, request: Json) -> None:
        for span in records.spans(request):
            self.spans.append(span)

    def _add_log_records(self, request: Json) -> None:
        for record in records.log_records(request):
            self.log_records += 1
            if record.name:
                self.events.append(record)

    def _add_metrics(self, request: Json) -> None:
        for metric, resource in records.each(request, "Metrics", "metrics"):
            self._add_metric(metric, resource)

    def _add_metric(self, metric: Json, resource: Attributes) -> None:
        name = otlp.text(metric, "name")
        for kind in ("sum", "gauge", "histogram", "exponentialHistogram", "summary"):
            data = otlp.object_(metric, kind)
            points = otlp.objects(data, "dataPoints")
            self.points += len(points)
            if name in self.metrics:
                temporality = otlp.enumerated(data, "aggregationTemporality", {}, "AGGREGATION_TEMPORALITY_")
                process = str(resource.get("service.instance.id") or sorted(resource.items()))
                for point in points:
                    self._add_point(name, point, process, temporality in (_DELTA, "DELTA"))

    def _add_point(self, name: str, point: Json, process: str, is_delta: bool) -> None:
        if "asInt" in point:
            value = float(otlp.integer(point, "asInt"))
        else:
            value = otlp.double(point, "asDouble") or otlp.double(point, "sum")
        total = Total(value, otlp.integer(point, "count"), otlp.double(point, "max"))
        time = otlp.integer(point, "timeUnixNano")
        start = 0 if is_delta else otlp.integer(point, "startTimeUnixNano")
        key = (name, frozenset(records.plain_attributes(point).items()), process, start)
        last, known = self._series.get(key, (-1, Total()))
        if is_delta:
            known.add(total)
            self._series[key] = (time, known)
        elif time >= last:  # cumulative: the latest is the whole
            self._series[key] = (time, total)


def read(files: Iterable[Path], metrics: Collection[str]) -> Telemetry:
    """Read files of OTLP JSON: all spans and events, and the metrics with these names.

    Raises:
        OSError: a file cannot be read.
    """
    telemetry = Telemetry(metrics)
    for file in files:
        for line in otlp.requests(file):
            if line.problem:
                detail = f" ({line.detail})" if line.detail else ""
                telemetry.problems.append(f"{line.place}: {line.problem}{detail}")
            else:
                telemetry.add(line.request, line.place)
    return telemetry
