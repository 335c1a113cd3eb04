"""What a stage may return, how it is called, and what happens to an attempt that takes too long."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import logging
import sys
import threading
import weakref
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Measurement, Pipeline, RetryPolicy, Run, Sample, Skip, Stage, StreamingRunner, stage
from forge.errors import ConfigurationError, RunCancelled, StageResultError, StageStuckError, StageTimeoutError
from forge.execution import calls
from forge.execution.item import Item
from forge.execution.results import StageOutcome, Verdict
from forge.execution.stage_executor import StageExecutor
from forge.runner.queue import QueueClosed, StageQueue
from tests.support.clock import FakeClock
from tests.support.runs import (
    PATIENCE,
    both_runners,
    every_runner,
    ledger,
    samples,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from forge.runner import Runner

MUST = "it must return a Sample, a Skip or a list of Samples"

sync_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def stage_of(function: Callable[[Any], Any], is_async: bool, **settings: Any) -> Stage:
    """A sync or an async stage that calls the function."""

    async def awaited(argument: Any) -> Any:
        return function(argument)

    return stage(**{"name": "tested"} | settings)(awaited if is_async else function)


def failures(run: Run, monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException | None]:
    """Drain a run; the error that each sample settled with."""
    errors: dict[str, BaseException | None] = {}
    settle = Run.settle

    def noted(run: Run, item: Item, outcome: Any, error: BaseException | None = None) -> bool:
        errors[item.sample.id] = error
        return settle(run, item, outcome, error)

    monkeypatch.setattr(Run, "settle", noted)
    run.drain()
    return errors


@both_runners
def test_a_forgotten_await_is_named(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    async def asked(sample: Sample) -> Sample:
        return sample

    tested = stage_of(lambda sample: asked(sample), is_async=False)  # noqa: PLW0108 - not to be seen as async
    errors = failures(runner.run(Pipeline(name="p", source=samples(0), stages=[tested])), monkeypatch)
    assert str(errors["0"]) == (
        "stage 'tested' returned a coroutine (await it, in an async def); "
        "it must return a Sample, a Skip or a list of Samples"
    )


@both_runners
@sync_and_async
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, f"stage 'tested' returned None (return the sample, or Skip(reason) to leave it out); {MUST}"),
        ("text",
         f"stage 'tested' returned str (return sample.with_data(…) if it is the sample's new data); {MUST}"),
        ({"id": "0"},
         f"stage 'tested' returned dict (return sample.with_data(…) if it is the sample's new data); {MUST}"),
        ([], f"stage 'tested' returned an empty list (return Skip(reason) instead); {MUST}"),
        ((Sample(data=1),), f"stage 'tested' returned a tuple of Samples (return a list); {MUST}"),
        ((number for number in [1]),
         f"stage 'tested' returned a generator (return a list of samples instead of yielding them); {MUST}"),
        ([1],
         ("stage 'tested' returned a list with int at index 0 (return sample.with_data(…) if the list is the sample's "
          f"new data, or sample.child(key, …) for each member that is to become a sample); {MUST}")),
        (Sample(id="other", data=1),
         "stage 'tested' returned sample 'other' for '0'; return a list to make new ones"),
        (Skip(""), "stage 'tested' returned Skip(''); the reason must be a word"),
        ([Sample(id=7, data=1)],  # type: ignore[arg-type]
         "stage 'tested' made a sample with id 7; it must be a string"),
    ],
    ids=["None", "str", "dict", "empty", "tuple", "generator", "no samples", "other id", "no reason", "child id"],
)  # fmt: skip
def test_anything_but_a_sample_a_skip_or_a_list_is_an_error(
    runner: Runner, is_async: bool, returned: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = stage_of(lambda sample: returned, is_async)
    errors = failures(runner.run(Pipeline(name="p", source=samples(0), stages=[tested])), monkeypatch)
    assert isinstance(errors["0"], StageResultError)
    assert str(errors["0"]) == message


class Array:
    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Lazy:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise ValueError("not loaded")


@both_runners
@sync_and_async
@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize(
    "returned",
    [Array, Lazy, lambda: Sample(id=Array(), data=1), lambda: [Sample(id=Array(), data=1)]],  # type: ignore[arg-type]
    ids=["comparison", "class", "id", "id of a child"],
)
def test_a_result_that_raises_is_an_error_like_any_other(
    runner: Runner, is_async: bool, batch_size: int | None, returned: Callable[[], Any]
) -> None:
    def odd(argument: Any) -> Any:
        return [returned() for _ in argument] if batch_size else returned()

    tested = stage_of(odd, is_async, batch_size=batch_size)
    result = runner.run(Pipeline(name="p", source=[1], stages=[tested])).drain()
    assert (result.outcome, result.ledger.failed) == ("completed", 1)


@both_runners
@sync_and_async
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda batch: None, "stage 'tested' returned None for a batch of 1; "),
        (tuple, "stage 'tested' returned tuple for a batch of 1; "),
        (lambda batch: [], "stage 'tested' returned a list of 0 for a batch of 1; "),
        (lambda batch: [*batch, *batch], "stage 'tested' returned a list of 2 for a batch of 1; "),
    ],
    ids=["None", "tuple", "too few", "too many"],
)
def test_a_batch_gives_one_result_for_each_sample_in_order(
    runner: Runner, is_async: bool, returned: Callable[[Any], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = stage_of(returned, is_async, batch_size=4)
    errors = failures(runner.run(Pipeline(name="p", source=samples(0), stages=[tested])), monkeypatch)
    assert isinstance(errors["0"], StageResultError)
    assert str(errors["0"]) == message + "it must return a list with one result for each sample, in order"


@every_runner
@sync_and_async
def test_results_of_a_batch_are_of_every_kind(runner: Runner, is_async: bool) -> None:
    def kinds(batch: list[Sample]) -> list[Any]:
        results: list[Any] = []
        for sample in batch:
            match sample.data % 4:
                case 0:
                    results.append(sample.with_data(sample.data + 100))
                case 1:
                    results.append(Skip("one"))
                case 2:
                    results.append([sample.child("a", 1), sample.child("b", 2)])
                case 3:
                    results.append("nonsense")
        return results

    source = samples(*range(8))
    tested = stage_of(kinds, is_async, batch_size=3, max_wait=0)
    run = runner.run(Pipeline(name="p", source=source, stages=[tested]))
    assert {sample.id: sample.data for sample in run} == {"0": 100, "4": 104, "2#a": 1, "2#b": 2, "6#a": 1, "6#b": 2}
    assert ledger(run) == {"admitted": 8, "derived": 4, "ready": 6, "skipped": 2, "split": 2, "failed": 2}
    assert run.result is not None
    [summary] = run.result.stages
    assert (summary.executions, summary.successes, summary.skips, summary.errors) == (8, 4, 2, 2)
    assert run.result.skips == {("tested", "one"): 2}


@every_runner
@sync_and_async
def test_one_bad_item_of_a_batch_fails_alone(runner: Runner, is_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def picky(batch: list[Sample]) -> list[Sample]:
        calls.append([sample.id for sample in batch])
        for sample in batch:
            if sample.data == 2:
                raise LookupError(sample.id)
        return batch

    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(4)]

    tested = stage_of(picky, is_async, batch_size=4, max_wait=PATIENCE)
    run = runner.run(Pipeline(name="p", source=samples(0), stages=[fan_out, tested]))
    errors = failures(run, monkeypatch)
    assert {key: repr(error) for key, error in errors.items() if error} == {"0#2": "LookupError('0#2')"}
    assert calls == [["0#0", "0#1", "0#2", "0#3"], ["0#0"], ["0#1"], ["0#2"], ["0#3"]]
    assert run.result is not None
    assert (run.result.stages[1].executions, run.result.stages[1].batches, run.result.stages[1].retries) == (4, 1, 0)


def test_executions_count_samples_and_duration_counts_the_batch() -> None:
    clock = FakeClock()

    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(4)]

    @stage(batch_size=4)
    def slow(batch: list[Sample]) -> list[Sample]:
        clock.advance(8)
        return batch

    result = BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(0), stages=[fan_out, slow])).drain()
    summary = result.stages[1]
    assert (summary.executions, summary.batches, summary.busy) == (4, 1, 8)
    assert (summary.p50, summary.p95, summary.p99, summary.max) == (8, 8, 8, 8)
    assert (result.duration, summary.utilization) == (8, 1)


def sizes(runner: Runner, source: Any, **settings: Any) -> list[int]:
    found: list[int] = []

    @stage(**settings)
    def counted(batch: list[Sample]) -> list[Sample]:
        found.append(len(batch))
        return batch

    runner.run(Pipeline(name="p", source=source, stages=[counted])).drain()
    return found


@sync_and_async
def test_a_batch_leaves_at_its_size_and_at_the_sources_end(is_async: bool) -> None:
    assert sizes(StreamingRunner(), samples(*range(7)), batch_size=3, max_wait=PATIENCE) == [3, 3, 1]


@sync_and_async
def test_a_batch_leaves_after_its_wait(is_async: bool) -> None:
    arrived = threading.Event()

    def source() -> Iterator[int]:
        yield 0
        wait(arrived)  # of the first batch, which cannot be full
        yield 1

    found: list[int] = []

    def counted(batch: list[Sample]) -> list[Sample]:
        found.append(len(batch))
        arrived.set()
        return batch

    tested = stage_of(counted, is_async, batch_size=2, max_wait=0.01)
    StreamingRunner().run(Pipeline(name="p", source=source, stages=[tested])).drain()
    assert found == [1, 1]


@both_runners
@sync_and_async
def test_an_attempt_that_takes_too_long_fails_with_a_timeout(
    runner: Runner, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    cancelled: list[str] = []

    def slow(sample: Sample) -> Sample:
        wait(release)
        return sample

    async def slow_async(sample: Sample) -> Sample:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(sample.id)
            raise
        return sample

    tested = stage(name="tested", timeout=0.01)(slow_async if is_async else slow)
    errors = failures(runner.run(Pipeline(name="p", source=samples(0), stages=[tested])), monkeypatch)
    release.set()
    assert isinstance(errors["0"], StageTimeoutError)
    assert str(errors["0"]) == "FunctionStage(name='tested') took longer than its timeout of 0.01 s"
    assert cancelled == (["0"] if is_async else [])


@pytest.mark.slow
@both_runners
def test_the_timeout_covers_one_call_of_a_batch(runner: Runner) -> None:
    release = threading.Event()

    def slow(batch: list[Sample]) -> list[Sample]:
        if batch[0].data == 0:
            wait(release)
        return batch

    tested = stage_of(slow, False, batch_size=1, timeout=1.0, concurrency=2)
    result = runner.run(Pipeline(name="p", source=samples(0, 1, 2), stages=[tested])).drain()
    release.set()
    assert ledger(result) == {"admitted": 3, "ready": 2, "failed": 1}


@pytest.mark.slow
def test_the_result_of_an_abandoned_attempt_is_thrown_away() -> None:
    release, returned = threading.Event(), threading.Event()
    attempts = itertools.count()

    @stage(timeout=1.0, concurrency=2, retry=RetryPolicy(max_attempts=2, initial_delay=0))
    def first_is_late(sample: Sample) -> Sample:
        if next(attempts) == 0:
            wait(release)
            returned.set()
            return sample.with_data("late")
        return sample.with_data("in time")

    run = StreamingRunner().run(Pipeline(name="p", source=samples("x"), stages=[first_is_late]))
    assert [sample.data for sample in run] == ["in time"]
    release.set()
    wait(returned)
    assert ledger(run) == {"admitted": 1, "ready": 1}


@pytest.mark.slow
def test_an_abandoned_attempt_keeps_its_slot_until_it_returns() -> None:
    release, two_others = threading.Event(), threading.Event()
    lock = threading.Lock()
    others = 0

    @stage(timeout=1.0, concurrency=2)
    def slow(sample: Sample) -> Sample:
        nonlocal others
        if sample.data == 0:
            wait(release)
            return sample
        with lock:
            others += 1
            if others == 2:
                two_others.set()
        two_others.wait(0.02)  # gives a second one the time to come in, if it could
        with lock:
            others -= 1
        return sample

    result = StreamingRunner().run(Pipeline(name="p", source=samples(*range(12)), stages=[slow])).drain()
    assert ledger(result) == {"admitted": 12, "ready": 11, "failed": 1}
    assert not two_others.is_set()
    release.set()


@both_runners
@pytest.mark.parametrize("what", ["stage", "measurement"])
def test_a_stage_whose_slots_are_all_held_by_abandoned_attempts_fails_the_run(runner: Runner, what: str) -> None:
    release = threading.Event()

    def stuck(sample: Sample) -> Sample:
        wait(release)
        return sample

    class Stuck(Measurement):
        key, timeout = "stuck", 0.01

        def compute(self, sample: Sample) -> Any:
            return stuck(sample)

    if what == "stage":
        pipeline = Pipeline(name="p", source=samples(*range(9)), stages=[stage_of(stuck, False, timeout=0.01)])
        who = "FunctionStage(name='tested')"
    else:
        pipeline = Pipeline(name="p", source=samples(*range(9)), measurements=[Stuck()])
        who = "Stuck(key='stuck', version='1')"
    run = runner.run(pipeline)
    with pytest.raises(StageStuckError) as caught:
        run.drain()
    release.set()
    assert str(caught.value) == (
        f"{who}: 1 calls ran into the timeout of 0.01 s and have not returned since; no slot is left to go on with"
    )
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type) == ("failed", "forge.errors.StageStuckError")
    assert run.result.ledger.active == run.result.ledger.imbalance == run.result.ledger.ready == 0


@both_runners
@pytest.mark.parametrize("what", ["stage", "batch", "measurement"])
def test_an_async_call_that_timed_out_keeps_its_slot_until_it_has_cleaned_up(runner: Runner, what: str) -> None:
    active = most = cleaned = 0

    async def slow(argument: Any) -> Any:
        nonlocal active, most, cleaned
        active += 1
        most = max(most, active)
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            for _ in range(100):  # far more turns of the loop than the next call needs to begin
                await asyncio.sleep(0)
            active -= 1
            cleaned += 1

    class Slow(Measurement):
        key, timeout = "slow", 0.01

        async def compute(self, sample: Sample) -> Any:
            return await slow(sample)

    parts: dict[str, Any] = {
        "stage": {"stages": [stage(timeout=0.01)(slow)]},
        "batch": {"stages": [stage(timeout=0.01, batch_size=1)(slow)]},
        "measurement": {"measurements": [Slow()]},
    }
    result = runner.run(Pipeline(name="p", source=samples(*range(4)), **parts[what])).drain()
    assert ledger(result) == {"admitted": 4, "failed": 4}
    # The last one is left to clean up although the run ends.
    assert (most, active, cleaned) == (1, 0, 4)


@pytest.mark.slow
@both_runners
def test_async_calls_that_never_end_fail_the_run(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "CLEAN_UP", 0.02)
    released = False

    @stage(timeout=0.01)
    async def stubborn(sample: Sample) -> Sample:
        while not released:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return sample

    run = runner.run(Pipeline(name="p", source=samples(*range(3)), stages=[stubborn]))
    with pytest.raises(StageStuckError, match=r"1 calls ran into the timeout of 0\.01 s and have not returned since"):
        run.drain()
    released = True
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance) == ("failed", 0)


@both_runners
@pytest.mark.parametrize("seconds", [1e10, 1e300, sys.maxsize])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_times_beyond_what_threads_can_wait_are_no_limit(runner: Runner, seconds: float, is_async: bool) -> None:
    def same(argument: Any) -> Any:
        return argument

    timed = stage_of(same, is_async, name="timed", timeout=seconds)
    waiting = stage_of(same, is_async, name="waiting", batch_size=2, max_wait=seconds, latency_budget=seconds)
    result = runner.run(Pipeline(name="p", source=samples(1, 2, 3), stages=[timed, waiting])).drain()
    assert ledger(result) == {"admitted": 3, "ready": 3}


def test_more_threads_than_the_system_allows_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name == "forge-0-5":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    run = StreamingRunner().run(Pipeline(name="p", source=samples(1), stages=[stage(concurrency=9)(lambda s: s)]))
    with pytest.raises(RuntimeError) as caught:
        run.drain()
    assert caught.value.__notes__ == [
        "raised for 'forge-0-5': each sync stage has as many threads as its `concurrency`"
    ]
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance) == ("failed", 0)


def test_a_stage_with_slots_held_by_calls_that_are_not_late_is_not_stuck() -> None:
    executor = StageExecutor()
    inside, release = threading.Event(), threading.Event()

    def held(sample: Sample) -> Sample:
        if sample.data == 0:
            inside.set()
            wait(release)
        return sample

    patient = stage_of(held, False, timeout=PATIENCE, concurrency=1)
    first = threading.Thread(target=executor.apply, args=(patient, Sample(id="0", data=0)))
    first.start()
    wait(inside)
    release.set()
    assert executor.apply(patient, Sample(id="1", data=1)).outcome == StageOutcome.SUCCESS
    first.join()
    executor.close()


class Lifecycle(Stage):
    def __init__(self, log: list[str], fails: str = "", **settings: Any) -> None:
        super().__init__(**settings)
        self.log = log
        self.fails = fails

    def _note(self, what: str) -> None:
        self.log.append(f"{what} {self.name}")
        if what == self.fails:
            raise OSError(f"{what} of {self.name}")

    def setup(self) -> None:
        self._note("setup")

    def process(self, sample: Sample) -> Sample:
        return sample

    def close(self) -> None:
        self._note("close")


class AsyncLifecycle(Lifecycle):
    async def setup(self) -> None:  # type: ignore[override]
        self.loop = asyncio.get_running_loop()
        self._note("setup")

    async def process(self, sample: Sample) -> Sample:  # type: ignore[override]
        assert asyncio.get_running_loop() is self.loop
        return sample

    async def close(self) -> None:  # type: ignore[override]
        assert asyncio.get_running_loop() is self.loop
        self._note("close")


@every_runner
def test_setup_and_close_are_called_once_a_run(runner: Runner) -> None:
    log: list[str] = []
    stages = [Lifecycle(log, name="a", concurrency=3), AsyncLifecycle(log, name="b", concurrency=3)]
    pipeline = Pipeline(name="p", source=samples(*range(9)), stages=stages)
    for _ in range(2):
        assert runner.run(pipeline).drain().ledger.ready == 9
        assert log == ["setup a", "setup b", "close b", "close a"]
        log.clear()


@every_runner
@pytest.mark.parametrize("kind", [Lifecycle, AsyncLifecycle])
def test_an_error_in_setup_closes_what_was_set_up_and_is_raised_at_the_first_pull(
    runner: Runner, kind: type[Lifecycle]
) -> None:
    log: list[str] = []
    read: list[int] = []
    stages = [Lifecycle(log, name="a"), kind(log, "setup", name="b"), Lifecycle(log, name="c")]

    def source() -> Iterator[int]:
        read.append(1)
        yield 1

    run = runner.run(Pipeline(name="p", source=source, stages=stages))
    with pytest.raises(OSError, match="setup of b") as raised:
        next(run)
    assert raised.value.__notes__ == [f"raised by setup() of stage {stages[1].name!r}, so the run has ended"]
    assert log == ["setup a", "setup b", "close a"]
    assert read == []
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type, run.result.error) == ("failed", "OSError", "setup of b")
    assert list(run) == []


@both_runners
@pytest.mark.parametrize("kind", [Lifecycle, AsyncLifecycle])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_setup_cancels_the_run(
    runner: Runner, kind: type[Lifecycle], error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def interrupted(self: Lifecycle, what: str) -> None:
        log.append(f"{what} {self.name}")
        if self.fails == what:
            raise error

    monkeypatch.setattr(Lifecycle, "_note", interrupted)
    run = runner.run(Pipeline(name="p", source=[1], stages=[Lifecycle(log, name="a"), kind(log, "setup", name="b")]))
    with pytest.raises(error):
        run.drain()
    assert log == ["setup a", "setup b", "close a"]
    assert run.result is not None
    assert run.result.outcome == "cancelled"


@every_runner
@pytest.mark.parametrize("kind", [Lifecycle, AsyncLifecycle])
def test_an_error_in_close_fails_the_run_when_everything_else_went_well(
    runner: Runner, kind: type[Lifecycle], caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    stages = [Lifecycle(log, name="a"), kind(log, "close", name="b")]
    run = runner.run(Pipeline(name="p", source=samples(1), stages=stages))
    with caplog.at_level(logging.CRITICAL, "forge"), pytest.raises(OSError, match="close of b"):
        run.drain()
    assert log == ["setup a", "setup b", "close b", "close a"]
    assert ledger(run) == {"admitted": 1, "ready": 1}
    assert run.result is not None
    assert (run.result.outcome, run.result.error) == ("failed", "close of b")


@sync_and_async
def test_a_stage_runs_as_many_calls_at_the_same_time_as_it_may(is_async: bool) -> None:
    together = threading.Barrier(4, timeout=PATIENCE)
    arrived = 0
    complete = [asyncio.Event(), asyncio.Event()]

    def sync_together(sample: Sample) -> Sample:
        together.wait()
        return sample

    async def async_together(sample: Sample) -> Sample:
        nonlocal arrived
        four = complete[arrived // 4]
        arrived += 1
        if arrived % 4 == 0:
            four.set()
        await four.wait()
        return sample

    tested = stage(name="tested", concurrency=4)(async_together if is_async else sync_together)
    result = StreamingRunner().run(Pipeline(name="p", source=samples(*range(8)), stages=[tested])).drain()
    assert result.ledger.ready == 8
    assert result.stages[0].concurrency == 4


@sync_and_async
def test_a_stage_never_runs_more_calls_than_it_may(is_async: bool) -> None:
    lock = threading.Lock()
    inside, most = 0, 0

    def enter(change: int) -> None:
        nonlocal inside, most
        with lock:
            inside += change
            most = max(most, inside)

    def sync_counted(sample: Sample) -> Sample:
        enter(1)
        enter(-1)
        return sample

    async def async_counted(sample: Sample) -> Sample:
        enter(1)
        await asyncio.sleep(0)
        enter(-1)
        return sample

    tested = stage(name="tested", concurrency=2)(async_counted if is_async else sync_counted)
    StreamingRunner().run(Pipeline(name="p", source=samples(*range(200)), stages=[tested])).drain()
    assert most <= 2


def test_stages_work_at_the_same_time() -> None:
    met = threading.Barrier(2, timeout=PATIENCE)

    @stage
    def first(sample: Sample) -> Sample:
        if sample.data == 1:
            met.wait()
        return sample

    @stage
    def second(sample: Sample) -> Sample:
        if sample.data == 0:
            met.wait()
        return sample

    result = StreamingRunner().run(Pipeline(name="p", source=samples(0, 1), stages=[first, second])).drain()
    assert result.ledger.ready == 2


def test_the_batch_runner_takes_one_sample_at_a_time() -> None:
    log: list[tuple[str, str]] = []

    @stage(concurrency=4)
    def first(sample: Sample) -> Sample:
        log.append(("first", sample.id))
        return sample

    @stage(concurrency=4)
    async def second(sample: Sample) -> Sample:
        log.append(("second", sample.id))
        return sample

    BatchRunner().run(Pipeline(name="p", source=samples(0, 1, 2), stages=[first, second])).drain()
    assert log == [(name, sample_id) for sample_id in "012" for name in ("first", "second")]


@pytest.mark.parametrize("last_is_async", [False, True], ids=["sync", "async"])
@sync_and_async
def test_a_full_queue_stops_the_stage_before_it_and_finally_the_source(is_async: bool, last_is_async: bool) -> None:
    release = threading.Event()
    read: list[int] = []
    passed: list[str] = []
    enough = threading.Event()

    def source() -> Iterator[Sample]:
        for number in range(40):
            read.append(number)
            # One in `last`, two in front of it, one in the hands of `first`, two in front of it, one in the reader's.
            if len(read) == 7:
                enough.set()
            yield Sample(id=str(number), data=number)

    def note(sample: Sample) -> Sample:
        passed.append(sample.id)
        return sample

    def blocked(sample: Sample) -> Sample:
        wait(release)
        return sample

    async def blocked_async(sample: Sample) -> Sample:
        await asyncio.to_thread(wait, release)
        return sample

    first = stage_of(note, is_async, name="first", queue_size=2)
    last = stage(name="last", queue_size=2)(blocked_async if last_is_async else blocked)
    run = StreamingRunner().run(Pipeline(name="p", source=source, stages=[first, last]))
    ready: list[str] = []
    consumer = threading.Thread(target=lambda: ready.extend(sample.id for sample in run))
    consumer.start()
    wait(enough)
    # Nothing moves any more, however long one waits: everything that can be held is held.
    while len(passed) < 4 or run.snapshot().stages[1].queue_depth < 2:
        assert consumer.is_alive()
    snapshot = run.snapshot()
    assert [(each.name, each.queue_depth, each.queue_limit) for each in snapshot.stages] == [
        ("first", 2, 2),
        ("last", 2, 2),
    ]
    assert (len(read), passed) == (7, ["0", "1", "2", "3"])
    release.set()
    consumer.join()
    assert sorted(map(int, ready)) == list(range(40))
    assert run.result is not None
    assert run.result.stages[0].backpressure > 0


def item(number: int) -> Item:
    return Item(Sample(id=str(number), data=number), copy_context())


def test_a_queue_holds_as_many_as_it_may() -> None:
    queue = StageQueue(2, stage="s")
    assert (queue.put(item(0)), queue.put(item(1)), queue.depth, queue.limit) == (0.0, 0.0, 2, 2)
    putting = threading.Thread(target=queue.put, args=(item(2),))
    putting.start()
    taken = [queue.get() for _ in range(3)]
    putting.join()
    assert [each.sample.data for each in taken if each] == [0, 1, 2]
    with pytest.raises(TimeoutError):
        queue.get(timeout=0)
    queue.put(item(3))
    queue.finish()
    last = queue.get()
    assert last is not None
    assert (last.sample.data, queue.get()) == (3, None)
    queue.close()
    with pytest.raises(QueueClosed):
        queue.get()
    with pytest.raises(QueueClosed):
        queue.put(item(4))


def test_who_found_a_queue_full_goes_on_when_half_of_it_is_free() -> None:
    async def main() -> None:
        queue = StageQueue(4)
        for number in range(4):
            queue.put(item(number))
        putting = asyncio.create_task(queue.put_async(item(4)))
        await asyncio.sleep(0)
        queue.get()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (putting.done(), queue.depth) == (False, 3)
        queue.get()
        async with asyncio.timeout(PATIENCE):
            await putting
        assert queue.depth == 3

    asyncio.run(main())


def take_waiting(queue: StageQueue, most: int, patience: float) -> tuple[threading.Thread, list[int]]:
    """A thread that takes what waits, and where it puts that."""
    taken: list[int] = []

    def take() -> None:
        taken.extend(each.sample.data for each in queue.take_waiting(most, patience))

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return thread, taken


def test_who_has_patience_takes_many_together() -> None:
    queue = StageQueue(10)
    thread, taken = take_waiting(queue, 3, patience=10 * PATIENCE)
    for number in range(3):
        queue.put(item(number))
    thread.join(PATIENCE)
    assert taken == [0, 1, 2]


def test_patience_ends() -> None:
    queue = StageQueue(10)
    queue.put(item(0))
    thread, taken = take_waiting(queue, 3, patience=0.001)
    thread.join(PATIENCE)
    assert taken == [0]


def test_patience_ends_with_the_queue() -> None:
    queue = StageQueue(10)
    queue.put(item(0))
    thread, taken = take_waiting(queue, 3, patience=10 * PATIENCE)
    queue.finish()
    thread.join(PATIENCE)
    assert taken == [0]


@pytest.mark.parametrize("side", ["put", "get", "take_waiting", "wait_for_taker"])
def test_closing_a_queue_wakes_who_waits(side: str) -> None:
    queue = StageQueue(1)
    if side in ("put", "take_waiting"):
        queue.put(item(0))
    sides: dict[str, Callable[[], Any]] = {
        "put": lambda: queue.put(item(1)),
        "get": queue.get,
        "take_waiting": lambda: queue.take_waiting(2, 10 * PATIENCE),
        "wait_for_taker": queue.wait_for_taker,
    }
    closed: list[bool] = []

    def wait_in_vain() -> None:
        with pytest.raises(QueueClosed):
            sides[side]()
        closed.append(True)

    thread = threading.Thread(target=wait_in_vain)
    thread.start()
    queue.close()
    thread.join(PATIENCE)
    assert closed == [True]


def test_a_wake_up_that_comes_to_a_cancelled_task_is_passed_on() -> None:
    async def main() -> int:
        queue = StageQueue(1)
        first, second = asyncio.create_task(queue.get_async()), asyncio.create_task(queue.get_async())
        await asyncio.sleep(0)
        queue.put(item(7))
        first.cancel()
        async with asyncio.timeout(PATIENCE):
            taken = await second
        assert taken is not None
        return int(taken.sample.data)

    assert asyncio.run(main()) == 7


def test_who_waited_long_enough_is_not_woken_instead_of_who_waits() -> None:
    queue = StageQueue(1)
    with pytest.raises(TimeoutError):
        queue.get(timeout=0)
    taken: list[Item | None] = []
    taking = threading.Thread(target=lambda: taken.append(queue.get()), daemon=True)
    taking.start()
    queue.wait_for_taker()
    queue.put(item(7))
    taking.join(PATIENCE)
    assert [each.sample.data for each in taken if each] == [7]


def test_a_queue_that_discards_holds_nobody_up() -> None:
    queue = StageQueue(1)
    queue.put(item(0))
    putting = threading.Thread(target=queue.put, args=(item(1),), daemon=True)
    putting.start()
    queue.discard()
    putting.join(PATIENCE)
    assert not putting.is_alive()
    queue.put(item(2))
    queue.wait_for_taker()
    queue.finish()
    assert (queue.get(), queue.depth) == (None, 0)
    queue.close()
    with pytest.raises(QueueClosed):
        queue.put(item(3))
    with pytest.raises(QueueClosed):
        queue.wait_for_taker()


def test_threads_and_tasks_wait_at_the_same_queue() -> None:
    queue = StageQueue(3)
    taken: list[int] = []

    async def take() -> None:
        while (got := await queue.get_async()) is not None:
            taken.append(got.sample.data)

    async def put(numbers: range) -> None:
        for number in numbers:
            await queue.put_async(item(number))

    async def main() -> None:
        takers = [asyncio.create_task(take()) for _ in range(2)]
        await put(range(100))
        await asyncio.to_thread(putting.join)
        queue.finish()
        await asyncio.gather(*takers)

    def take_sync() -> None:
        while (got := queue.get()) is not None:
            taken.append(got.sample.data)

    putting = threading.Thread(target=lambda: [queue.put(item(number)) for number in range(100, 200)])
    taking = threading.Thread(target=take_sync)
    putting.start()
    taking.start()
    asyncio.run(main())
    taking.join()
    assert sorted(taken) == list(range(200))


def test_the_executor_works_outside_of_a_run() -> None:
    executor = StageExecutor()
    sample = Sample(id="x", data=1)
    verdict = executor.apply(stage_of(lambda s: s.with_data(2), False), sample)
    assert (verdict.outcome, [s.data for s in verdict.samples], verdict.attempts) == (StageOutcome.SUCCESS, [2], 1)
    verdict = asyncio.run(executor.apply_async(stage_of(lambda s: Skip("so"), True), sample))
    assert (verdict.outcome, verdict.skip_reason) == (StageOutcome.SKIP, "so")
    executor.close()


@sync_and_async
@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_sample_is_gone_with_its_verdict(is_async: bool, timeout: float | None) -> None:
    """Nor does the thread that made the call keep it until the next one comes."""

    class Data:
        pass

    executor, tested = StageExecutor(), stage_of(lambda sample: sample, is_async, timeout=timeout)

    def verdict_of(sample: Sample) -> Verdict:
        return asyncio.run(executor.apply_async(tested, sample)) if is_async else executor.apply(tested, sample)

    gc.disable()
    try:
        data = Data()
        kept = weakref.ref(data)
        assert verdict_of(Sample(id="x", data=data)).outcome is StageOutcome.SUCCESS
        del data
        assert kept() is None
    finally:
        gc.enable()
        executor.close()


@sync_and_async
@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_an_error_is_gone_with_its_verdict(is_async: bool, batch_size: int | None, timeout: float | None) -> None:
    """It leads to the frames that it came through: none of them leads back, so it takes no garbage collector."""

    class RefusedError(Exception):
        pass

    def refuse(_: Any) -> Any:
        raise RefusedError

    executor, failing = StageExecutor(), stage_of(refuse, is_async, batch_size=batch_size, timeout=timeout)
    items = [Item(Sample(id=str(number), data=number), copy_context()) for number in range(2)]

    def verdicts() -> Sequence[Verdict]:
        if batch_size:
            if is_async:
                return asyncio.run(executor.apply_batch_async(failing, items)).verdicts
            return executor.apply_batch(failing, items).verdicts
        if is_async:
            return [asyncio.run(executor.apply_async(failing, items[0].sample))]
        return [executor.apply(failing, items[0].sample)]

    gc.disable()
    try:
        errors = [weakref.ref(verdict.error) for verdict in verdicts() if verdict.error is not None]
        assert len(errors) == (batch_size or 1)
        assert [error() for error in errors] == [None] * len(errors)
    finally:
        gc.enable()
        executor.close()


@pytest.mark.slow
@pytest.mark.parametrize("runner", [BatchRunner(), StreamingRunner()], ids=["batch", "streaming"])
@sync_and_async
def test_a_batch_that_fails_is_not_taken_apart_when_the_run_is_over(runner: Runner, is_async: bool) -> None:
    calls: list[int] = []
    inside, go_on = threading.Event(), threading.Event()

    def failing(batch: list[Sample]) -> list[Sample]:
        calls.append(len(batch))
        inside.set()
        wait(go_on)
        raise ValueError

    async def failing_async(batch: list[Sample]) -> list[Sample]:
        calls.append(len(batch))
        inside.set()
        await asyncio.Event().wait()
        return batch

    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(4)]

    tested = stage(name="tested", batch_size=4, max_wait=PATIENCE)(failing_async if is_async else failing)
    run = runner.run(Pipeline(name="p", source=samples(0), stages=[fan_out, tested]))
    consumer = threading.Thread(target=list, args=(run,))
    consumer.start()
    wait(inside)
    run.close()
    go_on.set()
    consumer.join()
    assert calls == [4]
    assert ledger(run) == {"admitted": 1, "derived": 4, "split": 1, "failed": 4} or ledger(run) == {
        "admitted": 1,
        "derived": 4,
        "failed": 5,  # the batch runner settles a family together
    }


def test_settings_are_checked_where_a_stage_is_made() -> None:
    def plain(sample: Sample) -> Sample:
        return sample

    def error(make: Callable[[], Any]) -> str:
        with pytest.raises(ConfigurationError) as caught:
            make()
        return str(caught.value)

    assert error(lambda: stage(speed=3)(plain)) == (
        "FunctionStage(speed=…): no such setting; there are name, version, concurrency, resources, timeout, retry, "
        "latency_budget, batch_size, max_wait, queue_size, provider"
    )
    slots = "must be a whole number from 1 to 100000, not"
    assert error(lambda: stage(concurrency=0)(plain)) == f"stage 'plain': concurrency {slots} 0"
    assert error(lambda: stage(concurrency=None)(plain)) == f"stage 'plain': concurrency {slots} None"
    assert error(lambda: stage(concurrency=100_001)(plain)) == f"stage 'plain': concurrency {slots} 100001"
    whole = "must be a whole number from 1 to 1000000000, not"
    assert error(lambda: stage(queue_size=2**31)(plain)) == f"stage 'plain': queue_size {whole} 2147483648"
    assert error(lambda: stage(batch_size=1.5)(plain)) == f"stage 'plain': batch_size {whole} 1.5"
    assert error(lambda: stage(queue_size=True)(plain)) == f"stage 'plain': queue_size {whole} True"
    seconds = "must be a positive number of seconds, not"
    assert error(lambda: stage(timeout=0)(plain)) == f"stage 'plain': timeout {seconds} 0"
    assert error(lambda: stage(timeout=float("nan"))(plain)) == f"stage 'plain': timeout {seconds} nan"
    assert error(lambda: stage(timeout=float("inf"))(plain)) == f"stage 'plain': timeout {seconds} inf"
    assert error(lambda: stage(timeout=10**400)(plain)).startswith(f"stage 'plain': timeout {seconds} 1000000")
    assert error(lambda: stage(timeout=10**5000)(plain)) == f"stage 'plain': timeout {seconds} one of type int"
    assert error(lambda: stage(latency_budget="1")(plain)) == f"stage 'plain': latency_budget {seconds} '1'"
    assert error(lambda: stage(max_wait=-1)(plain)) == f"stage 'plain': max_wait {seconds} -1"
    assert error(lambda: stage(retry=3)(plain)) == "stage 'plain': retry must be a RetryPolicy, not 3"
    assert error(lambda: stage(version=2)(plain)) == "stage 'plain': version must be a string, not 2"
    assert error(lambda: stage(name=2)(plain)) == "stage 2: name must be a string, not 2"
    assert error(lambda: stage(8)) == (  # type: ignore[call-overload]
        "@stage needs a function, not 8; settings are keyword arguments"
    )
    assert stage(max_wait=0)(plain).max_wait == 0

    class Empty(Stage):
        pass

    assert error(Empty) == "stage 'Empty': Empty has no process()"
    assert error(lambda: Empty(batch_size=2)) == "stage 'Empty': Empty has no process_batch()"


def test_a_decorated_function_stays_a_function() -> None:
    @stage
    def documented(sample: Sample) -> Sample:
        """What it does."""
        return sample

    sample = Sample(data=1)
    assert documented(sample) is sample
    assert (documented.name, documented.__doc__, documented.__name__) == (
        "documented",
        "What it does.",
        "documented",
    )
    assert repr(documented) == "FunctionStage(name='documented')"


def test_what_is_callable_can_be_a_stage() -> None:
    def add(number: int, sample: Sample) -> Sample:
        return sample.with_data(sample.data + number)

    adding = stage(functools.partial(add, 5))
    assert adding.name == "partial"
    [sample] = BatchRunner().run(Pipeline(name="p", source=[1], stages=[adding]))
    assert sample.data == 6


@both_runners
def test_a_stage_class_can_be_a_batch_stage(runner: Runner) -> None:
    class Total(Stage):
        batch_size = 10
        max_wait = 0.0

        async def process_batch(self, batch: Sequence[Sample]) -> list[Any]:
            return [sample.with_data(sample.data + 1) for sample in batch]

    run = runner.run(Pipeline(name="p", source=samples(1, 2, 3), stages=[Total()]))
    assert sorted(sample.data for sample in run) == [2, 3, 4]


@both_runners
@sync_and_async
def test_a_stages_own_cancelled_error_fails_the_sample(
    runner: Runner, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(sample: Sample) -> Sample:
        if sample.data == 1:
            raise asyncio.CancelledError
        return sample

    run = runner.run(Pipeline(name="p", source=samples(0, 1, 2), stages=[stage_of(cancelled, is_async)]))
    errors = failures(run, monkeypatch)
    assert isinstance(errors.pop("1"), asyncio.CancelledError)
    assert errors == {"0": None, "2": None}
    assert run.result is not None
    assert run.result.outcome == "completed"
    assert (run.result.stages[0].errors, run.result.stages[0].cancelled) == (1, 0)


@pytest.mark.slow
def test_run_cancelled_is_what_in_flight_samples_settle_with(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[BaseException | None] = []
    settle = Run.settle

    def noted(run: Run, item: Item, outcome: Any, error: BaseException | None = None) -> bool:
        errors.append(error)
        return settle(run, item, outcome, error)

    monkeypatch.setattr(Run, "settle", noted)
    inside, release = threading.Event(), threading.Event()

    @stage
    def held(sample: Sample) -> Sample:
        inside.set()
        wait(release)
        return sample

    run = StreamingRunner().run(Pipeline(name="p", source=samples(1), stages=[held]))
    consumer = threading.Thread(target=list, args=(run,))
    consumer.start()
    wait(inside)
    run.close()
    release.set()
    consumer.join()
    assert [type(error) for error in errors] == [RunCancelled]
