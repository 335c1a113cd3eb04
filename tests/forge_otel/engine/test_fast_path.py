"""Whatever way a call goes, whoever looks when, and however many threads there are: the counts are exact."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import threading
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from benchmarks.scenarios import HandOver
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
from forge.execution.stage_executor import StageExecutor
from forge_otel.patching import faults
from forge_otel.signals.metrics import FLUSH_SIZE, Buffer
from tests.support.clock import FakeClock
from tests.support.runs import PATIENCE, wait
from tests.support.shortcuts import found_out_anew
from tests.support.small_run import small_run
from tests.support.telemetry import Histogram, Recorded, recording

from .test_concurrency import EVERY, assert_agree, busy_pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from forge.execution.item import Item

RATES = pytest.mark.parametrize("rate", [0.0, 0.5])
"""At a rate of 1 all other tests run."""


@pytest.mark.slow
@EVERY
@RATES
def test_counts_of_a_whole_run(tmp_path: Path, kind: Any, rate: float) -> None:
    clock = FakeClock()
    with recording(sampling_rate=rate) as recorded:
        result = kind(clock=clock).run(busy_pipeline(tmp_path / "x.db", clock)).drain()
        assert_agree(recorded, result)


@pytest.mark.slow
@EVERY
@RATES
@pytest.mark.parametrize("taken", [0, 20])
def test_counts_of_a_run_that_is_closed_early(tmp_path: Path, kind: Any, rate: float, taken: int) -> None:
    clock = FakeClock()
    with recording(sampling_rate=rate) as recorded:
        with kind(clock=clock).run(busy_pipeline(tmp_path / "x.db", clock)) as run:
            for number, _ in enumerate(run):
                if number >= taken:
                    break
        assert run.result is not None
        assert_agree(recorded, run.result)


@pytest.mark.slow
@RATES
@pytest.mark.parametrize("more", [{}, {"events": "all"}, {"on_stage_end": id}, {"on_measurement_start": id}])
def test_points_are_the_same_at_every_rate(tmp_path: Path, rate: float, more: dict[str, Any]) -> None:
    points = []
    for name, settings in (("all", {}), ("some", {"sampling_rate": rate, **more})):
        (tmp_path / name).mkdir()
        with recording(raise_faults=False, **settings) as recorded:
            small_run(tmp_path / name, FakeClock()).drain()
            points.append(recorded.points)
    for suppressed in ("forge.telemetry.suppressed", "forge.telemetry.faults"):
        points[1].pop(suppressed, None)
    assert points[0] == points[1]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_fast_path_says_what_the_slow_path_says(tmp_path: Path, rate: float) -> None:
    """Of endings that come once, again and again, and too many of them to be known."""

    def sort_out(sample: Sample) -> Any:
        clock.advance(0.25)
        match sample.data % 5:
            case 0:
                raise ValueError(f"no {sample.id}")
            case 1:
                raise OSError("disk")
            case 2 | 3:
                return Skip(f"reason {sample.id}")
        return sample

    class Length(Measurement):
        key = "length"

        def compute(self, sample: Sample) -> int:
            clock.advance(0.125)
            if sample.data % 20 == 4:
                raise ValueError(f"no length of {sample.id}")
            return int(sample.data)

    paths: dict[str, dict[str, Any]] = {
        "fast": {},
        "slow": {"on_stage_end": _nothing, "on_measurement_end": _nothing},
    }
    said = []
    for name, hooks in paths.items():
        clock = FakeClock()
        with recording(sampling_rate=rate, span_budget=0, **hooks) as recorded:
            for _ in range(2):  # what was measured in the first run is cached in the second
                storage = SQLStorage(f"sqlite:///{tmp_path / name}.db")
                pipeline = pipeline_of(200, stage(sort_out), measurements=[Length()], storage=storage)
                BatchRunner(clock=clock, resume=False).run(pipeline).drain()
            tree, log = (re.sub(UUID, "run", text) for text in (recorded.tree(), recorded.log()))
            # Late spans begin by the machine's clock, of which the fake one knows nothing: so in any order.
            said.append((Counter(tree.split("\n  forge.sample")), log, recorded.points))
    assert said[0] == said[1]
    samples, log, points = said[0]
    assert sum(points["forge.stage.executions"].values()) == 400
    assert sum(text.count("forge.stage sort_out") for text in samples.elements()) == (400 if rate else 2 * (80 + 10))
    assert log.count("Stage failed: sort_out, ") == 2 * 80
    assert points["forge.measurement.cache.hits"] == {"measurement.key=length, pipeline.name=p": 30}


UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def _nothing(*_: Any) -> None:
    """A hook: while there is one, calls take the slow path."""


@stage
def plain(sample: Sample) -> Sample:
    return sample


def pipeline_of(count: int, *stages: Any, **more: Any) -> Pipeline:
    source = (Sample(id=str(n), data=n) for n in range(count))
    return Pipeline(name="p", source=source, stages=stages or [plain], **more)


@pytest.mark.slow
@RATES
@pytest.mark.parametrize("merge", ["on", "off"])
def test_more_than_a_buffer_holds(rate: float, merge: str) -> None:
    count = 3 * FLUSH_SIZE + 7
    clock = FakeClock()

    @stage
    def quick(sample: Sample) -> Sample:
        clock.advance(0.5)
        return sample

    with found_out_anew(merge), recording(sampling_rate=rate) as recorded:
        BatchRunner(clock=clock).run(pipeline_of(count, quick)).drain()
        points = recorded.points
    at = "pipeline.name=p, stage.name=quick"
    assert points["forge.stage.duration"] == {f"{at}, stage.outcome=success": Histogram(count, count / 2, 0.5, 0.5)}
    assert points["forge.stage.executions"][f"{at}, stage.outcome=success"] == count
    assert points["forge.stage.busy.time"] == {at: count / 2}


@RATES
def test_every_collection_has_what_was_before_it(rate: float) -> None:
    seen: list[float] = []
    other = InMemoryMetricReader()

    with recording(sampling_rate=rate, recorded=Recorded(readers=(other,))) as recorded:

        @stage
        def look(sample: Sample) -> Sample:
            seen.append(recorded.total("forge.stage.executions", "stage.name=before"))
            other.get_metrics_data()
            return sample

        @stage
        def before(sample: Sample) -> Sample:
            return sample

        BatchRunner().run(pipeline_of(20, before, look)).drain()
    assert seen == list(range(1, 21))


@pytest.mark.slow
def test_collections_while_threads_measure() -> None:
    readers = (InMemoryMetricReader(), InMemoryMetricReader())
    with recording(sampling_rate=0.0, recorded=Recorded(readers=readers)) as recorded:
        over = threading.Event()

        def collect(reader: InMemoryMetricReader) -> None:
            while not over.is_set():
                reader.get_metrics_data()

        collecting = [threading.Thread(target=collect, args=(reader,)) for reader in readers]
        run = StreamingRunner().run(pipeline_of(2000, stage(concurrency=4)(lambda sample: sample)))
        for thread in collecting:
            thread.start()
        result = run.drain()
        over.set()
        for thread in collecting:
            thread.join()
        assert_agree(recorded, result)


@pytest.mark.slow
@RATES
def test_call_that_is_abandoned_is_counted_once_and_its_return_not_at_all(rate: float) -> None:
    entered, released = threading.Event(), threading.Event()

    @stage
    def stuck(sample: Sample) -> Sample:
        entered.set()
        wait(released)
        return sample

    before = set(threading.enumerate())
    with recording(sampling_rate=rate) as recorded:
        with StreamingRunner(clock=FakeClock()).run(pipeline_of(1, stuck)) as run:
            consumer = threading.Thread(target=run.drain)
            consumer.start()
            wait(entered)
            run.close()
        consumer.join()
        assert run.result is not None
        assert_agree(recorded, run.result)
        counted, traced, logged = recorded.points, len(recorded.spans), recorded.events
        released.set()
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("forge-otel-"):  # they wait for the next flush
                continue
            thread.join(PATIENCE)
        assert (recorded.points, len(recorded.spans), recorded.events) == (counted, traced, logged)


@RATES
def test_stage_inside_a_stage_is_counted_as_well(rate: float) -> None:
    @stage
    def outer(sample: Sample) -> Sample:
        for _ in range(3):
            StageExecutor().apply(outer if sample.data == 0 and not inside else plain, sample)
        inside.append(1)
        return sample

    inside: list[int] = [1]
    with recording(sampling_rate=rate) as recorded:
        BatchRunner().run(pipeline_of(4, outer)).drain()
    assert recorded.total("forge.stage.executions", "stage.name=outer", "stage.outcome=success") == 4
    assert recorded.total("forge.stage.executions", "stage.name=plain") == 12


@pytest.mark.slow
@RATES
def test_nothing_where_a_stage_suppresses_it(rate: float) -> None:
    @stage
    def quiet(sample: Sample) -> Sample:
        with suppress_instrumentation():
            StageExecutor().apply(plain, sample)
        return sample

    with recording(sampling_rate=rate) as recorded:
        BatchRunner().run(pipeline_of(4, quiet)).drain()
    assert recorded.total("forge.stage.executions", "stage.name=plain") == 0
    assert recorded.total("forge.stage.executions", "stage.name=quiet") == 4


@RATES
def test_uninstrumenting_and_instrumenting_while_a_run_goes_on(rate: float) -> None:
    executions = []
    runner = BatchRunner()
    run = runner.run(pipeline_of(30))
    for _ in range(2):
        with recording(sampling_rate=rate) as recorded:
            for _ in range(10):
                next(run)
        executions.append(recorded.total("forge.stage.executions"))
    assert len(list(run)) == 10
    # The first one saw a run; one sample may be under way when it is taken off. The second came too late for its run,
    # and sees the stages alone.
    assert executions[0] in {10, 11}
    assert executions[1] in {9, 10}


@RATES
def test_retries_take_the_slow_path(rate: float) -> None:
    clock = FakeClock()

    @stage(retry=RetryPolicy(max_attempts=3, initial_delay=0.5, jitter=0, multiplier=1))
    def moody(sample: Sample) -> Sample:
        clock.advance(0.25)
        tries[sample.id] = tries.get(sample.id, 0) + 1
        if tries[sample.id] <= sample.data:
            raise ConnectionError(sample.id)
        return sample

    tries: dict[str, int] = {}
    with recording(sampling_rate=rate) as recorded:
        result = BatchRunner(clock=clock).run(pipeline_of(4, moody)).drain()
        assert_agree(recorded, result)
        points = recorded.points
    at = "pipeline.name=p, stage.name=moody"
    assert points["forge.stage.retries"] == {
        "error.type=network_error, pipeline.name=p, stage.attempt=1, stage.name=moody": 3,
        "error.type=network_error, pipeline.name=p, stage.attempt=2, stage.name=moody": 2,
    }
    assert points["forge.stage.retry_wait.time"] == {f"error.type=network_error, {at}": 2.5}
    assert points["forge.stage.busy.time"] == {at: 0.25 + 0.5 + 0.75 + 0.75}


def test_a_buffer_gives_each_value_once() -> None:
    taken: list[int] = []
    buffer = Buffer("test", taken.extend)

    def work(first: int) -> None:
        for number in range(first, first + 5000):
            buffer.append(number)
            if number % 97 == 0:
                buffer.drain()

    threads = [threading.Thread(target=work, args=(10_000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    buffer.drain()
    assert sorted(taken) == sorted(10_000 * thread + number for thread in range(4) for number in range(5000))
    assert buffer.pending == []


def test_a_buffer_does_not_wait_for_whoever_writes_it() -> None:
    writing, go_on = threading.Event(), threading.Event()
    taken: list[int] = []

    def slow(values: list[int]) -> None:
        taken.extend(values)
        writing.set()
        wait(go_on)

    buffer = Buffer("test", slow)
    buffer.append(0)
    thread = threading.Thread(target=buffer.drain)
    thread.start()
    wait(writing)
    for number in range(1, 2 * FLUSH_SIZE):
        buffer.append(number)  # would hang here
    assert taken == [0]
    go_on.set()
    thread.join()
    buffer.drain()
    assert taken == list(range(2 * FLUSH_SIZE))


def test_a_fault_while_writing_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: list[int]) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(faults, "RAISE", False)
    buffer = Buffer("test", fail)
    for number in range(2 * FLUSH_SIZE):
        buffer.append(number)
    assert buffer.pending == []


class Counted:
    """Data of a sample, whose number is counted while it exists."""

    alive = 0

    def __init__(self) -> None:
        Counted.alive += 1

    def __del__(self) -> None:
        Counted.alive -= 1


async def plain_later(sample: Sample) -> Sample:
    return sample


async def batch_later(samples: Sequence[Sample]) -> list[Sample]:
    return list(samples)


def refuse_some(sample: Sample) -> Sample:
    if sample.id.endswith("1"):
        raise ConnectionError(sample.id)
    return sample


KINDS = {
    "sync": plain,
    "async": stage(name="later")(plain_later),
    "batch": stage(name="batch", batch_size=3)(list),
    "async batch": stage(name="batch later", batch_size=3)(batch_later),
    "failures": stage(name="refuse some")(refuse_some),
    "retries": stage(name="retry some", retry=RetryPolicy(max_attempts=2, initial_delay=0))(refuse_some),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runner", [BatchRunner, StreamingRunner])
@pytest.mark.parametrize("rate", [0.0, 1.0], ids=["untraced", "traced"])
def test_samples_are_gone_without_the_garbage_collector(
    rate: float, runner: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of a sample is part of a cycle: its data would stay until the next full collection."""
    caplog.set_level(logging.CRITICAL, "forge")  # pytest keeps the records of a log, and the errors in them
    samples = 20
    gc.collect()
    with recording(sampling_rate=rate) as recorded:
        gc.disable()
        try:
            run = runner().run(
                Pipeline(
                    name="p",
                    source=lambda: (Sample(id=str(number), data=Counted()) for number in range(samples)),
                    stages=[KINDS[kind], stage(name="again")(lambda sample: sample)],
                )
            )
            run.drain()
            assert Counted.alive == 0
        finally:
            gc.enable()
    assert recorded.total("forge.sample.settled") == samples


@stage(name="refuse")
def refuse(sample: Sample) -> Sample:
    raise RefusedError(sample.id)


class RefusedError(Exception):
    """Unlike those of Python itself, it can be looked after when it is gone."""


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_error_is_gone_with_the_verdict_of_a_traced_call(is_async: bool) -> None:
    """It leads to the frames that it came through, ours among them: none of them leads back."""
    gone: list[bool] = []

    def work(executor: StageExecutor, items: Sequence[Item]) -> None:
        (item,) = items
        run = item.context.copy().run
        verdict = (
            run(asyncio.run, executor.apply_async(refuse, item.sample))
            if is_async
            else run(executor.apply, refuse, item.sample)
        )
        assert verdict.error is not None
        error = weakref.ref(verdict.error)
        del verdict
        gone.append(error() is None)

    with recording() as recorded:
        gc.disable()
        try:
            HandOver(work, 1).run(Pipeline(name="p", source=[Sample(id="1", data=1)], stages=[refuse])).drain()
        finally:
            gc.enable()
    assert gone == [True]
    assert recorded.spans[0].name == "forge.stage refuse"
    assert recorded.total("forge.stage.failures") == 1
