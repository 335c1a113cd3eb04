"""Text of users reaches the exporters fit: OTLP's own encoders take it, escaped everywhere in the same way, and cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from forge import BatchRunner, Measurement, Pipeline, RetryPolicy, Sample, Skip, SQLStorage, Stage, stage, usage
from tests.support.runs import both_runners
from tests.support.telemetry import Recorded, recording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forge.runner import Runner

UNFIT, FIT = "caf\udce9\0", r"caf\udce9\u0000"
"""A text that protobuf does not take, and the same as it is exported."""


class UnfitError(ValueError):
    __module__ = UNFIT


TYPE = "UnfitError"
"""Its name: a module that cannot be encoded is none."""


class LongError(ValueError):
    pass


MESSAGE = "x" * 3_000_000


def encoded(recorded: Recorded) -> Sequence[int]:
    """The sizes of all spans, events and metrics as OTLP's exporters send them."""
    metrics_data = recorded.metric_reader.get_metrics_data()
    assert metrics_data is not None
    return [
        encode_spans(recorded.spans).ByteSize(),
        encode_logs(recorded.log_exporter.get_finished_logs()).ByteSize(),
        encode_metrics(metrics_data).ByteSize(),
    ]


def failing(kind: str, fail: Callable[[Sample], Any]) -> tuple[list[Stage], list[Measurement]]:
    """A stage or a measurement that works on every sample with the function."""

    def batch(samples: list[Sample]) -> list[Any]:
        return [fail(sample) for sample in samples]

    async def fail_async(sample: Sample) -> Any:
        return fail(sample)

    class Measured(Measurement):
        key = "work"

        def compute(self, sample: Sample) -> Any:
            return fail(sample).data

    class MeasuredBatch(Measurement):
        key = "work"
        batch_size = 2

        def compute_batch(self, samples: Sequence[Sample]) -> Any:
            return [fail(sample).data for sample in samples]

    match kind:
        case "measurement":
            return [], [Measured()]
        case "measurement batch":
            return [], [MeasuredBatch()]
        case "batch":
            return [stage(name="work", batch_size=2)(batch)], []
    return [stage(name="work")(fail_async if kind == "async" else fail)], []


SPANS = {
    "sync": "forge.stage work",
    "async": "forge.stage work",
    "batch": "forge.stage work",
    "measurement": "forge.measurement work",
    "measurement batch": "forge.measurement.batch work",
}
"""The spans of what fails."""

every_kind = pytest.mark.parametrize("kind", SPANS)
traced_or_not = pytest.mark.parametrize("sampling_rate", [1.0, 0.0], ids=["traced", "deferred"])


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *((kind, {}) for kind in SPANS),
        *((kind, {"trace_per_sample": True}) for kind in ("sync", "batch")),
        *((kind, {"events": "all"}) for kind in ("sync", "batch")),
    ],
)
@traced_or_not
def test_ids_messages_and_classes_are_escaped(
    runner: Runner, kind: str, sampling_rate: float, settings: dict[str, Any]
) -> None:
    def fail(sample: Sample) -> Any:
        if sample.data == 1:
            raise UnfitError(UNFIT)
        return sample

    stages, measurements = failing(kind, fail)
    source = [Sample(id=UNFIT, data=1), Sample(id="other", data=2)]
    pipeline = Pipeline(
        name="p", source=source, stages=stages, measurements=measurements, storage=SQLStorage("sqlite://")
    )
    with recording(sampling_rate=sampling_rate, **settings) as recorded:
        runner.run(pipeline).drain()
        ids = {(span.attributes or {}).get("forge.sample.id") for span in recorded.spans if span.name == "forge.sample"}
        # A sample whose batch failed is exported, too.
        assert ids == ({FIT, "other"} if sampling_rate or "batch" in kind else {FIT})
        failures = [span for span in recorded.spans if span.status.description is not None]
        assert {span.name for span in failures} >= {"forge.sample", SPANS[kind]}
        for span in failures:
            assert span.attributes is not None
            assert (span.attributes["error.type"], span.status.description) == (TYPE, FIT)
            assert span.attributes.get("forge.sample.id", FIT) == FIT
        [event] = [
            event for event in recorded.events if event.name.endswith((".stage.exception", ".measurement.exception"))
        ]
        assert (event.attributes["exception.message"], event.attributes["forge.sample.id"]) == (FIT, FIT)
        assert (event.attributes["exception.type"], event.attributes["error.type"]) == (TYPE, TYPE)
        assert event.attributes["exception.stacktrace"].endswith(f"\n{TYPE}: {FIT}\n")
        assert TYPE in event.body
        [letter] = [event for event in recorded.events if event.name == "forge.dlq.enqueue"]
        assert (letter.attributes["forge.sample.id"], letter.attributes["error.type"]) == (FIT, TYPE)
        assert letter.body.startswith(f"Dead letter: {FIT}, {TYPE}, ")
        assert recorded.total("forge.dlq.enqueued", f"error.type={TYPE}") == 1
        assert all(encoded(recorded))


