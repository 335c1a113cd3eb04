"""The OpenTelemetry SDK's own metrics that rules and dashboards use.

They are enabled by `OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED=true`, and defined by OpenTelemetry's semantic conventions
for the SDK.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.semconv._incubating.attributes.otel_attributes import (
    OTEL_COMPONENT_NAME,
    OTEL_COMPONENT_TYPE,
    OTEL_SPAN_PARENT_ORIGIN,
    OTEL_SPAN_SAMPLING_RESULT,
)
from opentelemetry.semconv._incubating.metrics import otel_metrics
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT

from forge_otel.semconv.definitions import Instrument, Metric

COMPONENT = (OTEL_COMPONENT_TYPE, OTEL_COMPONENT_NAME)
_FINISHED = (*COMPONENT, ERROR_TYPE)
_SENT = (*_FINISHED, SERVER_ADDRESS, SERVER_PORT)

SPANS_STARTED: Final = Metric(
    otel_metrics.OTEL_SDK_SPAN_STARTED,
    Instrument.COUNTER,
    "{span}",
    "Number of started spans, sampled or not.",
    (OTEL_SPAN_PARENT_ORIGIN, OTEL_SPAN_SAMPLING_RESULT),
)

SPANS_LIVE: Final = Metric(
    otel_metrics.OTEL_SDK_SPAN_LIVE,
    Instrument.UPDOWNCOUNTER,
    "{span}",
    "Number of recorded spans that have not ended yet.",
    (OTEL_SPAN_SAMPLING_RESULT,),
)

SPANS_PROCESSED: Final = Metric(
    otel_metrics.OTEL_SDK_PROCESSOR_SPAN_PROCESSED,
    Instrument.COUNTER,
    "{span}",
    "Number of spans handled by a processor; dropped ones have an error.",
    _FINISHED,
)

SPAN_QUEUE_SIZE: Final = Metric(
    otel_metrics.OTEL_SDK_PROCESSOR_SPAN_QUEUE_SIZE,
    Instrument.UPDOWNCOUNTER,
    "{span}",
    "Number of spans that wait for export.",
    COMPONENT,
    observable=True,
)

SPAN_QUEUE_CAPACITY: Final = Metric(
    otel_metrics.OTEL_SDK_PROCESSOR_SPAN_QUEUE_CAPACITY,
    Instrument.UPDOWNCOUNTER,
    "{span}",
    "Maximum number of spans that wait for export.",
    COMPONENT,
)

LOGS_PROCESSED: Final = Metric(
    otel_metrics.OTEL_SDK_PROCESSOR_LOG_PROCESSED,
    Instrument.COUNTER,
    "{log_record}",
    "Number of log records handled by a processor; dropped ones have an error.",
    _FINISHED,
)

SPANS_EXPORTED: Final = Metric(
    otel_metrics.OTEL_SDK_EXPORTER_SPAN_EXPORTED,
    Instrument.COUNTER,
    "{span}",
    "Number of spans handled by an exporter; those that were not exported have an error.",
    _SENT,
)

LOGS_EXPORTED: Final = Metric(
    otel_metrics.OTEL_SDK_EXPORTER_LOG_EXPORTED,
    Instrument.COUNTER,
    "{log_record}",
    "Number of log records handled by an exporter; those that were not exported have an error.",
    _SENT,
)

POINTS_EXPORTED: Final = Metric(
    otel_metrics.OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED,
    Instrument.COUNTER,
    "{data_point}",
    "Number of points handled by an exporter; those that were not exported have an error.",
    _SENT,
)

EXPORT_DURATION: Final = Metric(
    otel_metrics.OTEL_SDK_EXPORTER_OPERATION_DURATION,
    Instrument.HISTOGRAM,
    "s",
    "Duration of exports.",
    _SENT,
)

COLLECTION_DURATION: Final = Metric(
    otel_metrics.OTEL_SDK_METRIC_READER_COLLECTION_DURATION,
    Instrument.HISTOGRAM,
    "s",
    "Duration of collections of metrics.",
    COMPONENT,
)

ALL: Final = (
    SPANS_STARTED,
    SPANS_LIVE,
    SPANS_PROCESSED,
    SPAN_QUEUE_SIZE,
    SPAN_QUEUE_CAPACITY,
    LOGS_PROCESSED,
    SPANS_EXPORTED,
    LOGS_EXPORTED,
    POINTS_EXPORTED,
    EXPORT_DURATION,
    COLLECTION_DURATION,
)
