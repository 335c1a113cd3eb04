"""admitted + derived = settled + active, at every moment; each sample enters once and leaves once."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from forge import (
    Measurement,
    Pipeline,
    Run,
    Sample,
    SampleOutcome,
    SampleStatus,
    Skip,
    SQLStorage,
    Stage,
    StreamingRunner,
    stage,
)
from forge.runner import Ledger
from tests.support.runs import every_runner, ledger, samples, wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge.execution.item import Item
    from forge.runner import Runner


@stage
def kinds(sample: Sample) -> Sample | Skip | list[Sample]:
    """Of 20 numbers 5 are skipped, 5 split in two, 5 fail and 5 go on."""
    match sample.data % 4:
        case 0:
            return Skip("fourth")
        case 1:
            return [sample.child("a", sample.data * 100), sample.child("b", sample.data * 100)]
        case 2:
            raise ValueError("two")
    return sample


@stage(concurrency=3)
async def passed_on(sample: Sample) -> Sample:
    return sample


class Number(Measurement):
    key = "number"

    def compute(self, sample: Sample) -> int:
        if sample.data == 900:
            raise ValueError("nine")
        return int(sample.data)


@every_runner
@pytest.mark.parametrize(("stored", "failure"), [(False, "failed"), (True, "dlq")])
def test_every_sample_is_counted_once(runner: Runner, tmp_path: Path, stored: bool, failure: str) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db") if stored else None
    pipeline = Pipeline(
        name="p", source=samples(*range(20)), stages=[kinds, passed_on], measurements=[Number()], storage=storage
    )
    result = runner.run(pipeline).drain()
    # Five were split in two; the two children with 900 fail when they are measured.
    assert ledger(result) == {"admitted": 20, "derived": 10, "ready": 13, "skipped": 5, "split": 5, failure: 7}
    assert result.ledger.settled == 30
    assert result.ledger.imbalance == 0


@every_runner
def test_the_ledger_balances_at_every_moment(runner: Runner) -> None:
    seen: list[Ledger] = []

    def look() -> None:
        seen.append(run.snapshot().ledger)

    @stage(concurrency=2)
    def looking(sample: Sample) -> Sample | list[Sample]:
        look()
        return [sample.child(key, None) for key in "abc"] if sample.data else sample

    @stage(batch_size=3)
    async def looking_again(batch: list[Sample]) -> list[Sample]:
        look()
        return batch

    run = runner.run(Pipeline(name="p", source=samples(*[0, 1] * 20), stages=[looking, looking_again]))
    look()
    for _ in run:
        look()
    look()
    assert {each.imbalance for each in seen} == {0}
    assert max(each.active for each in seen) > 0
    assert seen[-1] == Ledger(admitted=40, derived=60, ready=80, split=20)


@every_runner
def test_a_sample_that_was_split_settles_as_split_and_its_children_are_derived(runner: Runner) -> None:
    @stage
    def lines(sample: Sample) -> list[Sample]:
        return [sample.child(str(number), line) for number, line in enumerate(sample.data.split("\n"))]

    @stage
    def words(sample: Sample) -> list[Sample]:
        return [sample.child(word, word) for word in sample.data.split()]

    run = runner.run(Pipeline(name="p", source=[Sample(id="text", data="a b\nc")], stages=[lines, words]))
    ready = sorted(run, key=lambda sample: sample.id)
    assert [(sample.id, sample.parent, sample.data) for sample in ready] == [
        ("text#0#a", "text#0", "a"),
        ("text#0#b", "text#0", "b"),
        ("text#1#c", "text#1", "c"),
    ]
    assert ledger(run) == {"admitted": 1, "derived": 5, "split": 3, "ready": 3}


@every_runner
def test_a_child_with_its_parents_id_gets_one_of_its_own(runner: Runner) -> None:
    @stage
    def halves(sample: Sample) -> list[Sample]:
        return [sample.with_data(1), Sample(data=2), sample.child("named", 3)]

    run = runner.run(Pipeline(name="p", source=[Sample(id="x", data=0)], stages=[halves]))
    assert sorted((sample.id, sample.data) for sample in run) == [("x#0", 1), ("x#1", 2), ("x#named", 3)]


class Renaming(Stage):
    """Changes its own name while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "halves"
        self.hangs, self.go_on = threading.Event(), threading.Event()

    def process(self, sample: Sample) -> Sample | list[Sample]:
        self.name = "another"
        if sample.data == "hangs":
            self.hangs.set()
            wait(self.go_on)
        elif sample.data == "splits":
            return [sample.child("a", "whole"), sample.child("b", "fails")]
        elif sample.data == "fails":
            raise ValueError("it was to fail")
        return sample


