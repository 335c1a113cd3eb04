"""Differences between the samples of two runs, from real runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Pipeline, RunResult, Sample, Skip, SQLStorage, StreamingRunner, stage
from forge.history import inputs
from forge.history.inputs import InputDifference, compare_inputs
from forge.storage.manifests import SampleFate
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from forge.runner import Runner


@pytest.fixture
def storage(storage_url: str) -> Iterator[SQLStorage]:
    storage = SQLStorage(storage_url)
    yield storage
    storage.close()


@stage
def clean(sample: Sample) -> Sample | Skip | list[Sample]:
    match sample.data:
        case "skip":
            return Skip("asked")
        case "split":
            return [sample.child("a", "x"), sample.child("b", "bad")]
        case "bad":
            raise LookupError("as it should")
    return sample


@stage
def strict(sample: Sample) -> Sample:
    if sample.data == "bad":
        raise LookupError("as it should")
    return sample


def run(storage: SQLStorage, data: Mapping[str, Any], runner: Runner | None = None) -> RunResult:
    pipeline = Pipeline(
        name="p",
        source=[Sample(id=sample_id, data=each) for sample_id, each in data.items()],
        stages=[clean, strict],
        storage=storage,
        max_failures=1.0,
    )
    return (runner or BatchRunner(clock=FakeClock())).run(pipeline).drain()


def compared(storage: SQLStorage, before: RunResult, after: RunResult) -> InputDifference:
    settled = (before.ledger.settled, after.ledger.settled)
    found = compare_inputs(storage, before.run_id, after.run_id, settled=settled)
    assert found is not None
    return found


@pytest.mark.parametrize("runner", [BatchRunner(), StreamingRunner(), StreamingRunner(ordered=True)])
def test_every_settled_sample_is_in_the_manifest(storage: SQLStorage, runner: Runner) -> None:
    data = {"a": "good", "b": "skip", "c": "split", "d": "bad"}
    result = run(storage, data, runner)
    found = {entry.id: entry.fate for entry in storage.manifest(result.run_id)}
    assert found == {
        "a": SampleFate("ready"),
        "b": SampleFate("skipped", "clean", "asked"),
        "c": SampleFate("split"),
        "c#a": SampleFate("ready", None, None, "clean"),
        "c#b": SampleFate("dlq", "strict", "LookupError", "clean"),
        "d": SampleFate("dlq", "clean", "LookupError"),
    }
    again = run(storage, data, runner)
    found = {entry.id: entry.fate for entry in storage.manifest(again.run_id)}
    assert found == {
        "a": SampleFate("unchanged", None, "ready"),
        "b": SampleFate("unchanged", None, "skipped"),
        "c": SampleFate("split"),
        "c#a": SampleFate("unchanged", None, "ready", "clean"),
        "c#b": SampleFate("dlq", "strict", "LookupError", "clean"),
        "d": SampleFate("dlq", "clean", "LookupError"),
    }


def test_samples_in_flight_at_the_end_are_in_the_manifest(storage: SQLStorage) -> None:
    pipeline = Pipeline(
        name="p", source=[Sample(id=str(number), data=number) for number in range(100)], stages=[], storage=storage
    )
    run = BatchRunner().run(pipeline)
    with run:
        next(run)
    assert run.result is not None
    found = [entry.fate for entry in storage.manifest(run.result.run_id)]
    assert len(found) == run.result.ledger.admitted == run.result.ledger.settled
    assert set(found) <= {SampleFate("ready"), SampleFate("failed", None, "cancelled")}


def test_gone_new_and_changed_samples(storage: SQLStorage) -> None:
    before = run(storage, {str(number): "good" for number in range(10)})
    after = run(storage, {**{str(number): "good" for number in range(3, 8)}, "8": "better", "9": "skip", "new": "x"})
    found = compared(storage, before, after)
    assert (found.before, found.after) == (10, 8)
    assert (found.gone, found.gone_samples.examples) == (3, ["0", "1", "2"])
    assert (found.new, found.new_samples.examples) == (1, ["new"])
    assert (found.changed, found.changed_samples.examples) == (2, ["8", "9"])
    assert [(move.before, move.after, move.count, move.changed) for move in found.moves] == [
        (SampleFate("ready"), SampleFate("unchanged", None, "ready"), 5, 0),
        (SampleFate("ready"), None, 3, 0),
        (SampleFate("ready"), SampleFate("skipped", "clean", "asked"), 1, 1),
        (None, SampleFate("ready"), 1, 0),
    ]
    assert found.lines() == [
        "10 → 8 samples: 3 gone ('0', '1', '2'), 1 new ('new'), 2 changed ('8', '9')",
        "5 × ready → unchanged (ready), such as '3'",
        "3 × ready → not in the run, such as '0'",
        "1 × ready → skipped in clean (asked), 1 of them with other input, such as '9'",
        "1 × not in the run → ready, such as 'new'",
    ]


def test_the_same_input(storage: SQLStorage) -> None:
    data = {"a": "good", "b": "split"}
    runner = BatchRunner(resume=False)
    found = compared(storage, run(storage, data, runner), run(storage, data, runner))
    assert (found.before, found.after, found.gone, found.new, found.changed) == (2, 2, 0, 0, 0)
    assert found.lines() == []


@pytest.mark.slow
def test_large_runs_are_compared_in_parts(storage: SQLStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run(storage, {str(number): number for number in range(100)})
    after = run(storage, {str(number): number + (number == 50) for number in range(50, 120)})
    whole = compared(storage, before, after)
    monkeypatch.setattr(inputs, "IN_MEMORY", 7)
    parts = compared(storage, before, after)
    assert (parts.before, parts.after, parts.gone, parts.new, parts.changed) == (100, 70, 50, 20, 1)
    assert [(move.before, move.after, move.count) for move in parts.moves] == [
        (move.before, move.after, move.count) for move in whole.moves
    ]


def test_a_run_without_a_whole_manifest_is_not_compared(storage: SQLStorage) -> None:
    before, after = run(storage, {"a": 1}), run(storage, {"b": 1})
    assert compare_inputs(storage, before.run_id, after.run_id, settled=(2, 1)) is None
