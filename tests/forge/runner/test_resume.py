"""What is stored when a sample has settled, and what a second run makes of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import forge
from forge import (
    BatchRunner,
    Measurement,
    Pipeline,
    RetryPolicy,
    Sample,
    Skip,
    SQLStorage,
    Stage,
    StreamingRunner,
    stage,
)
from forge.errors import ConfigurationError, NotReplayableError
from tests.support.runs import (
    PATIENCE,
    both_runners,
    every_runner,
    ledger,
    rows,
    samples,
    wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from forge.runner import Runner
    from forge.storage import ReadResult


class World:
    """A pipeline whose stages count what they are called with, and fail where they are told to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls: Counter[tuple[str, str]] = Counter()
        self.bad: set[str] = set()
        self.source: list[Sample] = samples("a b", "skip", "c", "d e f")

    def pipeline(self, **changes: Any) -> Pipeline:
        world = self

        def count(name: str, sample: Sample) -> None:
            world.calls[name, sample.id] += 1
            if sample.id in world.bad:
                raise ValueError(f"{sample.id} is bad")

        @stage
        def first(sample: Sample) -> Sample | Skip:
            count("first", sample)
            return Skip("asked") if sample.data == "skip" else sample

        @stage
        def words(sample: Sample) -> Sample | list[Sample]:
            count("words", sample)
            parts = sample.data.split()
            return [sample.child(part, part) for part in parts] if len(parts) > 1 else sample

        @stage
        async def upper(sample: Sample) -> Sample:
            count("upper", sample)
            return sample.with_data(sample.data.upper())

        class Length(Measurement):
            key = "length"

            def compute(self, sample: Sample) -> int:
                world.calls["length", sample.id] += 1
                return len(sample.data)

        settings: dict[str, Any] = {
            "name": "p",
            "source": lambda: iter(world.source),
            "stages": [first, words, upper],
            "measurements": [Length()],
            "storage": SQLStorage(self.url),
        }
        return Pipeline(**settings | changes)

    def called(self) -> dict[tuple[str, str], int]:
        """The calls since the last question."""
        calls, self.calls = self.calls, Counter()
        return dict(calls)


@pytest.fixture
def world(storage_url: str) -> World:
    return World(storage_url)


EVERYTHING = {
    "0": "split",
    "0#a": "ready",
    "0#b": "ready",
    "1": "skipped",
    "2": "ready",
    "3": "split",
    "3#d": "ready",
    "3#e": "ready",
    "3#f": "ready",
}


@every_runner
def test_what_has_settled_is_stored(world: World, runner: Runner) -> None:
    run = runner.run(world.pipeline())
    assert {sample.id: (sample.data, sample.measurements) for sample in run} == {
        "0#a": ("A", {"length": 1}),
        "0#b": ("B", {"length": 1}),
        "2": ("C", {"length": 1}),
        "3#d": ("D", {"length": 1}),
        "3#e": ("E", {"length": 1}),
        "3#f": ("F", {"length": 1}),
    }
    storage = SQLStorage(world.url)
    stored = {record.id: record for record in storage.query("p").samples}
    storage.close()
    assert {sample_id: record.status for sample_id, record in stored.items()} == EVERYTHING
    assert stored["3"].children == ("3#d", "3#e", "3#f")
    assert (stored["3#d"].parent, stored["3#d"].data, stored["3#d"].values) == ("3", b'"D"', {("length", "1"): b"1"})
    assert (stored["1"].reason, stored["1"].data) == ("asked", None)
    assert {record.run_id for record in stored.values()} == {run.id}


@both_runners
def test_measurements_see_leaf_samples_only(world: World, runner: Runner) -> None:
    runner.run(world.pipeline()).drain()
    measured = {sample_id for name, sample_id in world.called() if name == "length"}
    assert measured == {"0#a", "0#b", "2", "3#d", "3#e", "3#f"}


