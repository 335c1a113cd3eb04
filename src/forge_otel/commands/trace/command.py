"""The commands `forge-otel trace …`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..command import SETTINGS, Group, command, json_option, positive
from ..pages import pages_options

DEFAULT_LIMIT = 40
MAX_HOURS = 10 * 366 * 24
MAX_SPANS = 50_000


@click.group("trace", cls=Group, context_settings=SETTINGS)
def trace() -> None:
    """Look into traces without a backend, or in a Jaeger.

    Reads OTLP JSON, as the exporter otlp_file and the Collector write it: files, also as .gz or .zst, or folders with
    *.jsonl files. Files may be larger than the memory.
    """


_paths = click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")


def _source_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--jaeger", metavar="URL", help="Read from a Jaeger 2 instead, such as http://127.0.0.1:16686."),
        click.option(
            "--hours",
            type=click.IntRange(1, MAX_HOURS),
            default=24,
            metavar="N",
            help="With --jaeger: how far back to look.",
        ),
        click.option(
            "--traces", type=positive, default=20, metavar="N", help="With --jaeger: how many traces at most."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@command("waterfall")
@click.argument("target", metavar="SAMPLE|TRACE|RUN")
@_paths
@click.option(
    "--trace", "trace_id", default="", show_default=False, metavar="ID", help="Take the sample of this trace."
)
@click.option("--limit", type=positive, default=DEFAULT_LIMIT, metavar="N", help="Maximum number of spans of a trace.")
@click.option("--stacks", is_flag=True, show_default=False, help="Print whole stack traces.")
@_source_options
@pages_options
@json_option
def waterfall(
    *, target: str, paths: tuple[Path, ...], trace_id: str, limit: int, stacks: bool, as_json: bool, **options: Any
) -> None:
    """Show what happened to a sample, or in a trace, over time.

    Takes the id of a sample, or the beginning of the id of a trace or a run, and PATHs (default: telemetry). A sample
    is shown whole, with its batches, log records and errors, in its latest trace; of a trace the spans that failed and
    the longest ones are shown.

    Exit codes: 0, or 2 if there is no such sample or trace.
    """
    from .trace import show_waterfall  # noqa: PLC0415

    show_waterfall(target, paths, options, trace_id=trace_id, limit=limit, stacks=stacks, as_json=as_json)


@command("top")
@_paths
@click.option("--limit", type=positive, default=10, metavar="N", help="Maximum number of rows of each table.")
@_source_options
@json_option
def top(*, paths: tuple[Path, ...], limit: int, as_json: bool, **options: Any) -> None:
    """List the slowest operations, the most errors, the longest waits.

    Counts all spans and log records of PATHs (default: telemetry). Percentiles are right within 1 %. Waits are those in
    queues, those before retries, and those of a stage for space in the next queue.

    Exit codes: 0, or 2 if there is no telemetry.
    """
    from .trace import show_top  # noqa: PLC0415

    show_top(paths, options, limit=limit, as_json=as_json)


@command("grep")
@click.argument("condition", metavar="CONDITION")
@_paths
@click.option("--limit", type=positive, metavar="N", help="Stop after so many.")
@_source_options
@json_option
def grep(*, condition: str, paths: tuple[Path, ...], limit: int | None, as_json: bool, **options: Any) -> int:
    """Print the spans and log records that meet a condition.

    A CONDITION is words, all of which must hold: KEY=VALUE with = != < <= > >=, and ~ or !~ for a regular expression;
    or any text that occurs in a name, message or value. Keys are attributes, and name, message, duration, status,
    severity, trace_id and span_id:

    \b
      forge-otel trace grep 'forge.stage.name=annotate error.type=rate_limit'
      forge-otel trace grep 'duration>1.5s status=error' telemetry

    Exit codes: 0, 1 if there is none, or 2 if the telemetry cannot be read.
    """
    from .trace import print_matches  # noqa: PLC0415

    return print_matches(condition, paths, options, limit=limit, as_json=as_json)


@command("tail")
@_paths
@click.option("--follow", "-f", is_flag=True, show_default=False, help="Go on with what is added, until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(min=0), default=20, metavar="N", help="How many to begin with.")
@click.option("--filter", "condition", default="", show_default=False, metavar="CONDITION", help="As in grep.")
@click.option("--json", "as_json", is_flag=True, show_default=False, help="Print one JSON document a line.")
def tail(*, paths: tuple[Path, ...], follow: bool, lines: int, condition: str, as_json: bool) -> int:
    """Print the last spans and log records, and those to come.

    The last ones by time in PATHs (default: telemetry), with spans at their end. With --follow files need not exist
    yet, and may be rotated.

    Exit codes: 0, 130 after Ctrl-C, or 2 if the telemetry cannot be read.
    """
    from .trace import print_last  # noqa: PLC0415

    return print_last(paths, follow=follow, lines=lines, condition=condition, as_json=as_json)


@command("page")
@_paths
@click.option(
    "--html", "file", type=click.Path(path_type=Path), default=Path("trace.html"), metavar="FILE", help="File."
)
@click.option(
    "--run", "run_id", default="", show_default=False, metavar="ID", help="A run or trace; default: the latest."
)
@click.option("--max-spans", type=positive, default=MAX_SPANS, metavar="N", help="How many spans the page has at most.")
@_source_options
@json_option
def page(*, paths: tuple[Path, ...], file: Path, run_id: str, max_spans: int, as_json: bool, **options: Any) -> None:
    """Write a page on a run that opens without a network.

    One file of HTML with all that it needs: how many samples were where over time, stages with percentiles, and samples
    with their spans, log records and errors, which can be searched. Of a run with more spans than --max-spans it has
    all counts, and the samples that failed and the slowest ones. An address with #sample=ID opens on that sample.

    Exit codes: 0, or 2 if there is no such run, or the file cannot be written.
    """
    from .trace import write_page  # noqa: PLC0415

    write_page(paths, options, file=file, run_id=run_id, max_spans=max_spans, as_json=as_json)


for _each in (waterfall, top, grep, tail, page):
    trace.add_command(_each)
