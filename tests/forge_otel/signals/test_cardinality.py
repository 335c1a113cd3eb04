"""However different the data is, the series of the metrics are few, and never so many that the SDK takes attributes."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from forge import BatchRunner, Measurement, Pipeline, Sample, Skip, StreamingRunner, stage
from forge.execution.stage_executor import StageExecutor
from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics
from forge_otel.signals.cardinality import MAX_ATTRIBUTE_VALUES, MAX_SERIES, Cardinality
from tests.support.telemetry import Recorded, recording


def series(recorded: Recorded) -> int:
    return sum(map(len, recorded.points.values()))


@pytest.mark.slow
def test_a_hundred_thousand_samples_have_the_series_of_a_hundred() -> None:
    @stage
    def plain(sample: Sample) -> Sample | Skip:
        if sample.data % 10 == 3:
            raise ValueError(sample.id)
        return Skip("seven") if sample.data % 10 == 7 else sample

    counts = []
    for count in (100, 100_000):
        source = (Sample(id=f"id {number}", data=number) for number in range(count))
        with recording(sampling_rate=0.0, span_budget=100, event_budget=10) as recorded:
            result = StreamingRunner().run(Pipeline(name="p", source=source, stages=[plain])).drain()
        assert result.ledger.settled == count
        assert recorded.total("forge.stage.executions", "stage.name=plain") == count
        counts.append(series(recorded))
        assert len(recorded.spans) <= 102
    # The budgets of the larger run were used up, which is a series for spans, and one for events.
    assert counts[1] <= counts[0] + 2


def with_errors(number: int) -> Any:
    kinds = [type(f"Error{index}", (Exception,), {"__module__": "m"}) for index in range(number)]

    @stage
    def broken(sample: Sample) -> Sample:
        raise kinds[sample.data]

    return broken


@pytest.mark.slow
def test_classes_of_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="forge_otel")
    source = [Sample(id=str(number), data=number) for number in range(100)]
    with recording() as recorded:
        BatchRunner().run(Pipeline(name="p", source=source, stages=[with_errors(100)], max_failures=1.0)).drain()
    failures = recorded.points["forge.stage.failures"]
    kinds = {text.split(",")[0]: count for text, count in failures.items()}
    # The six that the vocabulary names have their places among the thirty.
    assert kinds == {**{f"error.type=m.Error{number}": 1 for number in range(24)}, "error.type=_OTHER": 76}
    assert sum(failures.values()) == 100
    spans = {(span.attributes or {}).get("error.type") for span in recorded.spans if span.name == "forge.stage broken"}
    events = {e.attributes["error.type"] for e in recorded.events if e.name == "forge.stage.exception"}
    assert spans == events == {f"m.Error{number}" for number in range(100)}
    assert [record.getMessage() for record in caplog.records if record.name == "forge_otel"] == [
        "more than 30 values of error.type on metrics: there 'm.Error24' and all others are _OTHER"
    ]


@pytest.mark.slow
def test_names_of_pipelines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="forge_otel")
    with recording() as recorded:
        for number in range(103):
            BatchRunner().run(Pipeline(name=f"p{number}", source=[1, 2], expected_interval=60)).drain()
        points = recorded.points
    names = {f"pipeline.name=p{number}" for number in range(100)}
    for metric in ("forge.sample.admitted", "forge.pipeline.expected_interval", "forge.sample.active"):
        assert {text for attributes in points[metric] for text in attributes.split(", ") if "name=" in text} >= names
    assert recorded.total("forge.sample.admitted") == 206
    assert recorded.total("forge.sample.admitted", "pipeline.name=_OTHER") == 6
    assert recorded.total("forge.pipeline.started", "pipeline.name=p99") == 1
    spans = {(span.attributes or {})["forge.pipeline.name"] for span in recorded.spans}
    events = {event.attributes["forge.pipeline.name"] for event in recorded.events}
    assert spans == events == {f"p{number}" for number in range(103)}
    assert [record.getMessage() for record in caplog.records if record.name == "forge_otel"] == [
        "more than 100 values of forge.pipeline.name on metrics: there 'p100' and all others are _OTHER"
    ]


@pytest.mark.slow
def test_a_class_that_the_vocabulary_names_is_never_another() -> None:
    @stage
    def late(sample: Sample) -> Sample:
        raise TimeoutError

    source = [Sample(id=str(number), data=number) for number in range(100)]
    with recording() as recorded:
        BatchRunner().run(Pipeline(name="p", source=source, stages=[with_errors(100)], max_failures=1.0)).drain()
        BatchRunner().run(Pipeline(name="p", source=source[:1], stages=[late])).drain()
    assert recorded.total("forge.stage.failures", "error.type=timeout") == 1


def test_reasons_to_skip() -> None:
    @stage
    def skip(sample: Sample) -> Skip:
        return Skip(f"reason {sample.data}")

    source = [Sample(id=str(number), data=number) for number in range(100)]
    with recording(sampling_rate=0.0) as recorded:
        BatchRunner().run(Pipeline(name="p", source=source, stages=[skip])).drain()
    executions = {text: count for text, count in recorded.points["forge.stage.skips"].items() if count}
    assert len(executions) == 31
    assert recorded.total("forge.stage.skips", "skip.reason=_OTHER") == 70


@pytest.mark.slow
def test_stages_and_measurements() -> None:
    stages = [stage(name=f"stage {number}")(lambda sample: sample) for number in range(60)]

    def measurement(number: int) -> Measurement:
        class One(Measurement):
            key = f"key {number}"

            def compute(self, sample: Sample) -> int:
                return 1

        return One()

    pipeline = Pipeline(
        name="p",
        source=[Sample(id="1", data=1)],
        stages=stages,
        measurements=[measurement(number) for number in range(60)],
    )
    for rate in (0.0, 1.0):
        with recording(sampling_rate=rate) as recorded:
            BatchRunner().run(pipeline).drain()
            active = recorded.points["forge.stage.active"]
        assert recorded.total("forge.stage.executions", "stage.name=_OTHER", "stage.outcome=success") == 10
        assert recorded.total("forge.stage.executions") == 60
        assert len(recorded.points["forge.stage.duration"]) == len(active) == 51
        assert recorded.total("forge.measurement.computations", "measurement.key=_OTHER") == 10


@pytest.mark.slow
def test_no_instrument_gets_to_the_limit_of_the_sdk(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="forge_otel")

    stages = [stage(name=f"stage {number}")(lambda sample: sample) for number in range(50)]
    with recording(span_budget=1) as recorded:
        for number in range(2100):
            name = f"pipeline {number // len(stages)}"
            StageExecutor().apply(stages[number % len(stages)], Sample(id="1", data=1, pipeline=name))
        points = recorded.points
    executions = points["forge.stage.executions"]
    assert len(executions) == MAX_SERIES + 1
    assert executions["pipeline.name=_OTHER, stage.name=_OTHER, stage.outcome=success"] == 200
    assert not any("overflow" in text for metric in points.values() for text in metric)
    assert "more than 1900 series of forge.stage.executions on metrics: there all names in others are _OTHER" in (
        caplog.messages
    )
    assert len(caplog.messages) == len(set(caplog.messages))


@pytest.mark.parametrize("name", MAX_ATTRIBUTE_VALUES)
def test_a_value_that_was_known_in_time_stays(name: str) -> None:
    cardinality = Cardinality()
    metric = next(metric for metric in metrics.ALL if name in metric.attributes)
    first = cardinality.limit(metric, {name: "first"})
    for number in range(100):
        cardinality.limit(metric, {name: f"value {number}"})
    assert cardinality.limit(metric, {name: "first"}) == first == {name: "first"}
    assert cardinality.limit(metric, {name: "last"}) == {name: "_OTHER"}


def test_what_is_enumerated_stays_where_series_are_too_many() -> None:
    cardinality = Cardinality()
    metric = metrics.FORGE_STAGE_RETRIES
    for number in range(MAX_SERIES):
        cardinality.limit(metric, {a.FORGE_PIPELINE_NAME: "p", a.FORGE_STAGE_ATTEMPT: number})
    more = {a.FORGE_PIPELINE_NAME: "p", a.FORGE_STAGE_ATTEMPT: MAX_SERIES + 1}
    assert cardinality.limit(metric, more) == {a.FORGE_PIPELINE_NAME: "_OTHER"}
    settled = metrics.FORGE_SAMPLE_SETTLED
    for number in range(MAX_SERIES):
        cardinality.limit(settled, {a.FORGE_PIPELINE_NAME: str(number), a.FORGE_SAMPLE_OUTCOME: "ready"})
    assert cardinality.limit(settled, {a.FORGE_PIPELINE_NAME: "new", a.FORGE_SAMPLE_OUTCOME: "dlq"}) == {
        a.FORGE_PIPELINE_NAME: "_OTHER",
        a.FORGE_SAMPLE_OUTCOME: "dlq",
    }


def test_enumerated_attributes_stay_on_series_beyond_the_limit() -> None:
    limits = Cardinality()
    for number in range(MAX_SERIES):
        limits.limit(metrics.FORGE_PIPELINE_STARTED, {a.FORGE_RUNNER_NAME: f"runner {number}"})
    one_more = {a.FORGE_PIPELINE_NAME: "p", a.FORGE_RUNNER_NAME: "batch", a.FORGE_RUN_TYPE: "replay"}
    assert limits.limit(metrics.FORGE_PIPELINE_STARTED, one_more)[a.FORGE_RUN_TYPE] == "replay"
