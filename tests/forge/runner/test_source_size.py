"""How many samples a source still has, where it says its size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forge import BatchRunner, Pipeline, Run, Sample, SQLStorage, Stage, StreamingRunner, stage, usage
from forge.runner import Runner
from tests.support.runs import both_runners, samples


class Watched(Stage):
    """Notes what remains as each sample passes."""

    def __init__(self) -> None:
        super().__init__()
        self.run: Run | None = None
        self.seen: list[int | None] = []

    def process(self, sample: Sample) -> Sample:
        assert self.run is not None
        self.seen.append(self.run.snapshot().source_remaining)
        return sample


def remaining(source: Any, **settings: Any) -> list[int | None]:
    """What remains as each sample passes, and when the run has ended."""
    watched = Watched()
    watched.run = BatchRunner().run(Pipeline(name="p", source=source, stages=[watched], **settings))
    watched.run.drain()
    return [*watched.seen, watched.run.snapshot().source_remaining]


class Sized:
    """Three samples, of which it says something."""

    def __init__(self, length: Callable[[], Any]) -> None:
        self.length = length

    def __len__(self) -> int:
        length: int = self.length()
        return length

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class SizedAsync(Sized):
    def __aiter__(self) -> AsyncIterator[int]:
        async def numbers() -> AsyncIterator[int]:
            for number in range(3):
                yield number

        return numbers()

    __iter__ = None  # type: ignore[assignment]


def generator() -> Iterator[int]:
    yield from range(3)


def fails() -> int:
    raise NotImplementedError("streamed")


@pytest.mark.parametrize(
    "source",
    [[1, 2, 3], range(3), {"a": 1, "b": 2, "c": 3}, lambda: [1, 2, 3], lambda: Sized(lambda: 3), SizedAsync(lambda: 3)],
    ids=["list", "range", "dictionary", "function", "iterable", "async"],
)
def test_a_source_with_a_length_says_what_remains(source: Any) -> None:
    assert remaining(source) == [2, 1, 0, 0]


@pytest.mark.parametrize(
    "source",
    [generator, iter([1, 2, 3]), *(Sized(length) for length in (fails, lambda: -1, lambda: "3", lambda: 2**80))],
    ids=["generator", "iterator", "raises", "negative", "text", "too large"],
)
def test_a_source_without_a_length_or_with_a_broken_one_says_nothing(source: Any) -> None:
    assert remaining(source) == [None] * 4


@pytest.mark.parametrize(("length", "said"), [(1, [0, 0, 0, 0]), (5, [4, 3, 2, 0])])
def test_a_wrong_length_does_no_harm(length: int, said: list[int]) -> None:
    assert remaining(Sized(lambda: length)) == said


def test_before_the_source_is_opened_nothing_is_known() -> None:
    asked: list[int] = []

    def length() -> int:
        asked.append(1)
        return 3

    run = BatchRunner().run(Pipeline(name="p", source=Sized(length)))
    assert run.snapshot().source_remaining is None
    run.drain()
    assert asked == [1]


@both_runners
def test_when_a_run_ends_early_nothing_remains(runner: Runner) -> None:
    @stage
    def costly(sample: Sample) -> Sample:
        usage.report(provider="openai", amount=1)
        return sample

    limited = runner.run(Pipeline(name="p", source=range(1000), stages=[costly], max_cost=2))
    limited.drain()
    assert limited.snapshot().source_remaining == 0
    with runner.run(Pipeline(name="p", source=range(1000), stages=[costly])) as left:
        next(left)
    assert left.snapshot().source_remaining == 0


@both_runners
def test_dead_letters_that_are_taken_up_again_are_a_source_with_a_size(runner: Runner, tmp_path: Path) -> None:
    class Fails(Watched):
        def process(self, sample: Sample) -> Sample:
            super().process(sample)
            raise ValueError

    storage, fails = SQLStorage(f"sqlite:///{tmp_path / 'x.db'}"), Fails()
    made = Pipeline(name="p", source=samples(1, 2, 3), stages=[fails], storage=storage)
    fails.run = runner.run(made)
    fails.run.drain()
    fails.run = runner.replay(made, ["1", "2"])
    fails.seen.clear()
    fails.run.drain()
    storage.close()
    assert fails.run.result is not None
    assert (fails.run.result.ledger.admitted, fails.run.snapshot().source_remaining) == (2, 0)
    if isinstance(runner, StreamingRunner):
        assert set(fails.seen) <= {0, 1}  # the source is ahead of the stage
    else:
        assert fails.seen == [1, 0]
