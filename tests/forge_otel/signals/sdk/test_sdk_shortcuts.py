"""Log records and attributes that the SDK is handed as they are: it exports what it would have made of them itself.

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
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, SpanLimits, SpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, Status, StatusCode

from forge_otel.semconv import events
from forge_otel.signals.sdk import log_records
from forge_otel.signals.sdk import spans as span_shortcuts
from forge_otel.signals.sdk.log_records import Records
from forge_otel.signals.sdk.spans import Spans, describe
from tests.support.oldest import run_on_oldest
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
    assert span_shortcuts.known() is not None
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


SPAN_LIMITS = {
    "none": SpanLimits(),
    "length": SpanLimits(max_span_attribute_length=4),
    "number": SpanLimits(max_span_attributes=3),
    "unlimited": SpanLimits(max_span_attributes=SpanLimits.UNSET),
}


def tracer(*processors: Any, **more: Any) -> Any:
    provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False, **more)
    for processor in processors:
        provider.add_span_processor(processor)
    return provider.get_tracer("test")


def contents(span: Any) -> dict[str, Any]:
    """What a span says, but for its ids and times."""
    return {
        "attributes": dict(span.attributes),
        "dropped": span.dropped_attributes,
        "status": (span.status.status_code, span.status.description),
        "parent": span.parent,
        "links": len(span.links),
        "kind": span.kind,
        "name": span.name,
    }


UNCLEAN: dict[str, Any] = {"list": ["a"], "numbers": [1, 2], "stage": "annotate"}


@pytest.mark.parametrize("said", [ATTRIBUTES, UNCLEAN], ids=["clean", "unclean"])
@pytest.mark.parametrize("failure", [None, "failed"])
@pytest.mark.parametrize("before", [StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR])
@pytest.mark.parametrize("limits", SPAN_LIMITS.values(), ids=SPAN_LIMITS)
def test_what_a_span_says(limits: SpanLimits, before: StatusCode, failure: str | None, said: dict[str, Any]) -> None:
    made = tracer(span_limits=limits)
    public, put = (made.start_span("s", attributes={"stage": "first", "id": "1"}) for _ in range(2))
    for span in (public, put):
        span.set_status(before)
    public.set_attributes(said)
    if failure is not None:
        public.set_status(Status(StatusCode.ERROR, failure))
    describe(put, said, failure)
    for span in (public, put):
        span.end()
    assert contents(put) == contents(public)
    assert len(put.attributes) == (3 if limits.max_span_attributes == 3 else len(said) + 1)


def test_a_span_that_has_ended_says_so(caplog: pytest.LogCaptureFixture) -> None:
    span = tracer().start_span("s")
    span.end()
    describe(span, {"late": 1}, "failed")
    assert dict(span.attributes) == {}
    assert span.status.status_code is StatusCode.UNSET
    assert "ended span" in caplog.text


def test_a_span_that_is_not_recorded() -> None:
    describe(trace.INVALID_SPAN, {"a": 1}, "failed")
    assert not trace.INVALID_SPAN.is_recording()


class Looking(SpanProcessor):
    """Looks at spans that start, as a user's processor may."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.seen.append(dict(span.attributes))
        span.set_attribute("seen", True)


class Choosing(Sampler):
    """Looks at attributes, as a user's sampler may, and adds one."""

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        *_: Any,
        **__: Any,
    ) -> SamplingResult:
        if attributes and attributes.get("stage") == "annotate":
            return SamplingResult(Decision.RECORD_AND_SAMPLE, {**attributes, "chosen": True})
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return "Choosing"


class Knowing(ParentBased):
    """Made of the SDK's samplers, with something else at hand."""

    def __init__(self) -> None:
        super().__init__(ALWAYS_ON)
        self.tenants = ["a"]


class Replaced(ParentBased):
    """Decides by a function that was put in."""

    def __init__(self) -> None:
        super().__init__(ALWAYS_ON)
        self.should_sample = Choosing().should_sample  # type: ignore[method-assign]


