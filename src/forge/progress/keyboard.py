"""Keys that are pressed while a display is shown."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Final

try:
    import termios
except ImportError:  # not on Windows
    termios = None  # type: ignore[assignment]

SUSPEND: Final = "\x1a"
"""Ctrl-Z."""
_STOPPING: Final = 0.1
"""Seconds in which a process has stopped after the signal to stop, which may reach another of its threads first."""
_LFLAG, _CC = 3, 6  # places in the attributes of `termios`


class Keyboard:
    """Reads single keys from a terminal, without echoing them.

    Only while the process is in the terminal's foreground: in the background, touching the terminal would stop it.
    Ctrl-C stays what it is. Ctrl-Z is a key, so that the terminal can be restored before the process stops, whatever
    the main thread does. Another program that has changed the terminal meanwhile, such as the shell while the process
    was stopped, is noticed by `read`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._saved: list[Any] | None = None
        """Attributes of the terminal to be restored; None while it is not ours."""
        self._closed = False

    @classmethod
    def of_process(cls) -> Keyboard | None:
        """Return the keyboard of the terminal that is the process's standard input; None if that is something else."""
        if termios is None:
            return None
        try:
            descriptor = sys.stdin.fileno()
            return cls(descriptor) if os.isatty(descriptor) else None
        except (AttributeError, OSError, ValueError):  # there is none, or it is closed
            return None

    def take(self) -> bool:
        """Take the terminal, unless it is taken already; False if it is not to be had now."""
        with self._lock:
            return self._take()

    def read(self) -> str:
        """Return the keys pressed since the last call; none where the terminal is not to be had. Does not wait."""
        with self._lock:
            keys = b""
            if not self._take():
                return ""
            while select.select([self._descriptor], [], [], 0)[0] and (more := os.read(self._descriptor, 1024)):
                keys += more
            return keys.decode(errors="replace")

    def restore(self) -> None:
        """Give the terminal back as it was, until it is taken again."""
        with self._lock:
            self._give_back()

    def suspend(self) -> None:
        """Stop the processes in the foreground, as Ctrl-Z does where it is no key; returns when they continue."""
        self.restore()
        os.killpg(os.getpgrp(), signal.SIGTSTP)
        time.sleep(_STOPPING)

    def close(self) -> None:
        """Give the terminal back for good."""
        with self._lock:
            self._closed = True
            self._give_back()

    def _take(self) -> bool:
        if self._closed or not self._is_foreground() or "pdb" in sys.modules:  # a debugger needs it
            return False
        found = termios.tcgetattr(self._descriptor)
        if not found[_LFLAG] & (termios.ICANON | termios.ECHO):
            return True
        self._saved = termios.tcgetattr(self._descriptor)
        found[_LFLAG] &= ~(termios.ICANON | termios.ECHO)
        found[_CC][termios.VMIN], found[_CC][termios.VTIME] = 1, 0
        found[_CC][termios.VSUSP] = bytes([os.fpathconf(self._descriptor, "PC_VDISABLE") & 0xFF])
        termios.tcsetattr(self._descriptor, termios.TCSANOW, found)
        return True

    def _give_back(self) -> None:
        saved, self._saved = self._saved, None
        if saved is not None and self._is_foreground():
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._descriptor, termios.TCSANOW, saved)

    def _is_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:  # it is not the terminal of this process's session
            return False
