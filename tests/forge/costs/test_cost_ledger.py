"""What was spent is booked once, when the sample settles, for what it was good for."""

from __future__ import annotations

import contextvars
import functools
import gc
import json
import logging
import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from forge import (
    BatchRunner,
    Charge,
    CostSummary,
    Measurement,
    Pipeline,
    Price,
    Prices,
    RetryPolicy,
    Run,
    RunResult,
    Sample,
    Skip,
    SQLStorage,
    Stage,
    StreamingRunner,
    Use,
    stage,
    usage,
)
from forge.costs.usage import CostTotals, Spender, UsageScope
from forge.errors import ConfigurationError
from forge.execution.item import Item
from forge.runner import Runner
from tests.support.clock import FakeClock
from tests.support.runs import PATIENCE, both_runners, every_runner, ledger, samples, wait

CENT = Decimal("0.01")
ZERO = Decimal(0)
NO_WAIT = RetryPolicy(max_attempts=3, initial_delay=0, jitter=0)


def spend(amount: Decimal | str = CENT, model: str = "m") -> None:
    usage.report(provider="llm", model=model, input_tokens=10, output_tokens=1, amount=Decimal(amount))


def booked(result: RunResult | None) -> dict[tuple[str, str], tuple[int, Decimal]]:
    """Calls and amount, by the name of the stage or measurement and the use."""
    assert result is not None
    return {(charge.name, charge.use.value): (charge.calls, charge.amount) for charge in result.cost.charges}


def pipeline(
    source: Sequence[Sample],
    *stages: Stage,
    measurements: Sequence[Measurement] = (),
    storage: SQLStorage | None = None,
    max_cost: Decimal | float | None = None,
) -> Pipeline:
    return Pipeline(
        name="p",
        source=source,
        stages=stages,
        measurements=measurements,
        storage=storage,
        prices=Prices(public=False),
        max_cost=max_cost,
    )


@pytest.fixture
def storage(tmp_path: Path) -> SQLStorage:
    return SQLStorage(f"sqlite:///{tmp_path / 'forge.db'}")


@every_runner
def test_what_a_sample_settles_as_decides(runner: Runner, storage: SQLStorage) -> None:
    @stage
    def judge(sample: Sample) -> Sample | Skip:
        spend()
        return Skip("odd") if sample.data % 2 else sample

    @stage
    def strict(sample: Sample) -> Sample:
        spend("0.10")
        if sample.data == 4:
            raise ValueError
        return sample

    class Value(Measurement):
        key = "value"

        def compute(self, sample: Sample) -> int:
            spend("1.00")
            if sample.data == 2:
                raise ValueError
            return 1

    result = runner.run(pipeline(samples(*range(6)), judge, strict, measurements=[Value()], storage=storage)).drain()
    assert ledger(result) == {"admitted": 6, "ready": 1, "skipped": 3, "dlq": 2}
    assert booked(result) == {
        ("judge", "skipped"): (3, 3 * CENT),
        ("judge", "failed"): (2, 2 * CENT),
        ("judge", "useful"): (1, CENT),
        ("strict", "failed"): (2, Decimal("0.20")),
        ("strict", "useful"): (1, Decimal("0.10")),
        ("value", "failed"): (1, Decimal("1.00")),
        ("value", "useful"): (1, Decimal("1.00")),
    }


