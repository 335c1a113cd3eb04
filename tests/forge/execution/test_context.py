"""Which context variables are seen where."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from forge import Measurement, Pipeline, RetryPolicy, Run, Sample, SQLStorage, Stage, stage
from forge.execution.measurement_orchestrator import MeasurementOrchestrator
from forge.execution.stage_executor import StageExecutor
from tests.support.runs import both_runners, every_runner, samples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from forge.execution.item import Item
    from forge.runner import Runner
    from forge.storage import SampleRecord, WriteResult

user: ContextVar[str] = ContextVar("user", default="nobody")
scope: ContextVar[str] = ContextVar("scope", default="none")
span: ContextVar[str] = ContextVar("span", default="none")

KINDS = ["sync", "async", "timed", "timed async"]


def stage_of(function: Callable[[Any], Any], kind: str, **settings: Any) -> Stage:
    async def function_async(argument: Any) -> Any:
        await asyncio.sleep(0)
        return function(argument)

    more = {"timeout": 60} if "timed" in kind else {}
    return stage(**{"name": "tested"} | more | settings)(function_async if "async" in kind else function)


@pytest.fixture(autouse=True)
def scopes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a telemetry layer does: each sample gets a scope of its own where it enters the run."""
    admit = Run.admit

    def admitted(run: Run, item: Item) -> None:
        scope.set(item.sample.id)
        admit(run, item)

    monkeypatch.setattr(Run, "admit", admitted)


@every_runner
def test_what_the_caller_has_set_is_seen_everywhere(runner: Runner) -> None:
    seen: dict[str, str] = {}

    class Everything(Stage):
        def setup(self) -> None:
            seen["setup"] = user.get()

        def process(self, sample: Sample) -> Sample:
            seen["process"] = user.get()
            return sample

        def close(self) -> None:
            seen["close"] = user.get()

    class EverythingAsync(Stage):
        async def setup(self) -> None:
            seen["async setup"] = user.get()

        async def process(self, sample: Sample) -> Sample:
            seen["async process"] = user.get()
            return sample

        async def close(self) -> None:
            seen["async close"] = user.get()

    def note(name: str) -> Callable[[Any], Any]:
        def noted(argument: Any) -> Any:
            seen[name] = user.get()
            return argument

        return noted

    class Measured(Measurement):
        key = "measured"

        def compute(self, sample: Sample) -> int:
            seen["measurement"] = user.get()
            return 1

    class MeasuredAsync(Measurement):
        key, batch_size = "measured async", 2

        async def compute_batch(self, batch: Sequence[Sample]) -> list[int]:
            seen["async measurement"] = user.get()
            return [1] * len(batch)

    def source() -> Iterator[int]:
        seen["source"] = user.get()
        yield 1

    stages = [
        Everything(),
        EverythingAsync(),
        stage_of(note("timed"), "timed", name="timed"),
        stage_of(note("timed async"), "timed async", name="timed async"),
        stage_of(note("batch"), "sync", name="batch", batch_size=2),
        stage_of(note("async batch"), "async", name="async batch", batch_size=2),
    ]
    token = user.set("me")
    run = runner.run(Pipeline(name="p", source=source, stages=stages, measurements=[Measured(), MeasuredAsync()]))
    user.reset(token)
    run.drain()
    assert set(seen.values()) == {"me"}
    assert len(seen) == 13


@both_runners
def test_what_the_caller_has_set_is_seen_in_an_async_source(runner: Runner) -> None:
    seen: list[str] = []

    async def source() -> AsyncIterator[int]:
        seen.append(user.get())
        yield 1

    token = user.set("me")
    run = runner.run(Pipeline(name="p", source=source))
    user.reset(token)
    run.drain()
    assert seen == ["me"]


@every_runner
@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_runs_in_its_samples_context(runner: Runner, kind: str) -> None:
    seen: list[tuple[str, str]] = []

    def look(sample: Sample) -> Sample:
        seen.append((sample.id, scope.get()))
        return sample

    stages = [stage_of(look, kind, name=name, concurrency=3) for name in ("first", "second")]
    runner.run(Pipeline(name="p", source=samples(*range(20)), stages=stages)).drain()
    assert len(seen) == 40
    assert all(sample_id == found for sample_id, found in seen)


@both_runners
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_measurement_runs_in_its_samples_context(runner: Runner, is_async: bool, tmp_path: Path) -> None:
    class Where(Measurement):
        key = "where"

        def compute(self, sample: Sample) -> str:
            return scope.get()

    class WhereAsync(Measurement):
        key = "where"

        async def compute(self, sample: Sample) -> str:
            return scope.get()

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    measurement = WhereAsync() if is_async else Where()
    pipeline = Pipeline(name="p", source=samples(*range(5)), measurements=[measurement], storage=storage)
    assert all(sample.measurements == {"where": sample.id} for sample in runner.run(pipeline))
    storage.close()


