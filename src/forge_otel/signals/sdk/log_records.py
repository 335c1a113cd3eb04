"""Log records, as the SDK's `Logger.emit` makes them from the same arguments, in a fraction of its time.

It copies and checks every attribute of every record. Ours are made for one record each, of names and types that it
takes as they are.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import Logger, LogRecord

from ...support.text import MAX_EVENT_TEXT, fit, fit_values
from . import PLAIN, is_sdk, tested

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
        """The class of what the SDK is handed; None where it makes that itself."""
        self._limits = getattr(logger, "_log_record_limits", None)
        length = getattr(self._limits, "max_log_record_attribute_length", None)
        self._max_text = MAX_EVENT_TEXT if length is None else max(4 * length, MAX_EVENT_TEXT)
        """Maximum size of a text in bytes. If the SDK has a limit, in characters, that is the one for attributes."""
        # A logger that waits for a provider is not the SDK's, although there may be one now.
        if from_sdk and is_sdk(type(logger)) and _allow_all(self._limits):
            self._whole = whole()

    def emit(self, event: Event, body: str, attributes: dict[str, Any], context: Context | None) -> None:
        """Write an event, without a context in the current one. The attributes are nobody else's."""
        logger: Any = self._logger
        limit = self._max_text
        body, attributes = fit(body, limit), dict(fit_values(attributes, limit))
        fields: dict[str, Any] = {
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
            logger.emit(**fields)
            return
        record: Any = _Record(**fields)
        if self._whole is not None and PLAIN.issuperset(map(type, attributes.values())):
            record = self._whole(record, logger.resource, logger.instrumentation_scope, self._limits)
        logger.emit(record)


class _Record(LogRecord):
    """A record, which can be copied fast: the SDK's batch processor does so."""

    def __copy__(self) -> _Record:
        copy = object.__new__(_Record)
        copy.__dict__ = self.__dict__.copy()
        return copy


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
    fields: dict[str, Any] = {
        "timestamp": 1,
        "observed_timestamp": 2,
        "body": "c",
        "event_name": "d",
        "attributes": attributes,
    }
    logger.emit(**fields)
    logger.emit(Whole(_Record(**fields), logger.resource, logger.instrumentation_scope, logger._log_record_limits))
    public, whole = map(_contents, seen)
    return Whole if public == whole else None


def _contents(record: Any) -> dict[str, Any]:
    made = vars(record.log_record)
    return {
        **vars(record),
        "dropped": record.dropped_attributes,
        "log_record": {**made, "attributes": dict(made["attributes"])},
    }
