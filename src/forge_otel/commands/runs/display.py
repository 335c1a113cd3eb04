"""Runs and samples as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from forge.history import Pruned, RecordedRun, SampleStory
from forge.runner.report import report, stalls_in
from forge.support.formatting import dollars, seconds, size
from forge.support.layout import Blank, Block, Column, Paragraph, Span, Table, paragraph
from forge.support.text import on_one_line, shortened

from .. import next_commands
from ..console import Output
from ..printing import print_blocks, print_next
from ..storage import following

_STYLES = {"completed": "green", "ready": "green", "failed": "red", "dlq": "red", "died": "red", "cancelled": "yellow"}
_COUNTS = ("ready", "skipped", "unchanged", "split", "dlq", "failed")
_MAX_CHILDREN = 10
"""Children of a sample that are listed."""
_MAX_PRUNED = 20
"""Removed runs that are listed."""
_MAX_VALUE = 500
"""Characters shown of a measured value."""
_MAX_MESSAGE = 1000
"""Characters shown of an error's message."""


def show_runs(runs: Sequence[RecordedRun]) -> None:
    """Print a line for each run, and the next command."""
    out = Output()
    print_blocks(_runs(runs), out)
    print_next([following("forge show", runs[0].id[:8])] if runs else [], out)


def show_run(run: RecordedRun, stored: Mapping[str, int] | None = None) -> None:
    """Print the record of a run, and the next command; of one without an end what it has stored."""
    out = Output()
    print_blocks(_run(run, stored), out)
    failures = run.record.get("failures") or ()
    ids = [failure["sample_id"] for failure in failures if failure["sample_id"]]
    print_next([following("forge show", run.id[:8], ids[0])] if ids else [], out)


def show_pruned(pruned: Pruned, *, dry_run: bool) -> None:
    """Print what was removed, or would be."""
    print_blocks(_pruned(pruned, dry_run), Output())


def show_story(story: SampleStory, run: RecordedRun, *, is_ambiguous: bool = False) -> None:
    """Print the story of a sample, and the next commands; with `is_ambiguous`, others have dead letters with its id."""
    out = Output()
    print_blocks(_story(story, run), out)
    print_next(_after(story, run, is_ambiguous), out)


def _runs(runs: Sequence[RecordedRun]) -> Iterator[Block]:
    if not runs:
        yield paragraph("no runs")
        return
    columns = [
        Column("run"),
        Column("pipeline", 1),
        Column("started", 4),
        Column("outcome"),
        Column("duration", 2),
        Column("samples"),
        Column("cost", 5),
        Column("limited by", 3),
    ]
    rows = [
        [
            Span(run.id[:8]),
            Span(shortened(run.pipeline, 40)),
            Span(_time(run.started)),
            _outcome(run),
            Span(seconds(run.duration)),
            Span(_counts(run)),
            Span(f"${dollars(run.cost)}" if run.cost else "-"),
            Span(shortened(run.limited_by or "-", 40)),
        ]
        for run in runs
    ]
    yield Table(columns, rows)


def _pruned(pruned: Pruned, dry_run: bool) -> Iterator[Block]:
    if pruned.runs:
        rows = [[Span(run.id[:8]), Span(shortened(run.pipeline, 40)), Span(_time(run.started))] for run in pruned.runs]
        yield Table([Column("run"), Column("pipeline"), Column("started")], rows[:_MAX_PRUNED])
        if (more := len(rows) - _MAX_PRUNED) > 0:
            yield paragraph(f"and {more} more")
        yield Blank()
    what = "would be removed" if dry_run else "removed"
    artifacts = f"{len(pruned.artifacts)} artifacts ({size(sum(each.size for each in pruned.artifacts))})"
    yield paragraph(f"{what}: the records of {len(pruned.runs)} runs, {artifacts}")


def _run(run: RecordedRun, stored: Mapping[str, int] | None) -> Iterator[Block]:
    record = run.record
    if run.ended is not None:
        yield from report(record)
    else:
        yield Paragraph(
            [Span(shortened(run.pipeline, 80), "bold"), Span(": "), _outcome(run), Span(f" ({run.evidence})")]
        )
        for line in stalls_in(record):
            yield Paragraph([line], indent=2)
        counts = ", ".join(f"{count} {status}" for status, count in (stored or {}).items())
        yield paragraph(f"stored by it so far: {counts or 'nothing'}", indent=2)
    yield Blank()
    yield _field("run", run.id)
    yield _field("started", _time(run.started))
    if run.ended is not None:
        yield _field("ended", f"{_time(run.ended)}, after {seconds(run.duration)}")
    if run.host is not None:
        yield _field("process", f"{run.pid} on {run.host}")
    for name, value in (*((key, record.get(key)) for key in ("runner", "type", "revision")), ("trace", run.trace_id)):
        if value is not None:
            yield _field(name, str(value))
    if run.telemetry:
        yield _field("telemetry", *_telemetry(run.telemetry))
    yield _field("definition", f"{run.pipeline_id}: {_definition(record.get('definition', {}))}")
    for letters in record.get("dead_letters", ()):
        yield _field("dead letters", f"{letters['count']} × {letters['error_type']} in {letters['where']}", "red")


def _telemetry(found: Mapping[str, int | bool]) -> tuple[str, str]:
    """Return what telemetry has recorded and lost until the end of a run, with a style."""
    parts = [f"{found.get('spans', 0)} spans recorded"]
    if suppressed := found.get("suppressed"):
        parts.append(f"{suppressed} spans and events left out by sampling or a budget")
    lost = []
    if undelivered := found.get("undelivered"):
        lost.append(f"{undelivered} spans and log records not delivered")
    if found.get("queue_full"):
        lost.append("a queue was full, and may have dropped some")
    if faults := found.get("faults"):
        lost.append(f"{faults} faults inside it")
    return "; ".join([", ".join(parts), *(lost or ["nothing lost until its end"])]), "red" if lost else ""


