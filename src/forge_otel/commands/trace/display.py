"""Traces as text for a terminal, or for a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.style import Style
from rich.text import Text

from forge.support import layout
from forge.support.formatting import seconds
from forge.support.text import on_one_line

from ...semconv import attributes as a
from ...semconv import events
from ...semconv import spans as s
from ..printing import print_blocks, print_next
from .records import LogRecord, Span, number
from .waterfall import error, outcome

_MAX_MESSAGE: Final = 200
_MAX_NAME: Final = 60
_MIN_BAR: Final = 12
_MAX_BAR: Final = 60
_USUAL: Final = ("success", "computed", "ready", "completed", None)
"""Outcomes that go without saying."""
_SUMMARIES: Final = (events.FORGE_STAGE_SUMMARY.name, events.FORGE_MEASUREMENT_SUMMARY.name)
"""Events of a run with many numbers, which `trace top` and the page show in tables."""
_Node = Mapping[str, Any]
_RED, _DIM, _BOLD, _YELLOW, _CYAN = (Style.parse(each) for each in ("red", "dim", "bold", "yellow", "cyan"))


def plain(value: object, limit: int = _MAX_MESSAGE) -> str:
    """Return text that cannot change a terminal's state."""
    return on_one_line(str(value), limit)


def show_top(report: Mapping[str, Any], out: Console) -> None:
    """Print the report of `trace top`."""
    operations = report["operations"]
    columns = [
        layout.Column("slowest operations"),
        layout.Column("calls", 1),
        layout.Column("errors"),
        *(layout.Column("p50", 3), layout.Column("p95"), layout.Column("p99", 4), layout.Column("max", 2)),
        layout.Column("slowest in", 5, is_text=True),
    ]
    if operations:
        rows = [
            [
                layout.Span(plain(row["name"], _MAX_NAME)),
                layout.Span(str(row["count"])),
                layout.Span(str(row["errors"]), "red" if row["errors"] else ""),
                *(layout.Span(seconds(row[key])) for key in ("p50", "p95", "p99", "max")),
                layout.Span(_where(row["slowest"])),
            ]
            for row in operations
        ]
        print_blocks([layout.Table(columns, rows)], out)
        _following(operations[0]["slowest"], out)
    for row in report["errors"]:
        place = row["first"]["sample_id"]
        first = "first in sample" if row["count"] > 1 else "sample"
        out.print()
        line = Text.assemble(
            (f"{row['count']} × {plain(row['error_type'] or 'error', _MAX_NAME)}", _RED),
            f" in {plain(row['name'], _MAX_NAME)}",
            f", {first} {plain(place, _MAX_NAME)}" if place else "",
        )
        out.print(line)
        if row["message"]:
            out.print(Text(f"    {plain(row['message'])}"))
        _following(row["first"], out, "    ")
    if report["waits"]:
        out.print()
        waits = [
            layout.Column("most time waited"),
            layout.Column("total"),
            *(layout.Column("in queues", 2), layout.Column("before retries", 3), layout.Column("held up", 4)),
            layout.Column("longest in", 5, is_text=True),
        ]
        rows = [
            [
                layout.Span(plain(row["stage"], _MAX_NAME)),
                *(layout.Span(seconds(row[key] or None)) for key in ("total", "queue", "retries", "backpressure")),
                layout.Span(_where(row["longest"])),
            ]
            for row in report["waits"]
        ]
        print_blocks([layout.Table(waits, rows)], out)
        _following(report["waits"][0]["longest"], out)


def _where(place: Mapping[str, Any]) -> str:
    if place["sample_id"]:
        return plain(place["sample_id"], _MAX_NAME)
    return f"trace {plain(place['trace_id'][:8])}" if place["trace_id"] else "-"


def _following(place: Mapping[str, Any], out: Console, indent: str = "") -> None:
    """Print the command that shows a place, if there is one."""
    print_next([place["next"]] if place["next"] else [], out, indent=indent)


