"""Differences between runs as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from forge.history import RecordedRun, RunState
from forge.history.difference import RunDifference, RunReference
from forge.history.gates import Violation

from ..console import Output, data
from ..printing import print_next
from ..storage import following

_MAX_PASSED_OVER = 3
"""Runs without an end that are named."""
_STATES = {RunState.ACTIVE: "is still in progress", RunState.DIED: "has died"}


def show_difference(
    found: RunDifference, violations: Sequence[Violation], passed_over: Sequence[RecordedRun] = ()
) -> None:
    """Print the runs that were passed over, the differences, the gates that fail, and the next commands."""
    out = Output()
    for each in passed_over[:_MAX_PASSED_OVER]:
        out.print(Text(f"{each.id[:8]} is passed over: it {_STATES[each.state]}", style="yellow"), soft_wrap=True)
    if (more := len(passed_over) - _MAX_PASSED_OVER) > 0:
        out.print(Text(f"and {more} more without an end", style="yellow"), soft_wrap=True)
    runs = Table.grid(padding=(0, 2))
    for name, run in (("before", found.before), ("after", found.after)):
        runs.add_row(name, *_run(run))
    out.print(runs)
    fewer = found.ready[1] < found.ready[0]
    out.print(Text(found.headline, style="bold red" if fewer else "bold"), soft_wrap=not out.is_terminal)
    rows = [
        (title if number == 0 else "", line) for title, lines in found.sections() for number, line in enumerate(lines)
    ]
    if out.is_terminal:
        sections = Table.grid(padding=(0, 2))
        sections.add_column(no_wrap=True)
        sections.add_column(overflow="fold")
        for title, line in rows:
            sections.add_row(title, Text(line))
        out.print(sections)
    else:
        for title, line in rows:
            out.print(Text(f"{title:<11}{line}"), soft_wrap=True)
    for violation in violations:
        out.print(data(f"gate failed: {violation}", 500, "red"), soft_wrap=True)
    print_next(_next(found), out)


def _run(run: RunReference) -> tuple[Text, ...]:
    started = f"{datetime.fromtimestamp(run.started).astimezone():%Y-%m-%d %H:%M:%S}"
    kind = "" if run.type == "full" else f" ({run.type})"
    return Text(run.id[:8]), data(run.pipeline, 40), Text(started), data(f"{run.outcome}{kind}")


def _next(found: RunDifference) -> list[str]:
    """Return the commands that tell more: of a sample that is no longer ready, or of the second run."""
    if found.input is not None:
        for move in found.input.moves:
            lost = move.before is not None and move.before.outcome == "ready" and move.after is not None
            if lost and move.after is not None and move.after.outcome not in ("ready", "unchanged", "split"):
                return [following("forge show", found.after.id[:8], move.examples[0])]
    return [following("forge show", found.after.id[:8])]
