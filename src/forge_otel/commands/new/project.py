"""Writing a new project, from the files in `template`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..errors import CommandError
from ..next_commands import current_program

TEMPLATE: Final = Path(__file__).with_name("template")
"""The files of the project, with `.in` after their names; `{{name}}` in them is the name of the project, and
`{{forge}}` the program that writes it."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_HIDDEN: Final = ("gitignore",)
"""Names that begin with a dot in the project, and would have an effect here."""


def write(name: str) -> tuple[Path, Sequence[Path]]:
    """Write a project to the folder of its name; return the folder and its files.

    Raises:
        CommandError: the name is none for a project, the folder has files, or it cannot be written.
    """
    if not _NAME.fullmatch(name):
        form = "it needs a letter first, and then letters, digits, _ and -"
        raise CommandError(f"{name!r} is no name for a project: {form}")
    folder = Path(name)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CommandError(f"{name} exists already, and nothing in it is overwritten; choose another name")
        files = []
        for template in sorted(TEMPLATE.rglob("*.in")):
            file = folder / template.relative_to(TEMPLATE).with_suffix("")
            if file.name in _HIDDEN:
                file = file.with_name(f".{file.name}")
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as written:
                text = template.read_text(encoding="utf-8").replace("{{name}}", name)
                written.write(text.replace("{{forge}}", current_program()))
            files.append(file)
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error.strerror}") from None
    return folder, files