@both_runners
@traced_or_not
def test_reasons_and_ids_of_parents_are_escaped(runner: Runner, sampling_rate: float) -> None:
    @stage
    def split(sample: Sample) -> list[Sample]:
        return [sample.child(UNFIT, 1)]

    @stage
    def skip(sample: Sample) -> Skip:
        return Skip(UNFIT)

    pipeline = Pipeline(name="p", source=[Sample(id=UNFIT, data=0)], stages=[split, skip])
    with recording(sampling_rate=sampling_rate, slow_threshold=0) as recorded:  # a slow sample is exported later
        runner.run(pipeline).drain()
        parent, child = (
            next(
                span.attributes or {}
                for span in recorded.spans
                if span.name == "forge.sample" and span.attributes and span.attributes["forge.sample.id"] == name
            )
            for name in (FIT, f"{FIT}#{FIT}")
        )
        assert parent["forge.sample.outcome"] == "split"
        assert (child["forge.sample.parent.id"], child["forge.skip.reason"]) == (FIT, FIT)
        [skipped] = [span.attributes or {} for span in recorded.spans if span.name == "forge.stage skip"]
        assert (skipped["forge.sample.id"], skipped["forge.skip.reason"]) == (f"{FIT}#{FIT}", FIT)
        assert recorded.total("forge.stage.skips", f"skip.reason={FIT}") == 1
        assert all(encoded(recorded))


@both_runners
def test_retries_usage_and_the_error_of_a_run_are_escaped(runner: Runner) -> None:
    @stage(retry=RetryPolicy(max_attempts=2, initial_delay=0, retry_on=lambda _: True))
    def work(sample: Sample) -> Sample:
        usage.report(provider=UNFIT, model=UNFIT, input_tokens=1)
        raise UnfitError(UNFIT)

    def source() -> Any:
        yield Sample(id=UNFIT, data=0)
        raise UnfitError(UNFIT)

    with recording() as recorded:
        run = runner.run(Pipeline(name="p", source=source, stages=[work]))
        with pytest.raises(UnfitError):
            run.drain()
        [retry] = [event for event in recorded.events if event.name == "forge.stage.retry"]
        assert (retry.attributes["forge.sample.id"], retry.attributes["error.type"]) == (FIT, TYPE)
        [failed] = [event for event in recorded.events if event.name == "forge.pipeline.exception"]
        assert (failed.attributes["exception.message"], failed.body) == (FIT, f"Run failed: p, {TYPE}")
        [root] = [span for span in recorded.spans if span.parent is None]
        assert root.status.description == FIT
        assert recorded.total("forge.cost.calls", f"gen_ai.provider.name={FIT}", f"gen_ai.request.model={FIT}") == 2
        assert all(encoded(recorded))


