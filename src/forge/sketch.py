"""Percentiles in bounded memory."""

from __future__ import annotations

import math

RELATIVE_ERROR = 0.01
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_SMALLEST = 1e-9


class Sketch:
    """Counts of values in buckets that grow by a fixed ratio: percentiles are right within 1 %.

    The idea is that of DDSketch (Masson et al., 2019). From a nanosecond to a day there are about 1 600 buckets, of
    which only the used ones take memory.
    """

    __slots__ = ("_buckets", "count", "maximum", "minimum")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0
        self.minimum = math.inf
        self.maximum = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """Add a value that is not negative."""
        bucket = math.ceil(math.log(value) / _LOG_GAMMA) if value > _SMALLEST else _NEAR_ZERO
        self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += count
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)

    def quantile(self, q: float) -> float | None:
        """The value at rank `q` (0 to 1), None without values; the smallest and largest are exact."""
        if not self.count:
            return None
        rank = q * (self.count - 1)
        if rank <= 0:
            return self.minimum
        if rank >= self.count - 1:
            return self.maximum
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen > rank:
                middle = 2 * _GAMMA**bucket / (_GAMMA + 1) if bucket != _NEAR_ZERO else 0.0
                return min(max(middle, self.minimum), self.maximum)
        return self.maximum


_NEAR_ZERO = math.floor(math.log(_SMALLEST) / _LOG_GAMMA) - 1
