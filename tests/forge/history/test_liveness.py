"""Runs without an end: their process tells whether they have died, or their heartbeat."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from forge import BatchRunner, Pipeline, Sample, SQLStorage, StreamingRunner, stage
from forge.history import RecordedRun, RunState, find_run, runs
from forge.runner import heartbeat
from forge.support import processes
from tests.support.runs import PATIENCE, samples, wait

PROGRAM = """
import sys
from forge import BatchRunner, Pipeline, SQLStorage, stage

@stage
def wait(sample):
    print("running", flush=True)
    sys.stdin.readline()
    return sample

BatchRunner().run(Pipeline(name="p", source=["a"], stages=[wait], storage=SQLStorage(sys.argv[1]))).drain()
"""


@pytest.fixture
def process(storage_url: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose run waits for a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, storage_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    yield process
    process.kill()
    process.communicate()


def last_run(url: str) -> RecordedRun:
    storage = SQLStorage(url)
    run = find_run(storage, "last")
    storage.close()
    return run


def in_database(url: str, statement: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def change(url: str, assignments: str) -> None:
    """Change the only run's row by hand."""
    in_database(url, f"UPDATE forge_runs SET {assignments}")


@pytest.mark.slow
def test_a_killed_process(process: subprocess.Popen[str], storage_url: str) -> None:
    run = last_run(storage_url)
    assert (run.state, run.evidence) == (RunState.ACTIVE, f"process {process.pid} on {socket.gethostname()} runs")
    assert (run.ended, run.outcome, run.host, run.pid) == (None, None, socket.gethostname(), process.pid)

    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its parent has not taken notice of it

    run = last_run(storage_url)
    assert (run.state, run.evidence) == (RunState.DIED, f"process {process.pid} on {socket.gethostname()} is gone")
    process.wait()
    assert last_run(storage_url) == run


@pytest.mark.slow
def test_a_run_in_progress_ends(process: subprocess.Popen[str], storage_url: str) -> None:
    process.communicate("\n", timeout=PATIENCE)

    run = last_run(storage_url)
    assert (run.state, run.evidence, run.outcome) == (RunState.ENDED, "", "completed")


@pytest.mark.slow
def test_the_pid_of_a_killed_process_is_used_again(process: subprocess.Popen[str], storage_url: str) -> None:
    process.kill()
    process.wait()
    # The process of this test has it now.
    change(storage_url, f"pid = {os.getpid()}")

    assert last_run(storage_url).state is RunState.DIED


@contextmanager
def run_in_progress(url: str) -> Iterator[SQLStorage]:
    """The row of a run of this process, without an end."""
    storage = SQLStorage(url)
    storage.begin_run("run", "p", "definition", 0.0, {})
    yield storage
    storage.close()


@pytest.mark.parametrize(
    ("silence", "state"),
    [(0, RunState.ACTIVE), (60, RunState.ACTIVE), (120, RunState.DIED), (-3600, RunState.ACTIVE)],
)
def test_on_another_host_only_the_heartbeat_tells(silence: float, state: RunState, storage_url: str) -> None:
    with run_in_progress(storage_url) as storage:
        change(storage_url, f"host = 'elsewhere', heartbeat = heartbeat - {silence}")

        [run] = runs(storage)

    assert run.state is state
    assert run.evidence.startswith(f"process {os.getpid()} on elsewhere: last heartbeat ")


def test_the_clock_of_the_other_host_does_not_matter(storage_url: str) -> None:
    # The time of the start is that of the run's own clock, here long ago; the heartbeat is that of the database.
    with run_in_progress(storage_url) as storage:
        change(storage_url, "host = 'elsewhere'")

        [run] = runs(storage)

    assert (run.started, run.state) == (0.0, RunState.ACTIVE)


