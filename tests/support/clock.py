"""A clock that stands still unless it is moved."""

from __future__ import annotations

import asyncio
import threading

START = 1_700_000_000.0
"""Unix time when a `FakeClock` begins."""


class FakeClock:
    """Implements `forge.support.clock.Clock`. Time passes only by `advance`, and by the waits between attempts."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._set_back = 0.0
        self._lock = threading.Lock()

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        with self._lock:
            self._passed += seconds

    def set_back(self, seconds: float) -> None:
        """Set the clock's Unix time back, as NTP does; the monotonic one goes on."""
        self._set_back += seconds

    def time(self) -> float:
        return START + self._passed - self._set_back

    def monotonic(self) -> float:
        return self._passed

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        if not stop.is_set():
            self.advance(seconds)
        return stop.is_set()

    async def wait_async(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)
