"""Light spans: whatever is done to them, what is exported is what the SDK's own spans would have been."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import wrapt
from opentelemetry import baggage, context, trace
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    Span,
    SpanLimits,
    SpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
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
from opentelemetry.trace import SpanKind, Status, StatusCode

from forge import BatchRunner, Measurement, Pipeline, Sample, Skip, SQLStorage, stage
from forge_otel import ForgeInstrumentor, __version__
from forge_otel.semconv import SCHEMA_URL
from forge_otel.semconv.attributes import ForgeLinkType
from forge_otel.signals.sdk.spans import LightSpans, end_span, light_spans
from forge_otel.signals.spans import Spans
from forge_otel.signals.telemetry import SCOPE_NAME
from tests.support.clock import FakeClock
from tests.support.sdk_versions import on_other_sdks, run_on
from tests.support.shortcuts import found_out_anew

LIGHT = light_spans() is not None
"""False on an SDK that counts its spans, and so starts them itself."""
needs_light = pytest.mark.skipif(not LIGHT, reason="this SDK starts its spans itself")


def test_every_sdk_but_the_oldest_has_light_spans() -> None:
    """Where they stopped to work, what needs them would be skipped, and the SDK be compared with itself."""
    is_oldest = version("opentelemetry-sdk").startswith("1.40.")
    assert LIGHT is not is_oldest


class Counting(IdGenerator):
    """Ids in a fixed order."""

    def __init__(self) -> None:
        self.ids = itertools.count(1)

    def generate_span_id(self) -> int:
        return next(self.ids)

    def generate_trace_id(self) -> int:
        return next(self.ids) << 64


class Exporter(InMemorySpanExporter):
    def said(self) -> list[dict[str, Any]]:
        """All of each span, in the order in which they ended."""
        return [everything(span) for span in self.get_finished_spans()]


def everything(span: ReadableSpan) -> dict[str, Any]:
    assert span.context is not None
    return {
        **json.loads(span.to_json()),
        "kind": span.kind,
        "status": (span.status.status_code, span.status.description),
        "start": span.start_time,
        "end": span.end_time,
        "flags": span.context.trace_flags,
        "state": span.context.trace_state.to_header(),
        "remote": span.context.is_remote,
        "parent": span.parent,
        "resource": span.resource,
        "scope": span.instrumentation_scope,
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
        "links": [(link.context, dict(link.attributes or {})) for link in span.links],
        "events": [(event.name, event.timestamp, dict(event.attributes or {})) for event in span.events],
    }


def both_ways(run: Callable[[TracerProvider], None], **provider: Any) -> tuple[Exporter, Exporter]:
    """What is exported with light spans, and with those of the SDK."""
    exporters = []
    for switch in (None, "off"):
        with found_out_anew(switch):
            made = TracerProvider(
                resource=Resource({"service.name": "s"}), id_generator=Counting(), shutdown_on_exit=False, **provider
            )
            exporter = Exporter()
            made.add_span_processor(SimpleSpanProcessor(exporter))
            assert (light_spans() is not None) == (LIGHT and switch is None)
            run(made)
            made.shutdown()
            exporters.append(exporter)
    return exporters[0], exporters[1]


# A pipeline.


class Length(Measurement):
    key = "length"

    def compute(self, sample: Sample) -> int:
        if sample.data == "unmeasurable":
            raise ValueError("no length")
        return len(sample.data)


class Double(Measurement):
    key = "double"
    depends_on = ("length",)
    batch_size = 2

    async def compute_batch(self, samples: Any) -> list[int]:
        return [2 * sample.measurements["length"] for sample in samples]


def busy_run(folder: Path, touch: Callable[[trace.Span], None], **settings: Any) -> Callable[[TracerProvider], None]:
    """A run in which calls succeed, fail, are skipped, split and repeated, while somebody touches the spans."""

    def run(provider: TracerProvider) -> None:
        clock = FakeClock()

        @stage
        def one(sample: Sample) -> Any:
            clock.advance(0.25)
            touch(trace.get_current_span())
            match sample.data:
                case "broken":
                    raise ValueError("no data in it")
                case "short":
                    return Skip("too short")
                case "pair":
                    return [sample.child("a", "first"), sample.child("b", "second")]
            return sample.with_data(sample.data + "!" if sample.data != "unmeasurable" else sample.data)

        @stage
        async def two(sample: Sample) -> Sample:
            clock.advance(0.5)
            touch(trace.get_current_span())
            return sample

        @stage(batch_size=2)
        def three(samples: list[Sample]) -> list[Sample]:
            clock.advance(1)
            touch(trace.get_current_span())
            if any(sample.data == "odd!" for sample in samples):
                raise OSError("odd")
            return samples

        data = ("plain", "broken", "short", "pair", "odd", "unmeasurable")
        storage = SQLStorage("sqlite://")
        pipeline = Pipeline(
            name="p",
            source=[Sample(id=each, data=each) for each in data],
            stages=[one, two, three],
            measurements=[Length(), Double()],
            storage=storage,
        )
        instrumentor = ForgeInstrumentor()
        instrumentor.instrument(tracer_provider=provider, zero_points=False, **settings)
        try:
            run = BatchRunner(clock=clock).run(pipeline)
            run.id = "run"
            run.drain()
        finally:
            instrumentor.uninstrument()
        storage.close()

    return run


def nothing(_: trace.Span) -> None:
    pass


def touch_all(span: trace.Span) -> None:
    """Everything that can be done to a span."""
    span.set_attribute("user.attribute", 1)
    span.set_attributes({"user.list": ["a", "b"], "forge.stage.name": "changed"})
    span.add_event("user.event", {"a": 1}, timestamp=5)
    span.record_exception(KeyError("seen"), timestamp=6)
    span.add_link(trace.SpanContext(1, 2, False, trace.TraceFlags(1)), {"linked": True})
    span.update_name("renamed")
    span.set_status(Status(StatusCode.ERROR, "by the user"))


SETTINGS: dict[str, dict[str, Any]] = {
    "all": {},
    "half": {"sampling_rate": 0.5},
    "late": {"sampling_rate": 0.0},
    "traces of their own": {"trace_per_sample": True},
    "late traces of their own": {"trace_per_sample": True, "sampling_rate": 0.0},
    "slow": {"sampling_rate": 0.0, "slow_threshold": 0.1},
    "budget": {"span_budget": 30},
    "events": {"events": "all"},
    "exceptions": {"exceptions": "both"},
    "late exceptions": {"exceptions": "span_events", "sampling_rate": 0.0},
}
LIMITS = {
    "none": SpanLimits(),
    "length": SpanLimits(max_span_attribute_length=4),
    "number": SpanLimits(max_span_attributes=3),
    "links": SpanLimits(max_links=1),
    "events": SpanLimits(max_events=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("touch", [nothing, touch_all])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_run_exports_what_it_exports_with_spans_of_the_sdk(
    tmp_path: Path, settings: dict[str, Any], touch: Callable[[trace.Span], None]
) -> None:
    light, sdk = both_ways(busy_run(tmp_path, touch, **settings))
    assert light.said() == sdk.said()
    assert len(light.said()) >= 7
    if touch is nothing and LIGHT:
        assert any(type(span).__name__ == "LightSpan" for span in light.get_finished_spans())


def kinds(exporter: Exporter) -> Counter[str]:
    """How many spans are light, and how many `ReadableSpan`: a span of the SDK's is exported as a copy."""
    return Counter(type(span).__name__ for span in exporter.get_finished_spans())


