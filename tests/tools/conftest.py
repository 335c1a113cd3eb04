"""Fixtures of the tests of generators."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of all that generating reads and writes."""
    for folder in ("src/forge_otel", "tools/generate", "docs/reference", "docs/_extra", "collector-config"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("tools/__init__.py", "docs/configuration.md", "docs/doctor.md"):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path
