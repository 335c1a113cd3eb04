"""Blocks of text on a terminal, or in a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from forge.support.layout import Block, Span, lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_blocks(blocks: Iterable[Block], console: Console) -> None:
    """Print blocks: in color and as wide as the terminal, or plain and unfolded where there is none."""
    for line in lines(blocks, console.width if console.is_terminal else None):
        console.print(styled(line), soft_wrap=True)


def print_next(commands: Iterable[str], console: Console, *, indent: str = "") -> None:
    """Print the commands to be typed next, each on one line, so that they can be copied."""
    for command in commands:
        console.print(Text(f"{indent}next: {command}", style="dim"), soft_wrap=True)


def print_table(table: Table, console: Console) -> None:
    """Print a table: folded and colored on a terminal; or else plain, without blanks at the ends of its lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        console.print(Text(line.rstrip()), soft_wrap=True)


def styled(line: Sequence[Span]) -> Text:
    """Return a line with its styles. Markup in it has no effect."""
    return Text.assemble(*line, end="")