@pytest.mark.slow
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_limits_are_honoured(tmp_path: Path, limits: SpanLimits) -> None:
    light, sdk = both_ways(busy_run(tmp_path, touch_all), span_limits=limits)
    assert light.said() == sdk.said()


# One span.


def started(*processors: Any, **settings: Any) -> tuple[Any, Any, Spans]:
    """A span of the SDK, one of ours that is open, both below the same parent, and where ours come from."""
    provider = TracerProvider(
        resource=Resource({"service.name": "s"}), id_generator=Fixed(), shutdown_on_exit=False, **settings
    )
    for processor in processors:
        provider.add_span_processor(processor)
    tracer = provider.get_tracer("test", "1")
    parent = trace.set_span_in_context(tracer.start_span("parent"))
    spans = Spans(tracer)
    attributes: dict[str, Any] = {"a": "b", "c": 1}
    ours = spans.start("s", parent, SpanKind.CLIENT, attributes, spans.links(ForgeLinkType.BATCH, LINKED), 5)
    theirs = tracer.start_span(
        *("s", parent, SpanKind.CLIENT, attributes, [trace.Link(LINKED, {"forge.link.type": "batch"})], 5),
        record_exception=False,
        set_status_on_exception=False,
    )
    return theirs, ours, spans


LINKED = trace.SpanContext(3, 4, False, trace.TraceFlags(1))