@both_runners
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_attempt_that_was_repeated_was_retried(runner: Runner, asynchronous: bool) -> None:
    attempts: dict[str, int] = {}

    def work(sample: Sample) -> Sample:
        attempts[sample.id] = attempts.get(sample.id, 0) + 1
        spend(CENT * attempts[sample.id])
        # The first one succeeds at once, the second one after two retries, the third one never.
        if attempts[sample.id] < {"0": 1, "1": 3, "2": 9}[sample.id]:
            raise ConnectionError
        return sample

    async def work_async(sample: Sample) -> Sample:
        return work(sample)

    made = stage(retry=NO_WAIT, name="work", provider="other")(work_async if asynchronous else work)
    result = runner.run(pipeline(samples(0, 1, 2), made)).drain()
    charges = {(c.provider, c.use.value): (c.calls, c.amount) for c in result.cost.charges}
    assert charges == {
        ("llm", "useful"): (2, Decimal("0.04")),
        ("llm", "retried"): (4, Decimal("0.06")),
        ("llm", "failed"): (1, Decimal("0.03")),
        ("other", "useful"): (2, Decimal(0)),
        ("other", "retried"): (4, Decimal(0)),
        ("other", "failed"): (1, Decimal(0)),
    }
    assert result.cost.by_use == {
        Use.USEFUL: Decimal("0.04"),
        Use.RETRIED: Decimal("0.06"),
        Use.FAILED: Decimal("0.03"),
    }


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_batch_that_fails_was_retried_and_each_of_its_samples_pays_for_itself(asynchronous: bool) -> None:
    @stage
    def split(sample: Sample) -> list[Sample]:
        return [sample.child(key, key) for key in "abc"]

    def work(batch: list[Sample]) -> list[Sample]:
        spend("0.30" if len(batch) == 3 else "0.07")
        if "b" in [sample.data for sample in batch]:
            raise ValueError
        return batch

    async def work_async(batch: list[Sample]) -> list[Sample]:
        return work(batch)

    class Value(Measurement):
        key = "value"
        batch_size = 2

        def compute_batch(self, batch: Sequence[Sample]) -> list[int]:
            spend("3.00" if len(batch) == 2 else "0.50")
            if "c" in [sample.data for sample in batch]:
                raise ValueError
            return [1] * len(batch)

    class AsyncValue(Value):
        async def compute_batch(self, batch: Sequence[Sample]) -> list[int]:  # type: ignore[override]
            return Value.compute_batch(self, batch)

    made = stage(name="work", batch_size=3)(work_async if asynchronous else work)
    value = AsyncValue() if asynchronous else Value()
    result = BatchRunner().run(pipeline(samples(0), split, made, measurements=[value])).drain()
    assert ledger(result) == {"admitted": 1, "derived": 3, "split": 1, "ready": 1, "failed": 2}
    assert booked(result) == {
        ("work", "retried"): (1, Decimal("0.30")),
        ("work", "useful"): (1, Decimal("0.07")),
        ("work", "failed"): (2, Decimal("0.14")),
        ("value", "retried"): (1, Decimal("3.00")),
        ("value", "useful"): (1, Decimal("0.50")),
        ("value", "failed"): (1, Decimal("0.50")),
    }


@every_runner
def test_the_children_share_what_was_spent_on_a_sample_that_was_split(runner: Runner) -> None:
    @stage
    def chapters(sample: Sample) -> list[Sample]:
        spend("0.10")
        return [sample.child("0", "skip"), sample.child("1", "go"), sample.child("2", "split")]

    @stage
    def paragraphs(sample: Sample) -> Sample | Skip | list[Sample]:
        if sample.data == "split":
            spend("0.02")
            return [sample.child("0", "go"), sample.child("1", "fail")]
        return Skip("short") if sample.data == "skip" else sample

    @stage
    def last(sample: Sample) -> Sample:
        if sample.data == "fail":
            raise ValueError
        return sample

    result = runner.run(pipeline(samples("text"), chapters, paragraphs, last)).drain()
    assert ledger(result) == {"admitted": 1, "derived": 5, "split": 2, "ready": 2, "skipped": 1, "failed": 1}
    third, atom = Decimal("0.033333333333333333"), Decimal("1e-18")
    half = Decimal("0.0166666666666666665")
    assert {key: amount for key, (_, amount) in booked(result).items()} == {
        ("chapters", "skipped"): third + atom,
        ("chapters", "useful"): third + Decimal("0.016666666666666667"),
        ("chapters", "failed"): Decimal("0.016666666666666666"),
        ("paragraphs", "useful"): CENT,
        ("paragraphs", "failed"): CENT,
    }
    assert 2 * half == third
    assert result.cost.amount == Decimal("0.12")
    assert (result.cost.calls, result.cost.input_tokens, result.cost.output_tokens) == (2, 20, 2)


