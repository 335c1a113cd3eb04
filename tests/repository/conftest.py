"""Fixtures of the tests of the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .checkout import ROOT, copied


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation's site, built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository with the checkout's files in one commit, and with its virtual environment."""
    return copied(tmp_path)
