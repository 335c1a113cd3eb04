"""Representing histograms by values, for StatsD daemons.

A histogram has the count of each bucket and the sum of all values, but StatsD daemons accept values only. So each
bucket is represented by values spread evenly over it. Count and sum are exact: the relative position of the values is
the same in all buckets, and follows from the sum. A percentile is off by at most the width of its bucket.

Fields that are not finite count as absent. They are rare: only an infinite measured value makes the sum infinite.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint, HistogramDataPoint

_LARGEST: Final = sys.float_info.max


class Bucket(NamedTuple):
    """The number of values between two bounds."""

    lower: float
    upper: float
    weight: int


class Weighted(NamedTuple):
    """A value, and the number of values that it represents."""

    value: float
    weight: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """The distribution of values in a histogram's point."""

    buckets: Sequence[Bucket]
    """The buckets that are not empty, in ascending order."""
    count: int
    sum: float | None
    min: float | None
    max: float | None

    def scaled(self, factor: float) -> Distribution:
        """Return the distribution in a smaller unit, with values multiplied by `factor`."""

        def scale(value: float) -> float:
            return min(max(value * factor, -_LARGEST), _LARGEST)

        buckets = [Bucket(scale(each.lower), scale(each.upper), each.weight) for each in self.buckets]
        total, low, high = (None if value is None else scale(value) for value in (self.sum, self.min, self.max))
        return Distribution(buckets, self.count, total, low, high)

    def values(self, limit: int) -> Iterator[Weighted]:
        """Yield about `limit` values, at least one per bucket, in ascending order within each; all values if there are
        fewer.

        Without a sum, they are centered in their buckets.
        """
        low = sum(bucket.lower * bucket.weight for bucket in self.buckets)
        width = sum((bucket.upper - bucket.lower) * bucket.weight for bucket in self.buckets)
        center = 0.5
        if self.sum is not None and math.isfinite(low) and 0 < width < math.inf:
            center = min(max((self.sum - low) / width, 0.0), 1.0)
        share = min(1.0, limit / max(self.count, 1))
        for lower, upper, weight in self.buckets:
            for middle, part in _parts(weight, max(1, round(weight * share))):
                # Symmetric to the center, which remains the mean, within the nearer bound of the bucket.
                position = min(max(center + min(center, 1 - center) * (2 * middle - 1), 0.0), 1.0)
                yield Weighted(lower * (1 - position) + upper * position, part)


def _parts(weight: int, number: int) -> Iterator[tuple[float, int]]:
    """Split a weight into `number` integer parts; yield the center of each, from 0 to 1, and its size. The centers
    average to 0.5.
    """
    size, larger = divmod(weight, number)
    start = 0
    for index in range(number):
        part = size + (index < larger)
        yield (start + part / 2) / weight, part
        start += part


def merged(distributions: Iterable[Distribution]) -> Distribution:
    """Merge several distributions."""
    several = list(distributions)
    weights: Counter[tuple[float, float]] = Counter()
    for each in several:
        for lower, upper, weight in each.buckets:
            weights[lower, upper] += weight
    sums = [each.sum for each in several if each.sum is not None]
    return Distribution(
        buckets=[Bucket(*bounds, weight) for bounds, weight in sorted(weights.items())],
        count=sum(each.count for each in several),
        sum=sum(sums) if len(sums) == len(several) else None,
        min=min((each.min for each in several if each.min is not None), default=None),
        max=max((each.max for each in several if each.max is not None), default=None),
    )


def explicit(point: HistogramDataPoint) -> Distribution:
    """Return the distribution of a histogram with explicit bounds.

    Raises:
        ValueError: there is not one bucket more than bounds, the bounds do not ascend, or the buckets do not add up.
    """
    bounds, weights = list(point.explicit_bounds), list(point.bucket_counts)
    if not bounds and not weights:  # only a count and a sum
        weights = [point.count]
    if len(weights) != len(bounds) + 1:
        raise ValueError(f"{len(weights)} buckets with {len(bounds)} bounds between them")
    if not all(lower < upper for lower, upper in pairwise([-math.inf, *bounds, math.inf])):
        raise ValueError("bounds that do not ascend")
    first, last = _outer_ends(bounds, weights, _finite_or_none(point, "sum"))
    low, high = _finite_or_none(point, "min"), _finite_or_none(point, "max")
    ends = [first if low is None else low, *bounds, last if high is None else high]
    return _distribution(point, [Bucket(*pair, weight) for pair, weight in zip(pairwise(ends), weights, strict=True)])


def exponential(point: ExponentialHistogramDataPoint) -> Distribution:
    """Return the distribution of an exponential histogram, whose bounds are powers of a base given by its scale.

    Raises:
        ValueError: the buckets do not add up.
    """
    negative = list(_powers(point.scale, point.negative))
    buckets = [Bucket(-each.upper, -each.lower, each.weight) for each in reversed(negative)]
    zero = point.zero_threshold if 0 <= point.zero_threshold < math.inf else 0.0
    buckets += [Bucket(-zero, zero, point.zero_count), *_powers(point.scale, point.positive)]
    return _distribution(point, buckets)


def _outer_ends(bounds: Sequence[float], weights: Sequence[int], total: float | None) -> tuple[float, float]:
    """Return the ends of the outer buckets, which are open, such that the values add up to the sum.

    The first bucket begins at 0, unless even the lowest values exceed the sum. The last one ends where the sum results
    with centered values in all others.
    """
    if not bounds:
        mean = total / weights[0] if total is not None and weights[0] else 0.0
        return mean, mean
    first, last = min(0.0, bounds[0]), bounds[-1]
    if total is not None and weights[0]:
        lowest = sum(lower * weight for lower, weight in zip(bounds, weights[1:], strict=True))
        first = min(first, (total - lowest) / weights[0])
    if total is not None and weights[-1]:
        inner = zip(pairwise([first, *bounds]), weights[:-1], strict=True)
        last = max(last, (total - sum((lower + upper) / 2 * weight for (lower, upper), weight in inner)) / weights[-1])
    return first, last


def _powers(scale: int, side: ExponentialHistogramDataPoint.Buckets) -> Iterator[Bucket]:
    for index, weight in enumerate(side.bucket_counts, side.offset):
        yield Bucket(_power(scale, index), _power(scale, index + 1), weight)


def _power(scale: int, index: int) -> float:
    """Return the base, 2 ** (2 ** -scale), to a power."""
    try:
        return math.pow(2.0, math.ldexp(index, -scale))
    except OverflowError:
        return _LARGEST if index > 0 else 0.0


def _finite_or_none(
    point: HistogramDataPoint | ExponentialHistogramDataPoint, name: Literal["sum", "min", "max"]
) -> float | None:
    value: float = getattr(point, name)
    return value if point.HasField(name) and math.isfinite(value) else None


def _distribution(point: HistogramDataPoint | ExponentialHistogramDataPoint, buckets: Sequence[Bucket]) -> Distribution:
    """Return the distribution of a point, with its buckets clipped to the measured minimum and maximum."""
    inside = sum(bucket.weight for bucket in buckets)
    if inside != point.count:
        raise ValueError(f"a count of {point.count}, but {inside} in its buckets")
    low, high = _finite_or_none(point, "min"), _finite_or_none(point, "max")
    minimum = -_LARGEST if low is None else low
    maximum = _LARGEST if high is None else max(high, minimum)
    clipped = [
        Bucket(min(max(lower, minimum), maximum), min(max(upper, minimum), maximum), weight)
        for lower, upper, weight in buckets
        if weight
    ]
    return Distribution(clipped, point.count, _finite_or_none(point, "sum"), low, high)
