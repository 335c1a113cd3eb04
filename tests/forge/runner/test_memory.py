"""Memory grows with the queues, and not with the input."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from forge import JSONSerializer, Measurement, Pipeline, Sample, Skip, SQLStorage, Stage, StreamingRunner, stage
from forge.runner.committer import WRITE_BATCH
from tests.support.runs import PATIENCE, every_runner, ledger, samples, wait
from tests.support.telemetry import recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from forge.runner import Runner


class Census:
    """Counts how many pieces of data are alive."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collection may begin while it is held, and count from `__del__`
        self.alive = 0
        self.most = 0

    def count(self, change: int) -> None:
        with self._lock:
            self.alive += change
            self.most = max(self.most, self.alive)


class Data:
    def __init__(self, census: Census, number: int) -> None:
        self.census = census
        self.number = number
        census.count(1)

    def __del__(self) -> None:
        self.census.count(-1)


@stage(concurrency=2, queue_size=8)
def sync_stage(sample: Sample) -> Sample | Skip | list[Sample]:
    match sample.data.number % 4:
        case 0:
            return Skip("fourth")
        case 1:
            return [sample.child(key, Data(sample.data.census, 3)) for key in "ab"]
    return sample


@stage(concurrency=2, queue_size=8)
async def async_stage(sample: Sample) -> Sample:
    return sample


class Number(Measurement):
    key = "number"

    def compute(self, sample: Sample) -> int:
        return int(sample.data.number)


def most_alive(runner: Runner, count: int) -> int:
    census = Census()

    def source() -> Iterator[Sample]:
        for number in range(count):
            yield Sample(id=str(number), data=Data(census, number))

    pipeline = Pipeline(name="p", source=source, stages=[sync_stage, async_stage], measurements=[Number()])
    assert sum(1 for _ in runner.run(pipeline)) == count
    gc.collect()
    assert census.alive == 0
    return census.most


@pytest.mark.slow
@every_runner
def test_samples_under_way_are_as_many_as_the_queues_hold(runner: Runner) -> None:
    # Three queues of 8, 8 and 16, five workers with up to three samples each, the reader, and for what is through:
    # the queue, what is being settled, and what waits for the consumer.
    under_way = 8 + 8 + 16 + 5 * 3 + 1 + 3 * WRITE_BATCH
    # With an order, more may be held back, but no more than could be under way.
    assert most_alive(runner, 4000) <= 2 * under_way


@pytest.mark.slow
def test_an_ordered_run_holds_back_only_so_many_behind_a_slow_sample() -> None:
    release, stuck = threading.Event(), threading.Event()
    read = 0

    def source() -> Iterator[Sample]:
        nonlocal read
        for number in range(5000):
            read = number + 1
            if number == 2 * window - 1:
                stuck.set()  # more than the window lets in
            yield Sample(id=str(number), data=number)

    @stage(concurrency=2, queue_size=8)
    def first_is_slow(sample: Sample) -> Sample:
        if sample.data == 0:
            wait(release)
        return sample

    window = 8 + 2 + WRITE_BATCH
    run = StreamingRunner(ordered=True).run(Pipeline(name="p", source=source, stages=[first_is_slow]))
    out: list[int] = []
    consumer = threading.Thread(target=lambda: out.extend(sample.data for sample in run))
    consumer.start()
    # Everything that the window lets in is through, but for the first.
    while run.snapshot().ledger.settled < window - 1:
        assert consumer.is_alive()
    assert (read, out, stuck.is_set()) == (window, [], False)
    release.set()
    consumer.join()
    assert out == list(range(5000))


def test_a_consumer_that_does_not_come_back_stops_the_source(tmp_path: Path) -> None:
    read = 0

    def source() -> Iterator[Sample]:
        nonlocal read
        for number in range(100_000):
            read = number + 1
            yield Sample(id=str(number), data=number)

    pipeline = Pipeline(name="p", source=source, storage=SQLStorage(f"sqlite:///{tmp_path}/forge.db"))
    with StreamingRunner().run(pipeline) as run:
        next(run)
        # One batch waits for the consumer, one is settled, one is on its way there.
        while run.snapshot().ledger.admitted < 2 * WRITE_BATCH:
            assert run.result is None
    assert read <= 3 * WRITE_BATCH + 2


class RefusedError(Exception):
    """Unlike those of Python itself, it can be looked after when it is gone."""


