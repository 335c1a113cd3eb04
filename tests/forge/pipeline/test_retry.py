"""How often, when and for which errors a call is tried again."""

from __future__ import annotations

import asyncio
import email.utils
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Pipeline, RetryPolicy, Run, Sample, SQLStorage, StageOutcome, StreamingRunner, stage
from forge.errors import ConfigurationError
from forge.execution.item import Item
from forge.execution.stage_executor import StageExecutor
from tests.support.clock import START, FakeClock
from tests.support.http import CLIENTS, running_server
from tests.support.runs import PATIENCE, both_runners, ledger, samples, wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge import Stage
    from forge.runner import Runner

sync_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def flaky(failures: int, error: Callable[[], BaseException], is_async: bool, **settings: Any) -> Stage:
    """A stage whose first calls fail."""
    calls = 0

    def process(sample: Sample) -> Sample:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise error()
        return sample.with_data(calls)

    async def process_async(sample: Sample) -> Sample:
        return process(sample)

    return stage(**{"name": "flaky"} | settings)(process_async if is_async else process)


class Announced(StageExecutor):
    """Remembers what was announced before each wait."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.waits: list[tuple[str | None, str, int, float]] = []

    def before_retry(
        self, stage: Stage, sample: Sample | None, error: BaseException, attempt: int, delay: float
    ) -> None:
        self.waits.append((sample.id if sample else None, str(error), attempt, delay))


def apply(executor: StageExecutor, tested: Stage) -> Any:
    sample = Sample(id="x", data=0)
    if tested.is_async:
        return asyncio.run(executor.apply_async(tested, sample))
    return executor.apply(tested, sample)


@sync_and_async
def test_the_wait_grows_up_to_its_limit(is_async: bool) -> None:
    clock = FakeClock()
    executor = Announced(clock)
    policy = RetryPolicy(max_attempts=6, initial_delay=1, multiplier=3, max_delay=10, jitter=0)
    verdict = apply(executor, flaky(5, lambda: ConnectionError("down"), is_async, retry=policy))
    assert executor.waits == [("x", "down", attempt + 1, delay) for attempt, delay in enumerate([1, 3, 9, 10, 10])]
    assert (verdict.outcome, verdict.attempts, [s.data for s in verdict.samples]) == (StageOutcome.SUCCESS, 6, [6])
    assert (verdict.duration, verdict.busy, clock.monotonic()) == (33, 0, 33)


def test_jitter_takes_a_random_share_away() -> None:
    def delay(jitter: float, random: float) -> float | None:
        policy = RetryPolicy(initial_delay=8, jitter=jitter, random=lambda: random)
        return policy.delay(ConnectionError(), 1)

    assert delay(0, 1) == 8
    assert delay(0.5, 0) == 8
    assert delay(0.5, 0.5) == 6
    assert delay(0.5, 1) == 4
    assert delay(1, 1) == 0
    default = RetryPolicy(initial_delay=8, jitter=0.5)
    assert all(4 <= (default.delay(ConnectionError(), 1) or 0) <= 8 for _ in range(100))


@both_runners
@sync_and_async
def test_the_policy_gives_up_after_its_attempts(runner: Runner, is_async: bool, tmp_path: Path) -> None:
    tested = flaky(9, lambda: ConnectionError("down"), is_async, retry=RetryPolicy(max_attempts=3, initial_delay=0))
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(name="p", source=samples(1), stages=[tested], storage=storage)
    result = runner.run(pipeline).drain()
    [entry] = pipeline.dead_letters.list()
    assert (entry.attempts, entry.error_type, entry.message) == (3, "network_error", "down")
    assert (result.stages[0].retries, result.stages[0].errors, result.stages[0].executions) == (2, 1, 1)
    storage.close()


@both_runners
@sync_and_async
def test_an_error_that_is_not_retriable_fails_at_once(runner: Runner, is_async: bool) -> None:
    tested = flaky(1, lambda: SyntaxError("invalid"), is_async, retry=RetryPolicy(max_attempts=3, initial_delay=0))
    result = runner.run(Pipeline(name="p", source=samples(1), stages=[tested])).drain()
    assert ledger(result) == {"admitted": 1, "failed": 1}
    assert result.stages[0].retries == 0


@both_runners
@sync_and_async
def test_the_policy_says_which_errors_are_retriable(runner: Runner, is_async: bool) -> None:
    policy = RetryPolicy(max_attempts=3, initial_delay=0, retry_on=lambda error: isinstance(error, LookupError))
    tested = flaky(2, lambda: KeyError("found later"), is_async, retry=policy)
    result = runner.run(Pipeline(name="p", source=samples(1), stages=[tested])).drain()
    assert ledger(result) == {"admitted": 1, "ready": 1}
    assert result.stages[0].retries == 2


def test_by_default_no_error_is_retried() -> None:
    result = BatchRunner().run(Pipeline(name="p", source=[1], stages=[flaky(1, ConnectionError, False)])).drain()
    assert ledger(result) == {"admitted": 1, "failed": 1}


@pytest.mark.slow
@both_runners
@sync_and_async
def test_a_timeout_is_retried_like_any_other_error(runner: Runner, is_async: bool) -> None:
    release = threading.Event()
    calls = 0

    def process(sample: Sample) -> Sample:
        nonlocal calls
        calls += 1
        if calls == 1:
            wait(release)
        return sample

    async def process_async(sample: Sample) -> Sample:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return sample

    policy = RetryPolicy(max_attempts=2, initial_delay=0)
    tested = stage(name="slow", timeout=1.0, concurrency=2, retry=policy)(process_async if is_async else process)
    result = runner.run(Pipeline(name="p", source=samples(1), stages=[tested])).drain()
    release.set()
    assert ledger(result) == {"admitted": 1, "ready": 1}
    assert result.stages[0].retries == 1


@both_runners
@sync_and_async
def test_retries_repeat_the_batch_and_then_each_sample_gets_one_attempt_alone(
    runner: Runner, is_async: bool, tmp_path: Path
) -> None:
    calls: list[list[int]] = []

    def process(batch: list[Sample]) -> list[Sample]:
        calls.append([sample.data for sample in batch])
        if 1 in calls[-1]:
            raise ConnectionError("one is down")
        return batch

    async def process_async(batch: list[Sample]) -> list[Sample]:
        return process(batch)

    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(3)]

    policy = RetryPolicy(max_attempts=2, initial_delay=0)
    decorate = stage(name="tested", batch_size=3, max_wait=PATIENCE, retry=policy)
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(
        name="p",
        source=samples(0),
        stages=[fan_out, decorate(process_async if is_async else process)],
        storage=storage,
    )
    result = runner.run(pipeline).drain()
    assert calls == [[0, 1, 2], [0, 1, 2], [0], [1], [2]]
    assert (result.stages[1].successes, result.stages[1].errors, result.stages[1].retries) == (2, 1, 1)
    [entry] = pipeline.dead_letters.list()
    assert (entry.sample_id, entry.attempts, entry.error_type) == ("0#1", 2, "network_error")
    storage.close()


def test_before_the_retry_of_a_batch_no_sample_is_named() -> None:
    executor = Announced(FakeClock())
    policy = RetryPolicy(max_attempts=2, initial_delay=4, jitter=0)
    calls = 0

    @stage(batch_size=1, retry=policy)
    def tested(batch: list[Sample]) -> list[Sample]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError("down")
        return batch

    verdict = executor.apply_batch(tested, [Item(Sample(id="x", data=1), copy_context())])
    assert executor.waits == [(None, "down", 1, 4)]
    assert (verdict.attempts, verdict.duration, verdict.verdicts[0].outcome) == (2, 4, "success")


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
def test_a_servers_retry_after_is_honoured(client: Callable[[str], None]) -> None:
    executor = Announced(FakeClock())
    policy = RetryPolicy(max_attempts=2, initial_delay=1, jitter=0)
    with running_server(retry_after="17") as url:
        paths = iter(["429", "200"])

        @stage(retry=policy)
        def asking(sample: Sample) -> Sample:
            path = next(paths)
            if path == "429":
                client(f"{url}/429/x")
            return sample

        verdict = apply(executor, asking)
    assert (verdict.outcome, verdict.attempts, verdict.duration) == (StageOutcome.SUCCESS, 2, 17)


def test_a_retry_after_that_is_shorter_than_the_wait_changes_nothing_and_one_too_long_gives_up() -> None:
    class BusyError(Exception):
        status = 429

        def __init__(self, retry_after: str) -> None:
            self.headers = {"retry-after": retry_after}

    policy = RetryPolicy(initial_delay=5, jitter=0, max_retry_after=60)
    assert policy.delay(BusyError("2"), 1) == 5
    assert policy.delay(BusyError("60"), 1) == 60
    assert policy.delay(BusyError("61"), 1) is None
    assert policy.delay(BusyError("soon"), 1) == 5
    assert policy.delay(BusyError("9" * 400), 1) is None


def test_a_retry_after_date_is_compared_with_the_clock_of_the_run() -> None:
    executor = Announced(FakeClock())
    date = email.utils.formatdate(START + 25, usegmt=True)
    with running_server(retry_after=date) as url:
        paths = iter(["429", "200"])

        @stage(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=0))
        def asking(sample: Sample) -> Sample:
            if next(paths) == "429":
                CLIENTS["urllib"](f"{url}/429/x")
            return sample

        verdict = apply(executor, asking)
    assert (verdict.outcome, verdict.attempts, verdict.duration) == (StageOutcome.SUCCESS, 2, 25)


@both_runners
@sync_and_async
def test_a_faulty_policy_fails_the_sample_and_not_the_run(runner: Runner, is_async: bool, tmp_path: Path) -> None:
    def faulty(error: BaseException) -> bool:
        raise ZeroDivisionError("the policy's own")

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    tested = flaky(1, LookupError, is_async, retry=RetryPolicy(retry_on=faulty))
    pipeline = Pipeline(name="p", source=samples(1, 2), stages=[tested], storage=storage)
    result = runner.run(pipeline).drain()
    assert (result.outcome, ledger(result)) == ("completed", {"admitted": 2, "ready": 1, "dlq": 1})
    [entry] = pipeline.dead_letters.list()
    assert (entry.error_type, entry.message) == ("ZeroDivisionError", "the policy's own")
    storage.close()


@both_runners
@sync_and_async
def test_an_interrupt_in_the_policy_ends_the_run(runner: Runner, is_async: bool) -> None:
    def interrupted(error: BaseException) -> bool:
        raise KeyboardInterrupt

    tested = flaky(1, LookupError, is_async, retry=RetryPolicy(retry_on=interrupted))
    run = runner.run(Pipeline(name="p", source=samples(1, 2), stages=[tested]))
    with pytest.raises(KeyboardInterrupt):
        run.drain()
    assert run.result is not None
    assert run.result.outcome == "cancelled"


@both_runners
@sync_and_async
def test_the_end_of_the_run_cuts_the_wait_short(
    runner: Runner, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(StageExecutor, "before_retry", lambda *_: waiting.set())
    policy = RetryPolicy(max_attempts=2, initial_delay=3600, max_delay=3600, jitter=0)
    run = runner.run(Pipeline(name="p", source=samples(1), stages=[flaky(1, ConnectionError, is_async, retry=policy)]))
    consumer = threading.Thread(target=list, args=(run,))
    consumer.start()
    wait(waiting)
    run.close()
    consumer.join()
    assert run.result is not None
    assert ledger(run) == {"admitted": 1, "failed": 1}
    [summary] = run.result.stages
    assert (summary.cancelled, summary.errors, summary.retries) == (1, 0, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_attempts": 0}, "RetryPolicy(max_attempts=0): must be a whole number from 1 to 1000000000"),
        ({"max_attempts": 1.5}, "RetryPolicy(max_attempts=1.5): must be a whole number from 1 to 1000000000"),
        ({"max_attempts": True}, "RetryPolicy(max_attempts=True): must be a whole number from 1 to 1000000000"),
        ({"jitter": "0.5"}, "RetryPolicy(jitter='0.5'): must be between 0 and 1"),
        ({"initial_delay": 10**400}, "RetryPolicy(initial_delay=100000000000000000...0000000000000000000): must be a "),
        ({"multiplier": float("inf")}, "RetryPolicy(multiplier=inf): must be a number of at least 1"),
        ({"jitter": 2}, "RetryPolicy(jitter=2): must be between 0 and 1"),
        ({"jitter": float("nan")}, "RetryPolicy(jitter=nan): must be between 0 and 1"),
        ({"initial_delay": -1}, "RetryPolicy(initial_delay=-1): must be a number of seconds, and not negative"),
        ({"max_delay": float("nan")}, "RetryPolicy(max_delay=nan): must be a number of seconds, and not negative"),
        ({"max_retry_after": -5}, "RetryPolicy(max_retry_after=-5): must be a number of seconds, and not negative"),
        ({"multiplier": 0.5}, "RetryPolicy(multiplier=0.5): must be a number of at least 1"),
    ],
)
def test_a_policy_that_makes_no_sense_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("random", "delay"), [(-1.0, 8), (5.0, 4), (float("nan"), 8)])
def test_a_random_number_out_of_range_is_one_at_its_limit(random: float, delay: float) -> None:
    policy = RetryPolicy(initial_delay=8, jitter=0.5, random=lambda: random)
    assert policy.delay(ConnectionError(), 1) == delay


@pytest.mark.parametrize("multiplier", [2, 1000, 1e300, 10**300])
def test_many_attempts_do_not_overflow(multiplier: float) -> None:
    policy = RetryPolicy(max_attempts=10**9, initial_delay=1, multiplier=multiplier, max_delay=30, jitter=0)
    assert policy.delay(ConnectionError(), 10**9 - 1) == 30
    at_once = RetryPolicy(max_attempts=10**9, initial_delay=0, multiplier=multiplier, max_delay=30)
    assert at_once.delay(ConnectionError(), 10**9 - 1) == 0


def test_the_samples_of_a_run_wait_for_each_other_only_as_far_as_slots_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one sample waits for its next attempt, another slot goes on."""
    waiting, others_done = threading.Event(), threading.Event()
    monkeypatch.setattr(StageExecutor, "before_retry", lambda *_: waiting.set())

    class UntilOthersAreDone(FakeClock):
        def wait(self, stop: threading.Event, seconds: float) -> bool:
            wait(others_done)
            return False

    calls = 0

    @stage(concurrency=2, retry=RetryPolicy(max_attempts=2))
    def tested(sample: Sample) -> Sample:
        nonlocal calls
        if sample.data == 0:
            calls += 1
            if calls == 1:
                raise ConnectionError
        else:
            wait(waiting)
        return sample

    run: Run = StreamingRunner(clock=UntilOthersAreDone()).run(
        Pipeline(name="p", source=samples(*range(5)), stages=[tested])
    )
    out = []
    for sample in run:
        out.append(sample.data)
        if len(out) == 4:
            others_done.set()
    assert out == [1, 2, 3, 4, 0]
