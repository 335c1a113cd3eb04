"""The heartbeat of a run: a time in its row, so that others can tell that it is still in progress."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..storage import SQLStorage

INTERVAL: Final = 15.0
"""Seconds between two heartbeats of a run."""

logger = logging.getLogger("forge")


class Heartbeat:
    """Writes the heartbeats of one run on a thread of its own, which sleeps in between: whatever the run's threads and
    its consumer do, it has time. A forked process has no such thread, since the run is its parent's.
    """

    def __init__(self, storage: SQLStorage, run_id: str) -> None:
        self._storage = storage
        self._run_id = run_id
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="forge-heartbeat")

    def start(self) -> None:
        """Write the first heartbeat in `INTERVAL` seconds: the begin of the run was one. Never raises."""
        try:
            self._thread.start()
        except RuntimeError:  # the process has as many threads as it may have
            logger.debug("run %s has no heartbeat", self._run_id, exc_info=True)

    def stop(self, timeout: float) -> None:
        """Write no more heartbeats, and wait for one that is being written, at most `timeout` seconds."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _work(self) -> None:
        while not self._stopped.wait(INTERVAL):
            try:
                self._storage.beat(self._run_id)
            except Exception:
                logger.debug("the heartbeat of run %s could not be written", self._run_id, exc_info=True)
