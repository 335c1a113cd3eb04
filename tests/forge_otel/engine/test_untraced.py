"""Untraced samples take the fast path, which says the same as the slow path."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

from forge import BatchRunner, Measurement, Pipeline, RetryPolicy, Sample, Skip, SQLStorage, stage, usage
from forge.execution.item import Item
from forge.execution.stage_executor import StageExecutor
from forge_otel.engine.fast_path import FastPath
from forge_otel.engine.scopes import MAX_STEPS, RUN, SAMPLE, RunScope
from forge_otel.signals.metrics import FLUSH_SIZE
from tests.support.clock import FakeClock
from tests.support.runs import both_runners, ledger, samples
from tests.support.telemetry import Histogram, Recorded, recording

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from forge.runner import Runner
    from forge.storage import SampleRecord, WriteResult

AT = "pipeline.name=p"
CHOSEN = ["1", "13", "16"]
"""Of the ids from 0 to 19, those that a rate of 0.25 chooses."""


@stage
def plain(sample: Sample) -> Sample:
    return sample


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SQLStorage]:
    storage = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}")
    yield storage
    storage.close()


def slow(monkeypatch: pytest.MonkeyPatch, clock: FakeClock, *bad: str) -> None:
    """Let each write take a quarter of a second, and those fail in which one of these samples is."""
    original = SQLStorage.write

    def write(self: SQLStorage, records: Sequence[SampleRecord]) -> WriteResult:
        clock.advance(0.25)
        if any(record.id in bad and record.data is not None for record in records):
            raise OSError("no space left")
        return original(self, records)

    monkeypatch.setattr(SQLStorage, "write", write)


def writes(recorded: Recorded) -> list[Any]:
    return [span for span in recorded.spans if span.name == "forge.storage write sqlite"]


def of_storage(recorded: Recorded) -> dict[str, Any]:
    return {name: points for name, points in recorded.points.items() if name.startswith("forge.storage.")}


@pytest.mark.slow
@pytest.mark.parametrize("bad", [(), ("3", "17")])
def test_writes_are_counted_alike_at_every_rate(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, bad: tuple[str, ...]
) -> None:
    slow(monkeypatch, clock, *bad)
    points = []
    for rate in (1.0, 0.25, 0.0):
        storage = SQLStorage(f"sqlite:///{tmp_path / f'{rate}.db'}")
        with recording(sampling_rate=rate) as recorded:
            BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(*range(20)), storage=storage)).drain()
            points.append(of_storage(recorded))
        storage.close()
    assert points[0] == points[1] == points[2]
    of = f"{AT}, storage.backend=sqlite"
    # The dead letter of a sample that cannot be stored is written as well.
    assert points[2]["forge.storage.samples.written"][f"{of}, storage.write.result=inserted"] == 20
    durations = points[2]["forge.storage.operation.duration"]
    assert durations[f"{of}, storage.operation=write"] == Histogram(20, 5.0, 0.25, 0.25)
    failed = f"error.type=OSError, {of}, storage.operation=write"
    assert durations.get(failed) == (Histogram(2, 0.5, 0.25, 0.25) if bad else None)


def test_writes_are_traced_if_one_of_their_samples_is(storage: SQLStorage) -> None:
    with recording(sampling_rate=0.25) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(*range(20)), storage=storage)).drain()
    assert len(writes(recorded)) == len(CHOSEN)
    # Of each of the other samples its own span and that of its write.
    assert recorded.total("forge.telemetry.suppressed") == 2 * (20 - len(CHOSEN))


def test_a_write_that_fails_is_traced_late(
    storage: SQLStorage, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, clock, "1")
    with recording(sampling_rate=0.0) as recorded:
        result = BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(0, 1, 2), storage=storage)).drain()
    assert ledger(result) == {"admitted": 3, "ready": 2, "dlq": 1}
    failed, late = writes(recorded)
    run = next(span for span in recorded.spans if span.name == "forge.pipeline p")
    assert [span.attributes["forge.trace.late"] for span in (failed, late)] == [True, True]
    assert (failed.status.status_code, failed.status.description) == (trace.StatusCode.ERROR, "no space left")
    assert failed.attributes["error.type"] == "OSError"
    assert failed.end_time - failed.start_time == 250_000_000
    # It belongs to the run, as writes do; that of the dead letter is made for the failed sample.
    assert failed.parent.span_id == run.context.span_id
    assert late.parent.span_id == next(span for span in recorded.spans if span.name == "forge.sample").context.span_id
    (event,) = (event for event in recorded.events if event.name == "forge.storage.exception")
    assert (event.span, event.attributes["exception.message"]) == ("forge.storage write sqlite", "no space left")
    (record,) = (
        log.log_record for log in recorded.log_exporter.get_finished_logs() if log.log_record.severity_text == "WARN"
    )
    assert (record.span_id, record.trace_flags) == (failed.context.span_id, failed.context.trace_flags)


@pytest.mark.parametrize(("where", "faults"), [("begin_together", 0), ("_begin_together", 4), ("_end_spans", 2)])
def test_a_fault_in_a_write_harms_nobody(
    storage: SQLStorage, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, where: str, faults: int
) -> None:
    def fault(*_: Any) -> None:
        raise RuntimeError("a fault in the telemetry")

    slow(monkeypatch, clock, "1")
    monkeypatch.setattr(FastPath, where, fault if where != "begin_together" else lambda *_: None)
    with recording(sampling_rate=0.0, raise_faults=False) as recorded:
        result = BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(0, 1, 2), storage=storage)).drain()
        found = recorded.total("forge.telemetry.faults")
    assert ledger(result) == {"admitted": 3, "ready": 2, "dlq": 1}
    assert found == faults


def test_another_storage_than_the_pipelines_takes_the_slow_path(storage: SQLStorage, tmp_path: Path) -> None:
    other = SQLStorage(f"sqlite:///{tmp_path / 'other.db'}")

    @stage
    def keep(sample: Sample) -> Sample:
        other.write([])
        return sample

    with recording(sampling_rate=0.0) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(0, 1), stages=[keep], storage=storage)).drain()
        durations = recorded.points["forge.storage.operation.duration"]
    other.close()
    of = f"{AT}, storage.backend=sqlite"
    assert durations[f"{of}, storage.operation=write"].count == 4


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_more_samples_than_buffers_hold(runner: Runner, storage: SQLStorage, rate: float) -> None:
    class Length(Measurement):
        key = "length"

        def compute(self, sample: Sample) -> int:
            return 1

    count = 2 * FLUSH_SIZE + 5
    with recording(sampling_rate=rate, span_budget=0) as recorded:
        pipeline = Pipeline(
            name="p", source=samples(*range(count)), stages=[plain], measurements=[Length()], storage=storage
        )
        result = runner.run(pipeline).drain()
        points = recorded.points
    assert result.ledger.ready == count
    assert points["forge.sample.admitted"][AT] == count
    assert points["forge.source.reads"][AT] == points["forge.source.duration"][AT].count == count
    assert points["forge.sample.settled"][f"{AT}, sample.outcome=ready"] == count
    assert points["forge.sample.duration"][f"{AT}, sample.outcome=ready"].count == count
    computed = f"measurement.key=length, measurement.outcome=computed, {AT}"
    assert points["forge.measurement.computations"][computed] == count
    assert points["forge.measurement.duration"][f"measurement.key=length, {AT}"].count == count
    written = f"{AT}, storage.backend=sqlite, storage.write.result=inserted"
    assert points["forge.storage.samples.written"][written] == count
    operations = points["forge.storage.operation.duration"][f"{AT}, storage.backend=sqlite, storage.operation=write"]
    # Each sample has three spans, each write one; what is not there was left out, and counted.
    left_out = sum(points.get("forge.telemetry.suppressed", {}).values())
    assert left_out + len(recorded.spans) - 1 == 3 * count + operations.count
    (summary,) = (event for event in recorded.events if event.name == "forge.pipeline.summary")
    assert summary.attributes["forge.summary.suppressed"] == left_out


def test_what_is_left_out_behind_the_end_is_counted() -> None:
    scopes: list[RunScope] = []

    @stage
    def look(sample: Sample) -> Sample:
        run = RUN.get()
        assert run is not None
        scopes.append(run)
        return sample

    with recording(sampling_rate=0.0) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(0), stages=[look])).drain()
        before = recorded.total("forge.telemetry.suppressed")
        scopes[0].suppress("span", "sampling", 3)
        assert recorded.total("forge.telemetry.suppressed") == before + 3
    assert scopes[0].suppressed == before + 3


def test_the_ids_of_a_sample_are_drawn_once() -> None:
    seen: list[trace.SpanContext] = []

    @stage
    def ask(sample: Sample) -> Sample:
        span = trace.get_current_span()
        barrier = threading.Barrier(8)

        def get() -> None:
            barrier.wait()
            seen.append(span.get_span_context())

        threads = [threading.Thread(target=get) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert repr(seen[0]) in repr(span)
        assert not span.is_recording()
        raise ValueError("this is written")

    with recording(sampling_rate=0.0) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(0), stages=[ask])).drain()
    (written,) = (span.context for span in recorded.spans if span.name == "forge.sample")
    assert written is not None
    assert {(context.trace_id, context.span_id) for context in seen} == {(written.trace_id, written.span_id)}


def test_a_sample_keeps_its_last_steps(tmp_path: Path) -> None:
    """A stage may use the storage any number of times."""
    other = SQLStorage(f"sqlite:///{tmp_path / 'other.db'}")

    @stage
    def busy(sample: Sample) -> Sample:
        for _ in range(MAX_STEPS + 10):
            other.read("q", ["x"])
        raise ValueError("this is written")

    with recording(sampling_rate=0.0) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(0), stages=[busy])).drain()
    other.close()
    names = [span.name for span in recorded.spans]
    assert names.count("forge.storage read sqlite") == MAX_STEPS - 1
    assert names.count("forge.stage busy") == 1


def pass_on(sample: Any) -> Any:
    return sample


async def pass_on_async(sample: Any) -> Any:
    return sample


class Constant(Measurement):
    def compute(self, sample: Sample) -> int:
        return 1


class ConstantAsync(Measurement):
    async def compute(self, sample: Sample) -> int:
        return 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sync", "async", "batch", "async batch", "measurement", "async measurement"])
def test_the_cap_on_steps_holds_for_every_kind(kind: str) -> None:
    def made(number: int) -> Any:
        match kind:
            case "sync":
                return stage(name=f"s{number}")(pass_on)
            case "async":
                return stage(name=f"s{number}")(pass_on_async)
            case "batch":
                return stage(name=f"s{number}", batch_size=2)(pass_on)
            case "async batch":
                return stage(name=f"s{number}", batch_size=2)(pass_on_async)
            case "measurement":
                return Constant(key=f"m{number}")
            case _:
                return ConstantAsync(key=f"m{number}")

    class Failing(Measurement):
        key = "failing"

        def compute(self, sample: Sample) -> int:
            raise ValueError("this is written")

    many = [made(number) for number in range(100)]
    of_stages = "measurement" not in kind
    with recording(sampling_rate=0.0) as recorded:
        pipeline = Pipeline(
            name="p",
            source=samples(0),
            stages=many if of_stages else [],
            measurements=[Failing()] if of_stages else [*many, Failing()],
        )
        BatchRunner().run(pipeline).drain()
    names = [span.name for span in recorded.spans]
    assert len(names) == 2 + MAX_STEPS  # the run, the sample, and its last steps
    assert names.count("forge.measurement failing") == 1


def test_a_call_ends_once_whoever_ends_it() -> None:
    """The settlement of a sample and eight returns of the same call at the same time: one of them is recorded."""

    @stage
    def look(sample: Sample) -> Sample:
        scope = SAMPLE.get()
        assert scope is not None
        path = scope.inside
        assert path is not None
        opened, scope.settled = scope.opened, True
        barrier = threading.Barrier(8)

        def end() -> None:
            barrier.wait()
            if scope.claim():
                path.abandon(scope, opened, ValueError("ended"))

        threads = [threading.Thread(target=end) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sample

    with recording(sampling_rate=0.0) as recorded:
        BatchRunner().run(Pipeline(name="p", source=samples(0), stages=[look])).drain()
        assert recorded.total("forge.stage.executions") == 1


@stage
def fan_out(sample: Sample) -> list[Sample]:
    return [sample.child(name, f"{sample.id}{name}") for name in "abcd"]


class Lengths(Measurement):
    key = "lengths"
    batch_size = 4

    async def compute_batch(self, samples: Sequence[Sample]) -> list[int]:
        return [len(sample.data) for sample in samples]


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending", ["usual", "one is skipped", "one fails", "retried", "one value fails", "the call raises", "spends"]
)
def test_batches_are_counted_alike_at_every_rate(ending: str) -> None:
    points = []
    for rate in (1.0, 0.25, 0.0):
        clock = FakeClock()
        failed: set[str] = set()

        @stage(
            batch_size=4,
            retry=RetryPolicy(max_attempts=2, initial_delay=0, retry_on=lambda error: isinstance(error, OSError)),
        )
        def batch(samples: list[Sample], clock: FakeClock = clock, failed: set[str] = failed) -> list[Sample | Skip]:
            clock.advance(0.25)
            if samples[0].parent != "3":
                return [*samples]
            if ending == "one fails" and any(sample.data == "3c" for sample in samples):
                raise ValueError("three c")
            if ending == "retried" and not failed:
                failed.add("3")
                raise OSError("once")
            if ending == "spends":
                usage.report(provider="x", model="y", input_tokens=1)
            return [Skip("c") if ending == "one is skipped" and each.data == "3c" else each for each in samples]

        @stage(batch_size=4)
        async def coroutine(samples: list[Sample], clock: FakeClock = clock) -> list[Sample]:
            clock.advance(0.5)
            if ending == "one value fails":
                return [each.with_data(None) if each.data == "3c" else each for each in samples]
            return samples

        with recording(sampling_rate=rate, span_budget=0) as recorded:
            pipeline = Pipeline(
                name="p",
                source=samples(*range(10)),
                stages=[fan_out, batch, coroutine],
                measurements=[Lengths()],
            )
            BatchRunner(clock=clock).run(pipeline).drain()
            found = recorded.points
        found.pop("forge.telemetry.suppressed", None)
        points.append(found)
    assert points[0] == points[1] == points[2]
    at = f"{AT}, stage.name=coroutine"
    count = points[2]["forge.stage.batch.size"][at].count
    assert points[2]["forge.stage.duration"][f"{at}, stage.outcome=success"] == Histogram(count, count / 2, 0.5, 0.5)


def test_a_batch_is_traced_late_with_the_first_of_its_samples() -> None:
    @stage(batch_size=4)
    def batch(samples: list[Sample]) -> list[Sample]:
        return samples

    @stage
    def picky(sample: Sample) -> Sample:
        if sample.data in {"1b", "1c"}:
            raise ValueError("not this one")
        return sample

    with recording(sampling_rate=0.0) as recorded:
        run = BatchRunner().run(Pipeline(name="p", source=samples(0, 1), stages=[fan_out, batch, picky]))
        run.drain()
    (late,) = (span for span in recorded.spans if span.name == "forge.stage.batch batch")
    assert dict(late.attributes or {}) == {
        "forge.pipeline.name": "p",
        "forge.run.id": run.id,
        "forge.stage.name": "batch",
        "forge.stage.batch.size": 4,
        "forge.stage.outcome": "success",
        "forge.trace.late": True,
    }
    failed = {span.context.span_id for span in recorded.spans if span.name == "forge.sample" and span.context}
    assert len(failed) == 2
    assert {link.context.span_id for link in late.links} < failed
    # Of ten samples two are written with what is below them; left out are eight, their calls, and the other batch.
    assert recorded.total("forge.telemetry.suppressed") == 8 + 2 + 6 + 6 + 1


@pytest.mark.parametrize(
    "where",
    ["_begin_together", "_end_spans"],
)
def test_a_fault_in_a_batch_harms_nobody(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fault(*_: Any) -> None:
        raise RuntimeError("a fault in the telemetry")

    @stage(batch_size=4)
    def batch(samples: list[Sample]) -> list[Sample]:
        return samples

    monkeypatch.setattr(FastPath, where, fault)
    with recording(sampling_rate=0.0, raise_faults=False) as recorded:
        pipeline = Pipeline(name="p", source=samples(0, 1), stages=[fan_out, batch], measurements=[Lengths()])
        result = BatchRunner().run(pipeline).drain()
        found = recorded.total("forge.telemetry.faults")
        counted = recorded.total("forge.stage.executions", "stage.name=batch")
    assert ledger(result) == {"admitted": 2, "derived": 8, "split": 2, "ready": 8}
    assert found == 4
    assert counted == 8


def test_nothing_of_batches_where_it_is_suppressed() -> None:
    inner = StageExecutor()

    @stage(batch_size=4)
    def batch(samples: list[Sample]) -> list[Sample]:
        return samples

    @stage(batch_size=4)
    def outer(samples: list[Sample]) -> list[Sample]:
        run = RUN.get()
        assert run is not None
        items = [Item(sample, copy_context()) for sample in samples]
        with suppress_instrumentation():
            inner.apply_batch(batch, items)
        return samples

    with recording(sampling_rate=0.0) as recorded:
        pipeline = Pipeline(name="p", source=samples(0, 1), stages=[fan_out, outer, batch])
        BatchRunner().run(pipeline).drain()
    assert recorded.total("forge.stage.executions", "stage.name=outer") == 8
    assert recorded.total("forge.stage.executions", "stage.name=batch") == 8