def _story(story: SampleStory, run: RecordedRun) -> Iterator[Block]:
    head = [Span(shortened(story.id, 200), "bold"), Span(": ")]
    fate = story.fate
    if fate is None:
        head.append(Span(f"{story.note}", "yellow"))
    else:
        head.append(Span(fate.outcome, _STYLES.get(fate.outcome, "")))
        place = f" in {fate.where}" if fate.where else ""
        why = f": {fate.reason}" if fate.reason else ""
        head.append(Span(f"{place}{why}"))
    yield Paragraph(head)
    if story.error:
        tries = f" (after {story.attempts} attempts)" if story.attempts > 1 else ""
        yield paragraph(f"{on_one_line(story.error, _MAX_MESSAGE)}{tries}", "red", indent=2)
    if story.steps:
        yield Blank()
        yield from _steps(story)
    elif fate is not None:
        yield paragraph(story.note, "yellow", indent=2)
    yield Blank()
    yield _field("run", f"{run.pipeline} {run.id}, {_time(run.started)}")
    if story.status is not None:
        by = "" if story.status_run_id == run.id else f" (by run {(story.status_run_id or '')[:8]})"
        yield _field("stored", f"{story.status}{by}{f', {size(story.size)}' if story.size is not None else ''}")
    if story.parent is not None:
        by = f" by {story.derived_by}" if story.derived_by else ""
        yield _field("split from", f"{story.parent}{by}")
    if story.children:
        more = len(story.children) - _MAX_CHILDREN
        listed = ", ".join(story.children[:_MAX_CHILDREN])
        yield _field("split into", f"{listed}{f' and {more} more' if more > 0 else ''}")
    for key, value in story.measurements.items():
        yield _field("measured", f"{key} = {_value(value)} (version {story.versions[key]})")
    yield from _dead_letter(story, run)


def _steps(story: SampleStory) -> Iterator[Block]:
    columns = [Column("step"), Column("waited", 1), Column("took"), Column("attempts")]
    rows = []
    for step in story.steps:
        took = Span("cached", "dim") if step.duration is None else Span(seconds(step.duration))
        waited = Span(seconds(step.waited) if step.waited else "-")
        tries = Span(f"{step.attempts}", "yellow" if step.attempts > 1 else "")
        rows.append([Span(shortened(step.name, 60)), waited, took, tries])
    yield Table(columns, rows)
    for step in story.steps:
        for number, retry in enumerate(step.retries, 1):
            then = "processed alone" if retry.delay is None else f"retried after {seconds(retry.delay)}"
            what = "batch" if retry.delay is None else f"attempt {number}"
            message = on_one_line(retry.message, _MAX_MESSAGE)
            yield paragraph(f"{step.name}, {what}: {retry.error_type}: {message}; {then}", "yellow", indent=2)


def _dead_letter(story: SampleStory, run: RecordedRun) -> Iterator[Block]:
    letter = story.dead_letter
    if letter is not None:
        by = "" if letter.run_id == run.id else f" in run {letter.run_id[:8]}"
        replay = "can be replayed" if letter.replayable else "cannot be replayed: its data was not stored"
        what = f"{letter.error_type} in {letter.where}{by}, {_time(letter.time)}; {replay}"
        yield _field("dead letter", what, "red")
        if letter.run_id != run.id:
            yield paragraph(on_one_line(letter.message, _MAX_MESSAGE), "red", indent=2)
    if story.trace_id is not None:
        yield _field("trace", story.trace_id)
    elif run.trace_id is not None:
        yield _field("trace of run", run.trace_id)


def _after(story: SampleStory, run: RecordedRun, is_ambiguous: bool) -> Iterator[str]:
    """Yield the commands that tell more about a sample."""
    if story.dead_letter is not None:
        options = ["--pipeline", story.pipeline] if is_ambiguous else []
        yield following("forge dlq show", story.id, options=options)
    if story.trace_id is not None:
        yield next_commands.waterfall(story.trace_id)
    elif run.trace_id is not None and story.steps:
        yield next_commands.waterfall(story.id)
    if not story.steps and story.status_run_id not in (None, "", run.id):
        yield following("forge show", story.status_run_id[:8], story.id)
    if story.parent is not None:
        yield following("forge show", run.id[:8], story.parent)


def _field(name: str, text: str, style: str = "") -> Block:
    return Paragraph([Span(f"{name:<13}", "dim"), Span(text, style)])


def _outcome(run: RecordedRun) -> Span:
    """Return the outcome of a run, or its state without an end."""
    if run.is_stalled:
        return Span("active, stalled", "yellow")
    word = run.outcome or run.state.value
    return Span(word, _STYLES.get(word, ""))


def _counts(run: RecordedRun) -> str:
    if run.ledger is None:
        return "-"
    return ", ".join(f"{run.ledger[name]} {name}" for name in _COUNTS if run.ledger.get(name)) or "none"


def _definition(definition: Mapping[str, Any]) -> str:
    parts = [*definition.get("stages", ()), *definition.get("measurements", ())]
    return ", ".join(f"{name} {version}" for name, version in parts) or "no stages"


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        return size(len(value))
    return shortened(json.dumps(value, ensure_ascii=False), _MAX_VALUE)


def _time(unix: float) -> str:
    return f"{datetime.fromtimestamp(unix).astimezone():%Y-%m-%d %H:%M:%S}"
