"""Lines, tables and bars: as text of any width, as spans, as HTML."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from forge.support.layout import (
    Bar,
    Blank,
    Block,
    Column,
    Paragraph,
    Span,
    Table,
    cells,
    lines,
    paragraph,
    terminal_width,
    to_html,
    to_text,
)


def table(*names: str) -> Table:
    columns = [Column("stage"), Column("done"), Column("p50", 2), Column("p95", 1), Column("used")]
    rows = [[Span(name), Span("100"), Span("1.5ms"), Span("2.5ms"), Span("98%", "red")] for name in names]
    return Table(columns, rows)


def test_without_a_width_nothing_is_folded() -> None:
    blocks: list[Block] = [paragraph("one two " * 50), Blank(), table("a", "parse")]
    assert to_text(blocks).splitlines() == [
        ("one two " * 50).rstrip(),
        "",
        "stage  done    p50    p95  used",
        "a       100  1.5ms  2.5ms   98%",
        "parse   100  1.5ms  2.5ms   98%",
    ]


def test_paragraphs_are_folded_between_words_and_indented() -> None:
    block = Paragraph([Span("one two", "bold"), Span(" three"), Span(" four-five", "red")], indent=2)
    assert to_text([block], 14).splitlines() == ["  one two", "    three", "    four-five"]
    assert [*lines([block], 14)] == [
        (Span("  "), Span("one two", "bold")),
        (Span("    "), Span("three")),
        (Span("    "), Span("four-five", "red")),
    ]


@pytest.mark.parametrize(
    ("width", "head"),
    [
        (31, "stage  done    p50    p95  used"),
        (30, "stage  done    p95  used"),
        (24, "stage  done    p95  used"),
        (23, "stage  done  used"),
        (17, "stage  done  used"),
        (5, "stage  done  used"),
    ],
)
def test_tables_leave_out_columns_by_their_rank(width: int, head: str) -> None:
    assert to_text([table("a", "parse")], width).splitlines()[0] == head


def test_the_first_column_is_cut_last() -> None:
    assert to_text([table("a-stage-with-a-long-name")], 26).splitlines()[1] == "a-stage-with-…   100   98%"
    assert to_text([table("a-stage-with-a-long-name")], 5).splitlines()[1] == "a-stage-wit…   100   98%"


def test_characters_may_take_two_columns_or_none() -> None:
    assert [cells(text) for text in ("ab", "日本", "e\N{COMBINING ACUTE ACCENT}")] == [2, 4, 1]
    assert to_text([table("日本", "parse")]).splitlines()[1] == "日本    100  1.5ms  2.5ms   98%"


def test_bars_fill_the_width() -> None:
    assert to_text([Bar("p", 5, 10, "5 of 10")], 20) == "p ━━━━━───── 5 of 10"
    assert to_text([Bar("p", 11, 10, "11 of 10")], 21) == "p ━━━━━━━━━━ 11 of 10"
    assert to_text([Bar("p", 0, 0, "0 of 0")], 20) == "p ─────────── 0 of 0"
    assert to_text([Bar("p", 5, None, "5 read")], 20) == "p 5 read"
    assert to_text([Bar("p", 5, 10, "5 of 10")], 16) == "p 5 of 10"


@pytest.mark.parametrize(
    "block",
    [
        paragraph("<b>\x1b[2J&"),
        Table([Column("<b>\x1b[2J&")], [[Span("<b>\x1b[2J&", "red")]]),
        Bar("<b>\x1b[2J&", 1, 2, "<b>\x1b[2J&"),
    ],
    ids=lambda block: type(block).__name__,
)
def test_data_is_escaped(block: Block) -> None:
    page = to_html([block])
    assert "&lt;b&gt;\\x1b[2J&amp;" in page
    assert "<b>\\" not in page
    for text in (page, to_text([block]), to_text([block], 20)):
        assert "\x1b" not in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "47")
    stdout: Any
    for stdout, width in ((Terminal(), 47), (io.StringIO(), None), (None, None)):
        monkeypatch.setattr(sys, "stdout", stdout)
        assert terminal_width() == width
    closed = io.StringIO()
    closed.close()  # and `isatty` raises
    monkeypatch.setattr(sys, "stdout", closed)
    assert terminal_width() is None


def test_text_is_shortened_before_columns_are_left_out() -> None:
    columns = [Column("sample"), Column("count", 1), Column("message", 2, is_text=True)]
    rows = [[Span("a"), Span("1"), Span("the service has returned no label")], [Span("b"), Span("20"), Span("no")]]
    assert to_text([Table(columns, rows)], 40).splitlines() == [
        "sample  count  message",
        "a           1  the service has returned…",
        "b          20  no",
    ]
    assert to_text([Table(columns, rows)], 30).splitlines() == ["sample  count", "a           1", "b          20"]
