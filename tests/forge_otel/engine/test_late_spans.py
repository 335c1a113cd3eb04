"""What was not traced and turns out to be worth it: its spans are written after the fact, as they would have been."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

from forge import ArtifactStore, BatchRunner, Pipeline, RetryPolicy, Sample, SQLStorage, StreamingRunner, stage
from forge_otel.instrumentors.slow import MIN_SAMPLES
from forge_otel.signals.telemetry import SCOPE_NAME
from tests.forge_otel.instrumentors.test_trace import EXPECTED
from tests.support.clock import FakeClock
from tests.support.runs import both_runners, samples
from tests.support.small_run import small_run
from tests.support.telemetry import Recorded, recording

if TYPE_CHECKING:
    from pathlib import Path

    from forge.runner import Runner

LATE = ("busy", "broken", "pair#b")
"""Of a small run, the samples that are retried or fail."""


def wanted(line: str) -> bool:
    """Whether a line of a complete trace is about one of these, or about a batch with one of them."""
    if "forge.pipeline" in line:
        return True
    if any(f"sample.id={name}" in line.split(", ") or f"sample.id={name} |" in line for name in LATE):
        return True
    return any(line.endswith(f"-> {name}") for name in LATE)


def unordered(tree: str) -> list[str]:
    """The lines of a tree without those that say nothing of samples; when they started is another test's."""
    return sorted(line for line in tree.splitlines() if "forge.storage write" not in line)


def test_complete_late_trace_of_a_small_run(tmp_path: Path) -> None:
    with recording(sampling_rate=0.0) as recorded:
        run = small_run(tmp_path, FakeClock())
        run.drain()
    tree = recorded.tree().replace(run.id, "RUN").replace(run.pipeline.id, "PIPELINE")
    # Of their samples, batches are linked to those that are traced.
    expected = sorted(line.replace(" | -> plain", "").replace(" | -> pair#a", "") for line in unordered(EXPECTED))
    assert [line.replace(", sample.weight=1.0", "").replace(", trace.late=True", "") for line in unordered(tree)] == [
        line for line in expected if wanted(line)
    ]
    assert all(("trace.late=True" in line) != ("forge.pipeline" in line) for line in tree.splitlines())
    assert len({span.context.trace_id for span in recorded.spans if span.context}) == 1


def seconds(spans: tuple[ReadableSpan, ...], sample_id: str) -> dict[str, tuple[float, float]]:
    """When the spans of a sample began after its own, and how long they took."""
    found = {span.name: span for span in spans if (span.attributes or {}).get("forge.sample.id") == sample_id}
    began = found["forge.sample"].start_time or 0
    return {
        name: (((span.start_time or 0) - began) / 1e9, ((span.end_time or 0) - (span.start_time or 0)) / 1e9)
        for name, span in found.items()
    }


def test_times_are_those_when_it_happened(tmp_path: Path) -> None:
    with recording(sampling_rate=0.0) as recorded:
        small_run(tmp_path, FakeClock()).drain()
    assert seconds(recorded.spans, "busy") == {
        "forge.sample": (0.0, 2.5625),
        "forge.stage clean": (0.25, 1.0),
        "forge.stage tag": (1.25, 1.0),
        "forge.measurement density": (2.375, 0.125),
    }
    assert seconds(recorded.spans, "pair#b")["forge.measurement density"] == (1.125, 0.125)


@pytest.mark.slow
def test_logs_and_dead_letters_point_to_spans_that_exist(tmp_path: Path) -> None:
    with recording(sampling_rate=0.0) as recorded:
        run = small_run(tmp_path, FakeClock())
        run.drain()
    of_errors = {"forge.stage.exception", "forge.measurement.exception", "forge.stage.retry", "forge.dlq.enqueue"}
    places = {(event.name, event.span) for event in recorded.events if event.name in of_errors}
    assert places == {
        ("forge.stage.exception", "forge.stage clean"),
        ("forge.measurement.exception", "forge.measurement density"),
        ("forge.stage.retry", "forge.sample"),
        ("forge.dlq.enqueue", "forge.sample"),
    }
    ids = {
        (span.attributes or {})["forge.sample.id"]: (
            f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
        )
        for span in recorded.spans
        if span.name == "forge.sample" and span.context
    }
    letters = run.pipeline.dead_letters.list()
    assert {letter.sample_id for letter in letters} == {"broken", "pair#b"}
    for letter in letters:
        assert letter.carrier["traceparent"] == ids[letter.sample_id]
        assert trace.TraceFlags(int(ids[letter.sample_id][-2:], 16)).sampled


