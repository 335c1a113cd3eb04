"""The `forge-otel` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ._version import __version__

USAGE_ERROR = 2
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        # Here, because they need the extra `demo`, and telling its absence must not.
        from .demo.command import demo  # noqa: PLC0415
        from .demo.errors import DemoError  # noqa: PLC0415

        try:
            return demo(options)
        except DemoError as error:
            return _complain(str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("forge", "forge_otel"):
            raise
        return _complain(f"{error.name} is not installed: pip install 'forge-otel[demo]'")
    except KeyboardInterrupt:
        return INTERRUPTED


def _complain(message: str) -> int:
    print(f"forge-otel demo: {message}", file=sys.stderr)  # noqa: T201 - this is a command
    return USAGE_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="forge-otel", description="Telemetry for Forge pipelines.")
    parser.add_argument("--version", action="version", version=f"forge-otel {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="run a pipeline on real files and see its telemetry",
        description="Makes a dataset of source code: Python files become functions and classes, labelled by a service, "
        "measured and stored. Its telemetry goes to DIR/telemetry/{traces,metrics,logs}.jsonl, which each start "
        "writes anew. A second start finds what the first one finished.",
    )
    demo.add_argument(
        "--input", type=Path, metavar="DIR", help="a folder with Python files (the standard library of this Python)"
    )
    demo.add_argument(
        "--limit", type=_positive, default=500, metavar="N", help="at most so many files, spread over it (500)"
    )
    demo.add_argument("--storage", metavar="URL", help="sqlite:///FILE or postgresql://… (SQLite in --out)")
    demo.add_argument(
        "--otlp",
        metavar="ENDPOINT",
        help="send the telemetry there as well: gRPC to port 4317, HTTP with protobuf to any other",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="the folder for all results (demo-out)"
    )
    demo.add_argument(
        "--rerun", action="store_true", help="do finished samples again; measurements come from the cache"
    )
    demo.add_argument("--json", action="store_true", help="print the summary as one JSON document")
    demo.add_argument(
        "--prometheus",
        type=_port,
        metavar="PORT",
        help="serve the metrics on this port of 127.0.0.1, also after the end until they were fetched once",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, from 0 (any free one) to 65535")
    return number


if __name__ == "__main__":
    sys.exit(main())