@both_runners
def test_what_had_been_ready_before_is_repeated_whatever_becomes_of_it(runner: Runner, storage: SQLStorage) -> None:
    again = False
    failures: list[str] = []

    @stage(retry=NO_WAIT)
    def work(sample: Sample) -> Sample | Skip | list[Sample]:
        spend()
        if sample.data == "skipped":
            return Skip("always")
        if sample.data == "split":
            return [sample.child("a", "x"), sample.child("b", "skip later")]
        if sample.data == "late failure" and again:
            raise ValueError
        if sample.data == "early failure" and not again:
            raise ValueError
        if sample.data == "retried" and again and not failures:
            failures.append(sample.id)
            raise ConnectionError
        return sample

    @stage
    def later(sample: Sample) -> Sample | Skip:
        return Skip("later") if sample.data == "skip later" else sample

    source = samples("ready", "skipped", "split", "late failure", "early failure", "retried")
    made = pipeline(source, work, later, storage=storage)
    first = runner.run(made).drain()
    assert booked(first) == {
        ("work", "useful"): (4, Decimal("0.035")),
        ("work", "skipped"): (1, Decimal("0.015")),
        ("work", "failed"): (1, CENT),
    }
    again = True
    unchanged = type(runner)().run(made).drain()
    assert booked(unchanged) == {("work", "useful"): (1, CENT)}
    assert ledger(unchanged)["unchanged"] == 5
    second = type(runner)(resume=False).run(made).drain()
    # Ready before: one, half of the split, the late failure, the early failure (by now), the retried one (twice).
    assert {use: amount for (_, use), (_, amount) in booked(second).items()} == {
        "repeated": Decimal("0.055"),
        "skipped": Decimal("0.015"),
    }
    assert second.cost.calls == 7


@both_runners
def test_a_split_whose_children_were_finished_is_repeated_or_skipped_as_they_were(
    runner: Runner, storage: SQLStorage
) -> None:
    fails = True

    @stage
    def split(sample: Sample) -> list[Sample]:
        spend("0.04")
        return [sample.child(key, key) for key in ("ready", "skip", "fail", "split")]

    @stage
    def work(sample: Sample) -> Sample | Skip | list[Sample]:
        if sample.data == "fail" and fails:
            raise ValueError
        if sample.data == "split":
            return [sample.child("x", "ready")]
        return Skip("it") if sample.data == "skip" else sample

    made = pipeline(samples("text"), split, work, storage=storage)
    runner.run(made).drain()
    fails = False
    result = runner.run(made).drain()
    assert ledger(result) == {"admitted": 1, "derived": 4, "split": 1, "unchanged": 3, "ready": 1}
    assert {use: amount for (_, use), (_, amount) in booked(result).items()} == {
        "repeated": Decimal("0.02"),
        "skipped": CENT,
        "useful": CENT,
    }


# Cached measurements


class Embedding(Measurement):
    key = "embedding"

    def compute(self, sample: Sample) -> int:
        spend(CENT * (1 + sample.data))
        return 1


class Together(Measurement):
    key = "together"
    batch_size = 4

    async def compute_batch(self, batch: Sequence[Sample]) -> list[int]:
        spend("0.10")
        return [1] * len(batch)


class Free(Measurement):
    key = "free"

    def compute(self, sample: Sample) -> int:
        return 1


@pytest.mark.slow
def test_what_a_cached_value_would_have_cost_is_saved(storage_url: str) -> None:
    @stage
    def split(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(sample.data)]

    storage = SQLStorage(storage_url)
    measurements = [Embedding(), Together(), Free()]
    first = BatchRunner().run(pipeline(samples(2), split, measurements=measurements, storage=storage)).drain()
    assert {name: amount for (name, _), (_, amount) in booked(first).items()} == {
        "embedding": Decimal("0.03"),
        "together": Decimal("0.10"),
    }
    assert first.cost.saved == {}
    # Two of the four are there already; the batch is made for the other two, who share its cost.
    runner = BatchRunner(resume=False)
    second = runner.run(pipeline(samples(4), split, measurements=measurements, storage=storage)).drain()
    assert booked(second) == {
        ("embedding", "useful"): (2, Decimal("0.07")),
        ("together", "useful"): (1, Decimal("0.10")),
    }
    assert second.cost.saved == {"embedding": Decimal("0.03"), "together": Decimal("0.10")}
    third = runner.run(pipeline(samples(4), split, measurements=measurements, storage=storage)).drain()
    assert booked(third) == {}
    assert third.cost.saved == {"embedding": Decimal("0.10"), "together": Decimal("0.20")}
    assert third.headline.endswith("1 split; 0.3 USD saved by the cache")
    storage.delete("p", ["0#0", "0#1"])
    assert not storage.costs("p", [("0#0", "d")], "embedding", "1")
    fourth = runner.run(pipeline(samples(4), split, measurements=measurements, storage=storage)).drain()
    storage.close()
    assert fourth.cost.saved == {"embedding": Decimal("0.07"), "together": Decimal("0.10")}


