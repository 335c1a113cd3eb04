"""Samples in flight: where each of them is."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Measurement, Pipeline, RetryPolicy, Run, Sample, StreamingRunner, stage
from forge.runner.in_flight import RunInFlight, SampleInFlight, Whereabouts, look
from tests.support.clock import FakeClock
from tests.support.runs import PATIENCE, samples, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Held:
    """A call that lasts until it is released."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()
        self.clock = clock

    def __call__(self) -> None:
        self.begun.set()
        if self.clock is not None:
            self.clock.advance(5)
        wait(self.release)


def during(run: Run, held: Held, until: Callable[[RunInFlight], bool] = lambda _: True) -> RunInFlight:
    """What is in flight during a call that is held, as soon as a condition is true."""
    thread = threading.Thread(target=run.drain)
    thread.start()
    try:
        wait(held.begun)
        deadline = time.monotonic() + PATIENCE
        while not until(found := look(run)):
            assert time.monotonic() < deadline, f"waited in vain: {found}"
    finally:
        held.release.set()
        thread.join(PATIENCE)
    return found


def by_id(found: RunInFlight) -> dict[str, SampleInFlight]:
    return {sample.sample_id: sample for sample in found.samples}


def test_calls_and_queues() -> None:
    clock = FakeClock()
    held = Held(clock)

    @stage
    def clean(sample: Sample) -> Sample:
        return sample

    @stage
    def label(sample: Sample) -> Sample:
        held()
        return sample

    run = StreamingRunner(clock=clock).run(Pipeline(name="p", source=samples(*range(3)), stages=[clean, label]))
    found = during(run, held, lambda found: all(sample.where == "label" for sample in found.samples))
    assert (found.run_id, found.pipeline, found.type, found.active, found.settled) == (run.id, "p", "full", 3, 0)
    assert (found.duration, found.silence) == (5, 5)
    first, *others = found.samples
    assert (first.sample_id, first.state, first.where, first.duration, first.attempt) == (
        "0", Whereabouts.CALL, "label", 5, 1,
    )  # fmt: skip
    assert [line.split(" in ")[1] for line in first.stack if __file__ in line] == [
        "test_calls_and_queues.<locals>.label",
        "Held.__call__",
    ]
    assert [
        (sample.sample_id, sample.state, sample.where, sample.stack)
        for sample in sorted(others, key=lambda s: s.sample_id)
    ] == [
        ("1", Whereabouts.QUEUED, "label", []),
        ("2", Whereabouts.QUEUED, "label", []),
    ]
    assert found.source == []


@pytest.mark.parametrize("timeout", [None, 100.0], ids=["", "timeout"])
def test_a_call_of_the_batch_runner(timeout: float | None) -> None:
    held = Held(clock := FakeClock())

    @stage(timeout=timeout)
    def label(sample: Sample) -> Sample:
        held()
        return sample

    run = BatchRunner(clock=clock).run(Pipeline(name="p", source=samples(1), stages=[label]))
    (sample,) = during(run, held, lambda found: any("Held" in line for s in found.samples for line in s.stack)).samples
    assert (sample.sample_id, sample.state, sample.where, sample.duration, sample.attempt) == (
        "0", Whereabouts.CALL, "label", 5, 1,
    )  # fmt: skip
    assert all("/src/forge/" not in line for line in sample.stack)


def test_a_batch() -> None:
    held = Held()

    @stage(batch_size=2)
    def label(sample: list[Sample]) -> list[Sample]:
        held()
        return sample

    run = BatchRunner().run(Pipeline(name="p", source=samples(1, 2), stages=[label]))
    found = by_id(during(run, held))
    assert {(each.state, each.where) for each in found.values()} == {(Whereabouts.CALL, "label")}
    assert len(found) == 2


def test_a_second_attempt_and_the_wait_before_it() -> None:
    held, waits, failed = Held(), Held(), threading.Event()

    class HeldClock(FakeClock):
        def wait(self, stop: threading.Event, seconds: float) -> bool:
            waits()
            return super().wait(stop, seconds)

    @stage(retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=0))
    def label(sample: Sample) -> Sample:
        if not failed.is_set():
            failed.set()
            raise TimeoutError
        held()
        return sample

    run = BatchRunner(clock=HeldClock()).run(Pipeline(name="p", source=samples(1), stages=[label]))
    thread = threading.Thread(target=run.drain)
    thread.start()
    wait(waits.begun)
    (waiting,) = look(run).samples
    waits.release.set()
    wait(held.begun)
    (again,) = look(run).samples
    held.release.set()
    thread.join(PATIENCE)
    assert (waiting.state, waiting.where, waiting.attempt, waiting.stack) == (Whereabouts.RETRY, "label", 2, [])
    assert (again.state, again.where, again.attempt) == (Whereabouts.CALL, "label", 2)


