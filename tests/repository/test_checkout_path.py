"""The test suite passes in a checkout of whatever path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .checkout import ROOT, run

PATHS = (
    "tests/forge_otel/signals/test_exceptions.py",
    "tests/forge/pipeline/test_code.py",
    "tests/commands/test_cli.py",
)
"""Tests that print paths, or look for words in what has paths in it."""


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("name", ["one ü dir", "no error"])
def test_tests_pass_in_a_checkout_whose_path_has_spaces_letters_and_words(tmp_path: Path, name: str) -> None:
    checkout = tmp_path / name
    cloned = run("git", "clone", "--quiet", "--no-hardlinks", ROOT, checkout)
    assert cloned.returncode == 0, cloned.stderr
    environment = {"PYTHONPATH": str(checkout / "src")}

    where = run(sys.executable, "-c", "import forge, forge_otel; print(forge.__file__)", cwd=checkout, **environment)
    assert Path(where.stdout.strip()) == checkout / "src/forge/__init__.py", where.stderr

    options = ("-q", "--tb=short", "-p", "no:cacheprovider", "-m", "not slow")
    done = run(sys.executable, "-m", "pytest", *options, *PATHS, cwd=checkout, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
