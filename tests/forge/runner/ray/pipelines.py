"""Pipelines that mean the same on every runner. What they are made of is at the top level, where workers find it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from forge import Measurement, Pipeline, RetryPolicy, Sample, Skip, SQLStorage, Stage, stage, usage

Make = Callable[[SQLStorage | None], Pipeline]


def source(count: int = 150) -> list[Sample]:
    return [Sample(id=str(number), data={"n": number}) for number in range(count)]


@stage
def double(sample: Sample) -> Sample:
    return sample.with_data({"n": 2 * sample.data["n"]})


@stage(concurrency=2)
def skip_thirds(sample: Sample) -> Sample | Skip:
    return Skip("third") if sample.data["n"] % 3 == 0 else sample


@stage
def split(sample: Sample) -> list[Sample]:
    return [sample.child(f"part{part}", {"n": sample.data["n"], "part": part}) for part in range(2)]


@stage
def split_some(sample: Sample) -> Sample | list[Sample]:
    # Without ids of their own, and one of them twice.
    return [Sample(data=1), Sample(data=2), Sample(data=3)] if sample.data["n"] % 5 == 0 else sample


@stage(concurrency=8)
async def wait(sample: Sample) -> Sample:
    await asyncio.sleep(0)
    return sample.with_data({**sample.data, "waited": True})


@stage(batch_size=16)
def batch(samples: Sequence[Sample]) -> list[Sample]:
    return [sample.with_data({**sample.data, "size": len(samples) > 0}) for sample in samples]


@stage(batch_size=16, concurrency=2)
async def batch_async(samples: Sequence[Sample]) -> list[Sample]:
    return [sample.with_data({**sample.data, "later": True}) for sample in samples]


@stage(batch_size=16)
def faulty_batch(samples: Sequence[Sample]) -> list[Sample]:
    if any(sample.data["n"] % 50 == 7 for sample in samples):
        raise ValueError("one of them is bad")
    return list(samples)


class Awkward(Exception):  # noqa: N818 - a name of users
    """Cannot be pickled: it is made with other arguments than it keeps."""

    status_code = 404

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@stage
def fail_some(sample: Sample) -> Sample:
    number = sample.data["n"]
    if number % 10 == 1:
        raise ValueError(f"no {number}")
    if number % 10 == 2:
        raise Awkward(number, 2)
    if number % 10 == 3:
        raise TimeoutError("too long")
    return sample


class Flaky(Stage):
    """Fails on the first attempt of every tenth sample."""

    retry = RetryPolicy(max_attempts=3, initial_delay=0.001)

    def setup(self) -> None:
        self.tried: set[str] = set()

    def process(self, sample: Sample) -> Sample:
        if sample.data["n"] % 10 == 0 and sample.id not in self.tried:
            self.tried.add(sample.id)
            raise ConnectionError("once")
        return sample


@stage(timeout=3)
def late(sample: Sample) -> Sample:
    if sample.id == "7":
        time.sleep(4.5)  # longer than it may, and not as long as to be given up
    return sample


@stage(timeout=3, concurrency=8, retry=RetryPolicy(max_attempts=2, initial_delay=0.001))
async def late_async(sample: Sample) -> Sample:
    if sample.id == "3":
        await asyncio.sleep(3600)
    return sample


@stage
def paid(sample: Sample) -> Sample:
    usage.report(provider="openai", model="m", input_tokens=10, output_tokens=sample.data["n"], amount=0.001)
    return sample


@stage(batch_size=16)
def paid_batch(samples: Sequence[Sample]) -> list[Sample]:
    usage.report(provider="openai", model="m", input_tokens=16, calls=1, amount=0.016)
    return list(samples)


class Size(Measurement):
    key = "size"

    def compute(self, sample: Sample) -> int:
        return len(str(sample.data))


class Ratio(Measurement):
    key = "ratio"
    depends_on = ("size",)
    batch_size = 16

    def compute_batch(self, samples: Sequence[Sample]) -> list[float]:
        return [sample.measurements["size"] / 2 for sample in samples]


class Picky(Measurement):
    key = "picky"

    async def compute(self, sample: Sample) -> tuple[str, int]:
        if sample.data["n"] % 20 == 0:
            raise ZeroDivisionError("picky")
        return sample.id, 1


def _made(name: str, *stages: Stage, measurements: Sequence[Measurement] = (), **settings: Any) -> Make:
    def make(storage: SQLStorage | None) -> Pipeline:
        given = {"source": source(), **settings}
        return Pipeline(name=name, stages=stages, measurements=measurements, storage=storage, **given)

    return make


PIPELINES: dict[str, Make] = {
    "sync": _made("p", double, skip_thirds),
    "split": _made("p", split, double, skip_thirds),
    "odd split": _made("p", split_some),
    "async": _made("p", wait, double),
    "batches": _made("p", batch, batch_async),
    "faulty batch": _made("p", faulty_batch, double),
    "failures": _made("p", fail_some, double),
    "retries": _made("p", Flaky(), double),
    "timeouts": _made("p", late, late_async),
    "usage": _made("p", paid, split, paid_batch),
    "measurements": _made("p", double, measurements=[Size(), Ratio(), Picky()]),
    "duplicates": _made("p", double, source=[*source(100), *source(20)]),
    "unstorable": _made("p", double, source=[Sample(id="good", data={"n": 1}), Sample(id="x" * 5000, data={"n": 2})]),
}


class Fragile(Stage):
    """Fails for the parts of every so manieth sample; for none with 1."""

    def __init__(self, every: int) -> None:
        self.every = every
        super().__init__()

    def process(self, sample: Sample) -> Sample:
        if self.every > 1 and sample.data["n"] % self.every == 0 and sample.data["part"] == 1:
            raise ValueError("fragile")
        return sample


def measured_parts(every: int) -> Make:
    return _made("p", split, Fragile(every), measurements=[Size(), Ratio()])


class Bought(Measurement):
    key = "bought"

    def compute(self, sample: Sample) -> int:
        usage.report(provider="openai", model="m", amount=0.01)
        return 1


paid_measurement = _made("p", double, measurements=[Bought()])
changed = _made(
    "p", double, skip_thirds, source=[*source(50), *[Sample(id=str(n), data={"n": -n}) for n in range(50, 60)]]
)
