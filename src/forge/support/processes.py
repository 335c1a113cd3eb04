"""Identity of processes: whether one that was noted down still runs, also if its pid is used again."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_GONE = frozenset("ZX")
"""States of processes that have ended, and of which the parent has not taken notice."""


class ProcessIdentity(NamedTuple):
    """A process, to be recognized later, here or on another host."""

    host: str
    """Name of the host."""
    pid: int
    """Id of the process, which another one gets later."""
    birth: str | None
    """Boot of the machine, namespace of the pid and time of the start in it; None where the system does not tell."""


def current() -> ProcessIdentity:
    """Return the identity of this process."""
    pid = os.getpid()
    return ProcessIdentity(socket.gethostname(), pid, _birth(pid))


def is_alive(process: ProcessIdentity) -> bool | None:
    """Return True if the process runs, False if it has ended; None if that cannot be told here."""
    if process.host != socket.gethostname() or process.birth is None:
        return None
    boot, namespace = _surroundings()
    its_boot, _, rest = process.birth.partition("/")
    if its_boot != boot:
        return False if boot else None
    if rest.partition("/")[0] != namespace:
        return None  # a container with the same host name
    return _birth(process.pid) == process.birth


def _birth(pid: int) -> str | None:
    """Return the birth of a process that runs; None if there is none, or the system does not tell."""
    boot, namespace = _surroundings()
    try:
        # The name of the program, in parentheses, may have any character in it.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    if not boot or len(fields) < 20 or fields[0] in _GONE:
        return None
    return f"{boot}/{namespace}/{fields[19]}"


def _surroundings() -> tuple[str, str]:
    """Return the ids of the machine's boot and of the namespace of pids; empty where the system does not tell."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return boot, os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return "", ""
