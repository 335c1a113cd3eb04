"""A terminal with a program in its foreground, as a shell starts it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.support.runs import PATIENCE

_SHELL = """
import os, signal, sys
reports, orders, stdin, background, *program = sys.argv[1:]
terminal = os.open(os.ttyname(0), os.O_RDWR)  # the terminal of this session from now on
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    if background == "no":
        os.tcsetpgrp(terminal, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.dup2(int(stdin), 0)
    os.execv(program[0], program)
os.write(int(reports), f"{child}\\n".encode())
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    os.tcsetpgrp(terminal, os.getpgrp())
    if not os.WIFSTOPPED(status):
        break
    os.write(int(reports), b"stopped\\n")
    os.read(int(orders), 1)
    os.tcsetpgrp(terminal, child)
    os.killpg(child, signal.SIGCONT)
os.write(int(reports), f"{os.waitstatus_to_exitcode(status)}\\n".encode())
"""
"""A shell with one job; it leaves the settings of the terminal as its job does."""


class Terminal:
    """A pseudo-terminal, in which a Python script runs as a job; in the `background`, or with another `stdin`."""

    def __init__(
        self, script: Path, *arguments: str, background: bool = False, stdin: int | None = None, height: int = 24
    ) -> None:
        self.shown = b""
        """Everything written to it, since the last key."""
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(self._ours, (height, 300))
        self.settings: list[Any] = self.current_settings
        """Settings before the job."""
        reports, reporting = os.pipe()
        orders, self._orders = os.pipe()
        self._reports = os.fdopen(reports)
        self._shell = subprocess.Popen(
            [
                *(sys.executable, "-c", _SHELL, str(reporting), str(orders), str(stdin or 0)),
                *("yes" if background else "no", sys.executable, str(script), *arguments),
            ],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            pass_fds=[reporting, orders, *([] if stdin is None else [stdin])],
            cwd=script.parent,
            env={
                **{name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")},
                "TERM": "xterm-256color",
            },
        )
        os.close(theirs)
        os.close(orders)
        os.close(reporting)
        self.pid = int(self.report())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in (self.pid, self._shell.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._shell.wait()
        self._reports.close()
        os.close(self._orders)
        os.close(self._ours)

    @property
    def current_settings(self) -> list[Any]:
        """Settings of the terminal now."""
        return termios.tcgetattr(self._ours)

    def press(self, key: bytes) -> None:
        """Press a key, and forget what was shown before."""
        self._read(0)
        self.shown = b""
        os.write(self._ours, key)

    def until(self, text: bytes) -> None:
        """Wait until a text is shown."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} is not shown: {self.shown!r}"
            self._read(0.1)

    def report(self) -> str:
        """Wait for the next thing that happens to the job: `stopped`, or its exit code, negative for a signal."""
        deadline = time.monotonic() + PATIENCE
        while not select.select([self._reports], [], [], 0.05)[0]:
            assert time.monotonic() < deadline, f"nothing happens to the job: {self.shown!r}"
            self._read(0)  # it may write more than the terminal holds
        found = self._reports.readline().strip()
        self._read(0)
        return found

    def restore(self) -> None:
        """Restore the settings from before the job, as shells do."""
        termios.tcsetattr(self._ours, termios.TCSANOW, self.settings)

    def bring_to_foreground(self) -> None:
        """Let the stopped job continue in the foreground."""
        os.write(self._orders, b"\n")

    def _read(self, timeout: float) -> None:
        while select.select([self._ours], [], [], timeout)[0]:
            timeout = 0
            try:
                self.shown += os.read(self._ours, 65536)
            except OSError:  # Linux reports the end of a terminal in this way
                return
