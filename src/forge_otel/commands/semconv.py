"""`forge-otel semconv`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..checker.check import check
from ..checker.findings import NoRegistryError, RegistryError
from ..checker.load import REGISTRY, load
from ..checker.verify import verify
from .errors import CommandError


def check_registry(options: Namespace) -> int:
    """Check a registry; return the exit code: 1 with findings.

    Raises:
        CommandError: there is no registry.
    """
    try:
        report = check(_directory(options.directory))
    except NoRegistryError as error:
        raise CommandError(str(error)) from None
    _print(report.to_json() if options.json else report.text())
    return 1 if report.findings else 0


def verify_telemetry(options: Namespace) -> int:
    """Verify telemetry; return the exit code: 1 with deviations.

    Raises:
        CommandError: a file cannot be read, or the registry cannot be used.
    """
    try:
        report = verify(load(_directory(options.registry)), options.files)
    except NoRegistryError as error:
        raise CommandError(f"--registry {error}") from None
    except RegistryError as error:
        raise CommandError(_refer(error, options.registry)) from None
    except IsADirectoryError as error:
        raise CommandError(f"{error.filename}: a directory; name the files in it: {error.filename}/*.jsonl") from None
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from None
    _print(report.to_json() if options.json else report.text())
    return 1 if report.findings else 0


def _directory(directory: Path | None) -> Path:
    """Return the directory of the registry; Forge's as a relative path if possible, since findings repeat it."""
    if directory is not None:
        return directory
    return REGISTRY.relative_to(Path.cwd()) if REGISTRY.is_relative_to(Path.cwd()) else REGISTRY


def _refer(error: RegistryError, directory: Path | None) -> str:
    command = " ".join(["forge-otel semconv check", *([str(directory)] if directory else [])])
    return f"the registry has errors ({len(error.findings)}): `{command}` lists them"


def _print(output: str | dict[str, Any]) -> None:
    text = output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)
    print(text)  # noqa: T201 - this is a command
