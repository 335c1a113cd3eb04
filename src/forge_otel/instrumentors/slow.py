"""Detection of slow samples."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Literal

MIN_SAMPLES: Final = 100
"""Number of settled samples from which on the 99th percentile is used."""

_UPDATE_INTERVAL: Final = 64
"""Number of samples between two updates of the percentile."""


def slow_detection(threshold: float | Literal["auto"] | None) -> Callable[[float], bool] | None:
    """Return `is_slow(duration)`, to be called once per sample, or None if detection is off."""
    if threshold is None:
        return None
    if threshold == "auto":
        return _PercentileThreshold().add
    return lambda seconds: seconds > threshold


class _PercentileThreshold:
    """Compares a duration with the 99th percentile of earlier ones."""

    def __init__(self) -> None:
        from forge.support.percentiles import Sketch  # noqa: PLC0415 - `forge` is imported by now

        self._sketch = Sketch()
        self._threshold: float | None = None
        self._lock = threading.Lock()

    def add(self, seconds: float) -> bool:
        with self._lock:
            is_slow = self._threshold is not None and seconds > self._threshold
            self._sketch.add(max(0.0, seconds))
            count = self._sketch.count
            if count >= MIN_SAMPLES and (self._threshold is None or count % _UPDATE_INTERVAL == 0):
                self._threshold = self._sketch.quantile(0.99)
        return is_slow