@pytest.mark.slow
def test_a_stage_has_the_name_that_it_had_when_the_run_began() -> None:
    renaming = Renaming()
    source = [Sample(id="1", data="whole"), Sample(id="2", data="hangs")]
    run = StreamingRunner().run(Pipeline(name="p", source=source, stages=[renaming]))
    with run:
        assert next(iter(run)).id == "1"
        wait(renaming.hangs)
    renaming.go_on.set()
    assert run.result is not None
    [summary] = run.result.stages
    assert (summary.name, summary.cancelled) == ("halves", 1)


@every_runner
def test_dead_letters_name_the_stage_as_it_was_when_the_run_began(runner: Runner) -> None:
    @stage
    def again(sample: Sample) -> Sample:
        if sample.data == "fails":
            raise ValueError("it was to fail")
        return sample

    source = [Sample(id="1", data="splits")]
    storage = SQLStorage("sqlite://")
    pipeline = Pipeline(name="p", source=source, stages=[Renaming(), again], storage=storage)
    run = runner.run(pipeline).drain()
    assert ledger(run) == {"admitted": 1, "derived": 2, "split": 1, "ready": 1, "dlq": 1}
    [entry] = pipeline.dead_letters.list()
    assert (entry.sample_id, entry.where, entry.derived_by) == ("1#b", "again", "halves")
    storage.close()


