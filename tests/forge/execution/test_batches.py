"""Which result of a batch belongs to which sample, and which samples come together in one."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest

from forge import BatchRunner, Measurement, Pipeline, Run, Sample, Skip, SQLStorage, Stage
from forge.execution.calls import Batch
from tests.support.runs import every_runner, ledger, samples


def batch_stage(function: Callable[[list[Sample]], Any], *, is_async: bool = False, size: int = 4) -> Stage:
    class Together(Stage):
        batch_size = size
        max_wait = 30  # a batch is complete, or the source has ended

        def process_batch(self, samples: Any) -> Any:
            return function(samples)

    class TogetherAsync(Together):
        async def process_batch(self, samples: Any) -> Any:
            return function(samples)

    return (TogetherAsync if is_async else Together)(name="together")


def run_with(runner: Any, *stages: Stage, **more: Any) -> tuple[Run, dict[str, Any]]:
    """A run over three samples that has ended, and the data that came out, by id."""
    with runner.run(Pipeline(name="p", source=samples("aaa", "b", "cc"), stages=stages, **more)) as run:
        return run, {sample.id: sample.data for sample in run}


def messages(storage: SQLStorage) -> dict[str, str]:
    return {entry.sample_id: entry.message for entry in storage.dead_letters("p")}


def shortest_first(batch: list[Sample]) -> list[Sample]:
    return sorted(batch, key=lambda sample: len(sample.data))


ORDER = "it must return results in the order in which the samples were given"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@every_runner
def test_a_sample_in_the_place_of_another_one_is_an_error_that_names_both(runner: Any, is_async: bool) -> None:
    storage = SQLStorage("sqlite://")
    stage = batch_stage(lambda batch: [s.with_data(s.data + "!") for s in shortest_first(batch)], is_async=is_async)
    run, out = run_with(runner, stage, storage=storage)
    assert out == {}
    assert messages(storage) == {
        "0": f"stage 'together' returned sample '1' in the place of '0'; {ORDER}",
        "1": f"stage 'together' returned sample '2' in the place of '1'; {ORDER}",
        "2": f"stage 'together' returned sample '0' in the place of '2'; {ORDER}",
    }
    assert ledger(run) == {"admitted": 3, "dlq": 3}


@every_runner
def test_those_in_their_own_place_are_right(runner: Any) -> None:
    storage = SQLStorage("sqlite://")
    run, out = run_with(runner, batch_stage(lambda batch: [batch[0], batch[2], batch[1]]), storage=storage)
    assert out == {"0": "aaa"}
    assert set(messages(storage)) == {"1", "2"}
    assert ledger(run) == {"admitted": 3, "ready": 1, "dlq": 2}


@every_runner
def test_children_belong_to_their_parent(runner: Any) -> None:
    storage = SQLStorage("sqlite://")
    run, out = run_with(
        runner, batch_stage(lambda batch: [[s.child("x", s.data)] for s in reversed(batch)]), storage=storage
    )
    assert out == {"1#x": "b"}
    assert messages(storage) == {
        "0": f"stage 'together' returned '2#x', a child of '2', in the place of '0'; {ORDER}",
        "2": f"stage 'together' returned '0#x', a child of '0', in the place of '2'; {ORDER}",
    }
    assert ledger(run) == {"admitted": 3, "derived": 1, "split": 1, "ready": 1, "dlq": 2}


@every_runner
def test_a_split_into_samples_with_the_ids_of_others_is_an_error(runner: Any) -> None:
    storage = SQLStorage("sqlite://")
    _, out = run_with(
        runner, batch_stage(lambda batch: [[s.with_data("x")] for s in [batch[1], batch[0], batch[2]]]), storage=storage
    )
    assert set(out) == {"2#0"}
    assert messages(storage)["0"] == f"stage 'together' returned sample '1' in the place of '0'; {ORDER}"


@pytest.mark.parametrize(
    "wrong",
    [Sample(data="x", id=[]), [Sample(data="x", id="x", parent=[])]],  # type: ignore[arg-type]
    ids=["id", "parent"],
)
@every_runner
def test_ids_that_are_none_do_not_end_the_run(runner: Any, wrong: Any) -> None:
    run, out = run_with(runner, batch_stage(lambda batch: [wrong, *batch[1:]]))
    assert {"1", "2"} <= set(out)
    assert run.result is not None
    assert run.result.ledger.imbalance == 0


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@every_runner
def test_what_has_no_id_is_in_the_order_given(runner: Any, is_async: bool) -> None:
    def take_out(batch: list[Sample]) -> list[Any]:
        results: list[Any] = []
        while batch:
            sample = batch.pop(0)
            results.append(Skip("short") if len(sample.data) == 1 else sample.with_data(sample.data + "!"))
        return results

    run, out = run_with(runner, batch_stage(take_out, is_async=is_async))
    assert out == {"0": "aaa!", "2": "cc!"}
    assert run.result is not None
    assert run.result.skips == {("together", "short"): 1}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@every_runner
def test_results_without_an_id_for_a_list_that_was_sorted_are_not_mixed_up(runner: Any, is_async: bool) -> None:
    """It cannot be said whose they are, so the batch fails, and each sample is tried alone."""
    calls = []

    def sort(batch: list[Sample]) -> list[Any]:
        calls.append(len(batch))
        batch.sort(key=lambda sample: len(sample.data))
        results: list[Any] = []
        while batch:  # the list says nothing any more
            sample = batch.pop(0)
            results.append(Skip("short") if len(sample.data) == 1 else sample)
        return results

    run, out = run_with(runner, batch_stage(sort, is_async=is_async))
    assert out == {"0": "aaa", "2": "cc"}
    assert run.result is not None
    assert run.result.skips == {("together", "short"): 1}
    assert calls == [3, 1, 1, 1]


@every_runner
def test_values_for_a_list_that_was_sorted_are_not_mixed_up(runner: Any) -> None:
    class Length(Measurement):
        key = "length"
        batch_size = 4
        max_wait = 30

        def compute_batch(self, samples: Any) -> list[int]:
            samples.sort(key=lambda sample: len(sample.data))
            return [len(sample.data) for sample in samples]

    with runner.run(Pipeline(name="p", source=samples("aaa", "b", "cc"), measurements=[Length()])) as run:
        assert {sample.data: sample.measurements["length"] for sample in run} == {"aaa": 3, "b": 1, "cc": 2}


def sorted_by_data(batch: Batch) -> Batch:
    batch.sort(key=lambda sample: sample.data, reverse=True)
    return batch


def shuffled(batch: Batch) -> Batch:
    random.Random(1).shuffle(batch)
    return batch


def reversed_copies(batch: Batch) -> Batch:
    batch[:] = [sample.with_data(1) for sample in batch[::-1]]
    return batch


CHANGES: dict[str, tuple[bool, Callable[[Batch], Any]]] = {
    "sorted as given": (False, lambda batch: batch.sort(key=lambda sample: sample.data)),
    "one left out": (False, lambda batch: batch.pop()),
    "taken from the front": (False, lambda batch: [batch.pop(0) for _ in range(4)]),
    "cleared": (False, Batch.clear),
    "deleted": (False, lambda batch: batch.__delitem__(slice(1, 3))),
    "removed": (False, lambda batch: batch.remove(batch[1])),
    "each replaced": (False, lambda batch: batch.__setitem__(slice(None), [s.with_data("x") for s in batch])),
    "one replaced": (False, lambda batch: batch.__setitem__(1, batch[1].with_data("x"))),
    "added to": (False, lambda batch: batch.append("odd")),  # type: ignore[arg-type]
    "sorted": (True, lambda batch: batch.sort(key=lambda sample: sample.data, reverse=True)),
    "sorted and cleared": (True, lambda batch: sorted_by_data(batch).clear()),
    "reversed": (True, Batch.reverse),
    "exchanged": (True, lambda batch: batch.__setitem__(slice(0, 2), [batch[1], batch[0]])),
    "shuffled and emptied": (True, lambda batch: shuffled(batch).clear()),
    "sorted copies": (True, lambda batch: reversed_copies(batch).pop(0)),
    "rotated": (True, lambda batch: batch.append(batch.pop(0))),
    "inserted": (True, lambda batch: batch.insert(0, batch.pop(2))),
    "extended": (True, lambda batch: batch.extend([batch.pop(0)])),
    "added in place": (True, lambda batch: batch.__iadd__([batch.pop(0)])),
    "taken from behind": (True, lambda batch: [batch.pop() for _ in range(4)]),
    "heap": (True, list.reverse),  # as C code does it, past our methods
}


@pytest.mark.parametrize(("reordered", "change"), CHANGES.values(), ids=CHANGES)
def test_a_batch_knows_whether_it_was_reordered(reordered: bool, change: Callable[[Batch], Any]) -> None:
    batch = Batch(samples("a", "b", "c", "d"))
    change(batch)
    assert batch.reordered is reordered
    assert batch.size == 4


@every_runner
def test_samples_taken_from_behind_do_not_exchange_their_values(runner: Any) -> None:
    class Length(Measurement):
        key = "length"
        batch_size = 4
        max_wait = 30

        def compute_batch(self, samples: Any) -> list[int]:
            values = []
            while samples:
                values.append(len(samples.pop().data))
            return values

    with runner.run(Pipeline(name="p", source=samples("aaa", "b", "cc"), measurements=[Length()])) as run:
        assert {sample.data: sample.measurements["length"] for sample in run} == {"aaa": 3, "b": 1, "cc": 2}


async def forgotten(_: Any) -> list[Any]:
    return []


WRONG: dict[str, tuple[Any, str]] = {
    "member": ([[Sample(data=1, id="x"), 5]], "returned a list with int at index 1 (return "),
    "coroutine": (None, "returned a coroutine for its batch (await it, in an async def)"),
}


@pytest.mark.parametrize(("result", "message"), WRONG.values(), ids=WRONG)
def test_results_that_are_none_say_why(result: Any, message: str) -> None:
    storage = SQLStorage("sqlite://")
    stage = batch_stage(lambda batch: forgotten(batch) if result is None else result * len(batch))
    run_with(BatchRunner(), stage, storage=storage)
    assert all(message in text for text in messages(storage).values())
    assert len(messages(storage)) == 3


def test_a_value_that_is_a_coroutine_is_an_error() -> None:
    class Forgot(Measurement):
        key = "forgot"

        def compute(self, sample: Sample) -> Any:
            return forgotten(sample)

    run = BatchRunner().run(Pipeline(name="p", source=samples("a"), measurements=[Forgot()]))
    run.drain()
    assert run.result is not None
    [failure] = run.result.failures
    assert (failure.source, failure.where, failure.error_type) == (
        "measurement",
        "forgot",
        "forge.errors.StageResultError",
    )


def test_another_process_gets_a_plain_list() -> None:
    there = pickle.loads(pickle.dumps(Batch(samples("a", "b"))))
    assert type(there) is list
    assert there == samples("a", "b")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_batch_runner_makes_batches_as_large_as_the_source_has(is_async: bool) -> None:
    sizes = []
    orders: list[str] = []

    def note(batch: list[Sample]) -> list[Sample]:
        sizes.append(len(batch))
        orders.extend(sample.id for sample in batch)
        return list(batch)

    source = samples(*range(10))
    run = BatchRunner().run(Pipeline(name="p", source=source, stages=[batch_stage(note, is_async=is_async)]))
    assert [sample.id for sample in run] == [sample.id for sample in source]
    assert sizes == [4, 4, 2]
    assert orders == [sample.id for sample in source]


def test_the_batch_runner_reads_no_more_than_a_batch_ahead() -> None:
    read: list[int] = []

    def source() -> Any:
        for number in range(100):
            read.append(number)
            yield number

    with BatchRunner().run(Pipeline(name="p", source=source, stages=[batch_stage(list)])) as run:
        assert next(run).data == 0
        assert read == [0, 1, 2, 3]


def test_the_batch_runner_finishes_what_it_has_when_the_source_fails() -> None:
    def source() -> Any:
        yield from samples("a", "b")
        raise OSError("the disk is gone")

    run = BatchRunner().run(Pipeline(name="p", source=source, stages=[batch_stage(list)]))
    assert [next(run).data, next(run).data] == ["a", "b"]
    with pytest.raises(OSError, match="the disk is gone"):
        next(run)
    assert ledger(run) == {"admitted": 2, "ready": 2}
