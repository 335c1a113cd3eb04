"""Runs on Ray with a server, on few cores, and in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from forge import Measurement, Pipeline, RayRunner, Sample, SampleStatus, SQLStorage, stage
from forge.errors import ConfigurationError, StorageError
from tests.support.postgresql import Server
from tests.support.ray import ON_RAY
from tests.support.runs import PATIENCE, ledger, rows
from tests.support.waiting import wait_until

from .pipelines import PIPELINES, source, split
from .test_ends import wait_for_their_end

pytestmark = ON_RAY


def test_a_server_that_restarts_costs_nothing(postgresql_url: str, postgresql_server: Server) -> None:
    storage = SQLStorage(postgresql_url)
    ready = 0
    with RayRunner(block_size=4).run(PIPELINES["split"](storage)) as run:
        for _ in run:
            ready += 1
            if ready == 20:
                postgresql_server.stop()
                time.sleep(0.5)
                postgresql_server.start()
    assert ready == 200
    assert ledger(run) == {"admitted": 150, "derived": 300, "ready": 200, "skipped": 100, "split": 150}
    assert Counter(rows(storage).values()) == {"ready": 200, "skipped": 100, "split": 150}


@pytest.mark.soak
def test_a_server_that_is_gone_ends_the_run(postgresql_url: str, postgresql_server: Server) -> None:
    """Nothing that is stored is called again, and everything else is."""
    storage = SQLStorage(postgresql_url, timeout=1.0)
    run = RayRunner(block_size=4).run(PIPELINES["split"](storage))
    for _ in range(20):
        next(run)
    postgresql_server.stop()
    try:
        with pytest.raises(StorageError, match="cannot use postgresql://"):
            run.drain()
    finally:
        postgresql_server.start()
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.imbalance, run.result.ledger.active) == ("failed", 0, 0)
    # The transaction that was under way may have been committed, although no answer came.
    done = Counter(rows(storage).values())
    assert done[SampleStatus.READY] >= run.result.ledger.ready > 0
    again = RayRunner().run(PIPELINES["split"](storage)).drain()
    assert again.ledger.ready + done[SampleStatus.READY] == 200
    assert Counter(rows(storage).values()) == {"ready": 200, "skipped": 100, "split": 150}


def test_more_stages_than_cores() -> None:
    stages = [stage(name=f"s{number}", concurrency=2)(_through) for number in range(3)]
    result = RayRunner().run(Pipeline(name="p", source=source(20), stages=stages)).drain()
    assert ledger(result) == {"admitted": 20, "ready": 20}


def _through(sample: Sample) -> Sample:
    return sample


def test_a_pool_between_two_sizes() -> None:
    pooled = stage(name="pooled", concurrency=(1, 2))(_through)
    assert (pooled.min_concurrency, pooled.concurrency) == (1, 2)
    result = RayRunner(block_size=4).run(Pipeline(name="p", source=source(40), stages=[pooled, split])).drain()
    assert ledger(result) == {"admitted": 40, "derived": 80, "ready": 80, "split": 40}
    assert result.stages["pooled"].concurrency == 2


@pytest.mark.parametrize("pair", [(2, 1), (0, 1), (1, 2, 3), (1, "2"), []])
def test_pairs_that_make_no_sense(pair: Any) -> None:
    with pytest.raises(ConfigurationError, match="a whole number, or two with the smaller one first"):
        stage(name="s", concurrency=pair)(_through)


@pytest.mark.parametrize("resources", [{"GPU": -1}, {"": 1}, ["GPU"], {"GPU": "one"}])
def test_resources_that_make_no_sense(resources: Any) -> None:
    with pytest.raises(ConfigurationError, match="resources must be names with amounts"):
        stage(name="s", resources=resources)(_through)


class Sized(Measurement):
    key = "sized"
    resources = {"CPU": 0.5}  # noqa: RUF012 - as users write it

    def compute(self, sample: Sample) -> int:
        return len(str(sample.data))


def test_a_measurement_with_resources() -> None:
    result = RayRunner().run(Pipeline(name="p", source=source(5), measurements=[Sized()])).drain()
    assert ledger(result) == {"admitted": 5, "ready": 5}
    assert result.measurements["sized"].computed == 5


SCRIPT = """
import sys, time
from pathlib import Path
from forge import Pipeline, RayRunner, Sample, SQLStorage, Stage
from forge.errors import ConfigurationError