class Seams:
    """Counts how often a run calls its seams, for each sample."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered: Counter[str] = Counter()
        self.left: dict[str, list[tuple[SampleOutcome, str]]] = {}
        self.said: dict[str, tuple[SampleStatus, str | None]] = {}
        self.ended = 0
        seams = self
        admit, derive, settle, end = Run.admit, Run.derive, Run.settle, Run.end

        def admitted(run: Run, item: Item) -> None:
            admit(run, item)
            seams.entered[item.sample.id] += 1

        def derived(run: Run, parent: Item, children: list[Item], stage: Any) -> None:
            derive(run, parent, children, stage)
            seams.entered.update(child.sample.id for child in children)

        def settled(run: Run, item: Item, outcome: SampleOutcome, error: BaseException | None = None) -> bool:
            first = settle(run, item, outcome, error)
            if first:
                seams.left.setdefault(item.sample.id, []).append((outcome, type(error).__name__))
                seams.said[item.sample.id] = (item.sample.status, item.sample.dlq_reason)
            return first

        def counted_end(run: Run, *arguments: Any) -> Any:
            seams.ended += 1
            return end(run, *arguments)

        replacements: dict[str, Callable[..., Any]] = {
            "admit": admitted,
            "derive": derived,
            "settle": settled,
            "end": counted_end,
        }
        for name, replacement in replacements.items():
            monkeypatch.setattr(Run, name, replacement)


@every_runner
def test_each_seam_is_called_once_for_each_sample(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    seams = Seams(monkeypatch)
    runner.run(Pipeline(name="p", source=samples(*range(8)), stages=[kinds, passed_on])).drain()
    assert set(seams.entered.values()) == {1}
    assert seams.left == {
        "0": [(SampleOutcome.SKIPPED, "NoneType")],
        "1": [(SampleOutcome.SPLIT, "NoneType")],
        "1#a": [(SampleOutcome.READY, "NoneType")],
        "1#b": [(SampleOutcome.READY, "NoneType")],
        "2": [(SampleOutcome.FAILED, "ValueError")],
        "3": [(SampleOutcome.READY, "NoneType")],
        "4": [(SampleOutcome.SKIPPED, "NoneType")],
        "5": [(SampleOutcome.SPLIT, "NoneType")],
        "5#a": [(SampleOutcome.READY, "NoneType")],
        "5#b": [(SampleOutcome.READY, "NoneType")],
        "6": [(SampleOutcome.FAILED, "ValueError")],
        "7": [(SampleOutcome.READY, "NoneType")],
    }
    assert seams.ended == 1


@every_runner
def test_a_sample_says_how_it_settled(runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seams = Seams(monkeypatch)
    storage = SQLStorage(f"sqlite:///{tmp_path / 'forge.db'}")
    runner.run(Pipeline(name="p", source=samples(*range(4)), stages=[kinds, passed_on], storage=storage)).drain()
    assert seams.said == {
        "0": (SampleStatus.SKIPPED, None),
        "1": (SampleStatus.SPLIT, None),
        "1#a": (SampleStatus.READY, None),
        "1#b": (SampleStatus.READY, None),
        "2": (SampleStatus.DLQ, "ValueError"),
        "3": (SampleStatus.READY, None),
    }


@every_runner
def test_an_early_close_settles_everything_once(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    seams = Seams(monkeypatch)
    run = runner.run(Pipeline(name="p", source=samples(*range(1000)), stages=[kinds, passed_on]))
    with run:
        next(run)
        next(run)
    assert run.result is not None
    assert run.result.ledger.active == 0
    assert run.result.ledger.imbalance == 0
    assert set(seams.entered.values()) == {1}
    assert {len(outcomes) for outcomes in seams.left.values()} == {1}
    assert seams.entered.keys() == seams.left.keys()
    cancelled = [outcome for [outcome] in seams.left.values() if outcome[1] == "RunCancelled"]
    failed = [outcome for [outcome] in seams.left.values() if outcome[1] == "ValueError"]
    assert set(cancelled) <= {(SampleOutcome.FAILED, "RunCancelled")}
    assert run.result.ledger.failed == len(cancelled) + len(failed)
    assert seams.ended == 1


@pytest.mark.slow
def test_what_is_in_flight_at_an_early_close_settles_as_failed_with_cancelled() -> None:
    inside, release = threading.Semaphore(0), threading.Event()

    @stage(concurrency=3)
    def held(sample: Sample) -> Sample:
        if sample.data:
            inside.release()
            wait(release)
        return sample

    run = StreamingRunner().run(Pipeline(name="p", source=samples(0, 1, 1, 1), stages=[held]))
    with run:
        assert next(run).id == "0"
        for _ in range(3):
            assert inside.acquire(timeout=120)
        assert run.snapshot().stages[0].active == 3
    release.set()
    assert run.result is not None
    assert ledger(run) == {"admitted": 4, "ready": 1, "failed": 3}
    assert run.result.outcome == "cancelled"
    assert run.result.error_type == "cancelled"
    [held_summary] = run.result.stages
    assert (held_summary.executions, held_summary.successes, held_summary.cancelled) == (4, 1, 3)
    assert run.snapshot().stages[0].active == 0


@every_runner
def test_an_interrupt_loses_no_count(runner: Runner) -> None:
    @stage
    def fatal(sample: Sample) -> Sample:
        if sample.data == 5:
            raise KeyboardInterrupt
        return sample

    run = runner.run(Pipeline(name="p", source=samples(*range(100)), stages=[fatal]))
    with pytest.raises(KeyboardInterrupt):
        run.drain()
    assert run.result is not None
    assert run.result.ledger.imbalance == 0
    assert run.result.ledger.active == 0
    assert run.result.ledger.admitted == run.result.ledger.ready + run.result.ledger.failed
    assert run.result.stages[0].cancelled == 1
