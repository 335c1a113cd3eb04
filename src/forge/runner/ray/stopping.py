"""The end of a run before its time, in the processes of a cluster: calls of the user's code that do not return."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final

import ray

STOP_PATIENCE: Final = 1.0
"""Seconds that a process goes on with a call when the run has ended before its time."""


def wait_for_stop(exchange: Any, worker: str, is_over: Callable[[], bool]) -> bool:
    """Wait until the run ends before its time; returns False if the process has nothing more to do before."""
    stopped = None
    while stopped is None and not is_over():
        try:
            stopped = ray.get(exchange.watch.remote(worker))
        except Exception:  # noqa: BLE001 - the run has ended, or its process has
            return False
    return bool(stopped)


def leave_unless(idle: threading.Event) -> None:
    """End the process unless it is idle soon: a call of sync code cannot be cancelled.

    Ray puts another process in the place of this one, which has nothing to do.
    """
    if not idle.wait(STOP_PATIENCE):
        os._exit(1)
