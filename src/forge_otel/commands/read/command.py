"""The command `forge-otel read`."""

from __future__ import annotations

from pathlib import Path

import click

from ..command import command, json_option, positive
from ..pages import pages_options


@command("read", extra="auto")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@click.option("--limit", type=positive, default=20, metavar="N", help="Maximum number of spans of each trace.")
@pages_options
@json_option
def read(*, paths: tuple[Path, ...], limit: int, trace_url: str | None, logs_url: str | None, as_json: bool) -> int:
    """Show telemetry in files: traces, counts, failures.

    Reads OTLP JSON, as the exporter otlp_file and the Collector write it: files, also as .gz or .zst, or folders with
    *.jsonl files (default: telemetry). Prints the latest traces as trees, the counts of each stage from the metrics,
    the slowest spans, and the failures with their messages, each with the command that shows more of it.

    Exit codes: 0, or 2 if there is no telemetry.
    """
    from .read import read_files  # noqa: PLC0415

    pages = {"trace": trace_url, "logs": logs_url}
    return read_files(paths or (Path("telemetry"),), limit=limit, pages=pages, as_json=as_json)
