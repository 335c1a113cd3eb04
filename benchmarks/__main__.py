"""The overhead of the telemetry and of the runners, measured in turns on this machine: `make bench`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from tools.browser import INSTALL

from . import calls, goals, pipelines, report, runner, spans, tables, trace_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.max < min(pipelines.SIZES):
        parser.error(f"--max {options.max}: must be at least {min(pipelines.SIZES)}")
    if options.quick and options.save:
        parser.error("--save keeps what the documentation is written from: measure without --quick")
    if options.what == "report":
        return report.write()
    results = _measured(options)
    if options.what == "page" and not results:
        parser.error(f"page: needs Chromium: {INSTALL}")
    if options.save:
        report.save(results)
    if options.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        show(results, Console())
    return report.write() if options.save and options.what == "all" else 0


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for; what cannot be measured here is left out."""
    with Console(stderr=True).status("") as status:
        how: dict[str, Any] = {"quick": options.quick, "progress": status.update}
        measures: dict[tuple[str, str], Callable[[], dict[str, Any] | None]] = {
            ("calls", "calls"): lambda: calls.measure(**how),
            ("spans", "spans"): lambda: spans.measure(**how),
            ("minimal", "minimal"): lambda: pipelines.measure_minimal(**how),
            ("pipeline", "pipelines"): lambda: pipelines.measure(largest=options.max, **how),
            ("runner", "runner"): lambda: runner.measure(**how),
            ("page", "page"): lambda: trace_page.measure(**how),
        }
        wanted = {section: measure() for (what, section), measure in measures.items() if options.what in ("all", what)}
    return {section: results for section, results in wanted.items() if results is not None}


def show(results: dict[str, Any], console: Console) -> None:
    """Print the results for people: each section with what it depends on, and the goals that it can tell about."""
    for name, (_, of) in report.TABLES.items():
        if name not in results:
            continue
        for table in of(results[name]):
            _show(table, console)
        console.print()
        console.print(report.circumstances(results[name]), style="dim", highlight=False)
    _show(goals.table(results), console)


def _show(table: tables.Table, console: Console) -> None:
    if not table.rows:
        return
    shown = RichTable(box=None, padding=(0, 2 if console.width >= 100 else 1, 0, 0), header_style="dim")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
    for row in table.rows:
        ours = row[0].startswith(("forge_otel", "StreamingRunner", "BatchRunner"))
        shown.add_row(*row, style="bold" if ours else None)
    console.print()
    console.print(table.title, style="bold", highlight=False)
    console.print(shown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=("all", "calls", "spans", "minimal", "pipeline", "runner", "page", "report"),
        default="all",
        help="calls: of a stage, against other libraries; spans: made and exported; minimal: runs of a pipeline that "
        "only waits; pipeline: other whole runs; runner: samples through empty stages, against other ways; "
        "page: the page of a run in a browser; report: write docs/performance.md from the results that were saved",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a first impression: few repetitions, and no other libraries"
    )
    parser.add_argument(
        "--max",
        type=int,
        default=pipelines.USUAL,
        metavar="N",
        help=f"run pipelines of up to so many samples ({pipelines.USUAL})",
    )
    parser.add_argument(
        "--full", dest="max", action="store_const", const=max(pipelines.SIZES), help="the same as --max 1000000"
    )
    parser.add_argument(
        "--save",
        action="store_true",
        help="keep the results in benchmarks/results.json; if all are measured, write docs/performance.md as well",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
