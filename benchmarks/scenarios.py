"""The stage calls that are timed, made where a runner makes them: for admitted samples, each in its own context."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import mean
from time import process_time
from typing import Any

from forge import Pipeline, RetryPolicy, Run, Sample, Stage, stage
from forge.execution.item import Item
from forge.execution.stage_executor import StageExecutor
from forge.runner.base import Runner
from forge.runner.committer import Committer
from forge.runner.driver import Driver
from forge.runner.queue import StageQueue

RUNS = 4
"""Runs that are made each time; the fastest counts."""

Loop = Callable[[StageExecutor, Stage, Sequence[Item], int], float]
"""Makes so many calls of a stage for these items, in all; returns the processor seconds of one call."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One kind of stage call. Buffers of the telemetry that are emptied when they are full are so during its run."""

    name: str
    label: str
    stage: Stage
    loop: Loop
    calls: int = 512
    """Calls that are timed together,"""
    together: int = 1
    """for so many samples, which then settle,"""
    times: int = 1
    """so many times in a run."""


def seconds_per_call(scenario: Scenario, stage: Stage, share: int = 1) -> float:
    """Time the calls of a scenario, with a stage in place of its own; only one of `share` calls is made."""
    return min(_in_a_run(scenario, stage, scenario.calls // share) for _ in range(RUNS))


def _in_a_run(scenario: Scenario, stage: Stage, calls: int) -> float:
    seconds: list[float] = []

    def work(executor: StageExecutor, items: Sequence[Item]) -> None:
        seconds.append(scenario.loop(executor, stage, items, calls))

    source = [Sample(id=f"sample-{number}", data=number) for number in range(scenario.together * scenario.times)]
    HandOver(work, scenario.together).run(Pipeline(name="benchmark", source=source, stages=[stage])).drain()
    return mean(seconds)


class HandOver(Runner):
    """Hands samples that it has admitted, so many at a time, to a function in the place of the stages, and settles them
    as ready.
    """

    name = "benchmark"

    def __init__(self, work: Callable[[StageExecutor, Sequence[Item]], None], together: int) -> None:
        super().__init__()
        self._work = work
        self._together = together

    def driver(self, run: Run) -> _Driver:
        return _Driver(run, self._work, self._together)


class _Driver(Driver):
    remote = False

    def __init__(self, run: Run, work: Callable[[StageExecutor, Sequence[Item]], None], together: int) -> None:
        self.output = StageQueue(1, clock=run.clock)
        self._run = run
        self._work = work
        self._together = together
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = self._run.thread(self._drive, "benchmark")

    def close(self) -> None:
        self.output.close()

    def join(self, timeout: float) -> None:
        if self._thread is not None:
            self._thread.join(timeout)

    def _drive(self) -> None:
        with self._run.supervise(self.output.finish):
            samples, committer = iter(self._run.take, None), Committer(self._run)
            while items := list(islice(samples, self._together)):
                self._work(self._run.executor, items)
                committer.settle(items)
            self._run.close_source()


def one_by_one(executor: StageExecutor, stage: Stage, items: Sequence[Item], calls: int) -> float:
    each = calls // len(items)

    def loop(sample: Sample) -> None:
        apply = executor.apply
        for _ in range(each):
            apply(stage, sample)

    loops = [(item.context.copy().run, item.sample) for item in items]
    started = process_time()
    for run, sample in loops:
        run(loop, sample)
    return (process_time() - started) / (each * len(items))


def awaited(executor: StageExecutor, stage: Stage, items: Sequence[Item], calls: int) -> float:
    each = calls // len(items)

    async def loop(sample: Sample) -> None:
        apply = executor.apply_async
        for _ in range(each):
            await apply(stage, sample)

    async def one_after_the_other() -> float:
        tasks = asyncio.get_running_loop().create_task
        started = process_time()
        for item in items:
            await tasks(loop(item.sample), context=item.context.copy())
        return (process_time() - started) / (each * len(items))

    return asyncio.run(one_after_the_other())


def in_batches(executor: StageExecutor, stage: Stage, items: Sequence[Item], calls: int) -> float:
    apply = executor.apply_batch
    started = process_time()
    for _ in range(calls):
        apply(stage, items)
    return (process_time() - started) / calls


def same(sample: Sample) -> Sample:
    """A stage that does nothing: what is left is the cost of calling it."""
    return sample


def refuse(sample: Sample) -> Sample:
    raise ValueError(f"{sample.data} is refused")


class Hesitant(Stage):
    """Fails in the first attempt of every call and succeeds in the second, at once."""

    name = "hesitant"
    retry = RetryPolicy(max_attempts=2, initial_delay=0)
    _willing = True

    def process(self, sample: Sample) -> Sample:
        self._willing = not self._willing
        if not self._willing:
            raise ConnectionError("connection reset")
        return sample


async def same_later(sample: Sample) -> Sample:
    return sample


def same_batch(samples: Sequence[Sample]) -> Any:
    return list(samples)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="call", label="succeeds", stage=stage(same), loop=one_by_one, calls=64, together=8, times=32),
        # Not more in a run, so that they stay within the number of stack traces that a run writes.
        Scenario(name="failed", label="fails", stage=stage(refuse), loop=one_by_one),
        Scenario(name="retried", label="retried once", stage=Hesitant(), loop=one_by_one),
        Scenario(name="async", label="async", stage=stage(same_later), loop=awaited, calls=64, together=8, times=32),
        Scenario(
            name="batch",
            label="batch of 16",
            stage=stage(batch_size=16)(same_batch),
            loop=in_batches,
            calls=8,
            together=16,
            times=16,
        ),
    )
}
