"""An instrumented seam gives what the plain one gives, in whatever way its arguments are given."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from forge import BatchRunner, Measurement, Pipeline, Sample, Stage, stage
from forge.execution.item import Item
from forge.execution.measurement_orchestrator import MeasurementOrchestrator
from forge.execution.stage_executor import StageExecutor
from forge_otel.engine import fast_path
from tests.support.clock import FakeClock
from tests.support.telemetry import Recorded, recording


class Seam(NamedTuple):
    """A method that is called for every sample or batch."""

    owner: type
    name: str

    @property
    def function(self) -> Callable[..., Any]:
        """The method as it is now: plain, or instrumented."""
        function: Callable[..., Any] = getattr(self.owner, self.name)
        return function

    @property
    def is_batch(self) -> bool:
        return "batch" in self.name

    @property
    def is_async(self) -> bool:
        return self.name.endswith("_async")


class Way(NamedTuple):
    """A way to call a seam: the names of the arguments by position, and of those by keyword."""

    positional: Sequence[str]
    keywords: Sequence[str]


SEAMS = [
    Seam(owner, f"{name}{batch}{mode}")
    for owner, name in ((StageExecutor, "apply"), (MeasurementOrchestrator, "measure"))
    for batch in ("", "_batch")
    for mode in ("", "_async")
]
PLACES = {"alone": None, "in a traced run": 1.0, "in an untraced run": 0.0}
"""Where a seam is called, with the sampling rate of the run. In a run it goes the fast path."""

BEFORE, DURING = 4.0, 1.0
"""Seconds from `started` to the call, and from the call to its end."""

Action = Callable[[Any, dict[str, Callable[[], Any]]], Awaitable[None]]
"""What a test does with the object that a seam belongs to, given the values of all arguments, each made by a call."""

every_seam = pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.name)
everywhere = pytest.mark.parametrize("rate", PLACES.values(), ids=PLACES)


def ways(seam: Seam) -> Iterator[Way]:
    """Every right way to call a seam: with and without what is optional, so many by position, the rest by keyword."""
    parameters = list(inspect.signature(seam.function).parameters.values())[1:]
    required = [each.name for each in parameters if each.default is each.empty]
    for given in {len(parameters): [each.name for each in parameters], len(required): required}.values():
        for count in range(len(given) + 1):
            yield Way(given[:count], given[count:])


def wrong_ways(seam: Seam) -> Iterator[Way]:
    """Ways with an argument too few or too many, by position or by keyword."""
    names = list(inspect.signature(seam.function).parameters)[1:]
    yield Way(names[:1], [])
    yield Way([*names, "started"], [])
    yield Way(names, ["surplus"])
    yield Way([], [*names, "surplus"])
    yield Way(names, names[-1:])
    if "started" not in names:
        yield Way(names, ["started"])
        yield Way([], [*names, "started"])


def component(seam: Seam, clock: FakeClock) -> Any:
    """The stage or measurement of a seam, which takes a second."""

    def work(given: Any) -> Any:
        clock.advance(DURING)
        if seam.owner is StageExecutor:
            return list(given) if seam.is_batch else given
        return [7] * len(given) if seam.is_batch else 7

    async def work_async(given: Any) -> Any:
        return work(given)

    batch_size = 2 if seam.is_batch else None
    function: Any = work_async if seam.is_async else work
    if seam.owner is StageExecutor:
        return stage(name="work", batch_size=batch_size)(function)
    method = "compute_batch" if seam.is_batch else "compute"
    members = {"key": "work", "batch_size": batch_size, method: staticmethod(function)}
    return type("Work", (Measurement,), members)()


def values(subject: Stage | Measurement, payload: Any, clock: FakeClock) -> dict[str, Callable[[], Any]]:
    """The values of all arguments of all seams, each made when it is given."""
    what = "stage" if isinstance(subject, Stage) else "measurement"
    return {
        what: lambda: subject,
        "sample": lambda: payload,
        "items": lambda: payload,
        "started": lambda: clock.monotonic() - BEFORE,
        "surplus": lambda: 1,
    }


async def call(function: Callable[..., Any], owner: object, way: Way, values: Mapping[str, Callable[[], Any]]) -> Any:
    result = function(
        owner,
        *(values[name]() for name in way.positional),
        **{name: values[name]() for name in way.keywords},
    )
    return await result if inspect.isawaitable(result) else result


def perform(seam: Seam, rate: float | None, clock: FakeClock, action: Action) -> None:
    """Do something where a seam is called: alone, or in the place of a run's first call."""
    samples = [Sample(id=name, data=name, pipeline="p") for name in ("a", "b")]
    work = component(seam, clock)
    if rate is None:
        items = [Item(sample, contextvars.copy_context()) for sample in samples]
        given = values(work, items if seam.is_batch else samples[0], clock)
        asyncio.run(action(seam.owner(clock=clock), given))  # type: ignore[arg-type]  # a coroutine
        return
    instrumented, done = seam.function, False

    async def instead(self: Any, subject: Any, payload: Any, *more: Any) -> Any:
        nonlocal done
        if not done:
            done = True
            await action(self, values(subject, payload, clock))
        result = instrumented(self, subject, payload, *more)
        return await result if inspect.isawaitable(result) else result

    def instead_sync(*arguments: Any) -> Any:
        return asyncio.run(instead(*arguments))

    stages = [work] if isinstance(work, Stage) else [stage(name="same")(lambda sample: sample)]
    measurements = [] if isinstance(work, Stage) else [work]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(seam.owner, seam.name, instead if seam.is_async else instead_sync)
        pipeline = Pipeline(name="p", source=samples, stages=stages, measurements=measurements)
        BatchRunner(clock=clock).run(pipeline).drain()
    assert done


