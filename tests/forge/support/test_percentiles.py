"""Percentiles are right within 1 % of the value that has the rank."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from forge.support.percentiles import RELATIVE_ERROR, Sketch

if TYPE_CHECKING:
    from collections.abc import Callable

QUANTILES = [0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1]


def exact(values: list[float], q: float) -> float:
    return sorted(values)[math.floor(q * (len(values) - 1))]


@pytest.mark.parametrize(
    "draw",
    [
        lambda r: r.uniform(0.001, 10),
        lambda r: r.expovariate(20),
        lambda r: r.lognormvariate(-3, 2),
        lambda r: r.paretovariate(1.2),
        lambda r: r.choice([0.001, 5.0]),
        lambda r: r.gauss(1, 0.01),
    ],
    ids=["uniform", "exponential", "lognormal", "pareto", "two values", "normal"],
)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 5000])
def test_quantiles_are_right_within_one_percent(draw: Callable[[random.Random], float], count: int) -> None:
    source = random.Random(count)
    values = [draw(source) for _ in range(count)]
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    assert sketch.count == count
    for q in QUANTILES:
        found = sketch.quantile(q)
        assert found is not None
        assert abs(found - exact(values, q)) <= exact(values, q) * RELATIVE_ERROR * (1 + 1e-9)
    assert (sketch.quantile(0), sketch.quantile(1)) == (min(values), max(values))
    assert (sketch.minimum, sketch.maximum) == (min(values), max(values))


def test_without_values_there_is_no_quantile() -> None:
    assert Sketch().quantile(0.5) is None


def test_one_value_is_exact() -> None:
    sketch = Sketch()
    sketch.add(0.123456)
    assert {sketch.quantile(q) for q in QUANTILES} == {0.123456}


def test_zero_and_what_is_next_to_it_count() -> None:
    sketch = Sketch()
    for value in (0.0, 0.0, 1e-12, 4.0, 4.0):
        sketch.add(value)
    assert sketch.quantile(0.5) == 0.0
    assert sketch.quantile(1) == 4.0


def test_memory_does_not_grow_with_the_values() -> None:
    sketch = Sketch()
    source = random.Random(1)
    for _ in range(20_000):
        sketch.add(10 ** source.uniform(-9, 5))
    assert len(sketch._buckets) <= 1650
