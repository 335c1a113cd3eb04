"""The recipes in docs/recipes: their files, written to a folder, and their commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from .tools import tool

_FOLDER = Path(__file__).parents[2] / "docs" / "recipes"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"# ([\w./-]+)\n")
_PATIENCE = 60.0


def copy_files(recipe: str, folder: Path, replaced: Mapping[str, str] | None = None) -> None:
    """Write every block of a page that begins with a path, as in `# dags/labels.py`, to that path.

    `replaced` are texts to write instead of others, such as free ports instead of the usual ones.
    """
    for _, text in _blocks(recipe):
        if match := _PATH.match(text):
            path = folder / match[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_with(text, replaced))


def shell_blocks(recipe: str, replaced: Mapping[str, str] | None = None) -> list[str]:
    """The commands of a page, without those that install what is installed here."""
    blocks = [text for language, text in _blocks(recipe) if language == "sh"]
    return [_with(re.sub(r"^pip install .*\n", "", text, flags=re.MULTILINE), replaced) for text in blocks]


def queries(recipe: str) -> list[str]:
    """The PromQL of a page, one expression a block."""
    return [text for language, text in _blocks(recipe) if language == "promql"]


def environment(**variables: str) -> dict[str, str]:
    """A user's environment, with the commands of this one on the `PATH`. On a busy machine, delivery takes its time."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TRACEPARENT", "TRACESTATE", "BAGGAGE")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "FORGE_OTEL_SHUTDOWN_TIMEOUT": "60", **variables}


def with_programs(folder: Path, **names: str) -> dict[str, str]:
    """An environment with programs of the stack on the `PATH`, by the names that a recipe has for them."""
    programs = folder / "programs"
    programs.mkdir()
    for name, ours in names.items():
        (programs / name.replace("_", "-")).symlink_to(tool(ours))
    found = environment()
    return {**found, "PATH": os.pathsep.join([str(programs), found["PATH"]])}


def run_block(command: str, folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a shell block to its end."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def running_block(
    command: str, folder: Path, variables: Mapping[str, str], log: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a shell block that does not end by itself, with its output in a file; its processes are killed at the end."""
    with (folder / log).open("w") as output:
        started = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait(_PATIENCE)


def _with(text: str, replaced: Mapping[str, str] | None) -> str:
    for old, new in (replaced or {}).items():
        text = text.replace(old, new)
    return text


def _blocks(recipe: str) -> list[tuple[str, str]]:
    return _BLOCK.findall((_FOLDER / f"{recipe}.md").read_text())
