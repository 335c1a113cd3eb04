"""How much one run may write, so that neither a million samples nor a million errors fill a trace store."""

from __future__ import annotations

import itertools
import threading


class SpanBudget:
    """Spans that a run may still write; 0 means any number. A tenth of it is kept for errors, retries and slow samples.

    What is asked for is granted as a whole or not at all, so that no sample is traced in part.
    """

    __slots__ = ("_lock", "_most", "_taken")

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, spans: int, *, from_reserve: bool = False) -> bool:
        """Whether so many spans may be written."""
        if not self._most:
            return True
        limit = self._most if from_reserve else self._most - self._most // 10
        with self._lock:
            if self._taken + spans > limit:
                return False
            self._taken += spans
            return True

    def correct(self, spans: int) -> None:
        """So many spans more were written than was asked for, or fewer where it is negative."""
        with self._lock:
            self._taken += spans


class EventBudget:
    """Events that a run may still write for each class of error; 0 means any number."""

    __slots__ = ("_asked", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: dict[str, itertools.count[int]] = {}
        """How often, for each class of error; each of several threads gets a number of its own."""

    def take(self, error_type: str) -> bool:
        """Whether one more event may be written."""
        if not self._most:
            return True
        asked = self._asked.get(error_type)
        if asked is None:
            asked = self._asked.setdefault(error_type, itertools.count())
        return next(asked) < self._most
