"""What the metrics count is exactly what the run counted: with threads, tasks, batches, retries, and an early end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from forge import (
    BatchRunner,
    Measurement,
    Pipeline,
    RetryPolicy,
    Sample,
    Skip,
    SQLStorage,
    StreamingRunner,
    stage,
)
from tests.support.clock import FakeClock
from tests.support.runs import PATIENCE, wait
from tests.support.telemetry import Histogram, Recorded, recording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from forge import RunResult
    from forge.runner import Runner


class LineError(ConnectionError):
    pass


def busy_pipeline(path: Path | None, clock: FakeClock, count: int = 150) -> Pipeline:
    """Threads, tasks and batches; every seventh sample is retried, others are skipped, split or fail at some place.

    Times are sums of powers of two, so that adding them up in any order gives the same.
    """
    failed: set[str] = set()
    lock = threading.Lock()

    @stage(concurrency=4, retry=RetryPolicy(initial_delay=0.5, jitter=0))
    def threads(sample: Sample) -> Sample:
        clock.advance(0.125)
        if sample.data % 7 == 0:
            with lock:
                first = sample.id not in failed
                failed.add(sample.id)
            if first:
                raise LineError("once")
        if sample.data % 50 == 3:
            raise ValueError("always")
        return sample

    @stage(concurrency=8, retry=RetryPolicy(initial_delay=0.25, jitter=0))
    async def tasks(sample: Sample) -> Sample | Skip | list[Sample]:
        await asyncio.sleep(0)
        if sample.data % 10 == 1:
            return Skip("ends with one")
        if sample.data % 10 == 2:
            return [sample.child(name, sample.data + 3) for name in "ab"]
        if sample.data % 60 == 5:
            raise TimeoutError("always")
        return sample

    @stage(concurrency=2, batch_size=8)
    def batches(samples: list[Sample]) -> list[Sample | Skip]:
        clock.advance(1.0)
        if any(sample.data % 40 == 4 for sample in samples):
            raise RuntimeError("a bad one is among them")
        return [Skip("a nine") if sample.data % 10 == 9 else sample for sample in samples]

    class Square(Measurement):
        key = "square"
        concurrency = 2

        def compute(self, sample: Sample) -> int:
            if sample.data % 30 == 8:
                raise ArithmeticError("eights are not squared")
            return int(sample.data) ** 2

    class Root(Measurement):
        key = "root"
        batch_size = 4

        async def compute_batch(self, samples: Sequence[Sample]) -> list[int]:
            return [int(sample.measurements["square"] ** 0.5) for sample in samples]

        depends_on = ("square",)

    return Pipeline(
        name="p",
        source=lambda: (Sample(id=str(number), data=number) for number in range(count)),
        stages=[threads, tasks, batches],
        measurements=[Square(), Root()],
        storage=SQLStorage(f"sqlite:///{path}") if path else None,
    )


def told(results: Sequence[RunResult]) -> Counter[str]:
    """What the results of these runs say, together."""
    counts: Counter[str] = Counter()
    for result in results:
        ledger = result.ledger
        outcome = "failed run" if result.outcome.value == "failed" else result.outcome.value
        counts.update({"started": 1, outcome: 1, "admitted": ledger.admitted, "derived": ledger.derived})
        counts.update({outcome: getattr(ledger, outcome) for outcome in OUTCOMES})
        for name in result.stages:
            at = f"stage {name.name}"
            counts.update({f"{at} success": name.successes, f"{at} skip": name.skips, f"{at} error": name.errors})
            counts.update({f"{at} cancelled": name.cancelled, f"{at} retries": name.retries, f"{at} busy": name.busy})
            counts.update({f"{at} batches": name.batches, f"{at} failures": name.errors})
        for key in result.measurements:
            of = f"measurement {key.key}"
            counts.update({f"{of} computed": key.computed, f"{of} cached": key.cached, f"{of} error": key.errors})
            counts.update({f"{of} hits": key.cached, f"{of} misses": key.computed + key.errors})
        for (source, where, kind), number in result.dead_letters.items():
            counts[f"dead letter {source} {where if source != 'storage' else ''} {kind}"] += number
        storage = result.storage
        counts.update({"inserted": storage.inserted, "updated": storage.updated, "kept": storage.unchanged})
        counts["bytes written"] += storage.bytes_written
    return +counts


def counted(recorded: Recorded) -> Counter[str]:
    """The same from the metrics."""
    counts: Counter[str] = Counter()
    for metric, points in recorded.points.items():
        for text, value in points.items():
            at = dict(part.split("=") for part in text.split(", "))
            label = LABELS.get(metric)
            if label is not None:
                counts[label(at)] += value.count if isinstance(value, Histogram) else value
    return +counts


OUTCOMES = ("ready", "skipped", "unchanged", "split", "dlq", "failed")

LABELS: dict[str, Callable[[dict[str, str]], str]] = {
    "forge.pipeline.started": lambda at: "started",
    "forge.pipeline.completed": lambda at: {"failed": "failed run"}.get(at["run.outcome"], at["run.outcome"]),
    "forge.sample.admitted": lambda at: "admitted",
    "forge.sample.derived": lambda at: "derived",
    "forge.sample.settled": lambda at: at["sample.outcome"],
    "forge.stage.executions": lambda at: f"stage {at['stage.name']} {at['stage.outcome']}",
    "forge.stage.retries": lambda at: f"stage {at['stage.name']} retries",
    "forge.stage.failures": lambda at: f"stage {at['stage.name']} failures",
    "forge.stage.busy.time": lambda at: f"stage {at['stage.name']} busy",
    "forge.stage.batch.size": lambda at: f"stage {at['stage.name']} batches",
    "forge.measurement.computations": lambda at: f"measurement {at['measurement.key']} {at['measurement.outcome']}",
    "forge.measurement.cache.hits": lambda at: f"measurement {at['measurement.key']} hits",
    "forge.measurement.cache.misses": lambda at: f"measurement {at['measurement.key']} misses",
    "forge.dlq.enqueued": lambda at: (
        f"dead letter {at['dlq.source']} {at.get('stage.name', at.get('measurement.key', ''))} {at['error.type']}"
    ),
    "forge.storage.samples.written": lambda at: {"unchanged": "kept"}.get(
        at["storage.write.result"], at["storage.write.result"]
    ),
    "forge.storage.io": lambda at: f"bytes {'written' if at['storage.direction'] == 'write' else 'read'}",
}


def assert_agree(recorded: Recorded, *results: RunResult) -> None:
    """That the metrics of these runs say exactly what their results say, and that nothing is active any more."""
    metrics = counted(recorded)
    del metrics["bytes read"]  # results say nothing of it
    assert metrics == told(results)
    points = recorded.points
    for state in ("forge.pipeline.active", "forge.sample.active", "forge.stage.active"):
        assert set(points[state].values()) == {0}
    durations = sum(histogram.count for histogram in points.get("forge.sample.duration", {}).values())
    assert durations == sum(result.ledger.settled for result in results)


def assert_stored(pipeline: Pipeline, result: RunResult) -> None:
    """That the database, which was empty before, says what the result of its first run says."""
    storage = pipeline.storage
    assert storage is not None
    statuses = Counter(row.status.value for row in storage.query(pipeline.name).samples)
    stored = ("ready", "skipped", "split", "dlq")
    assert statuses == +Counter({outcome: getattr(result.ledger, outcome) for outcome in stored})
    assert len(pipeline.dead_letters.list()) == result.ledger.dlq
    [run] = storage.runs(pipeline.name)
    assert run.record == json.loads(json.dumps(result.to_dict()))
    storage.close()


def assert_complete(recorded: Recorded, *results: RunResult) -> None:
    """That every sample has one span, which has ended, that no span hangs in the air, and that the summaries know how
    many there are.
    """
    samples = [span for span in recorded.spans if span.name == "forge.sample"]
    assert len(samples) == sum(r.ledger.admitted + r.ledger.derived for r in results)
    known = {span.context.span_id for span in recorded.spans if span.context}
    assert {span.parent.span_id for span in recorded.spans if span.parent} <= known
    # A replay looks for its dead letters before it begins.
    in_runs = [span for span in recorded.spans if span.parent or span.name.startswith("forge.pipeline")]
    told_of = [e.attributes["forge.summary.spans"] for e in recorded.events if e.name == "forge.pipeline.summary"]
    assert sum(told_of) == len(in_runs)


EVERY = pytest.mark.parametrize(
    "kind",
    [BatchRunner, StreamingRunner, lambda **more: StreamingRunner(ordered=True, **more)],
    ids=["batch", "streaming", "ordered"],
)


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
def test_counts_of_a_whole_run(tmp_path: Path, kind: Any, stored: bool) -> None:
    clock = FakeClock()
    pipeline = busy_pipeline(tmp_path / "x.db" if stored else None, clock)
    with recording() as recorded:
        result = kind(clock=clock).run(pipeline).drain()
        assert_agree(recorded, result)
        assert_complete(recorded, result)
    assert result.ledger.imbalance == 0
    assert result.stages[0].retries > 0


@pytest.mark.slow
@EVERY
def test_counts_of_a_second_run_and_of_a_replay(tmp_path: Path, kind: Any) -> None:
    clock = FakeClock()
    pipeline = busy_pipeline(tmp_path / "x.db", clock, count=100)
    with recording() as recorded:
        runner: Runner = kind(clock=clock)
        results = [runner.run(pipeline).drain(), runner.run(pipeline).drain(), runner.replay(pipeline).drain()]
        assert_agree(recorded, *results)
        assert_complete(recorded, *results)
    assert results[1].ledger.unchanged > 0


@pytest.mark.slow
def test_counts_of_runs_at_the_same_time(tmp_path: Path) -> None:
    clock = FakeClock()
    pipelines = [busy_pipeline(tmp_path / f"{number}.db", clock, count=100) for number in range(3)]
    with recording() as recorded, ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda pipeline: StreamingRunner(clock=clock).run(pipeline).drain(), pipelines))
        assert_agree(recorded, *results)
        assert_complete(recorded, *results)


@pytest.mark.slow
def test_counts_where_the_caller_has_an_event_loop(tmp_path: Path) -> None:
    clock = FakeClock()
    pipeline = busy_pipeline(tmp_path / "x.db", clock, count=100)

    async def consume() -> RunResult:
        async with StreamingRunner(clock=clock).run(pipeline) as run:
            async for _ in run:
                pass
        assert run.result is not None
        return run.result

    with recording() as recorded:
        result = asyncio.run(consume())
        assert_agree(recorded, result)
        assert_complete(recorded, result)


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("taken", [0, 1, 20])
def test_counts_of_a_run_that_is_closed_early(tmp_path: Path, kind: Any, taken: int) -> None:
    clock = FakeClock()
    pipeline = busy_pipeline(tmp_path / "x.db", clock)
    with recording() as recorded:
        with kind(clock=clock).run(pipeline) as run:
            for number, _ in enumerate(run):
                if number >= taken:
                    break
        assert run.result is not None
        assert run.result.outcome == "cancelled"
        assert_agree(recorded, run.result)
        assert_complete(recorded, run.result)
    assert_stored(pipeline, run.result)


@pytest.mark.slow
def test_call_that_is_abandoned_is_counted_once_and_its_return_not_at_all() -> None:
    entered, released = threading.Event(), threading.Event()

    @stage
    def stuck(sample: Sample) -> Sample:
        entered.set()
        wait(released)
        return sample

    pipeline = Pipeline(name="p", source=[Sample(id="1", data=1)], stages=[stuck])
    before = set(threading.enumerate())
    with recording() as recorded:
        with StreamingRunner(clock=FakeClock()).run(pipeline) as run:
            consumer = threading.Thread(target=run.drain)
            consumer.start()
            wait(entered)
            run.close()
        consumer.join()
        assert run.result is not None
        assert_agree(recorded, run.result)
        spans = {span.name: span for span in recorded.spans}
        assert (spans["forge.stage stuck"].attributes or {})["forge.stage.outcome"] == "cancelled"
        counted, traced, logged = recorded.points, len(recorded.spans), recorded.events
        released.set()
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("forge-otel-"):  # they wait for the next flush
                continue
            thread.join(PATIENCE)
        assert (recorded.points, len(recorded.spans), recorded.events) == (counted, traced, logged)
        assert_complete(recorded, run.result)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.0])
def test_batch_and_measurement_that_are_abandoned(rate: float) -> None:
    measuring, batching, released = threading.Event(), threading.Event(), threading.Event()

    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(name, sample.id) for name in "abc"]

    @stage(batch_size=3, max_wait=PATIENCE)
    def batch(samples: list[Sample]) -> list[Sample]:
        if samples[0].data == "second":
            batching.set()
            wait(released)
        return samples

    class Slow(Measurement):
        key = "slow"

        def compute(self, sample: Sample) -> int:
            measuring.set()
            wait(released)
            return 1

    def source() -> Any:
        yield Sample(id="first", data=0)
        wait(measuring)
        yield Sample(id="second", data=0)

    pipeline = Pipeline(name="p", source=source, stages=[fan_out, batch], measurements=[Slow()])
    before = set(threading.enumerate())
    with recording(sampling_rate=rate) as recorded:
        with StreamingRunner(clock=FakeClock()).run(pipeline) as run:
            consumer = threading.Thread(target=run.drain)
            consumer.start()
            wait(batching)
            run.close()
        consumer.join()
        assert run.result is not None
        assert run.result.stages[1].cancelled == 3
        assert_agree(recorded, run.result)
        released.set()
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("forge-otel-"):  # they wait for the next flush
                continue
            thread.join(PATIENCE)
        assert_agree(recorded, run.result)
        if rate == 1.0:
            assert_complete(recorded, run.result)


@pytest.mark.slow
def test_counts_of_an_interrupted_run() -> None:
    clock = FakeClock()

    @stage(concurrency=3)
    def interrupted(sample: Sample) -> Sample:
        if sample.data == 50:
            raise KeyboardInterrupt
        return sample

    source = [Sample(id=str(number), data=number) for number in range(100)]
    with recording() as recorded:
        run = StreamingRunner(clock=clock).run(Pipeline(name="p", source=source, stages=[interrupted]))
        with pytest.raises(KeyboardInterrupt):
            run.drain()
        assert run.result is not None
        assert_agree(recorded, run.result)
        assert_complete(recorded, run.result)


def test_run_inside_a_stage_is_a_run_of_its_own() -> None:
    @stage
    def inner(sample: Sample) -> Sample:
        return sample

    results: list[RunResult] = []

    @stage
    def outer(sample: Sample) -> Sample:
        pipeline = Pipeline(name="inner", source=[Sample(id="i", data=1)], stages=[inner])
        results.append(BatchRunner().run(pipeline).drain())
        return sample

    with recording() as recorded:
        result = BatchRunner().run(Pipeline(name="outer", source=[Sample(id="o", data=1)], stages=[outer])).drain()
    names = [line.split(" |")[0] for line in recorded.tree().splitlines()]
    assert names == [
        "forge.pipeline outer",
        "  forge.sample",
        "    forge.stage outer",
        "      forge.pipeline inner",
        "        forge.sample",
        "          forge.stage inner",
    ]
    assert recorded.points["forge.sample.settled"]["pipeline.name=inner, sample.outcome=ready"] == 1
    assert_complete(recorded, result, *results)
