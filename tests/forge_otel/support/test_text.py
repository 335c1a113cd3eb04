"""Text is fit for every exporter: without half surrogate pairs and NUL, and not longer than its limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.support import text as storage
from forge_otel.support.text import MAX_EVENT_TEXT, MAX_SPAN_TEXT, escape, fit, fit_values
from tests.forge.support.test_text import TEXTS


@given(TEXTS)
def test_text_is_escaped_as_in_the_storage(text: str) -> None:
    assert escape(text) == storage.escape(text)
    assert (escape(text) is text) == storage.is_fit(text)


@given(TEXTS, st.integers(3, 40))
def test_fit_text_is_within_its_limit(text: str, limit: int) -> None:
    fitted, whole = fit(text, limit), escape(text)
    assert len(fitted.encode()) <= limit
    if len(whole.encode()) <= limit:
        assert fitted == whole
    else:
        assert fitted.endswith("…")
        assert whole.startswith(fitted.removesuffix("…"))


@pytest.mark.parametrize(
    ("text", "fitted"),
    [
        ("x" * 8192, "x" * 8192),
        ("x" * 8193, "x" * 8189 + "…"),
        ("x" * 3_000_000, "x" * 8189 + "…"),
        ("é" * 4096, "é" * 4096),
        ("é" * 4097, "é" * 4094 + "…"),  # an odd byte is left
        ("😀" * 2048, "😀" * 2048),
        ("\0" * 8192, r"\u0000" * 1364 + r"\u000"[:5] + "…"),
    ],
    ids=["ascii", "ascii cut", "huge", "two bytes", "two bytes cut", "four bytes", "escaped"],
)
def test_a_text_on_a_span_has_8_kib(text: str, fitted: str) -> None:
    assert MAX_SPAN_TEXT == 8192
    assert fit(text) == fitted


def test_a_text_in_an_event_has_64_kib() -> None:
    assert MAX_EVENT_TEXT == 65536
    assert fit("x" * 65536, MAX_EVENT_TEXT) == "x" * 65536
    assert fit("x" * 65537, MAX_EVENT_TEXT) == "x" * 65533 + "…"


class Name(str):
    __slots__ = ()


USUAL: dict[str, Any] = {"a": "b", "c": 1, "d": 0.5, "e": True}


def test_usual_attributes_are_returned_themselves() -> None:
    assert fit_values(USUAL) is USUAL


@pytest.mark.parametrize(
    ("given", "fitted"),
    [
        ({"a": "\udce9"}, {"a": r"\udce9"}),
        ({"a": "café"}, {"a": "café"}),
        ({"a": "b\0"}, {"a": r"b\u0000"}),
        ({"a": r"\u0000"}, {"a": r"\u005cu0000"}),
        ({"a": b"b"}, {"a": b"b"}),
        ({"a": ["b", "\udce9"]}, {"a": ["b", r"\udce9"]}),
        ({"a": ("b", "\udce9")}, {"a": ["b", r"\udce9"]}),
        ({"a": "x" * 9000}, {"a": "x" * 8189 + "…"}),
        ({"a": Name("b")}, {"a": "b"}),
    ],
)
def test_other_attributes_are_made_fit(given: dict[str, Any], fitted: dict[str, Any]) -> None:
    result = fit_values({**USUAL, **given})
    assert result == {**USUAL, **fitted}
    assert all(type(value) is not Name for value in result.values())
