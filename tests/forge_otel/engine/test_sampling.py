"""Which samples are traced, and that everything else follows."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, SamplingResult
from opentelemetry.sdk.trace.sampling import Sampler as SdkSampler

from forge import BatchRunner, Measurement, Pipeline, Sample, StreamingRunner, stage
from forge.execution.stage_executor import StageExecutor
from forge_otel.engine.sampling import Sampler
from tests.support.clock import FakeClock
from tests.support.runs import both_runners, every_runner, samples
from tests.support.small_run import small_run
from tests.support.telemetry import Recorded, recording

if TYPE_CHECKING:
    from pathlib import Path

    from forge.runner import Runner

RATE = 0.25
CHOSEN = ["1", "13", "16"]
"""Of the ids from 0 to 19, those that a rate of 0.25 chooses: now, and in every later version."""


@stage
def plain(sample: Sample) -> Sample:
    return sample


@stage(concurrency=3)
async def coroutine(sample: Sample) -> Sample:
    return sample


class Length(Measurement):
    key = "length"

    def compute(self, sample: Sample) -> int:
        return 1


class LengthAsync(Measurement):
    key = "length async"

    async def compute(self, sample: Sample) -> int:
        return 1


def pipeline_of(*stages: Any, count: int = 20, **more: Any) -> Pipeline:
    return Pipeline(name="p", source=samples(*range(count)), stages=stages or [plain], **more)


def traced(recorded: Recorded, name: str = "forge.sample") -> list[str]:
    """The ids of the samples that have a span of this name."""
    found = [span.attributes for span in recorded.spans if span.name == name]
    return sorted(str(attributes["forge.sample.id"]) for attributes in found if attributes)


def test_a_rate_is_a_share_of_the_ids() -> None:
    ids = [f"sample {number}" for number in range(10_000)]
    shares = {rate: sum(map(Sampler(rate).traces, ids)) for rate in (0.0, 0.01, 0.1, 0.5, 0.999, 1.0)}
    # A hash does not change, so these are exact.
    assert shares == {0.0: 0, 0.01: 69, 0.1: 932, 0.5: 4860, 0.999: 9988, 1.0: 10_000}


@pytest.mark.slow
def test_whether_a_sample_is_traced_follows_no_pattern() -> None:
    """As with independent draws: the variance of shares, what neighbours and equal numbers elsewhere do, and how the
    last digits are spread. A hash does not change, so none of this is left to chance.
    """
    rate, count = 0.5, 1000
    traces = Sampler(rate).traces
    sets = [[traces(f"{kind}/{number}") for number in range(count)] for kind in range(200)]
    deviation = math.sqrt(count * rate * (1 - rate))
    squares = [((sum(each) - count * rate) / deviation) ** 2 for each in sets]
    assert round(statistics.mean(squares), 1) == 1.0
    neighbours = [a == b for each in sets for a, b in pairwise(each)]
    assert round(statistics.mean(neighbours), 2) == 0.5
    elsewhere = [a == b for one, other in pairwise(sets) for a, b in zip(one, other, strict=True)]
    assert round(statistics.mean(elsewhere), 2) == 0.5
    digits = [statistics.mean(taken for each in sets for taken in each[digit::10]) for digit in range(10)]
    assert [round(share, 2) for share in digits] == [0.5] * 10


def test_a_higher_rate_traces_all_that_a_lower_one_does() -> None:
    ids = [str(number) for number in range(2000)]
    chosen = [{i for i in ids if Sampler(rate).traces(i)} for rate in (0.01, 0.1, 0.5, 1.0)]
    assert all(lower < higher for lower, higher in itertools.pairwise(chosen))


def test_any_id_can_be_decided_on() -> None:
    assert {Sampler(0.5).traces(sample_id) for sample_id in ("", "ü", "\ud800", "x" * 10_000)} == {True, False}


@every_runner
def test_the_same_samples_are_traced_wherever_they_run(runner: Runner) -> None:
    for _ in range(2):
        with recording(sampling_rate=RATE) as recorded:
            pipeline = pipeline_of(plain, coroutine, measurements=[Length(), LengthAsync()])
            assert runner.run(pipeline).drain().ledger.ready == 20
        assert traced(recorded) == CHOSEN
        for name in ("forge.stage plain", "forge.stage coroutine"):
            assert traced(recorded, name) == CHOSEN
        for name in ("forge.measurement length", "forge.measurement length async"):
            assert traced(recorded, name) == CHOSEN
        assert len(recorded.spans) == 1 + 5 * len(CHOSEN)


def test_a_stage_outside_of_a_run_is_traced_like_its_sample() -> None:
    with recording(sampling_rate=RATE) as recorded:
        for sample in samples(*range(20)):
            StageExecutor().apply(plain, sample)
    assert traced(recorded, "forge.stage plain") == CHOSEN
    assert recorded.total("forge.stage.executions") == 20


@both_runners
def test_other_instrumentations_follow(runner: Runner) -> None:
    seen: dict[str, trace.SpanContext] = {}
    with recording(sampling_rate=RATE) as recorded:
        tracer = recorded.tracer_provider.get_tracer("user")

        @stage(concurrency=2, timeout=30)
        def ask(sample: Sample) -> Sample:
            seen[sample.id] = trace.get_current_span().get_span_context()
            with tracer.start_as_current_span("query", attributes={"forge.sample.id": sample.id}):
                return sample

        runner.run(pipeline_of(ask)).drain()
    assert traced(recorded, "query") == CHOSEN
    run = next(span for span in recorded.spans if span.name == "forge.pipeline p")
    assert run.context is not None
    assert {context.trace_id for context in seen.values()} == {run.context.trace_id}
    assert sorted(name for name, context in seen.items() if context.trace_flags.sampled) == CHOSEN
    # Each sample has a span of its own to refer to.
    assert len({context.span_id for context in seen.values()}) == 20


def test_batches_are_traced_if_one_of_their_samples_is() -> None:
    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(4)]

    @stage(batch_size=4)
    def batch(samples: list[Sample]) -> list[Sample]:
        return samples

    with recording(sampling_rate=RATE) as recorded:
        BatchRunner().run(pipeline_of(fan_out, batch, count=10)).drain()
    children = [f"{parent}#{number}" for parent in range(10) for number in range(4)]
    chosen = [child for child in children if Sampler(RATE).traces(child)]
    ids = {
        span.context.span_id: (span.attributes or {}).get("forge.sample.id") for span in recorded.spans if span.context
    }
    batches = [span for span in recorded.spans if span.name == "forge.stage.batch batch"]
    linked = [[ids[link.context.span_id] for link in span.links] for span in batches]
    by_parent: dict[str, list[str]] = {}
    for child in chosen:
        by_parent.setdefault(child.split("#")[0], []).append(child)
    assert linked == list(by_parent.values())
    assert 0 < len(batches) < 10
    assert recorded.total("forge.stage.executions", "stage.name=batch") == 40


def test_what_was_left_out_is_counted(tmp_path: Path) -> None:
    with recording(sampling_rate=0.0) as none:
        small_run(tmp_path, FakeClock()).drain()
    written = len(none.spans)
    suppressed = none.points["forge.telemetry.suppressed"]
    assert suppressed == {"pipeline.name=small, telemetry.reason=sampling, telemetry.signal=span": 31 - written}
    (summary,) = (event for event in none.events if event.name == "forge.pipeline.summary")
    assert summary.attributes["forge.summary.spans"] == written
    assert summary.attributes["forge.summary.suppressed"] == 31 - written


@pytest.mark.slow
def test_events_of_spans_are_thinned_with_them_and_those_of_errors_are_not(tmp_path: Path) -> None:
    with recording(sampling_rate=0.0, events="all") as recorded:
        small_run(tmp_path, FakeClock()).drain()
    names = Counter(event.name for event in recorded.events)
    assert names["forge.stage.start"] == names["forge.measurement.stop"] == names["forge.storage.sample_write"] == 0
    assert (names["forge.stage.exception"], names["forge.stage.retry"], names["forge.dlq.enqueue"]) == (1, 1, 2)
    assert recorded.total("forge.telemetry.suppressed", "telemetry.signal=event", "telemetry.reason=sampling") == 32


def test_hooks_are_called_for_every_sample() -> None:
    spans: list[tuple[str, bool]] = []

    def note(span: trace.Span, of: Any, sample: Sample, *_: Any) -> None:
        spans.append((sample.id, span.is_recording()))

    with recording(sampling_rate=RATE, on_stage_end=note) as recorded:
        BatchRunner().run(pipeline_of(plain, coroutine)).drain()
    assert len(spans) == 40
    assert sorted({sample_id for sample_id, is_recording in spans if is_recording}) == CHOSEN
    assert traced(recorded, "forge.stage plain") == CHOSEN


def test_nothing_is_traced_where_the_run_is_not(tmp_path: Path) -> None:
    recorded = Recorded()
    recorded.tracer_provider = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    with recording(recorded=recorded, sampling_rate=RATE):
        small_run(tmp_path, FakeClock()).drain()
    assert recorded.spans == ()
    assert recorded.total("forge.sample.settled") == 7
    assert "forge.telemetry.suppressed" not in recorded.points
    (summary,) = (event for event in recorded.events if event.name == "forge.pipeline.summary")
    assert (summary.attributes["forge.summary.spans"], summary.attributes["forge.summary.suppressed"]) == (0, 0)


class OddOnes(SdkSampler):
    """Drops the spans of samples with even ids, and what is below them."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *arguments: Any, **more: Any) -> Any:
        attributes = arguments[1] if len(arguments) > 1 else more.get("attributes")
        dropped = int((attributes or {}).get("forge.sample.id", 1)) % 2 == 0
        return SamplingResult(Decision.DROP if dropped else Decision.RECORD_AND_SAMPLE, attributes)

    def get_description(self) -> str:
        return "odd ones"


