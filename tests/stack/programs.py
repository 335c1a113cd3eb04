"""Programs that a test starts, kills and starts again; what they write is kept, and shown where the test fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.support.waiting import LONG, wait_until


class Program:
    """A program with a folder of its own, which it is started in."""

    def __init__(
        self, name: str, command: Sequence[str | Path], folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        self.log = folder / "log"
        """All that it wrote to standard output and error, over all starts."""
        self._command = [str(part) for part in command]
        self._environment = {**os.environ, **(variables or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, is_ready: Callable[[], bool]) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

        def lives_and_is_ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"{self.name} ended: {self.tail()}"
            return is_ready()

        wait_until(lives_and_is_ready, f"{self.name} is ready")

    @property
    def runs(self) -> bool:
        """Whether it was started, and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: it has no chance to put anything in order."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(LONG)

    def tail(self, size: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-size:].decode(errors="replace") if self.log.exists() else ""


def answers(url: str) -> bool:
    """Whether an HTTP request to this URL succeeds."""
    try:
        with urlopen(url) as response:
            response.read()
    except (URLError, ConnectionError):
        return False
    return True


def text(url: str) -> str:
    """What is at this URL."""
    with urlopen(url) as response:
        body: bytes = response.read()
    return body.decode()