@both_runners
def test_a_second_run_finds_everything_unchanged_and_runs_no_stage(world: World, runner: Runner) -> None:
    runner.run(world.pipeline()).drain()
    world.called()
    run = runner.run(world.pipeline())
    assert list(run) == []
    assert ledger(run) == {"admitted": 4, "unchanged": 4}
    assert world.called() == {}


class SlowStorage(SQLStorage):
    """Its first look-up waits until the source has been read to its end."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.read_on = threading.Event()
        self.looks: list[list[str]] = []

    def read(self, pipeline: str, ids: Iterable[str]) -> ReadResult:
        self.looks.append(list(ids))
        wait(self.read_on)
        return super().read(pipeline, self.looks[-1])


@pytest.mark.parametrize("runner", [StreamingRunner(), StreamingRunner(ordered=True)], ids=["streaming", "ordered"])
def test_what_arrives_during_a_look_up_is_looked_up_together(tmp_path: Path, runner: Runner) -> None:
    url = f"sqlite:///{tmp_path}/forge.db"
    storage = SlowStorage(url)

    def source() -> Iterator[Sample]:
        yield from samples(*range(10))
        storage.read_on.set()

    BatchRunner().run(Pipeline(name="p", source=samples(*range(5)), storage=SQLStorage(url))).drain()
    run = runner.run(Pipeline(name="p", source=source, storage=storage))
    assert sorted(sample.data for sample in run) == [5, 6, 7, 8, 9]
    assert ledger(run) == {"admitted": 10, "unchanged": 5, "ready": 5}
    # Those of the first look, and all others.
    assert len(storage.looks) <= 2
    assert [sample_id for look in storage.looks for sample_id in look] == [str(number) for number in range(10)]


@both_runners
def test_what_failed_runs_again_and_its_dead_letter_goes_with_the_success(world: World, runner: Runner) -> None:
    world.bad = {"2"}
    pipeline = world.pipeline()
    assert ledger(runner.run(pipeline).drain())["dlq"] == 1
    assert [entry.sample_id for entry in pipeline.dead_letters.list()] == ["2"]
    world.called()
    world.bad = set()
    run = runner.run(pipeline)
    assert [sample.id for sample in run] == ["2"]
    assert ledger(run) == {"admitted": 4, "unchanged": 3, "ready": 1}
    assert world.called() == {(name, "2"): 1 for name in ("first", "words", "upper", "length")}
    assert pipeline.dead_letters.list() == []
    assert pipeline.dead_letters.snapshot().depth == {("stage", "first"): 0}
    pipeline.storage.close()  # type: ignore[union-attr]


@both_runners
def test_a_split_with_a_child_that_failed_runs_again_and_its_ready_children_are_unchanged(
    world: World, runner: Runner
) -> None:
    world.bad = {"3#e"}
    runner.run(world.pipeline()).drain()
    world.called()
    world.bad = set()
    run = runner.run(world.pipeline())
    assert [sample.id for sample in run] == ["3#e"]
    assert ledger(run) == {"admitted": 4, "derived": 3, "split": 1, "unchanged": 5, "ready": 1}
    assert world.called() == {("first", "3"): 1, ("words", "3"): 1, ("upper", "3#e"): 1, ("length", "3#e"): 1}
    assert rows(SQLStorage(world.url)) == EVERYTHING


@pytest.mark.slow
@both_runners
def test_a_nested_split_is_unchanged_only_with_all_its_descendants(storage_url: str, runner: Runner) -> None:
    bad = {"0#x#y"}
    called: list[str] = []

    @stage
    def outer(sample: Sample) -> list[Sample]:
        called.append(sample.id)
        return [sample.child("x", 1)]

    @stage
    def inner(sample: Sample) -> list[Sample]:
        called.append(sample.id)
        return [sample.child("y", 2), sample.child("z", 3)]

    @stage
    def last(sample: Sample) -> Sample:
        called.append(sample.id)
        if sample.id in bad:
            raise ValueError
        return sample

    pipeline = Pipeline(name="p", source=samples(0), stages=[outer, inner, last], storage=SQLStorage(storage_url))
    runner.run(pipeline).drain()
    bad.clear()
    called.clear()
    assert ledger(runner.run(pipeline).drain()) == {"admitted": 1, "derived": 3, "split": 2, "unchanged": 1, "ready": 1}
    assert sorted(called) == ["0", "0#x", "0#x#y"]
    assert ledger(runner.run(pipeline).drain()) == {"admitted": 1, "unchanged": 1}
    storage = SQLStorage(storage_url)
    storage.delete("p", ["0#x#z"])
    storage.close()
    assert ledger(runner.run(pipeline).drain())["split"] == 2


@both_runners
def test_other_input_runs_again(world: World, runner: Runner) -> None:
    runner.run(world.pipeline()).drain()
    world.called()
    world.source[2] = Sample(id="2", data="changed")
    run = runner.run(world.pipeline())
    assert [sample.data for sample in run] == ["CHANGED"]
    assert ledger(run) == {"admitted": 4, "unchanged": 3, "ready": 1}
    storage = SQLStorage(world.url)
    [record] = storage.read("p", ["2"]).samples
    storage.close()
    assert (record.data, record.values) == (b'"CHANGED"', {("length", "1"): b"7"})


@both_runners
def test_resume_can_be_switched_off(world: World, runner: Runner) -> None:
    runner.run(world.pipeline()).drain()
    world.called()
    again: Runner = BatchRunner(resume=False) if isinstance(runner, BatchRunner) else StreamingRunner(resume=False)
    result = again.run(world.pipeline()).drain()
    assert ledger(result) == {"admitted": 4, "derived": 5, "split": 2, "skipped": 1, "ready": 6}
    assert {name for name, _ in world.called()} == {"first", "words", "upper"}
    assert (result.measurements[0].cached, result.measurements[0].computed) == (6, 0)
    assert (result.storage.inserted, result.storage.updated, result.storage.unchanged) == (0, 0, 9)


@both_runners
def test_a_new_version_of_a_stage_runs_everything_again(world: World, runner: Runner) -> None:
    old = world.pipeline()
    runner.run(old).drain()
    world.called()
    new = world.pipeline()
    new.stages[2].version = "2"
    new = world.pipeline(stages=new.stages)
    assert new.id != old.id
    result = runner.run(new).drain()
    assert ledger(result)["ready"] == 6
    # The data that is measured is the same as before, so the values are.
    assert (result.measurements[0].cached, result.measurements[0].computed) == (6, 0)
    assert ledger(runner.run(new).drain()) == {"admitted": 4, "unchanged": 4}


@both_runners
def test_a_new_version_of_a_measurement_computes_again_and_keeps_the_old_value(
    storage_url: str, runner: Runner
) -> None:
    class Answer(Measurement):
        key = "answer"

        def compute(self, sample: Sample) -> str:
            return f"{self.version} for {sample.data}"

    def run(version: str) -> forge.RunResult:
        return runner.run(
            Pipeline(
                name="p",
                source=samples("x"),
                measurements=[Answer(version=version)],
                storage=SQLStorage(storage_url),
            )
        ).drain()

    assert run("1").measurements[0].computed == 1
    assert run("2").measurements[0].computed == 1
    storage = SQLStorage(storage_url)
    [record] = storage.read("p", ["0"]).samples
    assert record.values == {("answer", "2"): b'"2 for x"'}
    old = storage.measured("p", [("0", record.digest or "")], "answer", "1")
    assert old == {"0": b'"1 for x"'}
    storage.close()
    back = run("1")
    assert (back.measurements[0].computed, back.measurements[0].cached) == (0, 1)


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize("batch_size", [None, 2], ids=["single", "batch"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_measurements_are_cached_by_what_they_were_computed_from(
    tmp_path: Path, runner: Runner, batch_size: int | None, is_async: bool
) -> None:
    computed: list[str] = []
    multiplier = [1]

    @stage
    def multiply(sample: Sample) -> Sample:
        return sample.with_data(sample.data * multiplier[0])

    def value(sample: Sample) -> int:
        computed.append(sample.id)
        return int(sample.data)

    class Sync(Measurement):
        key = "value"

        def compute(self, sample: Sample) -> int:
            return value(sample)

        def compute_batch(self, batch: Any) -> list[int]:
            return [value(sample) for sample in batch]

    class Async(Measurement):
        key = "value"

        async def compute(self, sample: Sample) -> int:
            return value(sample)

        async def compute_batch(self, batch: Any) -> list[int]:
            return [value(sample) for sample in batch]

    def run(version: str) -> forge.RunResult:
        pipeline = Pipeline(
            name="p",
            source=samples(0, 1, 2),
            stages=[multiply.__class__(multiply.function, version=version)],
            measurements=[(Async if is_async else Sync)(batch_size=batch_size)],
            storage=SQLStorage(f"sqlite:///{tmp_path}/forge.db"),
        )
        result = runner.run(pipeline).drain()
        assert result.ledger.ready == 3
        return result

    assert run("1").measurements[0].computed == 3
    assert run("2").measurements[0].cached == 3
    computed.clear()
    multiplier[0] = 10
    tens = run("3").measurements[0]
    assert (sorted(computed), tens.computed, tens.cached) == (["1", "2"], 2, 1)
    multiplier[0] = 1
    back = run("4").measurements[0]
    assert (back.computed, back.cached) == (0, 3)


def test_the_pipeline_id_hashes_what_decides_the_results(tmp_path: Path) -> None:
    class A(Stage):
        def process(self, sample: Sample) -> Sample:
            return sample

    class B(A):
        pass

    class M(Measurement):
        key = "m"

        def compute(self, sample: Sample) -> int:
            return 1

    def identity(**changes: Any) -> str:
        settings: dict[str, Any] = {"name": "p", "source": [], "stages": [A(), B()], "measurements": [M()]}
        return Pipeline(**settings | changes).id

    usual = identity()
    same = [
        identity(source=[1]),
        identity(storage=SQLStorage(f"sqlite:///{tmp_path}/x.db")),
        identity(stages=[A(concurrency=4), B(timeout=3)]),
        identity(stages=[A(retry=RetryPolicy(max_attempts=9)), B(latency_budget=1, queue_size=3)]),
        identity(measurements=[M(concurrency=3, timeout=2)]),
        identity(expected_interval=60),
        identity(hourly_budget=5),
    ]
    assert set(same) == {usual}
    others = [
        identity(name="q"),
        identity(stages=[B(), A()]),
        identity(stages=[A()]),
        identity(stages=[A(), B(name="C")]),
        identity(stages=[A(), B(version="2")]),
        identity(measurements=[]),
        identity(measurements=[M(version="2")]),
        identity(measurements=[M(key="n")]),
    ]
    assert len({usual, *others}) == 1 + len(others)


@both_runners
def test_a_sample_without_an_id_is_recognised_by_its_content(storage_url: str, runner: Runner) -> None:
    def pipeline(*data: Any) -> Pipeline:
        return Pipeline(name="p", source=list(data), storage=SQLStorage(storage_url))

    [sample] = runner.run(pipeline("x"))
    assert sample.digest is not None
    assert sample.id == sample.digest[:32]
    assert ledger(runner.run(pipeline("x", "y")).drain()) == {"admitted": 2, "unchanged": 1, "ready": 1}


@pytest.mark.slow
@both_runners
def test_replay_takes_dead_letters_through_again(world: World, runner: Runner) -> None:
    world.bad = {"2", "3#e"}
    pipeline = world.pipeline()
    runner.run(pipeline).drain()
    world.called()
    world.bad = {"2"}
    run = runner.replay(pipeline)
    assert [sample.id for sample in run] == ["3#e"]
    assert ledger(run) == {"admitted": 2, "ready": 1, "dlq": 1}
    # The derived one went on behind the stage that derived it, with the data that it was derived with.
    assert world.called() == {("first", "2"): 1, ("upper", "3#e"): 1, ("length", "3#e"): 1}
    assert [(entry.sample_id, entry.run_id) for entry in pipeline.dead_letters.list()] == [("2", run.id)]
    world.bad = set()
    assert ledger(runner.replay(pipeline, ["2"]).drain()) == {"admitted": 1, "ready": 1}
    assert pipeline.dead_letters.list() == []
    assert rows(SQLStorage(world.url)) == EVERYTHING
    assert ledger(runner.run(world.pipeline()).drain()) == {"admitted": 4, "unchanged": 4}
    pipeline.storage.close()  # type: ignore[union-attr]


@pytest.mark.slow
@both_runners
def test_a_derived_sample_keeps_its_parent_when_it_is_replayed(world: World, runner: Runner) -> None:
    world.bad = {"3#e"}
    pipeline = world.pipeline()
    runner.run(pipeline).drain()
    world.bad = set()
    [sample] = runner.replay(pipeline)
    assert sample.parent == "3"


@pytest.mark.slow
@both_runners
def test_a_dead_letter_behind_a_stage_that_is_gone_stays_one(world: World, runner: Runner) -> None:
    world.bad = {"3#e"}
    pipeline = world.pipeline()
    runner.run(pipeline).drain()
    shorter = world.pipeline(stages=[pipeline.stages[0], pipeline.stages[2]])
    assert ledger(runner.replay(shorter).drain()) == {"admitted": 1, "dlq": 1}
    [entry] = shorter.dead_letters.list()
    assert (entry.where, entry.error_type) == ("words", "forge.errors.SourceError")
    assert "'words'" in entry.message
    world.bad = set()
    assert ledger(runner.replay(pipeline).drain()) == {"admitted": 1, "ready": 1}
    for each in (pipeline, shorter):
        each.storage.close()  # type: ignore[union-attr]


@both_runners
def test_replay_says_what_cannot_be_replayed(tmp_path: Path, runner: Runner) -> None:
    @stage
    def opaque(sample: Sample) -> Sample:
        return sample.with_data(object())

    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    pipeline = Pipeline(name="p", source=samples(1), stages=[opaque], storage=storage)
    runner.run(pipeline).drain()
    assert ledger(runner.replay(pipeline).drain()) == {}
    with pytest.raises(NotReplayableError, match="the dead letter of '0' has no data"):
        runner.replay(pipeline, ["0"])
    with pytest.raises(ConfigurationError, match="pipeline 'p' has no dead letter for nobody"):
        runner.replay(pipeline, ["nobody"])
    with pytest.raises(ConfigurationError, match="has no storage"):
        runner.replay(Pipeline(name="p", source=[]))
    storage.close()


@both_runners
def test_the_entry_goes_in_the_transaction_that_stores_the_success(tmp_path: Path, runner: Runner) -> None:
    file = tmp_path / "forge.db"
    world = World(f"sqlite:///{file}")
    world.bad = {"2"}
    pipeline = world.pipeline()
    runner.run(pipeline).drain()
    world.bad = set()
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TRIGGER keep BEFORE DELETE ON forge_dead_letters BEGIN SELECT RAISE(ABORT, 'kept'); END"
        )
    connection.close()
    assert ledger(runner.replay(pipeline).drain()) == {"admitted": 1, "dlq": 1}
    [entry] = pipeline.dead_letters.list()
    assert (entry.sample_id, entry.source, entry.where) == ("2", "storage", "sqlite")
    assert rows(SQLStorage(world.url))["2"] == "dlq"
    pipeline.storage.close()  # type: ignore[union-attr]


@both_runners
def test_the_dead_letter_and_the_status_are_written_in_one_transaction(tmp_path: Path, runner: Runner) -> None:
    file = tmp_path / "forge.db"
    world = World(f"sqlite:///{file}")
    world.source = samples("c")
    runner.run(world.pipeline()).drain()
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TRIGGER none BEFORE INSERT ON forge_dead_letters BEGIN SELECT RAISE(ABORT, 'none'); END"
        )
    connection.close()
    world.source = samples("changed")
    world.bad = {"0"}
    assert ledger(runner.run(world.pipeline()).drain()) == {"admitted": 1, "failed": 1}
    assert rows(SQLStorage(world.url)) == {"0": "ready"}


SCRIPT = """
import asyncio, os, signal, sys
from forge import *

