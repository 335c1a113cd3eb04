"""Text for people: lines, tables and bars, as plain text of some width, as styled spans for a terminal, and as HTML."""

from __future__ import annotations

import html
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .text import visible

MIN_BAR = 8
"""Minimum width of a bar; it is left out where there is less room."""
MIN_TEXT = 20
"""Width to which a column of text is shortened before columns are left out."""
MIN_NAME = 12
"""Width from which on the first column of a table is not shortened."""
_GAP = "  "
_COLORS = {"red": "#d84338", "yellow": "#a87500", "green": "#2f8f3a"}
"""Colors that can be read on light and on dark pages."""
_HTML_STYLES = {
    "bold": "font-weight:bold",
    "dim": "opacity:.7",
    **{name: f"color:{value}" for name, value in _COLORS.items()},
}


class Span(NamedTuple):
    """A piece of a line. Its text is data: control characters in it are escaped."""

    text: str
    style: str = ""
    """`bold`, `dim`, `red`, `yellow`, `green`, or none."""


Line = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Spans on one line, which is folded between words where there is less room."""

    spans: Sequence[Span]
    indent: int = 0
    """Columns by which it is indented; folded lines are indented by two more."""

    def lines(self, width: int | None) -> Iterator[Line]:
        spans = [Span(visible(span.text), span.style) for span in self.spans if span.text]
        text = "".join(span.text for span in spans)
        first, rest = " " * self.indent, " " * (self.indent + 2)
        if width is None or cells(first + text) <= width:
            yield (Span(first), *spans) if first else tuple(spans)
            return
        place = 0
        styles = [span.style for span in spans for _ in span.text]
        for line in textwrap.wrap(
            text, max(width, 10), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        ):
            words = line.removeprefix(rest if place else first)
            place = text.index(words, place)
            yield (Span(line[: len(line) - len(words)]), *_styled(words, styles[place : place + len(words)]))
            place += len(words)

    def html(self) -> str:
        content = "".join(_html(span) for span in self.spans)
        margin = "margin:.2em 0" if not self.indent else f"margin:.2em 0 .2em {self.indent}ch"
        return f'<div style="{margin}">{content}</div>'


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, aligned to the right unless it is the first."""

    title: str
    rank: int = 0
    """Columns of higher rank are left out first where there is less room; those of rank 0 never."""
    is_text: bool = False
    """True for text, which is aligned to the left, and shortened before columns are left out."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of cells on one line each."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Span]] = field(default_factory=list)

    def lines(self, width: int | None) -> Iterator[Line]:
        rows = [tuple(Span(visible(column.title), "dim") for column in self.columns)]
        rows += [tuple(Span(visible(cell.text), cell.style) for cell in row) for row in self.rows]
        widths = [max(cells(row[index].text) for row in rows) for index in range(len(self.columns))]
        shown = list(range(len(self.columns)))
        for index, column in enumerate(self.columns):
            if width is not None and column.is_text:
                overflow = sum(widths) + len(_GAP) * (len(shown) - 1) - width
                widths[index] = max(min(MIN_TEXT, widths[index]), widths[index] - max(0, overflow))
        while width is not None and sum(widths[index] for index in shown) + len(_GAP) * (len(shown) - 1) > width:
            rank, index = max((self.columns[index].rank, index) for index in shown)
            if rank == 0:
                overflow = sum(widths[index] for index in shown) + len(_GAP) * (len(shown) - 1) - width
                widths[0] = max(min(MIN_NAME, widths[0]), widths[0] - overflow)
                break
            shown.remove(index)
        for row in rows:
            line: list[Span] = []
            for index in shown:
                text, style = row[index]
                if index == 0:
                    text = _cut(text, widths[0])
                    pad = " " * (widths[0] - cells(text)) if len(shown) > 1 else ""
                    line += [Span(text, style), Span(pad)]
                elif self.columns[index].is_text:
                    text = _cut(text, widths[index])
                    pad = " " * (widths[index] - cells(text)) if index != shown[-1] else ""
                    line += [Span(_GAP), Span(text, style), Span(pad)]
                else:
                    line += [Span(_GAP + " " * (widths[index] - cells(text))), Span(text, style)]
            yield tuple(span for span in line if span.text)

    def html(self) -> str:
        right = 'style="text-align:right;padding:.1em .6em"'
        left = 'style="text-align:left;padding:.1em .6em"'
        head = "".join(
            f"<th {left if index == 0 or column.is_text else right}>{_escaped(column.title)}</th>"
            for index, column in enumerate(self.columns)
        )
        body = "".join(
            "<tr>"
            + "".join(
                f"<td {left if index == 0 or self.columns[index].is_text else right}>{_html(cell)}</td>"
                for index, cell in enumerate(row)
            )
            + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar between a label and a text; without a total, only these."""

    label: str
    done: int
    total: int | None
    text: str

    def lines(self, width: int | None) -> Iterator[Line]:
        label, text = visible(self.label), visible(self.text)
        room = (width or 80) - cells(label) - cells(text) - 2
        if self.total is None or room < MIN_BAR:
            yield from Paragraph([Span(label, "bold"), Span(f" {text}")]).lines(width)
            return
        filled = room * min(self.done, self.total) // max(1, self.total)
        bar = [Span("━" * filled, "green"), Span("─" * (room - filled), "dim")]
        yield (Span(label, "bold"), Span(" "), *(part for part in bar if part.text), Span(f" {text}"))

    def html(self) -> str:
        bar = ""
        if self.total is not None:
            bar = f'<progress max="{max(1, self.total)}" value="{min(self.done, self.total)}"></progress> '
        return f"<div><b>{_escaped(self.label)}</b> {bar}{_escaped(self.text)}</div>"


