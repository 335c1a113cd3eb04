"""A stacked area of where samples are, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

WIDTH: Final = 1000
HEIGHT: Final = 220
_COLORS: Final = 8


def color(series: Mapping[str, Any]) -> str:
    """Return the classes of a series: the colour of its stage, paler while samples wait for it."""
    if series["stage"] is None:
        return "elsewhere"
    waiting = " waiting" if series["name"].startswith("waiting for ") else ""
    return f"c{series['stage'] % _COLORS}{waiting}"


def chart(occupancy: Mapping[str, Any]) -> str:
    """Return the chart; nothing if there is no sample."""
    bins, series = occupancy["bins"], occupancy["series"]
    if not bins or not series:
        return ""
    top = peak(occupancy) or 1.0
    below = [0.0] * bins
    paths = []
    for each in series:
        above = [low + value for low, value in zip(below, each["values"], strict=True)]
        outline = [*_line(above, top), *reversed(_line(below, top))]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in outline) + "Z"
        paths.append(f'<path class="{color(each)}" d="{path}"><title>{escape(each["name"])}</title></path>')
        below = above
    return "".join(paths)


def peak(occupancy: Mapping[str, Any]) -> float:
    """Return the greatest number of samples in flight."""
    columns = zip(*(each["values"] for each in occupancy["series"]), strict=True)
    return max((sum(column) for column in columns), default=0.0)


def _line(values: Sequence[float], top: float) -> list[tuple[float, float]]:
    """Return the outline of steps: the average over a bin is one number."""
    step = WIDTH / len(values)
    points = []
    for index, value in enumerate(values):
        y = HEIGHT - value / top * (HEIGHT - 4)
        points += [(index * step, y), ((index + 1) * step, y)]
    return points
