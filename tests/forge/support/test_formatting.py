"""Numbers formatted for people."""

from decimal import Decimal

import pytest

from forge.support import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (4.5e-5, "45µs"),
        (0.0012, "1.2ms"),
        (0.34, "340ms"),
        (0.9999, "1.0s"),
        (75, "75s"),
        (725, "12:05"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert formatting.seconds(value) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (15_000_000, "15 MB")])
def test_sizes(count: int, text: str) -> None:
    assert formatting.size(count) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0, "0%"), (0.001, "<1%"), (0.666, "67%")])
def test_shares(value: float | None, text: str) -> None:
    assert formatting.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [("0", "0"), ("0.0000042", "0.0000042"), ("0.0002475", "0.000248"), ("0.5", "0.5"), ("1.5", "1.50")],
)
def test_dollars(value: str, text: str) -> None:
    assert formatting.dollars(Decimal(value)) == text