@both_runners
@pytest.mark.parametrize("kind", KINDS)
def test_attempts_cannot_see_what_other_attempts_and_stages_set(runner: Runner, kind: str) -> None:
    seen: list[str] = []

    def leave(sample: Sample) -> Sample:
        seen.append(user.get())
        user.set("left behind")
        if len(seen) < 3:
            raise ConnectionError
        return sample

    policy = RetryPolicy(max_attempts=3, initial_delay=0)
    stages = [stage_of(leave, kind, name="first", retry=policy), stage_of(leave, kind, name="second")]
    assert runner.run(Pipeline(name="p", source=samples(1, 2), stages=stages)).drain().ledger.ready == 2
    assert seen == ["nobody"] * 6


@every_runner
@pytest.mark.parametrize("kind", KINDS)
def test_an_attempt_sees_what_was_attached_around_apply(
    runner: Runner, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, apply_async = StageExecutor.apply, StageExecutor.apply_async

    def traced(executor: StageExecutor, stage: Stage, sample: Sample) -> Any:
        assert scope.get() == sample.id
        token = span.set(f"{stage.name} of {sample.id}")
        try:
            return apply(executor, stage, sample)
        finally:
            span.reset(token)

    async def traced_async(executor: StageExecutor, stage: Stage, sample: Sample) -> Any:
        assert scope.get() == sample.id
        token = span.set(f"{stage.name} of {sample.id}")
        try:
            return await apply_async(executor, stage, sample)
        finally:
            span.reset(token)

    monkeypatch.setattr(StageExecutor, "apply", traced)
    monkeypatch.setattr(StageExecutor, "apply_async", traced_async)
    seen: list[tuple[str, str]] = []

    def look(sample: Sample) -> Sample:
        seen.append((sample.id, span.get()))
        if len(seen) == 1:
            raise ConnectionError
        return sample

    tested = stage_of(look, kind, concurrency=2, retry=RetryPolicy(max_attempts=2, initial_delay=0))
    runner.run(Pipeline(name="p", source=samples(*range(5)), stages=[tested])).drain()
    assert len(seen) == 6
    assert all(found == f"tested of {sample_id}" for sample_id, found in seen)


@both_runners
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_batch_runs_in_the_runs_context_and_reads_the_samples_scopes(
    runner: Runner, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Run.begin

    def begun(run: Run) -> None:
        span.set("the run")
        begin(run)

    monkeypatch.setattr(Run, "begin", begun)
    scopes: list[list[tuple[str, str | None]]] = []

    def note(items: Sequence[Item]) -> None:
        assert (scope.get(), span.get()) == ("none", "the run")
        scopes.append([(item.sample.id, item.context.get(scope)) for item in items])

    def watch(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def patched(self: Any, what: Any, items: Any) -> Any:
            note(items)
            return original(self, what, items)

        monkeypatch.setattr(owner, name, patched)

    watch(StageExecutor, "apply_batch")
    watch(StageExecutor, "apply_batch_async")
    watch(MeasurementOrchestrator, "measure_batch")
    watch(MeasurementOrchestrator, "measure_batch_async")
    seen: list[tuple[str, str]] = []

    def look(batch: Any) -> Any:
        seen.append((scope.get(), span.get()))
        return batch

    class Looked(Measurement):
        key, batch_size = "looked", 2

        def compute_batch(self, batch: Any) -> Any:
            return [sample.id for sample in look(batch)]

    class LookedAsync(Measurement):
        key, batch_size = "looked", 2

        async def compute_batch(self, batch: Any) -> Any:
            return [sample.id for sample in look(batch)]

    tested = stage_of(look, "async" if is_async else "sync", batch_size=2, max_wait=0)
    measurement = LookedAsync() if is_async else Looked()
    source = samples(*range(4))
    result = runner.run(Pipeline(name="p", source=source, stages=[tested], measurements=[measurement])).drain()
    assert result.ledger.ready == 4
    assert set(seen) == {("none", "the run")}
    assert sorted(pair for batch in scopes for pair in batch) == sorted([(i, i) for i in "0123"] * 2)


@both_runners
def test_writes_run_in_the_runs_context(runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    write = SQLStorage.write

    def noted(storage: SQLStorage, records: Sequence[SampleRecord]) -> WriteResult:
        seen.append((scope.get(), user.get()))
        return write(storage, records)

    monkeypatch.setattr(SQLStorage, "write", noted)
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    token = user.set("me")
    run = runner.run(Pipeline(name="p", source=samples(1, 2), storage=storage))
    user.reset(token)
    run.drain()
    assert set(seen) == {("none", "me")}
    storage.close()


@every_runner
def test_nothing_that_a_run_sets_reaches_the_consumer(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Run.begin

    def begun(run: Run) -> None:
        span.set("the run")
        begin(run)

    monkeypatch.setattr(Run, "begin", begun)
    for _ in runner.run(Pipeline(name="p", source=samples(1, 2))):
        assert (scope.get(), span.get()) == ("none", "none")
    assert (scope.get(), span.get()) == ("none", "none")
