"""Clocks, so that a test can bring its own."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Final, Protocol

LONGEST_WAIT: Final = threading.TIMEOUT_MAX
"""Seconds that a thread can wait at most: centuries, or seven weeks on Windows. Longer times are clamped to it, so that
they can stand for no limit; event loops do so by themselves."""


class Clock(Protocol):
    """Readings in seconds, and the waits between attempts."""

    def time(self) -> float:
        """Unix time."""

    def monotonic(self) -> float:
        """A reading that never goes back; only differences mean something."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait, at most until `stop` is set; returns True if it is set."""

    async def wait_async(self, seconds: float) -> None:
        """Wait on the event loop; ended early by cancelling the task."""


class SystemClock:
    """The machine's clock."""

    monotonic = staticmethod(time.perf_counter)
    time = staticmethod(time.time)

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(min(seconds, LONGEST_WAIT))

    async def wait_async(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
