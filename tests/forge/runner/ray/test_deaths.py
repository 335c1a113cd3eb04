"""Workers die, and nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from forge import Measurement, Pipeline, RayRunner, RunResult, Sample, SQLStorage, Stage, stage
from forge.errors import WorkerDiedError
from forge.execution.executions import Executions
from forge.pipeline.stages import StageResult
from forge.runner import Run
from tests.support.ray import ON_RAY, kill_worker
from tests.support.runs import ledger

from .pipelines import double, source, split

pytestmark = ON_RAY


class Deadly(Stage):
    """Kills its process when it gets a certain sample, so many times."""

    def __init__(self, folder: Path, times: int = 1, **settings: Any) -> None:
        self.folder = folder
        self.times = times
        super().__init__(**settings)

    def strike(self, samples: Sequence[Sample]) -> None:
        deaths = len(list(self.folder.iterdir()))
        if deaths < self.times and any(sample.data["n"] == 77 for sample in samples):
            (self.folder / str(deaths)).touch()
            self.die()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def process(self, sample: Sample) -> Sample:
        self.strike([sample])
        return sample

    def process_batch(self, samples: Sequence[Sample]) -> list[StageResult]:
        self.strike(samples)
        return list(samples)


class Leaving(Deadly):
    """Ends its process."""

    def die(self) -> None:
        os._exit(3)


class Struck(Measurement):
    """Kills its process like the stage."""

    key = "struck"

    def __init__(self, folder: Path) -> None:
        self.deadly = Deadly(folder)

    def compute(self, sample: Sample) -> int:
        self.deadly.strike([sample])
        return 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deaths").mkdir()
    return tmp_path / "deaths"


def run(storage: SQLStorage, *stages: Stage, block_size: int = 16) -> RunResult:
    pipeline = Pipeline(name="p", source=source(), stages=stages, storage=storage)
    return RayRunner(block_size=block_size).run(pipeline).drain()


def stored(storage: SQLStorage) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in storage.query("p").samples:
        counts[record.status.value] = counts.get(record.status.value, 0) + 1
    storage.close()
    return counts


@pytest.mark.parametrize(
    "kind", ["killed", pytest.param("left", marks=pytest.mark.soak), pytest.param("batch", marks=pytest.mark.soak)]
)
def test_a_worker_that_dies_loses_and_doubles_nothing(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Executions] = []
    monkeypatch.setattr(Run, "executed", lambda _, executions: seen.append(executions))
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    deadly = Leaving(folder) if kind == "left" else Deadly(folder, batch_size=16 if kind == "batch" else None)
    result = run(storage, deadly, double)
    assert len(list(folder.iterdir())) == 1
    assert ledger(result) == {"admitted": 150, "ready": 150}
    assert stored(storage) == {"ready": 150}
    assert [each.executions for each in result.stages] == [150, 150]
    assert max(each.attempts for each in seen) == 2
    workers = {each.worker for each in seen}
    assert len({each.pid for each in workers}) == len({each.id for each in workers}) == len(workers)
    # The one that died is among them if a block of it had come home; whether one has is up to Ray.
    assert len(workers) in (2, 3)


def test_a_worker_of_a_measurement_that_dies(folder: Path, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    pipeline = Pipeline(name="p", source=source(), measurements=[Struck(folder)], storage=storage)
    result = RayRunner(block_size=16).run(pipeline).drain()
    assert len(list(folder.iterdir())) == 1
    assert ledger(result) == {"admitted": 150, "ready": 150}
    assert stored(storage) == {"ready": 150}
    assert result.measurements["struck"].computed == 150
    assert result.measurements["struck"].lost >= 16  # the block of the deadly sample, at least


def test_a_worker_that_dies_after_a_split(folder: Path, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    result = run(storage, split, Deadly(folder))
    assert len(list(folder.iterdir())) == 1
    assert ledger(result) == {"admitted": 150, "derived": 300, "ready": 300, "split": 150}
    assert stored(storage) == {"ready": 300, "split": 150}
    assert [each.executions for each in result.stages] == [150, 300]


def test_a_sample_that_kills_every_worker_fails(folder: Path, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    result = run(storage, Deadly(folder, times=100), double)
    assert ledger(result) == {"admitted": 150, "ready": 149, "dlq": 1}
    (failure,) = result.failures
    assert (failure.where, failure.sample_id, failure.error_type) == (
        "Deadly",
        "77",
        "forge.errors.WorkerDiedError",
    )
    assert failure.message == "the worker of stage 'Deadly' died in 3 attempts while it processed this sample"
    assert stored(storage) == {"ready": 149, "dlq": 1}


def test_the_reader_dies(tmp_path: Path) -> None:
    killed: list[int] = []

    def samples() -> Iterator[Sample]:
        for number, sample in enumerate(source()):
            if number == 100:
                killed.append(kill_worker("ray::Read_FromDriver"))
            yield sample

    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    pipeline = Pipeline(name="p", source=samples, stages=[double], storage=storage)
    result = RayRunner(block_size=16).run(pipeline).drain()
    assert len(killed) == 1
    assert ledger(result) == {"admitted": 150, "ready": 150}
    assert stored(storage) == {"ready": 150}
    assert result.stages["double"].executions == 150


class Heavy:
    """Ends the process that sends it, as data does for which there is not enough memory."""

    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@stage
def make_heavy(sample: Sample) -> Sample:
    return sample.with_data(Heavy()) if sample.data["n"] == 77 else sample


def test_workers_that_die_outside_of_calls_end_the_run(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    run = RayRunner(block_size=16).run(Pipeline(name="p", source=source(), stages=[make_heavy], storage=storage))
    with pytest.raises(WorkerDiedError) as caught:
        run.drain()
    assert str(caught.value) == (
        "6 workers of stage 'make_heavy' died with the same block while none of its calls was being made, most likely "
        "for want of memory to load its samples, or to send their results: try a smaller block_size"
    )
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance) == ("failed", 0)
    assert stored(storage) == {key: count for key, count in (("ready", run.result.ledger.ready),) if count}