@both_runners
def test_a_dead_letter_keeps_what_its_values_cost(runner: Runner, storage: SQLStorage) -> None:
    class Picky(Measurement):
        key = "picky"
        depends_on = ("embedding",)
        accepts = False

        def compute(self, sample: Sample) -> int:
            if not self.accepts:
                raise ValueError
            return 1

    picky = Picky()
    made = pipeline(samples(1), measurements=[Embedding(), picky], storage=storage)
    assert booked(runner.run(made).drain()) == {("embedding", "failed"): (1, 2 * CENT)}
    picky.accepts = True
    replayed = runner.replay(made).drain()
    assert booked(replayed) == {}
    assert replayed.cost.saved == {"embedding": 2 * CENT}


def test_an_attempt_that_was_repeated_is_not_part_of_what_a_value_costs(storage: SQLStorage) -> None:
    class Shaky(Measurement):
        key = "shaky"
        batch_size = 2

        def compute_batch(self, batch: Sequence[Sample]) -> list[int]:
            spend("0.50" if len(batch) == 2 else "0.07")
            if len(batch) == 2:
                raise ValueError
            return [1]

    @stage
    def split(sample: Sample) -> list[Sample]:
        return [sample.child(key, key) for key in "ab"]

    made = pipeline(samples("x"), split, measurements=[Shaky()], storage=storage)
    first = BatchRunner().run(made).drain()
    assert booked(first) == {
        ("shaky", "retried"): (1, Decimal("0.50")),
        ("shaky", "useful"): (2, Decimal("0.14")),
    }
    assert BatchRunner(resume=False).run(made).drain().cost.saved == {"shaky": Decimal("0.14")}


# A run that ends before its time


