"""Sources in shards, which workers read."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet

from forge import (
    BatchRunner,
    JSONLinesFiles,
    ParquetFiles,
    Pipeline,
    RayRunner,
    Sample,
    ShardedSource,
    SQLStorage,
    Stage,
    StreamingRunner,
)
from forge.errors import ConfigurationError, SourceError, WorkerDiedError
from forge.runner import Runner
from tests.support.ray import ON_RAY, kill_worker
from tests.support.runs import ledger
from tests.support.waiting import wait_until

from .pipelines import Size, double, fail_some, paid, skip_thirds, split
from .test_deaths import Deadly
from .test_runner import rows, summary

pytestmark = ON_RAY


def folder_of_lines(folder: Path, files: int = 5, lines: int = 30) -> Path:
    folder.mkdir()
    for file in range(files):
        numbers = range(file * lines, (file + 1) * lines)
        (folder / f"{file}.jsonl").write_text("".join(json.dumps({"n": number}) + "\n" for number in numbers))
    return folder


def parquet_files(folder: Path) -> Path:
    folder.mkdir()
    for file in range(2):
        numbers = list(range(100 * file, 100 * (file + 1)))
        table = pa.table({"n": numbers, "name": [f"x{number}" for number in numbers]})
        parquet.write_table(table, folder / f"{file}.parquet", row_group_size=40)
    return folder


def numbers_of(storage: SQLStorage) -> dict[str, int]:
    """How many samples are stored with each status."""
    counts: dict[str, int] = {}
    for record in storage.query("p").samples:
        counts[record.status.value] = counts.get(record.status.value, 0) + 1
    return counts


@pytest.mark.parametrize("kind", ["parquet", pytest.param("json lines", marks=pytest.mark.soak)])
def test_files_mean_the_same_on_every_runner(kind: str, tmp_path: Path) -> None:
    if kind == "parquet":
        source: ShardedSource = ParquetFiles(parquet_files(tmp_path / "in"), id_field="name", columns=["n"])
    else:
        source = JSONLinesFiles(folder_of_lines(tmp_path / "in"))
    kinds: dict[str, tuple[Runner, Runner]] = {
        "batch": (BatchRunner(), BatchRunner(resume=False)),
        "streaming": (StreamingRunner(), StreamingRunner(resume=False)),
        "ray": (RayRunner(block_size=16), RayRunner(block_size=16, resume=False)),
    }
    found: dict[str, Any] = {}
    for name, (runner, repeating) in kinds.items():
        storage = SQLStorage(f"sqlite:///{tmp_path}/{name}.db")
        stages = [skip_thirds, fail_some, split, double]
        pipeline = Pipeline(name="p", source=source, stages=stages, measurements=[Size()], storage=storage)
        first = runner.run(pipeline).drain()
        second = runner.run(pipeline).drain()
        third = repeating.run(pipeline).drain()
        found[name] = summary(first), summary(second), summary(third), rows(storage)
        storage.close()
    assert found["streaming"] == found["batch"]
    assert found["ray"] == found["batch"]
    (first_summary, second_summary, third_summary, _) = found["ray"]
    assert first_summary["ledger"]["admitted"] == (200 if kind == "parquet" else 150)
    assert second_summary["ledger"]["unchanged"] > 100
    assert third_summary["measurements"][0]["cached"] == first_summary["ledger"]["ready"]


@dataclass
class Shards(ShardedSource):
    """A source of these shards."""

    made: Sequence[Iterable[Any]]
    concurrency: int = 1

    def shards(self) -> Iterable[Iterable[Any]]:
        yield from self.made


@dataclass
class Numbers:
    """A shard of 50 samples, in which something happens at one of them as long as its folder has few files."""

    number: int
    place: int | None = None
    folder: Path | None = None
    times: int = 1

    def __str__(self) -> str:
        return f"shard {self.number}"

    def __iter__(self) -> Iterator[Sample]:
        for place in range(50):
            if place == self.place:
                self.happen()
            yield Sample(id=f"{self.number}-{place}", data={"n": 50 * self.number + place})

    def happen(self) -> None:
        """End the process, once or more often."""
        assert self.folder is not None
        deaths = len(list(self.folder.iterdir()))
        if deaths < self.times:
            (self.folder / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Broken(Numbers):
    def happen(self) -> None:
        raise ValueError("broken")


class Hanging(Numbers):
    """Does not go on, and leaves its process id."""

    def happen(self) -> None:
        assert self.folder is not None
        (self.folder / str(os.getpid())).touch()
        time.sleep(3600)


class Unsteady(Numbers):
    """Has other samples after a death."""

    def __iter__(self) -> Iterator[Sample]:
        assert self.folder is not None
        other = "other-" if list(self.folder.iterdir()) else ""
        for sample in super().__iter__():
            yield Sample(id=other + sample.id, data=sample.data)


class Locked(Numbers):
    """Has data that cannot be pickled."""

    def happen(self) -> None:
        pass

    def __iter__(self) -> Iterator[Sample]:
        for sample in super().__iter__():
            yield sample.with_data(threading.Lock()) if sample.data["n"] == self.place else sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deaths").mkdir()
    return tmp_path / "deaths"


def made(
    *shards: Iterable[Any], concurrency: int = 1, stages: Sequence[Stage] = (double,), **settings: Any
) -> Pipeline:
    return Pipeline(name="p", source=Shards(shards, concurrency), stages=stages, **settings)


def test_a_reader_that_is_killed_loses_and_doubles_nothing(folder: Path, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    pipeline = made(Numbers(0, 40, folder, 2), Numbers(1), Numbers(2), concurrency=2, storage=storage)
    result = RayRunner(block_size=16).run(pipeline).drain()
    assert len(list(folder.iterdir())) == 2
    assert ledger(result) == {"admitted": 150, "ready": 150}
    assert numbers_of(storage) == {"ready": 150}
    assert result.stages["double"].executions == 150
    storage.close()


def test_blocks_in_flight_are_read_again_when_an_execution_ends(tmp_path: Path) -> None:
    pipeline = made(*map(Numbers, range(6)), concurrency=2)
    ids: list[str] = []
    with RayRunner(block_size=4).run(pipeline) as run:
        for sample in run:
            if not ids:
                kill_worker("ray::Exchange")
            ids.append(sample.id)
    assert sorted(ids) == sorted(f"{shard}-{place}" for shard in range(6) for place in range(50))
    assert ledger(run) == {"admitted": 300, "ready": 300}


def test_a_shard_that_kills_every_reader(folder: Path) -> None:
    run = RayRunner(block_size=16).run(made(Numbers(0), Numbers(1, 0, folder, 100), Numbers(2)))
    with pytest.raises(WorkerDiedError, match=r"^the worker died in 3 attempts to read shard 1$"):
        run.drain()
    assert len(list(folder.iterdir())) == 3
    assert ledger(run) == {"admitted": 50, "ready": 50}


@pytest.mark.soak
def test_a_shard_with_other_samples_at_the_second_reading(folder: Path) -> None:
    run = RayRunner(block_size=16).run(made(Unsteady(0, 40, folder)))
    with pytest.raises(SourceError, match=r"^shard 0 gave other samples when it was read again, in the place of"):
        run.drain()
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance) == ("failed", 0)


@pytest.mark.soak
def test_an_error_in_a_shard(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    run = RayRunner(block_size=16).run(made(Numbers(0), Broken(1, 20), Numbers(2), storage=storage))
    with pytest.raises(ValueError, match=r"^broken") as caught:
        run.drain()
    assert caught.value.__notes__[0] == "raised by the shard shard 1 of the source"
    assert run.result is not None
    assert run.result.outcome == "failed"
    assert ledger(run) == {"admitted": 70, "ready": 70}
    assert numbers_of(storage) == {"ready": 70}
    storage.close()


def test_a_line_that_is_not_json(tmp_path: Path) -> None:
    folder = folder_of_lines(tmp_path / "in", 2)
    (folder / "1.jsonl").write_text('{"n": 1}\n{"n": \n')
    run = RayRunner().run(Pipeline(name="p", source=JSONLinesFiles(folder, concurrency=1), stages=[double]))
    with pytest.raises(
        SourceError, match=rf"^{folder}/1\.jsonl, line 2 is not valid JSON: Expecting value at column 7"
    ):
        run.drain()
    assert ledger(run) == {"admitted": 31, "ready": 31}


@pytest.mark.soak
def test_an_id_in_two_shards(tmp_path: Path) -> None:
    results = []
    for runner in (BatchRunner(), RayRunner(block_size=16)):
        result = runner.run(made(Numbers(0), Numbers(1), Numbers(0))).drain()
        (failure,) = result.failures
        results.append((ledger(result), failure.where, failure.error_type, failure.sample_id, result.input_digest))
    assert results[0] == results[1]
    assert results[0][0] == {"admitted": 150, "ready": 100, "failed": 50}


def test_plain_data() -> None:
    found = []
    for runner in (BatchRunner(), RayRunner()):
        with runner.run(made([{"n": 1}, {"n": 2}], [{"n": 3}], [], concurrency=3)) as run:
            found.append(sorted((sample.id, sample.data["n"]) for sample in run))
    assert found[0] == found[1]
    assert [data for _, data in sorted(found[0], key=lambda each: each[1])] == [2, 4, 6]


@pytest.mark.soak
def test_a_limit_and_the_rest(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    pipeline = made(Numbers(0), Numbers(1), concurrency=2, storage=storage)
    with RayRunner().run(pipeline, limit=60) as run:
        ids = sorted(sample.id for sample in run)
    assert ids == sorted([f"0-{place}" for place in range(50)] + [f"1-{place}" for place in range(10)])
    assert ledger(RayRunner(block_size=16).run(pipeline).drain()) == {"admitted": 100, "ready": 40, "unchanged": 60}
    storage.close()


@pytest.mark.soak
def test_data_that_cannot_be_sent() -> None:
    result = RayRunner().run(made(Locked(0, 7))).drain()
    assert ledger(result) == {"admitted": 50, "ready": 49, "failed": 1}
    (failure,) = result.failures
    assert (failure.where, failure.sample_id, failure.error_type) == ("source", "0-7", "forge.errors.SourceError")
    expected = (
        "a sample cannot be sent to a worker process: data (lock) cannot be pickled: cannot pickle '_thread.lock'"
    )
    assert failure.message.startswith(expected)


@pytest.mark.soak
def test_a_shard_that_cannot_be_sent() -> None:
    run = RayRunner().run(made(Numbers(0), iter([threading.Lock()])))
    with pytest.raises(
        SourceError, match=r"^the shard <list_iterator .*> of the source cannot be sent to workers: Type"
    ):
        run.drain()
    assert ledger(run) == {"admitted": 50, "ready": 50}


def test_a_budget() -> None:
    shards = [Numbers(number) for number in range(40)]
    result = RayRunner(block_size=16).run(made(*shards, concurrency=2, stages=[paid], max_cost=0.1)).drain()
    assert result.outcome == "cancelled"
    assert 100 <= result.ledger.admitted == result.ledger.ready < 2000


def test_an_early_close() -> None:
    with RayRunner(block_size=4).run(made(*map(Numbers, range(40)), concurrency=2)) as run:
        next(run)
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance) == ("cancelled", 0)


def test_an_early_close_while_a_shard_hangs(folder: Path, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    with RayRunner(block_size=4).run(made(Hanging(0, 20, folder), storage=storage)) as run:
        next(run)
        wait_until(lambda: bool(list(folder.iterdir())), "the shard hangs")
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance) == ("cancelled", 0)
    assert numbers_of(storage) == {"ready": run.result.ledger.ready}
    [reader] = [int(path.name) for path in folder.iterdir()]
    wait_until(lambda: not psutil.pid_exists(reader), "its reader has ended")
    storage.close()


def test_no_shards(tmp_path: Path) -> None:
    assert ledger(RayRunner().run(made()).drain()) == {}
    run = RayRunner().run(Pipeline(name="p", source=JSONLinesFiles(tmp_path), stages=[double]))
    with pytest.raises(SourceError, match=r" has no file$"):
        run.drain()
    assert ledger(run) == {}


def test_a_concurrency_that_makes_no_sense() -> None:
    with pytest.raises(ConfigurationError, match=r"has concurrency=0: it must be a positive whole number$"):
        RayRunner().run(made(concurrency=0))


def test_a_worker_of_a_stage_that_dies_is_seen(folder: Path) -> None:
    run = RayRunner(block_size=16).run(made(*map(Numbers, range(4)), stages=[Deadly(folder), double]))
    result = run.drain()
    assert len(list(folder.iterdir())) == 1
    assert ledger(result) == {"admitted": 200, "ready": 200}
    assert [each.executions for each in result.stages] == [200, 200]
    assert result.stages["Deadly"].lost >= 16  # the block of the deadly sample, at least


def test_a_sample_that_kills_every_worker_fails(folder: Path) -> None:
    stages = [Deadly(folder, times=100), double]
    result = RayRunner(block_size=16).run(made(*map(Numbers, range(4)), stages=stages)).drain()
    assert ledger(result) == {"admitted": 200, "ready": 199, "failed": 1}
    (failure,) = result.failures
    assert (failure.where, failure.sample_id, failure.error_type) == (
        "Deadly",
        "1-27",
        "forge.errors.WorkerDiedError",
    )
    assert failure.message == "the worker of stage 'Deadly' died in 3 attempts while it processed this sample"
