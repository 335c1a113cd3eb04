"""The key in the live display, on real terminals."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.terminal import Terminal

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys
from forge import Pipeline, Sample, StreamingRunner, stage
from forge.progress import progress

gate, ending, keys = os.open(sys.argv[1], os.O_RDWR), sys.argv[2], sys.argv[3] == "keys"

@stage
def parse(sample):
    os.read(gate, 1)
    return sample

samples = [Sample(id=each, data=each) for each in "ab"]
run = StreamingRunner().run(Pipeline(name="corpus", source=samples, stages=[parse]))
with progress(run, keys=keys):
    for sample in run:
        if ending == "error":
            raise LookupError
"""
HINT = b"p: where the samples are"
CURSOR = b"\x1b[?25h"


@contextmanager
def job(
    tmp_path: Path,
    ending: str = "",
    *,
    keys: bool = True,
    background: bool = False,
    height: int = 24,
    piped: bool = False,
) -> Iterator[tuple[Terminal, int]]:
    """A terminal whose job goes on by a sample with each byte written to the descriptor."""
    script, fifo = tmp_path / "script.py", tmp_path / "gate"
    script.write_text(SCRIPT)
    os.mkfifo(fifo)
    read, write = os.pipe()
    try:
        with Terminal(
            script,
            str(fifo),
            ending,
            "keys" if keys else "",
            background=background,
            height=height,
            stdin=read if piped else None,
        ) as terminal:
            gate = os.open(fifo, os.O_RDWR)  # which does not wait for the other end
            try:
                yield terminal, gate
            finally:
                os.close(gate)
    finally:
        os.close(read)
        os.close(write)


def is_raw(terminal: Terminal) -> bool:
    return not terminal.current_settings[3] & (termios.ICANON | termios.ECHO)


def test_a_key_shows_where_the_samples_are_and_the_table_again(tmp_path: Path) -> None:
    with job(tmp_path) as (terminal, gate):
        terminal.until(HINT)
        assert is_raw(terminal)
        terminal.press(b"xp")
        terminal.until(b"p: back")
        assert b"a: call of parse for " in terminal.shown
        assert b"in parse" in terminal.shown
        assert b"xp" not in terminal.shown
        terminal.press(b"p")
        terminal.until(HINT)
        assert b"active" in terminal.shown
        os.write(gate, b"..")
        assert terminal.report() == "0"
        assert terminal.current_settings == terminal.settings


def test_the_terminal_is_not_overfilled(tmp_path: Path) -> None:
    with job(tmp_path, height=4) as (terminal, _):
        terminal.until(HINT)
        terminal.press(b"p")
        terminal.until(b"p: back")
        assert b"more lines" in terminal.shown


@pytest.mark.parametrize("ending", ["ctrl-c", "error", "terminated", "hung up"])
def test_the_terminal_is_restored_however_the_run_ends(ending: str, tmp_path: Path) -> None:
    with job(tmp_path, ending) as (terminal, gate):
        terminal.until(HINT)
        terminal.press(b"p")
        terminal.until(b"p: back")
        if ending == "ctrl-c":
            terminal.press(b"\x03")
        elif ending == "error":
            os.write(gate, b"..")
        else:
            os.kill(terminal.pid, signal.SIGTERM if ending == "terminated" else signal.SIGHUP)
        code = terminal.report()
        assert (
            code
            == {
                "ctrl-c": str(-signal.SIGINT),
                "error": "1",
                "terminated": str(-signal.SIGTERM),
                "hung up": str(-signal.SIGHUP),
            }[ending]
        )
        assert terminal.current_settings == terminal.settings
        assert CURSOR in terminal.shown


def test_ctrl_z_restores_the_terminal_until_the_job_continues(tmp_path: Path) -> None:
    with job(tmp_path) as (terminal, gate):
        terminal.until(HINT)
        terminal.press(b"\x1a")
        assert terminal.report() == "stopped"
        assert terminal.current_settings == terminal.settings
        terminal.until(CURSOR)
        terminal.bring_to_foreground()
        terminal.press(b"p")
        terminal.until(b"p: back")
        assert is_raw(terminal)
        os.write(gate, b"..")
        assert terminal.report() == "0"
        assert terminal.current_settings == terminal.settings


def test_a_terminal_that_a_shell_has_restored_is_taken_again(tmp_path: Path) -> None:
    with job(tmp_path) as (terminal, gate):
        terminal.until(HINT)
        os.kill(terminal.pid, signal.SIGSTOP)
        assert terminal.report() == "stopped"
        terminal.restore()
        terminal.bring_to_foreground()
        terminal.press(b"p")
        terminal.until(b"p: back")
        os.write(gate, b"..")
        assert terminal.report() == "0"
        assert terminal.current_settings == terminal.settings


@pytest.mark.parametrize("how", ["piped", "background", "off"])
def test_the_terminal_is_left_alone(how: str, tmp_path: Path) -> None:
    with job(tmp_path, keys=how != "off", piped=how == "piped", background=how == "background") as (terminal, gate):
        terminal.until(b" read")
        terminal.until(b"settled")
        assert terminal.current_settings == terminal.settings
        os.write(gate, b".")
        terminal.shown = b""
        terminal.until(b"1 settled")
        assert terminal.current_settings == terminal.settings
        os.write(gate, b".")
        assert terminal.report() == "0"
        assert (HINT in terminal.shown) == (how == "background")