folder = Path(sys.argv[1])


class Slow(Stage):
    def process(self, sample):
        import os
        (folder / f"{os.getpid()}.open").touch()
        time.sleep(0.05)
        return sample


class Gpu(Slow):
    resources = {"GPU": 1}


source = [Sample(id=str(number), data=number) for number in range(100_000)]
try:
    RayRunner().run(Pipeline(name="p", source=source, stages=[Gpu()])).drain()
except ConfigurationError as error:
    print(error, flush=True)
RayRunner().run(Pipeline(name="first", source=source[:1], stages=[Slow()])).drain()
try:
    RayRunner().run(Pipeline(name="p", source=source, stages=[Gpu()])).drain()
except ConfigurationError as error:
    print(error, flush=True)
RayRunner().run(Pipeline(name="p", source=source, stages=[Slow()], storage=SQLStorage(f"sqlite:///{folder}/rows.db"))).drain()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_a_signal_ends_the_run_and_its_workers(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "script.py", str(tmp_path)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    wait_until(lambda: len(list(tmp_path.glob("*.open"))) >= 2, "two runs have workers", 4 * PATIENCE)
    wait_until(lambda: storage.count("p") > 0, "rows are stored")
    process.send_signal(number)
    out, err = process.communicate(timeout=2 * PATIENCE)
    refusal = "Gpu(name='Gpu') asks for 1 of the resource 'GPU' for each of 1 workers, and the cluster has 0\n"
    assert out == 2 * refusal, out + err
    assert process.returncode != 0, err
    wait_for_their_end(tmp_path)
    (run,) = storage.runs()
    assert run.outcome == "cancelled"
    assert Counter(rows(storage).values()) == {"ready": run.record["ledger"]["ready"]}
    assert run.record["ledger"]["imbalance"] == 0


QUIET = """
from forge import Pipeline, RayRunner, Sample, Stage


class Same(Stage):
    def process(self, sample):
        return sample


source = [Sample(id=str(number), data=number) for number in range(40)]
for _ in range(2):
    pipeline = Pipeline(name="p", source=source, stages=[Same(concurrency=2)])
    print(RayRunner(block_size=4).run(pipeline).drain().ledger.ready)
"""


def test_a_run_prints_nothing(tmp_path: Path) -> None:
    # Neither Ray, nor a process of it that crashes.
    (tmp_path / "script.py").write_text(QUIET)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_BACKEND_LOG_LEVEL"}
    process = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "RAY_ADDRESS": "local"},
        timeout=4 * PATIENCE,
    )
    assert (process.stdout, process.stderr) == ("40\n" * 2, "")


GREEDY = """
import sys, time
from pathlib import Path
from forge import Pipeline, RayRunner, Sample, SQLStorage, Stage

folder = Path(sys.argv[1])


class Greedy(Stage):
    def process(self, sample):
        if sample.data == 77 and not (folder / "greedy").exists():
            (folder / "greedy").touch()
            held = []
            while True:  # until Ray has enough of it
                held.append(b"x" * (64 << 20))
                time.sleep(0.05)
        return sample


source = [Sample(id=str(number), data=number) for number in range(150)]
storage = SQLStorage(f"sqlite:///{folder}/rows.db")
result = RayRunner(block_size=16).run(Pipeline(name="p", source=source, stages=[Greedy()], storage=storage)).drain()
print(result.ledger.ready, result.stages["Greedy"].executions, result.stages["Greedy"].lost)
"""


def test_a_worker_that_runs_out_of_memory_loses_and_doubles_nothing(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(GREEDY)
    allowed = psutil.virtual_memory().percent / 100 + 0.2
    monitor = {"RAY_memory_usage_threshold": f"{min(allowed, 0.9):.2f}", "RAY_memory_monitor_refresh_ms": "100"}
    done = subprocess.run(
        [sys.executable, "script.py", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "RAY_ADDRESS": "local", **monitor},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "150 150 16" in done.stdout.splitlines()  # Ray tells of the death beside it
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    assert set(rows(storage).values()) == {SampleStatus.READY}
    storage.close()
