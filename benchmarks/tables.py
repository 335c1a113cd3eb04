"""The results as tables, for a terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .contestants import CONTESTANTS
from .measured_run import WAITING
from .pipelines import OFF
from .runner import REFERENCE
from .scenarios import SCENARIOS
from .spans import KINDS
from .trace_page import PAINT_GOAL, SEARCH_GOAL


@dataclass(frozen=True)
class Table:
    """The first column is text, all others are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_markdown(self) -> str:
        lines = [self.columns, ["---", *("---:" for _ in self.columns[1:])], *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


Added = Mapping[tuple[str, str], Mapping[str, float]]
"""Seconds added to a call, by scenario and contestant: the smallest and the median."""


def added_by(calls: Mapping[str, Any]) -> Added:
    return {(row["scenario"], row["contestant"]): row["added"] for row in calls["rows"] if "added" in row}


def ratio(added: Added, scenario: str, contestant: str, reference: str = "by_hand") -> float | None:
    """Return the overhead of a contestant per call as a multiple of the reference's, from the minima.

    None where one of them was not measured, or adds less than can be measured.
    """
    this, other = added.get((scenario, contestant)), added.get((scenario, reference))
    if this is None or other is None or min(this["min"], other["min"]) <= 0:
        return None
    return this["min"] / other["min"]


def of_calls(calls: Mapping[str, Any]) -> list[Table]:
    added = added_by(calls)
    return [_by_hand(added), _success(calls, added), _scenarios(calls, added)]


def _by_hand(added: Added) -> Table:
    rows = []
    for label, scenario, ours, theirs in (
        ("untraced", "call", "untraced", "by_hand_unsampled"),
        ("untraced, async", "async", "untraced", "by_hand_unsampled"),
        ("traced", "call", "traced", "by_hand"),
        ("traced, async", "async", "traced", "by_hand"),
        ("traced, failed", "failed", "traced", "by_hand"),
    ):
        if (scenario, theirs) in added:
            seconds = (added[scenario, theirs]["min"], added[scenario, ours]["min"])
            rows.append((label, *map(micro, seconds), multiple(ratio(added, scenario, ours, theirs))))
    return Table(
        "Overhead per stage call, against the reference by hand, µs", ("", "by hand", "forge_otel", "ratio"), rows
    )


def _success(calls: Mapping[str, Any], added: Added) -> Table:
    rows = []
    for row in calls["rows"]:
        if row["scenario"] != "call":
            continue
        if "missing" in row:
            rows.append((f"{row['label']}: {row['missing']}", "", "", ""))
        else:
            of_hand = multiple(ratio(added, "call", row["contestant"]))
            rows.append((row["label"], micro(row["added"]["min"]), micro(row["added"]["median"]), of_hand))
    return Table("Overhead per successful call, µs", ("", "min", "median", "by hand = 1"), rows)


def _scenarios(calls: Mapping[str, Any], added: Added) -> Table:
    """All kinds of calls, for those who take part in more than one."""
    plain = [
        min(row["plain"]["min"] for row in calls["rows"] if row["scenario"] == scenario and "plain" in row)
        for scenario in SCENARIOS
    ]
    rows = [("(the call itself)", *map(micro, plain))]
    for one in CONTESTANTS.values():
        if len(one.scenarios) > 1:
            cells = [micro(added[name, one.name]["min"]) if (name, one.name) in added else "" for name in SCENARIOS]
            rows.append((one.label, *cells))
    return Table("Overhead by kind of call, µs", ("", *(one.label for one in SCENARIOS.values())), rows)


def of_minimal(minimal: Mapping[str, Any]) -> list[Table]:
    """Ratios compare the smallest processor times."""
    off = next(row["cpu"]["min"] for row in minimal["rows"] if row["telemetry"] == OFF)
    rows = [
        (
            row["telemetry"],
            micro(row["cpu"]["min"] / row["samples"]),
            micro(row["cpu"]["median"] / row["samples"]),
            "" if row["telemetry"] == OFF else f"{row['cpu']['min'] / off:.2f}",
            micro(row["collector"]["min"] / row["samples"]),
            f"{row['seconds']['min']:.3g}",
            "" if row["telemetry"] == OFF else f"{row['spans']:,.0f}",
            "" if row["telemetry"] == OFF else f"{row['spans_dropped']:,.0f}",
        )
        for row in minimal["rows"]
    ]
    columns = ("telemetry", "min", "median", "off = 1", "of which GC", "s", "spans", "dropped")
    return [Table("Minimal pipeline, processor time per sample, µs", columns, rows)]


def of_page(page: Mapping[str, Any]) -> list[Table]:
    """Of every time the greatest counts for its goal."""
    rows = []
    for row in page["rows"]:
        for label, key, goal in (("first paint", "paint", PAINT_GOAL), ("search", "search", SEARCH_GOAL)):
            times = row[key]
            mark = "✓" if times["max"] <= goal else "✗"
            milliseconds = [f"{times[each] * 1e3:.0f}" for each in ("min", "median")]
            greatest = f"{times['max'] * 1e3:.0f} {mark}"
            spans, size = f"{row['spans']:,}", f"{row['bytes'] / 1e6:.1f}"
            rows.append((label, *milliseconds, greatest, f"≤ {goal * 1e3:,.0f}", spans, size, f"{row['elements']}"))
    columns = ("", "min", "median", "max", "goal", "spans", "MB", "elements")
    return [Table("Page on a run, ms", columns, rows)]


def of_spans(spans: Mapping[str, Any]) -> list[Table]:
    return [_made(spans), _exported(spans)]


def _made(spans: Mapping[str, Any]) -> Table:
    """In the environment of ours, where most exporters are measured."""
    rows = []
    for kind, label in KINDS.items():
        times = [row["made"] for row in spans["rows"] if row["kind"] == kind and "made" in row]
        smallest = min(time["min"] for time in times)
        queued = next(
            row["caller"]["min"] for row in spans["rows"] if row["kind"] == kind and row["exporter"] == "discarding"
        )
        rows.append((label, micro(smallest), micro(median(time["median"] for time in times)), micro(queued)))
    columns = ("", "min", "median", "with queueing")
    return Table("Creating a span, µs", columns, rows)


def _exported(spans: Mapping[str, Any]) -> Table:
    """Of light spans: what is made and what exports it add up."""
    rows = []
    for row in spans["rows"]:
        if row["kind"] != "light":
            continue
        if "missing" in row:
            rows.append((f"{row['label']}: {row['missing']}", "", "", "", ""))
            continue
        made, caller, total = (row[name]["min"] for name in ("made", "caller", "total"))
        exporting = max(0.0, total - made)
        rows.append(
            (
                row["label"],
                micro(max(0.0, caller - made)),
                micro(exporting),
                micro(total),
                f"{exporting / total:.0%}",
            )
        )
    columns = ("", "on the caller's thread", "on all threads", "with creation", "exporter's share")
    return Table("Exporting a light span, µs", columns, rows)


def of_pipelines(pipelines: Mapping[str, Any]) -> list[Table]:
    return [_runs(pipelines, "demo", "files"), *(_runs(pipelines, name, "samples") for name in WAITING)]


def _runs(pipelines: Mapping[str, Any], name: str, unit: str) -> Table:
    rows = []
    for row in pipelines["rows"]:
        if row["pipeline"] != name:
            continue
        off = row["telemetry"] == "off"
        rows.append(
            (
                f"{row['samples']:,}" if off else "",
                row["telemetry"],
                f"{row['seconds']['median']:.3g}",
                "" if off else _percent(row["seconds_added"]),
                micro(row["cpu"]["median"] / row["samples"]),
                "" if off else _percent(row["cpu_added"]),
                f"{row['peak_memory'] / 1e6:.0f}",
                "" if off else f"{row['bytes'] / 1e6:.2f}",
                "" if off else f"{row['spans']:,.0f}",
                "" if off else f"{row['spans_dropped']:,.0f}",
            )
        )
    columns = (unit, "telemetry", "s", "added", "µs cpu", "added", "MB", "MB sent", "spans", "dropped")
    return Table(f"Whole runs, {name}", columns, rows)


def of_runner(runner: Mapping[str, Any]) -> list[Table]:
    """Shares compare the smallest processor times."""
    cpu = {row["way"]: row["cpu"]["min"] for row in runner["rows"] if "cpu" in row}
    rows = []
    for row in runner["rows"]:
        if "missing" in row:
            rows.append((f"{row['label']}: {row['missing']}", "", "", "", ""))
            continue
        rate = f"{1 / row['seconds']['min']:,.0f}"
        share = f"{cpu[REFERENCE] / row['cpu']['min']:.2f}"
        rows.append((row["label"], micro(row["cpu"]["min"]), micro(row["cpu"]["median"]), share, rate))
    columns = ("", "µs cpu", "median", "share", "samples/s")
    return [
        Table(
            "Three empty stages, µs per sample, and share of the rate of ThreadPoolExecutor.map",
            columns,
            rows,
        )
    ]


def micro(seconds: float) -> str:
    """Microseconds, with two digits that mean something."""
    value = seconds * 1e6
    if value < 0.05:
        return "<0.05"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def multiple(value: float | None) -> str:
    """`1.70×`, `0.40×`, `1/75`; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.2f}×" if value >= 0.095 else f"1/{1 / value:.0f}"


def _percent(value: float) -> str:
    return f"{value:+.1%}" if abs(value) < 0.0995 else f"{value:+.0%}"
