"""Traces and events of a run are bounded, samples are traced as a whole, and what is left out is counted."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Measurement, Pipeline, RetryPolicy, Sample, Skip, SQLStorage, stage
from forge_otel.engine.sampling import EventBudget, SpanBudget
from tests.support.runs import both_runners, samples
from tests.support.telemetry import Recorded, recording

if TYPE_CHECKING:
    from pathlib import Path

    from forge.runner import Runner


@stage
def plain(sample: Sample) -> Sample:
    return sample


@stage
def moody(sample: Sample) -> Sample | Skip:
    """Of ten samples one fails, and one is skipped."""
    if sample.data % 10 == 3:
        raise ValueError("threes are wrong")
    return Skip("seven") if sample.data % 10 == 7 else sample


class Length(Measurement):
    key = "length"

    def compute(self, sample: Sample) -> int:
        return 1


def by_sample(recorded: Recorded) -> dict[str, Counter[str]]:
    """The names of the spans of each sample."""
    found: dict[str, Counter[str]] = {}
    for span in recorded.spans:
        sample_id = (span.attributes or {}).get("forge.sample.id")
        if sample_id is not None:
            found.setdefault(str(sample_id), Counter())[span.name] += 1
    return found


def suppressed(recorded: Recorded) -> dict[str, int]:
    points = recorded.points.get("forge.telemetry.suppressed", {})
    return {text.removeprefix("pipeline.name=p, "): value for text, value in points.items()}


def summary(recorded: Recorded) -> tuple[Any, Any]:
    (event,) = (event for event in recorded.events if event.name == "forge.pipeline.summary")
    return event.attributes["forge.summary.spans"], event.attributes["forge.summary.suppressed"]


@both_runners
def test_samples_are_traced_as_a_whole_until_the_budget_is_used(runner: Runner) -> None:
    with recording(span_budget=100) as recorded:
        runner.run(Pipeline(name="p", source=samples(*range(200)), stages=[plain], measurements=[Length()])).drain()
    spans = by_sample(recorded)
    # A tenth is in reserve, and each sample has three: thirty of them.
    assert len(spans) == 30
    assert set(map(frozenset, spans.values())) == {
        frozenset({"forge.sample", "forge.stage plain", "forge.measurement length"})
    }
    assert suppressed(recorded) == {"telemetry.reason=budget, telemetry.signal=span": 170 * 3}
    assert summary(recorded) == (1 + 30 * 3, 170 * 3)
    assert recorded.total("forge.sample.settled") == 200


@pytest.mark.slow
def test_failures_have_the_reserve() -> None:
    with recording(span_budget=100) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(*range(400)), stages=[moody])).drain()
    spans = by_sample(recorded)
    late = {
        str(span.attributes["forge.sample.id"])
        for span in recorded.spans
        if span.attributes and span.name == "forge.sample" and "forge.trace.late" in span.attributes
    }
    # Forty-five samples with two spans each; behind them, five that fail.
    assert len(spans) == 45 + 5
    assert late == {"53", "63", "73", "83", "93"}
    assert set(map(frozenset, spans.values())) == {frozenset({"forge.sample", "forge.stage moody"})}
    written, left_out = summary(recorded)
    assert (written, left_out) == (101, 350 * 2)


def test_what_a_sample_does_not_use_is_given_back() -> None:
    @stage
    def skip(sample: Sample) -> Skip:
        return Skip("all of them")

    with recording(span_budget=100) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(*range(100)), stages=[skip, plain, moody])).drain()
    # Four spans are asked for, and two are used: the last one that may ask does so at 86.
    assert len(by_sample(recorded)) == 44


def test_spans_that_belong_to_no_sample_count_as_well(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
    with recording(span_budget=50) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(*range(60)), storage=storage)).drain()
    storage.close()
    names = Counter(span.name for span in recorded.spans)
    assert names == {"forge.pipeline p": 1, "forge.sample": 23, "forge.storage write sqlite": 22}
    assert sum(suppressed(recorded).values()) == 2 * 60 - 45


def test_no_budget_means_any_number() -> None:
    with recording(span_budget=0, event_budget=0) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(*range(200)), stages=[moody])).drain()
    assert len(by_sample(recorded)) == 200
    assert suppressed(recorded) == {}


@both_runners
def test_events_of_one_class_of_errors_are_bounded(runner: Runner) -> None:
    @stage(retry=RetryPolicy(max_attempts=2, initial_delay=0))
    def broken(sample: Sample) -> Sample:
        raise ConnectionError("down") if sample.data % 2 else ValueError("wrong")

    with recording(event_budget=15) as recorded:
        runner.run(Pipeline(name="p", source=samples(*range(40)), stages=[broken])).drain()
    kinds = Counter(str(event.attributes.get("error.type")) for event in recorded.events if event.severity == "WARN")
    retries = sum(event.name == "forge.stage.retry" for event in recorded.events)
    # Twenty fail with each; those of the network are tried twice, and say so.
    assert kinds["ValueError"] == 15
    assert kinds["network_error"] + retries == 15
    assert suppressed(recorded) == {"telemetry.reason=budget, telemetry.signal=event": 5 + 25}
    assert summary(recorded)[1] == 30
    assert recorded.points["forge.stage.failures"] == {
        "error.type=ValueError, pipeline.name=p, stage.name=broken": 20,
        "error.type=network_error, pipeline.name=p, stage.name=broken": 20,
    }


def test_each_run_has_a_budget_of_its_own() -> None:
    for _ in range(2):
        with recording(span_budget=20, event_budget=1) as recorded:
            for _ in range(2):
                BatchRunner().run(Pipeline(name="p", source=samples(*range(20)), stages=[moody])).drain()
        assert sum(event.name == "forge.stage.exception" for event in recorded.events) == 2
        assert sum(span.name == "forge.sample" for span in recorded.spans) == 2 * (9 + 1)


@pytest.mark.parametrize(("most", "granted"), [(0, 30), (10, 9), (5, 5), (100, 30)])
def test_a_budget_grants_all_or_nothing(most: int, granted: int) -> None:
    budget = SpanBudget(most)
    assert sum(budget.take(1) for _ in range(30)) == granted
    assert budget.take(most + 1, from_reserve=True) == (most == 0)
    assert budget.take(1, from_reserve=True) == (most in {0, 10, 100})


def test_a_budget_is_exact_with_threads() -> None:
    spans, events = SpanBudget(1000), EventBudget(500)
    granted: list[tuple[bool, bool]] = []

    def take() -> None:
        granted.extend((spans.take(2), events.take("timeout")) for _ in range(1000))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sum(span for span, _ in granted), sum(event for _, event in granted)) == (450, 500)
