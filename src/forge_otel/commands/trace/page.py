"""A page on one run that opens without a network: one file of HTML, with its style, its script and its data.

A content security policy names the hashes of both, so nothing in the data can run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

from forge.support.formatting import seconds, share

from ..errors import CommandError
from .chart import HEIGHT, WIDTH, chart, color, peak

_FILES: Final = files(__package__) / "page_files"
_UNSAFE: Final = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}
_STAGE_COLUMNS: Final = (
    ("stage", "name"),
    ("done", "executions"),
    ("errors", "errors"),
    ("skips", "skips"),
    ("retries", "retries"),
    ("p50", "p50"),
    ("p95", "p95"),
    ("p99", "p99"),
    ("longest", "max"),
    ("p95 in queue", "queue_wait_p95"),
    ("held up", "backpressure"),
    ("used", "utilization"),
)
_DURATIONS: Final = frozenset({"p50", "p95", "p99", "max", "queue_wait_p95", "backpressure"})


def page(data: Mapping[str, Any]) -> str:
    """Return the page."""
    style, script = (_FILES.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    run = data["run"]
    started = datetime.fromtimestamp(run["start"] / 1e3, UTC)
    return Template(_FILES.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        style_hash=_hash(style),
        script_hash=_hash(script),
        style=style,
        script=script,
        data=as_json(data),
        title=escape(f"{run['pipeline'] or 'run'}, {started:%Y-%m-%d %H:%M:%S}"),
        pipeline=escape(run["pipeline"] or "run"),
        outcome=escape(str(run["outcome"] or "no end recorded")),
        outcome_class=escape(str(run["outcome"] or "open"), quote=True),
        about="".join(_about(data, started)),
        message=f'<p class="error">{escape(run["message"])}</p>' if run["message"] else "",
        tiles="".join(_tiles(data)),
        coverage=escape(coverage(data)),
        problems="".join(_problems(data)),
        chart_width=WIDTH,
        chart_height=HEIGHT,
        chart=chart(data["occupancy"]),
        chart_label=escape(_chart_label(data), quote=True),
        peak=f"{peak(data['occupancy']):.0f}",
        times="".join(f"<span>{escape(time)}</span>" for time in _times(data["occupancy"])),
        chart_note=_chart_note(data),
        legend="".join(
            f'<li><i class="{color(each)}"></i>{escape(each["name"])}</li>' for each in data["occupancy"]["series"]
        ),
        stage_head="".join(f'<th scope="col">{name}</th>' for name, _ in _STAGE_COLUMNS),
        stages="".join(_stage(index, row) for index, row in enumerate(data["stages"])),
        stages_note=escape(_stages_note(data)),
    )


def as_json(data: Any) -> str:
    """Return data as JSON that is inert inside of a script element."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)


def write(text: str, file: Path) -> None:
    """Write a page, or leave what was there.

    Raises:
        CommandError: the file cannot be written.
    """
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=file.absolute().parent, prefix=".page-")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as opened:
            opened.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, file)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise CommandError(f"--html {file}: cannot be written: {error.strerror}") from None


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _about(data: Mapping[str, Any], started: datetime) -> Iterable[str]:
    run = data["run"]
    facts = {
        "run": run["id"],
        "started": f"{started:%Y-%m-%d %H:%M:%S} UTC",
        "took": seconds(run["duration"]),
        "type": run["type"],
        "runner": run["runner"],
        "revision": run["revision"],
        "trace": run["trace_id"],
    }
    for name, value in facts.items():
        if value:
            yield f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>"


def _tiles(data: Mapping[str, Any]) -> Iterable[str]:
    for outcome, count in data["run"]["samples"].items():
        bad = " bad" if outcome in ("dlq", "failed") else ""
        yield f'<li class="tile{bad}"><b>{count:,}</b> {escape(outcome or "without outcome")}</li>'
    if data["run"]["cost"] is not None:
        yield f'<li class="tile"><b>${data["run"]["cost"]:,.2f}</b> cost</li>'


def coverage(data: Mapping[str, Any]) -> str:
    """Return how much of the run is in its telemetry, and in the page."""
    totals = data["totals"]
    text = f"{totals['samples']:,} samples with {totals['spans']:,} spans were recorded."
    if totals["kept_spans"] < totals["spans"]:
        kept = f"{totals['kept_samples']:,} samples with {totals['kept_spans']:,} spans are in this page"
        text += f" {kept}: those that failed, then the slowest."
    if data["run"]["suppressed"]:
        text += f" {data['run']['suppressed']:,} spans and events were left out by sampling or a budget."
    if data["run"]["faults"]:
        text += f" Faults inside the telemetry: {data['run']['faults']:,}."
    return text


def _problems(data: Mapping[str, Any]) -> Iterable[str]:
    if data["problems"]:
        lines = "".join(f"<li>{escape(each)}</li>" for each in data["problems"][:20])
        more = len(data["problems"]) - 20
        rest = f"<li>and {more} more</li>" if more > 0 else ""
        yield f'<details class="problems"><summary>{len(data["problems"])} lines could not be read</summary>'
        yield f"<ul>{lines}{rest}</ul></details>"


def _chart_label(data: Mapping[str, Any]) -> str:
    places = []
    for each in data["occupancy"]["series"]:
        values = each["values"]
        average = sum(values) / len(values) if values else 0.0
        places.append(f"{average:.1f} {each['name']}")
    return "Samples in flight over the run, on average: " + ", ".join(places)


def _chart_note(data: Mapping[str, Any]) -> str:
    recorded, all_ = data["totals"]["samples"], sum(data["run"]["samples"].values())
    if recorded >= all_:
        return ""
    return f'<p class="note">Of the {recorded:,} samples with spans; the run had {all_:,}.</p>'


def _times(occupancy: Mapping[str, Any]) -> Iterable[str]:
    length = occupancy["bins"] * occupancy["width"]
    for part in range(5):
        yield seconds(max(0.0, occupancy["start"] + length * part / 4))


def _stage(index: int, row: Mapping[str, Any]) -> str:
    cells = [f'<th scope="row"><i class="c{index % 8}"></i>{escape(row["name"])}</th>']
    for _, key in _STAGE_COLUMNS[1:]:
        value = row[key]
        text = seconds(value) if key in _DURATIONS else share(value) if key == "utilization" else value
        bad = ' class="bad"' if key == "errors" and value else ""
        cells.append(f"<td{bad}>{'-' if text is None else escape(str(text))}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _stages_note(data: Mapping[str, Any]) -> str:
    if data["stages"] and all(row["exact"] for row in data["stages"]):
        return "Of all samples, from the summary at the run's end."
    return "Of the samples with spans; the summary at the run's end, which has all, is not in this telemetry."
