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
from .errors import CommandError

USAGE_ERROR = 2
INTERRUPTED = 130
PIPE_CLOSED = 141
"""What a shell reports for a program that SIGPIPE ended."""


@dataclass(frozen=True, slots=True)
class _Command:
    """What a command runs. It is imported late: it needs an extra, and telling its absence must not."""

    name: str
    """With the program's, as in its own help."""
    module: str
    function: str
    extra: str

    def run(self, options: argparse.Namespace) -> int:
        code: int = getattr(import_module(self.module, __package__), self.function)(options)
        return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
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
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough. Python would complain when it closes the pipe at its end.
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
    _add_semconv(commands)
    _add_statsd_bridge(commands)
    _add_doctor(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="run a pipeline on real files and see its telemetry",
        description="Makes a dataset of source code: Python files become functions and classes, labelled by a service, "
        "measured and stored. Its telemetry goes to DIR/telemetry/{traces,metrics,logs}.jsonl, which each start "
        "writes anew. A second start finds what the first one finished.",
    )
    demo.add_argument(
        "--pipeline",
        choices=("corpus", "labels"),
        default="corpus",
        help="corpus: source code, as above; labels: a language model labels and embeds the documentation of modules, "
        "asked of a server on this machine (corpus)",
    )
    demo.add_argument(
        "--input", type=Path, metavar="DIR", help="a folder with Python files (the standard library of this Python)"
    )
    demo.add_argument(
        "--limit", type=_positive, default=500, metavar="N", help="at most so many files, spread over it (500)"
    )
    demo.add_argument(
        "--max-cost", type=_dollars, metavar="USD", help="stop when so much is spent; for --pipeline labels"
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
    demo.set_defaults(command=_Command(demo.prog, ".demo.command", "demo", "demo"))


def _add_semconv(commands: Any) -> None:
    semconv = commands.add_parser(
        "semconv",
        help="work with the registry of telemetry names",
        description="The registry says what telemetry is called and what it has: spans, metrics, events, attributes. "
        "It is a directory of YAML files in OpenTelemetry Weaver's format definition/2.",
    )
    actions = semconv.add_subparsers(title="commands", metavar="COMMAND", required=True)

    check = actions.add_parser(
        "check",
        help="check a registry's files, references, names and units",
        description="Checks a registry and prints every finding as FILE:LINE: RULE: MESSAGE. "
        "Exit code 0 without findings, 1 with some, 2 where there is no registry.",
    )
    check.add_argument(
        "directory", nargs="?", type=Path, metavar="DIR", help="a folder with manifest.yaml (the registry of Forge)"
    )
    check.add_argument("--json", action="store_true", help="print the findings as one JSON document")
    check.set_defaults(command=_Command(check.prog, ".semconv", "check_registry", "semconv"))

    verify = actions.add_parser(
        "verify",
        help="compare telemetry with a registry",
        description="Reads OTLP/JSON, one export request in a line, and prints every deviation from the registry. "
        "Exit code 0 without deviations, 1 with some, 2 where a file or the registry cannot be read.",
    )
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="traces, metrics or logs; may be .gz")
    verify.add_argument("--registry", type=Path, metavar="DIR", help="another registry than that of Forge")
    verify.add_argument("--json", action="store_true", help="print the deviations as one JSON document")
    verify.set_defaults(command=_Command(verify.prog, ".semconv", "verify_telemetry", "semconv"))


def _add_statsd_bridge(commands: Any) -> None:
    bridge = commands.add_parser(
        "statsd-bridge",
        help="take metrics by OTLP/HTTP and send them to StatsD",
        description="For the Collector, which has no exporter for StatsD: takes OTLP at /v1/metrics, as protobuf or "
        "JSON, and sends it on. Answers at /health, and has its own metrics at /metrics. Where StatsD is, and what it "
        "understands, is in the variables STATSD_HOST, STATSD_PORT and FORGE_OTEL_STATSD_*. Stops at SIGTERM.",
    )
    bridge.add_argument("--host", default="127.0.0.1", help="the address to listen at (127.0.0.1)")
    bridge.add_argument("--port", type=_port, default=4319, help="the port, 0 for any free one (4319)")
    bridge.add_argument(
        "--max-body",
        type=_positive,
        default=4 * 1024 * 1024,
        metavar="BYTES",
        help="the most bytes of a request, also when unpacked (4 MiB)",
    )
    bridge.add_argument(
        "--max-requests", type=_positive, default=32, metavar="N", help="at most so many requests at once (32)"
    )
    bridge.set_defaults(command=_Command(bridge.prog, ".statsd_bridge", "run", "statsd-bridge"))


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="see what telemetry a pipeline started here would have",
        description="Does what opentelemetry-instrument does at the start of a process, and says what came of it: "
        "what is instrumented, the settings, what the sampler does, where traces, metrics and logs go. Run it with "
        "the variables of your pipeline. Exit code 0, or 1 where some telemetry would not arrive.",
    )
    doctor.add_argument(
        "--send",
        action="store_true",
        help="run a pipeline of two samples, forge-otel-doctor, and send its telemetry to where yours goes",
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as one JSON document")
    doctor.set_defaults(command=_Command(doctor.prog, ".doctor.command", "doctor", "auto"))


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
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
