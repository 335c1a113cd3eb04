"""Providers that export to OTLP/JSON files, to an OTLP endpoint and to a Prometheus port."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.environment_variables import OTEL_LOGS_EXPORTER, OTEL_METRICS_EXPORTER, OTEL_TRACES_EXPORTER
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.environment_variables import (
    OTEL_BLRP_MAX_QUEUE_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_METRIC_EXPORT_INTERVAL,
    OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED,
    OTEL_SERVICE_NAME,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ...exporters.otlp_file import FILE_PATH, OTLPFileLogExporter, OTLPFileMetricExporter, OTLPFileSpanExporter
from ...semconv.attributes import ERROR_TYPE, FORGE_TELEMETRY_SIGNAL
from ...semconv.metrics import FORGE_TELEMETRY_FAULTS, FORGE_TELEMETRY_SUPPRESSED
from ...signals.delivery import Delivery
from ..errors import CommandError
from .prometheus import PrometheusEndpoint

QUEUE_SIZE = 65_536
"""Default of `OTEL_BSP_MAX_QUEUE_SIZE` and `OTEL_BLRP_MAX_QUEUE_SIZE`, in spans and log records."""
EXPORT_INTERVAL = 5_000
"""Default of `OTEL_METRIC_EXPORT_INTERVAL`, in milliseconds."""
MIN_FLUSH = 0.3
"""Minimum time in seconds for a flush, where others have taken all of it."""
GRPC_PORT = 4317
"""OTLP's port for gRPC. Endpoints with this port use gRPC, others HTTP with protobuf."""


@dataclass(slots=True)
class Sink:
    """A destination of one signal, with the counts of its exports."""

    signal: str
    target: str
    path: Path | None = None
    exports: int = 0
    records: int = 0
    """Number of exported spans, metric points or log records."""
    failures: int = 0
    """Number of failed exports, whose records are lost."""

    def count_exports(self, exporter: Any, size: Callable[[Any], int]) -> Any:
        """Count the exports of an exporter from now on."""
        export = exporter.export

        def counted(batch: Any, *arguments: Any, **keywords: Any) -> Any:
            result: Enum = export(batch, *arguments, **keywords)
            if result.name == "SUCCESS":
                self.exports += 1
                self.records += size(batch)
            else:
                self.failures += 1
            return result

        exporter.export = counted
        return exporter


