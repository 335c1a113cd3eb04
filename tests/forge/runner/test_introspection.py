"""The socket through which runs in progress are looked at."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, Pipeline, Sample, StreamingRunner, stage
from forge.runner.introspection import ask, ask_all, folders, introspection, lines
from forge_otel.commands.cli import main_forge
from tests.support.clock import FakeClock
from tests.support.runs import PATIENCE, samples, wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from forge import Run


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the sockets."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / "forge"


class Running:
    """A run in a call that lasts."""

    def __init__(self, *, introspect: bool = True) -> None:
        clock = FakeClock()
        begun, self.release = threading.Event(), threading.Event()

        @stage
        def label(sample: Sample) -> Sample:
            clock.advance(5)
            begun.set()
            wait(self.release)
            return sample

        pipeline = Pipeline(name="p", source=samples(1), stages=[label])
        self.run: Run = BatchRunner(clock=clock, introspect=introspect).run(pipeline)
        self._thread = threading.Thread(target=self.run.drain)
        self._thread.start()
        wait(begun)

    def end(self) -> None:
        self.release.set()
        self._thread.join(PATIENCE)


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.end()


def test_a_run_is_looked_at(running: Running, place: Path) -> None:
    [document] = ask_all()
    assert document["pid"] == os.getpid()
    [run] = document["runs"]
    assert (run["run_id"], run["active"], [each["state"] for each in run["samples"]]) == (running.run.id, 1, ["call"])
    [path] = place.iterdir()
    assert path.name == f"{os.getpid()}.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    text = lines(document)
    assert text[0] == (
        f"p {running.run.id[:8]} (process {os.getpid()}): 0 settled in 5.0s, the last 5.0s ago; 1 in flight"
    )
    assert text[1] == "  0: call of label for 5.0s"
    assert text[2].startswith("      ")
    assert " in Running.__init__.<locals>.label" in text[2]

    running.end()
    assert list(place.iterdir()) == []
    assert ask_all() == []


def test_samples_that_wait_are_summed_up() -> None:
    def sample(
        sample_id: str, state: str, where: str | None, passed: float | None = None, **more: Any
    ) -> dict[str, Any]:
        return {
            "sample_id": sample_id,
            "state": state,
            "where": where,
            "duration": passed,
            "attempt": None,
            "stack": [],
            "count": 1,
            **more,
        }

    run = {
        "run_id": "0123456789",
        "pipeline": "p",
        "type": "replay",
        "duration": 60,
        "silence": 3,
        "settled": 7,
        "active": 9,
        "source": ["source.py:1 in read"],
        "samples": [
            sample("a", "call", "label", 5.0, stack=["x.py:1 in f"], attempt=2),
            sample("b", "call", "label", 4.0, stack=["x.py:1 in f"], attempt=1),
            sample("c", "retry", "label\x1b"),
            sample("d", "queued", "label", 2.0),
            sample("e", "queued", "label", 1.0),
            sample("f", "queued", "length"),
            sample("g\n", "storing", None),
        ],
    }
    assert lines({"pid": 1, "runs": [run]}) == [
        "p 01234567 (process 1, replay): 7 settled in 60s, the last 3.0s ago; 9 in flight",
        "  reading the source",
        "      source.py:1 in read",
        "  a: call of label for 5.0s, attempt 2",
        "      x.py:1 in f",
        "  b: call of label for 4.0s",
        "  c: retry of label\\x1b",
        "  2 queued for label, first d for 2.0s",
        "  1 queued for length, first f",
        "  1 storing, first g",
        "  and 2 more",
    ]


def test_only_runs_that_allow_it(place: Path) -> None:
    running = Running(introspect=False)
    assert not place.exists()
    assert ask_all() == []
    running.end()


def test_several_runs_share_the_socket(running: Running, place: Path) -> None:
    other = Running()
    [document] = ask_all()
    assert {run["run_id"] for run in document["runs"]} == {running.run.id, other.run.id}
    other.end()
    assert [len(each["runs"]) for each in ask_all()] == [1]
    assert len(list(place.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707])
def test_a_folder_that_others_may_enter_is_refused(
    place: Path, mode: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    place.mkdir()
    place.chmod(mode)
    Running().end()
    why = f"{place} must be a folder of your own that nobody else may enter (chmod 700)"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"the runs of this process cannot be looked at with forge ps: {why}"
    ]
    assert main_forge(["ps"]) == 2
    assert capsys.readouterr().err == f"forge ps: {why}\n"


def test_a_link_to_another_folder_is_refused(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "elsewhere")
    Running().end()
    assert "must be a folder of your own" in caplog.text
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_sockets_of_processes_that_are_gone_are_removed(place: Path) -> None:
    place.mkdir(mode=0o700)
    gone = socket.socket(socket.AF_UNIX)
    gone.bind(str(place / "1.sock"))
    gone.close()
    assert ask_all() == []
    assert list(place.iterdir()) == []


def test_a_process_that_does_not_answer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge.runner.introspection._TIMEOUT", 0.01)
    place.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(place / "1.sock"))
        stopped.listen()
        [document] = ask_all()
    assert lines(document) == ["process 1 does not answer: timed out"]


def test_without_a_session_the_folder_is_one_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    running = Running()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    assert len(folders()) == 2
    assert len(ask_all()) == 1
    assert ask(tmp_path / f"forge-{os.getuid()}" / f"{os.getpid()}.sock")["pid"] == os.getpid()
    running.end()


def test_the_command(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_forge(["ps"]) == 0
    assert "call of label for 5.0s" in capsys.readouterr().out
    assert main_forge(["ps", str(os.getpid()), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["runs"][0]["run_id"] == running.run.id
    assert main_forge(["ps", "1"]) == 2
    assert capsys.readouterr().err == (
        "forge ps: process 1 has no runs that can be looked at: start them with forge run, or introspect=True\n"
    )
    running.end()
    assert main_forge(["ps"]) == 0
    assert capsys.readouterr().out.strip() == (
        "no runs that can be looked at: start them with forge run, or introspect=True"
    )


SLOW = """
import sys
import threading

from forge import Pipeline, Sample, StreamingRunner, stage


@stage
def label(sample):
    print("begun", flush=True)
    sys.stdin.readline()
    return sample


StreamingRunner(introspect=True).run(Pipeline(name="slow", source=[1], stages=[label])).drain()
"""


@pytest.mark.slow  # it starts Python
def test_another_process_and_its_signal() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        deadline = time.monotonic() + PATIENCE
        while not (found := ask_all()):
            assert time.monotonic() < deadline, "waited in vain"
        assert (found[0]["pid"], found[0]["runs"][0]["pipeline"]) == (process.pid, "slow")
        process.send_signal(signal.SIGUSR1)
        assert process.stderr.readline().startswith("slow ")
        assert "call of label" in process.stderr.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0


def test_the_signal_is_left_alone_where_it_has_a_handler() -> None:
    def handler(*_: object) -> None: ...

    pipeline = Pipeline(name="p", source=samples(1))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with StreamingRunner(introspect=True).run(pipeline) as run:
            next(run)
            assert signal.getsignal(signal.SIGUSR1) is handler
    finally:
        signal.signal(signal.SIGUSR1, before)
    with StreamingRunner(introspect=True).run(pipeline) as run:
        next(run)
        assert signal.getsignal(signal.SIGUSR1) == introspection._on_signal
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