def test_the_users_sampler_may_leave_out_samples() -> None:
    recorded = Recorded()
    recorded.tracer_provider = TracerProvider(OddOnes(), shutdown_on_exit=False)
    recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    with recording(recorded=recorded, span_budget=70):
        BatchRunner().run(pipeline_of(count=60)).drain()
    odd = sorted(str(number) for number in range(1, 60, 2))
    # What is left out takes nothing from the budget, and is not ours to count.
    assert traced(recorded) == traced(recorded, "forge.stage plain") == odd
    assert "forge.telemetry.suppressed" not in recorded.points
    assert recorded.total("forge.stage.executions") == 60


def test_a_sample_without_an_id_is_traced_outside_of_a_run() -> None:
    with recording(sampling_rate=0.0) as recorded:
        StageExecutor().apply(plain, Sample(data=1))
        StageExecutor().apply(plain, Sample(id="1", data=1))
    assert recorded.tree() == "forge.stage plain | stage.name=plain, stage.outcome=success\n"


def test_samples_with_traces_of_their_own() -> None:
    with recording(sampling_rate=RATE, trace_per_sample=True) as recorded:
        StreamingRunner().run(pipeline_of(plain)).drain()
    assert traced(recorded) == traced(recorded, "forge.stage plain") == CHOSEN
    assert len({span.context.trace_id for span in recorded.spans if span.context}) == 1 + len(CHOSEN)
    roots = [span for span in recorded.spans if span.name == "forge.sample"]
    assert all(span.parent is None and len(span.links) == 1 for span in roots)
