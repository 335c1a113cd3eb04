"""The goals for speed: bounds of ratios whose two sides are measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from . import pipelines, runner
from .tables import Table, added_by, micro

Results = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A ratio, and its two sides in words; both are the smallest of many repeats."""

    ratio: float
    ours: str
    reference: str


@dataclass(frozen=True)
class Goal:
    """A bound for a ratio."""

    label: str
    bound: float
    measure: Callable[[Results], Measured | None]
    """Finds the ratio in results; returns None where they lack one of its sides."""
    at_least: bool = False

    def is_reached(self, measured: Measured) -> bool:
        """Compare as precisely as the ratio is shown."""
        ratio = rounded(measured.ratio)
        return ratio >= self.bound if self.at_least else ratio <= self.bound


def call(scenario: str, contestant: str, reference: str, *, calls: int = 1) -> Callable[[Results], Measured | None]:
    """The overhead of a contestant per call, against that of a reference, or of so many single calls of it."""

    def measure(results: Results) -> Measured | None:
        added = added_by(results["calls"]) if "calls" in results else {}
        ours = added.get((scenario, contestant))
        theirs = added.get(("call" if calls > 1 else scenario, reference))
        if ours is None or theirs is None or theirs["min"] <= 0:
            return None
        return Measured(
            ratio=ours["min"] / theirs["min"] / calls,
            ours=f"{micro(ours['min'])} µs",
            reference=f"{f'{calls} × ' if calls > 1 else ''}{micro(theirs['min'])} µs",
        )

    return measure


def minimal(telemetry: str) -> Callable[[Results], Measured | None]:
    """The processor time of the minimal pipeline, against that with telemetry off."""

    def measure(results: Results) -> Measured | None:
        cpu = {row["telemetry"]: row["cpu"]["min"] / row["samples"] for row in _rows(results, "minimal")}
        if telemetry not in cpu:
            return None
        ours, theirs = cpu[telemetry], cpu[pipelines.OFF]
        return Measured(ratio=ours / theirs, ours=f"{micro(ours)} µs", reference=f"{micro(theirs)} µs")

    return measure


def run(pipeline: str, telemetry: str, *, of: str = "seconds") -> Callable[[Results], Measured | None]:
    """The time (or, with `of="cpu"`, the processor time) of a whole run, against that with telemetry off.

    Of several sizes the largest counts that is run without being asked for.
    """

    def measure(results: Results) -> Measured | None:
        rows = [
            row
            for row in _rows(results, "pipelines")
            if row["pipeline"] == pipeline and row["samples"] <= pipelines.USUAL
        ]
        if not rows:
            return None
        most = max(map(itemgetter("samples"), rows))
        both = {row["telemetry"]: row[of]["min"] for row in rows if row["samples"] == most}
        ours, theirs = both[telemetry], both[pipelines.OFF]
        return Measured(ratio=ours / theirs, ours=f"{ours:.3g} s", reference=f"{theirs:.3g} s")

    return measure


def way(name: str) -> Callable[[Results], Measured | None]:
    """The rate of a runner by processor time, as a share of `ThreadPoolExecutor.map`'s."""

    def measure(results: Results) -> Measured | None:
        cpu = {row["way"]: row["cpu"]["min"] for row in _rows(results, "runner") if "cpu" in row}
        if not cpu:
            return None
        ours, theirs = cpu[name], cpu[runner.REFERENCE]
        return Measured(ratio=theirs / ours, ours=f"{micro(ours)} µs", reference=f"{micro(theirs)} µs")

    return measure


def _rows(results: Results, section: str) -> list[Any]:
    return results[section]["rows"] if section in results else []


GOALS = (
    Goal("traced call ÷ by hand", 0.15, call("call", "traced", "by_hand")),
    Goal("traced and failed call ÷ by hand", 0.12, call("failed", "traced", "by_hand")),
    Goal("untraced sync call ÷ by hand", 1 / 90, call("call", "untraced", "by_hand_unsampled")),
    Goal("untraced async call ÷ by hand", 1 / 30, call("async", "untraced", "by_hand_unsampled")),
    Goal("batch of 16, traced ÷ 16 calls by hand", 0.12, call("batch", "traced", "by_hand", calls=16)),
    Goal("minimal pipeline, untraced ÷ off", 1.05, minimal("untraced")),
    Goal("minimal pipeline, 1 % ÷ off", 1.08, minimal("1 %")),
    Goal("minimal pipeline, 100 % discarded ÷ off", 1.4, minimal("100 %")),
    Goal("minimal pipeline, 100 % over HTTP ÷ off", 2.3, minimal("100 %, OTLP/HTTP")),
    Goal("waiting pipeline, one worker, 1 % ÷ off", 1.03, run("one at a time", "1 %")),
    Goal("waiting pipeline, four workers, 1 % ÷ off", 1.03, run("four at a time", "1 %")),
    Goal("demo, 100 % ÷ off", 1.07, run("demo", "100 %", of="cpu")),
    Goal("demo, 1 % ÷ off", 1.02, run("demo", "1 %", of="cpu")),
    Goal("BatchRunner iterated, share of a pool's rate", 0.6, way("batch_iterated"), at_least=True),
    Goal("StreamingRunner iterated, share of a pool's rate", 0.7, way("streaming_iterated"), at_least=True),
)


def table(results: Results) -> Table:
    """The goals that these results can tell about."""
    rows = []
    for goal in GOALS:
        measured = goal.measure(results)
        if measured is not None:
            bound = f"{'≥' if goal.at_least else '≤'} {short(goal.bound)}"
            mark = "✓" if goal.is_reached(measured) else "✗"
            rows.append((goal.label, bound, f"{short(measured.ratio)} {mark}", measured.ours, measured.reference))
    return Table("Goals", ("", "goal", "measured", "ours", "reference"), rows)


def rounded(ratio: float) -> float:
    """To two digits after the point; a small one to the inverse of a whole number."""
    return round(ratio, 2) if ratio >= 0.095 else 1 / round(1 / ratio)


def short(ratio: float) -> str:
    """`1.07`, `0.15`, `1/90`."""
    return f"{ratio:.2f}" if ratio >= 0.095 else f"1/{1 / ratio:.0f}"
