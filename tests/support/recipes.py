"""The recipes in docs/recipes: their files, written to a folder, and their commands."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

_FOLDER = Path(__file__).parents[2] / "docs" / "recipes"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"# ([\w./-]+)\n")


def copy_files(recipe: str, folder: Path) -> None:
    """Write every block of a page that begins with a path, as in `# dags/labels.py`, to that path."""
    for _, text in _blocks(recipe):
        if match := _PATH.match(text):
            path = folder / match[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def shell_blocks(recipe: str) -> list[str]:
    """The commands of a page."""
    return [text for language, text in _blocks(recipe) if language == "sh"]


def environment(**variables: str) -> dict[str, str]:
    """A user's environment, with the commands of this one on the `PATH`."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TRACEPARENT", "TRACESTATE", "BAGGAGE")}
    return {**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), **variables}


def _blocks(recipe: str) -> list[tuple[str, str]]:
    return _BLOCK.findall((_FOLDER / f"{recipe}.md").read_text())