async def held_async(held: Held) -> None:
    """Hold a call that gives way meanwhile."""
    if held.clock is not None:
        held.clock.advance(5)
    held.begun.set()
    while not held.release.is_set():  # noqa: ASYNC110 - it is set by another thread
        await asyncio.sleep(0.01)


def named(stack: Sequence[str]) -> list[str]:
    """The functions of this file in a stack."""
    return [line.split(" in ")[1] for line in stack if __file__ in line]


@pytest.mark.parametrize("timeout", [None, 100.0], ids=["", "timeout"])
@pytest.mark.parametrize("kind", [BatchRunner, StreamingRunner])
def test_an_async_stage(kind: Callable[..., BatchRunner | StreamingRunner], timeout: float | None) -> None:
    held = Held(FakeClock())

    @stage(timeout=timeout, retry=RetryPolicy(max_attempts=2, initial_delay=0, jitter=0))
    async def label(sample: Sample) -> Sample:
        if not failed:
            failed.append(sample)
            raise TimeoutError
        await held_async(held)
        return sample

    failed: list[Sample] = []
    run = kind(clock=held.clock).run(Pipeline(name="p", source=samples(1), stages=[label]))
    (sample,) = during(run, held).samples
    assert (sample.state, sample.where, sample.duration, sample.attempt) == (Whereabouts.CALL, "label", 5, 2)
    assert named(sample.stack) == ["test_an_async_stage.<locals>.label", "held_async"]
    assert all("/src/forge/" not in line for line in sample.stack)


def test_an_async_stage_that_does_not_give_way() -> None:
    held = Held()

    @stage
    async def label(sample: Sample) -> Sample:
        held()
        return sample

    run = StreamingRunner().run(Pipeline(name="p", source=samples(1), stages=[label]))
    (sample,) = during(run, held, lambda found: any("Held" in line for s in found.samples for line in s.stack)).samples
    assert (sample.state, sample.where, sample.attempt) == (Whereabouts.CALL, "label", 1)
    assert named(sample.stack) == [
        "test_an_async_stage_that_does_not_give_way.<locals>.label",
        "Held.__call__",
    ]


def test_an_async_batch_that_waits_for_its_next_attempt() -> None:
    held = Held()

    class HeldClock(FakeClock):
        async def wait_async(self, seconds: float) -> None:
            await held_async(held)
            await super().wait_async(seconds)

    @stage(batch_size=2, retry=RetryPolicy(max_attempts=2, initial_delay=1, jitter=0))
    async def label(batch: list[Sample]) -> list[Sample]:
        if not failed:
            failed.append(True)
            raise TimeoutError
        return batch

    failed: list[bool] = []
    run = BatchRunner(clock=HeldClock()).run(Pipeline(name="p", source=samples(1, 2), stages=[label]))
    found = by_id(during(run, held))
    assert {(each.state, each.where, each.attempt) for each in found.values()} == {(Whereabouts.RETRY, "label", 2)}


def test_an_async_measurement() -> None:
    held = Held()

    class Length(Measurement):
        key, version = "length", "1"

        async def compute(self, sample: Sample) -> int:
            await held_async(held)
            return len(sample.id)

    run = StreamingRunner().run(Pipeline(name="p", source=samples(1), measurements=[Length()]))
    (sample,) = during(run, held).samples
    assert (sample.state, sample.where, sample.attempt) == (Whereabouts.CALL, "length", None)
    assert named(sample.stack)[0] == "test_an_async_measurement.<locals>.Length.compute"


def test_a_measurement() -> None:
    held = Held()

    class Length(Measurement):
        key, version = "length", "1"

        def compute(self, sample: Sample) -> int:
            del sample
            held()
            return 1

    run = StreamingRunner().run(Pipeline(name="p", source=samples(1, 2), measurements=[Length()]))
    found = by_id(during(run, held, lambda found: len(found.samples) == 2))
    assert {each.sample_id: (each.state, each.where) for each in found.values()} == {
        "0": (Whereabouts.CALL, "length"),
        "1": (Whereabouts.QUEUED, "length"),
    }
    assert "Length.compute" in found["0"].stack[0]


def test_the_source() -> None:
    held = Held()

    def source() -> Iterator[Any]:
        held()
        yield 1

    run = StreamingRunner().run(Pipeline(name="p", source=source))
    found = during(run, held, lambda found: bool(found.source))
    assert (found.active, found.samples) == (0, [])
    assert any("test_the_source.<locals>.source" in line for line in found.source)


def test_runs_side_by_side_are_told_apart() -> None:
    held = Held()

    @stage
    def label(sample: Sample) -> Sample:
        held()
        return sample

    other = BatchRunner().run(Pipeline(name="other", source=samples("x"), stages=[label]))
    thread = threading.Thread(target=other.drain)
    thread.start()
    wait(held.begun)
    run = BatchRunner().run(Pipeline(name="p", source=samples(1), stages=[label]))
    found = during(run, held, lambda found: bool(found.samples) and found.samples[0].state is Whereabouts.CALL)
    thread.join(PATIENCE)
    assert len(found.samples) == 1
