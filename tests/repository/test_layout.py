"""The folders as the architecture page shows them, and the arrows between them as `make lint` checks them.

An import that leads back is found.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = "forge_otel: no folder knows those above it"
ASIDE = "forge_otel: exporters and checker know names and settings only"
FORGE_LAYERS = "forge: no folder knows those above it"
FORGE = "forge knows nothing of telemetry"
CONTRACTS = (LAYERS, ASIDE, FORGE_LAYERS, FORGE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources with the contracts."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def contracts(checkout: Path) -> dict[str, bool]:
    """Whether each contract is kept, by its name."""
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^(.+) (KEPT|BROKEN)(?: \(\d ignored imports\))?$", linted.stdout, re.MULTILINE)
    kept = {name: verdict == "KEPT" for name, verdict in found}
    assert linted.returncode == (0 if all(kept.values()) else 1), linted.stdout + linted.stderr
    return kept


@pytest.mark.slow
def test_no_arrow_leads_back(checkout: Path) -> None:
    assert contracts(checkout) == dict.fromkeys(CONTRACTS, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("forge_otel/signals/telemetry.py", "from ..engine.scopes import RUN", LAYERS),
        ("forge_otel/engine/scopes.py", "from ..instrumentors.storage import WRITE", LAYERS),
        ("forge_otel/config/config.py", "from ..signals.sdk import is_sdk", LAYERS),
        ("forge_otel/patching/faults.py", "from ..config.config import ForgeConfig", LAYERS),
        ("forge_otel/engine/call.py", "if TYPE_CHECKING:\n    from ..instrumentors import stage", LAYERS),
        ("forge_otel/engine/call.py", "def late() -> None:\n    from forge_otel import ForgeInstrumentor", LAYERS),
        ("forge_otel/instrumentor.py", "from .exporters.statsd import StatsDMetricReader", LAYERS),
        ("forge_otel/exporters/statsd.py", "from ..signals.metrics import Series", ASIDE),
        ("forge_otel/checker/check.py", "from ..patching.patches import Target", ASIDE),
        ("forge/pipeline/sample.py", "import opentelemetry.trace", FORGE),
        ("forge/runner/run.py", "from forge_otel.semconv import attributes", FORGE),
        ("forge_otel/new/__init__.py", "", LAYERS),
        ("forge/support/clock.py", "from ..pipeline.sample import Sample", FORGE_LAYERS),
        ("forge/pipeline/stages.py", "if TYPE_CHECKING:\n    from ..definition import Pipeline", FORGE_LAYERS),
        ("forge/costs/usage.py", "if TYPE_CHECKING:\n    from ..execution.item import Item", FORGE_LAYERS),
        ("forge/costs/prices.py", "from ..storage.sql import SQLStorage", FORGE_LAYERS),
        ("forge/storage/artifacts.py", "from ..costs.usage import report", FORGE_LAYERS),
        ("forge/definition.py", "def late() -> None:\n    from .execution.item import Item", FORGE_LAYERS),
        ("forge/execution/item.py", "if TYPE_CHECKING:\n    from ..runner.run import Run", FORGE_LAYERS),
        ("forge/errors.py", "from .support.clock import Clock", FORGE_LAYERS),
        ("forge/new/__init__.py", "", FORGE_LAYERS),
    ],
)
def test_an_arrow_that_leads_back_is_found(checkout: Path, file: str, line: str, broken: str) -> None:
    path = checkout / "src" / file
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")

    assert contracts(checkout) == {name: name != broken for name in CONTRACTS}


@pytest.mark.parametrize("name", ["forge", "forge_otel"])
def test_the_architecture_page_shows_the_folders_that_there_are(name: str) -> None:
    package = ROOT / "src" / name
    [tree] = re.findall(rf"^```text\n{name}/\n(.*?)^```$", _page(), re.MULTILINE | re.DOTALL)
    shown = re.findall(r"^  (?:  )?(\w+)/ ", tree, re.MULTILINE)
    modules = re.findall(r"\b(\w+\.py)\b", tree)

    folders = [folder.parent.name for folder in package.glob("*/__init__.py")]
    assert sorted(shown) == sorted([*folders, "sdk"] if name == "forge_otel" else folders)
    assert sorted(modules) == sorted(file.name for file in package.glob("*.py") if file.name != "_version.py")


def test_the_architecture_page_names_files_that_there_are() -> None:
    files = [file for line in re.findall(r"^\| (`[^|]*`) \| .*$", _page(), re.MULTILINE) for file in _files(line)]
    src = ROOT / "src"

    assert [file for file in files if not ((src / file).exists() or (src / "forge_otel" / file).exists())] == []
    assert {"forge/execution/item.py", "engine/call.py", "engine/fast_path.py", "signals/metrics.py"} <= set(files)


def _page() -> str:
    return (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def _files(cell: str) -> Iterator[str]:
    """The paths in a cell of a table, each file after the first in its folder; other names are left out."""
    folder = ""
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", cell):
        if "/" in name:
            folder = name.rpartition("/")[0]
            yield name
        elif folder:
            yield f"{folder}/{name}"


def _folders(root: Path) -> set[str]:
    """The folders below a folder that hold Python modules, as relative paths."""
    return {file.parent.relative_to(root).as_posix() for file in root.rglob("*.py") if file.name != "__init__.py"}


def test_tests_mirror_the_source() -> None:
    """Tests of a folder are found by its name; those of the checker and of the commands stand at the top."""
    source, tests = ROOT / "src", ROOT / "tests"
    expected = {
        folder.removeprefix("forge_otel/")
        if folder.startswith(("forge_otel/checker", "forge_otel/commands"))
        else folder
        for folder in _folders(source)
    }
    found = {
        folder for folder in _folders(tests) if folder.split("/")[0] in {"forge", "forge_otel", "checker", "commands"}
    }
    # What is below one of these folders is tested through it, if not by itself.
    below = ("checker/rules", "commands/")
    assert found == {folder for folder in expected if folder in found or not folder.startswith(below)}
