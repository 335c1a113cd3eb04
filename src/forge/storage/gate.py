"""The gate in front of user code: closed while the storage does not work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import StorageError

if TYPE_CHECKING:
    from .sql import SQLStorage

_LONGEST_POLL = 0.05
"""Maximum seconds between two looks at a closed gate, or at the end of the run."""


class Gate:
    """Holds up calls of user code while operations of a storage wait for it to work again.

    So nothing more is paid for that could not be stored in the end.
    """

    def __init__(self) -> None:
        self.closed = False
        """True while operations wait. Check it before `wait` on hot paths."""
        self._waiting = 0
        self._opened = threading.Condition()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the gate closed in the block."""
        with self._opened:
            self._waiting += 1
            self.closed = True
        try:
            yield
        finally:
            with self._opened:
                self._waiting -= 1
                self.closed = self._waiting > 0
                if not self.closed:
                    self._opened.notify_all()

    def wait(self, stop: threading.Event) -> None:
        """Wait until the gate is open, or `stop` is set."""
        with self._opened:
            while self.closed and not stop.is_set():
                self._opened.wait(_LONGEST_POLL)

    async def wait_async(self, stop: threading.Event) -> None:
        """Wait like `wait`, in this task."""
        seconds = 0.001
        while self.closed and not stop.is_set():
            await asyncio.sleep(seconds)
            seconds = min(2 * seconds, _LONGEST_POLL)


@dataclass(frozen=True, slots=True)
class Patience:
    """Waiting time of a run's storage operations for a storage that does not work."""

    stop: threading.Event | None = None
    """They give up when it is set."""
    seconds: float | None = None
    """Maximum seconds, if less than the storage's timeout."""
    eager: bool = False
    """They wait only for other users of the database, as at the start, when faults are most likely mistakes."""
    storage: SQLStorage | None = None
    lost: Callable[[StorageError], None] | None = None
    """Called when an operation of `storage` gives up, before the gate opens again."""


_UNLIMITED = Patience()
patience: ContextVar[Patience] = ContextVar("patience", default=_UNLIMITED)
"""Patience of storage operations in this context; set inside a run."""
