"""Waits for conditions that are sure to hold in the end."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 240.0
"""Seconds after which a wait is in vain, where programs start and others work, too."""


def wait_until(condition: Callable[[], bool], what: str, patience: float = LONG) -> None:
    """Ask again and again until the condition holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)
