"""Instrumenting in a test, and looking at what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, MetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from forge_otel import ForgeInstrumentor
from forge_otel.patching import faults
from forge_otel.signals.telemetry import SCOPE_NAME

UNVERIFIED: list[Recorded] = []
"""What was emitted since somebody last looked whether it keeps to the vocabulary."""


@dataclass(frozen=True)
class Histogram:
    """What a histogram says of its values. `minimum` and `maximum` are exact, and the sum of so few is as well."""

    count: int
    sum: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Event:
    """One event."""

    name: str
    severity: str
    body: str
    attributes: Mapping[str, Any]
    span: str
    """The name of the span that it belongs to; "" if there is none."""


class Reader(InMemoryMetricReader):
    """Remembers all that was collected."""

    def __init__(self) -> None:
        super().__init__()
        self.collected: list[MetricsData] = []

    def get_metrics_data(self) -> MetricsData | None:
        data = super().get_metrics_data()
        if data is not None:
            self.collected.append(data)
        return data


@dataclass
class Recorded:
    """What an instrumented test emitted: to in-memory exporters, never to global providers."""

    span_exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    metric_reader: Reader = field(default_factory=Reader)
    log_exporter: InMemoryLogRecordExporter = field(default_factory=InMemoryLogRecordExporter)
    tracer_provider: TracerProvider = field(init=False)
    meter_provider: MeterProvider = field(init=False)
    logger_provider: LoggerProvider = field(init=False)
    readers: tuple[MetricReader, ...] = ()
    """More readers, beside the one in memory."""
    in_memory: bool = True
    """Whether there is one in memory: it is not periodic, so zero points are not flushed."""

    def __post_init__(self) -> None:
        UNVERIFIED.append(self)
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.span_exporter))
        readers = (self.metric_reader, *self.readers) if self.in_memory else self.readers
        self.meter_provider = MeterProvider(readers, shutdown_on_exit=False)
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self.log_exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended, in that order."""
        return self.span_exporter.get_finished_spans()

    @property
    def collected(self) -> list[MetricsData]:
        """All metrics data, those that are collected now included."""
        if self.in_memory:
            self.metric_reader.get_metrics_data()
        return self.metric_reader.collected

    @property
    def points(self) -> dict[str, dict[str, Any]]:
        """Every point of every metric, collected now: numbers, or a `Histogram`.

        By the metric's name and by the point's attributes, which are put as `pipeline.name=p, stage.name=s`.
        """
        data = self.metric_reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: {_text(point.attributes): _value(point) for point in metric.data.data_points}
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            if scope.scope.name == SCOPE_NAME  # the SDK may be measuring itself
            for metric in scope.metrics
        }

    @property
    def events(self) -> list[Event]:
        """The events, in the order in which they were emitted."""
        names = {span.context.span_id: span.name for span in self.spans if span.context is not None}
        found = []
        for log in self.log_exporter.get_finished_logs():
            record = log.log_record
            assert record.event_name is not None
            assert record.severity_text is not None
            found.append(
                Event(
                    record.event_name,
                    record.severity_text,
                    str(record.body),
                    dict(record.attributes or {}),
                    names.get(record.span_id or 0, ""),
                )
            )
        return found

    def total(self, metric: str, *wanted: str) -> float:
        """The sum over the points of a counter that have these attributes, each put as `stage.name=s`."""
        points = self.points.get(metric, {})
        return float(sum(value for text, value in points.items() if set(wanted) <= set(text.split(", "))))

    def tree(self) -> str:
        """All spans as an indented text: below each one its children, in the order in which they started.

        Each line has the name, the kind unless it is internal, the attributes in the order of their names, the status
        if one is set, and what links point to: the id of a sample, the name of another span.
        """
        return "\n".join(self._lines(None, "")) + "\n"

    def log(self) -> str:
        """All events as a text: severity, name and span; the body; the attributes, of a traceback its last line."""
        return "".join(_event_text(event) for event in self.events)

    def _lines(self, parent: int | None, indent: str) -> Iterator[str]:
        children = [span for span in self.spans if (span.parent.span_id if span.parent else None) == parent]
        for span in sorted(children, key=_began):
            assert span.context is not None
            yield indent + self._line(span)
            yield from self._lines(span.context.span_id, indent + "  ")

    def _line(self, span: ReadableSpan) -> str:
        parts = [span.name]
        if span.kind.name != "INTERNAL":
            parts.append(span.kind.name)
        parts.append(_text(span.attributes))
        if span.status.status_code is not StatusCode.UNSET:
            parts.append(f"{span.status.status_code.name}({span.status.description})")
        known = {other.context.span_id: other for other in self.spans if other.context is not None}
        for link in span.links:
            other = known.get(link.context.span_id)
            parts.append(f"-> {(other.attributes or {}).get('forge.sample.id', other.name) if other else 'elsewhere'}")
        return " | ".join(parts)


@contextmanager
def recording(*, raise_faults: bool = True, recorded: Recorded | None = None, **settings: Any) -> Iterator[Recorded]:
    """Instrument `forge` with these settings for the time of the block.

    A fault inside the telemetry fails the test, unless it is what the test is about.
    """
    recorded = recorded or Recorded()
    before, faults.RAISE = faults.RAISE, raise_faults
    instrumentor = ForgeInstrumentor()
    instrumentor.instrument(
        tracer_provider=recorded.tracer_provider,
        meter_provider=recorded.meter_provider,
        logger_provider=recorded.logger_provider,
        **settings,
    )
    try:
        yield recorded
    finally:
        instrumentor.uninstrument()
        faults.RAISE = before


def _began(span: ReadableSpan) -> tuple[int, bool, str]:
    """Where a span stands among others: by a fake clock many begin at the same time, samples before what they go to."""
    return span.start_time or 0, span.name != "forge.sample", str((span.attributes or {}).get("forge.sample.id", ""))


def _event_text(event: Event) -> str:
    lines = [f"{event.severity} {event.name} in {event.span}", f"  {event.body}"]
    for key, value in sorted(event.attributes.items()):
        shown = value.strip().splitlines()[-1] if key == "exception.stacktrace" else value
        lines.append(f"  {key} = {shown!r}")
    return "\n".join(lines) + "\n"


def _text(attributes: Mapping[str, Any] | None) -> str:
    """Attributes as a text, without the revision, which depends on where the tests are run."""
    shown = {key: value for key, value in (attributes or {}).items() if key != "vcs.ref.head.revision"}
    return ", ".join(f"{key.removeprefix('forge.')}={value}" for key, value in sorted(shown.items()))


def _value(point: Any) -> Any:
    if isinstance(point, HistogramDataPoint):
        return Histogram(point.count, point.sum, point.min, point.max)
    return point.value
