"""What user code is handed is its own: whatever it does to it in place, no sample gets another one's result."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge import (
    BatchRunner,
    JSONSerializer,
    Measurement,
    Pipeline,
    RetryPolicy,
    Sample,
    SampleStatus,
    Skip,
    SQLStorage,
    Stage,
    StreamingRunner,
)
from forge.pipeline.stages import StageResult
from tests.support.runs import RUNNERS

AT_ONCE = RetryPolicy(max_attempts=2, initial_delay=0, jitter=0)


def change(thing: Any, how: str) -> None:
    """Change a list, a mapping or a sample's measurements in place."""
    if isinstance(thing, Sample):
        thing = thing.measurements
    if isinstance(thing, dict):
        if how == "clear":
            thing.clear()
        else:
            thing["changed"] = how
    elif isinstance(thing, list):
        match how:
            case "sort":
                thing.sort(key=repr, reverse=True)
            case "reverse":
                thing.reverse()
            case "pop" if thing:
                thing.pop()
            case "clear":
                thing.clear()
            case "append":
                thing.append("changed")
            case "replace":
                thing[:] = ["changed"] * len(thing)


@dataclass
class Case:
    """One pipeline whose functions change in place all that they are handed and all that they returned."""

    how: str
    broken: frozenset[str]
    """Ids that the second stage never takes."""
    flaky: frozenset[str]
    """Ids whose first attempt in a stage fails."""
    batch_size: int
    is_async: bool
    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    timeout: float | None = None
    kept: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """By thread: a function that returns what another thread is changing has only itself to blame."""

    def keep(self, *things: Any) -> None:
        self.kept[threading.get_ident()] += things

    def change_kept(self) -> None:
        for thing in self.kept[threading.get_ident()]:
            change(thing, self.how)

    def fails(self, stage: str, sample: Sample) -> bool:
        self.tried[stage, sample.id] += 1
        return sample.id in self.flaky and self.tried[stage, sample.id] == 1

    def end_call(self, handed: Any, returned: Any) -> None:
        """What each function does before it comes back: it changes what it has, and keeps it to change it again."""
        self.change_kept()
        change(handed, self.how)
        for sample in handed if isinstance(handed, list) else [handed]:
            change(sample, self.how)
        self.keep(handed, returned)
        if isinstance(returned, list):
            self.keep(*returned)


# What the functions compute. Measurements that a stage finds were put there by somebody else.


def shout(sample: Sample) -> str:
    return f"{sample.data}!{''.join(map(str, sample.measurements))}"


def double(sample: Sample) -> str:
    return f"{sample.data}{sample.data}{''.join(map(str, sample.measurements))}"


def split(sample: Sample) -> StageResult:
    if sample.id.endswith("7"):
        return Skip("seven")
    if sample.id.endswith(("1", "3")):
        return [sample.child("a", sample.data + "a"), sample.child("b", sample.data + "b")]
    return sample.with_data(sample.data + ".")


def letters(sample: Sample) -> list[str]:
    return [*sample.data]


def distinct(sample: Sample) -> list[str]:
    return sorted(set(sample.measurements["letters"]))


def count(sample: Sample) -> dict[str, int]:
    return {"letters": len(sample.measurements["letters"]), "distinct": len(sample.measurements["distinct"])}


def expected(case: Case, source: Sequence[Sample]) -> dict[str, tuple[SampleStatus, Any, dict[str, Any]]]:
    """The rows of a plain loop over the same functions."""
    found: dict[str, tuple[SampleStatus, Any, dict[str, Any]]] = {}
    for sample in source:
        if sample.id in case.broken:
            found[sample.id] = (SampleStatus.DLQ, None, {})
            continue
        loud = Sample(id=sample.id, data=shout(sample))
        result = split(Sample(id=sample.id, data=double(loud)))
        if isinstance(result, Skip):
            found[sample.id] = (SampleStatus.SKIPPED, None, {})
            continue
        if isinstance(result, list):
            found[sample.id] = (SampleStatus.SPLIT, None, {})
        for leaf in result if isinstance(result, list) else [result]:
            values: dict[str, Any] = {}
            for key, function in (("letters", letters), ("distinct", distinct), ("count", count)):
                values[key] = function(Sample(id=leaf.id, data=leaf.data, measurements={**values}))
            found[leaf.id] = (SampleStatus.READY, leaf.data, values)
    return found


