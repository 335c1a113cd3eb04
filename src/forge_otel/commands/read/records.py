"""The spans, log events and metrics in OTLP JSON files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...checker import otlp_json as otlp
from ...checker.model import Place
from ...checker.otlp_json import Json, MalformedError

_ERROR: Final = 2
"""OTLP's number of the status of a failed span."""
_DELTA: Final = "1"
"""OTLP's number of delta temporality, as text."""

Attributes = Mapping[str, Any]


@dataclass(slots=True)
class Span:
    """A span. Times are Unix times in nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start: int
    end: int
    failed: bool
    message: str
    """The description of its status."""
    attributes: Attributes
    service: str

    @property
    def duration(self) -> float:
        """The duration in seconds."""
        return max(0, self.end - self.start) / 1e9


@dataclass(slots=True)
class Event:
    """A log record with an event name."""

    name: str
    time: int
    trace_id: str
    attributes: Attributes


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
    events: list[Event] = field(default_factory=list)
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

    def add(self, request: object, place: Place) -> None:
        """Add an export request: decoded JSON."""
        if not isinstance(request, dict) or not any(key.startswith("resource") for key in request):
            self.problems.append(f"{place}: is not OTLP JSON")
            return
        for signal, key, add in (
            ("Spans", "spans", self._add_span),
            ("Logs", "logRecords", self._add_log_record),
            ("Metrics", "metrics", self._add_metric),
        ):
            try:
                self._add_all(request, signal, key, add)
            except MalformedError as error:
                self.problems.append(f"{place}: {error}")

    def _add_all(self, request: Json, signal: str, key: str, add: Callable[[Json, Attributes], None]) -> None:
        for resource in otlp.objects(request, f"resource{signal}"):
            about = _attributes(otlp.object_(resource, "resource"))
            for scope in otlp.objects(resource, f"scope{signal}"):
                for record in otlp.objects(scope, key):
                    add(record, about)

    def _add_span(self, span: Json, resource: Attributes) -> None:
        if not (otlp.text(span, "traceId") and otlp.text(span, "spanId")):
            raise MalformedError("a span has no ids")
        status = otlp.object_(span, "status")
        self.spans.append(
            Span(
                otlp.text(span, "traceId").lower(),
                otlp.text(span, "spanId").lower(),
                otlp.text(span, "parentSpanId").lower(),
                otlp.text(span, "name"),
                otlp.integer(span, "startTimeUnixNano"),
                otlp.integer(span, "endTimeUnixNano"),
                status.get("code") in (_ERROR, "STATUS_CODE_ERROR"),
                otlp.text(status, "message"),
                _attributes(span),
                str(resource.get("service.name", "")),
            )
        )

    def _add_log_record(self, record: Json, _: Attributes) -> None:
        self.log_records += 1
        if name := otlp.text(record, "eventName"):
            time = otlp.integer(record, "timeUnixNano")
            self.events.append(Event(name, time, otlp.text(record, "traceId").lower(), _attributes(record)))

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
        key = (name, frozenset(_attributes(point).items()), process, start)
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


def _attributes(parent: Json) -> dict[str, Any]:
    """Return attributes with values that are numbers, text or booleans, and others as text."""
    return {
        key: value.value if isinstance(value.value, str | int | float) else str(value)
        for key, value in otlp.attributes(parent).items()
    }
