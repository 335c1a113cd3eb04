"""Merging values into the SDK's histograms gives what recording them one by one gives; in the whole and with threads.

It uses private parts of the SDK, so the last test runs all others once more on the oldest SDK that is supported.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    LastValueAggregation,
    SumAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext

from forge_otel.signals.sdk import histograms
from forge_otel.signals.sdk.histograms import Merger
from tests.support.sdk_versions import on_other_sdks, run_on
from tests.support.shortcuts import found_out_anew

BOUNDARIES = (0.25, 0.5, 1, 50)
ATTRIBUTES = {"pipeline": "p", "stage": "s"}
# Sums of these are exact, so it does not matter in which order they are added.
CHUNKS = ([0.5], [0.0, 0.25, 96.0, 0.375, 0.0, 1.0, 0.5], [2.0**-30, 2.0**20], [0.0, 0.0], [0.75] * 600)


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """What a collection gives, but for the times."""
    data = reader.get_metrics_data()
    return {
        metric.name: [
            {n: v for n, v in vars_of(point).items() if n not in ("start_time_unix_nano", "time_unix_nano")}
            for point in metric.data.data_points
        ]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def vars_of(point: Any) -> dict[str, Any]:
    return {name: getattr(point, name) for name in point.__dataclass_fields__}


class Side:
    """A provider with readers, and a histogram."""

    def __init__(self, readers: list[InMemoryMetricReader], views: tuple[View, ...], **more: Any) -> None:
        self.readers = readers
        self.provider = MeterProvider(readers, Resource({}), shutdown_on_exit=False, views=views, **more)
        meter = self.provider.get_meter("test")
        self.histogram = meter.create_histogram("h", explicit_bucket_boundaries_advisory=BOUNDARIES)


def both(make_readers: Any = None, views: tuple[View, ...] = (), **more: Any) -> tuple[Side, Side]:
    make_readers = make_readers or (lambda: [InMemoryMetricReader()])
    return Side(make_readers(), views, **more), Side(make_readers(), views, **more)


def assert_same(public: Side, merged: Side, attributes: dict[str, str] = ATTRIBUTES) -> None:
    """Write to both, and compare every collection of every reader."""
    merger = Merger(merged.histogram, attributes, BOUNDARIES)
    for chunk in CHUNKS:
        for value in chunk:
            public.histogram.record(value, attributes, histograms.NOWHERE)
        merger(chunk)
        for one, other in zip(public.readers, merged.readers, strict=True):
            assert points(one) == points(other)


AGGREGATIONS: dict[str, Aggregation] = {
    "explicit": ExplicitBucketHistogramAggregation(BOUNDARIES),
    "without minimum": ExplicitBucketHistogramAggregation(BOUNDARIES, record_min_max=False),
    "exponential": ExponentialBucketHistogramAggregation(),
    "small exponential": ExponentialBucketHistogramAggregation(max_size=4),
    "drop": DropAggregation(),
    "sum": SumAggregation(),
    "last value": LastValueAggregation(),
}


@pytest.fixture(autouse=True)
def _it_works() -> None:
    assert histograms.works()


@pytest.mark.parametrize("aggregation", AGGREGATIONS.values(), ids=AGGREGATIONS.keys())
@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
def test_aggregations(aggregation: Aggregation, temporality: AggregationTemporality) -> None:
    assert_same(*both(lambda: [InMemoryMetricReader({Histogram: temporality}, {Histogram: aggregation})]))


def test_readers_of_different_kinds() -> None:
    def readers() -> list[InMemoryMetricReader]:
        return [
            InMemoryMetricReader(),
            InMemoryMetricReader({Histogram: AggregationTemporality.DELTA}),
            InMemoryMetricReader(preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()}),
        ]

    assert_same(*both(readers))


VIEWS: dict[str, tuple[View, ...]] = {
    "fewer attributes": (View(instrument_name="h", attribute_keys={"stage"}),),
    "no attributes": (View(instrument_name="h", attribute_keys=set()),),
    "renamed": (View(instrument_name="h", name="renamed"),),
    "other boundaries": (View(instrument_name="h", aggregation=ExplicitBucketHistogramAggregation((2, 4))),),
    "dropped": (View(instrument_name="h", aggregation=DropAggregation()),),
    "twice": (
        View(instrument_name="h", name="one", attribute_keys={"stage"}),
        View(instrument_name="h", name="two", aggregation=ExponentialBucketHistogramAggregation()),
    ),
    "of another one": (View(instrument_name="other", aggregation=DropAggregation()),),
}


@pytest.mark.parametrize("views", VIEWS.values(), ids=VIEWS.keys())
def test_views(views: tuple[View, ...]) -> None:
    assert_same(*both(views=views))


def test_several_series() -> None:
    public, merged = both(views=(View(instrument_name="h", attribute_keys={"stage"}),))
    for name in ("a", "b", "c"):
        assert_same(public, merged, {"pipeline": "p", "stage": name})
        assert_same(public, merged, {"pipeline": "other", "stage": name})


def test_cardinality_limit_of_the_sdk() -> None:
    try:
        views = (View(instrument_name="h", aggregation_cardinality_limit=2),)
    except TypeError:
        pytest.skip("this SDK has no cardinality limit; newer ones have")
    public, merged = both(views=views)
    for name in ("a", "b", "c", "d"):
        assert_same(public, merged, {"stage": name})
    (series,) = points(merged.readers[0]).values()
    assert [point["attributes"] for point in series] == [
        {"stage": "a"},
        {"stage": "b"},
        {"otel.metric.overflow": True},
    ]


def test_values_that_the_sdk_refuses(caplog: pytest.LogCaptureFixture) -> None:
    public, merged = both()
    values = [1.0, -1.0, float("inf"), 2.0]  # older SDKs take what is infinite
    for value in values:
        public.histogram.record(value, ATTRIBUTES, histograms.NOWHERE)
    Merger(merged.histogram, ATTRIBUTES)(values)
    assert points(public.readers[0]) == points(merged.readers[0])
    assert [record.getMessage() for record in caplog.records[: len(caplog.records) // 2]] == [
        record.getMessage() for record in caplog.records[len(caplog.records) // 2 :]
    ]


def test_exemplars_of_those_who_want_one_of_everything() -> None:
    public, merged = both(exemplar_filter=AlwaysOnExemplarFilter())
    for value in (0.1, 0.3):
        public.histogram.record(value, ATTRIBUTES, histograms.NOWHERE)
    Merger(merged.histogram, ATTRIBUTES)([0.1, 0.3])
    for side in (public, merged):
        (point,) = points(side.readers[0])["h"]
        assert [exemplar.value for exemplar in point["exemplars"]] == [0.1, 0.3]


def test_exemplars_of_spans_are_those_that_the_sdk_would_keep() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    spans: list[SpanContext] = [tracer.start_span(str(number)).get_span_context() for number in range(5)]
    _, merged = both()
    values = (0.1, 0.2, 0.3, 60.0, 0.15)
    merger = Merger(merged.histogram, ATTRIBUTES, BOUNDARIES)
    merger([0.4, 0.7])
    merger(values, spans)
    (point,) = points(merged.readers[0])["h"]
    assert (point["count"], point["bucket_counts"]) == (7, (3, 2, 1, 0, 1))
    found = {exemplar.value: exemplar.span_id for exemplar in point["exemplars"]}
    # The last one of each bucket.
    assert found == {0.15: spans[4].span_id, 0.3: spans[2].span_id, 60.0: spans[3].span_id}


def test_an_instrument_that_is_not_the_sdks() -> None:
    recorded: list[float] = []

    class Own(type(NoOpMeter("own").create_histogram("h"))):  # type: ignore[misc]
        def record(self, amount: float, attributes: Any = None, context: Any = None) -> None:
            recorded.append(amount)

    Merger(Own("h"), ATTRIBUTES)([2.0, 1.0])
    assert sorted(recorded) == [1.0, 2.0]


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Notes what is recorded in public."""
    recorded: list[float] = []
    record = Histogram.record

    def noted(self: Histogram, amount: float, *arguments: Any) -> None:
        recorded.append(amount)
        record(self, amount, *arguments)

    monkeypatch.setattr(Histogram, "record", noted)
    return recorded


