"""Log records that the SDK is handed as they are: it exports what it would have made of them itself.

This uses private parts of the SDK, so the last test runs all others once more on the oldest SDK that is supported.
"""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import NoOpLogger, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    InMemoryLogRecordExporter,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from forge_otel.semconv import events
from forge_otel.signals.sdk import log_records, spans
from forge_otel.signals.sdk.log_records import Records
from tests.support.sdk_versions import on_other_sdks, run_on
from tests.support.shortcuts import found_out_anew

ATTRIBUTES: dict[str, Any] = {
    "stage": "annotate",
    "attempt": 3,
    "delay": 0.5,
    "deduplicated": True,
    "message": "nö " * 100,
}


@pytest.fixture(autouse=True)
def _they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    # The oldest SDK knows no limits for log records alone: there, they take the public way.
    assert (log_records.whole() is not None) == hasattr(LogRecordLimits(), "max_log_record_attributes")
    monkeypatch.setattr(log_records, "time_ns", lambda: 1)


class Changing(LogRecordProcessor):
    """Changes what it sees, as a user's processor may."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        attributes: Any = log_record.log_record.attributes
        attributes["added"] = len(attributes)
        attributes.pop("delay", None)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class Logs:
    """A provider with everything behind it that there usually is."""

    def __init__(self, **more: Any) -> None:
        self.exporters = [InMemoryLogRecordExporter() for _ in range(3)]  # type: ignore[no-untyped-call]
        self.provider = LoggerProvider(Resource({"service.name": "s"}), shutdown_on_exit=False, **more)
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporters[0]))
        self.provider.add_log_record_processor(BatchLogRecordProcessor(self.exporters[1]))
        self.provider.add_log_record_processor(Changing())
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporters[2]))
        self.logger: Any = self.provider.get_logger("test", "1")

    def exported(self) -> list[list[dict[str, Any]]]:
        """What each exporter got."""
        self.provider.shutdown()
        return [[_said(log) for log in exporter.get_finished_logs()] for exporter in self.exporters]


def _said(log: Any) -> dict[str, Any]:
    record = vars(log.log_record)
    return {
        **record,
        "context": None,  # the batch processor takes it away
        "attributes": dict(record["attributes"]),
        "resource": log.resource,
        "scope": log.instrumentation_scope,
        "dropped": log.dropped_attributes,
    }


EVENT, BODY = events.FORGE_STAGE_EXCEPTION, "Stage failed"


def said(context: Any) -> dict[str, Any]:
    """What `Logger.emit` is told of the event in public."""
    return {
        "timestamp": 1,
        "observed_timestamp": 1,
        "context": context,
        "severity_number": SeverityNumber.WARN,
        "severity_text": "WARN",
        "body": BODY,
        "attributes": dict(ATTRIBUTES),
        "event_name": "forge.stage.exception",
    }


SPAN = TracerProvider(resource=Resource({}), shutdown_on_exit=False).get_tracer("test").start_span("s")
LIMITS: dict[str, dict[str, Any]] = {
    "none": {},
    "length": {"max_log_record_attribute_length": 10},
    "number": {"max_log_record_attributes": 40},
}


def logs(limits: dict[str, Any]) -> Logs:
    if not limits:
        return Logs()
    try:
        return Logs(log_record_limits=LogRecordLimits(**limits))
    except TypeError:
        pytest.skip("this SDK's providers have no such limits")


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_records(limits: dict[str, Any]) -> None:
    public, whole = logs(limits), logs(limits)
    context = trace.set_span_in_context(SPAN)
    public.logger.emit(**said(context))
    Records(whole.logger, from_sdk=True).emit(EVENT, BODY, dict(ATTRIBUTES), context)
    exported = whole.exported()
    assert exported == public.exported()
    assert [len(logs) for logs in exported] == [1, 1, 1]
    assert exported[0][0]["span_id"] == SPAN.get_span_context().span_id


def test_records_in_the_current_context() -> None:
    public, whole = Logs(), Logs()
    with trace.use_span(SPAN):
        public.logger.emit(**said(None))
        Records(whole.logger, from_sdk=True).emit(EVENT, BODY, dict(ATTRIBUTES), None)
    assert whole.exported() == public.exported()


def test_records_that_say_what_has_to_be_cleaned() -> None:
    public, whole = Logs(), Logs()
    unclean: dict[str, Any] = {"list": ["a", "b"], "numbers": [1, 2]}
    public.logger.emit(**{**said(None), "attributes": dict(unclean)})
    Records(whole.logger, from_sdk=True).emit(EVENT, BODY, dict(unclean), None)
    exported = whole.exported()
    assert exported == public.exported()
    assert exported[0][0]["attributes"]["list"] == ("a", "b")


def test_limits_that_drop_attributes_are_the_sdks_to_keep() -> None:
    limited = logs({"max_log_record_attributes": 2})
    with pytest.warns(Warning, match="dropped"):
        Records(limited.logger, from_sdk=True).emit(EVENT, BODY, dict(ATTRIBUTES), trace.set_span_in_context(SPAN))
    assert {log["dropped"] for log in limited.exported()[0]} == {4}  # three of ours, one for what is added


def test_a_logger_of_somebody_else() -> None:
    class Kept(NoOpLogger):
        seen: dict[str, Any]

        def emit(self, *arguments: Any, **keywords: Any) -> None:
            assert not arguments
            self.seen = keywords

    logger = Kept("test")
    Records(logger, from_sdk=False).emit(EVENT, BODY, dict(ATTRIBUTES), trace.set_span_in_context(SPAN))
    assert logger.seen == said(logger.seen["context"])


def test_they_can_be_switched_off() -> None:
    with found_out_anew("off"):
        assert (log_records.whole(), spans.light_spans()) == (None, None)


@pytest.mark.slow
@on_other_sdks
def test_all_of_this_on_other_sdks(sdk: str) -> None:
    run_on(sdk, __file__)
