"""The results as a picture: SVG, for light and for dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from .tables import added_by, micro, multiple, ratio

WIDTH, LEFT, RIGHT = 860, 250, 150
ROW = 26
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.quiet { fill: #59636e; font-size: 12px }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.ours { fill: #0969da; stroke: #0969da }
.others { fill: #afb8c1; stroke: #818b98 }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .quiet { fill: #9198a1 }
  .grid { stroke: #3d444d }
  .ours { fill: #4493f8; stroke: #4493f8 }
  .others { fill: #656c76; stroke: #9198a1 }
}
.line.ours, .line.others { fill: none }
"""


def picture(results: Mapping[str, Any]) -> str:
    """Draw the overhead per call as bars, and the processor time per sample, by number of samples, as lines."""
    bars, height = _bars(results["calls"])
    lines, lines_height = _lines(results["pipelines"], height + 40)
    height += lines_height + 40
    body = "\n".join([*bars, *lines])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Overhead of telemetry per stage call, and processor time per sample">\n'
        f"<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def _bars(calls: Mapping[str, Any]) -> tuple[list[str], int]:
    """On a logarithmic scale, the cheapest first."""
    added = added_by(calls)
    measured = sorted(
        (row["added"]["min"], row["contestant"], row["label"])
        for row in calls["rows"]
        if row["scenario"] == "call" and "added" in row and row["added"]["min"] > 0
    )
    low = math.floor(math.log10(measured[0][0])) - 0.3
    high = math.ceil(math.log10(measured[-1][0]))

    def place(seconds: float) -> float:
        return LEFT + (math.log10(seconds) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    top = 60
    bottom = top + ROW * len(measured)
    shapes = [_text(0, 20, "Overhead per stage call, µs (log scale)", "title")]
    for decade in range(math.ceil(low), high + 1):
        x = place(10**decade)
        shapes += [_rule(x, top - 6, x, bottom), _text(x, top - 12, f"{10 ** (decade + 6):g}", "quiet", "middle")]
    for index, (seconds, name, label) in enumerate(measured):
        y = top + ROW * index
        end = place(seconds)
        kind = "ours" if label.startswith("forge_otel") else "others"
        aside = "" if name == "by_hand" else f"{multiple(ratio(added, 'call', name))} of by hand"
        shapes += [
            _text(LEFT - 10, y + 15, label, anchor="end"),
            f'<rect class="{kind}" x="{LEFT}" y="{y + 3}" width="{end - LEFT:.1f}" height="{ROW - 9}" rx="2"/>',
            _text(end + 8, y + 15, micro(seconds)),
            _text(WIDTH, y + 15, aside, "quiet", "end"),
        ]
    return shapes, bottom


def _lines(pipelines: Mapping[str, Any], top: int) -> tuple[list[str], int]:
    """Flat lines mean that a sample costs the same, however many there are."""
    rows = [row for row in pipelines["rows"] if row["pipeline"] == "four at a time"]
    sizes = sorted({row["samples"] for row in rows})
    most = max(row["cpu"]["median"] / row["samples"] for row in rows) * 1.15
    height, head = 200, 50
    bottom = top + head + height

    def point(row: Mapping[str, Any]) -> tuple[float, float]:
        share = sizes.index(row["samples"]) / max(1, len(sizes) - 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT), bottom - row["cpu"]["median"] / row["samples"] / most * height

    shapes = [_text(0, top + 20, "Processor time per sample, µs, by number of samples", "title")]
    for value in _ticks(most):
        y = bottom - value / most * height
        shapes += [_rule(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 10, y + 4, f"{value * 1e6:,.0f}", "quiet", "end")]
    label = float(bottom + 17)
    for telemetry in dict.fromkeys(row["telemetry"] for row in rows):
        points = [point(row) for row in rows if row["telemetry"] == telemetry]
        kind = "others" if telemetry == "off" else "ours"
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        shapes.append(f'<polyline class="line {kind}" points="{path}"/>')
        shapes += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points]
        # Labels keep their distance where lines nearly meet; the most expensive comes last.
        label = min(label - 17, points[-1][1] + 4)
        shapes.append(_text(points[-1][0] + 12, label, f"telemetry {telemetry}"))
    for size in sizes:
        x, _ = point(next(row for row in rows if row["samples"] == size))
        shapes.append(_text(x, bottom + 20, f"{size:,}", "quiet", "middle"))
    return shapes, head + height + 30


def _ticks(most: float) -> Iterator[float]:
    """Four or five round values from 0 up."""
    rough = most / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    value = 0.0
    while value <= most:
        yield value
        value += step


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
