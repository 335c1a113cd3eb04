"""Durations as people write them."""

from __future__ import annotations

import pytest

from forge.support.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1.5h", 5400), ("90d", 7_776_000), (" 2w ", 1_209_600), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "h", "-1h", "1 h", "1y", "1e3s", "nan s", "９d", "1" * 10 + "d"])
def test_other_texts(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration; write a number with s, m, h, d or w, such as "):
        parse_duration(text)
