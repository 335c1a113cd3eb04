"""Progress on real terminals, in pipes and in a real notebook; and displays that fail or hang."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forge import BatchRunner, Pipeline, Run, RunOutcome, Sample, StreamingRunner, stage
from forge.progress import display, progress
from tests.support.needs import need_installed
from tests.support.runs import PATIENCE, wait


def gated() -> tuple[Run, threading.Event]:
    """A run that goes on when the event is set."""
    gate = threading.Event()

    @stage
    def parse(sample: Sample) -> Sample:
        wait(gate)
        return sample

    return StreamingRunner().run(Pipeline(name="corpus", source=[1, 2], stages=[parse])), gate


class Stream(io.StringIO):
    """A file that runs a function at every write."""

    def __init__(self, on_write: Callable[[], Any]) -> None:
        super().__init__()
        self._on_write = on_write

    def write(self, text: str) -> int:
        self._on_write()
        return super().write(text)


def test_without_a_terminal_there_is_a_line_every_so_often() -> None:
    run, gate = gated()
    stream = Stream(gate.set)  # so the run ends after the first line
    with progress(run, stream=stream, every=0.001) as same:
        assert same is run
        run.drain()
    first = stream.getvalue().splitlines()[0]
    assert first.startswith("corpus: 0:00, ")
    assert first.endswith(" active, 0 settled")


def test_by_default_lines_go_to_stderr_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    assert display.LINE_EVERY == 30
    result = BatchRunner().run(Pipeline(name="p", source=[1])).drain(progress=True)
    assert result.ledger.ready == 1
    assert capsys.readouterr() == ("", "")


def test_text_that_the_file_cannot_hold_is_escaped(tmp_path: Path) -> None:
    written = threading.Event()

    class File(io.TextIOWrapper):
        def flush(self) -> None:
            super().flush()
            written.set()

    @stage
    def parse(sample: Sample) -> Sample:
        wait(written)
        return sample

    run = BatchRunner().run(Pipeline(name="caf\xe9 日", source=[1], stages=[parse]))
    with File((tmp_path / "log").open("wb"), encoding="latin-1") as file:
        with progress(run, stream=file, every=0.001):
            run.drain()
        assert (tmp_path / "log").read_text("latin-1").startswith("caf\xe9 \\u65e5: 0:00, ")


def test_a_display_that_raises_ends_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    run, gate = gated()

    def fail() -> None:
        gate.set()
        raise OSError("no space\x1b[2J")

    with caplog.at_level(logging.WARNING, "forge"), progress(run, stream=Stream(fail), every=0.001):
        result = run.drain()
    assert (result.outcome, result.ledger.ready) == (RunOutcome.COMPLETED, 2)
    assert caplog.messages == [r"the progress of 'corpus' is not shown: OSError: no space\x1b[2J"]


def test_a_display_that_cannot_begin_is_none(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(io.StringIO):
        def isatty(self) -> bool:
            raise ValueError("closed")

    run = BatchRunner().run(Pipeline(name="p", source=[1]))
    with caplog.at_level(logging.WARNING, "forge"), progress(run, stream=Broken()):
        assert run.drain().ledger.ready == 1
    assert caplog.messages == ["the progress of 'p' is not shown: ValueError: closed"]


def test_a_display_that_hangs_does_not_hold_up_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "PATIENCE", 0.01)
    run, gate = gated()
    released = threading.Event()

    def hang() -> None:
        gate.set()
        wait(released)

    with progress(run, stream=Stream(hang), every=0.001):
        assert run.drain().ledger.ready == 2
    released.set()


def test_a_run_that_has_ended_shows_nothing() -> None:
    run = BatchRunner().run(Pipeline(name="p", source=[1]))
    run.drain()
    with progress(run, stream=Stream(lambda: pytest.fail("written")), every=0.001):
        pass


SCRIPT = """
import os, sys, threading, time
from forge import Pipeline, StreamingRunner, stage
from forge.progress import progress

@stage(concurrency=2)
def parse(sample):
    time.sleep(0.01)
    while not os.path.exists("shown"):
        time.sleep(0.01)
    return sample

