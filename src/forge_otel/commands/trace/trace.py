"""The commands `forge-otel trace …`."""

from __future__ import annotations

import heapq
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from rich.text import Text

from forge.support.formatting import size

from ...semconv import attributes as a
from .. import next_commands
from ..command import INTERRUPTED, command_path
from ..console import Output
from ..errors import CommandError
from ..pages import pages_of
from ..printing import print_next
from . import display
from . import waterfall as waterfalls
from .documents import dumps
from .filters import Filter, parse
from .records import LogRecord, Span
from .sources import DEFAULT_PATH, FileSource, Follower, Problem, Source, options_of
from .top import top
from .waterfall import outcome

_MAX_PROBLEMS: Final = 5
_POLL_SECONDS: Final = 0.5


def source_of(paths: Sequence[Path], options: Mapping[str, Any]) -> Source:
    """Return the source that the arguments name.

    Raises:
        CommandError: there is none, or there are two.
    """
    if options["jaeger"] is None:
        return FileSource(paths or (DEFAULT_PATH,))
    if paths:
        raise CommandError(f"--jaeger {options['jaeger']}: give either paths or --jaeger, not both")
    from .jaeger import JaegerSource  # noqa: PLC0415

    return JaegerSource(options["jaeger"], hours=options["hours"], max_traces=options["traces"])


def show_waterfall(
    target: str,
    paths: Sequence[Path],
    options: Mapping[str, Any],
    *,
    trace_id: str,
    limit: int,
    stacks: bool,
    as_json: bool,
) -> None:
    """Print a sample or a trace.

    Raises:
        CommandError: there is no such sample or trace, or the telemetry cannot be read.
    """
    source = source_of(paths, options)
    found = waterfalls.find(source, target, trace=trace_id, limit=limit)
    document = waterfalls.document(found, source)
    document["pages"] = pages_of(document["trace_id"], _templates(options))
    if as_json:
        print_json(document)
    else:
        display.show_waterfall(document, Output(), stacks=stacks)
        report_problems(found.problems)


