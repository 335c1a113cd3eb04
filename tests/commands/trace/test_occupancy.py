"""How many samples are where over time."""

from __future__ import annotations

import random

import pytest

from forge_otel.commands.trace.occupancy import MAX_BINS, Occupancy


def test_averages_of_bins() -> None:
    found = Occupancy(width=10)
    found.add("a", 105, 125)
    found.add("a", 120, 150)
    found.add("b", 135, 135)
    found.add("b", 149, 150)
    assert found.document() == {
        "start": 100,
        "width": 10,
        "bins": 5,
        "series": {"a": [0.5, 1.0, 1.5, 1.0, 1.0], "b": [0.0, 0.0, 0.0, 0.0, 0.1]},
    }


def test_an_interval_that_is_taken_away() -> None:
    found = Occupancy(width=10)
    found.add("a", 0, 50)
    found.add("a", 15, 40, -1)
    assert found.document()["series"] == {"a": [1.0, 0.5, 0.0, 0.0, 1.0]}


def test_nothing() -> None:
    assert Occupancy().document() == {"start": 0, "width": 1_000_000, "bins": 0, "series": {}}


@pytest.mark.slow
def test_bins_are_few_whatever_the_order_and_length() -> None:
    """The time spent in a place is exact, in whatever order intervals come and however often bins are merged."""
    numbers = random.Random(1)
    base = 1_700_000_000_000_000_000
    intervals = []
    for _ in range(2_000):
        start = base + numbers.randrange(3_600_000_000_000)
        intervals.append((start, start + numbers.randrange(1, 90_000_000_000)))
    found = Occupancy()
    for start, end in intervals:
        found.add("a", start, end)
    document = found.document()
    width, first = document["width"], document["start"]
    assert MAX_BINS / 2 < document["bins"] <= MAX_BINS
    for index, value in enumerate(document["series"]["a"]):
        low = first + index * width
        inside = sum(max(0, min(end, low + width) - max(start, low)) for start, end in intervals)
        assert abs(value - inside / width) <= 0.0005
