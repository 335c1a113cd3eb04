"""A source is closed exactly once, to its end, however a run ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

import pytest

from forge import BatchRunner, Pipeline, Run, Sample, StreamingRunner, stage
from forge.runner import Runner
from tests.support.runs import PATIENCE, both_runners, wait

COUNT = 50
LAST = 5
"""The sample at which a run ends before its source does."""


class Source:
    """Notes how often it is opened, closed, and how often closing it came to its end."""

    def __init__(self, fails: BaseException | None = None, hangs_at: int | None = None) -> None:
        self.opened = self.closed = self.finished = 0
        self.fails = fails
        self.hangs_at = hangs_at
        self.hanging, self.release, self.over = threading.Event(), threading.Event(), threading.Event()
        self.closing = threading.Event()

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.opened, self.closed, self.finished

    def begin_close(self) -> None:
        self.closed += 1
        self.closing.set()
        if self.fails is not None:
            raise self.fails

    def end_close(self) -> None:
        self.finished += 1
        self.over.set()

    def generator(self) -> Iterator[int]:
        self.opened += 1
        try:
            for number in range(COUNT):
                if number == self.hangs_at:
                    self.hanging.set()
                    wait(self.release)
                yield number
        finally:
            self.begin_close()
            self.end_close()

    async def async_generator(self) -> AsyncIterator[int]:
        self.opened += 1
        try:
            for number in range(COUNT):
                await self.pause(number)
                yield number
        finally:
            self.begin_close()
            await asyncio.sleep(0.02)  # longer than the end of the run needs to come to its tasks
            self.end_close()

    async def pause(self, number: int) -> None:
        if number == self.hangs_at:
            self.hanging.set()
            await asyncio.sleep(PATIENCE)
        await asyncio.sleep(0)


class Closable:
    """An iterator with a `close`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.numbers = iter(range(COUNT))

    def __iter__(self) -> Self:
        self.source.opened += 1
        return self

    def __next__(self) -> int:
        return next(self.numbers)

    def close(self) -> None:
        self.source.begin_close()
        self.source.end_close()


class AsyncClosable:
    """An async iterator with an `aclose`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.numbers = iter(range(COUNT))

    def __aiter__(self) -> Self:
        self.source.opened += 1
        return self

    async def __anext__(self) -> int:
        for number in self.numbers:
            await self.source.pause(number)
            return number
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.source.begin_close()
        await asyncio.sleep(0.02)
        self.source.end_close()


KINDS: dict[str, Callable[[Source], Any]] = {
    "generator": lambda source: source.generator(),
    "async_generator": lambda source: source.async_generator(),
    "callable": lambda source: source.generator,
    "async_callable": lambda source: source.async_generator,
    "iterator": Closable,
    "async_iterator": AsyncClosable,
}
every_kind = pytest.mark.parametrize("kind", KINDS)
async_kinds = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("async")])


class WantedError(Exception):
    pass


def run_of(runner: Runner, source: Source, kind: str, error: BaseException | None, *, is_async: bool) -> Run:
    def process(sample: Sample) -> Sample:
        if sample.data == LAST and error is not None:
            raise error
        return sample

    async def process_async(sample: Sample) -> Sample:
        return process(sample)

    step = stage(name="step")(process_async if is_async else process)
    return runner.run(Pipeline(name="p", source=KINDS[kind](source), stages=[step]))


def consume(run: Run, ending: str) -> None:
    """Consume a run, and end it in this way."""
    with run:
        for sample in run:
            if sample.data == LAST and ending != "exhausted":
                if ending == "closed":
                    run.close()
                if ending == "failed":
                    raise WantedError
                return


async def consume_async(run: Run, ending: str) -> None:
    async with run:
        async for sample in run:
            if sample.data == LAST and ending != "exhausted":
                if ending == "closed":
                    await asyncio.to_thread(run.close)
                if ending == "failed":
                    raise WantedError
                return


def consumed(run: Run, ending: str, *, is_async: bool) -> None:
    if is_async:
        asyncio.run(consume_async(run, ending))
    else:
        consume(run, ending)


@both_runners
@every_kind
@pytest.mark.parametrize("ending", ["exhausted", "left", "closed", "failed"])
@pytest.mark.parametrize("is_async", [False, True], ids=["for", "async_for"])
def test_it_is_closed_once_when_the_consumer_ends_the_run(
    runner: Runner, kind: str, ending: str, is_async: bool
) -> None:
    source = Source()
    run = run_of(runner, source, kind, None, is_async=is_async)
    if ending == "failed":
        with pytest.raises(WantedError):
            consumed(run, ending, is_async=is_async)
    else:
        consumed(run, ending, is_async=is_async)
    assert source.counts == (1, 1, 1)


@pytest.mark.parametrize("kind", ["async_generator", "async_callable"])
def test_a_source_at_its_end_is_left_to_clean_up(kind: str) -> None:
    source = Source()

    def fail_at_the_end(run: Run) -> None:
        with run:
            next(run)
            wait(source.closing)
            raise WantedError

    with pytest.raises(WantedError):
        fail_at_the_end(run_of(StreamingRunner(), source, kind, None, is_async=False))
    assert source.counts == (1, 1, 1)


@both_runners
@every_kind
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_it_is_closed_once_when_a_stage_is_interrupted(
    runner: Runner, kind: str, error: BaseException, is_async: bool
) -> None:
    source = Source()
    with pytest.raises(type(error)):
        run_of(runner, source, kind, error, is_async=is_async).drain()
    assert source.counts == (1, 1, 1)


@both_runners
@every_kind
@pytest.mark.parametrize("error", [WantedError(), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_closing_raises_is_raised_in_the_consumer(runner: Runner, kind: str, error: BaseException) -> None:
    source = Source(fails=error)
    run = run_of(runner, source, kind, None, is_async=False)
    with pytest.raises(type(error)):
        run.drain()
    assert source.counts == (1, 1, 0)
    assert run.result is not None
    assert run.result.outcome == ("failed" if isinstance(error, WantedError) else "cancelled")


@async_kinds
def test_an_async_source_that_hangs_is_cancelled_and_closed(kind: str) -> None:
    source = Source(hangs_at=LAST)
    with run_of(StreamingRunner(), source, kind, None, is_async=False) as run:
        next(run)
        wait(source.hanging)
    assert source.counts == (1, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["generator", "callable"])
def test_a_sync_source_that_hangs_is_closed_when_it_returns(kind: str) -> None:
    source = Source(hangs_at=LAST)
    with run_of(StreamingRunner(), source, kind, None, is_async=False) as run:
        next(run)
        wait(source.hanging)
    assert source.counts == (1, 0, 0)
    source.release.set()
    wait(source.over)
    assert source.counts == (1, 1, 1)


@pytest.mark.slow
def test_a_source_that_does_not_close_in_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(AsyncClosable):
        async def aclose(self) -> None:
            self.source.begin_close()
            await asyncio.sleep(PATIENCE)

    messages: list[str] = []
    said = threading.Event()

    def warning(text: str, *arguments: Any) -> None:
        messages.append(text % arguments)
        said.set()

    monkeypatch.setattr(logging.getLogger("forge"), "warning", warning)
    source = Source()
    pipeline = Pipeline(name="p", source=Slow(source))
    with BatchRunner().run(pipeline) as run:
        next(run)
    wait(said)
    assert source.counts == (1, 1, 0)
    assert messages == [f"the source of {pipeline!r} did not close in time, when run {run.id} ended"]
