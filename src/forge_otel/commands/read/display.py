"""The report as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from forge.support.formatting import seconds
from forge.support.text import on_one_line

from ...semconv import spans
from .report import MEASUREMENT_COUNTS, STAGE_COUNTS

_MAX_MESSAGE: Final = 120
_MAX_NAME: Final = 60
_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_USUAL: Final = ("success", "computed", "ready", "completed", None)
"""Outcomes that go without saying."""

_Node = Mapping[str, Any]


class Text:
    """Lines of text, with styles for a terminal."""

    def __init__(self, styled: bool) -> None:
        self.lines: list[str] = []
        self._styled = styled

    def style(self, text: str, style: str) -> str:
        """Return text in a style."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self._styled and text else text

    def add(self, *parts: str) -> None:
        """Add a line."""
        self.lines.append("".join(parts).rstrip())

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table: the first column to the left, the others to the right."""
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        for index, row in enumerate((header, *rows)):
            first, *others = zip(row, widths, strict=True)
            line = "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])
            self.add(line if index else self.style(line, "dim"))


def render(report: Mapping[str, Any], *, styled: bool) -> str:
    """Return the report as text."""
    text = Text(styled)
    for trace in report["traces"]:
        _trace(trace, text)
    if report["omitted_traces"]:
        text.add(text.style(f"{report['omitted_traces']} earlier traces are not shown", "dim"))
        text.add()
    _lacking(report["runs"], text)
    for pipeline in report["pipelines"]:
        _pipeline(pipeline, text)
    _slowest(report["slowest"], text)
    _failures(report["failures"], text)
    while text.lines and not text.lines[-1]:
        text.lines.pop()
    return "\n".join(text.lines)


def _trace(trace: Mapping[str, Any], text: Text) -> None:
    started = datetime.fromtimestamp(trace["started"]).astimezone()
    text.add(
        text.style(f"trace {_plain(trace['trace_id'])}", "bold"),
        f"  {started:%Y-%m-%d %H:%M:%S}",
        f"  {_plain(trace['service'])}" if trace["service"] else "",
    )
    for name, url in trace["pages"].items():
        text.add(text.style(f"{name:5}  {_plain(url, len(url))}", "dim"))
    lines = list(_lines(trace["roots"]))
    width = max((len(name) for name, _ in lines), default=0)
    for name, node in lines:
        text.add(name.ljust(width), seconds(node["duration"]).rjust(8), "  ", _result(node, text))
    if trace["omitted_spans"]:
        more = f"… {trace['omitted_spans']} more spans; next: {trace['next']}"
        text.add(text.style(more, "dim"))
    text.add()


def _result(node: _Node, text: Text) -> str:
    outcome = "" if node["outcome"] in _USUAL else _plain(str(node["outcome"]))
    error = node["error"]
    if error is None:
        return text.style(outcome, "dim")
    # A sample fails with the error of its stage: once is enough.
    is_below = any(child["error"] == error for child in node["children"])
    return text.style(outcome or "failed" if is_below else _plain(error), "red")


def _lines(nodes: Sequence[_Node], indent: str = "", *, top: bool = True) -> Iterator[tuple[str, _Node]]:
    """Yield the labels of a tree with their branches, and their nodes."""
    for index, node in enumerate(nodes):
        last = index == len(nodes) - 1
        branch, below = ("", "") if top else ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield f"{indent}{branch}{_label(node)}", node
        yield from _lines(node["children"], indent + below, top=False)


def _label(node: Mapping[str, Any]) -> str:
    sample = node["sample_id"] if node["name"] == spans.FORGE_SAMPLE.type else None
    return _plain(node["name"] if sample is None else f"{node['name']} {sample}", _MAX_NAME)


def _lacking(runs: Sequence[Mapping[str, Any]], text: Text) -> None:
    """Add a line for each run whose telemetry is not whole."""
    before = len(text.lines)
    for run in runs:
        parts = []
        if (missing := run["recorded_spans"] - run["spans"]) > 0:
            parts.append(text.style(f"{missing} of {run['recorded_spans']} recorded spans are missing", "red"))
        if run["suppressed"]:
            parts.append(f"{run['suppressed']} spans and events left out by sampling or a budget")
        if run["faults"]:
            parts.append(text.style(f"{run['faults']} faults inside the telemetry", "red"))
        if parts:
            text.add(f"run {_plain(str(run['run_id'])[:8])} of {_plain(str(run['pipeline']))}: ", ", ".join(parts))
    if len(text.lines) > before:
        text.add()


def _pipeline(pipeline: Mapping[str, Any], text: Text) -> None:
    samples = pipeline["samples"]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in samples.items())
    text.add(
        text.style(_plain(pipeline["pipeline"]) or "outside of pipelines", "bold"),
        f"  {sum(samples.values())} samples: {counts}" if samples else "",
    )
    for title, named, counted in (("stages", "name", STAGE_COUNTS), ("measurements", "key", MEASUREMENT_COUNTS)):
        if pipeline[title]:
            rows = [
                (_plain(row[named]), *(f"{row[key]}" for key in counted), seconds(row["mean"]), seconds(row["max"]))
                for row in pipeline[title]
            ]
            text.table((title.removesuffix("s"), *counted, "mean", "max"), rows)
            text.add()


def _slowest(slowest: Sequence[Mapping[str, Any]], text: Text) -> None:
    if slowest:
        text.table(
            ("slowest spans", "took", "sample", "trace"),
            [
                (
                    _plain(span["name"], _MAX_NAME),
                    seconds(span["duration"]),
                    _plain(str(span["sample_id"] or "-"), _MAX_NAME),
                    _plain(span["trace_id"][:8]),
                )
                for span in slowest
            ],
        )
        text.add()


def _failures(failures: Sequence[Mapping[str, Any]], text: Text) -> None:
    for failure in failures:
        first = "first in sample" if failure["count"] > 1 else "sample"
        sample = "" if failure["sample_id"] is None else f", {first} {failure['sample_id']}"
        what = f"{failure['count']} × {failure['error_type'] or 'error'}"
        text.add(
            text.style(_plain(what), "red"),
            f" in {_plain(failure['where'] + sample)}",
            text.style(f"  trace {_plain(failure['trace_id'][:8])}", "dim") if failure["trace_id"] else "",
        )
        text.add("    ", _plain(failure["message"]))
        if failure["next"]:
            text.add("    ", text.style(f"next: {failure['next']}", "dim"))


def _plain(text: str, limit: int = _MAX_MESSAGE) -> str:
    """Return text that cannot change a terminal's state."""
    return on_one_line(text, limit)
