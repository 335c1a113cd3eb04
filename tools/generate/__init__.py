"""Generating files from the registry and the settings.

Each generator is a module with a function `files(registry)`, which returns the text of files by their path from the
checkout's root. So all files are generated, compared and tested in the same way.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from forge_otel.checker.load import load

from . import constants
from .renames import follow, follow_lines, renamed

SOURCES = ("src/forge_otel", "tools/generate")
"""The folders of code that uses the constants."""
REGISTRY = f"{constants.FOLDER}/registry"
DERIVED = {
    "collector-config/grafana/dashboards": ".json",
    "collector-config/prometheus/rules": ".yaml",
    "docs/_extra/schemas": "",
    "docs/reference": ".md",
}
"""Folders in which all files with the given suffix are generated."""
LINES = "tools/generate/adr.yaml"
"""The lines of the ADR, which refer to names."""
PAGE = "docs/configuration.md"
"""The page with a table of the settings."""
DOCTOR_PAGE = "docs/doctor.md"
"""The page with a table of the problems that the doctor finds."""
RULE_TESTS = "collector-config/prometheus/tests"
"""The tests of the rules, which have the URLs of runbooks."""


class GenerateError(Exception):
    """Files cannot be generated; the message has the reason."""


def generate(root: Path, *, check: bool = False) -> list[str]:
    """Write all generated files of a checkout that are out of date; with `check`, write nothing.

    Code refers to names by constants. If a name was changed in the registry, its constant is renamed, also in the code
    that uses it.

    Returns:
        The paths of all files that differed, from `root`, sorted.

    Raises:
        GenerateError: `root` is not a checkout, or code refers to a constant that no longer exists.
        RegistryError: the registry is invalid.
    """
    if not (root / REGISTRY).is_dir():
        raise GenerateError(f"{root} is not a checkout of forge-otel: it has no {REGISTRY}")
    if check:
        with TemporaryDirectory() as folder:
            copy = Path(folder)
            for part in (*SOURCES, *DERIVED, RULE_TESTS):
                if (root / part).is_dir():
                    shutil.copytree(root / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            for file in ("tools/__init__.py", PAGE, DOCTOR_PAGE):
                shutil.copy(root / file, copy / file)
            return generate(copy)
    registry = load(root / REGISTRY)
    wanted = constants.files(registry)
    names = renamed(root / constants.FOLDER, wanted)
    changed = write(root, wanted)
    for folder in SOURCES:
        changed += follow(names, root / folder, root)
    if follow_lines(names, root / LINES, registry.names()):
        changed.append(LINES)
    return sorted({*changed, *_derive(root)})


def _derive(root: Path) -> list[str]:
    """Generate the files that depend on the constants, in a new interpreter that imports them from the checkout."""
    root = root.resolve()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root / "src"), str(root)))}
    command = [sys.executable, "-m", f"{__name__}.derived", str(root)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise GenerateError(f"the dashboards, rules and pages cannot be generated: {reason}")
    changed: list[str] = json.loads(done.stdout)
    return changed


def write(root: Path, wanted: dict[str, str]) -> list[str]:
    """Write the files that differ; return their paths."""
    changed = []
    for path, text in wanted.items():
        file = root / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed
