"""Progress as lines of a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TextIO

from .tracker import Tracker


class LogLines:
    """Writes a line at every refresh."""

    keys: Mapping[str, Callable[[], None]] = {}
    is_keyboard_open = False

    def __init__(self, tracker: Tracker, stream: TextIO, every: float) -> None:
        self.every = every
        self._tracker = tracker
        self._stream = stream

    def start(self) -> None:
        """Write nothing: there is no progress yet."""

    def refresh(self) -> None:
        line = self._tracker.line()
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._stream.flush()

    def stop(self) -> None:
        """Write nothing: the result says it all."""
