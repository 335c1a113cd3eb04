"""The programs `forge-otel` and `forge`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from .. import __version__
from . import command
from .dead_letters.command import dlq
from .demo.command import demo
from .diff.command import diff
from .doctor.command import doctor
from .new.command import new
from .processes.command import ps
from .read.command import read
from .run.command import run
from .runs.command import runs
from .runs.show import show
from .semconv import semconv
from .statsd_bridge import statsd_bridge
from .trace.command import trace

PIPELINES: tuple[click.Command, ...] = (new, run, ps, runs, show, diff, dlq)
"""Commands for pipelines, which need no telemetry: those of `forge`."""

TELEMETRY: tuple[click.Command, ...] = (demo, read, trace, semconv, statsd_bridge, doctor)
"""Commands for telemetry, which `forge-otel` has as well."""


@click.group("forge-otel", cls=command.Group, context_settings=command.SETTINGS)
@click.version_option(__version__, prog_name="forge-otel", message="%(prog)s %(version)s")
def forge_otel() -> None:
    """Forge pipelines and their telemetry."""


@click.group("forge", cls=command.Group, context_settings=command.SETTINGS)
@click.version_option(__version__, prog_name="forge", message="%(prog)s %(version)s")
def forge() -> None:
    """Forge pipelines: their runs and samples."""


for _each in PIPELINES:
    forge.add_command(_each)
for _each in (*TELEMETRY, *PIPELINES):
    forge_otel.add_command(_each)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `forge-otel`; return its exit code."""
    return command.main(forge_otel, arguments)


def main_forge(arguments: Sequence[str] | None = None) -> int:
    """Run `forge`; return its exit code."""
    return command.main(forge, arguments)


if __name__ == "__main__":
    sys.exit(main())
