"""Stages whose calls take less time than handing a sample over take together what waits, and hold nothing back."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from forge import Pipeline, Sample, StreamingRunner, stage
from forge.execution.item import Item
from forge.runner.queue import MAX_MICRO_BATCH, QueueClosed, StageQueue
from tests.support.clock import FakeClock
from tests.support.runs import PATIENCE, ledger, wait
from tests.support.telemetry import Histogram, recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forge import Run

SHORT = 2.0**-20
"""Seconds, about a millionth: adding them up makes no difference."""
COUNT = 10
"""As many as fit into a queue."""


def item(number: int) -> Item:
    return Item(Sample(id=str(number), data=number), copy_context())


def numbers(items: list[Item]) -> list[int]:
    return [each.sample.data for each in items]


class WatchedClock(FakeClock):
    """Says when it has been looked at so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.looked_at = threading.Event()
        self._left = times

    def monotonic(self) -> float:
        now = super().monotonic()
        self._left -= 1
        if self._left == 0:
            self.looked_at.set()
        return now


class Rehearsed:
    """A run whose first stage is in its first call until all samples wait in front of it, and takes them then."""

    def __init__(self, called: Callable[[int], None], *others: Any, first_call: float = SHORT) -> None:
        self.clock = FakeClock()
        self.calls: list[int] = []
        self.threads: set[int] = set()
        all_are_read = threading.Event()

        def source() -> Iterator[Sample]:
            for number in range(COUNT):
                yield Sample(id=str(number), data=number)
            all_are_read.set()

        @stage
        def first(sample: Sample) -> Sample:
            self.calls.append(sample.data)
            self.threads.add(threading.get_ident())
            if sample.data == 0:
                wait(all_are_read)
            self.clock.advance(SHORT if sample.data else first_call)
            called(sample.data)
            return sample

        self.pipeline = Pipeline(name="p", source=source, stages=[first, *others])

    def run(self) -> Run:
        return StreamingRunner(clock=self.clock).run(self.pipeline)


@pytest.mark.parametrize(("first_call", "still_wait"), [(SHORT, 0), (1.0, COUNT - 2)], ids=["quick", "slow"])
def test_a_quick_stage_takes_together_what_waits_and_a_slow_one_does_not(first_call: float, still_wait: int) -> None:
    depths: list[tuple[int, int, int]] = []

    def look(number: int) -> None:
        if number == 1:
            snapshot = run.snapshot()
            assert snapshot.ledger.imbalance == 0
            depths.append((snapshot.stages[0].queue_depth, snapshot.stages[0].active, snapshot.stages[0].executions))

    rehearsed = Rehearsed(look, first_call=first_call)
    run = rehearsed.run()
    assert ledger(run.drain()) == {"admitted": COUNT, "ready": COUNT}
    assert depths == [(still_wait, 1, 1)]
    assert rehearsed.calls == list(range(COUNT))
    assert len(rehearsed.threads) == 1


def test_each_sample_waits_until_its_own_call_and_is_measured_once() -> None:
    rehearsed = Rehearsed(lambda _: None)
    with recording() as recorded:
        result = rehearsed.run().drain()
    # All of them came at the same moment, and each waited for the calls before its own.
    total = sum(range(COUNT)) * SHORT
    assert recorded.points["forge.stage.queue.duration"] == {
        "pipeline.name=p, stage.name=first": Histogram(COUNT, total, 0.0, (COUNT - 1) * SHORT)
    }
    assert result.stages[0].queue_wait_p95 == pytest.approx(8 * SHORT, rel=0.01)
    assert result.stages[0].executions == COUNT


def test_a_call_may_wait_for_what_becomes_of_the_samples_before() -> None:
    arrived = [threading.Event() for _ in range(COUNT)]

    @stage
    def second(sample: Sample) -> Sample:
        arrived[sample.data].set()
        return sample

    def wait_for_those_before(number: int) -> None:
        if number:
            wait(arrived[number - 1])

    rehearsed = Rehearsed(wait_for_those_before, second)
    assert ledger(rehearsed.run().drain()) == {"admitted": COUNT, "ready": COUNT}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_long_call_does_not_hold_back_those_before_it(is_async: bool) -> None:
    done: list[int] = []
    all_before_are_done, go_on = threading.Event(), threading.Event()

    def note(sample: Sample) -> Sample:
        done.append(sample.data)
        if len(done) == COUNT - 1:
            all_before_are_done.set()
        return sample

    async def note_async(sample: Sample) -> Sample:
        await asyncio.sleep(0)
        return note(sample)

    def last_takes_long(number: int) -> None:
        if number == COUNT - 1:
            wait(go_on)

    rehearsed = Rehearsed(last_takes_long, stage(name="second")(note_async if is_async else note))
    run = rehearsed.run()
    consumer = threading.Thread(target=run.drain)
    consumer.start()
    wait(all_before_are_done)
    assert sorted(done) == list(range(COUNT - 1))
    go_on.set()
    consumer.join(PATIENCE)
    assert len(done) == COUNT


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["close", "KeyboardInterrupt"])
def test_what_was_taken_and_has_not_begun_settles_when_the_run_ends(ending: str) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def third_ends_it(number: int) -> None:
        if number == 3:
            if ending == "KeyboardInterrupt":
                raise KeyboardInterrupt
            reached.set()
            wait(go_on)

    rehearsed = Rehearsed(third_ends_it)
    run = rehearsed.run()
    if ending == "KeyboardInterrupt":
        with pytest.raises(KeyboardInterrupt):
            run.drain()
    else:
        consumer = threading.Thread(target=lambda: list(run))
        consumer.start()
        wait(reached)
        run.close()
        consumer.join(PATIENCE)
        go_on.set()
    assert run.result is not None
    counts = ledger(run)
    assert (counts["admitted"], counts["failed"] + counts.get("ready", 0)) == (COUNT, COUNT)
    assert counts["failed"] >= COUNT - 3
    first = run.result.stages[0]
    assert (first.executions, first.successes, first.cancelled) == (4, 3, 1)
    assert rehearsed.calls == [0, 1, 2, 3]


