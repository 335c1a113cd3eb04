"""The real programs that tests run: a Collector, Prometheus and others, found or built by ``tools/stack``."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from .needs import lacking

STACK = Path(__file__).parents[2] / "tools" / "stack"

# As it was before the tests took the variables with our prefix away: they say where the programs are.
_ENVIRONMENT = dict(os.environ)


def tool(name: str) -> Path:
    """The path of a program, by its name in ``tools/stack``; without it the test skips, or fails under ``CI=true``."""
    path, problem = _find(name)
    if path is None:
        lacking(problem)
    return path


@functools.cache
def _find(name: str) -> tuple[Path | None, str]:
    command = [sys.executable, str(STACK), "--find", name]
    found = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    if found.returncode == 2:
        raise ValueError(found.stderr)
    if found.returncode != 0:
        return None, f"{found.stderr.strip()} (all of them: make stack-tools)"
    return Path(found.stdout.strip()), ""
