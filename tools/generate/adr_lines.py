"""The lines of ADR-007, with what answers them here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

LINES: Final = Path(__file__).with_name("adr.yaml")

PLACEHOLDER: Final = r"\{(\w+) ([a-z0-9_.]+)\}"
"""A reference to a name of the registry: its kind, and the name."""

_NAMED: Final = {
    "event": ("span", "event"),
    "metric": ("metric",),
    "span": ("span",),
    "span attribute": ("attribute",),
}
"""The kinds of lines that name definitions, and the kinds of these."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the ADR."""

    kind: str
    name: str
    here: str
    """What answers it, with placeholders."""
    parent: str = ""
    """The name of the event, metric or record that it is a part of."""

    @property
    def text(self) -> str:
        """The line as the page shows it."""
        return f"`{self.name}`" + (f" of `{self.parent}`" if self.parent else "")


def lines() -> Iterator[Line]:
    """Yield the lines of the ADR, in its order."""
    for section in _sections(LINES):
        for name, content in section["lines"].items():
            parts: dict[str, Any] = {"here": content} if isinstance(content, str) else content
            yield Line(section["kind"], name, parts["here"])
            for kind, of_kind in parts.items():
                if kind != "here":
                    yield from (Line(kind, part, here, name) for part, here in of_kind.items())


@cache
def _sections(file: Path) -> list[dict[str, Any]]:
    sections: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return sections


def names(kind: str, name: str) -> list[str]:
    """Return the ADR's names for a definition of a kind."""
    placeholder = f"{{{kind} {name}}}"
    return [line.name for line in lines() if kind in _NAMED.get(line.kind, ()) and placeholder in line.here]