SAMPLERS: dict[str, tuple[Sampler, bool]] = {
    "on": (ALWAYS_ON, True),
    "off": (ALWAYS_OFF, True),
    "parent": (ParentBased(ALWAYS_ON), True),
    "ratio": (TraceIdRatioBased(1), True),
    "ratio below a parent": (ParentBasedTraceIdRatio(1), True),
    "own": (Choosing(), False),
    "own below a parent": (ParentBased(Choosing()), False),
    "own with more in it": (Knowing(), False),
    "own function": (Replaced(), False),
    "own of children": (ParentBased(ALWAYS_ON, local_parent_sampled=Choosing()), False),
}


def started_bare(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each span that starts, whether the SDK is told no attributes."""
    bare: list[bool] = []
    start_span = Tracer.start_span

    def noted(
        self: Tracer, name: str, context: Any = None, kind: Any = None, attributes: Any = None, *more: Any, **rest: Any
    ) -> Any:
        bare.append(attributes is None)
        return start_span(self, name, context, kind, attributes, *more, **rest)

    monkeypatch.setattr(Tracer, "start_span", noted)
    return bare


def start_both(made: Any) -> tuple[Any, Any]:
    """A span as the SDK starts it, and as we do."""
    parent = trace.set_span_in_context(SPAN)
    arguments = ("s", parent, trace.SpanKind.CLIENT, ATTRIBUTES, [Link(SPAN.get_span_context())], 5)
    return made.start_span(*arguments), Spans(made).start(*arguments)


@pytest.mark.parametrize(("sampler", "short"), SAMPLERS.values(), ids=SAMPLERS)
def test_spans_start_alike_with_every_sampler(sampler: Sampler, short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = started_bare(monkeypatch)
    public, ours = start_both(tracer(sampler=sampler))
    assert bare == [False, short]
    assert ours.is_recording() == public.is_recording() == (sampler is not ALWAYS_OFF)
    if ours.is_recording():
        assert contents(ours) == contents(public)
        assert ours.start_time == public.start_time == 5


@pytest.mark.parametrize("limits", SPAN_LIMITS.values(), ids=SPAN_LIMITS)
def test_spans_start_alike_with_limits(limits: SpanLimits) -> None:
    public, ours = start_both(tracer(span_limits=limits))
    assert contents(ours) == contents(public)


def test_processors_that_do_nothing_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = started_bare(monkeypatch)
    exporters = [InMemorySpanExporter(), InMemorySpanExporter()]
    made = tracer(SimpleSpanProcessor(exporters[0]), BatchSpanProcessor(exporters[1]))
    public, ours = start_both(made)
    assert bare == [False, True]
    for span in (public, ours):
        span.end()
    made.span_processor.shutdown()
    for exporter in exporters:
        one, other = exporter.get_finished_spans()
        assert contents(one) == contents(other)


def test_a_processor_that_looks_sees_all() -> None:
    looking = Looking()
    made = tracer(BatchSpanProcessor(InMemorySpanExporter()), looking)
    public, ours = start_both(made)
    made.span_processor.shutdown()
    assert contents(ours) == contents(public)
    assert ours.attributes["seen"] is True
    assert looking.seen == [ATTRIBUTES, ATTRIBUTES]


def test_a_processor_that_is_added_later(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = started_bare(monkeypatch)
    provider = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    spans = Spans(provider.get_tracer("test"))
    spans.start("s", None, trace.SpanKind.INTERNAL, ATTRIBUTES)
    looking = Looking()
    provider.add_span_processor(looking)
    spans.start("s", None, trace.SpanKind.INTERNAL, ATTRIBUTES)
    assert looking.seen == [ATTRIBUTES]
    assert bare == [True, False]


def test_processors_that_work_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = started_bare(monkeypatch)
    made = tracer(active_span_processor=ConcurrentMultiSpanProcessor())
    public, ours = start_both(made)
    made.span_processor.shutdown()
    assert contents(ours) == contents(public)
    assert bare == [False, False]


def test_what_variables_say_about_spans_does_not_matter() -> None:
    with found_out_anew() as patch:
        patch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        patch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")
        assert span_shortcuts.known() is not None


def test_they_can_be_switched_off() -> None:
    with found_out_anew("off"):
        assert (log_records.whole(), span_shortcuts.known()) == (None, None)
        public, ours = start_both(tracer())
        assert contents(ours) == contents(public)


def test_all_of_this_on_the_oldest_sdk() -> None:
    run_on_oldest(__file__)
