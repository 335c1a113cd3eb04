"""Nodes die and join in the middle of runs: nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import ray

from forge import Pipeline, RayRunner, RunResult, Sample, ShardedSource, SQLStorage, Stage, usage
from forge.runner import Run
from forge_otel.commands.cli import main_forge
from tests.support.ray import ON_NODES, Nodes
from tests.support.runs import PATIENCE, ledger, rows
from tests.support.telemetry import Recorded, recording
from tests.support.waiting import LONG, wait_until

from .test_ends import _is_worker

pytestmark = ON_NODES


@pytest.fixture(autouse=True)
def _no_nodes_are_left(nodes: Nodes) -> Iterator[None]:
    yield
    while Consumer.of_this_test:
        Consumer.of_this_test.pop().close()
    nodes.clear()


class Consumer(threading.Thread):
    """Drives a run, while the main thread starts and kills nodes: they end with the thread that started them."""

    of_this_test: ClassVar[list[Consumer]] = []

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.of_this_test.append(self)
        self._run = run
        self.ready: dict[str, Any] = {}
        self.start()

    def run(self) -> None:
        for sample in self._run:
            self.ready[sample.id] = sample.data

    def close(self) -> None:
        """End the run, if it goes on because the test has failed: it would wait for nodes for ever."""
        self._run.close()
        self.join(LONG)

    def result(self) -> RunResult:
        """Wait for the end of the run."""
        self.join(LONG)
        assert self._run.result is not None, "the run has not ended"
        return self._run.result


def source(count: int) -> list[Sample]:
    return [Sample(id=str(number), data={"n": number}) for number in range(count)]


class Paid(Stage):
    """Makes much of little. In its 77th call it waits to be killed: in the fifth block, whatever the order."""

    resources = {"first": 1}  # noqa: RUF012 - as users write it

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = 0
        super().__init__()

    def process(self, sample: Sample) -> Sample:
        number = sample.data["n"]
        self.calls += 1
        if self.calls == 77:
            (self.folder / "waits").touch()
            wait_until((self.folder / "killed").exists, "the node is killed")
        usage.report(provider="openai", model="m", input_tokens=10, amount=0.001)
        # Ray copies small results to the driver. Those of a block of these stay on their node.
        return sample.with_data({"n": number, "text": "x" * 20_000, "pid": os.getpid()})


class Parts(Stage):
    """Fails for some samples, and splits the others. Kills its process once, after the node has been killed."""

    resources = {"second": 1}  # noqa: RUF012 - as above

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__()

    def process(self, sample: Sample) -> list[Sample]:
        number = sample.data["n"]
        died = self.folder / "died"
        if number == 140 and (self.folder / "killed").exists() and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number % 10 == 1:
            raise ValueError(f"no {number}")
        data = {"pids": [sample.data["pid"], os.getpid()]}
        return [sample.child(f"part{part}", data) for part in range(2)]


def points(recorded: Recorded, name: str) -> dict[str, Any]:
    """The points of a counter that are not 0, by their attributes, without those of the model."""
    model = ", gen_ai.provider.name=openai, gen_ai.request.model=m"
    return {text.replace(model, ""): value for text, value in recorded.points[name].items() if value}


def test_a_node_and_a_worker_that_die_lose_and_double_nothing(nodes: Nodes, tmp_path: Path) -> None:
    """Results of calls are lost with the node, besides calls: those are made again, and counted once."""
    first = nodes.add(1, first=1)
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    pipeline = Pipeline(name="p", source=source(150), stages=[Paid(tmp_path), Parts(tmp_path)], storage=storage)
    with recording() as recorded:
        consumer = Consumer(RayRunner(block_size=16).run(pipeline))
        wait_until((tmp_path / "waits").exists, "a call waits to be killed")
        nodes.kill(first)
        (tmp_path / "killed").touch()
        nodes.add(2, first=1, second=1)
        result = consumer.result()
        settled = points(recorded, "forge.sample.settled")
        executions = points(recorded, "forge.stage.executions")
        retries = points(recorded, "forge.stage.retries")
        amounts = points(recorded, "forge.cost.amount")

    failed = {str(number) for number in range(150) if number % 10 == 1}
    assert ledger(result) == {"admitted": 150, "derived": 270, "ready": 270, "split": 135, "dlq": 15}
    assert result.cost.amount == Decimal("0.150")
    assert [(stage.executions, stage.errors) for stage in result.stages] == [(150, 0), (150, 15)]
    assert {letter.sample_id for letter in pipeline.dead_letters.list()} == failed
    assert Counter(rows(storage).values()) == {"ready": 270, "split": 135, "dlq": 15}
    assert len(consumer.ready) == 270

    assert settled == {
        f"pipeline.name=p, sample.outcome={key}": n for key, n in {"ready": 270, "split": 135, "dlq": 15}.items()
    }
    paid, parts = "pipeline.name=p, stage.name=Paid", "pipeline.name=p, stage.name=Parts"
    assert executions == {
        f"{paid}, stage.outcome=success": 150,
        f"{parts}, stage.outcome=success": 135,
        f"{parts}, stage.outcome=error": 15,
    }
    assert amounts == {f"cost.use=useful, {paid}": 0.135, f"cost.use=failed, {paid}": 0.015}
    assert (tmp_path / "died").exists()
    lost = result.stages["Parts"].lost
    assert lost >= 1
    assert retries == {
        # The block in which the node died, and the four whose results it had: there was no worker to take them.
        "error.type=worker_lost, pipeline.name=p, stage.attempt=1, stage.name=Paid": 80,
        "error.type=worker_lost, pipeline.name=p, stage.attempt=1, stage.name=Parts": lost,
    }

    spans = {
        name: {
            str((span.attributes or {})["forge.sample.id"]): span.attributes or {}
            for span in recorded.spans
            if span.name == f"forge.stage {name}"
        }
        for name in ("Paid", "Parts")
    }
    assert [len(found) for found in spans.values()] == [150, 150]
    seen = {sample_id.partition("#")[0]: data["pids"] for sample_id, data in consumer.ready.items()}
    for sample_id, pids in seen.items():
        assert [found[sample_id]["process.pid"] for found in spans.values()] == pids
    assert {found["host.name"] for each in spans.values() for found in each.values()} == {socket.gethostname()}
    assert len({pids[0] for pids in seen.values()}) == 1


@dataclass(frozen=True)
class Shard:
    """A shard of 40 samples, which does not go on while it is read on a certain node."""

    number: int
    folder: Path

    def __iter__(self) -> Iterator[Sample]:
        for place in range(40):
            if place == 30 and os.environ.get(NODE) == "first":
                (self.folder / "reads").touch()
                time.sleep(3600)
            yield Sample(id=f"{self.number}-{place}", data=place)


class Shards(ShardedSource):
    """Twelve of them, for six readers, which Ray spreads over the nodes."""

    concurrency = 6

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shards(self) -> Iterator[Shard]:
        for number in range(12):
            yield Shard(number, self.folder)


NODE = "TEST_NODE"


def test_a_node_that_dies_while_it_reads_a_shard(nodes: Nodes, tmp_path: Path) -> None:
    first, _ = (nodes.add(1, {NODE: name}) for name in ("first", "second"))
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    pipeline = Pipeline(name="p", source=Shards(tmp_path), stages=[Placed()], storage=storage)
    consumer = Consumer(RayRunner(block_size=16).run(pipeline))
    wait_until((tmp_path / "reads").exists, "a shard is being read")
    nodes.kill(first)
    result = consumer.result()
    assert ledger(result) == {"admitted": 480, "ready": 480}
    assert result.stages["Placed"].executions == 480
    assert set(consumer.ready) == set(rows(storage)) == {f"{shard}-{n}" for shard in range(12) for n in range(40)}
    assert set(rows(storage).values()) == {"ready"}
    storage.close()


class Rare(Stage):
    """Needs what no node has at first."""

    resources = {"rare": 1}  # noqa: RUF012 - as users write it

    def process(self, sample: Sample) -> Sample:
        time.sleep(0.05)
        return sample


def endless() -> Iterator[Sample]:
    number = 0
    while True:
        yield Sample(id=str(number), data={"n": number})
        number += 1


def test_a_run_without_nodes_waits_says_so_and_ends_in_time(nodes: Nodes, tmp_path: Path) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path}/rows.db")
    # Until it is held up, Ray takes some time, too.
    pipeline = Pipeline(name="p", source=endless, stages=[Rare()], storage=storage, stall_after=20.0)
    run = RayRunner(block_size=4).run(pipeline)
    consumer = Consumer(run)
    wait_until(lambda: bool(run.stalls), "the run is held up")
    [stall] = run.stalls
    assert (stall.reason, stall.stage) == ("workers", "Rare")
    assert str(stall).endswith(
        "the cluster has no room for workers; 25 samples in flight "
        "(Rare: 24 queued, 0 of 1 workers, which take 1 CPU each (0 free) and 1 rare each (0 free))"
    )

    node = nodes.add(1, rare=1)
    wait_until(lambda: len(consumer.ready) >= 8, "samples are ready")
    nodes.kill(node)
    begun = time.monotonic()
    run.close()
    assert time.monotonic() - begun < PATIENCE  # for ever, if it waited for workers
    result = consumer.result()
    assert (result.outcome, result.ledger.imbalance) == ("cancelled", 0)
    assert set(rows(storage).values()) == {"ready"}
    # Nothing waits for a node any more.
    wait_until(
        lambda: not any(thread.name == "forge-ray" for thread in threading.enumerate()), "the run's thread has ended"
    )
    node = nodes.add(1, rare=1)
    wait_until(lambda: ray.available_resources().get("rare") == 1, "nothing takes the resource")


class Placed(Stage):
    """Tells its node."""

    def process(self, sample: Sample) -> Sample:
        time.sleep(0.02)
        return sample.with_data(ray.get_runtime_context().get_node_id())


@pytest.mark.soak
def test_a_node_that_joins_gets_work(nodes: Nodes) -> None:
    """A pool of workers grows onto it."""
    nodes.add(1)
    end = time.monotonic() + LONG

    def samples() -> Iterator[Sample]:
        for sample in endless():
            if len(set(consumer.ready.values())) == 2 or time.monotonic() > end:
                return
            yield sample

    consumer = Consumer(
        RayRunner(block_size=4).run(Pipeline(name="p", source=samples, stages=[Placed(concurrency=(1, 4))]))
    )
    wait_until(lambda: bool(consumer.ready), "a sample is ready")
    nodes.add(1)
    result = consumer.result()
    assert len(set(consumer.ready.values())) == 2
    assert result.ledger.ready == result.ledger.admitted == len(consumer.ready)


DRIVER = """
import os, sys, time
from pathlib import Path
from forge import Pipeline, RayRunner, Sample, SQLStorage, Stage, usage

