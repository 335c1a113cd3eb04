"""Escapes make any text fit for UTF-8 and PostgreSQL, and can be undone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.support.text import escape, is_fit, unescape

# Whole characters, halves of surrogate pairs, and pieces that add up to escapes.
PIECES = st.sampled_from(
    ["a", "é", "😀", "\0", "\ud800", "\udc00", "\udce9", "\\", "u", "0000", "005c", "dce9", "d8", "ff"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join) | st.text(st.characters(categories=None))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("caf\udce9.txt", r"caf\udce9.txt"),
        ("a\0b", r"a\u0000b"),
        ("\ud83d\ude00", r"\ud83d\ude00"),
        (r"caf\udce9.txt", r"caf\u005cudce9.txt"),
        (r"\u0000", r"\u005cu0000"),
        (r"\u005c", r"\u005cu005c"),
        ("\\\0", r"\\u0000"),
    ],
)
def test_half_surrogates_and_nul_are_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped
    assert unescape(escaped) == text
    assert not is_fit(text)


@pytest.mark.parametrize(
    "text",
    ["", "plain", "café", "😀", "a\nb\t\x1b", r"C:\users\udo", r"C:\x00", r"\u00e9", r"\uDCE9", r"\\", "\ue000\ud7ff"],
)
def test_other_text_is_returned_itself(text: str) -> None:
    assert escape(text) is text
    assert unescape(text) is text
    assert is_fit(text)


@pytest.mark.slow
@given(TEXTS)
def test_escapes_can_be_undone(text: str) -> None:
    escaped = escape(text)
    assert unescape(escaped) == text
    assert is_fit(text) == (escaped == text)


@given(TEXTS)
def test_escaped_text_is_utf8_without_nul(text: str) -> None:
    assert b"\0" not in escape(text).encode()