def show_waterfall(document: Mapping[str, Any], out: Console, *, stacks: bool) -> None:
    """Print a trace or a sample as a waterfall."""
    started = datetime.fromtimestamp(document["started"]).astimezone()
    title = (
        f"sample {plain(document['sample_id'])}" if document["sample_id"] else f"trace {plain(document['trace_id'])}"
    )
    about = [f"{started:%Y-%m-%d %H:%M:%S}", seconds(document["duration"])]
    if document["service"]:
        about.insert(1, plain(document["service"], _MAX_NAME))
    if document["sample_id"]:
        about.append(f"trace {plain(document['trace_id'])}")
    out.print(Text.assemble((title, _BOLD), "  ", "  ".join(about)), soft_wrap=True)
    for name, url in document["pages"].items():
        out.print(Text(f"{name:5}  {plain(url, len(url))}", style=_DIM), soft_wrap=True)
    rows = list(_rows(document["roots"]))
    longest = max((len(label) for label, _ in rows), default=0)
    label_width = min(longest, max(24, out.width // 2 - 4))
    bar_width = min(_MAX_BAR, max(_MIN_BAR, out.width - label_width - 24))
    for label, node in rows:
        bar = _bar(node, document["duration"], bar_width)
        shown = label if len(label) <= label_width else label[: label_width - 1] + "…"
        line = Text.assemble(shown.ljust(label_width), " ", bar, seconds(node["duration"]).rjust(8))
        if result := _result(node):
            line.append("  ").append(result)
        out.print(line, soft_wrap=True)
        indent = " " * (len(label) - len(label.lstrip(" │├└─")) + 2)
        for detail in _details(node, stacks):
            out.print(Text.assemble(indent, detail), soft_wrap=True)
    for record in document["log_records"]:
        out.print(_log_line(record), soft_wrap=True)
    if document["omitted_spans"]:
        more = f"… {document['omitted_spans']} of {document['spans']} spans are not shown: --limit N shows more"
        out.print(Text(more, style=_DIM))
    if document["next"]:
        out.print()
        print_next(document["next"], out)


def _rows(nodes: Sequence[_Node], indent: str = "", *, top: bool = True) -> Iterator[tuple[str, _Node]]:
    for index, node in enumerate(nodes):
        last = index == len(nodes) - 1
        branch, below = ("", "") if top else ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield f"{indent}{branch}{_label(node)}", node
        yield from _rows(node["children"], indent + below, top=False)


def _label(node: _Node) -> str:
    sample = node["attributes"].get(a.FORGE_SAMPLE_ID) if node["name"] == s.FORGE_SAMPLE.type else None
    return plain(node["name"] if sample is None else f"{node['name']} {sample}", _MAX_NAME)


def _bar(node: _Node, total: float, width: int) -> Text:
    """Return the time of a span, and before it the time that its sample waited in the queue."""
    scale = width / total if total > 0 else 0.0
    begin = min(width - 1, int(node["offset"] * scale))
    end = min(width, max(begin + 1, round((node["offset"] + node["duration"]) * scale)))
    waited = number(node["attributes"], a.FORGE_STAGE_QUEUE_WAIT)
    wait = begin if waited is None else max(0, int((node["offset"] - waited) * scale))
    wait = min(wait, begin)
    return Text.assemble(
        " " * wait,
        ("░" * (begin - wait), _DIM),
        ("█" * (end - begin), _RED if node["error"] else _CYAN),
        " " * (width - end),
    )


def _result(node: _Node) -> Text | None:
    if node["error"] is not None:
        return Text(plain(node["outcome"] or "failed", _MAX_NAME), style=_RED)
    if node["outcome"] in _USUAL:
        return None
    reason = node["attributes"].get(a.FORGE_SKIP_REASON)
    return Text(plain(f"{node['outcome']}: {reason}" if reason else node["outcome"], _MAX_NAME), style=_DIM)


def _details(node: _Node, stacks: bool) -> Iterator[Text]:
    """Yield what is known of an error, once where it happened, and the other log records."""
    exceptions = [each for each in node["log_records"] if a.EXCEPTION_TYPE in each["attributes"] and _is_error(each)]
    is_below = any(child["error"] == node["error"] for child in node["children"])
    if node["error"] is not None and not exceptions and not is_below:
        yield Text(f"✗ {plain(node['error'])}", style=_RED)
    for record in node["log_records"]:
        if record["name"] in _SUMMARIES:
            continue
        if record not in exceptions:
            yield _log_line(record)
            continue
        about = record["attributes"]
        error_type = about.get(a.ERROR_TYPE, about.get(a.EXCEPTION_TYPE))
        yield Text(f"✗ {plain(error_type, _MAX_NAME)}: {plain(about.get(a.EXCEPTION_MESSAGE, ''))}", style=_RED)
        stack = str(about.get(a.EXCEPTION_STACKTRACE, "")).splitlines()
        frames = [line for line in stack if line.startswith("  File ")]
        own = [line for line in frames if "/site-packages/" not in line]
        for line in stack if stacks else (own or frames)[-1:]:
            yield Text(f"  {plain_line(line)}", style=_DIM)


def plain_line(line: str) -> str:
    """Return a line of a stack trace, with its indentation."""
    return " " * (len(line) - len(line.lstrip(" "))) + plain(line)


def _is_error(record: Mapping[str, Any]) -> bool:
    return record["severity"] in ("WARN", "ERROR", "FATAL")


def _log_line(record: Mapping[str, Any]) -> Text:
    style = _YELLOW if _is_error(record) else _DIM
    return Text(
        f"· {seconds(max(0.0, record['offset']))}  {plain(record['body'] or record['name'] or '')}", style=style
    )


def record_line(record: Span | LogRecord) -> Text:
    """Return a span or log record on one line."""
    at = record.start if isinstance(record, Span) else record.time
    time = datetime.fromtimestamp(at / 1e9).astimezone()
    sample = record.attributes.get(a.FORGE_SAMPLE_ID)
    line = Text(f"{time:%H:%M:%S}.{time.microsecond // 1000:03}  ", style=_DIM)
    if isinstance(record, Span):
        line.append(plain(record.name, _MAX_NAME), style="not dim")
        line.append(f"  {seconds(record.duration)}", style="not dim")
        failed = error(record)
        result = outcome(record.attributes)
        if failed is not None:
            line.append(f"  {plain(failed)}", style=Style.combine([Style(dim=False), _RED]))
        elif result not in _USUAL:
            line.append(f"  {plain(result, _MAX_NAME)}", style="not dim")
    else:
        style = Style(dim=False, color="yellow" if record.severity in ("WARN", "ERROR", "FATAL") else None)
        line.append(plain(record.name or record.severity or "log record", _MAX_NAME), style=style)
        message = record.attributes.get(a.EXCEPTION_MESSAGE)
        line.append(f"  {plain(record.body)}", style="not dim")
        if message:
            line.append(f": {plain(message)}", style="not dim")
    if sample is not None:
        line.append("  sample ", style=_DIM).append(plain(sample), style="not dim bold")
    return line.append(f"  trace {plain(record.trace_id[:8])}") if record.trace_id else line
