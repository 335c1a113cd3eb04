"""Log records, as the SDK's `Logger.emit` makes them from the same arguments, in a fraction of its time.

It copies and checks every attribute of every record. Ours are made for one record each, of names and types that it
takes as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from ...support.text import MAX_EVENT_TEXT, fit, fit_values
from . import PLAIN, is_sdk, tested
from .contexts import SPAN_KEY, get_current

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from ...semconv.definitions import Event

_MOST_ATTRIBUTES: Final = 32
"""No event of ours has so many."""


class Records:
    """Writes log records to a logger."""

    __slots__ = ("_from_sdk", "_limits", "_logger", "_max_text", "_whole")

    def __init__(self, logger: Logger, *, from_sdk: bool) -> None:
        """`from_sdk` says that the logger's provider is the SDK's."""
        self._logger = logger
        self._from_sdk = from_sdk
        self._whole: Any = None
        """Makes what the SDK is handed; None where it makes that itself."""
        self._limits = getattr(logger, "_log_record_limits", None)
        length = getattr(self._limits, "max_log_record_attribute_length", None)
        self._max_text = MAX_EVENT_TEXT if length is None else max(4 * length, MAX_EVENT_TEXT)
        """Maximum size of a text in bytes. If the SDK has a limit, in characters, that is the one for attributes."""
        # A logger that waits for a provider is not the SDK's, although there may be one now.
        if from_sdk and is_sdk(type(logger)) and _allow_all(self._limits):
            self._whole = whole()

    def emit(self, event: Event, body: str, attributes: Mapping[str, Any], context: Context | None) -> None:
        """Write an event, without a context in the current one. The attributes are nobody else's."""
        logger: Any = self._logger
        limit = self._max_text
        fitted = fit_values(attributes, limit)  # those that are plain are returned themselves
        fields: dict[str, Any] = {
            "timestamp": (now := time_ns()),
            "observed_timestamp": now,
            "context": context or get_current(),
            "severity_number": event.severity,
            "severity_text": event.severity._name_,  # `name` is the same, and found slowly
            "body": fit(body, limit),
            "attributes": fitted,
            "event_name": event.name,
        }
        if not self._from_sdk:
            logger.emit(**fields)
        elif self._whole is not None and (fitted is attributes or PLAIN.issuperset(map(type, fitted.values()))):
            logger.emit(self._whole(fields, logger, self._limits))
        else:
            logger.emit(_Record(**fields))


class _Record(LogRecord):
    """A record, which can be copied fast: the SDK's batch processor does so."""

    def __copy__(self) -> _Record:
        copy = object.__new__(_Record)
        copy.__dict__ = self.__dict__.copy()
        return copy


def _allow_all(limits: Any) -> bool:
    """Return True if nothing of a record of ours can be beyond them."""
    most = getattr(limits, "max_log_record_attributes", 0)
    length = getattr(limits, "max_log_record_attribute_length", 0)
    return (most is None or most >= _MOST_ATTRIBUTES) and length is None


@tested
def whole() -> Any:
    """A function that makes records which the SDK takes as they are; None where it would make other ones itself."""
    from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - it need not be there

    class Whole(ReadWriteLogRecord):
        def __post_init__(self) -> None:
            pass  # where the SDK's own copies and checks the attributes

    unset = dict.fromkeys(vars(_Record()))

    def made(fields: dict[str, Any], logger: Any, limits: Any) -> Any:
        record = object.__new__(_Record)  # past the constructor, which takes longer than all of this
        record.__dict__ = state = {**unset, **fields}
        context = fields["context"].get(SPAN_KEY, INVALID_SPAN).get_span_context()
        # As a tuple: its properties take four times as long.
        state["trace_id"], state["span_id"], _, state["trace_flags"], *_ = context
        return Whole(record, logger.resource, logger.instrumentation_scope, limits)

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
    parent = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    attributes = {"a": "b", "c": 1, "d": 0.5, "e": True}
    for context in map(set_span_in_context, (parent, INVALID_SPAN)):
        fields: dict[str, Any] = {
            "timestamp": 1,
            "observed_timestamp": 2,
            "context": context,
            "severity_number": SeverityNumber.ERROR,
            "severity_text": "e",
            "body": "c",
            "attributes": attributes,
            "event_name": "d",
        }
        logger.emit(**fields)
        logger.emit(made(fields, logger, logger._log_record_limits))
    contents = [*map(_contents, seen)]
    return made if len(contents) == 4 and contents[::2] == contents[1::2] else None


def _contents(record: Any) -> dict[str, Any]:
    made = vars(record.log_record)
    return {
        **vars(record),
        "dropped": record.dropped_attributes,
        "log_record": {**made, "attributes": dict(made["attributes"])},
    }
