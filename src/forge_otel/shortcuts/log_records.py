"""Log records, as the SDK's `Logger.emit` makes them from the same arguments, in a fraction of its time.

It copies and checks every attribute of every record. Ours are made for one record each, of names and types that it
takes as they are.
"""

from __future__ import annotations

import functools
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry._logs import Logger, LogRecord

from . import PLAIN, tested

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from ..semconv.definitions import Event

_MOST_ATTRIBUTES: Final = 32
"""No event of ours has so many."""


class Records:
    """Writes log records to a logger."""

    __slots__ = ("_from_sdk", "_limits", "_logger", "_whole")

    def __init__(self, logger: Logger, *, from_sdk: bool) -> None:
        """`from_sdk` says that the logger's provider is the SDK's."""
        self._logger = logger
        self._from_sdk = from_sdk
        self._whole: Any = None
        """The class of what the SDK is handed; None where it makes that itself."""
        self._limits = getattr(logger, "_log_record_limits", None)
        # A logger that waits for a provider is not the SDK's, although there may be one now.
        if from_sdk and type(logger).__module__.startswith("opentelemetry.sdk.") and _allow_all(self._limits):
            self._whole = whole()

    def emit(
        self, event: Event, body: str, attributes: dict[str, Any], context: Context | None, span: Span | None = None
    ) -> None:
        """Write an event; the attributes are nobody else's. The span is the one that is current in the context, if that
        is known; without a context, it is the current one.
        """
        logger: Any = self._logger
        said: dict[str, Any] = {
            "timestamp": (now := time_ns()),
            "observed_timestamp": now,
            "context": context,
            "severity_number": event.severity,
            "severity_text": event.severity._name_,  # `name` is the same, and found slowly
            "body": body,
            "attributes": attributes,
            "event_name": event.name,
        }
        if not self._from_sdk:
            logger.emit(**said)
            return
        record = _record(span, said) if span is not None and context else _Record(**said)
        if self._whole is not None and PLAIN.issuperset(map(type, attributes.values())):
            record = self._whole(record, logger.resource, logger.instrumentation_scope, self._limits)
        logger.emit(record)


class _Record(LogRecord):
    """A record, which can be copied fast: the SDK's batch processor does so."""

    def __copy__(self) -> _Record:
        copy = object.__new__(_Record)
        copy.__dict__ = self.__dict__.copy()
        return copy


def _record(span: Span, said: dict[str, Any]) -> Any:
    """The record, for which nobody has to look for the span: that takes longer than all the rest."""
    blank = _blank()
    if blank is None:
        return _Record(**said)
    within = span.get_span_context()
    record = object.__new__(_Record)
    record.__dict__ = values = blank.copy()
    values.update(said)
    values["trace_id"], values["span_id"], values["trace_flags"] = within.trace_id, within.span_id, within.trace_flags
    return record


@functools.cache
def _blank() -> dict[str, Any] | None:
    """What is the same in all records like ours; None where the constructor makes other ones of them."""
    within = trace.SpanContext(1, 2, is_remote=False)
    context = trace.set_span_in_context(trace.NonRecordingSpan(within))
    said: dict[str, Any] = {"timestamp": 3, "observed_timestamp": 4, "context": context, "body": "a"}
    blank = vars(_Record(context=context, observed_timestamp=0))
    same = {**blank, **said, "trace_id": 1, "span_id": 2, "trace_flags": within.trace_flags} == vars(_Record(**said))
    return blank if same else None


def _allow_all(limits: Any) -> bool:
    """Whether nothing of a record of ours can be beyond them."""
    most = getattr(limits, "max_log_record_attributes", 0)
    length = getattr(limits, "max_log_record_attribute_length", 0)
    return (most is None or most >= _MOST_ATTRIBUTES) and length is None


@tested
def whole() -> Any:
    """The class of records that the SDK takes as they are; None where it would make other ones itself."""
    from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - it need not be there

    class Whole(ReadWriteLogRecord):
        def __post_init__(self) -> None:
            pass  # where the SDK's own copies and checks the attributes

    seen: list[ReadWriteLogRecord] = []

    class Keep(LogRecordProcessor):
        def on_emit(self, log_record: ReadWriteLogRecord) -> None:
            seen.append(log_record)

        def shutdown(self) -> None:
            pass

        def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002 - the processor's signature
            return True

    provider = LoggerProvider(Resource({"a": "b"}), shutdown_on_exit=False)
    provider.add_log_record_processor(Keep())
    logger: Any = provider.get_logger("test")
    attributes = {"a": "b", "c": 1, "d": 0.5, "e": True}
    said: dict[str, Any] = {
        "timestamp": 1,
        "observed_timestamp": 2,
        "body": "c",
        "event_name": "d",
        "attributes": attributes,
    }
    logger.emit(**said)
    logger.emit(Whole(_Record(**said), logger.resource, logger.instrumentation_scope, logger._log_record_limits))
    public, whole = map(_contents, seen)
    return Whole if public == whole else None


def _contents(record: Any) -> dict[str, Any]:
    made = vars(record.log_record)
    return {
        **vars(record),
        "dropped": record.dropped_attributes,
        "log_record": {**made, "attributes": dict(made["attributes"])},
    }