def fail_in_every_way(folder: Path) -> None:
    """Run samples of which some are retried, some fail alone, some in a batch, some are not stored."""
    store = ArtifactStore(str(folder / "artifacts"))
    failed: set[str] = set()

    @stage(retry=RetryPolicy(initial_delay=0, jitter=0))
    def alone(sample: Sample) -> Sample:
        if sample.data % 4 == 0 and sample.id not in failed:
            failed.add(sample.id)
            raise ConnectionError("again")
        if sample.data % 4 == 1:
            raise ValueError("never")
        if sample.data % 4 == 2:
            store.get("0" * 64)
        return sample

    @stage(batch_size=2)
    def together(samples: list[Sample]) -> list[Sample]:
        if any(sample.data % 8 == 3 for sample in samples):
            raise ValueError("refused")
        return samples

    storage = SQLStorage(f"sqlite:///{folder / 'x.db'}")
    pipeline = Pipeline(name="p", source=samples(*range(40)), stages=[alone, together], storage=storage)
    BatchRunner().run(pipeline).drain()
    storage.close()


class Every(Sampler):
    """Takes every trace, which nobody knows of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def should_sample(self, *arguments: Any, **__: Any) -> SamplingResult:
        self.asked.append(arguments[2])
        return SamplingResult(Decision.RECORD_AND_SAMPLE, arguments[4])

    def get_description(self) -> str:
        return "Every"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "sampler", "share"),
    [
        ({}, ParentBased(ALWAYS_ON), 1.0),
        ({}, ALWAYS_ON, 1.0),
        ({"trace_per_sample": True}, ParentBased(ALWAYS_ON), 1.0),
        ({"trace_per_sample": True}, TraceIdRatioBased(0.5), 0.5),
        ({"trace_per_sample": True}, ParentBased(TraceIdRatioBased(0.5)), 0.5),
        ({"span_budget": 40}, ParentBased(ALWAYS_ON), 0.5),
    ],
)
def test_late_events_have_the_sampled_flag_that_their_span_will_have(
    settings: dict[str, Any], sampler: Sampler, share: float, tmp_path: Path
) -> None:
    recorded = Recorded()
    recorded.tracer_provider = TracerProvider(sampler, id_generator=RandomIdGenerator(), shutdown_on_exit=False)
    recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    with recording(recorded=recorded, sampling_rate=0.0, **settings):
        fail_in_every_way(tmp_path)
    written = {span.context.span_id: span.context.trace_flags for span in recorded.spans if span.context}
    of_samples = [
        log.log_record for log in recorded.log_exporter.get_finished_logs() if log.log_record.event_name in LATE_EVENTS
    ]
    assert {record.event_name for record in of_samples} == LATE_EVENTS
    for record in of_samples:
        assert record.span_id
        flags = written.get(record.span_id)
        assert record.trace_flags == flags if flags is not None else not record.trace_flags.sampled
    assert (sum(record.span_id in written for record in of_samples) < len(of_samples)) == (share < 1)
    assert any(record.span_id in written for record in of_samples)


LATE_EVENTS = {
    "forge.stage.retry",
    "forge.stage.exception",
    "forge.stage.batch_exception",
    "forge.storage.exception",
    "forge.dlq.enqueue",
}


@pytest.mark.slow
def test_a_sampler_that_may_count_is_asked_once(tmp_path: Path) -> None:
    """Before its span is written nobody knows whether it will be sampled."""
    recorded, sampler = Recorded(), Every()
    recorded.tracer_provider = TracerProvider(sampler, shutdown_on_exit=False)
    recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    with recording(recorded=recorded, sampling_rate=0.0, trace_per_sample=True):
        fail_in_every_way(tmp_path)
    written = [span.name for span in recorded.spans]
    assert sampler.asked.count("forge.sample") == written.count("forge.sample") == 35
    records = [log.log_record for log in recorded.log_exporter.get_finished_logs()]
    of_samples = LATE_EVENTS - {"forge.stage.batch_exception"}  # a batch is below the run
    assert not any(record.trace_flags.sampled for record in records if record.event_name in of_samples)


class ButSamples(Sampler):
    """Takes every trace but those of samples."""

    def should_sample(self, *arguments: Any, attributes: Any = None, name: str = "", **_: Any) -> SamplingResult:
        taken = name != "forge.sample"
        return SamplingResult(Decision.RECORD_AND_SAMPLE if taken else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "ButSamples"


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.0], ids=["traced", "late"])
def test_nothing_refers_to_the_run_where_the_sampler_drops_a_samples_own_trace(rate: float, tmp_path: Path) -> None:
    recorded = Recorded()
    recorded.tracer_provider = TracerProvider(ParentBased(ButSamples()), shutdown_on_exit=False)
    recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    with recording(recorded=recorded, sampling_rate=rate, trace_per_sample=True):
        fail_in_every_way(tmp_path)
    names = {span.name for span in recorded.spans}
    assert "forge.pipeline p" in names
    assert ("forge.stage.batch together" in names) == (rate == 0)  # it is below the run
    assert not names & {"forge.sample", "forge.stage alone", "forge.stage together"}
    assert not any(span.links for span in recorded.spans)
    traces = {span.context.trace_id for span in recorded.spans if span.context}
    records = [log.log_record for log in recorded.log_exporter.get_finished_logs()]
    failed = [record for record in records if record.event_name == "forge.stage.exception"]
    assert {record.attributes["forge.stage.name"] for record in failed if record.attributes} == {"alone", "together"}
    assert not any(record.trace_flags.sampled or record.trace_id in traces for record in failed)


@both_runners
def test_a_sample_that_fails_again_links_to_its_earlier_trace(runner: Runner, tmp_path: Path) -> None:
    @stage
    def broken(sample: Sample) -> Sample:
        raise ValueError("never")

    storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
    pipeline = Pipeline(name="p", source=samples(1), stages=[broken], storage=storage)
    spans = []
    for _ in range(2):
        with recording(sampling_rate=0.0) as recorded:
            runner.run(pipeline).drain()
        spans.append(next(span for span in recorded.spans if span.name == "forge.sample"))
    storage.close()
    assert [link.context for link in spans[0].links] == []
    assert spans[0].context is not None
    assert [(link.context.trace_id, link.context.span_id) for link in spans[1].links] == [
        (spans[0].context.trace_id, spans[0].context.span_id)
    ]


@pytest.mark.parametrize(("sampler", "settings"), [(ALWAYS_OFF, {}), (ALWAYS_ON, {"span_budget": 1})])
def test_a_replay_does_not_link_to_a_span_that_was_not_written(
    sampler: Sampler, settings: dict[str, Any], tmp_path: Path
) -> None:
    @stage
    def broken(sample: Sample) -> Sample:
        raise ValueError("never")

    storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
    pipeline = Pipeline(name="p", source=samples(1), stages=[broken], storage=storage)
    before = Recorded()
    before.tracer_provider = TracerProvider(sampler, shutdown_on_exit=False)
    before.tracer_provider.add_span_processor(SimpleSpanProcessor(before.span_exporter))
    with recording(recorded=before, **settings):
        BatchRunner().run(pipeline).drain()
    with recording() as recorded:
        BatchRunner().replay(pipeline).drain()
    storage.close()
    assert "forge.sample" not in {span.name for span in before.spans}
    (replayed,) = (span for span in recorded.spans if span.name == "forge.sample")
    assert list(replayed.links) == []


def test_storage_inside_a_stage_is_below_it(tmp_path: Path) -> None:
    clock = FakeClock()
    run = small_run(tmp_path, clock)
    artifacts = run.pipeline.artifacts
    assert artifacts is not None

    @stage
    def before(sample: Sample) -> Sample:
        clock.advance(1.0)
        return sample

    @stage
    def store(sample: Sample) -> Sample:
        clock.advance(0.5)
        artifacts.put(b"something")
        clock.advance(0.5)
        raise ValueError("too late")

    pipeline = Pipeline(name="p", source=samples(1), stages=[before, store], artifacts=artifacts)
    with recording(sampling_rate=0.0) as recorded:
        BatchRunner(clock=clock).run(pipeline).drain()
    lines = [line.split(" | ")[0] for line in recorded.tree().splitlines()]
    assert lines == [
        "forge.pipeline p",
        "  forge.sample",
        "    forge.stage before",
        "    forge.stage store",
        "      forge.storage upload file",
    ]


def taking(clock: FakeClock, durations: dict[int, float]) -> Any:
    @stage
    def work(sample: Sample) -> Sample:
        clock.advance(durations.get(sample.data, 1.0))
        return sample

    return work


def run_of(clock: FakeClock, count: int, *stages: Any) -> None:
    BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(*range(count)), stages=stages)).drain()


def late(recorded: Recorded) -> list[str]:
    spans = [span for span in recorded.spans if span.name == "forge.sample"]
    return [str((span.attributes or {})["forge.sample.id"]) for span in spans]


def test_slow_samples() -> None:
    clock = FakeClock()
    with recording(sampling_rate=0.0, slow_threshold=2.0) as recorded:
        run_of(clock, 5, taking(clock, {1: 2.0, 3: 2.5}))
    assert late(recorded) == ["3"]


def test_samples_slower_than_most() -> None:
    clock = FakeClock()
    # Before there are enough of them nothing is known; after that, ten seconds are more than 99 % of them took.
    durations = {5: 20.0, 150: 10.0, 160: 1.5}
    with recording(sampling_rate=0.0, slow_threshold="auto") as recorded:
        run_of(clock, 200, taking(clock, durations))
    assert durations.keys() & set(range(MIN_SAMPLES)) == {5}
    assert late(recorded) == ["150", "160"]


def test_a_traced_sample_is_not_written_twice(tmp_path: Path) -> None:
    with recording(sampling_rate=1.0, slow_threshold=0.0) as recorded:
        small_run(tmp_path, FakeClock()).drain()
    assert len(recorded.spans) == 31
    assert not any("forge.trace.late" in (span.attributes or {}) for span in recorded.spans)


@both_runners
def test_samples_with_traces_of_their_own(runner: Runner) -> None:
    @stage(retry=RetryPolicy(max_attempts=2, initial_delay=0))
    def broken(sample: Sample) -> Sample:
        if sample.data == 1:
            raise ValueError("no")
        return sample

    with recording(sampling_rate=0.0, trace_per_sample=True) as recorded:
        runner.run(Pipeline(name="p", source=samples(0, 1, 2), stages=[broken])).drain()
    spans = {span.name: span for span in recorded.spans}
    assert spans.keys() == {"forge.pipeline p", "forge.sample", "forge.stage broken"}
    sample, run = spans["forge.sample"], spans["forge.pipeline p"]
    assert sample.context is not None
    assert run.context is not None
    assert sample.parent is None
    assert [link.context.span_id for link in sample.links] == [run.context.span_id]
    assert sample.context.trace_id != run.context.trace_id
    assert spans["forge.stage broken"].parent == sample.context
    (failure,) = (event for event in recorded.events if event.name == "forge.stage.exception")
    assert failure.span == "forge.stage broken"


@pytest.mark.parametrize("kind", [BatchRunner, StreamingRunner])
def test_what_was_in_flight_when_a_run_was_closed(kind: Any) -> None:
    with recording(sampling_rate=0.0) as recorded:
        with kind().run(Pipeline(name="p", source=samples(*range(3)))) as run:
            next(run)
        assert run.result is not None
    cancelled = run.result.ledger.failed
    assert len(late(recorded)) == cancelled


class Remembering(TracerProvider):
    """Remembers the tracers that it gave."""

    def __init__(self) -> None:
        super().__init__(shutdown_on_exit=False)
        self.given: dict[str, Any] = {}

    def get_tracer(self, instrumenting_module_name: str, *arguments: Any, **more: Any) -> trace.Tracer:
        tracer = super().get_tracer(instrumenting_module_name, *arguments, **more)
        self.given[instrumenting_module_name] = tracer
        return tracer


def test_the_tracer_gets_its_ids_from_where_it_did_before(tmp_path: Path) -> None:
    recorded, provider = Recorded(), Remembering()
    provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    recorded.tracer_provider = provider
    with recording(recorded=recorded, sampling_rate=0.0):
        small_run(tmp_path, FakeClock()).drain()
        provider.get_tracer("user")
        assert provider.given[SCOPE_NAME].id_generator is not provider.id_generator
        assert provider.given["user"].id_generator is provider.id_generator
    assert provider.given[SCOPE_NAME].id_generator is provider.id_generator
    ids = [span.context.span_id for span in recorded.spans if span.context]
    assert len(set(ids)) == len(ids) == 15


def test_a_tracer_that_is_not_the_sdks() -> None:
    """It cannot be told which id a span is to have; nothing else is different."""

    class OwnTracer(trace.NoOpTracer):
        names: list[str] = []  # noqa: RUF012

        def start_span(self, name: str, *arguments: Any, **more: Any) -> trace.Span:
            self.names.append(name)
            return Own(trace.SpanContext(1, len(self.names), is_remote=False, trace_flags=trace.TraceFlags(1)))

    class Own(trace.NonRecordingSpan):
        def is_recording(self) -> bool:
            return True

    class OwnProvider(trace.TracerProvider):
        def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
            return OwnTracer()

    @stage
    def broken(sample: Sample) -> Sample:
        raise ValueError("no")

    recorded = Recorded()
    recorded.tracer_provider = OwnProvider()  # type: ignore[assignment]
    with recording(recorded=recorded, sampling_rate=0.0):
        BatchRunner().run(Pipeline(name="p", source=samples(1), stages=[broken])).drain()
    assert OwnTracer.names == ["forge.pipeline p", "forge.sample", "forge.stage broken"]
