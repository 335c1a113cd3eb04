"""The verdict on runs: what limited them, what to change, what that gives. Each situation is a real run, by a clock
that the part in question moves; where time passes in several threads at once, a real run with other times.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forge import BatchRunner, Measurement, Pipeline, Sample, SQLStorage, Stage, StreamingRunner, stage
from forge.runner.result import RunResult
from forge.runner.verdict import RunVerdict, judge
from tests.support.clock import FakeClock
from tests.support.runs import PATIENCE
from tests.support.waiting import wait_until

SAMPLES = [Sample(id=f"{number}", data=number) for number in range(100)]


class Through(Stage):
    """Leaves samples as they are."""

    def process(self, sample: Sample) -> Sample:
        return sample


class ThroughInBatches(Stage):
    """The same, in batches."""

    batch_size = 32

    def process_batch(self, samples: Sequence[Sample]) -> list[Any]:
        return list(samples)


class ThroughOnTheLoop(Stage):
    """The same, async."""

    async def process(self, sample: Sample) -> Sample:
        return sample


class Length(Measurement):
    key, version = "length", "1"

    def compute(self, sample: Sample) -> int:
        return 1


def retimed(pipeline: Pipeline, **changes: Any) -> RunResult:
    """The result of a real run of the pipeline, with other times: 10 s in which nothing was computed.

    The keywords `stages` and `measurements` have the changes of each, `source` those of the source.
    """
    result = StreamingRunner().run(pipeline).drain()
    idle: dict[str, Any] = {"busy": 0.0, "utilization": 0.0}
    parts: dict[str, Any] = {
        name: [
            dataclasses.replace(part, **idle, **({"backpressure": 0.0} if name == "stages" else {}))
            for part in getattr(result, name)
        ]
        for name in ("stages", "measurements")
    }
    for name, each in parts.items():
        for index, change in enumerate(changes.pop(name, ())):
            each[index] = dataclasses.replace(each[index], **change)
    parts["source"] = dataclasses.replace(
        result.source, **{"busy": 0.0, "backpressure": 0.0} | changes.pop("source", {})
    )
    return dataclasses.replace(result, **{"duration": 10.0, "cpu": 0.1, "consumer_wait": 0.0} | parts | changes)


def verdict_on(pipeline: Pipeline, **changes: Any) -> RunVerdict:
    return judge(retimed(pipeline, **changes), pipeline)


def chain(*stages: Stage, measurements: Sequence[Measurement] = ()) -> Pipeline:
    return Pipeline(name="p", source=SAMPLES, stages=stages, measurements=measurements)


def test_a_stage_in_which_all_time_passes_limits_the_run() -> None:
    clock = FakeClock()

    @stage(name="slow")
    def slow(sample: Sample) -> Sample:
        clock.advance(1)
        return sample

    pipeline = chain(Through(name="fast"), slow, Through(name="after"))
    result = StreamingRunner(clock=clock).run(pipeline).drain()
    result = dataclasses.replace(result, cpu=0.0)
    verdict = judge(result, pipeline)
    assert (verdict.limit, verdict.stage, verdict.utilization) == ("stage", "slow", 1.0)
    assert verdict.text == "slow limits the run: its one slot was 100% utilized."
    assert verdict.advice.startswith("It mostly waits: with 2 instead of 1 slot (concurrency) ")


def test_the_verdict_is_part_of_the_result_and_of_the_record(tmp_path: Path) -> None:
    clock = FakeClock()

    @stage(concurrency=2)
    def slow(sample: Sample) -> Sample:
        clock.advance(1)
        return sample

    storage = SQLStorage(f"sqlite:///{tmp_path}/p.db")
    pipeline = Pipeline(name="p", source=SAMPLES, stages=[slow], storage=storage)
    result = BatchRunner(clock=clock).run(pipeline).drain()
    expected = {
        "limit": "stage",
        "stage": "slow",
        "utilization": 0.5,
        "text": "The batch runner makes one call at a time: slow took 100% of the run.",
        "advice": "StreamingRunner, with the same settings, gives about 2 times the throughput.",
    }
    assert dataclasses.asdict(result.verdict) == expected
    [record] = storage.runs("p")
    assert record.record["verdict"] == expected
    storage.close()


def test_a_source_in_which_all_time_passes_limits_the_run() -> None:
    clock, done = FakeClock(), threading.Semaphore(0)

    def source() -> Iterator[Sample]:
        for sample in SAMPLES:
            clock.advance(1)
            yield sample
            done.acquire()

    pipeline = Pipeline(name="p", source=source, stages=[Through(name="a")])
    with StreamingRunner(clock=clock).run(pipeline) as run:
        for _ in run:
            done.release()
    assert run.result is not None
    assert (run.result.source.busy, run.result.source.backpressure) == (100, 0)
    verdict = judge(dataclasses.replace(run.result, cpu=0.0), pipeline)
    assert (verdict.limit, verdict.stage, verdict.utilization) == ("source", None, 1.0)
    assert verdict.text == "The source limits the run: reading it took 100% of the time."
    assert verdict.advice == "A faster source, or several samples per read, gives more throughput."


def waits_in(thread: str, function: str) -> bool:
    """Whether a thread waits for what a function of ours waits for."""
    [identity] = [each.ident for each in threading.enumerate() if each.name == thread]
    assert identity is not None
    names = [frame.f_code.co_name for frame, _ in traceback.walk_stack(sys._current_frames()[identity])]
    return names[:2] == ["wait", function]


def hanging(returns: threading.Event) -> Stage:
    """A stage whose calls do not return before the event, but for the first sample."""

    @stage(queue_size=4)
    def hangs(sample: Sample) -> Sample:
        if sample.data:
            returns.wait(PATIENCE)
        return sample

    return hangs


@pytest.mark.slow
def test_a_stage_that_hangs_until_the_end_limits_the_run() -> None:
    clock, returns = FakeClock(), threading.Event()
    pipeline = Pipeline(name="p", source=SAMPLES, stages=[hanging(returns), Through(name="b")])
    with StreamingRunner(clock=clock).run(pipeline) as run:
        next(iter(run))
        wait_until(lambda: waits_in("forge-source", "put"), "the source is blocked")
        clock.advance(100)
    returns.set()
    assert run.result is not None
    assert (run.result.source.busy, run.result.source.backpressure) == (0, 100)
    verdict = run.result.verdict
    assert (verdict.limit, verdict.stage) == ("stage", "hangs")
    assert verdict.text == "hangs limits the run: a call had not come back when it ended."
    assert verdict.advice == "Give it a timeout; forge ps shows where the calls of a run in progress are."


@pytest.mark.slow
def test_time_in_front_of_a_full_queue_counts_also_where_the_run_ends_it() -> None:
    clock, returns = FakeClock(), threading.Event()
    pipeline = Pipeline(name="p", source=SAMPLES, stages=[Through(name="a", concurrency=2), hanging(returns)])
    with StreamingRunner(clock=clock).run(pipeline) as run:
        next(iter(run))
        for name in ("forge-0-0", "forge-0-1"):
            wait_until(partial(waits_in, name, "put"), "both slots are blocked")
        clock.advance(100)
    returns.set()
    assert run.result is not None
    assert run.result.stages["a"].backpressure == 200


def test_a_consumer_that_stops_in_its_loop_has_held_up_the_results() -> None:
    clock = FakeClock()
    with StreamingRunner(clock=clock).run(Pipeline(name="p", source=range(10_000), stages=[Through(name="a")])) as run:
        next(iter(run))
        wait_until(lambda: waits_in("forge-settle", "put_all"), "results wait")
        clock.advance(100)
    assert run.result is not None
    assert run.result.consumer_wait == 100


def test_a_measurement_in_which_all_time_passes_limits_the_run() -> None:
    clock = FakeClock()

    class Slow(Measurement):
        key, version = "slow", "1"

        def compute(self, sample: Sample) -> int:
            clock.advance(1)
            return 1

    pipeline = chain(Through(name="a"), measurements=[Slow(), Length()])
    result = StreamingRunner(clock=clock).run(pipeline).drain()
    slow = result.measurements[0]
    assert (slow.key, slow.busy, slow.utilization, slow.concurrency) == ("slow", 100, 1.0, 1)
    verdict = judge(dataclasses.replace(result, cpu=0.0), pipeline)
    assert (verdict.limit, verdict.stage, verdict.utilization) == ("measurement", "slow", 1.0)
    assert verdict.text == "The measurement slow limits the run: its one slot was 100% utilized."


def test_the_stage_after_the_last_one_that_was_held_up_limits_the_run() -> None:
    verdict = verdict_on(
        chain(*(Through(name=name, concurrency=4) for name in "abcd")),
        stages=[
            {"backpressure": 30.0, "utilization": 0.1},
            {"backpressure": 20.0, "utilization": 0.95},
            {"backpressure": 1.9, "utilization": 0.9, "retries": 3},
            {"utilization": 0.53},
        ],
        source={"backpressure": 9.0},
    )
    assert (verdict.limit, verdict.stage, verdict.utilization) == ("stage", "c", 0.9)
    assert verdict.text == "c limits the run: its 4 slots were 90% utilized, with 3 retries."
    assert verdict.advice == (
        "It mostly waits: with 8 instead of 4 slots (concurrency) about 1.1 times the throughput, then b limits."
    )


@pytest.mark.parametrize(
    ("following", "effect"),
    [
        (0.2, "about 2 times the throughput."),
        (0.5, "about 2 times the throughput."),
        (0.53, "about 1.9 times the throughput, then parse limits."),
        (0.97, "hardly more throughput, because parse limits next."),
    ],
)
def test_more_slots_give_what_the_next_stage_can_take(following: float, effect: str) -> None:
    verdict = verdict_on(
        chain(Through(name="annotate", concurrency=4), Through(name="parse")),
        stages=[{"utilization": 0.98}, {"utilization": following}],
        source={"backpressure": 9.0},
    )
    assert verdict.stage == "annotate"
    assert verdict.advice == f"It mostly waits: with 8 instead of 4 slots (concurrency) {effect}"


def test_more_slots_give_what_the_source_can_yield() -> None:
    verdict = verdict_on(
        chain(Through(name="a", concurrency=4)),
        stages=[{"utilization": 0.98}],
        source={"busy": 8.0, "backpressure": 2.0},
    )
    assert verdict.advice.endswith("about 1.2 times the throughput, then the source limits.")


def test_more_slots_give_what_the_interpreter_can_compute() -> None:
    verdict = verdict_on(chain(Through(name="a", concurrency=4)), stages=[{"utilization": 0.98}], cpu=6.5)
    assert verdict.advice.endswith("about 1.5 times the throughput, then the interpreter, on its one core, limits.")


def test_larger_batches_are_the_advice_for_a_stage_with_full_ones() -> None:
    verdict = verdict_on(
        chain(ThroughInBatches(name="embed")),
        stages=[{"utilization": 0.98, "executions": 100, "batches": 4}],
        source={"backpressure": 9.0},
    )
    assert verdict.stage == "embed"
    assert verdict.advice == (
        "Raise its batch_size (now 32), which helps if a call takes little longer for it; or with 2 instead of 1 slot "
        "(concurrency) about 2 times the throughput."
    )


def test_longer_waits_are_the_advice_for_a_stage_with_small_batches() -> None:
    verdict = verdict_on(
        chain(ThroughInBatches(name="embed")),
        stages=[{"utilization": 0.98, "executions": 100, "batches": 40}],
        source={"backpressure": 9.0},
    )
    assert verdict.advice.startswith("Its batches had 2.5 of 32 samples on average: raise its max_wait, or with 2 ")


def test_more_slots_are_no_advice_for_a_process_that_computes_all_the_time() -> None:
    verdict = verdict_on(chain(Through(name="a")), stages=[{"utilization": 0.7}], cpu=9.5)
    assert verdict.text == "a limits the run: its one slot was 70% utilized."
    assert verdict.advice == (
        "The process kept 0.9 cores busy, and Python computes on one: more concurrency will not help. "
        "Compute less, or split the input among several processes: on two cores, two give about twice as much."
    )


def test_an_async_stage_waits_even_if_the_process_computes() -> None:
    verdict = verdict_on(chain(ThroughOnTheLoop(name="a", concurrency=8)), stages=[{"utilization": 0.9}], cpu=8.5)
    assert verdict.advice == (
        "It mostly waits: with 16 instead of 8 slots (concurrency) about 1.2 times the throughput, then the "
        "interpreter, on its one core, limits."
    )


def test_a_stage_whose_slots_wait_between_retries_needs_fewer_retries() -> None:
    verdict = verdict_on(
        chain(Through(name="a")), stages=[{"utilization": 0.1, "retries": 1}], source={"backpressure": 9.0}
    )
    assert verdict.text == "a limits the run: its one slot was 10% utilized, with 1 retry."
    assert verdict.advice.startswith("Find the cause of its retries")


def test_the_storage_limits_a_run_whose_last_stage_was_held_up_by_no_measurement() -> None:
    pipeline = chain(Through(name="a"), measurements=[Length()])
    changes: dict[str, Any] = {"stages": [{"backpressure": 5.0}], "measurements": [{"utilization": 0.49}]}
    verdict = verdict_on(pipeline, **changes)
    assert (verdict.limit, verdict.stage, verdict.utilization) == ("storage", None, None)
    changes["measurements"] = [{"utilization": 0.9}]
    verdict = verdict_on(pipeline, **changes)
    assert (verdict.limit, verdict.stage) == ("measurement", "length")
    verdict = verdict_on(pipeline, consumer_wait=9.5, **changes)
    assert (verdict.limit, verdict.stage) == ("consumer", None)
    assert verdict.text == "The loop over the run limits it: results waited for it for 95% of the time."


def test_the_storage_limits_a_run_whose_samples_wait_before_an_idle_first_stage(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/p.db")
    pipeline = Pipeline(name="p", source=SAMPLES, stages=[Through(name="a"), Through(name="b")], storage=storage)
    changes: dict[str, Any] = {"source": {"backpressure": 9.0}, "stages": [{"utilization": 0.2}]}
    verdict = verdict_on(pipeline, **changes)
    assert (verdict.limit, verdict.stage, verdict.utilization) == ("storage", None, None)
    assert verdict.text == "The storage limits the run: new samples waited until they were looked up in it."
    storage.delete("p", [sample.id for sample in SAMPLES])
    changes["stages"][0]["utilization"] = 0.6
    assert verdict_on(pipeline, **changes).stage == "a"
    storage.close()


def test_a_faster_source_gives_what_the_busiest_stage_can_take() -> None:
    verdict = verdict_on(chain(Through(name="a")), stages=[{"utilization": 0.25}], source={"busy": 9.0})
    assert verdict.advice == (
        "A faster source, or several samples per read, gives up to 4 times the throughput, then a limits."
    )


@pytest.mark.parametrize(
    ("runner", "retries", "lost", "advice"),
    [
        ("streaming", 0, 0, "A longer run, with more input, tells more."),
        ("streaming", 2, 0, "Its time went into waits between retries."),
        ("ray", 2, 1, "Its time went into waits between retries."),
        ("ray", 2, 2, "A longer run, with more input, tells more: workers take seconds to start."),
    ],
)
def test_a_run_in_which_nothing_was_busy_tells_nothing(runner: str, retries: int, lost: int, advice: str) -> None:
    stages = [{"utilization": 0.2}, {"utilization": 0.49, "retries": retries, "lost": lost}]
    verdict = verdict_on(chain(Through(name="a"), Through(name="b")), runner=runner, stages=stages)
    assert verdict.limit == "none"
    assert verdict.text == "No verdict: nothing was busy for half of the time: the busiest, b, was 49% utilized."
    assert verdict.advice == advice


def test_a_run_that_failed_has_no_bottleneck() -> None:
    @stage
    def broken(sample: Sample) -> Sample:
        raise ValueError("no")

    run = StreamingRunner().run(Pipeline(name="p", source=SAMPLES, stages=[broken], max_failures=1))
    with pytest.raises(Exception, match="max_failures"):
        run.drain()
    assert run.result is not None
    assert str(run.result.verdict) == "No verdict: the run failed."


def test_a_run_of_nothing_has_no_bottleneck() -> None:
    result = StreamingRunner().run(Pipeline(name="p", source=[])).drain()
    assert str(result.verdict) == "No verdict: nothing was processed."


def test_a_run_that_found_most_of_it_done_says_nothing(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/p.db")
    pipeline = Pipeline(name="p", source=SAMPLES, stages=[Through(name="a")], storage=storage)
    StreamingRunner().run(pipeline).drain()
    result = StreamingRunner().run(pipeline).drain()
    storage.close()
    assert result.verdict.text == "No verdict: 100 of 100 samples were finished by an earlier run."
    assert result.verdict.advice == "A runner with resume=False (forge run --rerun) processes them again."


IN_WORKERS: dict[str, tuple[dict[str, Any], dict[str, Any], str | None, str, str]] = {
    "a stage": (
        {"concurrency": 2},
        {"workers": 2},
        "b",
        "b limits the run: its 2 workers were 90% utilized.",
        "With concurrency=4 about 2 times the throughput; each worker reserves 1 CPU of the cluster.",
    ),
    "resources": (
        {"resources": {"GPU": 0.5}},
        {"workers": 1},
        "b",
        "b limits the run: its one worker was 90% utilized.",
        "With concurrency=2 about 2 times the throughput; each worker reserves 0.5 GPU of the cluster.",
    ),
    "a pool that did not grow": (
        {"concurrency": (1, 3)},
        {"workers": 2},
        "b",
        "b limits the run: its 2 workers were 90% utilized.",
        (
            "It may have 3: the cluster had no room for more, or the run was too short for Ray to start them. More "
            "nodes, or less `resources` for each worker, give room; with 3 workers about 1.5 times the throughput."
        ),
    ),
    "the source": (
        {},
        {"workers": 1, "source": {"busy": 9.5}},
        None,
        "The source limits the run: reading it took 95% of the time.",
        "A faster source, or several samples per read, gives up to 1.1 times the throughput, then b limits.",
    ),
    "the driver": (
        {},
        {"workers": 1, "cpu": 12.0},
        None,
        "The driver limits the run: its process kept 1.2 cores busy, of which Python uses one.",
        "It reads the source, and settles and stores all results: have it read and store less for each sample.",
    ),
}


@pytest.mark.parametrize("name", IN_WORKERS)
def test_the_busiest_part_limits_a_run_in_workers(name: str) -> None:
    settings, given, limit, text, advice = IN_WORKERS[name]
    changes = {"source": {"busy": 4.5, "backpressure": 5.0}, **given}
    workers = changes.pop("workers")
    verdict = verdict_on(
        chain(Through(name="a"), Through(name="b", **settings)),
        runner="ray",
        stages=[{"utilization": 0.3, "workers": 1}, {"utilization": 0.9, "workers": workers}],
        **changes,
    )
    assert (verdict.stage, verdict.text, verdict.advice) == (limit, text, advice)


def test_an_async_stage_in_a_worker_makes_more_calls() -> None:
    verdict = verdict_on(
        chain(ThroughOnTheLoop(name="a", concurrency=8)),
        runner="ray",
        stages=[{"utilization": 0.9, "workers": 1}],
    )
    assert verdict.advice == "With concurrency=16, calls at a time in its worker, about 2 times the throughput."
