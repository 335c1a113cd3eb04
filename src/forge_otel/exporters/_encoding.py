"""Encoding telemetry with the OTLP exporters' encoders, record by record where a batch cannot be encoded."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ..support.text import fit, fit_values


def encode_all_metrics(metrics_data: MetricsData) -> ExportMetricsServiceRequest:
    """Encode metrics, including those with text that protobuf does not take."""
    try:
        return encode_metrics(metrics_data)
    except UnicodeEncodeError:  # half a surrogate pair in a text of somebody else's must not cost all metrics
        return encode_metrics(_fit(metrics_data))


def encode_records(encode: Callable[[Sequence[Any]], Any], batch: Sequence[Any]) -> tuple[Any, list[Exception]]:
    """Encode spans or log records; return the request, and the errors of the records that are not in it."""
    try:
        return encode(batch), []
    except Exception:  # noqa: BLE001 - a record of somebody else's must not cost those of a whole batch
        request, errors = encode([]), []
    for record in batch:
        try:
            request.MergeFrom(encode([record]))
        except Exception as error:  # noqa: BLE001 - see above
            errors.append(error)
    return request, errors


def otlp_json(request: Any) -> dict[str, Any]:
    """Return a request as OTLP JSON: protobuf's, but ids in hexadecimal, and enumerations as numbers."""
    document: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    for record in _records_with_ids(document):
        for key in _IDS & record.keys():
            record[key] = base64.b64decode(record[key]).hex()
    return document


_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


def _records_with_ids(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for span in _fields(document, "resourceSpans", "scopeSpans", "spans"):
        yield span
        yield from span.get("links", ())
    yield from _fields(document, "resourceLogs", "scopeLogs", "logRecords")
    for metric in _fields(document, "resourceMetrics", "scopeMetrics", "metrics"):
        for data in metric.values():
            if isinstance(data, dict):
                yield from _fields(data, "dataPoints", "exemplars")


def _fields(message: Mapping[str, Any], *path: str) -> Iterator[dict[str, Any]]:
    """Yield the messages at a path of repeated fields."""
    first, *rest = path
    for each in message.get(first, ()):
        if rest:
            yield from _fields(each, *rest)
        else:
            yield each


def _fit(data: Any) -> Any:
    """Return metrics with fit texts, wherever these stand."""
    if isinstance(data, str):
        return fit(data)
    if isinstance(data, Mapping):
        return {fit(name): value for name, value in fit_values(data).items()}
    if isinstance(data, list | tuple):
        return [_fit(each) for each in data]
    if isinstance(data, Resource):
        return Resource(_fit(data.attributes), data.schema_url)
    if isinstance(data, InstrumentationScope):
        version = data.version and fit(data.version)
        return InstrumentationScope(fit(data.name), version, data.schema_url, _fit(data.attributes or {}))
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return dataclasses.replace(data, **{each.name: _fit(getattr(data, each.name)) for each in fields(data)})
    return data
