"""The commands `forge-otel semconv check` and `forge-otel semconv verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .command import SETTINGS, Group, command, json_option
from .errors import CommandError


@click.group("semconv", cls=Group, context_settings=SETTINGS)
def semconv() -> None:
    """Check registries, and verify telemetry against them.

    A registry defines spans, metrics, events and attributes. It is a directory of YAML files in OpenTelemetry Weaver's
    format definition/2.
    """


@command("check", extra="semconv")
@click.argument("directory", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@json_option
def check_registry(*, directory: Path | None, as_json: bool) -> int:
    """Check a registry's files, references, names and units.

    Prints every finding as FILE:LINE: RULE: MESSAGE. DIR is a folder with manifest.yaml (default: Forge's registry).

    Exit codes: 0 without findings, 1 with findings, 2 if there is no registry.
    """
    from ..checker.check import check  # noqa: PLC0415
    from ..checker.findings import NoRegistryError  # noqa: PLC0415

    try:
        report = check(_directory(directory))
    except NoRegistryError as error:
        raise CommandError(str(error)) from None
    _print(report.to_json() if as_json else report.text())
    return 1 if report.findings else 0


@command("verify", extra="semconv")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--registry",
    type=click.Path(path_type=Path),
    metavar="DIR",
    show_default="Forge's registry",
    help="Registry to verify against.",
)
@json_option
def verify_telemetry(*, files: tuple[Path, ...], registry: Path | None, as_json: bool) -> int:
    """Verify telemetry against a registry.

    Reads traces, metrics or logs as OTLP/JSON, one export request per line, also as .gz or .zst, and prints every
    deviation from the registry.

    Exit codes: 0 without deviations, 1 with deviations, 2 if a file or the registry cannot be read.
    """
    from ..checker.findings import NoRegistryError, RegistryError  # noqa: PLC0415
    from ..checker.load import load  # noqa: PLC0415
    from ..checker.verify import verify  # noqa: PLC0415

    try:
        report = verify(load(_directory(registry)), files)
    except NoRegistryError as error:
        raise CommandError(f"--registry {error}") from None
    except RegistryError as error:
        raise CommandError(_refer(len(error.findings), registry)) from None
    except IsADirectoryError as error:
        raise CommandError(f"{error.filename}: a directory; name the files in it: {error.filename}/*.jsonl") from None
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from None
    _print(report.to_json() if as_json else report.text())
    return 1 if report.findings else 0


semconv.add_command(check_registry)
semconv.add_command(verify_telemetry)


def _directory(directory: Path | None) -> Path:
    """Return the directory of the registry; Forge's as a relative path if possible, since findings repeat it."""
    from ..checker.load import REGISTRY  # noqa: PLC0415

    if directory is not None:
        return directory
    return REGISTRY.relative_to(Path.cwd()) if REGISTRY.is_relative_to(Path.cwd()) else REGISTRY


def _refer(findings: int, directory: Path | None) -> str:
    command = " ".join(["forge-otel semconv check", *([str(directory)] if directory else [])])
    return f"the registry has errors ({findings}): `{command}` lists them"


def _print(output: str | dict[str, Any]) -> None:
    text = output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)
    print(text)  # noqa: T201 - this is a command