def _templates(options: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the addresses of pages; a Jaeger that is read has one for each trace."""
    own = f"{options['jaeger'].rstrip('/')}/trace/{{trace_id}}" if options["jaeger"] else None
    return {"trace": options["trace_url"] or own, "logs": options["logs_url"]}


def show_top(paths: Sequence[Path], options: Mapping[str, Any], *, limit: int, as_json: bool) -> None:
    """Print the slowest operations, the most errors and the longest waits.

    Raises:
        CommandError: there is no telemetry, or it cannot be read.
    """
    source = source_of(paths, options)
    report, problems = top(source, limit)
    if not report["spans"] and not report["log_records"]:
        why = problems[0] if problems else "it is empty"
        raise CommandError(f"no spans or log records in {source.name}: {why}")
    if as_json:
        print_json(report)
    else:
        display.show_top(report, Output())
        report_problems(problems, report["unreadable"])


def print_matches(
    condition: str, paths: Sequence[Path], options: Mapping[str, Any], *, limit: int | None, as_json: bool
) -> int:
    """Print the records that meet a condition, as they are read; return the exit code.

    Raises:
        CommandError: the condition is none, or the telemetry cannot be read.
    """
    matches = parse(condition)
    source = source_of(paths, options)
    problems = _Problems()
    found = islice(_matching(source.records(), matches, problems), limit)
    count = 0
    first: Span | LogRecord | None = None
    out = Output()
    for count, record in enumerate(found, 1):
        first = first or record
        if as_json:
            before = ",\n" if count > 1 else '{"records": [\n'
            print(before + dumps(document(record, source.options)), end="")  # noqa: T201
        else:
            out.print(display.record_line(record), soft_wrap=True)
    if not problems.records:
        why = problems.first[0] if problems.first else "it is empty"
        raise CommandError(f"no spans or log records in {source.name}: {why}")
    if as_json:
        end = "\n]" if count else '{"records": []'
        print(f'{end}, "count": {count}, "unreadable": {problems.count}}}')  # noqa: T201
    else:
        if first is not None and (command := following(first, source.options)):
            out.print()
            print_next([command], out)
        report_problems(problems.first, problems.count)
    if not count:
        print(  # noqa: T201
            f"{command_path()}: none of {problems.records} records; {matches.suggestion()}".rstrip("; "),
            file=sys.stderr,
        )
    return 0 if count else 1


def print_last(paths: Sequence[Path], *, follow: bool, lines: int, condition: str, as_json: bool) -> int:
    """Print the last records, and with `follow` those that are added; return the exit code.

    Raises:
        CommandError: the condition is none, or the telemetry cannot be read.
    """
    matches = parse(condition)
    paths = paths or (DEFAULT_PATH,)
    options = options_of(paths)
    problems = _Problems()
    out = Output()

    def show(records: Iterable[Span | LogRecord]) -> None:
        for record in records:
            if as_json:
                print(dumps(document(record, options)))  # noqa: T201
            else:
                out.print(display.record_line(record), soft_wrap=True)
        sys.stdout.flush()

    if not follow:
        show(_latest(_matching(FileSource(paths).records(), matches, problems), lines))
        report_problems(problems.first, problems.count)
        return 0
    try:
        follower = Follower(paths, from_end=not lines)
        show(_latest(_matching(follower.added(), matches, problems), lines))
        while True:
            time.sleep(_POLL_SECONDS)
            show(sorted(_matching(follower.added(), matches, problems), key=_end))
            report_problems(problems.take())
    except KeyboardInterrupt:
        return INTERRUPTED


def _latest(records: Iterable[Span | LogRecord], count: int) -> list[Span | LogRecord]:
    """Return the last records by time, holding no more than these."""
    return sorted(heapq.nlargest(count, records, key=_end), key=_end)


def _end(record: Span | LogRecord) -> int:
    return record.end if isinstance(record, Span) else record.time


def write_page(
    paths: Sequence[Path], options: Mapping[str, Any], *, file: Path, run_id: str, max_spans: int, as_json: bool
) -> None:
    """Write a page on a run.

    Raises:
        CommandError: there is no such run, the telemetry cannot be read, or the file cannot be written.
    """
    from . import page  # noqa: PLC0415
    from .page_data import first_sample, page_data  # noqa: PLC0415

    source = source_of(paths, options)
    data = page_data(source, run_id, max_spans)
    page.write(page.page(data), file)
    first = first_sample(data)
    fragment = "" if first is None else f"#sample={quote(first, safe='')}"
    run, totals = data["run"], data["totals"]
    about = {
        "file": str(file),
        "size": file.stat().st_size,
        "run_id": run["id"],
        "pipeline": run["pipeline"],
        **totals,
        "next": [file.absolute().as_uri() + fragment, next_commands.show(run["id"])],
    }
    if as_json:
        print_json(about)
        return
    out = Output()
    kept = "" if totals["kept_spans"] == totals["spans"] else f", {totals['kept_spans']} of them with all details"
    pipeline = display.plain(run["pipeline"])
    out.print(
        Text(
            f"{display.plain(file)}: run {display.plain(run['id'])} of {pipeline}, {size(about['size'])}, "
            f"{totals['samples']} samples with {totals['spans']} spans{kept}"
        ),
        soft_wrap=True,
    )
    print_next(about["next"], out)
    report_problems(data["problems"])


class _Problems:
    """The records that were read, and the first lines that were not."""

    def __init__(self) -> None:
        self.records = 0
        self.count = 0
        self.first: list[str] = []

    def add(self, problem: Problem) -> None:
        self.count += 1
        if len(self.first) < _MAX_PROBLEMS:
            self.first.append(str(problem))

    def take(self) -> list[str]:
        """Return the problems since the last call."""
        first, self.first = self.first, []
        return first


def _matching(
    records: Iterable[Span | LogRecord | Problem], matches: Filter, problems: _Problems
) -> Iterator[Span | LogRecord]:
    for record in records:
        if isinstance(record, Problem):
            problems.add(record)
        else:
            problems.records += 1
            if matches(record):
                yield record


def document(record: Span | LogRecord, options: Sequence[str]) -> dict[str, Any]:
    """Return a record as a document, with the command that follows it."""
    at = record.start if isinstance(record, Span) else record.time
    about: dict[str, Any] = {
        "type": "span" if isinstance(record, Span) else "log_record",
        "time": round(at / 1e9, 6),
        "name": record.name or None,
    }
    if isinstance(record, Span):
        about |= {"duration": record.duration, "outcome": outcome(record.attributes), "error": waterfalls.error(record)}
    else:
        about |= {"severity": record.severity or None, "body": record.body}
    return {
        **about,
        "trace_id": record.trace_id or None,
        "span_id": record.span_id or None,
        "service": record.resource.get("service.name"),
        "attributes": dict(record.attributes),
        "next": following(record, options),
    }


def following(record: Span | LogRecord, options: Sequence[str]) -> str | None:
    """Return the command that shows the sample, or else the trace, of a record."""
    sample = record.attributes.get(a.FORGE_SAMPLE_ID)
    target = record.trace_id if sample is None else str(sample)
    return next_commands.waterfall(target, options) if target else None


def print_json(value: Any) -> None:
    """Print a document."""
    print(dumps(value, indent=2))  # noqa: T201


def report_problems(problems: Sequence[str], count: int | None = None) -> None:
    """Print the first lines that could not be read."""
    shown = problems[:_MAX_PROBLEMS]
    for problem in shown:
        print(f"{command_path()}: skipped: {problem}", file=sys.stderr)  # noqa: T201
    more = (len(problems) if count is None else count) - len(shown)
    if more > 0:
        print(f"{command_path()}: skipped: {more} more lines", file=sys.stderr)  # noqa: T201
