"""Spans and log records, as export requests have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...checker import otlp_json as otlp
from ...checker.otlp_json import Json, MalformedError
from ...semconv import attributes as a

_MAX_NUMBER: Final = 1e15
_ERROR: Final = (2, "STATUS_CODE_ERROR")
"""OTLP's status of a failed span, as number and as name."""

Attributes = Mapping[str, Any]
"""Values are numbers, text or booleans; others, such as lists, are text."""


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
    resource: Attributes
    links: Sequence[tuple[str, str, str]] = ()
    """The trace, the span and the `forge.link.type` of each link."""

    @property
    def duration(self) -> float:
        """The duration in seconds."""
        return max(0, self.end - self.start) / 1e9

    @property
    def service(self) -> str:
        """The name of the service, or nothing."""
        return str(self.resource.get("service.name", ""))


@dataclass(slots=True)
class LogRecord:
    """A log record; with a name it is an event. The time is a Unix time in nanoseconds."""

    name: str
    time: int
    trace_id: str
    span_id: str
    severity: str
    body: str
    attributes: Attributes
    resource: Attributes


def spans(request: Json) -> Iterator[Span]:
    """Yield the spans of an export request.

    Raises:
        MalformedError: the request is not OTLP.
    """
    for record, resource in each(request, "Spans", "spans"):
        yield _span(record, resource)


def log_records(request: Json) -> Iterator[LogRecord]:
    """Yield the log records of an export request.

    Raises:
        MalformedError: the request is not OTLP.
    """
    for record, resource in each(request, "Logs", "logRecords"):
        yield _log_record(record, resource)


def each(request: Json, signal: str, key: str) -> Iterator[tuple[Json, Attributes]]:
    """Yield the records of one signal in an export request, each with the attributes of its resource.

    Raises:
        MalformedError: the request is not OTLP.
    """
    for about in otlp.objects(request, f"resource{signal}"):
        resource = plain_attributes(otlp.object_(about, "resource"))
        for scope in otlp.objects(about, f"scope{signal}"):
            for record in otlp.objects(scope, key):
                yield record, resource


def plain_attributes(parent: Json) -> dict[str, Any]:
    """Return the attributes of a message as numbers, text or booleans.

    Raises:
        MalformedError: they are not OTLP.
    """
    found: dict[str, Any] = {}
    one: Any
    try:
        for one in parent.get("attributes") or ():
            key, (kind, value) = one["key"], next(iter(one["value"].items()))
            if type(key) is not str or type(value) is not _USUAL_TYPES[kind]:
                return _plain_attributes(parent)
            if kind == "intValue":
                if len(value) > _MAX_DIGITS:
                    return _plain_attributes(parent)
                value = int(value)
            found[key] = value
    except (TypeError, AttributeError, KeyError, ValueError, StopIteration):
        return _plain_attributes(parent)
    return found


_USUAL_TYPES: Final[dict[str, Any]] = {"stringValue": str, "intValue": str, "doubleValue": float, "boolValue": bool}
"""The types that exporters write. Others are checked, which takes several times as long."""
_MAX_DIGITS: Final = 18


def number(attributes: Attributes, key: str) -> float | None:
    """Return an attribute that is a number, such as seconds; None for any other, NaN, and what no time can be."""
    value = attributes.get(key)
    if isinstance(value, bool) or not isinstance(value, float | int):
        return None
    return value if abs(value) <= _MAX_NUMBER else None  # NaN is not, either


def _plain_attributes(parent: Json) -> dict[str, Any]:
    return {
        key: value.value if isinstance(value.value, str | int | float) else str(value)
        for key, value in otlp.attributes(parent).items()
    }


def _span(span: Json, resource: Attributes) -> Span:
    trace_id, span_id = otlp.text(span, "traceId"), otlp.text(span, "spanId")
    if not (trace_id and span_id):
        raise MalformedError("a span has no ids")
    status = otlp.object_(span, "status")
    return Span(
        trace_id.lower(),
        span_id.lower(),
        otlp.text(span, "parentSpanId").lower(),
        otlp.text(span, "name"),
        otlp.integer(span, "startTimeUnixNano"),
        otlp.integer(span, "endTimeUnixNano"),
        status.get("code") in _ERROR,
        otlp.text(status, "message"),
        plain_attributes(span),
        resource,
        [_link(link) for link in otlp.objects(span, "links")] if "links" in span else (),
    )


def _link(link: Json) -> tuple[str, str, str]:
    kind = str(plain_attributes(link).get(a.FORGE_LINK_TYPE, ""))
    return otlp.text(link, "traceId").lower(), otlp.text(link, "spanId").lower(), kind


def _log_record(record: Json, resource: Attributes) -> LogRecord:
    body = otlp.object_(record, "body")
    text = body.get("stringValue")
    return LogRecord(
        otlp.text(record, "eventName"),
        otlp.integer(record, "timeUnixNano") or otlp.integer(record, "observedTimeUnixNano"),
        otlp.text(record, "traceId").lower(),
        otlp.text(record, "spanId").lower(),
        otlp.text(record, "severityText"),
        text if isinstance(text, str) else "",
        plain_attributes(record),
        resource,
    )