@dataclass(frozen=True, slots=True)
class Blank:
    """An empty line."""

    def lines(self, width: int | None) -> Iterator[Line]:  # noqa: ARG002 - the same at any width
        yield ()

    def html(self) -> str:
        return ""


Block = Paragraph | Table | Bar | Blank


def paragraph(text: str, style: str = "", indent: int = 0) -> Paragraph:
    """Return a paragraph of one style."""
    return Paragraph([Span(text, style)], indent)


def lines(blocks: Iterable[Block], width: int | None = None) -> Iterator[Line]:
    """Yield the lines of blocks. Without a width, nothing is folded or left out."""
    for block in blocks:
        yield from block.lines(width)


def to_text(blocks: Iterable[Block], width: int | None = None) -> str:
    """Return blocks as plain text."""
    return "\n".join("".join(span.text for span in line).rstrip() for line in lines(blocks, width))


def to_html(blocks: Iterable[Block]) -> str:
    """Return blocks as HTML, in which all data is escaped."""
    return f'<div style="font-variant-numeric:tabular-nums">{"".join(block.html() for block in blocks)}</div>'


def terminal_width() -> int | None:
    """Return the number of columns of the terminal that stdout is; None if it is no terminal."""
    try:
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    except (AttributeError, ValueError):  # there is no stdout, or it is closed
        return None


def cells(text: str) -> int:
    """Return the number of columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _cut(text: str, width: int) -> str:
    """Return a text of at most so many columns, with an ellipsis where it was cut."""
    if cells(text) <= width:
        return text
    while text and cells(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def _styled(text: str, styles: Sequence[str]) -> Iterator[Span]:
    """Yield the spans of a text, given the style of each character."""
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or styles[end] != styles[start]:
            yield Span(text[start:end], styles[start])
            start = end


def _html(span: Span) -> str:
    if style := _HTML_STYLES.get(span.style):
        return f'<span style="{style}">{_escaped(span.text)}</span>'
    return _escaped(span.text)


def _escaped(text: str) -> str:
    return html.escape(visible(text))