def test_it_is_merged_unless_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = one_by_one(monkeypatch)
    assert_same(*both())
    public = len(recorded)
    assert public == sum(map(len, CHUNKS))
    with found_out_anew("off"):
        assert_same(*both())
    assert len(recorded) == 3 * public


@pytest.mark.parametrize("fault", ["different", "missing"])
def test_an_sdk_with_which_it_does_not_work(fault: str) -> None:
    with found_out_anew() as patch:
        if fault == "different":
            patch.setattr(histograms, "_explicit", lambda *_: None)
        else:
            patch.delattr(Merger, "_find")
        assert not histograms.works()
        recorded = one_by_one(patch)
        assert_same(*both())
        assert len(recorded) == 2 * sum(map(len, CHUNKS))


@pytest.mark.parametrize("aggregation", ["explicit", "exponential"])
def test_threads_that_write_while_others_collect(aggregation: str) -> None:
    readers = [
        InMemoryMetricReader({Histogram: AggregationTemporality.DELTA}, {Histogram: AGGREGATIONS[aggregation]}),
        InMemoryMetricReader(preferred_aggregation={Histogram: AGGREGATIONS[aggregation]}),
    ]
    side = Side(readers, ())
    threads, rounds = 4, 200
    chunk = [0.0, 0.125, 0.75, 64.0]

    def write() -> None:
        merger = Merger(side.histogram, ATTRIBUTES)
        for _ in range(rounds):
            merger(chunk)
            side.histogram.record(0.5, ATTRIBUTES, histograms.NOWHERE)

    working = [threading.Thread(target=write) for _ in range(threads)]
    for thread in working:
        thread.start()
    deltas: list[Any] = []
    while any(thread.is_alive() for thread in working):
        deltas += points(readers[0]).get("h", [])
    for thread in working:
        thread.join()
    deltas += points(readers[0]).get("h", [])
    (total,) = points(readers[1])["h"]
    expected = threads * rounds * (len(chunk) + 1)
    assert total["count"] == sum(point["count"] for point in deltas) == expected
    assert total["sum"] == sum(point["sum"] for point in deltas) == threads * rounds * (sum(chunk) + 0.5)


@pytest.mark.slow
@on_other_sdks
def test_all_of_this_on_other_sdks(sdk: str) -> None:
    run_on(sdk, __file__)
