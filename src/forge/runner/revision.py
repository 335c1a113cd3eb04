"""The revision of the code that runs."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


@functools.cache
def code_revision() -> str | None:
    """Return the commit of the main script's git checkout; None if there is none.

    Of an installed command, such as `forge run` or a task runner, it is that of the current folder: the command's own
    file lies where it was installed, which says nothing of the pipeline.
    """
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            [git, "rev-parse", "HEAD"], cwd=_folder(), capture_output=True, text=True, timeout=2, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _folder() -> Path:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if not main:
        return Path.cwd()
    script = Path(main).resolve()
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("scripts", "purelib", "stdlib")]
    return Path.cwd() if any(folder in script.parents for folder in installed) else script.parent