@contextmanager
def slow_calls() -> Iterator[list[str]]:
    """The names of the operations that go the slow path within the block."""
    slow: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        for name in ("observe", "observe_async"):
            patched.setattr(fast_path, name, noting(getattr(fast_path, name), slow))
        yield slow


def noting(observe: Callable[..., Any], slow: list[str]) -> Callable[..., Any]:
    def noted(operation: Any, *arguments: Any, **keywords: Any) -> Any:
        slow.append(operation.name)
        return observe(operation, *arguments, **keywords)

    return noted


def emitted(recorded: Recorded) -> Any:
    return recorded.points, len(recorded.spans), recorded.events


@everywhere
@every_seam
def test_results_are_the_same_however_arguments_are_given(seam: Seam, rate: float | None) -> None:
    plain, clock = seam.function, FakeClock()
    right = list(ways(seam))
    results: list[tuple[Way, Any, Any]] = []

    async def compare(owner: Any, given: dict[str, Callable[[], Any]]) -> None:
        for way in right:
            results.append((way, await call(plain, owner, way, given), await call(instrumented, owner, way, given)))

    with recording(sampling_rate=rate or 0.0), slow_calls() as slow:
        instrumented = seam.function
        assert instrumented is not plain
        perform(seam, rate, clock, compare)
    assert len(results) == len(right) >= 3
    for way, expected, actual in results:
        assert (way, actual) == (way, expected)
        since_started = "started" in [*way.positional, *way.keywords]
        assert (way, actual.duration) == (way, BEFORE + DURING if since_started else DURING)
    assert bool(slow) == (rate is None)


@everywhere
@every_seam
def test_a_wrong_call_raises_type_error_and_records_nothing(seam: Seam, rate: float | None) -> None:
    plain, clock = seam.function, FakeClock()
    wrong = list(wrong_ways(seam))
    tried: list[Way] = []

    async def refuse(owner: Any, given: dict[str, Callable[[], Any]]) -> None:
        before = emitted(recorded)
        for way in wrong:
            for function in (plain, instrumented):
                with pytest.raises(TypeError):
                    await call(function, owner, way, given)
            assert (way, emitted(recorded)) == (way, before)
            tried.append(way)

    # A fault is not to be raised: it might be a TypeError, too.
    with recording(raise_faults=False, sampling_rate=rate or 0.0) as recorded:
        instrumented = seam.function
        perform(seam, rate, clock, refuse)
    assert tried == wrong
