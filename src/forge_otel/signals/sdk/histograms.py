"""Many values at once into a histogram of the SDK: what its public `record` does to each of them, at a fraction of the
cost.
"""

from __future__ import annotations

import functools
import math
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, set_span_in_context

from . import is_sdk, tested

_EMPTY: Final = Context()
NOWHERE: Final = set_span_in_context(INVALID_SPAN, _EMPTY)
"""The context of what is written later than it happened: no span is current. (For an empty context the SDK would take
the current one.)"""

Measure = Callable[[float], Any]
"""Makes the SDK's `Measurement` of a value."""


class Chunk:
    """Some values, at least one, with what every aggregation asks about them."""

    __slots__ = ("high", "low", "total", "values")

    def __init__(self, values: Sequence[float]) -> None:
        self.values = values
        self.low = min(values)
        self.high = max(values)
        self.total = sum(values)


Merge = Callable[[Any, Chunk, Measure], None]
"""Puts values into an aggregation of the SDK, of which the lock of its stream is held."""


class Merger:
    """Records lists of values in one histogram with the same attributes each time."""

    __slots__ = ("_attributes", "_boundaries", "_histogram", "_keys")

    def __init__(self, histogram: Any, attributes: Mapping[str, Any], boundaries: Sequence[float] = ()) -> None:
        self._histogram = histogram
        self._attributes = attributes
        self._boundaries = boundaries
        self._keys: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        """Where each of the SDK's streams has the series with these attributes."""

    def __call__(self, values: Sequence[float], spans: Sequence[SpanContext] = ()) -> None:
        """Record values; `spans` are the contexts of the spans that they belong to, one for each, if they do."""
        # Until there is a global provider, another instrument stands in for the real one.
        histogram = getattr(self._histogram, "_real_instrument", None) or self._histogram
        if spans:
            values = self._record_last(histogram, values, spans)
        if not values:
            return
        chunk = Chunk(values)
        if self._can_merge(histogram, chunk):
            self.merge(histogram, chunk)
        else:
            for value in values:
                histogram.record(value, self._attributes, NOWHERE)

    def _record_last(self, histogram: Any, values: Sequence[float], spans: Sequence[SpanContext]) -> Sequence[float]:
        """Record the last value of each bucket with its span, since the SDK keeps no more of them; returns the rest."""
        boundaries = self._boundaries
        last = {bisect_left(boundaries, value): index for index, value in enumerate(values)}
        for index in last.values():
            context = set_span_in_context(NonRecordingSpan(spans[index]), _EMPTY)
            histogram.record(values[index], self._attributes, context)
        chosen = set(last.values())
        return [value for index, value in enumerate(values) if index not in chosen]

    def merge(self, histogram: Any, chunk: Chunk) -> None:
        """Values into every stream that the readers and their views make of the SDK's histogram."""
        from opentelemetry.sdk.metrics._internal.measurement import Measurement  # noqa: PLC0415 - it need not be there

        def measure(value: float) -> Any:
            return Measurement(value, time.time_ns(), histogram, NOWHERE, self._attributes)

        for storage in histogram._measurement_consumer._reader_storages.values():
            for stream in storage._get_or_init_view_instrument_match(histogram):
                merge = _merges().get(type(stream._aggregation))
                if merge is not None:
                    self._merge_into(stream, chunk, measure, merge)
                else:
                    for value in chunk.values:
                        stream.consume_measurement(measure(value), False)

    def _can_merge(self, histogram: Any, chunk: Chunk) -> bool:
        """Return True if the histogram is the SDK's, switched on, takes all values, and keeps none as an exemplar."""
        if not is_sdk(type(histogram)) or not works():
            return False
        if chunk.low < 0 or not math.isfinite(chunk.total):
            return False
        if hasattr(histogram, "_is_enabled") and not histogram._is_enabled():
            return False
        exemplars = histogram._measurement_consumer._sdk_config.exemplar_filter
        return not exemplars.should_sample(chunk.low, time.time_ns(), self._attributes, NOWHERE)

    def _merge_into(self, stream: Any, chunk: Chunk, measure: Measure, merge: Merge) -> None:
        # Delta collections throw aggregations away under the same lock, so none is kept here.
        with stream._lock:
            aggregation = stream._attributes_aggregation.get(self._keys.get(stream))
            if aggregation is not None:
                merge(aggregation, chunk, measure)
                return
        stream.consume_measurement(measure(chunk.values[0]), False)  # the SDK makes the series, within its limit
        rest = chunk.values[1:]
        if not rest:
            return
        with stream._lock:
            aggregation = self._find(stream)
            if aggregation is not None:
                merge(aggregation, Chunk(rest), measure)
                return
        for value in rest:
            stream.consume_measurement(measure(value), False)

    def _find(self, stream: Any) -> Any:
        """The series in the SDK's table; None where it is beyond the limit, or was thrown away this moment."""
        kept = stream._view._attribute_keys
        attributes = {name: value for name, value in self._attributes.items() if kept is None or name in kept}
        for key, aggregation in stream._attributes_aggregation.items():
            if aggregation._attributes == attributes:
                self._keys[stream] = key
                return aggregation
        return None