class Fixed(IdGenerator):
    def generate_span_id(self) -> int:
        return 7

    def generate_trace_id(self) -> int:
        return 9


METHODS: dict[str, Callable[[Any], Any]] = {
    "set_attribute": lambda span: span.set_attribute("x", 1),
    "set_attributes": lambda span: span.set_attributes({"x": 1, "a": "changed"}),
    "add_event": lambda span: span.add_event("e", {"x": 1}, 6),
    "record_exception": lambda span: span.record_exception(ValueError("x"), timestamp=6),
    "add_link": lambda span: span.add_link(LINKED, {"x": 1}),
    "update_name": lambda span: span.update_name("changed"),
    "set_status": lambda span: span.set_status(StatusCode.ERROR, "why"),
    "get_span_context": lambda span: span.get_span_context(),
    "is_recording": lambda span: span.is_recording(),
    "to_json": lambda span: json.loads(span.to_json()),
    "end": lambda span: span.end(8),
    "repr": lambda span: repr(span).partition("(")[2],
    "event of bad attributes": lambda span: span.add_event("e", {"x": object()}, 6),
}
METHODS |= {"use_span": lambda span: _use(span), "with": lambda span: _enter(span)}  # noqa: PLW0108 - defined below
PROPERTIES = (
    *("attributes", "context", "dropped_attributes", "dropped_events", "dropped_links", "end_time", "events"),
    *("instrumentation_scope", "kind", "links", "name", "parent", "resource", "start_time", "status"),
)


def _use(span: Any) -> None:
    with pytest.raises(KeyError), trace.use_span(span, end_on_exit=False):
        raise KeyError("inside")


def _enter(span: Any) -> None:
    with pytest.raises(KeyError), span:
        raise KeyError("inside")


def comparable(value: Any) -> Any:
    if isinstance(value, trace.SpanContext):
        return value
    if isinstance(value, Status):
        return value.status_code, value.description
    if isinstance(value, tuple):
        return [(each.context, dict(each.attributes)) if hasattr(each, "context") else each.name for each in value]
    return dict(value) if hasattr(value, "keys") else value


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_does_what_it_does_on_a_span_of_the_sdk(method: Callable[[Any], Any]) -> None:
    theirs, ours, _ = started()
    assert method(ours) == method(theirs)
    assert {name: comparable(getattr(ours, name)) for name in PROPERTIES if name not in {"events", "end_time"}} == {
        name: comparable(getattr(theirs, name)) for name in PROPERTIES if name not in {"events", "end_time"}
    }
    assert [event.name for event in ours.events] == [event.name for event in theirs.events]
    assert (ours.end_time is None) == (theirs.end_time is None)


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_property_is_that_of_a_span_of_the_sdk(name: str) -> None:
    theirs, ours, _ = started()
    assert comparable(getattr(ours, name)) == comparable(getattr(theirs, name))


@needs_light
def test_a_span_that_is_touched_after_its_end_has_all_that_it_ended_with() -> None:
    exporter = Exporter()
    theirs, ours, _ = started(SimpleSpanProcessor(exporter))
    for span in (theirs, ours):
        end_span(span, {"d": True}, "failed", 8)
    assert type(ours).__name__ == "LightSpan"
    for span in (theirs, ours):
        span.set_attribute("late", 1)
    assert type(ours) is type(theirs)
    assert dict(ours.attributes) == dict(theirs.attributes) == {"a": "b", "c": 1, "d": True}
    assert [everything(span) for span in (theirs, ours)] == exporter.said()


def test_all_public_names_of_a_span_are_covered() -> None:
    """Fails when the SDK's span has a method or property that no test here knows."""
    public = {name for name in dir(Span) if not name.startswith("_")}
    assert public - set(METHODS) - set(PROPERTIES) == {"start", "instrumentation_info"}


@needs_light
def test_it_is_a_span_of_the_sdk() -> None:
    _, ours, _ = started()
    assert type(ours).__name__ == "LightSpan"
    assert isinstance(ours, Span)
    assert isinstance(ours, ReadableSpan)
    assert not hasattr(ours, "no_such_thing")
    assert type(ours).__name__ == "LightSpan"
    ours.set_attribute("x", 1)
    assert type(ours) is type(started()[0])


def test_a_span_that_has_ended_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter()
    theirs, ours, _ = started(SimpleSpanProcessor(exporter))
    for span in (theirs, ours):
        trace.get_current_span()
        span.end(8)
        span.set_attribute("late", 1)
        span.add_event("late")
        span.update_name("late")
        span.set_status(StatusCode.ERROR)
        span.end(9)
    one, other = exporter.said()
    assert one == other
    assert (one["end"], one["name"], one["attributes"]) == (8, "s", {"a": "b", "c": 1})
    assert sum("ended span" in record.message for record in caplog.records) == 10


