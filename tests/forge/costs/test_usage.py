"""Usage that is reported goes to the sample that is being processed, and is shared exactly where there are several."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context
from decimal import Context, Decimal, getcontext, setcontext
from typing import Any

import pytest

from forge import (
    BatchRunner,
    Charge,
    Measurement,
    Pipeline,
    Price,
    Prices,
    RetryPolicy,
    RunResult,
    Sample,
    Stage,
    Usage,
    Use,
    stage,
    usage,
)
from forge.costs.usage import Spender, UsageScope
from forge.errors import ConfigurationError
from forge.runner import Runner
from forge.runner import run as runs
from forge.support.money import money_shares, shares
from tests.support.runs import both_runners, samples


def drain(runner: Runner, *stages: Stage, measurements: Sequence[Measurement] = (), count: int = 1) -> RunResult:
    pipeline = Pipeline(
        name="p",
        source=samples(*range(count)),
        stages=stages,
        measurements=measurements,
        prices=Prices(public=False),
    )
    return runner.run(pipeline).drain()


def report(**changes: Any) -> None:
    usage.report(**{"provider": "openai", "model": "m", "amount": Decimal("0.10"), **changes})


def test_outside_of_a_pipeline_it_does_nothing() -> None:
    report(input_tokens=10)


@both_runners
def test_everything_that_was_said_is_in_the_result(runner: Runner) -> None:
    @stage
    def label(sample: Sample) -> Sample:
        report(input_tokens=100, cached_input_tokens=40, output_tokens=7, calls=2, amount=Decimal("0.000123"))
        return sample

    [charge] = drain(runner, label, count=3).cost.charges
    assert charge == Charge(
        kind=Spender.STAGE,
        name="label",
        provider="openai",
        model="m",
        use=Use.USEFUL,
        calls=6,
        input_tokens=300,
        cached_input_tokens=120,
        output_tokens=21,
        amount=Decimal("0.000369"),
        unpriced=0,
    )


def in_a_thread_with_the_context(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=contextvars.copy_context().run, args=(function,))
    thread.start()
    thread.join()


@both_runners
def test_it_is_reached_from_wherever_the_context_reaches(runner: Runner) -> None:
    @stage
    def sync(sample: Sample) -> Sample:
        report()
        in_a_thread_with_the_context(report)
        return sample

    @stage(timeout=60)
    def sync_with_a_timeout(sample: Sample) -> Sample:
        report()
        return sample

    @stage
    async def asynchronous(sample: Sample) -> Sample:
        report()
        await asyncio.to_thread(report)
        await asyncio.gather(*(asyncio.create_task(later()) for _ in range(3)))
        return sample

    async def later() -> None:
        await asyncio.sleep(0)
        report()

    class Sync(Measurement):
        key = "sync"

        def compute(self, sample: Sample) -> int:
            report()
            return 1

    class Async(Measurement):
        key = "async"

        async def compute(self, sample: Sample) -> int:
            report()
            await asyncio.to_thread(report)
            return 1

    result = drain(runner, sync, sync_with_a_timeout, asynchronous, measurements=[Sync(), Async()], count=2)
    assert {(charge.kind.value, charge.name): charge.calls for charge in result.cost.charges} == {
        ("stage", "sync"): 4,
        ("stage", "sync_with_a_timeout"): 2,
        ("stage", "asynchronous"): 10,
        ("measurement", "sync"): 2,
        ("measurement", "async"): 4,
    }
    assert result.cost.amount == Decimal("2.20")


@both_runners
def test_the_source_and_the_setup_of_a_stage_are_nobodys_sample(runner: Runner) -> None:
    class Quiet(Stage):
        def setup(self) -> None:
            report()

        def process(self, sample: Sample) -> Sample:
            return sample

        def close(self) -> None:
            report()

    def source() -> Any:
        report()
        yield 1
        report()

    result = runner.run(Pipeline(name="p", source=source, stages=[Quiet()])).drain()
    assert result.cost.charges == []
    assert result.headline.endswith("1 ready")


class Taken:
    """What reached the seam: the sample ids of each scope, with what was used."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.records: list[tuple[str, list[str], Usage]] = []
        self.booked: dict[str, list[Charge]] = {}
        record, spent = UsageScope.record, runs.Run.spent

        def recorded(scope: UsageScope, used: Usage) -> None:
            self.records.append((scope.name, [item.sample.id for item in scope.items], used))
            record(scope, used)

        def booked(run: Any, item: Any, charges: Sequence[Charge]) -> None:
            self.booked.setdefault(item.sample.id, []).extend(charges)
            spent(run, item, charges)

        monkeypatch.setattr(UsageScope, "record", recorded)
        monkeypatch.setattr(runs.Run, "spent", booked)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_batch_shares_in_whole_numbers_that_add_up(monkeypatch: pytest.MonkeyPatch, asynchronous: bool) -> None:
    taken = Taken(monkeypatch)

    def used() -> None:
        report(input_tokens=100, cached_input_tokens=50, output_tokens=2, amount=Decimal("0.10"))

    @stage(batch_size=3)
    def together(batch: list[Sample]) -> list[Sample]:
        used()
        return batch

    @stage(batch_size=3, name="together")
    async def together_async(batch: list[Sample]) -> list[Sample]:
        used()
        return batch

    @stage(name="split")
    def split(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(3)]

    result = drain(BatchRunner(), split, together_async if asynchronous else together)
    [(name, ids, said)] = taken.records
    assert (name, ids, said.input_tokens) == ("together", ["0#0", "0#1", "0#2"], 100)
    shared = [charge for [charge] in taken.booked.values()]
    assert [charge.calls for charge in shared] == [1, 0, 0]
    assert [charge.input_tokens for charge in shared] == [34, 33, 33]
    assert [charge.cached_input_tokens for charge in shared] == [17, 17, 16]
    assert [charge.output_tokens for charge in shared] == [1, 1, 0]
    third = Decimal("0.033333333333333333")
    assert [charge.amount for charge in shared] == [third + Decimal("1e-18"), third, third]
    assert (result.cost.calls, result.cost.input_tokens, result.cost.amount) == (1, 100, Decimal("0.10"))


