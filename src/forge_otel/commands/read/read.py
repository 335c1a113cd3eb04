"""Report on telemetry in files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..command import command_path
from ..errors import CommandError
from ..pages import pages_of
from ..trace.documents import dumps
from ..trace.sources import find_files, options_of
from .display import render
from .records import read
from .report import METRICS, report

_MAX_PROBLEMS = 5


def read_files(paths: Sequence[Path], *, limit: int, pages: Mapping[str, str | None], as_json: bool) -> int:
    """Print a report on telemetry in files; return the exit code.

    Raises:
        CommandError: there is no telemetry, or a file cannot be read.
    """
    files = find_files(paths)
    try:
        telemetry = read(files, METRICS)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from None
    if telemetry.is_empty:
        why = f"{telemetry.problems[0]}" if telemetry.problems else "the files are empty"
        raise CommandError(f"no telemetry in {', '.join(map(str, paths))}: {why}")
    document = report(telemetry, limit=limit, source=options_of(paths))
    for each in document["traces"]:
        each["pages"] = pages_of(each["trace_id"], pages)
    if as_json:
        print(dumps(document, indent=2))  # noqa: T201 - this is a command
        return 0
    print(render(document, styled=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))  # noqa: T201
    _print_problems(telemetry.problems)
    return 0


def _print_problems(problems: Sequence[str]) -> None:
    for problem in problems[:_MAX_PROBLEMS]:
        print(f"{command_path()}: skipped: {problem}", file=sys.stderr)  # noqa: T201
    if len(problems) > _MAX_PROBLEMS:
        print(f"{command_path()}: skipped: {len(problems) - _MAX_PROBLEMS} more lines", file=sys.stderr)  # noqa: T201
