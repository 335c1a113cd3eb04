"""Sampled spans say how many samples they stand for, and nothing that is not true of them."""

from __future__ import annotations

import math
import random
from contextlib import ExitStack
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState

from forge import BatchRunner, Pipeline, RetryPolicy, Sample, StreamingRunner, stage
from forge_otel.engine.sampling import outer_share, without_threshold
from tests.support.clock import FakeClock
from tests.support.telemetry import Recorded, recording

CHOSEN, FAILED, RETRIED, SLOW, REST = "13", "broken", "moody", "slow", "0"
"""Ids of samples; of the last four, a rate of 0.25 chooses none."""


def with_sampler(sampler: Any, generator: Any = None) -> Recorded:
    recorded = Recorded()
    recorded.tracer_provider = TracerProvider(sampler, shutdown_on_exit=False, id_generator=generator)
    recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    return recorded


def run_all_kinds(recorded: Recorded | None = None, *, above: trace.Span | None = None, **settings: Any) -> Recorded:
    """Run a sample of each kind, below a span."""
    clock, refused = FakeClock(), set[str]()

    @stage(retry=RetryPolicy(max_attempts=2, initial_delay=0))
    def judge(sample: Sample) -> Sample:
        if sample.id == FAILED:
            raise ValueError("broken")
        if sample.id == RETRIED and sample.id not in refused:
            refused.add(sample.id)
            raise ConnectionError("not yet")
        if sample.id == SLOW:
            clock.advance(60)
        return sample

    source = [Sample(id=name, data=0) for name in (CHOSEN, FAILED, RETRIED, SLOW, REST)]
    pipeline = Pipeline(name="p", source=source, stages=[judge])
    with recording(recorded=recorded, slow_threshold=10.0, **settings) as done, ExitStack() as around:
        if above is not None:
            around.enter_context(trace.use_span(above))
        BatchRunner(clock=clock).run(pipeline).drain()
    return done


def weights(recorded: Recorded) -> dict[Any, Any]:
    """The weight of each sample's span, None where it has none."""
    found = [span.attributes or {} for span in recorded.spans if span.name == "forge.sample"]
    return {attributes["forge.sample.id"]: attributes.get("forge.sample.weight") for attributes in found}


def remote(**state: str) -> trace.Span:
    """A sampled span of another process."""
    return NonRecordingSpan(SpanContext(1, 2, True, TraceFlags(TraceFlags.SAMPLED), TraceState(list(state.items()))))


@pytest.mark.parametrize("own_traces", [False, True], ids=["one trace", "own traces"])
def test_a_span_stands_for_those_that_were_left_out(own_traces: bool) -> None:
    recorded = run_all_kinds(sampling_rate=0.25, trace_per_sample=own_traces)
    assert weights(recorded) == {CHOSEN: 4.0, FAILED: 1.0, RETRIED: 1.0, SLOW: 1.0}


def test_a_chosen_sample_that_would_be_traced_anyway_stands_for_itself() -> None:
    recorded = run_all_kinds(sampling_rate=0.999)
    assert weights(recorded) == {CHOSEN: 1 / 0.999, FAILED: 1.0, RETRIED: 1.0, SLOW: 1.0, REST: 1 / 0.999}


def test_nothing_is_weighed_where_nothing_is_left_out() -> None:
    assert set(weights(run_all_kinds()).values()) == {None}


def test_an_outer_sampler_whose_share_the_tracestate_has_is_counted() -> None:
    recorded = run_all_kinds(above=remote(ot="rv:ffffffffffffff;th:8", vendor="x"), sampling_rate=0.25)
    assert weights(recorded) == {CHOSEN: 8.0, FAILED: 2.0, RETRIED: 2.0, SLOW: 2.0}


@pytest.mark.slow
def test_a_threshold_stays_with_the_spans_of_which_it_is_true() -> None:
    recorded = run_all_kinds(above=remote(ot="rv:ffffffffffffff;th:8", vendor="x"), sampling_rate=0.25)
    states = {(span.name, span.context.trace_state.to_header()) for span in recorded.spans if span.context}
    assert states == {
        ("forge.pipeline p", "ot=rv:ffffffffffffff;th:8,vendor=x"),
        ("forge.sample", "ot=rv:ffffffffffffff,vendor=x"),
        ("forge.stage judge", "ot=rv:ffffffffffffff,vendor=x"),
    }
    parents = {span.parent.span_id for span in recorded.spans if span.name == "forge.sample" and span.parent}
    assert parents == {
        span.context.span_id for span in recorded.spans if span.name == "forge.pipeline p" and span.context
    }
    untouched = run_all_kinds(above=remote(ot="th:8"))
    assert {span.context.trace_state.to_header() for span in untouched.spans if span.context} == {"ot=th:8"}


@pytest.mark.parametrize(
    ("sampler", "above"),
    [
        (None, remote()),
        (None, remote(ot="th:nonsense")),
        (ParentBased(TraceIdRatioBased(1.0)), None),
    ],
    ids=["in another process", "without a valid threshold", "by the trace id"],
)
def test_a_weight_is_absent_where_somebody_decides_unseen(sampler: Any, above: trace.Span | None) -> None:
    recorded = run_all_kinds(with_sampler(sampler), above=above, sampling_rate=0.25)
    assert weights(recorded) == dict.fromkeys((CHOSEN, FAILED, RETRIED, SLOW))


