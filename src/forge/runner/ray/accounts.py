"""The account of a worker: usage is written down, and booked when it is home."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from ...costs.calls_in_progress import CallsInProgress
from ...costs.usage import Spender, Usage, UsageScope
from .blocks import UsageEntry

if TYPE_CHECKING:
    from .blocks import StepRecord


logger = logging.getLogger("forge")


class Recorder:
    """Writes the usage of one step on one block down. Prices are the driver's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, Usage] = {}
        self._entries: list[tuple[UsageScope, Usage, bool]] = []
        self._calls = CallsInProgress()
        self.unreadable_usage: list[tuple[Usage, str]] = []
        self._is_written = False

    def priced(self, usage: Usage) -> Usage:
        """Return the usage as it is, and note that it can be priced."""
        with self._lock:
            self._known[id(usage)] = usage
        return usage

    def unreadable(self, usage: Usage, problem: str) -> None:
        """Note that some of the usage could not be read."""
        with self._lock:
            self.unreadable_usage.append((usage, problem))

    def add(self, scope: UsageScope, usage: Usage) -> None:
        """Note usage for the samples of the scope."""
        with self._lock:
            self._calls.reported(scope, usage)
            self._entries.append((scope, usage, self._known.pop(id(usage), None) is not None))
            if self._is_written:
                logger.warning(
                    "usage of %s is lost: a call reported it after its timeout, when its block had gone home",
                    scope.name,
                )

    def begin_call(self, scope: UsageScope, provider: str) -> None:
        """Note that the attempt counts as a call of this provider's API."""
        with self._lock:
            self._calls.begin(scope, provider)

    def end_call(self, scope: UsageScope) -> bool:
        """Note that the attempt has ended; returns True if its call is still to be counted."""
        with self._lock:
            return self._calls.end(scope)

    def write(self, record: StepRecord, rows: dict[int, int]) -> None:
        """Write everything into the record; `rows` has the rows of items, by the ids of these objects."""
        with self._lock:
            numbers: dict[UsageScope, int] = {}
            for scope, usage, known in self._entries:
                number = numbers.setdefault(scope, len(numbers))
                shared = [rows[id(item)] for item in scope.items]
                record.usage.append(UsageEntry(shared, usage, known, number, scope.repeated))
            record.unreadable += self.unreadable_usage
            self._is_written = True


class BlockStep:
    """A stage or measurement that works on a block in a worker, as the origin of usage.

    A call that was abandoned may report its usage when the worker is at another block: it is not booked there.
    """

    def __init__(self, spender: Spender, name: str) -> None:
        self.spender = spender
        self.name = name
        self.costs: Any = Recorder()
