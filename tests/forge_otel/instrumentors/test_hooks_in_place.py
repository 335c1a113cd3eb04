"""Hooks may change in place all that they are handed: no row differs from those of a run without them."""

from __future__ import annotations

from typing import Any

import pytest

from forge import BatchRunner, Measurement, Pipeline, Run, Sample, Skip, SQLStorage, stage
from forge.runner import Runner
from tests.support.runs import both_runners
from tests.support.telemetry import recording


def spoil(thing: Any) -> None:
    """Change everything that can be reached from what a hook was handed, as far as Python lets anybody."""
    if isinstance(thing, dict):
        for value in thing.values():
            spoil(value)
        thing.clear()
        thing["spoilt"] = True
    elif isinstance(thing, list):
        for value in thing:
            spoil(value)
        thing.reverse()
        thing.append("spoilt")
    elif isinstance(thing, tuple):
        for value in thing:
            spoil(value)
    elif isinstance(thing, Sample):
        spoil(thing.measurements)
    elif type(thing).__module__.startswith("forge."):
        for name in getattr(type(thing), "__slots__", ()):
            spoil(getattr(thing, name, None))
            try:
                setattr(thing, name, None)
            except AttributeError:
                continue  # frozen


def at_start(_: Any, __: Any, *handed: Any) -> None:
    for thing in handed:
        spoil(list(thing) if isinstance(thing, tuple) else thing)


def at_end(_: Any, first: Any, *handed: Any) -> None:
    if not isinstance(first, Run):
        at_start(_, first, *handed)
    else:
        spoil(handed[-1])


HOOKS: dict[str, Any] = {
    **{f"on_{name}_start": at_start for name in ("run", "stage", "measurement")},
    **{f"on_{name}_end": at_end for name in ("run", "stage", "measurement")},
}


class Letters(Measurement):
    key = "letters"

    def compute(self, sample: Sample) -> list[str]:
        return sorted(sample.data)


class Counted(Measurement):
    key = "counted"
    depends_on = ("letters",)
    batch_size = 2

    def compute_batch(self, samples: Any) -> list[dict[str, int]]:
        return [{"letters": len(sample.measurements["letters"])} for sample in samples]


def pipeline(storage: SQLStorage) -> Pipeline:
    @stage
    def first(sample: Sample) -> Any:
        if sample.data == "broken":
            raise ValueError("broken")
        if sample.data == "skipped":
            return Skip("skipped")
        if sample.data == "pair":
            return [sample.child("a", "aa"), sample.child("b", "bbb")]
        return sample.with_data(sample.data + str(len(sample.measurements)))

    @stage(batch_size=2, max_wait=0.01)
    async def second(samples: list[Sample]) -> list[Sample]:
        return [sample.with_data(f"{sample.data}/{sample.id}") for sample in samples]

    names = ("one", "broken", "skipped", "pair", "two", "three")
    return Pipeline(
        name="p",
        source=[Sample(id=name, data=name) for name in names],
        stages=[first, second],
        measurements=[Letters(), Counted()],
        storage=storage,
    )


def rows(runner: Runner, storage: SQLStorage) -> tuple[Any, ...]:
    with runner.run(pipeline(storage)) as run:
        out = {sample.id: (sample.data, sample.measurements) for sample in run}
    assert run.result is not None
    letters = [(letter.sample_id, letter.message) for letter in storage.dead_letters("p")]
    records = {record.id: (record.status, record.data, record.values) for record in storage.query("p").samples}
    result = run.result
    counts = result.ledger, result.dead_letters, result.skips, [stage.executions for stage in result.stages]
    return out, letters, records, counts


@both_runners
def test_rows_are_those_of_a_run_without_hooks(runner: Runner) -> None:
    plain = rows(runner, SQLStorage("sqlite://"))
    with recording(raise_faults=False, **HOOKS) as recorded:
        assert rows(runner, SQLStorage("sqlite://")) == plain
    assert recorded.total("forge.telemetry.faults") == 0


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_is_called(name: str) -> None:
    calls: list[Any] = []
    hook: dict[str, Any] = {name: lambda *handed: calls.append(handed)}
    with recording(**hook):
        BatchRunner().run(pipeline(SQLStorage("sqlite://"))).drain()
    assert len(calls) >= 1