class Careless(JSONSerializer):
    """Fills one buffer again and again, and changes what it was given and what it gave."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.buffers: dict[int, bytearray] = defaultdict(bytearray)

    def dumps(self, data: Any) -> bytes:
        # One buffer a thread, since a serializer must be able to serve several.
        buffer = self.buffers[threading.get_ident()]
        buffer[:] = super().dumps(data)
        change(data, self.case.how)
        self.case.change_kept()
        return buffer  # type: ignore[return-value]  # that is the fault

    def loads(self, data: bytes) -> Any:
        found = super().loads(data)
        self.case.keep(found)
        return found


def pipeline_of(case: Case, source: Sequence[Sample], storage: SQLStorage) -> Pipeline:
    def alone(name: str, function: Callable[[Sample], Any], sample: Sample) -> Any:
        result = sample.with_data(function(sample))
        case.end_call(sample, result)
        if case.fails(name, sample):
            raise TimeoutError
        return result

    def together(name: str, function: Callable[[Sample], Any], batch: list[Sample]) -> list[Any]:
        assert all(type(sample) is Sample for sample in batch)
        given = [*batch]
        results = [function(sample) for sample in given]
        if not all(isinstance(result, Sample) for result in results):
            # Those without an id are in the order that the list has now, which need not be the one that was given.
            if case.how in {"sort", "reverse"}:
                change(batch, case.how)
            results = [function(sample) for sample in [*batch]]
        case.end_call(batch, results)
        # All of them, or the second attempt would fail because of the next one.
        failed = [case.fails(name, sample) for sample in given]
        if any(failed):
            raise TimeoutError
        if name == "double" and any(sample.id in case.broken for sample in given):
            raise ValueError("broken")
        return results

    def method(function: Callable[[Any], Any]) -> Any:
        if case.is_async:

            async def call_async(self: Any, argument: Any) -> Any:
                return function(argument)

            return call_async

        def call(self: Any, argument: Any) -> Any:
            return function(argument)

        return call

    def stage(name: str, function: Callable[[Sample], Any], **more: Any) -> Stage:
        in_batches = "batch_size" in more
        call = (
            method(lambda batch: together(name, function, batch))
            if in_batches
            else method(lambda sample: alone(name, function, sample))
        )
        kind = type(name.title(), (Stage,), {"process_batch" if in_batches else "process": call})
        made: Stage = kind(name=name, retry=AT_ONCE, timeout=case.timeout, **more)
        return made

    def measurement(key: str, function: Callable[[Sample], Any], **more: Any) -> Measurement:
        def compute(sample: Sample) -> Any:
            value = function(sample)
            case.end_call(sample, value)
            for other in sample.measurements.values():
                change(other, case.how)
            return value

        def compute_batch(batch: list[Sample]) -> list[Any]:
            if case.how == "sort":
                change(batch, "sort")
                values = [function(sample) for sample in batch]
            else:
                values = [function(sample) for sample in batch]
            for sample in batch:
                for other in sample.measurements.values():
                    change(other, case.how)
            case.end_call(batch, values)
            return values

        in_batches = "batch_size" in more
        call = method(compute_batch if in_batches else compute)
        kind = type(key.title(), (Measurement,), {"compute_batch" if in_batches else "compute": call})
        made: Measurement = kind(key=key, timeout=case.timeout, **more)
        return made

    def read() -> Iterator[Sample]:
        for sample in source:
            given = Sample(id=sample.id, data=sample.data, measurements={})
            case.keep(given)
            case.change_kept()
            yield given
            case.change_kept()

    size = case.batch_size
    stages = [
        stage("shout", shout),
        stage("double", lambda sample: sample.with_data(double(sample)), batch_size=size, max_wait=0.01),
        stage("split", split, batch_size=size, max_wait=0.01),
    ]
    depends_on = ["letters", "distinct"]
    measurements = [
        measurement("count", count, depends_on=depends_on),
        measurement("distinct", distinct, depends_on=["letters"], batch_size=size, max_wait=0.01),
        measurement("letters", letters),
    ]
    pipeline = Pipeline(
        name="p", source=read, stages=stages, measurements=measurements, storage=storage, serializer=Careless(case)
    )
    for handed in (stages, measurements, depends_on):
        handed.clear()
    return pipeline


def rows_of(storage: SQLStorage) -> dict[str, tuple[SampleStatus, Any, dict[str, Any]]]:
    load = JSONSerializer().loads
    return {
        record.id: (
            record.status,
            None if record.data is None else load(record.data),
            {key: load(value) for (key, _), value in record.values.items()},
        )
        for record in storage.query("p").samples
    }


ids = st.integers(0, 9).map(str)
cases = st.builds(
    Case,
    how=st.sampled_from(["sort", "reverse", "pop", "clear", "append", "replace"]),
    broken=st.frozensets(ids, max_size=2),
    flaky=st.frozensets(ids, max_size=2),
    batch_size=st.sampled_from([1, 2, 4]),
    is_async=st.booleans(),
    timeout=st.sampled_from([None, 60]),
)


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())
@settings(max_examples=40, deadline=None)
@given(case=cases, length=st.integers(0, 10))
def test_whatever_is_changed_in_place_every_row_is_that_of_a_plain_loop(
    runner: BatchRunner | StreamingRunner, case: Case, length: int
) -> None:
    source = [Sample(id=str(number), data="zyxwvutsrq"[number] * (number % 4 + 1)) for number in range(length)]
    right = expected(case, source)
    with tempfile.TemporaryDirectory() as folder:
        storage = SQLStorage(f"sqlite:///{folder}/p.db")
        pipeline = pipeline_of(case, source, storage)
        with runner.run(pipeline) as run:
            got = {sample.id: (sample.data, sample.measurements) for sample in run}
            for sample in got.values():
                case.keep(sample[1])
        assert rows_of(storage) == right
        assert [record.id for record in storage.query("p", status=SampleStatus.READY).samples] == sorted(got)

        # The dead letters are handed out, and changed, too; and what was broken is taken up again.
        letters_before = {entry.sample_id: entry.message for entry in pipeline.dead_letters.list()}
        for entry in pipeline.dead_letters.list():
            change(entry.carrier, case.how)
            change(entry.values, case.how)
        change(pipeline.dead_letters.list(), case.how)
        assert {entry.sample_id: entry.message for entry in pipeline.dead_letters.list()} == letters_before
        case.broken = frozenset()
        runner.replay(pipeline).drain()
        assert rows_of(storage) == expected(case, source)
        storage.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [BatchRunner, StreamingRunner, partial(StreamingRunner, ordered=True)], ids=[*RUNNERS])
@settings(max_examples=25, deadline=None)
@given(case=cases, length=st.integers(0, 10))
def test_whatever_is_changed_in_place_the_samples_that_come_out_are_those_of_a_plain_loop(
    kind: Callable[..., BatchRunner | StreamingRunner], case: Case, length: int
) -> None:
    runner, again = kind(), kind(resume=False)
    source = [Sample(id=str(number), data="zyxwvutsrq"[number] * (number % 4 + 1)) for number in range(length)]
    ready = {
        key: (data, values)
        for key, (status, data, values) in expected(case, source).items()
        if status is SampleStatus.READY
    }
    with tempfile.TemporaryDirectory() as folder:
        storage = SQLStorage(f"sqlite:///{folder}/p.db")
        with runner.run(pipeline_of(case, source, storage)) as run:
            assert {sample.id: (sample.data, dict(sample.measurements)) for sample in run} == ready
        # Once more, with the values of the first run.
        with again.run(pipeline_of(case, source, storage)) as run:
            assert {sample.id: (sample.data, dict(sample.measurements)) for sample in run} == ready
        storage.close()
