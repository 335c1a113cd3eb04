"""Rates and remaining work of a run in progress, from its snapshots."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..support.formatting import clock, dollars
from ..support.layout import Bar, Block, Column, Span, Table, paragraph
from ..support.text import on_one_line

if TYPE_CHECKING:
    from ..runner.result import Ledger, RunSnapshot, StageState
    from ..runner.run import Run

WINDOW = 5.0
"""Seconds over which rates are averaged."""
OUTCOMES = ("ready", "skipped", "unchanged", "split", "dlq", "failed")


class Tracker:
    """The progress of a run.

    `total` is the number of samples in its source; None for as many as the source's `len()` says.
    """

    def __init__(self, run: Run, total: int | None = None) -> None:
        self._run = run
        self._total = total
        now = run.clock.monotonic()
        self._begun = run.started.monotonic if run.began else now
        self._counts: deque[tuple[float, list[int]]] = deque([(self._begun, [0] * (1 + len(run.pipeline.stages)))])
        """Settled samples and the executions of each stage, by the time of their snapshots."""
        self._states: deque[tuple[float, Sequence[StageState]]] = deque()
        """Stages, by the time of their snapshots."""

    def blocks(self) -> list[Block]:
        """Return the progress as a bar, a line for each stage and one for the samples."""
        elapsed, snapshot = self._update()
        rate, *rates = self._rates()
        total = self._total_of(snapshot)
        lefts = self._remaining(snapshot, total)
        read = snapshot.ledger.admitted
        parts = [
            f"{read}/{total} read" if total is not None else f"{read} read",
            f"{_per_second(rate)}/s",
            clock(elapsed),
        ]
        if (left := _time_left(lefts, rates, total)) is not None:
            parts.append(f"{clock(left)} left")
        columns = [
            Column("stage"),
            Column("done"),
            Column("per s", 1),
            Column("active", 4),
            Column("queue", 2),
            Column("errors"),
            Column("retries", 3),
        ]
        in_workers = any(state.workers is not None for state in snapshot.stages)
        if in_workers:
            columns.insert(4, Column("workers", 5))
        rows = []
        for state, each in zip(snapshot.stages, rates, strict=True):
            rows.append(
                [
                    Span(state.name),
                    Span(f"{state.executions}"),
                    Span(_per_second(each)),
                    Span(f"{state.active}/{state.concurrency}"),
                    *([Span(f"{state.workers or 0}")] if in_workers else []),
                    _queue(state),
                    Span(f"{state.errors}", "red" if state.errors else ""),
                    Span(f"{state.retries}", "yellow" if state.retries else ""),
                ]
            )
        blocks: list[Block] = [Bar(self._run.pipeline.name, read, total, ", ".join(parts))]
        if rows:
            blocks.append(Table(columns, rows))
        if in_workers and not any(state.workers for state in snapshot.stages) and not snapshot.ledger.settled:
            blocks.append(paragraph("no worker yet: the cluster starts them, and they set up their stages", "dim"))
        if (limit := self._limit()) is not None:
            more = "more workers" if in_workers else "a higher concurrency"
            of = f"all {limit.slots} calls that it can make" if limit.slots > 1 else "the one call that it can make"
            text = f"{limit.name} limits the run: it makes {of}, and {limit.queue_depth} samples wait. Give it {more}."
            blocks.append(paragraph(text, "yellow"))
        return [*blocks, paragraph(_samples(snapshot), "dim")]

    def samples(self) -> list[Block]:
        """Return where each sample in flight is, as `forge ps` shows it."""
        from ..runner.in_flight import look  # noqa: PLC0415 - few look
        from ..runner.introspection import lines_of  # noqa: PLC0415

        found = lines_of(look(self._run).to_dict())
        return [paragraph(line.lstrip(" "), indent=len(line) - len(line.lstrip(" "))) for line in found]

    def line(self) -> str:
        """Return the progress on one line."""
        elapsed, snapshot = self._update()
        rate, *rates = self._rates()
        total = self._total_of(snapshot)
        read = snapshot.ledger.admitted
        name = on_one_line(self._run.pipeline.name, 200)
        of = "" if total is None else f"/{total}"
        head = f"{name}: {clock(elapsed)}, {read}{of} read, {_per_second(rate)}/s"
        if (left := _time_left(self._remaining(snapshot, total), rates, total)) is not None:
            head += f", {clock(left)} left"
        stages = ", ".join(
            f"{state.name} {state.executions}"
            + (f" ({_troubles(state.errors, state.retries)})" if state.errors or state.retries else "")
            for state in snapshot.stages
        )
        return on_one_line(" | ".join(filter(None, (head, stages, _samples(snapshot)))), 2000)

    def _update(self) -> tuple[float, RunSnapshot]:
        """Take a snapshot; return it with the seconds since the beginning."""
        run = self._run
        now, snapshot = run.clock.monotonic(), run.snapshot()
        if run.result is not None:
            now = self._begun + run.result.duration
        self._counts.append((now, [snapshot.ledger.settled, *(state.executions for state in snapshot.stages)]))
        while now - self._counts[0][0] > WINDOW and len(self._counts) > 2:
            self._counts.popleft()
        self._states.append((now, snapshot.stages))
        while now - self._states[0][0] > WINDOW and now - self._states[1][0] >= WINDOW:
            self._states.popleft()
        return max(0.0, now - self._begun), snapshot

    def _limit(self) -> StageState | None:
        """Return the last stage that has been making all calls that it can make, while samples waited for it, at every
        look of a whole window; None if there is none, or the run has ended.
        """
        if self._run.result is not None or self._states[-1][0] - self._states[0][0] < WINDOW:
            return None
        for index, state in reversed(list(enumerate(self._states[-1][1]))):
            looks = [stages[index] for _, stages in self._states]
            if all(0 < look.slots <= look.active and look.queue_depth for look in looks):
                return state
        return None

    def _rates(self) -> list[float]:
        """Return settled samples per second, and executions per second by stage: of the whole run once it has ended."""
        (before, first), (now, last) = self._counts[0], self._counts[-1]
        if self._run.result is not None:
            before, first = self._begun, [0] * len(last)
        period = now - before
        return [(new - old) / period if period > 0 else 0.0 for old, new in zip(first, last, strict=True)]

    def _total_of(self, snapshot: RunSnapshot) -> int | None:
        if self._total is not None:
            return max(self._total, snapshot.ledger.admitted)
        remaining = snapshot.source_remaining
        return None if remaining is None else snapshot.ledger.admitted + remaining

    def _remaining(self, snapshot: RunSnapshot, total: int | None) -> list[float]:
        """Return the estimated number of remaining executions, by stage: samples in flight before it, and those that
        the unread part of the source will bring at the same ratio as the part read so far.
        """
        admitted = snapshot.ledger.admitted
        unread = 0 if total is None else total - admitted
        in_flight = 0
        result = []
        for state in snapshot.stages:
            in_flight += state.queue_depth + state.active
            result.append(in_flight + unread * state.executions / max(1, admitted))
        return result


def _queue(state: StageState) -> Span:
    if not state.queue_limit:
        return Span("-" if state.workers is None else f"{state.queue_depth}")
    full = state.queue_depth >= state.queue_limit
    return Span(f"{state.queue_depth}/{state.queue_limit}", "yellow" if full else "")


def _time_left(lefts: list[float], rates: list[float], total: int | None) -> float | None:
    """Return the seconds left until the slowest stage is through; None if that cannot be told."""
    if total is None:
        return None
    times = [left / rate for left, rate in zip(lefts, rates, strict=True) if left >= 1 and rate > 0]
    return max(times, default=None)


def _samples(snapshot: RunSnapshot) -> str:
    text = _ledger(snapshot.ledger)
    return f"{text}; {dollars(snapshot.cost)} USD" if snapshot.cost else text


def _ledger(ledger: Ledger) -> str:
    counts = [f"{count} {name}" for name in OUTCOMES if (count := getattr(ledger, name))]
    return f"{ledger.active} active, {ledger.settled} settled" + (f": {', '.join(counts)}" if counts else "")


def _troubles(errors: int, retries: int) -> str:
    counts = ((errors, "error", "errors"), (retries, "retry", "retries"))
    return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count)


def _per_second(rate: float) -> str:
    return f"{rate:.1f}" if 0 < rate < 9.95 else f"{rate:.0f}"
