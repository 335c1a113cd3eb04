"""Exporters that discard what they are given. The SDK is imported when they are made: not every process has it."""

from __future__ import annotations

from typing import Any


def span_exporter() -> Any:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult  # noqa: PLC0415 - see above

    class Discard(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002 - the exporter's signature
            return SpanExportResult.SUCCESS

    return Discard()


def log_exporter() -> Any:
    from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult  # noqa: PLC0415 - see above

    class Discard(LogRecordExporter):
        def export(self, batch: object) -> LogRecordExportResult:  # noqa: ARG002 - the exporter's signature
            return LogRecordExportResult.SUCCESS

        def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - as above
            return True

        def shutdown(self) -> None:
            pass

    return Discard()


def metric_exporter() -> Any:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult  # noqa: PLC0415 - see above

    class Discard(MetricExporter):
        def export(
            self,
            metrics_data: object,  # noqa: ARG002 - the exporter's signature
            timeout_millis: float = 10_000,  # noqa: ARG002 - as above
            **kwargs: Any,  # noqa: ARG002 - as above
        ) -> MetricExportResult:
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - as above
            return True

        def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
            pass

    return Discard()
