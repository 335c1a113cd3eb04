"""The `forge-otel` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from .._version import __version__
from ..config.fields import MAX_COUNT
from .errors import CommandError

USAGE_ERROR = 2
INTERRUPTED = 130
PIPE_CLOSED = 141
"""The exit code that shells report for a program killed by SIGPIPE."""


@dataclass(frozen=True, slots=True)
class _Command:
    """A command's function, imported late: it needs an extra, and reporting its absence must not."""

    name: str
    """The name with that of the program, as in its help."""
    module: str
    function: str
    extra: str

    def run(self, options: argparse.Namespace) -> int:
        code: int = getattr(import_module(self.module, __package__), self.function)(options)
        return code


class _Parser(argparse.ArgumentParser):
    """A parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    command: _Command = options.command
    try:
        code = command.run(options)
        sys.stdout.flush()
    except CommandError as error:
        return _report_error(command, str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("forge", "forge_otel"):
            raise
        return _report_error(command, f"{error.name} is not installed: pip install 'forge-otel[{command.extra}]'")
    except KeyboardInterrupt:
        print(f"{command.name}: interrupted; run it again to start over", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe. Without this, Python would report it again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code


def _report_error(command: _Command, message: str) -> int:
    print(f"{command.name}: {message}", file=sys.stderr)  # noqa: T201 - this is a command
    return USAGE_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="forge-otel", description="Telemetry for Forge pipelines.")
    parser.add_argument("--version", action="version", version=f"forge-otel {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_read(commands)
    _add_semconv(commands)
    _add_statsd_bridge(commands)
    _add_doctor(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="run a pipeline on real files and view its telemetry",
        description="Builds a dataset of source code: splits Python files into functions and classes, labels them with "
        "a service, measures and stores them. Writes the telemetry to DIR/telemetry/{traces,metrics,logs}.jsonl, "
        "replacing the files of earlier runs. A second run skips the samples that the first one finished. "
        "Exit codes: 0 if no sample failed, 1 if the run failed, 3 if some samples failed, 4 if too many did, 128 plus "
        "the signal that ended it.",
    )
    demo.add_argument(
        "--pipeline",
        choices=("corpus", "labels"),
        default="corpus",
        help="corpus: source code, as above; labels: documentation of modules, labelled and embedded by a language "
        "model that a server on this machine simulates (default: corpus)",
    )
    demo.add_argument(
        "--input", type=Path, metavar="DIR", help="folder with Python files (default: Python's standard library)"
    )
    demo.add_argument(
        "--limit",
        type=_positive,
        default=500,
        metavar="N",
        help="maximum number of files, spread over the input (default: 500)",
    )
    demo.add_argument(
        "--max-cost", type=_dollars, metavar="USD", help="stop at this amount of costs; for --pipeline labels"
    )
    demo.add_argument("--storage", metavar="URL", help="sqlite:///FILE or postgresql://… (default: SQLite in --out)")
    demo.add_argument(
        "--otlp",
        metavar="ENDPOINT",
        help="also send the telemetry to this endpoint: by gRPC to port 4317, by HTTP with protobuf to any other",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="folder for all results (default: demo-out)"
    )
    demo.add_argument(
        "--rerun", action="store_true", help="process finished samples again; measurements come from the cache"
    )
    demo.add_argument("--json", action="store_true", help="print the summary as one JSON document")
    demo.add_argument(
        "--prometheus",
        type=_port,
        metavar="PORT",
        help="serve the metrics on this port of 127.0.0.1, after the end of the run until they are scraped once",
    )
    demo.set_defaults(command=_Command(demo.prog, ".demo.command", "demo", "demo"))


def _add_read(commands: Any) -> None:
    read = commands.add_parser(
        "read",
        help="show the telemetry in files: traces, counts, failures, the slowest spans",
        description="Reads OTLP JSON, as the exporter otlp_file and the Collector write it. Prints the latest traces "
        "as trees, the counts of each stage from the metrics, the slowest spans, and the failures with their messages. "
        "Exit codes: 0, or 2 if there is no telemetry.",
    )
    read.add_argument(
        "paths",
        nargs="*",
        type=Path,
        default=[Path("telemetry")],
        metavar="PATH",
        help="files, also as .gz, or folders with *.jsonl files (default: telemetry)",
    )
    read.add_argument("--trace", default="", metavar="ID", help="show this trace only, with all of its spans")
    read.add_argument(
        "--limit", type=_positive, default=20, metavar="N", help="maximum number of spans of each trace (default: 20)"
    )
    read.add_argument("--json", action="store_true", help="print the report as one JSON document")
    read.set_defaults(command=_Command(read.prog, ".read.command", "read_files", "auto"))


def _add_semconv(commands: Any) -> None:
    semconv = commands.add_parser(
        "semconv",
        help="check registries of telemetry, and verify telemetry against them",
        description="A registry defines spans, metrics, events and attributes. It is a directory of YAML files in "
        "OpenTelemetry Weaver's format definition/2.",
    )
    actions = semconv.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = actions.add_parser(
        "check",
        help="check a registry's files, references, names and units",
        description="Checks a registry and prints every finding as FILE:LINE: RULE: MESSAGE. "
        "Exit codes: 0 without findings, 1 with findings, 2 if there is no registry.",
    )
    check.add_argument(
        "directory", nargs="?", type=Path, metavar="DIR", help="folder with manifest.yaml (default: Forge's registry)"
    )
    check.add_argument("--json", action="store_true", help="print the findings as one JSON document")
    check.set_defaults(command=_Command(check.prog, ".semconv", "check_registry", "semconv"))

    verify = actions.add_parser(
        "verify",
        help="verify telemetry against a registry",
        description="Reads OTLP/JSON, one export request per line, and prints every deviation from the registry. "
        "Exit codes: 0 without deviations, 1 with deviations, 2 if a file or the registry cannot be read.",
    )
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="traces, metrics or logs, also as .gz")
    verify.add_argument("--registry", type=Path, metavar="DIR", help="registry (default: Forge's registry)")
    verify.add_argument("--json", action="store_true", help="print the deviations as one JSON document")
    verify.set_defaults(command=_Command(verify.prog, ".semconv", "verify_telemetry", "semconv"))


def _add_statsd_bridge(commands: Any) -> None:
    bridge = commands.add_parser(
        "statsd-bridge",
        help="receive metrics by OTLP/HTTP and send them to StatsD",
        description="For the Collector, which has no StatsD exporter: receives OTLP at /v1/metrics, as protobuf or "
        "JSON, and forwards it. Serves /health, and its own metrics at /metrics. Configured by the environment "
        "variables STATSD_HOST, STATSD_PORT and FORGE_OTEL_STATSD_*. Stops at SIGTERM.",
    )
    bridge.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    bridge.add_argument("--port", type=_port, default=4319, help="port, 0 for any free one (default: 4319)")
    bridge.add_argument(
        "--max-body",
        type=_positive,
        default=4 * 1024 * 1024,
        metavar="BYTES",
        help="maximum size of a request, also after decompression (default: 4 MiB)",
    )
    bridge.add_argument(
        "--max-requests", type=_positive, default=32, metavar="N", help="maximum concurrent requests (default: 32)"
    )
    bridge.add_argument(
        "--max-connections", type=_positive, default=512, metavar="N", help="maximum connections (default: 512)"
    )
    bridge.set_defaults(command=_Command(bridge.prog, ".statsd_bridge", "run", "statsd-bridge"))


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="diagnose the telemetry of pipelines in this environment",
        description="Starts like a process under opentelemetry-instrument, and reports the result: the instrumented "
        "functions, the settings, the effect of the sampler, the destinations of traces, metrics and logs. Run it with "
        "the environment variables of your pipeline. Exit codes: 0, or 1 if some telemetry would be lost.",
    )
    doctor.add_argument(
        "--send",
        action="store_true",
        help="run a pipeline of two samples, forge-otel-doctor, and send its telemetry to the configured destinations",
    )
    doctor.add_argument(
        "--storage", metavar="URL", help="report the schema version of the database at this URL as well"
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as one JSON document")
    doctor.set_defaults(command=_Command(doctor.prog, ".doctor.command", "doctor", "auto"))


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MAX_COUNT}")
    return number


def _dollars(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(0)
    if not amount.is_finite() or not 0 < amount < 10**15:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of US dollars above 0")
    return amount


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, from 0 (any free one) to 65535")
    return number


if __name__ == "__main__":
    sys.exit(main())
