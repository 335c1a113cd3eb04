"""The runs in progress in this process."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .run import Run

_active: weakref.WeakSet[Run] = weakref.WeakSet()


def add(run: Run) -> None:
    """Register a run. If the process ends first, the run is closed: its samples settle, and its record is written."""
    _active.add(run)
    # What is registered last is called first: before whatever the user's code writes to is shut down.
    atexit.unregister(_end_all)
    atexit.register(_end_all)


remove = _active.discard


def _end_all() -> None:
    for run in list(_active):
        run.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_active.clear)  # they are the parent's