def _explicit(aggregation: Any, chunk: Chunk, _: Measure) -> None:
    """Into fixed buckets; a value on a boundary belongs below it."""
    values, boundaries = chunk.values, aggregation._boundaries
    first, last = bisect_left(boundaries, chunk.low), bisect_left(boundaries, chunk.high)
    if last - first > _WORTH_SORTING:
        values = sorted(values)
    with aggregation._lock:
        if aggregation._value is None:
            aggregation._value = aggregation._get_empty_bucket_counts()
        counts = aggregation._value
        aggregation._sum += chunk.total
        if aggregation._record_min_max:
            aggregation._min = min(aggregation._min, chunk.low)
            aggregation._max = max(aggregation._max, chunk.high)
        done = 0
        for bucket in range(first, last):
            boundary = float(boundaries[bucket])
            if last - first > _WORTH_SORTING:
                upto = bisect_right(values, boundary, done)
            else:
                upto = sum(map(boundary.__ge__, values))
            counts[bucket] += upto - done
            done = upto
        counts[last] += len(values) - done


_WORTH_SORTING: Final = 2
"""Durations of one stage are often in the same bucket or two; up to so many boundaries between them it is faster to
count what is below each of them.
"""


def _exponential(aggregation: Any, chunk: Chunk, measure: Measure) -> None:
    """Into exponential buckets. A zero, the smallest and the largest go the SDK's way, so that its scale fits what is
    between them.
    """
    positive = sorted(filter(None, chunk.values))
    zeros = len(chunk.values) - len(positive)
    for value in (*([0.0] if zeros else ()), *positive[:1], *positive[1:][-1:]):
        aggregation.aggregate(measure(value), False)
    more_zeros, between = max(0, zeros - 1), positive[1:-1]
    with aggregation._lock:
        aggregation._count += more_zeros + len(between)
        aggregation._zero_count += more_zeros
        aggregation._sum += sum(between)
        buckets = aggregation._value_positive
        for index, count in Counter(map(aggregation._mapping.map_to_index, between)).items():
            place = index - buckets.index_base
            buckets.increment_bucket(place + len(buckets.counts) if place < 0 else place, count)


@functools.cache
def _merges() -> dict[type, Merge]:
    """Return how values are merged, by the class of the aggregation; for others the SDK's own way is taken."""
    from opentelemetry.sdk.metrics._internal import aggregation  # noqa: PLC0415 - it need not be there

    return {
        aggregation._ExplicitBucketHistogramAggregation: _explicit,
        aggregation._ExponentialBucketHistogramAggregation: _exponential,
        aggregation._DropAggregation: lambda *_: None,
    }


@tested
def works() -> bool | None:
    """Return True if this SDK is one with which merging gives what its public `record` gives."""
    return all(public == merged for public, merged in _comparisons())


_TEST_SCOPE: Final = "test"
_TEST_VALUES: Final = (0.0, 0.25, 0.0, 0.5, 4.0, 0.375, 1.0, 96.0, 0.5, 0.03125)


def _comparisons() -> Iterator[tuple[Any, Any]]:
    """Yield points of explicit and exponential histograms, cumulative and delta, in pairs: recorded in public, and
    merged. The sums are exact, so the order of adding does not matter.
    """
    from opentelemetry.sdk.metrics import Histogram, MeterProvider  # noqa: PLC0415 - it need not be there
    from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.metrics.view import (  # noqa: PLC0415
        ExplicitBucketHistogramAggregation,
        ExponentialBucketHistogramAggregation,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    aggregations = (ExplicitBucketHistogramAggregation((0.25, 0.5, 1, 50)), ExponentialBucketHistogramAggregation(4))
    temporalities = (AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA)
    readers = [
        InMemoryMetricReader({Histogram: temporality}, {Histogram: aggregation})
        for aggregation in aggregations
        for temporality in temporalities
    ]
    provider = MeterProvider(readers, Resource({}), shutdown_on_exit=False)
    histogram = provider.get_meter(_TEST_SCOPE).create_histogram("test")
    merger = Merger(histogram, {"kind": "merged"})
    for values in (_TEST_VALUES, _TEST_VALUES[::-2], _TEST_VALUES[2:3]):
        for value in values:
            histogram.record(value, {"kind": "public"}, NOWHERE)
        merger.merge(histogram, Chunk(values))
        for reader in readers:
            found = {point.attributes["kind"]: _numbers(point) for point in _points(reader)}
            yield found["public"], found["merged"]
    provider.shutdown()


def _points(reader: Any) -> Iterator[Any]:
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            if scope.scope.name == _TEST_SCOPE:  # the SDK may count what it does, too
                for metric in scope.metrics:
                    yield from metric.data.data_points


def _numbers(point: Any) -> dict[str, Any]:
    """All that a point says but for its times and attributes."""
    return {
        name: getattr(point, name)
        for name in point.__dataclass_fields__
        if name not in ("attributes", "start_time_unix_nano", "time_unix_nano")
    }