@pytest.mark.parametrize(
    ("birth", "state"),
    [
        ("another-boot/pid:[1]/1", RunState.DIED),  # the machine was restarted
        ("{boot}/pid:[1]/1", RunState.ACTIVE),  # in a container with the same host name: the heartbeat is new
        (None, RunState.ACTIVE),  # the system does not tell
    ],
)
def test_a_process_that_cannot_be_seen(birth: str | None, state: RunState, storage_url: str) -> None:
    ours = processes.current().birth
    assert ours is not None
    with run_in_progress(storage_url) as storage:
        value = "NULL" if birth is None else f"'{birth.replace('{boot}', ours.partition('/')[0])}'"
        change(storage_url, f"process = {value}")

        assert [run.state for run in runs(storage)] == [state]


def test_a_run_of_an_earlier_release(storage_url: str) -> None:
    with run_in_progress(storage_url) as storage:
        change(storage_url, "host = NULL, pid = NULL, process = NULL, heartbeat = NULL")

        [run] = runs(storage)

    assert (run.state, run.evidence) == (
        RunState.DIED,
        "an earlier release has recorded it, and has not recorded its end",
    )


def silence_of(url: str) -> float:
    storage = SQLStorage(url)
    [row] = storage.runs()
    storage.close()
    assert row.silence is not None
    return row.silence


class BeatenStorage(SQLStorage):
    """A storage that tells of its heartbeats."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.beats: queue.Queue[int] = queue.Queue()

    def beat(self, run_id: str) -> None:
        super().beat(run_id)
        self.beats.put(os.getpid())


RUNNERS = pytest.mark.parametrize("runner", [BatchRunner(), StreamingRunner()], ids=["batch", "streaming"])


@RUNNERS
def test_heartbeats_while_a_stage_is_stuck(
    runner: BatchRunner | StreamingRunner, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    storage = BeatenStorage(storage_url)

    @stage
    def stuck(sample: Sample) -> Sample:
        change(storage_url, "heartbeat = heartbeat - 100000")
        next_beat(storage)
        return sample.with_data(round(silence_of(storage_url), -3))

    [sample] = runner.run(Pipeline(name="p", source=["a"], stages=[stuck], storage=storage))

    assert sample.data == 0


@RUNNERS
def test_heartbeats_while_the_consumer_stays_in_its_own_loop(
    runner: BatchRunner | StreamingRunner, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    storage = BeatenStorage(storage_url)
    silences = []
    for _ in runner.run(Pipeline(name="p", source=samples(1, 2), storage=storage)):
        change(storage_url, "heartbeat = heartbeat - 100000")
        next_beat(storage)
        silences.append(round(silence_of(storage_url), -3))

    assert silences == [0, 0]
    assert not [thread for thread in threading.enumerate() if thread.name == "forge-heartbeat"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_only_the_process_of_the_run_writes_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    storage = BeatenStorage(f"sqlite:///{tmp_path}/p.db")
    run = BatchRunner().run(Pipeline(name="p", source=samples(1, 2), storage=storage))
    next(run)
    child = os.fork()
    if child == 0:
        os._exit(len([each for each in threading.enumerate() if each.name == "forge-heartbeat"]))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert next_beat(storage) == os.getpid()
    run.drain()


def test_a_heartbeat_that_cannot_be_written_harms_nothing(storage_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    failed = threading.Event()
    monkeypatch.setattr(heartbeat.logger, "debug", lambda *_, **__: failed.set())

    run = BatchRunner().run(Pipeline(name="p", source=samples(1, 2), storage=SQLStorage(storage_url)))
    settled = [next(run).data]
    in_database(storage_url, "ALTER TABLE forge_runs DROP COLUMN heartbeat")
    wait(failed)
    settled += [sample.data for sample in run]

    assert settled == [1, 2]
    assert run.result is not None
    assert run.result.outcome == "completed"


def next_beat(storage: BeatenStorage) -> int:
    """Wait for a heartbeat that begins from now on; return the process that has written it."""
    while not storage.beats.empty():
        storage.beats.get()
    storage.beats.get(timeout=PATIENCE)  # it may have begun before
    return storage.beats.get(timeout=PATIENCE)
