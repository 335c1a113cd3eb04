"""Unit costs of a Collector and a Prometheus with the configuration of the stack, for what workers export."""

from __future__ import annotations

import tempfile
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.stack.programs import text
from tests.stack.services import Collector, PrometheusServer, samples
from tests.support.waiting import wait_until

from .units import cost, points_of, spans_of

SPANS: Final = 256
"""Spans of an export; the SDK's processor sends up to 512."""
INTERVAL: Final = 1.0
"""Seconds between two readings of what a program has used, that must not differ when it has nothing to do."""

_CPU: Final = "otelcol_process_cpu_seconds_total"
_RSS: Final = "otelcol_process_memory_rss_bytes"


@dataclass(frozen=True, kw_only=True)
class StackCosts:
    """What one of each costs, in seconds and bytes."""

    span: float = cost("Collector, a span", "µs")
    export: float = cost("Collector, an export of metrics of a worker", "µs")
    series: float = cost("Prometheus's memory, a series", "bytes")
    instance: float = cost("Collector's memory, a worker whose metrics it has seen", "bytes")


def measure(metrics: bytes, spans: bytes, *, quick: bool) -> StackCosts:
    """Send the exports of one worker in the name of many.

    Raises:
        AssertionError: a program did not start.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prometheus = PrometheusServer(folder / "prometheus", "prometheus.yml", {})
        variables = {"PROMETHEUS_ENDPOINT": prometheus.url}
        collector = Collector(folder / "collector", "prometheus", variables=variables)
        try:
            prometheus.run()
            collector.run()
            span = _seconds_a_span(collector, spans, 10 if quick else 200)
            return _of_metrics(collector, prometheus, metrics, span, workers=50 if quick else 2_000)
        finally:
            collector.kill()
            prometheus.kill()


def _seconds_a_span(collector: Collector, spans: bytes, requests: int) -> float:
    request = ExportTraceServiceRequest.FromString(spans)
    for scope in (scope for resource in request.resource_spans for scope in resource.scope_spans):
        several = list(scope.spans)
        while len(scope.spans) < SPANS:
            scope.spans.extend(several)
    body, sent = request.SerializeToString(), requests * spans_of(request)
    before = _settled(collector)
    for _ in range(requests):
        _post(f"{collector.otlp}/v1/traces", body)
    return (_settled(collector) - before) / sent


def _of_metrics(
    collector: Collector, prometheus: PrometheusServer, metrics: bytes, span: float, *, workers: int
) -> StackCosts:
    request = ExportMetricsServiceRequest.FromString(metrics)
    points = len(points_of(request))
    busy, memory, series = _settled(collector), _memory(prometheus), _head_series(prometheus)
    collector_memory = collector.counter(_RSS)
    for _ in range(workers):
        _rename(request)
        _post(f"{collector.otlp}/v1/metrics", request.SerializeToString())
    after = _settled(collector)
    wait_until(lambda: _head_series(prometheus) - series >= workers * points, "Prometheus has all series")
    return StackCosts(
        span=span,
        export=(after - busy) / workers,
        series=(_memory(prometheus) - memory) / (_head_series(prometheus) - series),
        instance=(collector.counter(_RSS) - collector_memory) / workers,
    )


def _rename(request: ExportMetricsServiceRequest) -> None:
    """Make it the export of another process."""
    for resource in request.resource_metrics:
        for attribute in resource.resource.attributes:
            if attribute.key == "service.instance.id":
                attribute.value.string_value = str(uuid.uuid4())
    for point in points_of(request):
        point.time_unix_nano = time.time_ns()


def _post(url: str, body: bytes) -> None:
    headers: Any = {"Content-Type": "application/x-protobuf"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        answer.read()


def _settled(collector: Collector) -> float:
    """Return the processor seconds of a Collector, once it has done all that it was sent."""
    used = collector.counter(_CPU)
    while True:
        time.sleep(INTERVAL)
        now = collector.counter(_CPU)
        if now - used < 0.02 * INTERVAL:
            return now
        used = now


def _head_series(prometheus: PrometheusServer) -> float:
    return _metric(prometheus, "prometheus_tsdb_head_series")


def _memory(prometheus: PrometheusServer) -> float:
    return _metric(prometheus, "process_resident_memory_bytes")


def _metric(prometheus: PrometheusServer, name: str) -> float:
    return sum(value for _, value in samples(text(f"{prometheus.url}/metrics"), name, {}))
