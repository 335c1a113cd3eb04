"""A run of all tests fails where nothing emits a part of the vocabulary, however many processes run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = """
from pathlib import Path
from tests.support.coverage import Coverage

def pytest_configure(config):
    config.pluginmanager.register(Coverage(Path(__file__).parent))
"""
TESTS = {
    "test_one.py": """
from tests.support import vocabulary

def test_emits_the_half() -> None:
    everything = list(vocabulary.elements(vocabulary.registry()))
    vocabulary.SEEN.update(each for each in everything[::2] if each.name != "forge.stage.batch")
""",
    "test_other.py": """
from tests.support import vocabulary

def test_emits_the_other_half() -> None:
    everything = list(vocabulary.elements(vocabulary.registry()))
    vocabulary.SEEN.update(each for each in everything[1::2] if each.name != "forge.stage.batch")
    vocabulary.NOT_YET = {}

def test_changes_nothing() -> None:
    pass
""",
}
MISSED = "no test emits span forge.stage.batch\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {"conftest.py": CONFTEST, **TESTS}.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "."],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "2"])
def test_all_tests(folder: Path, processes: str) -> None:
    done = run(folder, "--numprocesses", processes)

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert MISSED in done.stdout
    assert "no test emits span forge.stage\n" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("some", [["-k", "half"], ["--deselect", "test_other.py::test_changes_nothing"]])
def test_some_tests(folder: Path, some: list[str]) -> None:
    done = run(folder, *some)

    assert (done.returncode, MISSED in done.stdout) == (0, False)