@pytest.mark.parametrize(("number", "count"), [(0, 3), (1, 3), (7, 3), (10, 1), (2, 7), (10**30, 7)])
def test_shares_differ_by_one_at_the_most(number: int, count: int) -> None:
    shared = shares(number, count)
    assert (len(shared), sum(shared)) == (count, number)
    assert max(shared) - min(shared) <= 1
    money = money_shares(Decimal(number).scaleb(-9), count)
    assert sum(money) == Decimal(number).scaleb(-9)


@both_runners
def test_each_attempt_of_a_stage_with_a_provider_is_a_call(runner: Runner) -> None:
    class Ocr(Stage):
        provider = "ocr-service"
        attempts = 0

        def process(self, sample: Sample) -> Sample:
            self.attempts += 1
            return sample

    @stage(provider="label-service", batch_size=2)
    async def label(batch: list[Sample]) -> list[Sample]:
        return batch

    ocr = Ocr()
    result = drain(runner, ocr, label, count=4)
    calls = {charge.provider: (charge.model, charge.calls, charge.unpriced) for charge in result.cost.charges}
    assert calls["ocr-service"] == (None, 4, 4) == (None, ocr.attempts, ocr.attempts)
    assert calls["label-service"] == (None, 2, 2)  # one for each batch


def test_a_float_is_taken_as_it_is_written_and_no_finer_than_an_attodollar() -> None:
    assert Usage(provider="p", amount=0.1).amount == Decimal("0.1")  # type: ignore[arg-type]
    assert Usage(provider="p", amount=3).amount == 3  # type: ignore[arg-type]
    assert Usage(provider="p", amount=Decimal("1.5e-18")).amount == Decimal("2e-18")


def test_the_decimal_context_of_the_calling_thread_does_not_matter() -> None:
    @stage
    def label(sample: Sample) -> Sample:
        before = getcontext()
        setcontext(Context(prec=2))
        try:
            report(amount=Decimal("123.456789"))
            report(amount=Decimal("0.000001"))
        finally:
            setcontext(before)
        return sample

    assert drain(BatchRunner(), label).cost.amount == Decimal("123.456790")


@pytest.mark.parametrize("provider", ["", 3])
def test_the_provider_of_a_stage_is_a_name(provider: Any) -> None:
    with pytest.raises(ConfigurationError, match="provider must be a string that is not empty, not"):
        stage(provider=provider)(lambda sample: sample)


