"""Environments for libraries that `forge_otel` is compared with: one for each, made on first use, outside of ours."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FORGE_NEEDS = ("fsspec", "sqlalchemy")
"""Packages that `forge` itself imports."""


class NotInstallableError(Exception):
    """A library cannot be installed here; the message is pip's."""


def python_with(packages: Sequence[str]) -> str:
    """The interpreter of the environment that has these packages, in their newest versions when it was made.

    It is named after the first of them. Remove the folder, `forge-otel/bench-PACKAGE` in the user's cache, to have it
    made again.

    Raises:
        NotInstallableError: there is no network, or no release for this Python.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "forge-otel" / f"bench-{packages[0]}"
    interpreter, ready = folder / "bin" / "python", folder / f"ready-{platform.python_version()}"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        pip = (str(interpreter), "-m", "pip", "install", "--quiet")
        _run(*pip, "--upgrade", "pip")  # that of an older Python looks for minutes for what fits together
        _run(*pip, *packages, *FORGE_NEEDS)
        ready.touch()
    return str(interpreter)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstallableError((done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1])
