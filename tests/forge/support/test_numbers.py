"""Ranges of numbers that users give."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from forge.support.numbers import MAX_COUNT, is_count, is_finite, shown


@pytest.mark.parametrize("value", [1, 2, MAX_COUNT])
def test_counts(value: int) -> None:
    assert is_count(value)


@pytest.mark.parametrize("value", [0, -1, MAX_COUNT + 1, 2**63, 10**400, 1.0, True, "1", None])
def test_what_is_no_count(value: object) -> None:
    assert not is_count(value)


def test_counts_have_limits_of_their_own() -> None:
    assert [value for value in range(6) if is_count(value, 0, 3)] == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [0, 0.0, 5e-324, 1, 1e308, 2**63, 10**308])
def test_finite_numbers(value: float) -> None:
    assert is_finite(value)


@pytest.mark.parametrize("value", [-1, -5e-324, math.nan, math.inf, -math.inf, 10**309, True, "1", None, Decimal(1)])
def test_what_is_no_finite_number(value: object) -> None:
    assert not is_finite(value)


def test_numbers_from_a_limit_on() -> None:
    assert [value for value in (0.5, 1, 1.5) if is_finite(value, 1)] == [1, 1.5]


def test_any_value_can_be_shown_and_is_short() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown("x" * 1000) == "'xxxxxxxxxxxx...xxxxxxxxxxxxx'"
    assert shown(10**5000) == "one of type int"
    assert shown(Rude()).startswith("<Rude instance at 0x")
