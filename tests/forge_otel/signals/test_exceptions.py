"""Exceptions as log records, as events of spans, or as both."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode

from forge import ArtifactStore, BatchRunner, Measurement, Pipeline, Sample, SQLStorage, stage
from tests.support.clock import FakeClock
from tests.support.runs import samples
from tests.support.shortcuts import found_out_anew
from tests.support.telemetry import Recorded, recording

OF_AN_EXCEPTION = ("exception.message", "exception.stacktrace", "exception.type")

RATES: dict[str, dict[str, Any]] = {
    "traced": {},
    "late": {"sampling_rate": 0.0},
    "traces of their own": {"trace_per_sample": True},
    "late traces of their own": {"trace_per_sample": True, "sampling_rate": 0.0},
    "all events": {"events": "all"},
    "late, all events": {"events": "all", "sampling_rate": 0.0},
    "no limits": {"event_budget": 0, "span_budget": 0},
}
every_rate = pytest.mark.parametrize("settings", RATES.values(), ids=RATES)


class Length(Measurement):
    key = "length"

    def compute(self, sample: Sample) -> int:
        if sample.data == "unmeasurable":
            raise TypeError("no length")
        return len(sample.data)


class Double(Measurement):
    key = "double"
    batch_size = 2

    async def compute_batch(self, samples: Any) -> list[int]:
        if any(sample.data == "odd" for sample in samples):
            raise ArithmeticError("odd")
        return [2 for _ in samples]


@pytest.fixture(autouse=True)
def _unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that cannot be stored. (What is replaced here is what is observed.)"""
    original = SQLStorage.write

    def write(self: SQLStorage, records: Any) -> Any:
        if any(record.id == "unwritten" and record.status.value == "ready" for record in records):
            raise OSError("no space left")
        return original(self, records)

    monkeypatch.setattr(SQLStorage, "write", write)


def fail_everywhere(folder: Path) -> None:
    """A run in which everything fails that has a span, itself at last."""
    clock = FakeClock()
    artifacts = ArtifactStore(str(folder / "artifacts"))
    storage = SQLStorage(f"sqlite:///{folder / 'x.db'}")

    @stage
    def one(sample: Sample) -> Sample:
        clock.advance(0.25)
        if sample.data == "broken":
            raise ValueError("no data in it")
        if sample.data == "lost":
            artifacts.get("0" * 64)
        return sample

    @stage
    async def two(sample: Sample) -> Sample:
        if sample.data == "late":
            raise KeyError("late")
        return sample

    @stage(batch_size=2)
    def three(samples: list[Sample]) -> list[Sample]:
        clock.advance(0.5)
        if any(sample.data == "refused" for sample in samples):
            raise OSError("refused")
        return samples

    def source() -> Any:
        data = ("plain", "broken", "lost", "late", "refused", "unmeasurable", "unwritten", "odd")
        yield from (Sample(id=each, data=each) for each in data)
        raise RuntimeError("the end")

    pipeline = Pipeline(
        name="p", source=source, stages=[one, two, three], measurements=[Length(), Double()], storage=storage
    )
    with pytest.raises(RuntimeError, match="the end"):
        BatchRunner(clock=clock).run(pipeline).drain()
    storage.close()


Found = set[tuple[int, tuple[tuple[str, str], ...]]]


def described(attributes: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, attributes[name]) for name in OF_AN_EXCEPTION)


def on_spans(recorded: Recorded) -> Found:
    """The exceptions that are events of spans, with the id of their span."""
    return {
        (span.context.span_id, described(event.attributes or {}))
        for span in recorded.spans
        for event in span.events
        if span.context
    }


def in_logs(recorded: Recorded) -> Found:
    """The exceptions that are log records, with the id of their span."""
    records = [log.log_record for log in recorded.log_exporter.get_finished_logs()]
    return {
        (record.span_id or 0, described(record.attributes or {}))
        for record in records
        if "exception.stacktrace" in (record.attributes or {})
    }


@pytest.mark.slow
@every_rate
def test_both_has_each_exception_in_the_logs_and_on_the_same_span(settings: dict[str, Any], tmp_path: Path) -> None:
    with recording(exceptions="both", **settings) as recorded:
        fail_everywhere(tmp_path)
    found = on_spans(recorded)
    assert found == in_logs(recorded)
    names = {span.context.span_id: span.name for span in recorded.spans if span.context}
    places = sorted(
        (names[span_id], dict(exception)["exception.message"].replace(str(tmp_path), ""))
        for span_id, exception in found
    )
    assert places == [
        ("forge.measurement length", "no length"),
        ("forge.measurement.batch double", "odd"),
        ("forge.pipeline p", "the end"),
        ("forge.stage one", f"/artifacts has no artifact {'0' * 64}"),
        ("forge.stage one", "no data in it"),
        ("forge.stage three", "refused"),
        ("forge.stage two", "'late'"),
        ("forge.stage.batch three", "refused"),
        ("forge.storage download file", f"/artifacts has no artifact {'0' * 64}"),
        ("forge.storage write sqlite", "no space left"),
    ]


