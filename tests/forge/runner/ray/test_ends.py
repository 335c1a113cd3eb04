"""Ends of runs on Ray before their time, and what keeps them from beginning."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from forge import Measurement, Pipeline, RayRunner, Sample, SampleStatus, SQLStorage, Stage, stage, usage
from forge.errors import ConfigurationError, StageStuckError, TooManyFailuresError
from tests.support.ray import ON_RAY
from tests.support.runs import PATIENCE, ledger, rows
from tests.support.waiting import wait_until

from .pipelines import Awkward, double, source

pytestmark = ON_RAY


def endless() -> Iterator[Sample]:
    number = 0
    while True:
        yield Sample(id=str(number), data={"n": number})
        number += 1


class Slow(Stage):
    """Takes long, and writes down its process and its end."""

    def __init__(self, folder: Path, seconds: float = 0.0, **settings: Any) -> None:
        self.folder = folder
        self.seconds = seconds
        super().__init__(**settings)

    def setup(self) -> None:
        self.thread = threading.get_ident()
        self._note("open")

    def process(self, sample: Sample) -> Sample:
        assert threading.get_ident() == self.thread
        (self.folder / f"{os.getpid()}.used").touch()
        time.sleep(self.seconds)
        return sample

    def close(self) -> None:
        assert threading.get_ident() == self.thread
        self._note("closed")

    def _note(self, what: str) -> None:
        with (self.folder / f"{os.getpid()}.{what}").open("a") as file:
            file.write("once\n")


def wait_for_their_end(folder: Path) -> None:
    """Wait until the processes of all workers have ended."""
    pids = [int(path.stem) for path in folder.glob("*.open")]
    assert pids
    wait_until(lambda: not any(map(_is_worker, pids)), "all workers have ended")


def _is_worker(pid: int) -> bool:
    try:
        return b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_setup_and_close_are_called_once_in_each_worker(tmp_path: Path) -> None:
    pipeline = Pipeline(name="p", source=source(), stages=[Slow(tmp_path, concurrency=2)])
    assert ledger(RayRunner().run(pipeline).drain()) == {"admitted": 150, "ready": 150}
    assert len(list(tmp_path.glob("*.open"))) <= 2
    noted = [*tmp_path.glob("*.open"), *tmp_path.glob("*.closed")]
    assert {path.read_text() for path in noted} == {"once\n"}
    # Ray kills a worker that is still being set up when there is nothing more to do.
    used = {path.stem for path in tmp_path.glob("*.used")}
    assert used
    assert used <= {path.stem for path in tmp_path.glob("*.closed")}
    wait_for_their_end(tmp_path)


def test_an_early_close(tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    pipeline = Pipeline(name="p", source=endless, stages=[Slow(tmp_path)], storage=storage)
    with RayRunner(block_size=4).run(pipeline) as run:
        first = next(run)
    assert run.result is not None
    assert run.result.outcome == "cancelled"
    assert run.result.ledger.imbalance == 0
    stored = rows(storage)
    assert first.id in stored
    assert Counter(stored.values()) == {SampleStatus.READY: run.result.ledger.ready}
    wait_for_their_end(tmp_path)


def test_a_call_that_does_not_return_is_killed(tmp_path: Path) -> None:
    pipeline = Pipeline(name="p", source=endless, stages=[double, Slow(tmp_path, seconds=3600.0)])
    run = RayRunner(block_size=4).run(pipeline)

    def close() -> None:
        wait_until(lambda: any(tmp_path.glob("*.open")), "a worker is there")
        run.close()

    closer = threading.Thread(target=close)
    closer.start()
    assert list(run) == []
    closer.join(PATIENCE)
    assert run.result is not None
    assert run.result.outcome == "cancelled"
    assert run.result.ledger.imbalance == 0
    wait_for_their_end(tmp_path)


def test_an_async_consumer(tmp_path: Path) -> None:
    async def consume() -> list[str]:
        pipeline = Pipeline(name="p", source=source(10), stages=[double])
        async with RayRunner().run(pipeline) as run:
            return [sample.id async for sample in run]

    assert sorted(asyncio.run(consume()), key=int) == [str(number) for number in range(10)]


class NoSetup(Stage):
    def setup(self) -> None:
        raise OSError("no model")

    def process(self, sample: Sample) -> Sample:
        return sample


def test_a_setup_that_fails() -> None:
    run = RayRunner().run(Pipeline(name="p", source=source(), stages=[double, NoSetup()]))
    with pytest.raises(OSError, match="no model") as caught:
        run.drain()
    note = "raised by setup() of stage 'NoSetup', so the run has ended"
    assert caught.value.__notes__[0] == note
    assert "".join(traceback.format_exception(caught.value)).count(note) == 1
    assert run.result is not None
    assert run.result.outcome == "failed"


def test_a_source_that_fails(tmp_path: Path) -> None:
    def samples() -> Iterator[Sample]:
        yield from source(20)
        raise ValueError("the source is broken")

    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    run = RayRunner().run(Pipeline(name="p", source=samples, stages=[double], storage=storage))
    with pytest.raises(ValueError, match="the source is broken"):
        run.drain()
    assert ledger(run) == {"admitted": 20, "ready": 20}
    assert len(rows(storage)) == 20


@stage
def interrupted(sample: Sample) -> Sample:
    raise KeyboardInterrupt


def test_a_stage_that_is_interrupted() -> None:
    run = RayRunner().run(Pipeline(name="p", source=source(20), stages=[interrupted]))
    with pytest.raises(KeyboardInterrupt):
        run.drain()
    assert run.result is not None
    assert run.result.outcome == "cancelled"
    assert ledger(run) == {"admitted": 20, "failed": 20}


@stage(timeout=0.2)
def hang(sample: Sample) -> Sample:
    time.sleep(3600)
    return sample


def test_a_stage_that_is_stuck() -> None:
    run = RayRunner().run(Pipeline(name="p", source=source(4), stages=[hang]))
    with pytest.raises(StageStuckError, match="1 calls ran into the timeout of"):
        run.drain()
    assert run.result is not None
    assert run.result.outcome == "failed"


@stage
def fail(sample: Sample) -> Sample:
    raise ValueError("no")


IN_FLIGHT = 16 * (2 + 2)
"""Samples of the blocks that may be in flight, for one worker."""


def test_too_many_failures() -> None:
    run = RayRunner(block_size=16).run(Pipeline(name="p", source=endless, stages=[fail], max_failures=20))
    with pytest.raises(TooManyFailuresError):
        run.drain()
    assert run.result is not None
    assert run.result.ledger.imbalance == 0
    assert 20 < run.result.stages["fail"].errors <= 20 + IN_FLIGHT


def test_a_budget(tmp_path: Path) -> None:
    from .pipelines import paid  # noqa: PLC0415

    run = RayRunner(block_size=16).run(Pipeline(name="p", source=endless, stages=[paid], max_cost=0.1))
    result = run.drain()
    assert result.outcome == "cancelled"
    assert result.ledger.imbalance == 0
    # Besides those in flight, what was read for the next block, and behind it, and was being read.
    assert 100 <= result.ledger.ready == result.ledger.admitted <= 100 + IN_FLIGHT + 16 + 16 + 1
    assert result.cost.amount == Decimal(result.ledger.ready) / 1000


class Held(Stage):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        super().__init__()

    def process(self, sample: Sample) -> Sample:
        return sample


def test_a_stage_that_cannot_be_sent() -> None:
    expected = (
        "Held(name='Held') cannot be sent to workers: self.lock (lock) cannot be pickled: "
        "cannot pickle '_thread.lock' object (make it in setup())"
    )
    with pytest.raises(ConfigurationError) as caught:
        RayRunner().run(Pipeline(name="p", source=[], stages=[Held()]))
    assert str(caught.value) == expected


@stage
def unloadable(sample: Sample) -> Sample:
    return sample.with_data(Awkward(1, 2))


def test_data_that_the_driver_cannot_load(caplog: pytest.LogCaptureFixture) -> None:
    """Another execution of the same calls would bring the same home."""
    run = RayRunner(block_size=4).run(Pipeline(name="p", source=endless, stages=[unloadable]))
    with pytest.raises(ConfigurationError, match=r"^the driver cannot load the samples that came home: TypeError"):
        run.drain()
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance) == ("failed", 0)
    assert "asked again" not in caplog.text


def test_a_source_that_is_interrupted_at_once(tmp_path: Path) -> None:
    """Workers may not have begun yet, and have to end all the same."""

    def samples() -> Iterator[Sample]:
        raise KeyboardInterrupt
        yield

    run = RayRunner().run(Pipeline(name="p", source=samples, stages=[Slow(tmp_path)]))
    with pytest.raises(KeyboardInterrupt):
        run.drain()
    assert run.result is not None
    assert (run.result.outcome, ledger(run)) == ("cancelled", {})
    wait_until(lambda: not any(thread.name == "forge-ray" for thread in threading.enumerate()), "its thread has ended")


@stage(timeout=1)
def paid_late(sample: Sample) -> Sample:
    if sample.id == "3":
        time.sleep(2)
        usage.report(provider="openai", model="m", amount=0.001)
    return sample


def test_usage_that_is_reported_after_the_block_has_gone_home() -> None:
    """It is lost, and harms no other block."""
    result = RayRunner(block_size=1).run(Pipeline(name="p", source=source(6), stages=[paid_late])).drain()
    assert ledger(result) == {"admitted": 6, "ready": 5, "failed": 1}
    assert (result.stages["paid_late"].executions, result.stages["paid_late"].lost) == (6, 0)
    assert result.cost.amount == 0


WHY = "cannot pickle '_thread.lock' object"
ADVICE = "send what it is made from, such as a path, and make it in the stage that needs it"


@stage
def unpicklable(sample: Sample) -> Sample | list[Sample]:
    match sample.data["n"]:
        case 3:
            return sample.with_data({"held": [1, threading.Lock()]})
        case 4:
            return [sample.child("part", threading.Lock())]
    return sample


class Unpicklable(Measurement):
    key = "unpicklable"

    def compute(self, sample: Sample) -> Any:
        return threading.Lock() if sample.data["n"] == 2 else 1


def test_data_that_cannot_be_sent() -> None:
    given = [*source(5), Sample(id="x", data={"lock": threading.Lock()})]
    pipeline = Pipeline(name="p", source=given, stages=[unpicklable], measurements=[Unpicklable()])
    result = RayRunner().run(pipeline).drain()
    assert ledger(result) == {"admitted": 6, "ready": 2, "failed": 4}
    refused, returned = "forge.errors.StageResultError", "returned what cannot be sent to another process"
    assert {(each.where, each.sample_id, each.error_type, each.message) for each in result.failures} == {
        (
            *("source", "x", "forge.errors.SourceError"),
            f"a sample cannot be sent to a worker process: data['lock'] (lock) cannot be pickled: {WHY} ({ADVICE})",
        ),
        (
            *("unpicklable", "2", refused),
            f"measurement 'unpicklable' {returned}: value (lock) cannot be pickled: {WHY} ({ADVICE})",
        ),
        (
            *("unpicklable", "3", refused),
            f"stage 'unpicklable' {returned}: data['held'][1] (lock) cannot be pickled: {WHY} ({ADVICE})",
        ),
    }


LONELY = """
from forge import Stage


