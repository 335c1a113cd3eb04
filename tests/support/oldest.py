"""Running a test module once more on the oldest SDK that is supported."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .needs import lacking

OLDEST = ("opentelemetry-sdk==1.40.*", "opentelemetry-instrumentation==0.61b0", "wrapt", "pytest")
_HERE = "FORGE_OTEL_TESTS_ON_OLDEST"


def run_on_oldest(module: str) -> None:
    """Run the tests in this file, in an environment of their own that is kept."""
    if os.environ.get(_HERE):
        pytest.skip("this is the oldest SDK")
    root = Path(__file__).parents[2]
    alone = ["-q", "-p", "no:cacheprovider", "--noconftest", "-c", os.devnull, "--rootdir", str(root)]
    done = subprocess.run(
        [str(_python()), "-m", "pytest", *alone, module],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src"), _HERE: "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def _python() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "forge-otel-tests" / f"sdk-1.40-python-{sys.version_info.major}.{sys.version_info.minor}"
    python, ready = folder / "bin" / "python", folder / "ready"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be making it
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", *OLDEST]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            if done.returncode:
                lacking(f"needs a package index: pip install {' '.join(OLDEST)}", why=done.stderr)
            ready.touch()
    return python
