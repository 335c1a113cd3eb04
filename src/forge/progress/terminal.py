"""Progress as a live table on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..support.layout import Line, Span, lines
from .tracker import Tracker

_PLAIN = str.maketrans({"━": "#", "─": "-", "…": "."})
"""Replacements for terminals that have ASCII only."""


class TerminalTable:
    """A live table, which leaves nothing behind."""

    every = 0.2

    def __init__(self, tracker: Tracker, stream: TextIO) -> None:
        self._tracker = tracker
        self.keys: Mapping[str, Callable[[], None]] = {"p": self._toggle}
        self.is_keyboard_open = False
        self._shows_samples = False
        self._console = Console(file=stream, highlight=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            # Other output goes above the table; but what goes to a file must still go there.
            redirect_stdout=_is_terminal(sys.stdout),
            redirect_stderr=_is_terminal(sys.stderr),
        )

    @property
    def is_possible(self) -> bool:
        """True if the terminal can move its cursor."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def start(self) -> None:
        self._live.start()
        self.refresh()

    def refresh(self) -> None:
        self._live.update(self._table(), refresh=True)

    def stop(self) -> None:
        self._live.stop()

    def _table(self) -> Text:
        table = Text(no_wrap=True, overflow="crop")
        for number, line in enumerate(self._lines()):
            table.append("\n" if number else "")
            for text, style in line:
                table.append(self._encodable(text), style)
        return table

    def _toggle(self) -> None:
        self._shows_samples = not self._shows_samples

    def _lines(self) -> Iterator[Line]:
        """Yield what is shown, at most as many lines as the terminal has."""
        width, room = self._console.width, max(1, self._console.height)
        shows_samples, blocks = self._shows_samples, self._tracker.blocks()
        if shows_samples:
            blocks = [blocks[0], *self._tracker.samples()]
        found = list(lines(blocks, width))
        if not self.is_keyboard_open:
            yield from found
            return
        if len(found) >= room:
            kept = max(0, room - 2)
            found[kept:] = [(Span(f"… and {len(found) - kept} more lines", "dim"),)]
        yield from found
        yield (Span("p: back" if shows_samples else "p: where the samples are", "dim"),)

    def _encodable(self, text: str) -> str:
        encoding = self._console.encoding
        if encoding.startswith("utf"):
            return text
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()
