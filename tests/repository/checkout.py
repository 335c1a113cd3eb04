"""The checkout, copies of it, and commands run in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=900
    )


def tool(name: str) -> Path:
    """A command of the environment that the tests run in."""
    return Path(sys.executable).with_name(name)


def tracked() -> list[Path]:
    """The checkout's files that git knows, or would add."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def copied(tmp_path: Path) -> Path:
    """Make a repository in a folder with the checkout's files in one commit, and with its virtual environment."""
    for path in tracked():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    # Linked part by part: the stamp in it is younger than pyproject.toml, so that make installs nothing.
    environment = tmp_path / ".venv"
    environment.mkdir()
    for part in Path(sys.prefix).iterdir():
        if part.name != ".ready":
            (environment / part.name).symlink_to(part)
    (environment / ".ready").touch()
    for command in (
        ("git", "init", "--quiet", "--initial-branch", "main"),
        ("git", "config", "user.name", "A developer"),
        ("git", "config", "user.email", "developer@example.com"),
        ("git", "config", "commit.gpgsign", "false"),
        ("git", "config", "tag.gpgsign", "false"),
        ("git", "add", "--all"),
        ("git", "commit", "--quiet", "--message", "All of it"),
    ):
        assert run(*command, cwd=tmp_path).returncode == 0, command
    return tmp_path