@pytest.mark.slow
@every_rate
def test_span_events_are_instead_of_logs(settings: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for folder, exceptions in (("a", "both"), ("b", "span_events")):
        with recording(exceptions=exceptions, **settings) as recorded:
            (tmp_path / folder).mkdir()
            fail_everywhere(tmp_path / folder)
        found.append(sorted(exception for _, exception in on_spans(recorded)))
        assert bool(in_logs(recorded)) == (exceptions == "both")
    assert len(found[0]) == len(found[1]) == 10
    # Enqueued dead letters say what their exception was, as before.
    assert any(event.name == "forge.dlq.enqueue" for event in recorded.events)


@pytest.mark.slow
@every_rate
def test_logs_are_the_default(settings: dict[str, Any], tmp_path: Path) -> None:
    with recording(**settings) as recorded:
        fail_everywhere(tmp_path)
    assert on_spans(recorded) == set()
    assert len(in_logs(recorded)) == 10


def test_span_events_need_no_log_events(tmp_path: Path) -> None:
    with recording(exceptions="span_events", events="none", event_budget=1) as recorded:
        fail_everywhere(tmp_path)
    assert recorded.events == []
    assert len(on_spans(recorded)) == 10


# Compared with the SDK's own.


LIMITS = {
    "none": SpanLimits(),
    "attributes": SpanLimits(max_event_attributes=2),
    "length": SpanLimits(max_attribute_length=7, max_span_attribute_length=1000),
    "events": SpanLimits(max_events=0),
}
_MARKERS = re.compile(r"\n +[~^]+(?=\n)")


def said(event: Event) -> tuple[Any, ...]:
    attributes = {name: _MARKERS.sub("", str(value)) for name, value in (event.attributes or {}).items()}
    return event.name, event.timestamp, attributes, event.dropped_attributes


def by_the_sdk(provider: TracerProvider, error: Exception, timestamp: int | None) -> ReadableSpan:
    """A span on which the SDK has recorded an exception."""
    span: Any = provider.get_tracer("test").start_span("test")
    span.record_exception(error, timestamp=timestamp)
    span.end()
    return span  # type: ignore[no-any-return]


def fail_alone(raise_it: Callable[[], None]) -> None:
    @stage
    def one(sample: Sample) -> Sample:
        raise_it()
        return sample

    BatchRunner().run(Pipeline(name="p", source=samples(1), stages=[one])).drain()


def fail_together(raise_it: Callable[[], None]) -> None:
    @stage(batch_size=2)
    def one(samples: list[Sample]) -> list[Sample]:
        raise_it()
        return samples

    BatchRunner().run(Pipeline(name="p", source=samples(1, 2), stages=[one])).drain()


@pytest.mark.parametrize("switch", [None, "off"], ids=["light", "sdk"])
@pytest.mark.parametrize("rate", [1.0, 0.0], ids=["traced", "late"])
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("fail", [fail_alone, fail_together])
def test_span_events_are_those_of_the_sdk(
    fail: Callable[[Callable[[], None]], None], limits: SpanLimits, rate: float, switch: str | None
) -> None:
    raised: list[Exception] = []

    class OddError(Exception):
        pass

    def raise_it() -> None:
        try:
            int("none")
        except ValueError as cause:
            raised.append(OddError("no\ndata"))
            raise raised[-1] from cause

    recorded = Recorded()
    recorded.tracer_provider = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    with found_out_anew(switch), recording(recorded=recorded, exceptions="span_events", sampling_rate=rate):
        fail(raise_it)
    spans = [span for span in recorded.spans if span.name.startswith("forge.stage")]
    assert len(spans) == len(raised) == (1 if fail is fail_alone else 3)
    for span in spans:
        assert span.status.status_code is StatusCode.ERROR
        references = [by_the_sdk(recorded.tracer_provider, error, span.end_time) for error in raised]
        assert [said(event) for event in span.events] in [
            [said(event) for event in reference.events] for reference in references
        ]
        assert span.dropped_events == references[0].dropped_events


@pytest.mark.slow
def test_text_that_protobuf_does_not_take_is_escaped_and_cut() -> None:
    def raise_it() -> None:
        raise ValueError("\udce9" + "x" * 100_000)

    with recording(exceptions="span_events") as recorded:
        fail_alone(raise_it)
    ((event,),) = (span.events for span in recorded.spans if span.name == "forge.stage one")
    attributes: Mapping[str, Any] = event.attributes or {}
    assert attributes["exception.message"] == "\\udce9" + "x" * (8192 - 6 - 3) + "…"
    assert len(attributes["exception.stacktrace"].encode()) <= 8192
