"""Runs as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from forge.history import RecordedRun
from forge.support.formatting import dollars, seconds

from ..console import Output, data

_STYLES = {"completed": "green", "failed": "red", "died": "red", "cancelled": "yellow", "active": "cyan"}
_COUNTS = ("ready", "skipped", "unchanged", "split", "dlq", "failed")


def show_runs(runs: Sequence[RecordedRun]) -> None:
    """Print a line for each run, and the next command."""
    out = Output()
    if not runs:
        out.print("no runs")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "pipeline", "started", "outcome", "samples", "limited by"):
        table.add_column(name, overflow="fold")
    table.add_column("duration", justify="right")
    table.add_column("cost", justify="right")
    for run in runs:
        table.add_row(
            run.id[:8],
            data(run.pipeline, 40),
            f"{datetime.fromtimestamp(run.started).astimezone():%Y-%m-%d %H:%M:%S}",
            outcome(run),
            _counts(run),
            data(run.limiting_stage or "-", 40),
            seconds(run.duration),
            f"${dollars(run.cost)}" if run.cost else "-",
        )
    out.print(table)


def outcome(run: RecordedRun) -> Text:
    """Return the outcome of a run, or its state without an end."""
    word = run.outcome or run.state.value
    return data(word, style=_STYLES.get(word, ""))


def _counts(run: RecordedRun) -> str:
    if run.ledger is None:
        return "-"
    return ", ".join(f"{run.ledger[name]} {name}" for name in _COUNTS if run.ledger.get(name)) or "none"
