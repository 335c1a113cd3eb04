"""Dead letters as text, and as plain data."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from forge import DeadLetter
from forge.support import layout
from forge.support.layout import Column, Span
from forge.support.text import on_one_line, shortened, visible

from ..console import Output
from ..printing import print_blocks, print_next, print_table
from ..storage import following

_MAX_DATA: Final = 2000
"""Characters shown of an entry's data."""
_MAX_SHOWN: Final = 20
"""Entries listed of those to be dropped."""


def document_of(entry: DeadLetter, *, with_data: bool = False) -> dict[str, Any]:
    """Return plain data for JSON."""
    document: dict[str, Any] = {
        name: getattr(entry, name)
        for name in ("pipeline", "sample_id", "where", "error_type", "message", "attempts", "time", "run_id")
    }
    document |= {
        "source": entry.source.value,
        "parent": entry.parent,
        "derived_by": entry.derived_by,
        "replayable": entry.replayable,
        "trace_id": trace_id_of(entry),
    }
    if with_data:
        document |= {"pipeline_id": entry.pipeline_id, "data": _decoded(entry.data)}
    return document


def trace_id_of(entry: DeadLetter) -> str | None:
    """Return the trace in which the sample failed, if its context was kept."""
    parts = entry.carrier.get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else None


def show_letters(
    entries: Sequence[DeadLetter], counts: Mapping[tuple[str, str, str], int], *, verb: str | None = None
) -> None:
    """Print the numbers, a line for each entry, and the next command."""
    out = Output()
    total = sum(counts.values())
    if not total:
        out.print("no dead letters" if verb is None else f"no dead letters {verb}")
        return
    head = f"{total} dead letter{'' if total == 1 else 's'}{'' if verb is None else f' {verb}'}: "
    several = len({pipeline for pipeline, _, _ in counts}) > 1
    parts = [
        f"{count} × {on_one_line(kind, 80)} in {on_one_line(where, 60)}"
        f"{f' of {visible(shortened(pipeline, 60))}' if several else ''}"
        for (pipeline, where, kind), count in counts.items()
    ]
    out.print(Text(head + "; ".join(parts), style="bold"), soft_wrap=not out.is_terminal)
    shown = entries if verb is None else entries[:_MAX_SHOWN]
    columns = [
        Column("sample"),
        *([Column("pipeline", 2, is_text=True)] if several else []),
        Column("failed", 3, is_text=True),
        Column("in", 1, is_text=True),
        Column("error", is_text=True),
        Column("message", 4, is_text=True),
    ]
    rows = [
        [
            Span(shortened(entry.sample_id, 60)),
            *([Span(shortened(entry.pipeline, 40))] if several else []),
            Span(age(time.time() - entry.time)),
            Span(on_one_line(entry.where, 40)),
            Span(on_one_line(entry.error_type, 60)),
            Span(on_one_line(entry.message, 100)),
        ]
        for entry in shown
    ]
    print_blocks([layout.Table(columns, rows)], out)
    if total > len(shown):
        out.print(f"and {total - len(shown)} more")
    if verb is None and entries:
        first = entries[0]
        options = ["--pipeline", first.pipeline] if several else []
        print_next([following("forge dlq show", first.sample_id, options=options)], out)


def show_entry(entry: DeadLetter) -> None:
    """Print everything about one entry, and the next commands."""
    out = Output()
    when = f"{datetime.fromtimestamp(entry.time).astimezone():%Y-%m-%d %H:%M:%S}"
    attempts = f"{entry.attempts} attempt{'' if entry.attempts == 1 else 's'}"
    rows = [
        ("sample", entry.sample_id),
        ("pipeline", entry.pipeline),
        ("failed", f"{when} ({age(time.time() - entry.time)})"),
        ("in", f"{entry.source.value} {entry.where}, after {attempts}"),
        ("error", entry.error_type),
        *(("message" if number == 0 else "", line) for number, line in enumerate(entry.message.splitlines() or [""])),
        ("run", entry.run_id),
        ("trace", trace_id_of(entry)),
        ("parent", entry.parent),
        ("derived by", entry.derived_by),
        ("data", _data_line(entry)),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            table.add_row(name, Text(visible(shortened(value, _MAX_DATA))))
    print_table(table, out)
    commands = [following("forge show", entry.run_id[:8], entry.sample_id)] if entry.run_id else []
    if entry.replayable:
        commands.append(following("forge dlq replay", "MODULE:PIPELINE", options=["--id", entry.sample_id]))
    print_next(commands, out)


def show_unreplayable(entries: Sequence[DeadLetter]) -> None:
    """Print the entries that cannot be replayed."""
    ids = ", ".join(repr(on_one_line(entry.sample_id, 60)) for entry in entries[:_MAX_SHOWN])
    more = f" and {len(entries) - _MAX_SHOWN} more" if len(entries) > _MAX_SHOWN else ""
    out = Output()
    out.print(
        Text(f"{len(entries)} cannot be replayed, because their data was not stored: {ids}{more}"), soft_wrap=True
    )


def show_dropped(entries: Sequence[DeadLetter]) -> None:
    """Print the number of entries that were dropped."""
    if len(entries) == 1:
        Output().print("dropped 1 dead letter: the next run tries its sample again")
    else:
        Output().print(f"dropped {len(entries)} dead letters: the next run tries their samples again")


def age(seconds: float) -> str:
    """Return the time passed since a failure."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def _data_line(entry: DeadLetter) -> str:
    if entry.data is None:
        return "not stored, so it cannot be replayed"
    try:
        text = json.dumps(json.loads(entry.data), ensure_ascii=False)
    except ValueError:
        text = entry.data.decode(errors="backslashreplace")
    return shortened(text, _MAX_DATA)


def _decoded(content: bytes | None) -> Any:
    """Return data as JSON where it is, or else as text with the rest escaped."""
    if content is None:
        return None
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="backslashreplace")
