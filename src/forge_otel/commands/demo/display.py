"""Progress of a run: a live table on a terminal, else a line every few seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from forge.support.formatting import clock

if TYPE_CHECKING:
    from forge import Run
    from forge.runner.result import Ledger, RunSnapshot

REFRESH = 5
"""Refreshes of the table per second."""
LINE_EVERY = 3.0
"""Seconds between two lines without a terminal."""
WINDOW = 5.0
"""Seconds over which rates are averaged."""


@contextmanager
def progress(run: Run, total: int, console: Console, closing: ExitStack) -> Iterator[None]:
    """Show the run's progress on the console while the block lasts, or until `closing` is closed."""
    tracker = ProgressTracker(run, total)
    if console.is_terminal:
        with Live(get_renderable=tracker.table, console=console, refresh_per_second=REFRESH, transient=True) as live:
            closing.callback(live.stop)
            yield
        return
    done = threading.Event()

    def lines() -> None:
        while not done.wait(LINE_EVERY):
            console.print(tracker.line(), soft_wrap=True, highlight=False)

    thread = threading.Thread(target=lines, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class ProgressTracker:
    """Rates and remaining work of a run, computed from its snapshots.

    `total` is the number of samples in the source.
    """

    def __init__(self, run: Run, total: int) -> None:
        self._run = run
        self._total = total
        self._begun = time.monotonic()
        self._history: deque[tuple[float, RunSnapshot]] = deque([(0.0, run.snapshot())])

    def update(self) -> tuple[float, RunSnapshot]:
        """Take a snapshot; return it with the seconds since the beginning."""
        now, snapshot = time.monotonic() - self._begun, self._run.snapshot()
        self._history.append((now, snapshot))
        while now - self._history[0][0] > WINDOW and len(self._history) > 2:
            self._history.popleft()
        return now, snapshot

    def rates(self) -> list[float]:
        """Return executions per second, by stage."""
        (before, first), (now, last) = self._history[0], self._history[-1]
        period = now - before
        return [
            (new.executions - old.executions) / period if period else 0.0
            for old, new in zip(first.stages, last.stages, strict=True)
        ]

    def remaining(self, snapshot: RunSnapshot) -> list[float]:
        """Return the estimated number of remaining executions, by stage: samples in flight before it, and those that
        the unread part of the source will bring at the same ratio as the part read so far.
        """
        unread = max(0, self._total - snapshot.ledger.admitted)
        in_flight = 0
        result = []
        for state in snapshot.stages:
            in_flight += state.queue_depth + state.active
            result.append(in_flight + unread * state.executions / max(1, snapshot.ledger.admitted))
        return result

    def table(self) -> Group:
        """Return the progress as a table for a terminal."""
        now, snapshot = self.update()
        read = min(snapshot.ledger.admitted, self._total)
        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(no_wrap=True, justify="right")
        head.add_row(
            Text(self._run.pipeline.name, style="bold"),
            ProgressBar(total=max(1, self._total), completed=read, pulse=read == 0),
            f"{read}/{self._total} read, {clock(now)}",
        )
        stages = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        stages.add_column("stage", no_wrap=True)
        for name in ("done", "errors", "retries", "per s", "active", "queue", "ETA"):
            stages.add_column(name, justify="right", no_wrap=True)
        for state, rate, left in zip(snapshot.stages, self.rates(), self.remaining(snapshot), strict=True):
            full = state.queue_limit and state.queue_depth >= state.queue_limit
            stages.add_row(
                state.name,
                f"{state.executions}",
                Text(f"{state.errors}", style="red" if state.errors else ""),
                Text(f"{state.retries}", style="yellow" if state.retries else ""),
                f"{rate:.0f}",
                f"{state.active}",
                Text(f"{state.queue_depth}/{state.queue_limit}", style="yellow" if full else ""),
                _eta(left, rate),
            )
        return Group(head, stages, Text(ledger_line(snapshot.ledger), style="dim"))

    def line(self) -> str:
        """Return the progress as one line."""
        now, snapshot = self.update()
        rates = self.rates()
        stages = ", ".join(
            f"{state.name} {state.executions} ({rate:.0f}/s)"
            for state, rate in zip(snapshot.stages, rates, strict=True)
        )
        etas = [left / rate for left, rate in zip(self.remaining(snapshot), rates, strict=True) if left >= 1 and rate]
        eta = f", ETA {clock(max(etas))}" if etas else ""
        read = min(snapshot.ledger.admitted, self._total)
        return f"{clock(now)} {read}/{self._total} read{eta} | {stages} | {ledger_line(snapshot.ledger)}"


def ledger_line(ledger: Ledger) -> str:
    """Return the counts of a ledger as one line."""
    outcomes = ("ready", "skipped", "unchanged", "split", "dlq", "failed")
    counts = [f"{count} {name}" for name in outcomes if (count := getattr(ledger, name))]
    return f"{ledger.active} active, {ledger.settled} settled" + (f": {', '.join(counts)}" if counts else "")


def _eta(left: float, rate: float) -> str:
    if left < 1:
        return "-"
    return clock(left / rate) if rate > 0 else "?"
