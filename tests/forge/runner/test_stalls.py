"""Runs that settle nothing, although their consumer waits."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Pipeline, RetryPolicy, Run, RunResult, Sample, SQLStorage, StreamingRunner, stage
from forge.errors import ConfigurationError
from forge.runner.stalls import Stall, StalledStage, StallReason
from tests.support.clock import START, FakeClock
from tests.support.runs import PATIENCE, samples, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forge.runner import Runner

AFTER = 0.25  # exact, as a float
"""Seconds of the fake clock after which the runs are stalled; looked for four times in as many of the real one."""


def stalled(run: Run, count: int = 1) -> None:
    """Wait until a run has noticed so many stalls."""
    deadline = time.monotonic() + PATIENCE
    while len(run.stalls) < count:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.001)


class InBackground:
    """A run that another thread drains."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.result: RunResult | None = None
        self._thread = threading.Thread(target=self._drain)
        self._thread.start()

    def _drain(self) -> None:
        self.result = self.run.drain()

    def end(self) -> RunResult:
        self._thread.join(PATIENCE)
        assert self.result is not None
        return self.result


@pytest.mark.parametrize("runner", [BatchRunner, StreamingRunner])
def test_a_call_that_does_not_return(
    runner: Callable[..., Runner], storage_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, begun, go_on = FakeClock(), threading.Event(), threading.Event()

    @stage
    def label(sample: Sample) -> Sample:
        if sample.data == "slow":
            begun.set()
            wait(go_on)
        return sample

    storage = SQLStorage(storage_url)
    pipeline = Pipeline(
        name="p", source=samples("fast", "slow", "last"), stages=[label], storage=storage, stall_after=AFTER
    )
    clock.advance(10)
    run = runner(clock=clock).run(pipeline)
    background = InBackground(run)
    wait(begun)
    if runner is StreamingRunner:  # the first one is stored by another thread
        while run.snapshot().ledger.ready < 1:
            time.sleep(0.001)
    clock.advance(AFTER)
    stalled(run)
    [stall] = run.stalls
    assert (stall.started, stall.over) == (START + 10, False)
    assert stall.duration == pytest.approx(AFTER)
    assert (stall.reason, stall.stage) == (StallReason.CALL, "label")
    # It is in the record of the run that goes on, which a killed process leaves behind.
    deadline = time.monotonic() + PATIENCE
    while "stalls" not in (row := storage.runs("p")[0]).record:
        assert time.monotonic() < deadline, "waited in vain"
    assert row.ended is None
    assert row.record["definition"] == pipeline.definition
    assert [(each["reason"], each["over"]) for each in row.record["stalls"]] == [("call", False)]

    clock.advance(1)
    go_on.set()
    result = background.end()
    [stall] = result.stalls
    assert (stall.reason, stall.over) == (StallReason.CALL, True)
    assert stall.duration == pytest.approx(1 + AFTER)
    [row] = storage.runs("p")
    storage.close()
    assert row.record["stalls"] == result.to_dict()["stalls"]
    assert result.ledger.ready == 3
    assert "  stalled for 1.2s in label: calls did not return" in str(result).splitlines()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings[0].startswith("p: nothing settled for 250ms: calls do not return; ")


@pytest.mark.slow
def test_a_run_that_settles_is_not_stalled() -> None:
    clock, turns = FakeClock(), [threading.Event() for _ in range(4)]
    reached = [threading.Event() for _ in range(4)]

    @stage
    def label(sample: Sample) -> Sample:
        reached[sample.data].set()
        wait(turns[sample.data])
        return sample

    pipeline = Pipeline(name="p", source=samples(*range(4)), stages=[label], stall_after=AFTER)
    background = InBackground(BatchRunner(clock=clock).run(pipeline))
    for number in range(4):
        wait(reached[number])
        clock.advance(AFTER * 0.75)
        time.sleep(AFTER / 2)  # two looks at it
        turns[number].set()
    assert background.end().stalls == []


@pytest.mark.slow
def test_each_stall_is_noticed_once() -> None:
    clock, turns = FakeClock(), [threading.Event(), threading.Event()]
    reached = [threading.Event(), threading.Event()]

    @stage
    def label(sample: Sample) -> Sample:
        reached[sample.data].set()
        wait(turns[sample.data])
        return sample

    pipeline = Pipeline(name="p", source=samples(0, 1), stages=[label], stall_after=AFTER)
    run = BatchRunner(clock=clock).run(pipeline)
    background = InBackground(run)
    for number in range(2):
        wait(reached[number])
        clock.advance(2)
        stalled(run, number + 1)
        time.sleep(AFTER)  # four more looks at it
        turns[number].set()
    assert [(each.duration, each.over) for each in background.end().stalls] == [(2, True), (2, True)]


def test_a_source_that_yields_nothing() -> None:
    clock, go_on, asked = FakeClock(), threading.Event(), threading.Event()

    def source() -> Iterator[Sample]:
        asked.set()
        wait(go_on)
        yield Sample(id="a", data=1)

    run = StreamingRunner(clock=clock).run(Pipeline(name="p", source=source, stall_after=AFTER))
    background = InBackground(run)
    wait(asked)
    clock.advance(5)
    stalled(run)
    go_on.set()
    [stall] = background.end().stalls
    assert stall == Stall(
        started=START, duration=5, over=True, reason=StallReason.SOURCE, stage=None, active=0, stages=[]
    )
    assert str(stall) == "nothing settled for 5.0s: the source yields nothing; 0 samples in flight"


class HeldClock(FakeClock):
    """A clock whose waits between attempts last until they are released."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()
        self.release = threading.Event()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.waits.set()
        wait(self.release)
        return super().wait(stop, seconds)

    async def wait_async(self, seconds: float) -> None:
        self.waits.set()
        await asyncio.to_thread(wait, self.release)
        await super().wait_async(seconds)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_calls_that_wait_for_a_retry(is_async: bool) -> None:
    clock = HeldClock()
    failed: set[Any] = set()
    retry = RetryPolicy(max_attempts=2, initial_delay=60, max_delay=60, jitter=0)

    def work(sample: Sample) -> Sample:
        if sample.id not in failed:
            failed.add(sample.id)
            raise TimeoutError
        return sample

    @stage(retry=retry)
    def label(sample: Sample) -> Sample:
        return work(sample)

    @stage(retry=retry, name="label")
    async def label_async(sample: Sample) -> Sample:
        return work(sample)

    used = label_async if is_async else label
    run = BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(1), stages=[used], stall_after=30))
    run.interval = AFTER / 4
    background = InBackground(run)
    wait(clock.waits)
    clock.advance(30)
    stalled(run)
    clock.release.set()
    [stall] = background.end().stalls
    assert (stall.reason, stall.stage, stall.active) == (StallReason.RETRY, "label", 1)
    assert stall.stages == [StalledStage(name="label", calls=1, retries=1, queued=0)]
    assert stall.duration == 90
    assert str(stall) == (
        "nothing settled for 90s: all calls wait for a retry; 1 sample in flight "
        "(label: 1 call in progress, 1 of them waiting for a retry)"
    )
    assert run.executor.retries == []


def test_a_storage_that_does_not_work() -> None:
    clock, reached = FakeClock(), threading.Event()

    @stage
    def label(sample: Sample) -> Sample:
        return sample

    def source() -> Iterator[Sample]:
        reached.set()
        yield Sample(id="a", data=1)

    pipeline = Pipeline(name="p", source=source, stages=[label], storage=SQLStorage("sqlite://"), stall_after=AFTER)
    run = BatchRunner(clock=clock).run(pipeline)
    with run.gate.hold():
        background = InBackground(run)
        wait(reached)
        clock.advance(AFTER)
        stalled(run)
    [stall] = background.end().stalls
    assert stall.reason is StallReason.STORAGE
    assert str(stall).startswith("nothing settled for 250ms: the storage does not work; 1 sample in flight")


@pytest.mark.slow
def test_the_time_of_a_consumer_that_does_not_wait_is_not_the_runs() -> None:
    clock = FakeClock()
    go_on, begun = threading.Event(), threading.Event()

    @stage
    def label(sample: Sample) -> Sample:
        if sample.data == "second":
            begun.set()
            wait(go_on)
        return sample

    pipeline = Pipeline(name="p", source=samples("first", "second"), stages=[label], stall_after=AFTER)
    with BatchRunner(clock=clock).run(pipeline) as run:
        next(run)
        clock.advance(1000)

        def later() -> None:
            wait(begun)
            time.sleep(AFTER)  # four looks at it
            go_on.set()

        thread = threading.Thread(target=later)
        thread.start()
        next(run)
        thread.join()
    assert run.stalls == []


@pytest.mark.slow
@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_wall_clock_that_is_set_makes_no_stall(step: float) -> None:
    clock, go_on, begun = FakeClock(), threading.Event(), threading.Event()

    @stage
    def label(sample: Sample) -> Sample:
        if sample.data == "second":
            begun.set()
            clock.set_back(-step)
            clock.advance(AFTER / 4)
            time.sleep(AFTER)
            go_on.set()
        return sample

    pipeline = Pipeline(name="p", source=samples("first", "second"), stages=[label], stall_after=AFTER)
    assert BatchRunner(clock=clock).run(pipeline).drain().stalls == []


def test_switched_off() -> None:
    clock = FakeClock()

    @stage
    def label(sample: Sample) -> Sample:
        clock.advance(10_000)
        return sample

    run = BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(1, 2), stages=[label], stall_after=None))
    run.interval = 0.001
    assert run.drain().stalls == []


async def _drained(run: Run) -> RunResult:
    return await run.adrain()


def test_an_async_consumer() -> None:
    clock, go_on, begun = FakeClock(), threading.Event(), threading.Event()

    @stage
    def label(sample: Sample) -> Sample:
        begun.set()
        wait(go_on)
        return sample

    run = StreamingRunner(clock=clock).run(Pipeline(name="p", source=samples(1), stages=[label], stall_after=AFTER))

    def later() -> None:
        wait(begun)
        clock.advance(AFTER)
        stalled(run)
        go_on.set()

    thread = threading.Thread(target=later)
    thread.start()
    result = asyncio.run(_drained(run))
    thread.join()
    assert [stall.reason for stall in result.stalls] == [StallReason.CALL]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True])
def test_faulty_settings(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="stall_after must be a positive number of seconds, not "):
        Pipeline(name="p", source=[], stall_after=value)
