"""The runs in progress in this process."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .run import Run

_active: weakref.WeakSet[Run] = weakref.WeakSet()
_changed = threading.Condition()
_ending = False


def add(run: Run) -> None:
    """Register a run. If the process ends first, the run is closed: its samples settle, and its record is written."""
    with _changed:
        _active.add(run)
    # The last registration is called first: before the outputs of the user's code are shut down.
    atexit.unregister(_end_all)
    atexit.register(_end_all)


def remove(run: Run) -> None:
    """Remove a run that has ended."""
    with _changed:
        _active.discard(run)
        _changed.notify_all()


def current() -> list[Run]:
    """Return the runs in progress."""
    with _changed:
        return list(_active)


def wait(timeout: float) -> bool:
    """Wait until no run is in progress, at most `timeout` seconds; returns True if none is."""
    with _changed:
        return _changed.wait_for(lambda: not _active, timeout)


def end_begins() -> None:
    """Note that the process is about to end."""
    global _ending  # noqa: PLW0603 - there is one process
    _ending = True


def is_ending() -> bool:
    """Return True if the process is about to end: `exiting` will be called."""
    return _ending


def exiting(timeout: float | None) -> None:
    """Announce the end of the process, after that of its runs.

    A signal ends it in `timeout` seconds; None means that it ends by itself, when this returns. Does nothing: it is
    there to be observed.
    """


def _end_all() -> None:
    end_begins()
    for run in current():
        run.close()
    exiting(None)


def _forget() -> None:
    global _changed, _ending
    _changed, _ending = threading.Condition(), False
    _active.clear()  # they are the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
