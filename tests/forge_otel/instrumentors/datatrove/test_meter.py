"""Counts of the steps of a task, by steps of all kinds. They are functions, as datatrove takes them too."""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forge_otel.instrumentors.datatrove.meter import FLUSH_INTERVAL, TaskMeter, TaskReport, step_names

Data = Iterator[int] | None


def read(data: Data, rank: int, world_size: int) -> Iterator[int]:
    yield from range(6)


def keep(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
    yield from data


def drop_odd(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
    return (number for number in data if number % 2 == 0)


def double(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
    for number in data:
        yield from (number, number)


def first_two(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
    yield next(data)
    yield next(data)


def consume(data: Iterator[int], rank: int, world_size: int) -> None:
    deque(data, maxlen=0)


def yield_nothing(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
    deque(data, maxlen=0)
    yield from ()


def collect(data: Iterator[int], rank: int, world_size: int) -> list[int]:
    return sorted(data)


def fail_at_four(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
    for number in data:
        if number == 4:
            raise ValueError("four")
        yield number


def fail_at_once(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
    raise ValueError("at once")


def run(*steps: Any, clock: Callable[[], float] = lambda: 0.0) -> tuple[TaskMeter, list[TaskReport], list[Any]]:
    """Run the steps as datatrove does; returns the meter, its reports and what the last step has yielded."""
    reports: list[TaskReport] = []
    meter = TaskMeter(steps, clock, reports.append)
    data: Any = None
    found: list[Any] = []
    try:
        for step in meter.observed_steps():
            data = step(data, 0, 1) if callable(step) else step
        found.extend(data or ())
    except ValueError:
        pass
    reports.append(meter.end(completed=meter.failure is None))
    return meter, reports, found


def summed(reports: list[TaskReport]) -> tuple[dict[str, tuple[int, dict[str, int]]], tuple[int, int, int]]:
    """For each step what has passed and what was dropped; documents that were admitted, derived and are ready."""
    passed: Counter[str] = Counter()
    skips: dict[str, Counter[str]] = {}
    for report in reports:
        for step in report.steps:
            passed[step.step] += step.passed
            skips.setdefault(step.step, Counter()).update(step.skips)
    admitted, ready = (sum(values) for values in zip(*[report[1:] for report in reports], strict=True))
    derived = sum(step.derived for report in reports for step in report.steps)
    return {step: (passed[step], dict(skips[step])) for step in skips}, (admitted, derived, ready)


@pytest.mark.parametrize(
    ("steps", "counts", "samples"),
    [
        ((read, keep), {"read": (6, {}), "keep": (6, {})}, (6, 0, 6)),
        ((read, drop_odd, keep), {"read": (6, {}), "drop_odd": (3, {"dropped": 3}), "keep": (3, {})}, (6, 0, 3)),
        ((read, double), {"read": (6, {}), "double": (12, {})}, (6, 6, 12)),
        ((read, first_two), {"read": (2, {}), "first_two": (2, {})}, (2, 0, 2)),
        ((read, consume), {"read": (6, {}), "consume": (6, {})}, (6, 0, 6)),
        ((read, drop_odd, consume), {"read": (6, {}), "drop_odd": (3, {"dropped": 3}), "consume": (3, {})}, (6, 0, 3)),
        ((read, yield_nothing), {"read": (6, {}), "yield_nothing": (6, {})}, (6, 0, 6)),
        (
            (read, yield_nothing, keep),
            {"read": (6, {}), "yield_nothing": (0, {"dropped": 6}), "keep": (0, {})},
            (6, 0, 0),
        ),
        ((read, collect), {"read": (6, {}), "collect": (6, {})}, (6, 0, 6)),
        ((read, collect, keep), {"read": (6, {}), "collect": (6, {}), "keep": (6, {})}, (6, 0, 6)),
        (([1, 2, 3], keep), {"keep": (3, {})}, (3, 0, 3)),
        ((read, consume, read), {"read": (6, {}), "consume": (6, {}), "read_2": (6, {})}, (12, 0, 12)),
    ],
    ids=lambda value: "-".join(getattr(step, "__name__", "list") for step in value) if isinstance(value, tuple) else "",
)
def test_counts(steps: Any, counts: Any, samples: Any) -> None:
    found = summed(run(*steps)[1])
    assert found == (counts, samples)
    passed = sum(sum(skips.values()) for _, skips in counts.values())
    assert samples[0] + samples[1] == samples[2] + passed  # every document settles


def test_documents_are_the_same() -> None:
    documents = [object() for _ in range(3)]
    assert run(lambda *_: iter(documents), keep)[2] == documents


def test_failures() -> None:
    meter, reports, found = run(read, keep, fail_at_four, keep)
    assert found == [0, 1, 2, 3]
    assert (meter.failed_step, str(meter.failure)) == ("fail_at_four", "four")
    assert summed(reports)[1] == (5, 0, 4)  # one is left
    meter, reports, _ = run(read, fail_at_once)
    assert (meter.failed_step, str(meter.failure)) == ("fail_at_once", "at once")
    assert summed(reports)[1] == (0, 0, 0)


def test_an_error_that_a_step_catches_is_none() -> None:
    def careful(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
        try:
            yield from data
        except ValueError:
            yield 100

    reports: list[TaskReport] = []
    meter = TaskMeter([read, fail_at_four, careful], lambda: 0.0, reports.append)
    data: Any = None
    for step in meter.observed_steps():
        data = step(data, 0, 1)
    assert list(data) == [0, 1, 2, 3, 100]


def test_reports_while_it_goes_on() -> None:
    now = [0.0]

    def slow(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
        for number in data:
            now[0] += FLUSH_INTERVAL / 2
            yield number

    _, reports, _ = run(read, slow, clock=lambda: now[0])
    assert [(report.admitted, report.ready) for report in reports] == [(2, 2), (2, 2), (2, 2), (0, 0)]
    assert [report.steps[1].passed for report in reports] == [2, 2, 2, 0]
    assert sum(report.steps[1].busy for report in reports) == 6 * FLUSH_INTERVAL / 2
    assert sum(len(report.steps[1].durations) for report in reports) == 6


def test_what_was_reported_as_derived_has_to_settle() -> None:
    """Documents that a step yields in addition are reported at the next occasion, less those that it has dropped until
    then; what it drops later is all reported, too."""
    now = [0.0]

    def slow(data: Iterator[int], rank: int, world_size: int) -> Iterator[int]:
        for number in data:
            now[0] += FLUSH_INTERVAL
            yield from [number] * 3 if number == 0 else []

    _, reports, found = run(read, slow, keep, clock=lambda: now[0])
    assert found == [0, 0, 0]
    assert [report.steps[1].derived for report in reports][:3] == [0, 1, 0]
    assert summed(reports) == (
        {"read": (6, {}), "slow": (3, {"dropped": 4}), "keep": (3, {})},
        (6, 1, 3),
    )


def test_observed_steps_are_like_the_real_ones() -> None:
    class Step:
        stats = "mine"

        def __call__(self, *_: Any) -> None: ...

        def __repr__(self) -> str:
            return "READER: me"

    step, function = TaskMeter([Step(), read], lambda: 0.0, lambda _: None).observed_steps()
    assert (step.stats, repr(step)) == ("mine", "READER: me")
    assert not hasattr(function, "stats")  # so datatrove counts nothing of it


def test_names() -> None:
    class Quality:
        def __init__(self, name: str | None = None) -> None:
            if name is not None:
                self.name = name

        def __call__(self) -> None: ...

    steps = [
        Quality(),
        Quality(),
        Quality("👯 my quality"),
        Quality("😈"),
        read,
        functools.partial(read, rank=1),
        lambda _: 1,
    ]
    assert step_names(steps) == [
        *("Quality", "Quality_2", "my quality", "Quality_3"),
        *("read", "read_2", "lambda"),
    ]