class Lonely(Stage):
    def process(self, sample):
        return sample


class Thing:
    pass
"""


@pytest.mark.parametrize("what", ["stage 'Lonely'", "samples for stage 'double'"])
def test_a_module_that_workers_cannot_import(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lonely.py").write_text(LONELY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lonely", raising=False)
    lonely: Any = importlib.import_module("lonely")
    given: dict[str, Any] = {"source": source(5), "stages": [lonely.Lonely()]}
    if "samples" in what:
        given = {"source": [Sample(id="x", data=lonely.Thing())], "stages": [double]}
    run = RayRunner().run(Pipeline(name="p", **given))
    with pytest.raises(ConfigurationError) as caught:
        run.drain()
    assert str(caught.value) == (
        f"a worker cannot load {what}: ModuleNotFoundError: No module named 'lonely'; install the module on all nodes, "
        "or send it along, such as by ray.init(runtime_env={'working_dir': '.'})"
    )
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance) == ("failed", 0)


def test_no_stage() -> None:
    with pytest.raises(ConfigurationError, match="has no stage and no measurement that Ray could run"):
        RayRunner().run(Pipeline(name="p", source=[]))


@pytest.mark.parametrize("block_size", [0, -1, 1.5, None])
def test_block_sizes_that_make_no_sense(block_size: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a whole number from 1"):
        RayRunner(block_size=block_size)


def test_an_empty_source() -> None:
    assert ledger(RayRunner().run(Pipeline(name="p", source=[], stages=[double])).drain()) == {}


SHUTDOWN = """
import ray
from forge import Pipeline, RayRunner, Sample, SQLStorage, Stage
from forge.errors import ClusterError


class Same(Stage):
    def process(self, sample):
        return sample


ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
source = [Sample(id=str(number), data=number) for number in range(1000)]
pipeline = Pipeline(name="p", source=source, stages=[Same()], storage=SQLStorage("sqlite:///rows.db"))
run = RayRunner(block_size=4).run(pipeline)
try:
    for number, sample in enumerate(run):
        if number == 8:
            ray.shutdown()
except ClusterError as error:
    print(error)
result = run.result
print(result.outcome, result.ledger.ready + result.ledger.failed == result.ledger.admitted)
print(len(pipeline.storage.query("p").samples) == result.ledger.ready)
"""


@pytest.mark.soak
def test_ray_is_shut_down_in_a_run(tmp_path: Path) -> None:
    """Calls would start another Ray, which has none of the workers."""
    script = [sys.executable, "-c", SHUTDOWN]
    answer = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=4 * PATIENCE)
    assert answer.stdout == (
        "Ray was shut down, or this process was disconnected from it, during the run; another run goes on where this "
        "one has ended, if the pipeline has a storage\nfailed True\nTrue\n"
    ), answer.stderr