class Providers:
    """Providers of a command, separate from the global ones. They respect `OTEL_*` environment variables.

    `service` is the default service name. The files in `folder` are replaced if `replace` is set; otherwise exports are
    appended. `option` is the one that named the folder.

    Raises:
        CommandError: the folder cannot be written, or the endpoint is not a URL.
    """

    def __init__(
        self,
        service: str,
        folder: Path | None,
        *,
        option: str,
        replace: bool = False,
        endpoint: str | None = None,
        prometheus: PrometheusEndpoint | None = None,
    ) -> None:
        os.environ.setdefault(OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED, "true")
        if endpoint is not None:
            _check_endpoint(endpoint)
        self.endpoint = endpoint
        self._folder = folder
        self.prometheus = prometheus
        self.sinks: list[Sink] = []
        self.flushed: bool | None = None
        """True if the last flush succeeded in time; None before it."""
        self.undelivered: Sequence[str] = []
        """Telemetry that was not delivered, and its addresses."""
        self.flush_duration = 0.0
        """Duration of the last flush in seconds."""
        self._last_metrics: MetricsData | None = None
        exporters = []
        if folder is not None:
            exporters.append(self._files(folder, option, replace))
        if endpoint is not None:
            exporters.append(self._otlp(endpoint))
        self._readers: list[MetricReader] = [
            PeriodicExportingMetricReader(
                metrics,
                export_interval_millis=None if OTEL_METRIC_EXPORT_INTERVAL in os.environ else EXPORT_INTERVAL,
            )
            for _, metrics, _ in exporters
        ]
        resource = _resource(service)
        self._service = str(resource.attributes[SERVICE_NAME])
        pulled = [prometheus.reader] if prometheus else []
        self.meter_provider = MeterProvider([*self._readers, *pulled], resource, shutdown_on_exit=False)
        own: dict[str, Any] = {"meter_provider": self.meter_provider}
        self.tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False, **own)
        self.logger_provider = LoggerProvider(resource=resource, shutdown_on_exit=False, **own)
        for spans, _, logs in exporters:
            size = None if OTEL_BSP_MAX_QUEUE_SIZE in os.environ else QUEUE_SIZE
            self.tracer_provider.add_span_processor(BatchSpanProcessor(spans, max_queue_size=size, **own))
            size = None if OTEL_BLRP_MAX_QUEUE_SIZE in os.environ else QUEUE_SIZE
            self.logger_provider.add_log_record_processor(BatchLogRecordProcessor(logs, max_queue_size=size, **own))

    def finish(self, delivery: Delivery, timeout: float) -> None:
        """Flush everything, and close files and connections, within `timeout` seconds.

        The Prometheus port stays open.
        """
        begun = time.monotonic()
        # Metrics come last, so that they include the exports of spans and log records.
        delivery.flush(timeout, "traces", "logs")
        missing = delivery.shut_down(max(MIN_FLUSH, begun + timeout - time.monotonic()))
        self.undelivered = [str(each) for each in missing]
        self.flush_duration = time.monotonic() - begun
        self.flushed = not missing
        if self.flushed:
            self.tracer_provider.shutdown()
            self.logger_provider.shutdown()
            # The provider would shut down the reader of Prometheus as well.
            for reader in self._readers:
                reader.shutdown()

    def variables(self, *, files: bool = False) -> dict[str, str]:
        """Return variables with which another process exports to the same endpoint, and with `files` to the same files;
        none if there is nothing to export to."""
        found: dict[str, str] = {}
        exporters = []
        if files and self._folder is not None:
            exporters.append("otlp_file")
            found[FILE_PATH] = str(self._folder.absolute() / "{signal}.jsonl")
        if self.endpoint is not None:
            exporters.append("otlp")
            found[OTEL_EXPORTER_OTLP_ENDPOINT] = self.endpoint
            found[OTEL_EXPORTER_OTLP_PROTOCOL] = "grpc" if _is_grpc(self.endpoint) else "http/protobuf"
        if exporters:
            found[OTEL_SERVICE_NAME] = self._service
            for name in (OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER, OTEL_LOGS_EXPORTER):
                found[name] = ",".join(exporters)
        return found

    @property
    def failures(self) -> int:
        """Number of failed exports."""
        return sum(sink.failures for sink in self.sinks)

    def dropped(self, signal: str) -> int:
        """Return the number of spans (`span`) or log records (`log`) dropped by full queues, from the SDK's metrics."""
        return sum(
            int(point.value)
            for name, point in _points(self._last_metrics)
            if name == f"otel.sdk.processor.{signal}.processed" and point.attributes.get(ERROR_TYPE) == "queue_full"
        )

    def suppressed(self, signal: str) -> int:
        """Return the number of spans (`span`) or events (`event`) left out by sampling or a budget, from metrics."""
        return sum(
            int(point.value)
            for name, point in _points(self._last_metrics)
            if name == FORGE_TELEMETRY_SUPPRESSED.name and point.attributes[FORGE_TELEMETRY_SIGNAL] == signal
        )

    @property
    def faults(self) -> int:
        """Number of faults inside the telemetry, from the metrics."""
        return sum(
            int(point.value) for name, point in _points(self._last_metrics) if name == FORGE_TELEMETRY_FAULTS.name
        )

    def _files(self, folder: Path, option: str, replace: bool) -> tuple[Any, Any, Any]:
        names = ("traces", "metrics", "logs")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                with (folder / f"{name}.jsonl").open("wb" if replace else "ab"):  # the exporters append
                    pass
        except OSError as error:
            raise CommandError(f"{option}: cannot write telemetry to {folder}: {error.strerror}") from None
        spans, metrics, logs = (
            exporter(folder / f"{name}.jsonl")
            for exporter, name in zip(
                (OTLPFileSpanExporter, OTLPFileMetricExporter, OTLPFileLogExporter), names, strict=True
            )
        )
        return self._counted(spans, metrics, logs, lambda name: (f"{name}.jsonl", folder / f"{name}.jsonl"))

    def _otlp(self, endpoint: str) -> tuple[Any, Any, Any]:
        exporters = _grpc(endpoint) if _is_grpc(endpoint) else _http(endpoint)
        return self._counted(*exporters, lambda name: (f"{name} → {endpoint}", None))

    def _counted(
        self, spans: Any, metrics: Any, logs: Any, where: Callable[[str], tuple[str, Path | None]]
    ) -> tuple[Any, Any, Any]:
        def sink(name: str) -> Sink:
            self.sinks.append(Sink(name, *where(name)))
            return self.sinks[-1]

        return (
            sink("traces").count_exports(spans, len),
            sink("metrics").count_exports(metrics, self._remember),
            sink("logs").count_exports(logs, len),
        )

    def _remember(self, data: MetricsData) -> int:
        self._last_metrics = data
        return sum(1 for _ in _points(data))


def _points(data: MetricsData | None) -> Sequence[tuple[str, Any]]:
    return [
        (metric.name, point)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


def _resource(service: str) -> Resource:
    """Return the environment's resource, with a default for the service name."""
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    return resource


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise CommandError(
            f"--otlp {endpoint}: not an endpoint; use http://host:4317 (gRPC) or http://host:4318 (HTTP)"
        )


def _is_grpc(endpoint: str) -> bool:
    return urlsplit(endpoint).port == GRPC_PORT


def _grpc(endpoint: str) -> tuple[Any, Any, Any]:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter  # noqa: PLC0415 - slow to import
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(endpoint), OTLPMetricExporter(endpoint), OTLPLogExporter(endpoint)


def _http(endpoint: str) -> tuple[Any, Any, Any]:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter  # noqa: PLC0415 - slow to import
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    base = endpoint.rstrip("/")
    return (
        OTLPSpanExporter(f"{base}/v1/traces"),
        OTLPMetricExporter(f"{base}/v1/metrics"),
        OTLPLogExporter(f"{base}/v1/logs"),
    )
