"""Values computed on samples: order, dependencies, batches, failures."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from forge import (
    BatchRunner,
    JSONSerializer,
    Measurement,
    MeasurementOutcome,
    Pipeline,
    Sample,
    SQLStorage,
    StreamingRunner,
    stage,
)
from forge.errors import ConfigurationError, RunCancelled, StageResultError, StageTimeoutError
from forge.execution.item import Item
from forge.execution.measurement_orchestrator import MeasurementOrchestrator
from tests.support.clock import FakeClock
from tests.support.runs import (
    PATIENCE,
    both_runners,
    every_runner,
    ledger,
    rows,
    samples,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge.runner import Runner

sync_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def measurement_of(function: Callable[[Any], Any], is_async: bool, **settings: Any) -> Measurement:
    """A measurement that calls the function with a sample, or with the list of a batch."""

    class Sync(Measurement):
        key = "tested"

        def compute(self, sample: Sample) -> Any:
            return function(sample)

        def compute_batch(self, batch: Any) -> Any:
            return function(batch)

    class Async(Measurement):
        key = "tested"

        async def compute(self, sample: Sample) -> Any:
            return function(sample)

        async def compute_batch(self, batch: Any) -> Any:
            return function(batch)

    return (Async if is_async else Sync)(**settings)


@every_runner
@sync_and_async
def test_a_value_is_computed_once_for_every_sample(runner: Runner, is_async: bool) -> None:
    computed: list[str] = []

    def double(sample: Sample) -> int:
        computed.append(sample.id)
        return int(sample.data * 2)

    pipeline = Pipeline(name="p", source=samples(1, 2, 3), measurements=[measurement_of(double, is_async)])
    run = runner.run(pipeline)
    assert {sample.id: sample.measurements for sample in run} == {
        "0": {"tested": 2},
        "1": {"tested": 4},
        "2": {"tested": 6},
    }
    assert sorted(computed) == ["0", "1", "2"]
    assert run.result is not None
    [summary] = run.result.measurements
    assert (summary.computed, summary.cached, summary.errors) == (3, 0, 0)


@every_runner
def test_dependencies_come_first_and_their_values_are_there(runner: Runner) -> None:
    class Total(Measurement):
        key = "total"
        depends_on = ("words", "letters")

        async def compute(self, sample: Sample) -> int:
            return int(sample.measurements["words"] + sample.measurements["letters"])

    class Words(Measurement):
        key = "words"

        def compute(self, sample: Sample) -> int:
            assert not sample.measurements
            return len(sample.data.split())

    class Letters(Measurement):
        key, batch_size, depends_on = "letters", 2, ("words",)

        def compute_batch(self, batch: Any) -> list[int]:
            assert [set(sample.measurements) for sample in batch] == [{"words"}] * len(batch)
            return [len(sample.data) for sample in batch]

    pipeline = Pipeline(name="p", source=samples("a b", "c"), measurements=[Total(), Letters(), Words()])
    assert [measurement.key for measurement in pipeline.measurements] == ["words", "letters", "total"]
    assert {sample.id: sample.measurements for sample in runner.run(pipeline)} == {
        "0": {"words": 2, "letters": 3, "total": 5},
        "1": {"words": 1, "letters": 1, "total": 2},
    }


@every_runner
@sync_and_async
def test_a_measurement_that_fails_dead_letters_its_sample(runner: Runner, is_async: bool, tmp_path: Path) -> None:
    def picky(sample: Sample) -> int:
        if sample.data == 2:
            raise LookupError("no two")
        return int(sample.data)

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(
        name="p", source=samples(1, 2, 3), measurements=[measurement_of(picky, is_async)], storage=storage
    )
    result = runner.run(pipeline).drain()
    assert ledger(result) == {"admitted": 3, "ready": 2, "dlq": 1}
    [entry] = pipeline.dead_letters.list()
    assert (entry.sample_id, entry.source, entry.where) == ("1", "measurement", "tested")
    assert (entry.error_type, entry.message, entry.data) == ("LookupError", "no two", b"2")
    assert result.dead_letters == {("measurement", "tested", "LookupError"): 1}
    assert (result.measurements[0].computed, result.measurements[0].errors) == (2, 1)
    assert rows(storage) == {"0": "ready", "1": "dlq", "2": "ready"}


@both_runners
def test_values_computed_before_the_failure_are_cached(runner: Runner, tmp_path: Path) -> None:
    good = [False]
    computed: list[str] = []

    class First(Measurement):
        key = "first"

        def compute(self, sample: Sample) -> int:
            computed.append(sample.id)
            return 1

    class Second(Measurement):
        key = "second"

        def compute(self, sample: Sample) -> int:
            if not good[0]:
                raise LookupError
            return 2

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(name="p", source=samples("x"), measurements=[First(), Second()], storage=storage)
    assert ledger(runner.run(pipeline).drain())["dlq"] == 1
    good[0] = True
    [sample] = runner.run(pipeline)
    assert sample.measurements == {"first": 1, "second": 2}
    assert computed == ["0"]
    storage.close()


@both_runners
@sync_and_async
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "measurement 'tested' returned NoneType for a batch of 1; "),
        ("x", "measurement 'tested' returned str for a batch of 1; "),
        ({"x": 1}, "measurement 'tested' returned dict for a batch of 1; "),
        ([1, 2], "measurement 'tested' returned 2 values for a batch of 1; "),
        ([], "measurement 'tested' returned 0 values for a batch of 1; "),
    ],
    ids=["None", "str", "dict", "too many", "too few"],
)
def test_a_batch_gives_one_value_for_each_sample(
    runner: Runner, is_async: bool, returned: Any, message: str, tmp_path: Path
) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    tested = measurement_of(lambda batch: returned, is_async, batch_size=2)
    pipeline = Pipeline(name="p", source=samples(0), measurements=[tested], storage=storage)
    runner.run(pipeline).drain()
    [entry] = pipeline.dead_letters.list()
    assert entry.error_type == "forge.errors.StageResultError"
    assert entry.message == message + "it must return a list with one value for each sample, in order"
    storage.close()


@sync_and_async
def test_one_bad_sample_of_a_batch_fails_alone(is_async: bool) -> None:
    calls: list[list[int]] = []

    def picky(batch: list[Sample]) -> list[int]:
        calls.append([sample.data for sample in batch])
        if 2 in calls[-1]:
            raise LookupError
        return [sample.data * 10 for sample in batch]

    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(4)]

    tested = measurement_of(picky, is_async, batch_size=4, max_wait=PATIENCE)
    for runner in (BatchRunner(), StreamingRunner()):
        calls.clear()
        run = runner.run(Pipeline(name="p", source=samples(0), stages=[fan_out], measurements=[tested]))
        assert sorted(sample.measurements["tested"] for sample in run) == [0, 10, 30]
        assert calls == [[0, 1, 2, 3], [0], [1], [2], [3]]
        assert run.result is not None
        assert (run.result.measurements[0].computed, run.result.measurements[0].errors) == (3, 1)


@both_runners
@sync_and_async
def test_a_measurement_has_a_timeout(runner: Runner, is_async: bool, tmp_path: Path) -> None:
    release = threading.Event()

    class Slow(Measurement):
        key, timeout = "slow", 0.01

        def compute(self, sample: Sample) -> int:
            wait(release)
            return 1

    class SlowAsync(Measurement):
        key, timeout = "slow", 0.01

        async def compute(self, sample: Sample) -> int:
            await asyncio.Event().wait()
            return 1

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    slow = SlowAsync() if is_async else Slow()
    pipeline = Pipeline(name="p", source=samples(1), measurements=[slow], storage=storage)
    runner.run(pipeline).drain()
    release.set()
    [entry] = pipeline.dead_letters.list()
    assert entry.error_type == "timeout"
    assert entry.message.endswith("took longer than its timeout of 0.01 s")
    storage.close()


@both_runners
def test_a_value_that_cannot_be_stored_fails_its_sample(runner: Runner, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(
        name="p", source=samples(1), measurements=[measurement_of(lambda _: object(), False)], storage=storage
    )
    assert ledger(runner.run(pipeline).drain()) == {"admitted": 1, "dlq": 1}
    [entry] = pipeline.dead_letters.list()
    assert (entry.source, entry.where, entry.error_type) == (
        "measurement",
        "tested",
        "forge.errors.SerializationError",
    )
    assert entry.replayable
    storage.close()
    # Nothing is stored without a storage, so any value will do.
    assert ledger(runner.run(Pipeline(name="p", source=[1], measurements=pipeline.measurements)).drain()) == {
        "admitted": 1,
        "ready": 1,
    }


@both_runners
@sync_and_async
@pytest.mark.parametrize("batch_size", [None, 2], ids=["single", "batch"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_measurement_ends_the_run(
    runner: Runner, is_async: bool, batch_size: int | None, error: type[BaseException]
) -> None:
    def interrupted(_: Any) -> Any:
        raise error

    tested = measurement_of(interrupted, is_async, batch_size=batch_size)
    run = runner.run(Pipeline(name="p", source=samples(1, 2), measurements=[tested]))
    with pytest.raises(error):
        run.drain()
    assert run.result is not None
    assert run.result.outcome == "cancelled"
    assert run.result.ledger.active == run.result.ledger.imbalance == run.result.ledger.ready == 0


def test_the_orchestrator_says_whether_a_value_was_computed_or_cached(tmp_path: Path) -> None:
    clock = FakeClock()

    def slow(sample: Sample) -> int:
        clock.advance(3)
        return 7

    tested = measurement_of(slow, False)
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(name="p", source=samples("x"), measurements=[tested], storage=storage)
    [sample] = BatchRunner().run(pipeline)
    assert sample.digest is not None
    orchestrator = MeasurementOrchestrator(pipeline, clock=clock)
    cached = orchestrator.measure(tested, sample)
    assert (cached.outcome, cached.value, cached.duration) == (MeasurementOutcome.CACHED, 7, 0)
    other = Sample(id="other", data="x", digest=sample.digest)
    computed = orchestrator.measure(tested, other)
    assert (computed.outcome, computed.value, computed.duration) == (MeasurementOutcome.COMPUTED, 7, 3)
    storage.close()


@sync_and_async
def test_a_batch_computes_only_what_is_not_cached(is_async: bool, tmp_path: Path) -> None:
    computed: list[list[str]] = []

    def values(batch: list[Sample]) -> list[int]:
        computed.append([sample.id for sample in batch])
        return [sample.data for sample in batch]

    tested = measurement_of(values, is_async, batch_size=3)
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(name="p", source=samples(0, 1), measurements=[tested], storage=storage)
    ready = list(BatchRunner().run(pipeline))
    computed.clear()
    orchestrator = MeasurementOrchestrator(pipeline)
    new = Sample(id="new", data=5, digest=ready[0].digest)
    items = [Item(sample, copy_context()) for sample in (ready[0], new, ready[1])]
    if is_async:
        batch = asyncio.run(orchestrator.measure_batch_async(tested, items))
    else:
        batch = orchestrator.measure_batch(tested, items)
    assert [(result.outcome, result.value) for result in batch.results] == [
        ("cached", 0),
        ("computed", 5),
        ("cached", 1),
    ]
    assert (batch.computed, computed) == (1, [["new"]])
    storage.close()


def test_without_a_pipeline_nothing_is_cached() -> None:
    orchestrator = MeasurementOrchestrator()
    result = orchestrator.measure(measurement_of(lambda s: s.data, False), Sample(id="x", data=1, digest="d"))
    assert (result.outcome, result.value, result.content) == (MeasurementOutcome.COMPUTED, 1, None)
    wrong = measurement_of(lambda batch: None, False, batch_size=2)
    failed = orchestrator.measure_batch(wrong, [])
    assert failed.results == ()


@both_runners
def test_a_cached_value_that_cannot_be_read_is_computed_again(runner: Runner, tmp_path: Path) -> None:
    class Forgetful(JSONSerializer):
        broken = False

        def loads(self, data: bytes) -> Any:
            if self.broken:
                raise LookupError("the class is gone")
            return super().loads(data)

    serializer = Forgetful()
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")

    def pipeline(version: str) -> Pipeline:
        versioned = stage(name="same", version=version)(lambda sample: sample)
        return Pipeline(
            name="p",
            source=samples(1),
            stages=[versioned],
            measurements=[measurement_of(lambda s: s.data, False)],
            storage=storage,
            serializer=serializer,
        )

    runner.run(pipeline("1")).drain()
    serializer.broken = True
    result = runner.run(pipeline("2")).drain()
    assert ledger(result) == {"admitted": 1, "ready": 1}
    assert (result.measurements[0].computed, result.measurements[0].cached) == (1, 0)


def test_settings_are_checked_where_a_measurement_is_made() -> None:
    class Length(Measurement):
        key = "length"

        def compute(self, sample: Sample) -> int:
            return len(sample.data)

    def error(make: Callable[[], Any]) -> str:
        with pytest.raises(ConfigurationError) as caught:
            make()
        return str(caught.value)

    assert error(lambda: Length(speed=1)) == (
        "Length(speed=…): no such setting; "
        "there are key, version, depends_on, concurrency, resources, timeout, batch_size, max_wait"
    )
    text = "must be a string that is not empty, not"
    assert error(lambda: Length(key="")) == f"measurement Length: key {text} ''"
    assert error(lambda: Length(version=1)) == f"measurement Length: version {text} 1"
    assert error(lambda: Length(depends_on="words")) == (
        "measurement Length: depends_on must be a list of keys, not the string 'words'"
    )
    assert error(lambda: Length(concurrency=0)) == (
        "measurement Length: concurrency must be a whole number from 1 to 100000, not 0"
    )
    assert error(lambda: Length(timeout=-1)) == (
        "measurement Length: timeout must be a positive number of seconds, not -1"
    )
    assert error(lambda: Length(batch_size=2)) == "measurement Length has no compute_batch()"
    assert error(lambda: Measurement(key="x")) == "measurement Measurement has no compute()"
    assert repr(Length(version="2")) == "Length(key='length', version='2')"


@pytest.mark.slow
@both_runners
@sync_and_async
def test_a_batch_that_fails_is_not_taken_apart_when_the_run_is_over(runner: Runner, is_async: bool) -> None:
    calls: list[int] = []
    inside, go_on = threading.Event(), threading.Event()

    class Failing(Measurement):
        key, batch_size, max_wait = "failing", 3, float(PATIENCE)

        def compute_batch(self, batch: Any) -> Any:
            calls.append(len(batch))
            inside.set()
            wait(go_on)
            raise ValueError

    class FailingAsync(Measurement):
        key, batch_size, max_wait = "failing", 3, float(PATIENCE)

        async def compute_batch(self, batch: Any) -> Any:
            calls.append(len(batch))
            inside.set()
            await asyncio.Event().wait()

    @stage
    def fan_out(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), number) for number in range(3)]

    tested = FailingAsync() if is_async else Failing()
    run = runner.run(Pipeline(name="p", source=samples(0), stages=[fan_out], measurements=[tested]))
    consumer = threading.Thread(target=list, args=(run,))
    consumer.start()
    wait(inside)
    run.close()
    go_on.set()
    consumer.join()
    assert calls == [3]
    assert run.result is not None
    assert run.result.ledger.active == run.result.ledger.imbalance == run.result.ledger.ready == 0


def test_a_measurements_errors_are_those_of_stages() -> None:
    orchestrator = MeasurementOrchestrator()
    release = threading.Event()

    def slow(sample: Sample) -> None:
        wait(release)

    late = orchestrator.measure(measurement_of(slow, False, timeout=0.01), Sample(id="x", data=1))
    release.set()
    orchestrator.close()
    assert isinstance(late.error, StageTimeoutError)
    wrong = asyncio.run(
        orchestrator.measure_batch_async(
            measurement_of(lambda batch: 5, True, batch_size=2),
            [Item(Sample(id="x", data=1), copy_context())],
        )
    )
    assert isinstance(wrong.error, StageResultError)
    stopped = MeasurementOrchestrator(stop=release)
    assert isinstance(stopped.measure(measurement_of(lambda s: 1, False), Sample(id="x", data=1)).error, RunCancelled)
