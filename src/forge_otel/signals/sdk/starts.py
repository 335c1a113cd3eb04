"""Start times of series in the SDK: no later than the values in them.

The SDK lets a series start when its first value is written. Ours have waited in a buffer by then, so it would start
after them, and a backend that puts a zero there would see no increase.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import is_sdk, tested


def start_before(instrument: Any, attributes: Mapping[str, Any], since: int) -> bool:
    """Let a series that was just made start at a Unix time in nanoseconds, if that is earlier.

    Returns False as long as there is no provider that could have made it.
    """
    # Until there is a global provider, another instrument stands in for the real one.
    real = getattr(instrument, "_real_instrument", instrument)
    if real is None:
        return False
    if is_sdk(type(real)) and works():
        _lower(real, attributes, since)
    return True


def _lower(instrument: Any, attributes: Mapping[str, Any], since: int) -> None:
    for storage in instrument._measurement_consumer._reader_storages.values():
        for stream in storage._get_or_init_view_instrument_match(instrument):
            # Series of a delta stream that was collected continue from there.
            if getattr(stream, "_previous_collection_start_nanos", None) is None:
                kept = stream._view._attribute_keys
                wanted = {name: value for name, value in attributes.items() if kept is None or name in kept}
                with stream._lock:
                    for aggregation in reversed(stream._attributes_aggregation.values()):  # the newest is the last
                        if aggregation._attributes == wanted:
                            _lower_start(aggregation, since)
                            break


def _lower_start(aggregation: Any, since: int) -> None:
    with aggregation._lock:
        began = getattr(aggregation, "_start_time_unix_nano", None)
        # Other aggregations have no start; one that was collected as a delta goes on from the collection.
        if began is not None and began == aggregation._previous_collection_start_nano and since < began:
            aggregation._start_time_unix_nano = aggregation._previous_collection_start_nano = since


@tested
def works() -> bool | None:
    """Return True if the series of this SDK start where they are told to, and are otherwise the same."""
    from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider  # noqa: PLC0415 - it need not be there
    from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

    deltas: dict[type, Any] = dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)
    exponential: dict[type, Any] = {Histogram: ExponentialBucketHistogramAggregation()}
    readers = [InMemoryMetricReader(), InMemoryMetricReader(deltas), InMemoryMetricReader({}, exponential)]
    provider = MeterProvider(readers, Resource({}), shutdown_on_exit=False)
    meter = provider.get_meter(_SCOPE)
    counter, histogram = meter.create_counter("counter"), meter.create_histogram("histogram")
    for instrument, write in ((counter, counter.add), (histogram, histogram.record)):
        for kind in ("first", "told"):
            write(1, {"kind": kind})
        _lower(instrument, {"kind": "told"}, 1)
    for collection in range(2):
        for reader in readers:
            starts = _starts(reader)
            is_continued = reader is readers[1] and collection > 0
            expected = {1} if not is_continued else starts["first"]
            if starts["told"] != expected or 1 in starts["first"]:
                return None
        counter.add(1, {"kind": "first"})
        histogram.record(1, {"kind": "first"})
        counter.add(1, {"kind": "told"})
        histogram.record(1, {"kind": "told"})
    provider.shutdown()
    return True


_SCOPE = "test"


def _starts(reader: Any) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"first": set(), "told": set()}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            if scope.scope.name == _SCOPE:  # the SDK may count what it does, too
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        found[point.attributes["kind"]].add(point.start_time_unix_nano)
    return found