@both_runners
def test_an_early_close_loses_nothing(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    spent_here: list[Decimal] = []
    seen: dict[str, list[Charge]] = {}
    original = Run.spent

    def watched(run: Run, item: Item, charges: Sequence[Charge]) -> None:
        seen.setdefault(item.sample.id, []).extend(charges)
        original(run, item, charges)

    monkeypatch.setattr(Run, "spent", watched)

    @stage(concurrency=2)
    def work(sample: Sample) -> Sample:
        spend()
        spent_here.append(CENT)
        return sample

    @stage
    async def more(sample: Sample) -> Sample:
        spend()
        spent_here.append(CENT)
        return sample

    with runner.run(pipeline(samples(*range(500)), work, more)) as run:
        next(run)
        next(run)
    result = run.result
    assert result is not None
    assert result.outcome == "cancelled"
    assert result.cost.amount == sum(spent_here)
    assert set(result.cost.by_use) <= {Use.USEFUL, Use.FAILED}
    assert sum(charge.amount for charges in seen.values() for charge in charges) == sum(spent_here)
    useful = sum(amount for (_, use), (_, amount) in booked(result).items() if use == "useful")
    assert useful == 2 * CENT * result.ledger.ready


class Held(Stage):
    """Its attempts run into their timeout, and report when they are let go."""

    name = "held"
    timeout = 1.0
    concurrency = 4

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.attempts: dict[str, int] = {}
        self.go, self.reported = threading.Event(), threading.Semaphore(0)

    def process(self, sample: Sample) -> Sample:
        attempt = self.attempts[sample.id] = self.attempts.get(sample.id, 0) + 1
        spend()
        if attempt == 1:
            wait(self.go)
            spend("0.05")
            self.reported.release()
        return sample


@pytest.mark.slow
def test_an_attempt_that_was_abandoned_counts_until_the_run_ends() -> None:
    held = Held(retry=NO_WAIT)

    @stage
    def release(sample: Sample) -> Sample:
        held.go.set()
        assert held.reported.acquire(timeout=PATIENCE)
        return sample

    result = BatchRunner().run(pipeline(samples(0), held, release)).drain()
    assert booked(result) == {
        ("held", "retried"): (2, Decimal("0.06")),
        ("held", "useful"): (1, CENT),
    }


@pytest.mark.parametrize("splits", [False, True])
def test_what_is_reported_after_the_sample_has_settled_is_booked_at_once(
    monkeypatch: pytest.MonkeyPatch, splits: bool
) -> None:
    seen: list[tuple[str, Use, Decimal]] = []

    def watched(run: Run, item: Item, charges: Sequence[Charge]) -> None:
        seen.extend((item.sample.id, charge.use, charge.amount) for charge in charges)

    monkeypatch.setattr(Run, "spent", watched)
    run_later: list[Callable[[], None]] = []

    @stage
    def first(sample: Sample) -> Sample | list[Sample]:
        run_later.append(functools.partial(contextvars.copy_context().run, spend, "0.05"))
        return [sample.child(key, key) for key in "ab"] if splits else sample

    def source() -> Any:
        yield Sample(id="early", data=0)
        run_later.pop()()
        yield Sample(id="next", data=0)

    made = Pipeline(name="p", source=source, stages=[first], prices=Prices(public=False))
    result = BatchRunner().run(made).drain()
    expected = [("early", Use.USEFUL, Decimal("0.05"))]
    if splits:
        expected = [(f"early#{key}", Use.USEFUL, Decimal("0.025")) for key in "ab"]
    assert seen == expected
    assert booked(result) == {("first", "useful"): (1, Decimal("0.05"))}


@pytest.mark.slow
def test_what_is_reported_after_the_run_has_ended_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    run = BatchRunner().run(pipeline(samples(0), held))
    result = run.drain()
    assert booked(result) == {("held", "failed"): (1, CENT)}
    caplog.clear()
    with caplog.at_level(logging.WARNING, "forge"):
        held.go.set()
        assert held.reported.acquire(timeout=PATIENCE)
    assert [record.getMessage() for record in caplog.records] == [
        "stage 'held' reported usage of 'llm' after the run's end, so it is not counted"
    ]
    assert booked(run.result) == {("held", "failed"): (1, CENT)}


@pytest.mark.slow
def test_only_live_samples_take_memory() -> None:
    """Nothing of what was reported stays but the sums."""

    @stage
    def work(sample: Sample) -> Sample:
        for model in "abc":
            spend(model=model)
        return sample

    @stage
    def split(sample: Sample) -> list[Sample]:
        return [sample.child(key, key) for key in "ab"]

    before = _kept()  # by abandoned threads of other tests
    run = StreamingRunner().run(pipeline(samples(*range(200)), work, split))
    result = run.drain()
    alive = [thing for thing in _kept() if not any(thing is other for other in before)]
    assert [thing for thing in alive if not isinstance(thing, CostTotals)] == []
    assert len(alive) == 3 == len(result.cost.charges)


def _kept() -> list[Any]:
    gc.collect()
    # By their types: objects of other tests may raise when they are asked for their class.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), CostTotals | UsageScope | Item)]


# The provider of a stage


@both_runners
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_of_the_stages_provider_that_is_reported_by_hand_counts_once(runner: Runner, asynchronous: bool) -> None:
    attempts: list[str] = []

    def work(sample: Sample) -> Sample:
        attempts.append(sample.id)
        match sample.data:
            case "by hand":
                spend()
            case "twice":
                spend()
                spend()
            case "once of two attempts":
                if attempts.count(sample.id) == 1:
                    raise ConnectionError
                spend()
            case "of another provider":
                usage.report(provider="other")
            case "what it cost":
                usage.report(provider="llm", calls=0, amount=CENT)
        return sample

    async def work_async(sample: Sample) -> Sample:
        return work(sample)

    said = ("nothing", "by hand", "twice", "once of two attempts", "of another provider", "what it cost")
    made = stage(retry=NO_WAIT, name="work", provider="llm")(work_async if asynchronous else work)
    result = runner.run(pipeline(samples(*said), made)).drain()
    counted = {(c.provider, c.model, c.use.value): (c.calls, c.amount) for c in result.cost.charges}
    assert counted == {
        ("llm", "m", "useful"): (1 + 2 + 1, 4 * CENT),
        ("llm", None, "useful"): (1 + 1 + 1, CENT),  # of those that said nothing of a call of this provider
        ("llm", None, "retried"): (1, 0),
        ("other", None, "useful"): (1, 0),
    }


class Refused(Exception):  # noqa: N818 - so that the class says it
    """What a client raises for a status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status_code = status


@pytest.mark.parametrize("asynchronous", [False, True])
@both_runners
def test_a_call_that_the_provider_refuses_costs_nothing(runner: Runner, *, asynchronous: bool) -> None:
    errors: dict[str, Exception] = {
        "limited": Refused(429),
        "broken": Refused(503),
        "refused": Refused(400),
        "unreachable": ConnectionError(),
        "timed out": TimeoutError(),
        "odd answer": ValueError(),
    }

    def work(sample: Sample) -> Sample:
        raise errors[sample.data]

    async def work_async(sample: Sample) -> Sample:
        return work(sample)

    once = RetryPolicy(max_attempts=1)
    made = stage(retry=once, name="work", provider="llm")(work_async if asynchronous else work)
    prices = Prices([Price(provider="llm", call_price=CENT)], public=False)
    result = runner.run(Pipeline(name="p", source=samples(*errors), stages=[made], prices=prices)).drain()
    assert {c.error_type: (c.calls, c.amount, c.unpriced) for c in result.cost.charges} == {
        "rate_limit": (1, 0, 0),
        "server_error": (1, 0, 0),
        "client_error": (1, 0, 0),
        "network_error": (1, 0, 0),
        None: (2, 2 * CENT, 0),  # of which it is not known that they were not answered
    }
    assert (result.cost.calls, result.cost.failed_calls, result.cost.amount) == (6, 4, 2 * CENT)


def test_a_batch_that_reports_its_call_by_hand_counts_it_once_and_again_for_each_sample_alone() -> None:
    @stage(provider="llm", batch_size=3)
    def together(batch: list[Sample]) -> list[Sample]:
        spend()
        if len(batch) > 1:
            raise ValueError
        return batch

    @stage
    def split(sample: Sample) -> list[Sample]:
        return [sample.child(key, key) for key in "abc"]

    result = BatchRunner().run(pipeline(samples(0), split, together)).drain()
    assert booked(result) == {("together", "retried"): (1, CENT), ("together", "useful"): (3, 3 * CENT)}


def test_a_call_that_runs_into_its_timeout_counts_then_and_what_is_reported_later_on_top() -> None:
    go, reported = threading.Event(), threading.Event()

    @stage(provider="llm", timeout=0.05)
    def hangs(sample: Sample) -> Sample:
        wait(go)
        spend()
        reported.set()
        return sample

    def source() -> Any:
        yield Sample(id="0", data=0)
        go.set()
        wait(reported)

    result = BatchRunner().run(Pipeline(name="p", source=source, stages=[hangs], prices=Prices(public=False))).drain()
    assert {(c.model, c.use.value): (c.calls, c.amount) for c in result.cost.charges} == {
        (None, "failed"): (1, 0),
        ("m", "failed"): (1, CENT),
    }


@pytest.mark.slow
@both_runners
def test_a_call_that_is_under_way_when_the_run_is_left_is_counted(runner: Runner) -> None:
    begun, go, over = (threading.Event() for _ in range(3))

    @stage(provider="llm")
    def work(sample: Sample) -> Sample:
        if sample.id == "1":
            begun.set()
            wait(go)
            over.set()
        return sample

    def close() -> None:
        wait(begun)
        run.close()

    with runner.run(pipeline(samples(0, 1), work)) as run:
        ready = iter(run)
        next(ready)
        closer = threading.Thread(target=close)
        closer.start()
        assert list(ready) == []
        closer.join()
    before = booked(run.result)
    go.set()
    wait(over)
    assert before == booked(run.result) == {("work", "useful"): (1, ZERO), ("work", "failed"): (1, ZERO)}


# max_cost


@both_runners
def test_a_run_that_reaches_its_budget_admits_no_more_and_finishes_what_it_has(runner: Runner) -> None:
    @stage
    def work(sample: Sample) -> Sample:
        spend("0.25")
        return sample

    result = runner.run(pipeline(samples(*range(10_000)), work, max_cost=1)).drain()
    assert result.outcome == "cancelled"
    assert result.error_type == "cancelled"
    assert result.ledger.ready == result.ledger.admitted
    assert result.cost.amount == Decimal("0.25") * result.ledger.admitted
    if runner.name == "batch":
        assert result.ledger.admitted == 4
        assert result.error == (
            "the run spent 1 USD of its max_cost of 1 and then admitted no more samples; those under way were finished"
        )
        assert str(result).startswith("p: cancelled (cancelled: the run spent 1 USD of its max_cost of 1")
    else:
        # Over the budget: what was in the queue, in the stage and in the hand of the source's thread.
        assert 4 <= result.ledger.admitted <= 4 + 16 + 3


@both_runners
def test_a_budget_that_is_enough_changes_nothing(runner: Runner) -> None:
    @stage
    def work(sample: Sample) -> Sample:
        spend("0.25")
        return sample

    result = runner.run(pipeline(samples(*range(4)), work, max_cost=1.0)).drain()
    assert (result.outcome, result.error, result.ledger.ready) == ("completed", None, 4)


def test_a_run_continues_where_the_budget_ended_it(storage: SQLStorage) -> None:
    @stage
    def work(sample: Sample) -> Sample:
        spend("0.25")
        return sample

    made = pipeline(samples(*range(6)), work, storage=storage, max_cost=Decimal("0.75"))
    with BatchRunner().run(made) as run:
        assert [sample.id for sample in run] == ["0", "1", "2"]
    second = BatchRunner().run(made).drain()
    assert (second.outcome, ledger(second)) == ("completed", {"admitted": 6, "unchanged": 3, "ready": 3})
    assert [row.outcome for row in storage.runs("p")] == ["completed", "cancelled"]
    storage.close()


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (0, "pipeline 'p': max_cost must be more than 0"),
        (-1, "pipeline 'p': max_cost must be a number of US dollars that is finite and not negative, not -1"),
        ("5", "pipeline 'p': max_cost must be a number of US dollars, not '5'"),
    ],
)
def test_a_budget_is_some_money(budget: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        pipeline(samples(1), max_cost=budget)
    assert str(caught.value) == message


# Where it is seen


def test_the_result_and_the_record_say_it(storage: SQLStorage) -> None:
    @stage
    def label(sample: Sample) -> Sample | Skip:
        usage.report(provider="llm", model="big", input_tokens=10, cached_input_tokens=4, amount=Decimal("0.0300"))
        return Skip("bad") if sample.data == 1 else sample

    @stage(provider="ocr")
    def scan(sample: Sample) -> Sample:
        return sample

    run = BatchRunner(clock=FakeClock()).run(
        pipeline(samples(0, 1, 2), label, scan, measurements=[Embedding()], storage=storage)
    )
    result = run.drain()
    cost = result.cost
    assert cost.amount == Decimal("0.13")
    assert cost.by_name == {
        (Spender.STAGE, "label"): Decimal("0.09"),
        (Spender.STAGE, "scan"): Decimal(0),
        (Spender.MEASUREMENT, "embedding"): Decimal("0.04"),
    }
    assert cost.by_model == {
        ("llm", "big"): Decimal("0.09"),
        ("llm", "m"): Decimal("0.04"),
        ("ocr", None): Decimal(0),
    }
    assert cost.per_ready_sample == Decimal("0.065")
    assert cost.wasted_share == 3 / 13
    assert (cost.calls, cost.unpriced, cost.input_tokens, cost.cached_input_tokens) == (7, 2, 50, 12)
    assert result.headline == (
        "p: completed in 0 s; 3 admitted, 0 derived: 2 ready, 1 skipped; "
        "0.13 USD (0.065 a ready sample, 23% wasted, 2 of 7 calls without a price)"
    )
    [row] = storage.runs("p")
    storage.close()
    assert row.record["cost"] == cost.to_dict() == json.loads(json.dumps(cost.to_dict()))
    assert row.record["cost"]["amount"] == "0.13"
    assert row.record["cost"]["charges"][1] == {
        "kind": "stage",
        "name": "label",
        "provider": "llm",
        "model": "big",
        "use": "skipped",
        "error_type": None,
        "calls": 1,
        "input_tokens": 10,
        "cached_input_tokens": 4,
        "output_tokens": 0,
        "amount": "0.03",
        "unpriced": 0,
    }


def test_a_run_that_used_nothing_says_nothing_about_it() -> None:
    result = BatchRunner().run(pipeline(samples(1))).drain()
    assert result.cost == CostSummary(ready=1)
    assert result.cost.amount == 0
    assert result.cost.wasted_share is None
    assert "USD" not in str(result)
    assert CostSummary().per_ready_sample is None
