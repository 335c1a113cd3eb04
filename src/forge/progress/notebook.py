"""Progress as a table below the cell of a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from ..support.layout import Block, to_html, to_text
from .tracker import Tracker


class NotebookTable:
    """A table that is updated in place, and stays as it is at the end."""

    every = 0.5
    keys: Mapping[str, Callable[[], None]] = {}
    is_keyboard_open = False

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._handle: Any = None

    def start(self) -> None:
        self._handle = import_module("IPython.display").display(Shown(self._tracker.blocks()), display_id=True)

    def refresh(self) -> None:
        self._handle.update(Shown(self._tracker.blocks()))

    def stop(self) -> None:
        self.refresh()


class Shown:
    """Blocks as a notebook shows them: HTML, or text where it has none."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks

    def __repr__(self) -> str:
        return to_text(self._blocks, 100)

    def _repr_html_(self) -> str:
        return to_html(self._blocks)