@both_runners
def test_calls_that_failed_are_counted_apart_and_are_never_unpriced(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    @stage
    def label(sample: Sample) -> Sample:
        for _ in range(2):
            usage.report(provider="nobody", model="m", error=ConnectionError("no route"))
        usage.report(provider="nobody", model="m", error="rate_limit", calls=3)
        usage.report(provider="nobody", model="m", error=OSError(), input_tokens=7)
        usage.report(provider="nobody", model="m", error=OSError(), amount=Decimal("0.01"))
        usage.report(provider="nobody", model="m", amount=Decimal("0.02"))
        return sample

    cost = drain(runner, label, count=2).cost
    assert {c.error_type: (c.calls, c.input_tokens, c.amount, c.unpriced) for c in cost.charges} == {
        "network_error": (4, 0, 0, 0),
        "rate_limit": (6, 0, 0, 0),
        "OSError": (4, 14, Decimal("0.02"), 0),
        None: (2, 0, Decimal("0.04"), 0),
    }
    assert (cost.calls, cost.failed_calls, cost.unpriced) == (16, 14, 0)
    assert cost.to_dict()["failed_calls"] == 14
    assert [charge["error_type"] for charge in cost.to_dict()["charges"]] == [
        None,
        "OSError",
        "network_error",
        "rate_limit",
    ]
    assert [text for text in caplog.messages if "price" in text] == []


def test_tokens_of_a_failed_call_have_their_price() -> None:
    @stage
    def label(sample: Sample) -> Sample:
        usage.report(provider="p", error=OSError(), input_tokens=7)
        usage.report(provider="p", error=OSError())
        return sample

    prices = Prices([Price(provider="p", input_price=Decimal(2), call_price=Decimal(1))], public=False)
    result = BatchRunner().run(Pipeline(name="p", source=samples(1), stages=[label], prices=prices)).drain()
    assert [(c.error_type, c.calls, c.amount, c.unpriced) for c in result.cost.charges] == [
        ("OSError", 2, Decimal(15), 0)
    ]


# What an instrumentation of a client detects.


def seen(model: str = "m", **more: Any) -> None:
    """What is done when an instrumentation has seen a call: it is held back, and booked when the attempt is over."""
    attempt = usage.current()
    assert attempt is not None
    HELD.append((attempt, Usage(provider="x", model=model, **more)))


HELD: list[tuple[UsageScope, Usage]] = []


def book_held() -> list[bool]:
    """The attempts have come back."""
    held = [*HELD]
    HELD.clear()
    return [usage.book(attempt, used, detected=True) for attempt, used in held]


def calls_of(result: RunResult) -> int:
    return sum(charge.calls for charge in result.cost.charges)


@both_runners
def test_a_call_that_is_reported_and_detected_is_counted_once(runner: Runner) -> None:
    booked: list[bool] = []

    @stage
    def call(sample: Sample) -> Sample:
        seen(input_tokens=5)
        usage.report(provider="x", model="m", input_tokens=7)
        seen("other", input_tokens=1)
        return sample

    @stage
    def after(sample: Sample) -> Sample:
        booked.extend(book_held())
        return sample

    result = drain(runner, call, after)
    assert booked == [False, True]
    assert calls_of(result) == 2
    assert sum(charge.input_tokens for charge in result.cost.charges) == 8


@both_runners
def test_reports_of_failed_calls_stand_for_failed_ones_only(runner: Runner) -> None:
    booked: list[bool] = []

    @stage
    def call(sample: Sample) -> Sample:
        if sample.data == 0:
            seen(error_type="rate_limit")  # nobody reports it
            seen(input_tokens=5)
            usage.report(provider="x", model="m", input_tokens=5)
        else:
            seen(error_type="rate_limit")
            usage.report(provider="x", model="m", error="server_error")
            seen(input_tokens=5)  # nor this one
        booked.extend(book_held())
        return sample

    result = drain(runner, call, count=2)
    assert booked == [True, False, False, True]
    assert {c.error_type: (c.calls, c.input_tokens) for c in result.cost.charges} == {
        None: (2, 10),
        "rate_limit": (1, 0),
        "server_error": (1, 0),
    }


@both_runners
def test_a_report_replaces_what_was_detected_in_its_own_attempt_only(runner: Runner) -> None:
    tried: list[str] = []
    booked: list[bool] = []

    @stage(retry=RetryPolicy(max_attempts=2, initial_delay=0, jitter=0))
    def call(sample: Sample) -> Sample:
        tried.append(sample.id)
        seen(input_tokens=5)
        if len(tried) == 1:
            raise TimeoutError
        usage.report(provider="x", model="m", input_tokens=7)
        return sample

    @stage
    def after(sample: Sample) -> Sample:
        booked.extend(book_held())
        return sample

    result = drain(runner, call, after)
    assert booked == [True, False]
    assert {charge.use.value: charge.input_tokens for charge in result.cost.charges} == {"retried": 5, "useful": 7}


@both_runners
def test_what_is_detected_in_a_batch_is_shared(runner: Runner) -> None:
    @stage(batch_size=2, max_wait=30)
    def call(samples: list[Sample]) -> list[Sample]:
        seen(input_tokens=5)
        return samples

    @stage
    def after(sample: Sample) -> Sample:
        book_held()
        return sample

    result = drain(runner, call, after, count=2)
    assert calls_of(result) == 1
    assert sum(charge.input_tokens for charge in result.cost.charges) == 5


@both_runners
def test_what_threads_of_an_attempt_report_replaces_what_was_detected(runner: Runner) -> None:
    booked: list[bool] = []

    @stage
    def call(sample: Sample) -> Sample:
        barrier = threading.Barrier(8)

        def report(number: int) -> None:
            barrier.wait()
            usage.report(provider="x", model=f"m{number}")

        contexts = [copy_context() for _ in range(8)]
        threads = [
            threading.Thread(target=context.run, args=(report, number)) for number, context in enumerate(contexts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(9):
            seen(f"m{number}")
        return sample

    @stage
    def after(sample: Sample) -> Sample:
        booked.extend(book_held())
        return sample

    result = drain(runner, call, after)
    assert booked == [False] * 8 + [True]
    assert calls_of(result) == 9