folder = Path(sys.argv[1])


class Slow(Stage):
    def setup(self):
        (folder / f"{os.getpid()}.pid").touch()

    def process(self, sample):
        time.sleep(0.02)
        while sample.data >= 200 and not (folder / "killed").exists():
            time.sleep(0.02)
        usage.report(provider="openai", model="m", amount=0.001)
        return [sample.child(str(part), sample.data) for part in range(2)]


source = [Sample(id=str(number), data=number) for number in range(300)]
storage = SQLStorage(sys.argv[2])
pipeline = Pipeline(name="p", source=source, stages=[Slow(concurrency=2)], storage=storage)
result = RayRunner(block_size=8).run(pipeline).drain()
print(result.ledger.unchanged, result.ledger.split, result.ledger.ready, f"{result.cost.amount:.3f}")
"""


def test_a_driver_that_is_killed_is_resumed_and_leaves_nothing(
    nodes: Nodes, tmp_path: Path, postgresql_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It only connects to the cluster, which outlives it."""
    nodes.add(2)
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, "driver.py", str(tmp_path), postgresql_url]
    settings: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {**os.environ, "RAY_ADDRESS": nodes.address},
        "stdout": subprocess.PIPE,
        "text": True,
    }
    storage = SQLStorage(postgresql_url)
    storage.open()
    driver = subprocess.Popen(command, **settings)
    wait_until(lambda: storage.count("p") >= 30, "rows are stored")
    driver.kill()
    driver.communicate()
    (tmp_path / "killed").touch()

    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert pids
    wait_until(lambda: not any(_is_worker(pid) for pid in pids), "all workers have ended")
    wait_until(lambda: ray.available_resources().get("CPU") == 2, "all cores are free")
    assert main_forge(["runs", "--storage", postgresql_url]) == 0
    assert "died" in capsys.readouterr().out
    stored = Counter(record.status.value for record in storage.query("p").samples)
    left = 300 - stored["split"]
    assert 0 < left < 300

    again = subprocess.run(command, check=True, timeout=LONG, **settings)
    assert again.stdout == f"{stored['split']} {left} {600 - stored['ready']} {Decimal(left) / 1000:.3f}\n"
    assert Counter(record.status.value for record in storage.query("p").samples) == {"ready": 600, "split": 300}
    assert [row.outcome for row in storage.runs()] == ["completed", None]
    storage.close()


def test_a_cluster_that_runs_on_this_machine_is_not_taken_for_a_ray_of_its_own(nodes: Nodes, tmp_path: Path) -> None:
    """Nodes may join it, so what it has not yet is waited for. `ray start` leaves the address of such a cluster."""
    # Ray may print what has become of other nodes, so the answer is in a file.
    script = "import pathlib, forge.runner.ray.cluster as c; pathlib.Path('answer').write_text(str(c.connect()))"
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", script]
    subprocess.run(command, cwd=tmp_path, env=variables, check=True, timeout=LONG)
    assert (tmp_path / "answer").read_text() == "False"