@every_kind
@traced_or_not
def test_a_huge_message_is_cut(kind: str, sampling_rate: float) -> None:
    def fail(sample: Sample) -> Any:
        raise LongError(MESSAGE)

    stages, measurements = failing(kind, fail)
    with recording(sampling_rate=sampling_rate) as recorded:
        run = BatchRunner().run(Pipeline(name="p", source=[1, 2], stages=stages, measurements=measurements))
        run.drain()
        failures = [span.status.description for span in recorded.spans if span.status.description is not None]
        assert len(failures) >= 3
        assert set(failures) == {"x" * 8189 + "…"}
        messages = [event.attributes for event in recorded.events if "exception.message" in event.attributes]
        assert len(messages) >= 2
        assert {attributes["exception.message"] for attributes in messages} == {"x" * 65533 + "…"}
        for attributes in messages:
            trace = attributes["exception.stacktrace"]
            assert trace.startswith("Traceback (most recent call last):\n")
            assert (len(trace.encode()), trace[-2:]) == (65536, "x…")


@pytest.mark.slow
@every_kind
@traced_or_not
@pytest.mark.parametrize("limit", [100, 20_000])
def test_a_limit_of_the_sdk_is_the_one_for_descriptions_too(
    kind: str, sampling_rate: float, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", str(limit))

    def fail(sample: Sample) -> Any:
        raise LongError("caf\udce9" + MESSAGE)

    stages, measurements = failing(kind, fail)
    recorded = Recorded()
    recorded.tracer_provider = TracerProvider(shutdown_on_exit=False)
    recorded.tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    recorded.logger_provider = LoggerProvider(shutdown_on_exit=False)
    recorded.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(recorded.log_exporter))
    with recording(sampling_rate=sampling_rate, recorded=recorded):
        BatchRunner().run(Pipeline(name="p", source=[1, 2], stages=stages, measurements=measurements)).drain()
        failures = [span.status.description for span in recorded.spans if span.status.description is not None]
        assert len(failures) >= 3
        cut = (r"caf\udce9" + "x" * limit)[:limit]
        assert set(failures) == {cut}
        messages = [
            event.attributes["exception.message"]
            for event in recorded.events
            if "exception.message" in event.attributes
        ]
        assert len(messages) >= 2
        assert set(messages) == {cut}


def test_with_a_limit_above_ours_an_event_is_cut_by_the_sdk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "100000")

    @stage
    def work(sample: Sample) -> Any:
        raise LongError("é" * 200_000)

    recorded = Recorded()
    with recording(recorded=recorded):
        BatchRunner().run(Pipeline(name="p", source=[1], stages=[work])).drain()
    [event] = [event for event in recorded.events if event.name == "forge.stage.exception"]
    assert event.attributes["exception.message"] == "é" * 100_000


@traced_or_not
def test_a_name_that_looks_escaped_is_the_same_everywhere(sampling_rate: float) -> None:
    @stage(name=r"caf\udce9")
    def work(sample: Sample) -> Any:
        raise LongError

    with recording(sampling_rate=sampling_rate) as recorded:
        BatchRunner().run(Pipeline(name=r"p\u0000", source=[1], stages=[work])).drain()
        [span] = [span for span in recorded.spans if span.name.startswith("forge.stage ")]
        assert span.name == r"forge.stage caf\u005cudce9"
        assert span.attributes is not None
        assert span.attributes["forge.stage.name"] == r"caf\u005cudce9"
        assert {(each.attributes or {})["forge.pipeline.name"] for each in recorded.spans} == {r"p\u005cu0000"}
        [event] = [event for event in recorded.events if event.name == "forge.stage.exception"]
        assert event.attributes["forge.stage.name"] == r"caf\u005cudce9"
        names = r"pipeline.name=p\u005cu0000", r"stage.name=caf\u005cudce9"
        assert recorded.total("forge.stage.executions", *names) == 1
