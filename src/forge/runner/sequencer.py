"""Restoring the order of admission."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ..execution.item import Family, Item
from ..pipeline.sample import SampleOutcome
from ..support.clock import Clock


class Sequencer:
    """Puts ready samples back into the order in which they were admitted.

    A sample and what was split from it come out together when all of it has settled. At most `window` samples of the
    source are under way or held back, so that memory does not grow with the input.
    """

    def __init__(self, window: int, lock: threading.Lock, clock: Clock) -> None:
        self._clock = clock
        self._lock = lock  # the run's, which `derive` holds when a family grows
        self._room = threading.Semaphore(window)
        self._added = 0
        self._next = 0
        self._complete: dict[int, Family] = {}

    def wait_for_room(self) -> float:
        """Wait until another sample may be read, or the run is over; returns the seconds that this took."""
        if self._room.acquire(blocking=False):
            return 0.0
        begun = self._clock.monotonic()
        self._room.acquire()
        return self._clock.monotonic() - begun

    def add(self, item: Item) -> None:
        """Add a sample that was read."""
        item.family = Family(self._added)
        self._added += 1

    def release(self, settled: Sequence[Item]) -> list[Item]:
        """Return the samples that can come out now that these have settled."""
        with self._lock:
            for item in settled:
                family = item.family
                assert family is not None
                family.pending -= 1
                if item.outcome is SampleOutcome.READY:
                    family.ready.append(item)
                if family.pending == 0:
                    self._complete[family.number] = family
        released: list[Item] = []
        families = 0
        while (family := self._complete.pop(self._next, None)) is not None:
            released += sorted(family.ready, key=lambda item: item.place) if len(family.ready) > 1 else family.ready
            self._next += 1
            families += 1
        if families:
            self._room.release(families)
        return released

    def close(self) -> None:
        """Release the reader, because the run is over."""
        self._room.release()
