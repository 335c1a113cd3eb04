"""Appending whole lines to a file that other processes append to as well."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final

_LOCK_TIMEOUT: Final = 1.0
"""Maximum time in seconds to wait for another process that holds the file's lock."""


def append_line(path: Path, line: bytes) -> None:
    """Append a line, all of it or nothing; create the file and its folder if they are missing.

    The file is opened anew for every line, so it may be moved away or truncated at any time, and a forked process
    shares nothing with its parent. If the file ends within a line, because its writer was killed, that line is ended
    first.

    Raises:
        OSError: the line cannot be written.
    """
    descriptor = _open(path)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            _append(descriptor, line)
        else:
            os.set_blocking(descriptor, True)
            _write(descriptor, line)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    # Opening a pipe that nobody reads must not block.
    flags = os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        # Appending needs a look at the end of a file. A device or a pipe is only written to.
        flags |= os.O_RDWR if stat.S_ISREG(path.stat().st_mode) else os.O_WRONLY
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags |= os.O_RDWR
    return os.open(path, flags, 0o666)


def _append(descriptor: int, line: bytes) -> None:
    # The kernel appends in one piece what it is handed in one piece. The lock is for what that does not cover: the
    # rest of a write that was cut short, and the look at the end of the file. So where there is none, it is done
    # without.
    locked = _lock(descriptor)
    try:
        end = os.fstat(descriptor).st_size
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            line = b"\n" + line
        try:
            _write(descriptor, line)
        except OSError:
            if locked:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, end)
            raise
    finally:
        if locked:
            # Closing is not enough: a process that was forked meanwhile has the file open, too.
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _lock(descriptor: int) -> bool:
    """Lock the file; return False if that takes too long, or if its file system has no locks."""
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        except OSError:
            return False
        else:
            return True


def _write(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
