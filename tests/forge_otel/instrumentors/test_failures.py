"""What telemetry says of failed batches, and of all that a failed sample went through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from forge import BatchRunner, Measurement, Pipeline, Run, Sample, SQLStorage, Stage, StreamingRunner, stage
from tests.support.clock import FakeClock
from tests.support.runs import both_runners, samples, wait
from tests.support.telemetry import Event, Recorded, recording

if TYPE_CHECKING:
    from pathlib import Path

    from forge.runner import Runner

sync_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
every_path = pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampling_rate": 0.0},
        {"on_stage_start": lambda *_: None},
        {"on_stage_start": lambda *_: None, "sampling_rate": 0.0},
    ],
    ids=["traced", "late", "with hooks", "late with hooks"],
)


def batch_of(function: Callable[[list[Sample]], Any], is_async: bool, **settings: Any) -> Stage:
    def process(batch: list[Sample]) -> Any:
        return function(batch)

    async def process_async(batch: list[Sample]) -> Any:
        return function(batch)

    made: Stage = stage(name="tag", batch_size=4, max_wait=30, **settings)(process_async if is_async else process)
    return made


def only_alone(batch: list[Sample]) -> list[Sample]:
    if len(batch) > 1:
        raise ValueError("too many at once")
    return batch


def named(recorded: Recorded, name: str) -> list[Event]:
    return [event for event in recorded.events if event.name == name]


def spans_of(recorded: Recorded, name: str) -> list[ReadableSpan]:
    return [span for span in recorded.spans if span.name == name]


@pytest.mark.slow
@both_runners
@sync_and_async
@every_path
def test_a_failed_batch_is_seen_though_every_sample_succeeds_alone(
    runner: Runner, is_async: bool, settings: dict[str, Any]
) -> None:
    with recording(**settings) as recorded:
        run = runner.run(Pipeline(name="p", source=samples(*range(8)), stages=[batch_of(only_alone, is_async)]))
        assert run.drain().ledger.ready == 8
    points = recorded.points
    assert points["forge.stage.batch.failures"] == {"error.type=ValueError, pipeline.name=p, stage.name=tag": 2}
    assert "forge.stage.failures" not in points
    assert recorded.total("forge.stage.executions", "stage.outcome=success") == 8
    assert recorded.total("forge.stage.executions", "stage.outcome=error") == 0
    assert points["forge.stage.duration"].keys() == {
        "error.type=ValueError, pipeline.name=p, stage.name=tag, stage.outcome=error"
    }
    first, second = named(recorded, "forge.stage.batch_exception")
    assert (first.severity, first.span) == ("WARN", "forge.stage.batch tag")
    assert first.body == "Batch failed: tag, ValueError, 4 samples, after 1 attempt"
    assert first.attributes.pop("exception.stacktrace").endswith("ValueError: too many at once\n")  # type: ignore[attr-defined]
    (tag,) = run.result.stages  # type: ignore[union-attr]
    assert {first.attributes.pop("forge.duration"), second.attributes["forge.duration"]} >= {tag.max}  # type: ignore[attr-defined]
    assert first.attributes == {
        "error.type": "ValueError",
        "exception.message": "too many at once",
        "exception.type": "ValueError",
        "forge.pipeline.name": "p",
        "forge.run.id": run.id,
        "forge.stage.batch.size": 4,
        "forge.stage.name": "tag",
    }
    assert second.span == first.span
    assert named(recorded, "forge.stage.exception") == []
    batches = spans_of(recorded, "forge.stage.batch tag")
    assert [(span.status.status_code.name, span.status.description) for span in batches] == [
        ("ERROR", "too many at once")
    ] * 2
    for span in batches:
        assert span.attributes is not None
        assert (span.attributes["forge.stage.outcome"], span.attributes["error.type"]) == ("error", "ValueError")
    parts = spans_of(recorded, "forge.stage tag")
    assert len(parts) == 8
    linked = {span.context.span_id for span in batches if span.context}
    for span in parts:
        assert span.attributes is not None
        assert span.attributes["forge.stage.outcome"] == "success"
        assert (span.attributes["forge.stage.batch.failed"], span.attributes["forge.stage.batch.size"]) == (True, 4)
        assert {link.context.span_id for link in span.links} <= linked
        assert len(span.links) == 1


@both_runners
@sync_and_async
def test_a_batch_that_fails_at_one_sample_is_counted_beside_it(runner: Runner, is_async: bool) -> None:
    def together(batch: list[Sample]) -> list[Sample]:
        if any(sample.data == 2 for sample in batch):
            raise ConnectionError("refused")
        return batch

    with recording() as recorded:
        runner.run(Pipeline(name="p", source=samples(*range(8)), stages=[batch_of(together, is_async)])).drain()
    at = "error.type=network_error, pipeline.name=p, stage.name=tag"
    assert recorded.points["forge.stage.batch.failures"] == {at: 1}
    assert recorded.points["forge.stage.failures"] == {at: 1}
    (event,) = named(recorded, "forge.stage.exception")
    assert event.span == "forge.stage tag"
    assert event.attributes["forge.sample.id"] == "2"
    assert (event.attributes["forge.stage.batch.failed"], event.attributes["forge.stage.batch.size"]) == (True, 4)


@both_runners
def test_a_wrong_number_of_results_says_which_stage_returned_how_many(runner: Runner) -> None:
    short = batch_of(lambda batch: batch[len(batch) > 1 :], False)
    with recording() as recorded:
        runner.run(Pipeline(name="p", source=samples(*range(4)), stages=[short])).drain()
    (event,) = named(recorded, "forge.stage.batch_exception")
    assert event.attributes["error.type"] == "forge.errors.StageResultError"
    assert event.attributes["exception.message"] == (
        "stage 'tag' returned a list of 3 for a batch of 4; "
        "it must return a list with one result for each sample, in order"
    )


@pytest.mark.slow
@both_runners
def test_a_batch_that_ran_into_its_timeout_is_counted(runner: Runner) -> None:
    release = threading.Event()

    def together(batch: list[Sample]) -> list[Sample]:
        if len(batch) > 1:
            wait(release)
        return batch

    stuck = batch_of(together, False, timeout=1.0, concurrency=2)
    with recording() as recorded:
        runner.run(Pipeline(name="p", source=samples(*range(4)), stages=[stuck])).drain()
        release.set()
    assert recorded.total("forge.stage.batch.failures", "error.type=timeout") == 1


@both_runners
def test_a_batch_of_one_was_not_taken_apart(runner: Runner) -> None:
    def fail(_: list[Sample]) -> list[Sample]:
        raise ValueError("never")

    with recording() as recorded:
        runner.run(Pipeline(name="p", source=samples(0), stages=[batch_of(fail, False)])).drain()
    assert recorded.total("forge.stage.batch.failures") == recorded.total("forge.stage.failures") == 1
    assert "batch.failed" not in recorded.tree()


@both_runners
@every_path
def test_a_failed_batch_of_a_measurement_is_an_error_of_its_span(runner: Runner, settings: dict[str, Any]) -> None:
    class Length(Measurement):
        key = "length"
        batch_size = 4

        def compute_batch(self, samples: Any) -> list[int]:
            if len(samples) > 1:
                raise ValueError("too many at once")
            return [1]

    with recording(**settings) as recorded:
        runner.run(Pipeline(name="p", source=samples(*range(4)), measurements=[Length()])).drain()
    (span,) = spans_of(recorded, "forge.measurement.batch length")
    assert (span.status.status_code.name, span.status.description) == ("ERROR", "too many at once")
    assert span.attributes is not None
    assert (span.attributes["forge.measurement.outcome"], span.attributes["error.type"]) == ("error", "ValueError")
    assert recorded.points["forge.measurement.batch.duration"].keys() == {
        "error.type=ValueError, measurement.key=length, pipeline.name=p"
    }
    assert recorded.total("forge.measurement.computations", "measurement.outcome=computed") == 4


# The trace of a failed sample.


def waiting(clock: FakeClock) -> tuple[Callable[[], Iterator[Sample]], Stage]:
    """A source of two samples, and a stage that keeps the second one in its queue for four seconds."""
    all_read = threading.Event()

    def source() -> Iterator[Sample]:
        yield from samples("first", "second")
        all_read.set()

    @stage
    def held(sample: Sample) -> Sample:
        if sample.data == "first":
            wait(all_read)
            clock.advance(4.0)
        return sample

    return source, held


@pytest.mark.parametrize("is_batch", [False, True], ids=["single", "batch"])
@every_path
def test_the_trace_of_a_failed_sample_tells_all(is_batch: bool, settings: dict[str, Any], tmp_path: Path) -> None:
    clock = FakeClock()
    source, held = waiting(clock)

    def refuse(argument: Any) -> Any:
        batch = argument if is_batch else [argument]
        if any(sample.data == "second" for sample in batch):
            raise ConnectionError("refused")
        return argument

    last = stage(name="last", batch_size=2 if is_batch else None, max_wait=30)(refuse)
    storage = SQLStorage(f"sqlite:///{tmp_path}/db")
    with recording(**settings) as recorded:
        StreamingRunner(clock=clock).run(
            Pipeline(name="p", source=source, stages=[held, last], storage=storage)
        ).drain()
    storage.close()
    (own,) = (span for span in spans_of(recorded, "forge.sample") if (span.attributes or {})["forge.sample.id"] == "1")
    assert own.context is not None
    below = {
        span.name: span
        for span in recorded.spans
        if span.parent is not None and span.parent.span_id == own.context.span_id
    }
    assert below.keys() == {"forge.stage held", "forge.stage last", "forge.storage write sqlite"}
    assert (below["forge.stage held"].attributes or {})["forge.stage.queue.wait"] == 4.0
    failed = below["forge.stage last"]
    assert failed.attributes is not None
    assert failed.attributes["forge.stage.queue.wait"] == 0.0
    assert (failed.status.status_code.name, failed.status.description) == ("ERROR", "refused")
    batches = spans_of(recorded, "forge.stage.batch last")
    assert [link.context for link in failed.links] == [span.context for span in batches]
    assert len(batches) == is_batch
    assert failed.context is not None
    records = {
        log.log_record.event_name: log.log_record
        for log in recorded.log_exporter.get_finished_logs()
        if log.log_record.event_name in ("forge.stage.exception", "forge.dlq.enqueue")
    }
    failure, letter = records["forge.stage.exception"], records["forge.dlq.enqueue"]
    assert (failure.trace_id, failure.span_id) == (failed.context.trace_id, failed.context.span_id)
    assert (failure.attributes or {})["exception.message"] == "refused"
    assert (letter.trace_id, letter.span_id) == (own.context.trace_id, own.context.span_id)
    assert letter.attributes is not None
    assert (letter.attributes["exception.type"], letter.attributes["exception.message"]) == (
        "ConnectionError",
        "refused",
    )


@pytest.mark.slow
@every_path
def test_without_queues_there_is_no_wait(settings: dict[str, Any]) -> None:
    @stage
    def broken(sample: Sample) -> Sample:
        raise ValueError("never")

    with recording(**settings) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(1), stages=[broken])).drain()
    assert "forge.stage broken" in recorded.tree()
    assert "queue.wait" not in recorded.tree()


@every_path
def test_only_the_stage_of_the_queue_has_waited(settings: dict[str, Any]) -> None:
    """A measurement and a stage that is called inside of another one have not."""
    clock = FakeClock()
    source, held = waiting(clock)

    @stage
    def inner(sample: Sample) -> Sample:
        return sample

    @stage
    def outer(sample: Sample) -> Sample:
        run.executor.apply(inner, sample)
        raise ValueError("never")

    run: Run
    with recording(**settings) as recorded:
        run = StreamingRunner(clock=clock).run(Pipeline(name="p", source=source, stages=[held, outer]))
        run.drain()
    for name, waits in {"held": 2, "outer": 2, "inner": 0}.items():
        spans = spans_of(recorded, f"forge.stage {name}")
        assert len(spans) == 2
        assert sum("forge.stage.queue.wait" in (span.attributes or {}) for span in spans) == waits
