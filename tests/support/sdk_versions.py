"""Running a test module once more on other SDKs: the oldest that is supported, and one between it and the newest."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
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
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "forge-otel-tests" / f"sdk-{sdk}-runs-python-{sys.version_info.major}.{sys.version_info.minor}"
    python, ready = folder / "bin" / "python", folder / "ready"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be making it
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", *wanted]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            if done.returncode:
                lacking(f"needs a package index: pip install {' '.join(wanted)}", why=done.stderr)
            ready.touch()
    return python