# Who must see a span start, sees it.


class Looking(SpanProcessor):
    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.seen.append((span.name, dict(span.attributes)))
        span.set_attribute("seen", True)


class Ending(SpanProcessor):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def _on_ending(self, span: Any) -> None:
        self.seen.append(span.name)


class Choosing(Sampler):
    """Looks at attributes, and adds one."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *more: Any, **named: Any) -> SamplingResult:
        attributes = named.get("attributes") or (more[1] if len(more) > 1 else None) or {}
        if name == "s":
            assert attributes == {"a": "b", "c": 1}
        return SamplingResult(Decision.RECORD_AND_SAMPLE, {**attributes, "chosen": True})

    def get_description(self) -> str:
        return "Choosing"


SAMPLERS: dict[str, tuple[Sampler, str | None]] = {
    "on": (ALWAYS_ON, None),
    "parent": (ParentBased(ALWAYS_ON), None),
    "ratio below a parent": (ParentBasedTraceIdRatio(1), None),
    "root of one's own": (ParentBased(Choosing()), None),
    "ratio": (TraceIdRatioBased(1), "the sampler TraceIdRatioBased decides on each span"),
    "own": (Choosing(), "the sampler Choosing decides on each span"),
    "own of children": (
        ParentBased(ALWAYS_ON, local_parent_sampled=Choosing()),
        "the sampler ParentBased decides on each span",
    ),
    "off": (ALWAYS_OFF, "the sampler StaticSampler decides on each span"),
}


@needs_light
@pytest.mark.parametrize(("sampler", "why"), SAMPLERS.values(), ids=SAMPLERS)
def test_every_sampler_decides_as_ever(sampler: Sampler, why: str | None) -> None:
    theirs, ours, spans = started(sampler=sampler)
    assert spans.light.why_not == why
    assert ours.is_recording() == theirs.is_recording() == (sampler is not ALWAYS_OFF)
    assert ours.get_span_context() == theirs.get_span_context()
    if ours.is_recording():
        assert dict(ours.attributes) == dict(theirs.attributes)


@needs_light
@pytest.mark.parametrize(
    ("processor", "why"), [(Looking, "Looking looks at spans"), (Ending, "Ending looks at spans")], ids=["start", "end"]
)
def test_a_processor_that_looks_sees_all(processor: type[SpanProcessor], why: str) -> None:
    exporter = Exporter()
    looking: Any = processor()
    batching: Any = BatchSpanProcessor(InMemorySpanExporter())
    theirs, ours, spans = started(batching, looking, SimpleSpanProcessor(exporter))
    for span in (theirs, ours):
        span.end(8)
    one, other = exporter.said()
    batching.shutdown()
    assert one == other
    assert len(looking.seen) == (3 if processor is Looking else 2)  # the parent starts as well
    assert spans.light.why_not is not None
    assert spans.light.why_not.startswith(why)


@needs_light
@pytest.mark.parametrize("processor", [Looking, Ending])
def test_a_processor_that_is_added_later(processor: Any) -> None:
    exporter, late = Exporter(), processor()
    theirs, ours, spans = started(SimpleSpanProcessor(exporter))
    assert spans.light.current() is not None
    spans._tracer.span_processor.add_span_processor(late)  # type: ignore[attr-defined]  # it is the SDK's
    assert spans.light.current() is None
    for span in (theirs, ours):
        end_span(span, {"d": True}, "failed", 8)
    one, other = exporter.said()
    assert one == other
    assert len(late.seen) == (0 if processor is Looking else 2)


class Names(SpanProcessor):
    """Only looks at ends."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span.name)


@pytest.mark.slow
@needs_light
def test_all_processors_that_only_look_at_ends_get_the_same_light_spans_in_the_same_order(tmp_path: Path) -> None:
    others: list[tuple[Names, Exporter]] = []

    def run(provider: TracerProvider) -> None:
        names, other = Names(), Exporter()
        provider.add_span_processor(names)
        provider.add_span_processor(SimpleSpanProcessor(other))
        others.append((names, other))
        busy_run(tmp_path, nothing)(provider)

    first, sdk = both_ways(run)
    names, second = others[0]
    assert kinds(first) == kinds(second) == {"LightSpan": 38, "ReadableSpan": 1}
    assert first.said() == second.said() == sdk.said() == others[1][1].said()
    assert names.ended == [span.name for span in first.get_finished_spans()]