def test_a_run_below_a_span_of_its_own_process_is_weighed() -> None:
    recorded = Recorded()
    with recorded.tracer_provider.get_tracer("theirs").start_as_current_span("job") as job:
        run_all_kinds(recorded, above=job, sampling_rate=0.25)
    assert weights(recorded) == {CHOSEN: 4.0, FAILED: 1.0, RETRIED: 1.0, SLOW: 1.0}


def test_weights_end_where_the_budget_does() -> None:
    recorded = run_all_kinds(sampling_rate=0.999, span_budget=7)
    # The run's span is counted, and two spans a sample; of the rest, a tenth is kept for errors: less than one sample.
    assert weights(recorded) == {CHOSEN: 1 / 0.999, FAILED: 1.0, RETRIED: 1.0}


def test_what_the_reserve_is_for_has_no_weight_once_the_budget_has_refused() -> None:
    @stage
    def judge(sample: Sample) -> Sample:
        if sample.data == "broken":
            raise ValueError("broken")
        return sample

    source = [Sample(id=str(number), data="good") for number in range(10)] + [Sample(id="last", data="broken")]
    with recording(sampling_rate=0.999, span_budget=20) as recorded:
        BatchRunner().run(Pipeline(name="p", source=source, stages=[judge])).drain()
    found = weights(recorded)
    # Of the twenty spans, two are kept for errors; each of nine samples has two.
    assert found.pop("last") is None
    assert set(found.values()) == {1 / 0.999}
    assert len(found) == 9


class Thresholds(Sampler):
    """Takes every run, and of the samples half, which it says in the tracestate."""

    def should_sample(self, *arguments: Any, name: str = "", attributes: Any = None, **_: Any) -> SamplingResult:
        name, attributes = (arguments[2], arguments[4]) if arguments else (name, attributes)
        state = TraceState([("ot", "th:8" if name == "forge.sample" else "th:0")])
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state)

    def get_description(self) -> str:
        return "Thresholds"


def test_with_traces_of_their_own_the_weight_takes_the_share_of_the_samples_trace() -> None:
    recorded = run_all_kinds(with_sampler(Thresholds()), sampling_rate=0.25, trace_per_sample=True)
    assert weights(recorded)[CHOSEN] == 8.0


@pytest.mark.slow
def test_weights_add_up_to_the_number_of_samples() -> None:
    count, rate = 100_000, 0.01

    @stage
    def refuse_some(sample: Sample) -> Sample:
        if sample.data % 100 == 0:
            raise ValueError("one in a hundred")
        return sample

    source = (Sample(id=f"sample-{number}", data=number) for number in range(count))
    pipeline = Pipeline(name="p", source=source, stages=[refuse_some])
    with recording(sampling_rate=rate, span_budget=0, event_budget=1) as recorded:
        StreamingRunner().run(pipeline).drain()
    found: list[Any] = [span.attributes for span in recorded.spans if span.name == "forge.sample"]
    failed = [attributes["forge.sample.weight"] for attributes in found if "error.type" in attributes]
    others = [attributes["forge.sample.weight"] for attributes in found if "error.type" not in attributes]
    assert (len(failed), set(failed), set(others)) == (count // 100, {1.0}, {100.0})
    # Each of the others is taken with the probability of the rate, or not.
    standard_error = math.sqrt(count * 0.99 * (1 - rate) / rate)
    assert abs(sum(failed) + sum(others) - count) < 3 * standard_error


class RememberedIds(RandomIdGenerator):
    """Trace ids from a fixed seed."""

    def __init__(self) -> None:
        self._random = random.Random(17)
        self.traces: list[int] = []

    def generate_trace_id(self) -> int:
        self.traces.append(self._random.getrandbits(128) or 1)
        return self.traces[-1]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.0], ids=["traced", "late"])
def test_with_traces_of_their_own_the_sampler_decides_on_each_sample(rate: float) -> None:
    @stage
    def refuse(sample: Sample) -> Sample:
        raise ValueError("no")

    sampler, ids = TraceIdRatioBased(0.05), RememberedIds()
    recorded = with_sampler(ParentBased(sampler), ids)
    with recording(recorded=recorded, sampling_rate=rate, trace_per_sample=True, span_budget=0):
        source = [Sample(id=str(number), data=number) for number in range(400)]
        BatchRunner().run(Pipeline(name="p", source=source, stages=[refuse], max_failures=1.0)).drain()
    taken = [one for one in ids.traces if sampler.should_sample(None, one, "x").decision is not Decision.DROP]
    assert (len(ids.traces), len(taken)) == (401, 16)
    assert ids.traces[0] not in taken  # that of the run
    written = [span for span in recorded.spans if span.name == "forge.sample"]
    assert {span.context.trace_id for span in written if span.context} == set(taken)
    assert len([span for span in recorded.spans if span.name == "forge.stage refuse"]) == len(taken)
    # The run's own span was not taken, so nothing links to it.
    assert not any(span.links for span in recorded.spans)


@pytest.mark.parametrize(
    ("state", "share"),
    [
        ("th:0", 1.0),
        ("th:8", 0.5),
        ("th:c", 0.25),
        ("rv:1;th:fd70a3d70a3d71", 0.009999999999999995),
        ("th:", None),
        ("th:123456789abcdef", None),
        ("th:-8", None),
        ("rv:8", None),
        ("", None),
    ],
)
def test_the_share_of_a_threshold(state: str, share: float | None) -> None:
    context = SpanContext(1, 2, False, trace_state=TraceState([("ot", state)] if state else []))
    assert outer_share(context) == share
    assert outer_share(without_threshold(context)) is None
