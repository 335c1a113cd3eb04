"""The heartbeat of a run: a time in its row, so that others can tell that it is still in progress."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..storage import SQLStorage
    from ..support.clock import Clock

INTERVAL: Final = 15.0
"""Seconds between two heartbeats of a run."""

logger = logging.getLogger("forge")


class Heartbeat:
    """Writes the heartbeats of one run, on threads of the run that have time for it. May be used by several threads."""

    def __init__(self, storage: SQLStorage, run_id: str, clock: Clock) -> None:
        self._storage = storage
        self._run_id = run_id
        self._clock = clock
        self._lock = threading.Lock()
        self._written = clock.monotonic()  # the begin of the run is the first one

    def beat(self) -> None:
        """Write a heartbeat if it is time for one. Never raises, and never waits for the storage to work again."""
        now = self._clock.monotonic()
        if now - self._written < INTERVAL or not self._lock.acquire(blocking=False):
            return
        try:
            self._written = now  # also if it fails: the next one is as good
            self._storage.beat(self._run_id)
        except Exception:
            logger.debug("the heartbeat of run %s could not be written", self._run_id, exc_info=True)
        finally:
            self._lock.release()