def test_who_sets_a_limit_means_it() -> None:
    depths: list[int] = []
    read: list[int] = []
    full = threading.Event()

    def source() -> Iterator[Sample]:
        for number in range(100):
            read.append(number)
            # Two that are through, one in the stage, two in front of it, one in the hands of the reader.
            if number == 5:
                full.set()
            yield Sample(id=str(number), data=number)

    @stage(queue_size=2)
    def only(sample: Sample) -> Sample:
        if sample.data == 2:
            wait(full)
            while run.snapshot().stages[0].queue_depth < 2:
                pass
            depths.append(len(read))
        return sample

    run = StreamingRunner(clock=FakeClock()).run(Pipeline(name="p", source=source, stages=[only]))
    run.drain()
    assert depths == [6]


# The queue.


def test_what_is_offered_waits_for_whoever_finds_the_queue_empty() -> None:
    clock = FakeClock()
    queue = StageQueue(2, stage="s", clock=clock)
    queue.put(item(0))
    for number in (1, 2, 3):
        assert queue.enqueue_unlocked(item(number)) == 0.0
    clock.advance(2.5)
    assert queue.depth == 1
    first = queue.get()
    assert first is not None
    assert (first.sample.data, first.waited) == (0, 2.5)
    assert queue.depth == 2  # there was room for those that were offered
    clock.advance(1.0)
    rest = queue.take_waiting(MAX_MICRO_BATCH)
    assert numbers(rest) == [1, 2, 3]
    clock.advance(0.5)
    queue.begin(rest[0])
    assert rest[0].waited == 4.0
    queue.enqueue_unlocked(item(4))
    queue.finish()
    assert numbers(queue.take_waiting(MAX_MICRO_BATCH)) == [4]
    assert queue.take_waiting(MAX_MICRO_BATCH) == []


def test_no_more_is_offered_than_may_lie_there() -> None:
    clock = WatchedClock(MAX_MICRO_BATCH + 2)
    queue = StageQueue(1, stage="s", clock=clock)
    for number in range(MAX_MICRO_BATCH):
        assert queue.enqueue_unlocked(item(number)) == 0.0
    assert queue.depth == 1  # the last one put in what fits
    seconds: list[float] = []
    offering = threading.Thread(
        target=lambda: seconds.append(queue.enqueue_unlocked(item(MAX_MICRO_BATCH))), daemon=True
    )
    offering.start()
    wait(clock.looked_at)  # it looks once more because there is no room, and holds the queue's lock until it waits
    clock.advance(2.5)
    taken: list[Item] = []
    while len(taken) <= MAX_MICRO_BATCH:
        taken += queue.take_waiting(1)
    offering.join(PATIENCE)
    assert seconds == [2.5]
    assert numbers(taken) == list(range(MAX_MICRO_BATCH + 1))


def test_a_closed_queue_ends_who_offers_too_much() -> None:
    queue = StageQueue(1)
    for number in range(MAX_MICRO_BATCH):
        queue.enqueue_unlocked(item(number))
    closed: list[bool] = []

    def offer_in_vain() -> None:
        with pytest.raises(QueueClosed):
            queue.enqueue_unlocked(item(MAX_MICRO_BATCH))
        closed.append(True)

    thread = threading.Thread(target=offer_in_vain)
    thread.start()
    queue.close()
    thread.join(PATIENCE)
    assert closed == [True]


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "task"])
def test_nobody_waits_for_what_is_offered(is_async: bool) -> None:
    """Each sample is offered when the one before it has arrived: while the taker is about to wait, or waits already."""
    queue = StageQueue(2)
    arrived = threading.Semaphore(0)

    def take() -> None:
        while queue.get() is not None:
            arrived.release()

    async def take_async() -> None:
        while await queue.get_async() is not None:
            arrived.release()

    taker = threading.Thread(target=(lambda: asyncio.run(take_async())) if is_async else take)
    taker.start()
    for number in range(2000):
        queue.enqueue_unlocked(item(number))
        assert arrived.acquire(timeout=PATIENCE), f"sample {number} was left lying"
    queue.finish()
    taker.join(PATIENCE)
    assert not taker.is_alive()
