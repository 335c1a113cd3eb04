"""`StopIteration` of user code is an error: only an iterator's own `__next__` means the end of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from forge import JSONSerializer, Measurement, Pipeline, RetryPolicy, Run, Sample, SQLStorage, Stage, stage
from tests.support.runs import PATIENCE, both_runners, ledger, samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge.runner import Runner

stops = pytest.mark.parametrize("stop", [StopIteration, StopAsyncIteration])


def drained(run: Run) -> None:
    run.drain()


def iterated(run: Run) -> None:
    with run:
        for _ in run:
            pass


def drained_async(run: Run) -> None:
    asyncio.run(asyncio.wait_for(run.adrain(), PATIENCE))


def iterated_async(run: Run) -> None:
    async def iterate() -> None:
        async with run:
            async for _ in run:
                pass

    asyncio.run(asyncio.wait_for(iterate(), PATIENCE))


every_consumer = pytest.mark.parametrize("consume", [drained, iterated, drained_async, iterated_async])
sync_and_async = pytest.mark.parametrize("consume", [drained, drained_async])


class Part:
    """A part of a pipeline that raises in one of its methods."""

    def __init__(self, where: str, stop: type[Exception]) -> None:
        self.where, self.stop = where, stop

    def enter(self, where: str) -> None:
        if where == self.where:
            raise self.stop


class Stopping(Stage):
    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    def setup(self) -> Any:
        self.part.enter("setup")

    def process(self, sample: Sample) -> Any:
        return sample

    def close(self) -> Any:
        self.part.enter("close")


class StoppingAsync(Stopping):
    async def setup(self) -> None:
        self.part.enter("setup")

    async def process(self, sample: Sample) -> Sample:
        return sample

    async def close(self) -> None:
        self.part.enter("close")


class Source:
    def __init__(self, part: Part) -> None:
        self.part = part

    def __call__(self) -> Any:
        self.part.enter("call")
        return Opened(self.part)


class Opened:
    def __init__(self, part: Part) -> None:
        self.part = part

    def __iter__(self) -> Any:
        self.part.enter("iter")
        return self

    def __next__(self) -> Sample:
        self.part.enter("next")
        raise StopIteration

    def close(self) -> None:
        self.part.enter("close")


class AsyncSource(Source):
    def __call__(self) -> Any:
        self.part.enter("call")
        return OpenedAsync(self.part)


class OpenedAsync:
    def __init__(self, part: Part) -> None:
        self.part = part

    def __aiter__(self) -> Any:
        self.part.enter("iter")
        return self

    async def __anext__(self) -> Sample:
        self.part.enter("next")
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.part.enter("close")


def assert_failed(run: Run, consume: Callable[[Run], None], message: str) -> None:
    """The run has failed, and its consumer is told."""
    with pytest.raises(RuntimeError) as caught:
        consume(run)
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type) == ("failed", "RuntimeError")
    assert str(caught.value) == run.result.error == message
    assert type(caught.value.__cause__) in {StopIteration, StopAsyncIteration}
    assert list(run) == []


# A coroutine turns a `StopIteration` into such an error itself.
COROUTINE = "coroutine raised StopIteration"


@both_runners
@every_consumer
@stops
@pytest.mark.parametrize("where", ["setup", "close"])
@pytest.mark.parametrize("kind", [Stopping, StoppingAsync])
def test_of_a_stages_setup_or_close_is_raised_in_the_consumer(
    runner: Runner, consume: Callable[[Run], None], stop: type[Exception], where: str, kind: type[Stopping]
) -> None:
    run = runner.run(Pipeline(name="p", source=["a"], stages=[kind(Part(where, stop))]))
    by_python = kind is StoppingAsync and stop is StopIteration
    named = f"{where}() of stage {kind.__name__!r} raised {stop.__name__}"
    assert_failed(run, consume, COROUTINE if by_python else named)


@both_runners
@every_consumer
@stops
@pytest.mark.parametrize("where", ["call", "iter", "close"])
@pytest.mark.parametrize("kind", [Source, AsyncSource])
def test_of_opening_or_closing_a_source_is_raised_in_the_consumer(
    runner: Runner, consume: Callable[[Run], None], stop: type[Exception], where: str, kind: type[Source]
) -> None:
    run = runner.run(Pipeline(name="p", source=kind(Part(where, stop))))
    by_python = kind is AsyncSource and stop is StopIteration and where == "close"
    named = f"{'closing' if where == 'close' else 'opening'} the source raised {stop.__name__}"
    assert_failed(run, consume, COROUTINE if by_python else named)


@both_runners
@every_consumer
@pytest.mark.parametrize(
    ("kind", "stop", "message"),
    [
        (Source, StopAsyncIteration, "the run raised StopAsyncIteration"),
        (AsyncSource, StopIteration, COROUTINE),
    ],
)
def test_of_the_other_kind_of_iterator_does_not_end_a_source(
    runner: Runner, consume: Callable[[Run], None], kind: type[Source], stop: type[Exception], message: str
) -> None:
    assert_failed(runner.run(Pipeline(name="p", source=kind(Part("next", stop)))), consume, message)


@both_runners
@every_consumer
@pytest.mark.parametrize("kind", [Source, AsyncSource])
def test_of_its_own_kind_ends_a_source(runner: Runner, consume: Callable[[Run], None], kind: type[Source]) -> None:
    run = runner.run(Pipeline(name="p", source=kind(Part("", StopIteration))))
    consume(run)
    assert run.result is not None
    assert run.result.outcome == "completed"


@both_runners
@sync_and_async
@stops
@pytest.mark.parametrize(
    "kind", ["sync", "async", "timed", "timed async", "provider", "batch", "async batch", "measurement"]
)
def test_of_a_call_fails_the_sample(
    runner: Runner, consume: Callable[[Run], None], stop: type[Exception], kind: str
) -> None:
    def stopping(sample: Sample) -> Any:
        if sample.data == 1:
            raise stop
        return sample

    def of_batch(batch: list[Sample]) -> list[Sample]:
        return [stopping(sample) for sample in batch]

    async def stopping_async(argument: Any) -> Any:
        return of_batch(argument) if isinstance(argument, list) else stopping(argument)

    class Measured(Measurement):
        key = "measured"

        def compute(self, sample: Sample) -> int:
            return int(stopping(sample).data)

    settings: dict[str, Any] = {
        **({"timeout": PATIENCE} if "timed" in kind else {}),
        **({"batch_size": 2, "max_wait": 0} if "batch" in kind else {}),
        **({"provider": "openai"} if "provider" in kind else {}),
    }
    function = stopping_async if "async" in kind else of_batch if kind == "batch" else stopping
    tested = stage(name="tested", **settings)(function)
    parts: dict[str, Any] = {"measurements": [Measured()]} if kind == "measurement" else {"stages": [tested]}
    run = runner.run(Pipeline(name="p", source=samples(0, 1, 2), **parts))
    consume(run)
    assert ledger(run) == {"admitted": 3, "ready": 2, "failed": 1}
    assert run.result is not None
    by_python = "async" in kind and stop is StopIteration
    assert [failure.error_type for failure in run.result.failures] == ["RuntimeError" if by_python else stop.__name__]


@both_runners
@sync_and_async
@stops
def test_of_a_retry_policy_fails_the_sample(
    runner: Runner, consume: Callable[[Run], None], stop: type[Exception]
) -> None:
    def retry_on(error: BaseException) -> bool:
        raise stop

    @stage(retry=RetryPolicy(retry_on=retry_on))
    def failing(sample: Sample) -> Sample:
        raise ValueError

    run = runner.run(Pipeline(name="p", source=samples(0), stages=[failing]))
    consume(run)
    assert run.result is not None
    [failure] = run.result.failures
    assert (failure.where, failure.error_type, failure.count) == ("failing", stop.__name__, 1)


@both_runners
@sync_and_async
@stops
@pytest.mark.parametrize("measured", [False, True], ids=["data", "value"])
def test_of_a_serializer_makes_a_dead_letter(
    runner: Runner, consume: Callable[[Run], None], stop: type[Exception], measured: bool, tmp_path: Path
) -> None:
    class Serializer(JSONSerializer):
        def dumps(self, data: Any) -> bytes:
            if data == ("value" if measured else 1):
                raise stop
            return super().dumps(data)

    class Value(Measurement):
        key = "value"

        async def compute(self, sample: Sample) -> Any:
            return "value" if sample.data == 1 else sample.data

    pipeline = Pipeline(
        name="p",
        source=samples(0, 1, 2),
        measurements=[Value()] if measured else [],
        storage=SQLStorage(f"sqlite:///{tmp_path}/forge.db"),
        serializer=Serializer(),
    )
    run = runner.run(pipeline)
    consume(run)
    assert ledger(run) == {"admitted": 3, "ready": 2, "dlq": 1}
    assert [entry.error_type for entry in pipeline.dead_letters.list()] == [stop.__name__]


@pytest.mark.slow
@both_runners
@sync_and_async
@stops
@pytest.mark.parametrize("where", ["begin_run", "measured", "read", "end_run"])
def test_of_the_storage_ends_the_run(
    runner: Runner,
    consume: Callable[[Run], None],
    stop: type[Exception],
    where: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Length(Measurement):
        key = "length"

        async def compute(self, sample: Sample) -> int:
            return 1

    @stage
    async def split(sample: Sample) -> list[Sample]:
        return [sample.child("a", sample.data), sample.child("b", sample.data)]

    storage = SQLStorage("sqlite://")
    pipeline = Pipeline(name="p", source=samples("a"), stages=[split], measurements=[Length()], storage=storage)
    runner.run(pipeline).drain()

    def stopping(*_: Any, **__: Any) -> Any:
        raise stop

    monkeypatch.setattr(SQLStorage, where, stopping)
    again = type(runner)(resume=False) if where == "measured" else runner
    run = again.run(pipeline)
    with pytest.raises(RuntimeError):
        consume(run)
    assert run.result is not None
    assert (run.result.outcome, run.result.error_type) == ("failed", "RuntimeError")