class Baggage(SpanProcessor):
    """Copies baggage to attributes, as the one in opentelemetry-processor-baggage does."""

    def on_start(self, span: trace.Span, parent_context: context.Context | None = None) -> None:
        span.set_attributes({key: str(value) for key, value in baggage.get_all(parent_context).items()})


@pytest.mark.slow
@needs_light
@pytest.mark.parametrize(("settings", "stages"), [("all", 16), ("late", 7)])
def test_a_processor_that_copies_baggage_finds_it_at_every_span(tmp_path: Path, settings: str, stages: int) -> None:
    def run(provider: TracerProvider) -> None:
        provider.add_span_processor(Baggage())
        token = context.attach(baggage.set_baggage("team", "blue"))
        try:
            busy_run(tmp_path, nothing, **SETTINGS[settings])(provider)
        finally:
            context.detach(token)

    light, sdk = both_ways(run)
    assert light.said() == sdk.said()
    teams = Counter((each["name"].split()[0], each["attributes"].get("team")) for each in light.said())
    assert teams["forge.stage", "blue"] == stages
    assert {team for _, team in teams} == {"blue"}


@needs_light
def test_processors_that_work_at_the_same_time() -> None:
    processor = ConcurrentMultiSpanProcessor()
    _, ours, spans = started(active_span_processor=processor)
    processor.shutdown()
    assert type(ours).__name__ != "LightSpan"
    assert spans.light.why_not == "spans go to a ConcurrentMultiSpanProcessor"


@needs_light
def test_the_sdks_own_metrics_about_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    _, ours, spans = started()
    assert type(ours).__name__ != "LightSpan"
    assert spans.light.why_not == "the SDK counts its own spans"


@needs_light
def test_what_variables_say_about_spans_does_not_matter() -> None:
    with found_out_anew() as patch:
        patch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        patch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")
        assert light_spans() is not None


SPAN_LIMITS: dict[str, tuple[SpanLimits, str | None]] = {
    "none": (SpanLimits(), None),
    "as many as ours have": (SpanLimits(max_span_attributes=64), None),
    "any number": (SpanLimits(max_span_attributes=SpanLimits.UNSET), None),
    "of other things": (SpanLimits(max_links=1, max_events=1, max_link_attributes=1), None),
    "fewer": (SpanLimits(max_span_attributes=63), "span attributes are limited"),
    "fewer of anything": (SpanLimits(max_attributes=63), "span attributes are limited"),
    "length": (SpanLimits(max_span_attribute_length=4096), "span attributes are limited"),
    "length of anything": (SpanLimits(max_attribute_length=4096), "span attributes are limited"),
}


@needs_light
@pytest.mark.parametrize(("limits", "why"), SPAN_LIMITS.values(), ids=SPAN_LIMITS)
def test_limits_that_a_span_of_ours_could_reach(limits: SpanLimits, why: str | None) -> None:
    _, ours, spans = started(span_limits=limits)
    assert spans.light.why_not == why
    assert (type(ours).__name__ == "LightSpan") == (why is None)


def our_tracer(provider: TracerProvider) -> Any:
    """The tracer that the instrumentor gets."""
    return trace.get_tracer(SCOPE_NAME, __version__, provider, SCHEMA_URL)


def patched(start_span: Callable[..., trace.Span]) -> Callable[..., trace.Span]:
    def patch(*args: Any, **named: Any) -> trace.Span:
        span = start_span(*args, **named)
        span.set_attribute("patched", True)
        return span

    return patch


def wrapped(start_span: Any) -> Any:
    return wrapt.FunctionWrapper(start_span, lambda inner, _, args, named: patched(inner)(*args, **named))


PATCHES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "the tracer's": lambda tracer: (tracer, patched(tracer.start_span)),
    "its class's": lambda tracer: (type(tracer), patched(type(tracer).start_span)),
    "its class's, disguised": lambda tracer: (
        type(tracer),
        functools.wraps(type(tracer).start_span)(patched(type(tracer).start_span)),
    ),
    "its class's, by wrapt": lambda tracer: (type(tracer), wrapped(type(tracer).start_span)),
}
"""For a tracer: where its `start_span` is patched, and by what."""