with progress(StreamingRunner().run(Pipeline(name="corpus", source=range(int(sys.argv[1])), stages=[parse]))) as run:
    for sample in run:
        print("sample", sample.data, flush=True)
"""
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"


def on_a_terminal(
    tmp_path: Path, number: int, *, ending: signal.Signals | None = None, **environment: str
) -> tuple[bytes, list[str], int]:
    """Run the script with a terminal as stderr; returns what it shows, the lines of stdout, and the exit code.

    No sample is through before a terminal that shows a table has shown it.
    """
    (tmp_path / "script.py").write_text(SCRIPT)
    if environment.get("TERM") == "dumb":
        (tmp_path / "shown").touch()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "script.py", str(number)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
    )
    os.close(theirs)
    shown = b""
    with process:
        try:
            while more := os.read(ours, 65536):
                shown += more
                if b" read" in shown:
                    (tmp_path / "shown").touch()
                if ending is not None and b" read" in shown:
                    process.send_signal(ending)
                    ending = None
        except OSError:  # Linux reports the end of a terminal in this way
            pass
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        code = process.wait(PATIENCE)
    os.close(ours)
    return shown, lines, code


@pytest.mark.slow
def test_a_terminal_shows_a_table_and_has_its_cursor_back(tmp_path: Path) -> None:
    shown, lines, code = on_a_terminal(tmp_path, 100)
    assert code == 0
    assert "━".encode() in shown
    assert b"\x1b[32m" in shown
    assert b"/100 read, " in shown
    assert shown.rindex(SHOWN) > shown.rindex(HIDDEN)
    assert sorted(lines) == sorted(f"sample {number}" for number in range(100))  # in the file, and not on the terminal


@pytest.mark.slow
def test_no_color_and_ascii_are_obeyed(tmp_path: Path) -> None:
    shown, _, _ = on_a_terminal(tmp_path, 100, NO_COLOR="1", PYTHONIOENCODING="ascii")
    assert b"#" in shown
    assert b"\x1b[32m" not in shown
    assert shown.isascii()


@pytest.mark.slow
def test_a_dumb_terminal_has_lines(tmp_path: Path) -> None:
    shown, _, code = on_a_terminal(tmp_path, 10, TERM="dumb")
    assert (shown, code) == (b"", 0)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_gives_the_cursor_back(tmp_path: Path, ending: signal.Signals) -> None:
    shown, _, code = on_a_terminal(tmp_path, 100_000, ending=ending)
    assert shown.rindex(SHOWN) > shown.rindex(HIDDEN)
    assert code in (-ending, 128 + ending)


@pytest.mark.slow
def test_a_notebook_shows_a_table_that_is_updated_and_the_result(tmp_path: Path) -> None:
    need_installed("forge-otel", "ipykernel", "nbclient")
    cell = """
import time
from forge import *

class Slow(list):
    def __iter__(self):
        time.sleep(1)  # until the display is there
        return super().__iter__()

run = BatchRunner().run(Pipeline(name='<corpus>', source=Slow(['a', 'b'])))
run.drain(progress=True)"""
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": [
            {
                "id": str(number),
                "cell_type": "code",
                "source": source,
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for number, source in enumerate([cell, "run"])
        ],
    }
    (tmp_path / "notebook.ipynb").write_text(json.dumps(notebook))
    program = Path(sys.executable).with_name("jupyter")
    done = subprocess.run(
        [program, "execute", "--output=done.ipynb", "notebook.ipynb"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": os.pathsep.join([str(program.parent), os.environ["PATH"]]),
            "IPYTHONDIR": str(tmp_path / "ipython"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "done.ipynb").read_text())["cells"]
    shown, result = ("".join(output["data"]["text/html"]) for output in first["outputs"])
    assert '<b>&lt;corpus&gt;</b> <progress max="2" value="2"></progress> 2/2 read' in shown
    assert "0 active, 2 settled: 2 ready" in shown
    assert "2 admitted, 0 derived: 2 ready" in result
    assert "".join(second["outputs"][0]["data"]["text/html"]) == result
