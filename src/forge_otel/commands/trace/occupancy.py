"""How many samples are where at each time, from intervals in any order, in bounded memory."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

MAX_BINS: Final = 400
"""Maximum number of bins. When there are more, each pair of them becomes one."""


class Occupancy:
    """Places that are occupied for intervals of time: average occupancy per bin. Times are in nanoseconds."""

    def __init__(self, width: int = 1_000_000) -> None:
        """Begin with bins of this width."""
        self.width = width
        self._first = self._last = 0
        """The first and the last bin, counted from the epoch."""
        self._is_empty = True
        self._partial: defaultdict[str, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
        """Per place the time occupied in bins that an interval covers in part."""
        self._steps: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        """Per place the change in the number of intervals that cover a bin wholly, at its beginning."""

    def add(self, place: str, start: int, end: int, count: int = 1) -> None:
        """Add an interval; with a count of -1 take it away."""
        if end <= start:
            return
        first, last = start // self.width, (end - 1) // self.width
        if self._is_empty:
            self._first, self._last, self._is_empty = first, last, False
        self._first, self._last = min(self._first, first), max(self._last, last)
        while self._last - self._first >= MAX_BINS:
            self._merge()
        first, last = start // self.width, (end - 1) // self.width
        partial = self._partial[place]
        if first == last:
            partial[first] += count * (end - start)
            return
        partial[first] += count * ((first + 1) * self.width - start)
        partial[last] += count * (end - last * self.width)
        steps = self._steps[place]
        steps[first + 1] += count
        steps[last] -= count

    def _merge(self) -> None:
        for place in list(self._partial):
            merged: defaultdict[int, float] = defaultdict(float)
            for index, value in self._times(place).items():
                merged[index // 2] += value
            self._partial[place] = merged
        self._steps.clear()
        self.width *= 2
        self._first //= 2
        self._last //= 2

    def _times(self, place: str) -> dict[int, float]:
        """Return the time occupied in each bin of a place."""
        partial, steps = self._partial[place], self._steps[place]
        times, covering = {}, 0
        indices = range(min((*partial, *steps), default=0), max((*partial, *steps), default=-1) + 1)
        for index in indices:
            covering += steps.get(index, 0)
            time = partial.get(index, 0.0) + covering * self.width
            if time:
                times[index] = time
        return times

    def document(self) -> dict[str, Any]:
        """Return the start and width of the bins in nanoseconds, and the average number in each bin for each place."""
        count = 0 if self._is_empty else self._last - self._first + 1
        series = {}
        for place in self._partial:
            times = self._times(place)
            values = (times.get(self._first + index, 0.0) / self.width for index in range(count))
            series[place] = [round(max(0.0, value), 3) for value in values]
        return {"start": self._first * self.width, "width": self.width, "bins": count, "series": series}
