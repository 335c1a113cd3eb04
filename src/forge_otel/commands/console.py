"""Output for terminals, files and pipes."""

from __future__ import annotations

import sys
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from forge.support.text import on_one_line

_PLAIN_WIDTH = 200
"""Columns where the output is no terminal: nothing is cut for the sake of a width."""


class Output(Console):
    """A console on the standard output: plain, and as wide as the output needs, where it is no terminal."""

    def __init__(self) -> None:
        super().__init__(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)

    def on_broken_pipe(self) -> NoReturn:
        """Let the command end as others do; rich would exit with code 1."""
        raise BrokenPipeError


def data(text: object, limit: int = 200, style: str = "") -> Text:
    """Return data as text on one line, without markup and with control characters escaped."""
    return Text(on_one_line(str(text), limit), style=style)
