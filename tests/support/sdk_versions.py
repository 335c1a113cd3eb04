"""Environments beside that of the tests: other SDKs (the oldest that is supported, and one between it and the newest),
and packages that other tests must not see."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from .needs import lacking

OTHERS = {"1.40": "0.61b0", "1.43": "0.64b0"}
"""Versions of the SDK, each with that of the instrumentation packages of the same release."""
_HERE = "FORGE_OTEL_TESTS_ON_SDK"

on_other_sdks = pytest.mark.parametrize("sdk", OTHERS)
"""Gives the test an `sdk`: the version to run its module on."""


def run_on(sdk: str, module: str) -> None:
    """Run the tests in this file, in an environment of their own that is kept."""
    if os.environ.get(_HERE):
        pytest.skip(f"this is SDK {os.environ[_HERE]}")
    root = Path(__file__).parents[2]
    alone = ["-q", "-p", "no:cacheprovider", "--noconftest", "-c", os.devnull, "--rootdir", str(root)]
    done = subprocess.run(
        [str(_python(sdk)), "-m", "pytest", *alone, module],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", _HERE: sdk},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def _python(sdk: str) -> Path:
    wanted = (
        f"opentelemetry-sdk=={sdk}.*",
        f"opentelemetry-instrumentation=={OTHERS[sdk]}",
        *("fsspec", "pytest", "sqlalchemy", "wrapt"),
    )

    def install(folder: Path) -> list[str]:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        return [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted]

    return _kept(f"sdk-{sdk}-runs", install) / "bin" / "python"


def with_packages(*packages: str) -> Path:
    """Return a folder that has packages which are not in the environment of the tests, for `PYTHONPATH`."""

    def install(folder: Path) -> list[str]:
        return [
            sys.executable,
            *["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"],
            str(folder),
            *packages,
        ]

    return _kept("+".join(packages).replace("==", "-"), install)


def _kept(name: str, install: Callable[[Path], Sequence[str]]) -> Path:
    """Return a folder beside the user's caches, made once by the command that `install` returns."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "forge-otel-tests" / f"{name}-python-{sys.version_info.major}.{sys.version_info.minor}"
    ready = folder / "ready"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be making it
        if not ready.exists():
            command = install(folder)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lacking(f"needs a package index: {' '.join(command)}", why=done.stderr)
            ready.touch()
    return folder