class Refusal(Measurement):
    key = "refusal"

    def __init__(self, error: Callable[[], RefusedError], timeout: float | None) -> None:
        super().__init__(timeout=timeout)
        self._error = error

    def compute(self, sample: Sample) -> Any:
        raise self._error()


def refusing(kind: str, error: Callable[[], RefusedError]) -> tuple[list[Stage], list[Measurement]]:
    """A stage or a measurement of some kind that fails on every sample."""

    def refuse(_: Any) -> Any:
        raise error()

    async def refuse_later(_: Any) -> Any:
        raise error()

    timeout = PATIENCE if "timed" in kind else None
    if "measurement" in kind:
        return [], [Refusal(error, timeout)]
    function = refuse_later if "async" in kind else refuse
    return [stage(batch_size=2 if "batch" in kind else None, timeout=timeout)(function)], []


class Refused:
    """Data of a sample whose result is refused, or cannot be stored."""


class RefusingSerializer(JSONSerializer):
    """Stores that data, but no value that is measured on it."""

    def dumps(self, data: Any) -> bytes:
        if isinstance(data, Refused):
            return b"{}"
        raise ValueError("no such value")


def with_refused_results(kind: str) -> tuple[list[Stage], list[Measurement]]:
    """A stage or a measurement whose every result is refused, by nobody's code but ours and the serializer's."""
    batch_size = 2 if "batch" in kind else None

    class Unserialisable(Measurement):
        key = "value"

        def compute(self, sample: Sample) -> Any:
            return "value"

        def compute_batch(self, batch: Any) -> Any:
            return ["value"] * len(batch)

    class Later(Unserialisable):
        async def compute(self, sample: Sample) -> Any:
            return "value"

        async def compute_batch(self, batch: Any) -> Any:
            return ["value"] * len(batch)

    if "measurement" in kind:
        measurement: type[Measurement] = Later if "async" in kind else Unserialisable
        return [], [measurement(batch_size=batch_size)]

    def nothing(given: Any) -> Any:
        return [None] * len(given) if batch_size else None

    async def nothing_later(given: Any) -> Any:
        return nothing(given)

    return [stage(batch_size=batch_size)(nothing_later if "async" in kind else nothing)], []


@every_runner
@pytest.mark.parametrize("asynchronous", ["", "async "])
@pytest.mark.parametrize("kind", ["stage", "batch stage", "measurement", "batch measurement"])
def test_a_sample_whose_result_is_refused_is_gone_when_it_has_settled(
    runner: Runner, kind: str, asynchronous: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "forge")
    kept: list[weakref.ref[Refused]] = []

    def source() -> Iterator[Sample]:
        for number in range(3):
            data = Refused()
            kept.append(weakref.ref(data))
            yield Sample(id=str(number), data=data)
            del data

    stages, measurements = with_refused_results(asynchronous + kind)
    run = runner.run(
        Pipeline(
            name="p",
            source=source,
            stages=stages,
            measurements=measurements,
            storage=SQLStorage("sqlite://"),
            serializer=RefusingSerializer(),
        )
    )
    gc.disable()
    try:
        run.drain()
        assert ledger(run) == {"admitted": 3, "dlq": 3}
        assert [each() for each in kept] == [None] * 3
    finally:
        gc.enable()


@every_runner
@pytest.mark.parametrize("timed", ["", "timed "])
@pytest.mark.parametrize("kind", ["sync", "async", "batch", "async batch", "measurement"])
@pytest.mark.parametrize("sampling_rate", [None, 0.0, 1.0], ids=["off", "untraced", "traced"])
def test_the_error_of_a_sample_is_gone_when_that_has_settled(
    runner: Runner, timed: str, kind: str, sampling_rate: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Its traceback leads to the frames that it came through, and what is in them: none of that leads back to it, so
    it takes no garbage collector.
    """
    raised: list[weakref.ref[RefusedError]] = []
    caplog.set_level(logging.CRITICAL, "forge")  # pytest keeps the records of a log, and the errors in them

    def error() -> RefusedError:
        made = RefusedError()
        raised.append(weakref.ref(made))
        return made

    stages, measurements = refusing(timed + kind, error)
    with recording(sampling_rate=sampling_rate) if sampling_rate is not None else nullcontext():
        run = runner.run(Pipeline(name="p", source=samples(1, 2, 3), stages=stages, measurements=measurements))
        gc.disable()
        try:
            run.drain()
            assert ledger(run) == {"admitted": 3, "failed": 3}
            assert len(raised) >= 3
            assert [each() for each in raised] == [None] * len(raised)
        finally:
            gc.enable()
