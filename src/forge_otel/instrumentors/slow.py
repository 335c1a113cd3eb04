"""Which samples are slow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Literal

MIN_SAMPLES: Final = 100
"""How many samples must have settled before one of them can be said to be slower than 99 % of them."""

_UPDATE_INTERVAL: Final = 64
"""After how many more samples the percentile is computed again."""


def slow_detection(threshold: float | Literal["auto"] | None) -> Callable[[float], bool] | None:
    """A function that says whether a sample that took so many seconds is slow, to be asked once for each; None where
    none is.
    """
    if threshold is None:
        return None
    if threshold == "auto":
        return _PercentileThreshold().add
    return lambda seconds: seconds > threshold


class _PercentileThreshold:
    """Compares with the 99th percentile of those before."""

    def __init__(self) -> None:
        from forge.support.percentiles import Sketch  # noqa: PLC0415 - there is a run, so it is imported

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