@pytest.mark.slow
@needs_light
@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_a_patched_start_span_starts_every_span(tmp_path: Path, patch: Callable[[Any], tuple[Any, Any]]) -> None:
    whys = []

    def run(provider: TracerProvider) -> None:
        tracer = our_tracer(provider)
        owner, start_span = patch(tracer)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(owner, "start_span", start_span)
            whys.append(LightSpans(tracer).why_not)
            busy_run(tmp_path, nothing)(provider)

    light, sdk = both_ways(run)
    assert whys[0] == "the tracer's start_span is patched"
    assert light.said() == sdk.said()
    assert {each["attributes"].get("patched") for each in light.said()} == {True}


def only_others(scope: Any) -> Any:
    """Switches our tracer off."""
    return sdk_trace._TracerConfig(is_enabled=scope.name != SCOPE_NAME)


def every_scope(_: Any) -> Any:
    return sdk_trace._TracerConfig(is_enabled=True)


@pytest.mark.slow
@needs_light
def test_a_configurator_that_switches_the_tracer_off(tmp_path: Path) -> None:
    whys = []

    def run(provider: TracerProvider) -> None:
        whys.append(LightSpans(our_tracer(provider)).why_not)
        user = provider.get_tracer("user")
        busy_run(tmp_path, lambda _: user.start_span("inside", start_time=1).end(2))(provider)

    light, sdk = both_ways(run, _tracer_configurator=only_others)
    assert whys[0] == "a tracer configurator has switched the tracer off"
    assert light.said() == sdk.said()
    assert Counter((each["name"], each["parent"]) for each in light.said()) == {("inside", None): 16}


@pytest.mark.slow
@needs_light
def test_a_configurator_that_switches_the_tracer_off_and_on_within_a_run(tmp_path: Path) -> None:
    whys = []

    def run(provider: TracerProvider) -> None:
        calls, spans = itertools.count(1), LightSpans(our_tracer(provider))

        def switch(_: trace.Span) -> None:
            configurator = {3: only_others, 6: every_scope}.get(next(calls))
            if configurator is not None:
                provider._set_tracer_configurator(tracer_configurator=configurator)
                spans.current()
                whys.append(spans.why_not)

        busy_run(tmp_path, switch)(provider)

    light, sdk = both_ways(run)
    assert whys[:2] == ["a tracer configurator has switched the tracer off", None]
    assert light.said() == sdk.said()
    assert kinds(light) == {"LightSpan": 28, "ReadableSpan": 1}


def test_a_tracer_that_is_not_the_sdks() -> None:
    spans = Spans(trace.NoOpTracer())
    assert spans.light.current() is None
    assert spans.light.why_not == "the tracer is not one of an SDK that is known"
    span = spans.start("s", None, SpanKind.INTERNAL, {}, (), 5)
    assert not span.is_recording()


@pytest.mark.slow
@needs_light
def test_spans_that_wait_for_their_export_hardly_occupy_the_garbage_collector() -> None:
    class Waiting(SpanProcessor):
        def __init__(self) -> None:
            self.spans: list[ReadableSpan] = []

        def on_end(self, span: ReadableSpan) -> None:
            self.spans.append(span)

    @stage
    def same(sample: Sample) -> Sample:
        return sample

    provider, waiting = TracerProvider(shutdown_on_exit=False), Waiting()
    provider.add_span_processor(waiting)
    ForgeInstrumentor().instrument(tracer_provider=provider, span_budget=0)
    samples = 500
    pipeline = Pipeline(name="p", source=[Sample(data=number) for number in range(samples)], stages=[same])
    BatchRunner().run(pipeline).drain()
    ForgeInstrumentor().uninstrument()
    gc.collect()
    before = Counter(map(type, gc.get_objects()))
    waiting.spans, spans = [], waiting.spans
    assert len(spans) == 2 * samples + 1
    spans.clear()
    gc.collect()
    gone = before - Counter(map(type, gc.get_objects()))
    occupied = {kind.__name__: count // samples for kind, count in gone.items() if count >= samples}
    # Per sample two spans and their contexts; neither dicts of their state nor their attributes.
    assert occupied == {"LightSpan": 2, "SpanContext": 2}


@needs_light
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_process_ends_a_span_whatever_the_parent_was_doing() -> None:
    from forge_otel.signals.sdk import spans as module  # noqa: PLC0415

    _, ours, _ = started()
    with module._lock:
        child = os.fork()
        if child == 0:
            ours.set_attribute("x", 1)  # would wait for the parent's lock
            os._exit(0 if dict(ours.attributes)["x"] == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.slow
@on_other_sdks
def test_all_of_this_on_other_sdks(sdk: str) -> None:
    run_on(sdk, __file__)