kind, url, fatal = sys.argv[1:]

@stage(concurrency=2)
def decode(sample):
    if sample.data == 13:
        raise ValueError("unlucky")
    return Skip("five") if sample.data % 5 == 0 else sample

@stage
def split(sample):
    return [sample.child(str(n), sample.data * n) for n in range(3)] if sample.data % 3 == 0 else sample

@stage(concurrency=2)
async def double(sample):
    if sample.id == fatal:
        while not storage.count("p"):
            pass  # something is to be stored by then
        os.kill(os.getpid(), signal.SIGKILL)
    if sample.id == "27#1":
        raise LookupError("derived")
    return sample.with_data(sample.data * 2)

class Half(Measurement):
    key = "half"
    def compute(self, sample):
        return sample.data // 2

class Text(Measurement):
    key, batch_size = "text", 4
    async def compute_batch(self, samples):
        return [str(sample.data) for sample in samples]

runner = {"batch": BatchRunner, "streaming": StreamingRunner}[kind]()
storage = SQLStorage(url)
pipeline = Pipeline(name="p", source=[Sample(id=str(n), data=n) for n in range(60)], stages=[decode, split, double],
                    measurements=[Half(), Text()], storage=storage)
print(runner.run(pipeline).drain().ledger)
"""


def content(url: str) -> dict[str, Any]:
    """All that is stored, without what is another in each run."""
    storage = SQLStorage(url)
    found: dict[str, Any] = {
        record.id: (
            record.status,
            record.parent,
            record.data,
            record.input_digest,
            record.digest,
            record.reason,
            record.children,
            record.values,
        )
        for record in storage.query("p").samples
    }
    found["dead letters"] = sorted(
        (entry.sample_id, entry.source, entry.where, entry.error_type, entry.message, entry.data, entry.derived_by)
        for entry in storage.dead_letters("p")
    )
    storage.close()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    url = f"sqlite:///{tmp_path_factory.mktemp('undisturbed')}/forge.db"
    assert start("batch", url) == 0
    return content(url)


def start(kind: str, url: str, fatal: str = "") -> int:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, kind, url, fatal],
        env={**os.environ, "PYTHONPATH": str(Path(forge.__file__).parent.parent)},
        timeout=PATIENCE,
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["batch", "streaming"])
def test_a_killed_run_started_again_finishes_what_was_missing_and_doubles_nothing(
    kind: str, storage_url: str, undisturbed: dict[str, Any]
) -> None:
    # Killed between the children of one sample.
    assert start(kind, storage_url, "33#1") == -signal.SIGKILL
    assert "33#2" not in content(storage_url)
    storage = SQLStorage(storage_url)
    [died] = storage.runs("p")
    storage.close()
    assert (died.outcome, died.ended) == (None, None)
    assert start(kind, storage_url) == 0
    assert content(storage_url) == undisturbed
    storage = SQLStorage(storage_url)
    second, first = storage.runs("p")
    written_by = Counter(record.run_id for record in storage.query("p").samples)
    storage.close()
    assert (first.id, second.outcome) == (died.id, "completed")
    # It did only what was missing.
    assert second.record["ledger"]["unchanged"] > 0
    assert written_by.keys() == {first.id, second.id}
    written = second.record["storage"]
    assert written["inserted"] + written["updated"] == written_by[second.id]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["batch", "streaming"])
def test_the_database_is_the_same_whichever_runner_fills_it(
    kind: str, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    url = f"sqlite:///{tmp_path}/forge.db"
    assert start(kind, url) == 0
    assert content(url) == undisturbed


@both_runners
def test_sources_that_can_be_read_again_are(runner: Runner) -> None:
    def generator() -> Iterator[int]:
        yield 1

    sources: list[Any] = [[1], generator, lambda: [1], {1: "one"}]
    for source in sources:
        pipeline = Pipeline(name="p", source=source)
        for _ in range(2):
            assert [sample.data for sample in runner.run(pipeline)] == [1]


@pytest.mark.parametrize("change", [lambda p: p, lambda p: p[::-1]], ids=["same order", "other order"])
def test_the_order_of_the_source_does_not_matter(
    storage_url: str, change: Callable[[list[Sample]], list[Sample]]
) -> None:
    world = World(storage_url)
    StreamingRunner().run(world.pipeline()).drain()
    world.source = change(world.source)
    assert ledger(StreamingRunner().run(world.pipeline()).drain()) == {"admitted": 4, "unchanged": 4}


ODD_NAMES = [os.fsdecode(b"caf\xe9.txt"), "nul\0.txt", r"C:\udce9\u0000"]


@pytest.mark.slow
@both_runners
def test_any_text_is_an_id_that_is_recognised_again(storage_url: str, runner: Runner) -> None:
    """Names of files need not be UTF-8."""
    calls: Counter[str] = Counter()
    broken = True

    @stage
    def look(sample: Sample) -> Sample | list[Sample]:
        calls[sample.id] += 1
        if sample.data == "bad" and broken:
            raise ValueError(sample.id)
        return [sample.child(name, "good") for name in ODD_NAMES] if sample.data == "many" else sample

    def pipeline() -> Pipeline:
        source = [Sample(id=f"{data} {name}", data=data) for name in ODD_NAMES for data in ("good", "bad", "many")]
        return Pipeline(name="p", source=source, stages=[look], storage=SQLStorage(storage_url))

    assert ledger(runner.run(pipeline()).drain()) == {
        "admitted": 9,
        "derived": 9,
        "ready": 12,
        "dlq": 3,
        "split": 3,
    }
    broken = False
    letters = pipeline().dead_letters
    assert [entry.sample_id for entry in letters.list()] == [f"bad {name}" for name in ODD_NAMES]
    assert [entry.message for entry in letters.list()] == [
        r"bad caf\udce9.txt",
        r"bad nul\u0000.txt",
        r"bad C:\u005cudce9\u005cu0000",
    ]
    letters.storage.close()
    assert ledger(runner.replay(pipeline(), [f"bad {ODD_NAMES[0]}"]).drain()) == {"admitted": 1, "ready": 1}
    assert ledger(runner.run(pipeline()).drain()) == {"admitted": 9, "unchanged": 7, "ready": 2}
    assert ledger(runner.run(pipeline()).drain()) == {"admitted": 9, "unchanged": 9}
    assert calls.total() == 9 + 1 + 2
    assert letters.list() == []
    letters.storage.close()


@both_runners
def test_an_id_that_is_too_long_is_refused_before_its_first_stage(storage_url: str, runner: Runner) -> None:
    seen = []

    @stage
    def look(sample: Sample) -> Sample | list[Sample]:
        seen.append(sample.id[:3])
        return [sample.child("x" * 2000, 1), sample.child("x", 1)] if sample.data else sample

    source = [Sample(id="é" * 1025, data=0), Sample(id="a" * 2048, data=0), Sample(id="b" * 100, data=1)]
    pipeline = Pipeline(name="p", source=source, stages=[look], storage=SQLStorage(storage_url))
    result = runner.run(pipeline).drain()
    assert ledger(result) == {"admitted": 3, "derived": 2, "ready": 2, "split": 1, "failed": 2}
    assert sorted(seen) == ["aaa", "bbb"]
    nothing_stored = Pipeline(name="p", source=source, stages=[look])
    assert runner.run(nothing_stored).drain().ledger.failed == 0
