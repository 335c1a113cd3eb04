"""OTLP metrics as StatsD's lines, read back by a parser of the tests."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation

from forge_otel.exporters._lines import Encoder
from forge_otel.exporters.statsd import StatsDSettings
from forge_otel.semconv import metrics as m
from tests.support.otlp import counter, gauge, histogram, measured, request
from tests.support.statsd import Line, read

PLAIN: dict[str, Any] = {"flavor": "statsd"}


def lines(*metrics: Metric, instance: str = "", **settings: Any) -> list[str]:
    """The lines of a request, of which nothing was refused."""
    packets, refused = Encoder(StatsDSettings(**settings)).encode(request(*metrics, instance=instance))
    assert not refused
    return b"\n".join(packets).decode().split("\n") if packets else []


def refused(*metrics: Metric, **settings: Any) -> tuple[list[str], dict[str, int]]:
    packets, reasons = Encoder(StatsDSettings(**settings)).encode(request(*metrics))
    return b"\n".join(packets).decode().splitlines(), dict(reasons)


def test_our_metrics_have_the_names_and_tags_of_the_registry() -> None:
    found = lines(
        counter(
            "forge.stage.executions",
            (3, {"forge.pipeline.name": "p", "forge.stage.name": "decode", "forge.stage.outcome": "ok"}),
        ),
        histogram(
            "forge.stage.duration", measured([0.012], [0.01, 0.1], {"forge.stage.name": "decode", "error.type": "x"})
        ),
        counter("forge.stage.busy.time", (1.5, {"forge.stage.name": "decode"})),
    )

    assert found == [
        "forge.stage.executions:3|c|#pipeline:p,stage:decode,outcome:ok",
        "forge.stage.busy:1500|c|#stage:decode",
        "forge.stage.latency:12|h|#stage:decode",
    ]


def test_what_the_registry_keeps_out_of_statsd_is_not_sent() -> None:
    assert lines(gauge(m.FORGE_PIPELINE_END_TIMESTAMP.name, (1.7e9, {"forge.pipeline.name": "p"}))) == []


def test_metrics_of_others_keep_their_names_and_all_attributes() -> None:
    found = lines(
        counter("http.requests", (2, {"http.method": "GET", "http.status": 200, "cached": True})),
        histogram("http.duration", measured([0.25], [1.0]), unit="s"),
        histogram("http.size", measured([7.0], [10.0]), unit="By"),
    )

    assert found == [
        "http.requests:2|c|#cached:true,http.method:GET,http.status:200",
        "http.duration:250|h",
        "http.size:7|h",
    ]


def test_points_that_differ_only_in_what_is_no_tag_are_one_line() -> None:
    points = [
        (2, {"forge.stage.name": "a", "forge.stage.outcome": "skip", "forge.stage.skip_reason": reason})
        for reason in ("small", "old")
    ]
    assert lines(counter("forge.stage.executions", *points)) == ["forge.stage.executions:4|c|#stage:a,outcome:skip"]

    depths = [(1, {"queue": "a"}), (-5, {"queue": "b"})]
    assert lines(gauge("depth", *depths), dimensions="drop", gauges=True) == ["depth:0|g", "depth:-4|g"]


def test_plain_statsd_has_attributes_in_the_name_and_no_gauges() -> None:
    metrics = [
        counter("forge.stage.executions", (3, {"forge.stage.name": "a.b", "forge.stage.outcome": "ok"})),
        gauge("depth", (1, {})),
    ]
    assert lines(*metrics, **PLAIN) == ["forge.stage.executions._.a_b.ok:3|c"]
    assert lines(*metrics, **PLAIN, dimensions="drop", gauges=True) == ["forge.stage.executions:3|c", "depth:1|g"]
    assert lines(*metrics, **PLAIN, dimensions="tags") == [
        "forge.stage.executions:3|c|#stage:a.b,outcome:ok",
        "depth:1|g",
    ]


def test_gauges_of_several_processes_are_kept_apart_where_there_are_tags() -> None:
    metrics = [gauge("depth", (1, {"queue": "a"})), counter("done", (1, {}))]
    assert lines(*metrics, instance="i-1") == ["done:1|c", "depth:1|g|#queue:a,instance:i-1"]
    assert lines(*metrics, instance="i-1", instance_tag=False) == ["done:1|c", "depth:1|g|#queue:a"]
    assert lines(*metrics, instance="i-1", gauges=False) == ["done:1|c"]


def test_a_negative_gauge_is_set_and_not_changed() -> None:
    found = lines(gauge("depth", (-2.5, {})), counter("active", (-4, {}), cumulative=True, monotonic=False))
    assert found == ["depth:0|g", "depth:-2.5|g", "active:0|g", "active:-4|g"]


def test_a_delta_that_may_fall_is_a_counter() -> None:
    assert lines(counter("active", (-4, {}), monotonic=False)) == ["active:-4|c"]


def test_large_and_small_numbers_have_no_exponent() -> None:
    found = lines(counter("n", (1e21, {"a": 1}), (1e-9, {"a": 2}), (2**63 - 1, {"a": 3}), (0, {"a": 4})))
    assert found == [
        "n:1000000000000000000000|c|#a:1",
        "n:0.000000001|c|#a:2",
        "n:9223372036854775807|c|#a:3",
        "n:0|c|#a:4",
    ]


def test_a_summary_instead_of_values() -> None:
    metric = histogram("latency", measured([0.001, 0.3], [0.01, 1.0], {"a": "b"}), unit="s")
    assert lines(metric, histograms="summary", instance="i") == [
        "latency.count:2|c|#a:b",
        "latency.sum:301|c|#a:b",
        "latency.min:1|g|#a:b,instance:i",
        "latency.max:300|g|#a:b,instance:i",
    ]
    assert lines(metric, histograms="summary", **PLAIN) == ["latency.a.b.count:2|c", "latency.a.b.sum:301|c"]


def test_what_statsd_has_no_form_for_is_refused() -> None:
    summary = Metric(name="quantiles", summary=Summary(data_points=[SummaryDataPoint(count=1)]))
    broken = measured([1.0], [2.0])
    broken.bucket_counts.append(1)
    uneven = measured([1.0], [2.0])
    uneven.count = 5
    descending = measured([1.0], [2.0])
    descending.explicit_bounds[:] = [float("nan")]

    found, reasons = refused(
        counter("total", (1, {"a": 1}), (2, {"a": 2}), cumulative=True),
        histogram("times", measured([1.0], [2.0]), cumulative=True),
        summary,
        counter("ratio", (float("nan"), {"a": 1}), (float("inf"), {"a": 1}), (1.0, {"a": 1})),
        histogram("broken", broken, uneven, descending),
        Metric(name="empty"),
    )

    assert found == ["ratio:1|c|#a:1"]
    assert reasons == {
        "total: cumulative; send deltas": 2,
        "times: cumulative; send deltas": 1,
        "quantiles: a summary, whose quantiles cannot be added up": 1,
        "ratio: nan is not a number that StatsD accepts": 1,
        "ratio: inf is not a number that StatsD accepts": 1,
        "broken: 3 buckets with 1 bounds between them": 1,
        "broken: a count of 5, but 1 in its buckets": 1,
        "broken: bounds that do not ascend": 1,
    }


def test_a_timer_cannot_be_negative() -> None:
    metric = histogram("drift", measured([-2.0, -1.0, 3.0], [0.0, 3.0]))
    found, reasons = refused(metric, **PLAIN)
    assert [line.split(":")[0] for line in found] == ["drift"]
    assert reasons == {"drift: a timer cannot be negative": 2}
    assert sum(values_of(read([line.encode() for line in lines(metric)]))) == pytest.approx(0)


def test_points_without_a_value_are_none() -> None:
    metric = counter("n", (1, {}))
    metric.sum.data_points[0].flags = DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
    assert lines(metric) == []


def test_a_line_that_no_packet_holds_is_refused() -> None:
    tags = {f"{number:050d}": "x" * 200 for number in range(8)}
    long, short = counter("long", (1, tags)), counter("short", (1, {}))
    assert refused(long, short) == (["short:1|c"], {"long: too many tags: its line is longer than a packet": 1})
    assert len(lines(long, short, socket="/run/statsd.sock")) == 2


def values_of(found: Sequence[Line]) -> list[float]:
    """What lines stand for, in order."""
    return sorted(value for line in found for value in [line.value] * line.weight)


def bucket_of(value: float, bounds: Sequence[float]) -> int:
    return sum(value > bound for bound in bounds)


BOUNDS = st.lists(st.integers(1, 10_000), min_size=1, max_size=8, unique=True).map(
    lambda bounds: [bound / 8 for bound in sorted(bounds)]
)
"""In eighths, so that sums are exact."""
ROUNDING = 1e-9
VALUES = st.lists(st.integers(0, 20_000).map(lambda value: value / 8), min_size=1, max_size=60)


@pytest.mark.slow
@given(values=VALUES, bounds=BOUNDS, flavor=st.sampled_from(["dogstatsd", "statsd"]))
def test_a_histogram_keeps_count_and_sum_and_every_value_its_bucket(
    values: list[float], bounds: list[float], flavor: str
) -> None:
    settings: Any = {"flavor": flavor}
    found = read(
        Encoder(StatsDSettings(**settings)).encode(request(histogram("h", measured(values, bounds)))).packets, flavor
    )
    stand_ins = values_of(found)

    assert len(stand_ins) == len(values)
    assert sum(stand_ins) == pytest.approx(sum(values), rel=1e-12)
    for real, stand_in in zip(sorted(values), stand_ins, strict=True):
        number = bucket_of(real, bounds)
        lower = max([min(values), *bounds[:number]])
        upper = min([max(values), *bounds[number:]])
        assert lower - ROUNDING <= stand_in <= upper + ROUNDING
    assert len(found) == len(values)


@pytest.mark.slow
@given(values=VALUES, bounds=BOUNDS)
def test_a_histogram_without_extremes_keeps_count_and_sum(values: list[float], bounds: list[float]) -> None:
    """The Collector's `cumulative_to_delta` takes them away."""
    point = measured(values, bounds, extremes=False)
    stand_ins = values_of(read(Encoder(StatsDSettings()).encode(request(histogram("h", point))).packets))

    assert len(stand_ins) == len(values)
    assert sum(stand_ins) == pytest.approx(sum(values), rel=1e-12)
    for real, stand_in in zip(sorted(values), stand_ins, strict=True):
        number = bucket_of(real, bounds)
        if number < len(bounds):  # the last has no end
            assert max([0.0, *bounds[:number]]) - ROUNDING <= stand_in <= bounds[number] + ROUNDING


@pytest.mark.slow
@given(values=st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=60))
def test_an_exponential_histogram(values: list[float]) -> None:
    aggregation: dict[type, Aggregation] = {Histogram: ExponentialBucketHistogramAggregation(max_size=20)}
    reader = InMemoryMetricReader({Histogram: AggregationTemporality.DELTA}, aggregation)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    recorder = provider.get_meter("test").create_histogram("h")
    for value in values:
        recorder.record(value)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    stand_ins = values_of(read(Encoder(StatsDSettings()).encode(encode_metrics(data)).packets))

    assert len(stand_ins) == len(values)
    assert sum(stand_ins) == pytest.approx(sum(values), rel=1e-9)
    assert min(stand_ins) >= min(values) * (1 - 1e-9)
    assert max(stand_ins) <= max(values) * (1 + 1e-9)


def test_both_sides_of_an_exponential_histogram() -> None:
    sides = ExponentialHistogramDataPoint.Buckets
    point = ExponentialHistogramDataPoint(
        count=7,
        sum=20.0,
        scale=0,
        zero_count=2,
        positive=sides(offset=1, bucket_counts=[1, 0, 2]),
        negative=sides(offset=-1, bucket_counts=[2]),
    )
    data = ExponentialHistogram(data_points=[point], aggregation_temporality=AGGREGATION_TEMPORALITY_DELTA)

    found = read(Encoder(StatsDSettings()).encode(request(Metric(name="h", exponential_histogram=data))).packets)

    # From -1 to -0.5, 0, from 2 to 4, and from 8 to 16.
    assert [bucket_of(value, [-0.5, -1e-9, 0, 4]) for value in values_of(found)] == [0, 0, 2, 2, 3, 4, 4]
    assert values_of(found)[2:4] == [0, 0]
    assert sum(values_of(found)) == pytest.approx(20)


def test_a_histogram_that_has_only_a_count_and_a_sum() -> None:
    point = measured([1.0, 2.0, 6.0], [])
    del point.bucket_counts[:]
    point.ClearField("min")
    point.ClearField("max")
    assert lines(histogram("h", point)) == ["h:3|h"] * 3


@pytest.mark.parametrize("extremes", [True, False])
@pytest.mark.parametrize("median", [0.0025, 0.03, 0.37, 2.7])
def test_percentiles_of_durations_are_off_by_less_than_a_fifth(median: float, extremes: bool) -> None:
    """As the documentation says."""
    chance = random.Random(1)
    values = sorted(chance.lognormvariate(math.log(median), 1.0) for _ in range(5000))
    bounds = m.FORGE_STAGE_DURATION.boundaries
    assert bounds is not None
    point = measured(values, bounds, extremes=extremes)
    stand_ins = values_of(read([line.encode() for line in lines(histogram("h", point, unit="s"))]))
    assert len(stand_ins) == len(values)
    for part in (0.5, 0.9, 0.95, 0.99):
        rank = int(part * len(values))
        assert stand_ins[rank] == pytest.approx(values[rank] * 1000, rel=0.2)


@pytest.mark.parametrize("flavor", ["dogstatsd", "statsd"])
def test_more_values_than_lines_are_allowed(flavor: str) -> None:
    values = [float(number % 10) for number in range(100_000)]
    metric = histogram("h", measured(values, [float(bound) for bound in range(10)]))

    found = read([line.encode() for line in lines(metric, flavor=flavor, max_values=1000)], flavor)

    assert len(found) == 1000
    assert values_of(found) == sorted(values)


@pytest.mark.slow
def test_a_request_with_many_histograms_does_not_become_a_thousand_times_as_many_lines() -> None:
    points = [measured([1.0], [2.0], {"of": number}) for number in range(2000)]
    for point in points:
        point.count = point.bucket_counts[0] = point.sum = 1000
    found = read([line.encode() for line in lines(histogram("h", *points), **PLAIN)], "statsd")
    assert len(found) == 200_000
    assert sum(line.weight for line in found) == 2_000_000


@pytest.mark.slow
@given(values=VALUES, bounds=BOUNDS, most=st.integers(1, 50))
def test_lines_that_stand_for_several_values_keep_the_sum(values: list[float], bounds: list[float], most: int) -> None:
    metric = histogram("h", measured(values, bounds))
    found = read([line.encode() for line in lines(metric, max_values=most)])
    assert sum(line.weight for line in found) == len(values)
    assert sum(values_of(found)) == pytest.approx(sum(values), rel=1e-12)


@given(weight=st.integers(1, 10**12))
def test_a_daemon_that_cuts_off_fractions_counts_right(weight: int) -> None:
    point = measured([1.0], [2.0])
    point.count = point.bucket_counts[0] = weight
    point.sum = weight
    found = read([line.encode() for line in lines(histogram("h", point), max_values=3)])
    assert sum(line.weight for line in found) == weight
    assert len(found) == min(weight, 3)


HOSTILE = st.one_of(
    st.text(max_size=12),
    st.text(alphabet=":|@#,;=\n\r\t \0\"'\\äß\u2028😀-._/a1", max_size=30),
    st.text(min_size=150, max_size=300),
)
SETTINGS = st.fixed_dictionaries(
    {
        "flavor": st.sampled_from(["dogstatsd", "statsd"]),
        "dimensions": st.sampled_from(["tags", "name", "drop", None]),
        "histograms": st.sampled_from(["values", "summary"]),
        "gauges": st.sampled_from([True, False, None]),
        "socket": st.sampled_from(["", "/run/statsd.sock"]),
        "tags": st.sampled_from(["", "team:ml,canary,url:http://a:1"]),
        "service": HOSTILE.filter(str.isprintable),
        "entity_id": HOSTILE.filter(str.isprintable),
        "name_template": st.sampled_from(["{name}.{tags}", "x.{service}.{pipeline}.{name}.{tags}.{instance}"]),
    }
)
RESOURCE = st.fixed_dictionaries(
    {}, optional={"service.name": HOSTILE, "deployment.environment.name": HOSTILE, "service.version": HOSTILE}
)
POINTS = st.lists(st.tuples(st.integers(-(2**40), 2**40), st.dictionaries(HOSTILE, HOSTILE, max_size=3)), max_size=20)


@pytest.mark.slow
@given(name=HOSTILE, points=POINTS, instance=HOSTILE, resource=RESOURCE, chosen=SETTINGS)
def test_nothing_breaks_out_of_a_line_and_counters_add_up(
    name: str, points: list[tuple[float, Any]], instance: str, resource: dict[str, str], chosen: dict[str, Any]
) -> None:
    settings = StatsDSettings(**chosen)
    sent = request(
        counter(name, *points),
        gauge(name, *points),
        histogram(name, *(measured([float(abs(value))], [1.0, 100.0], attributes) for value, attributes in points)),
        instance=instance,
        resource=resource,
    )
    packets, reasons = Encoder(settings).encode(sent)

    assert all(reason.endswith("too many tags: its line is longer than a packet") for reason in reasons)
    assert all(len(packet) <= settings.packet_size for packet in packets)
    counters = [line for line in read(packets, settings.flavor) if line.kind == "c"]
    if settings.histograms == "values" and not reasons:
        assert sum(Fraction(line.value) for line in counters) == sum(value for value, _ in points)
    for place, group in groupby(sorted(counters, key=str), key=lambda line: (line.name, sorted(line.tags))):
        assert len(list(group)) == 1, place


ANY = st.floats()
COUNTS = st.lists(st.integers(0, 2**62), max_size=4)
POINT = st.builds(
    HistogramDataPoint, sum=ANY, min=ANY, max=ANY, bucket_counts=COUNTS, explicit_bounds=st.lists(ANY, max_size=3)
)
SIDES = st.builds(ExponentialHistogramDataPoint.Buckets, offset=st.integers(-(2**31), 2**31 - 1), bucket_counts=COUNTS)
EXPONENTIAL = st.builds(
    ExponentialHistogramDataPoint,
    sum=ANY,
    min=ANY,
    max=ANY,
    scale=st.integers(-(2**31), 2**31 - 1) | st.integers(-12, 20),
    positive=SIDES,
    negative=SIDES,
    zero_threshold=ANY,
)


@pytest.mark.slow
@given(point=st.one_of(POINT, EXPONENTIAL), unit=st.sampled_from(["s", "By"]), chosen=SETTINGS)
def test_no_histogram_makes_lines_that_are_none(point: Any, unit: str, chosen: dict[str, Any]) -> None:
    """Whatever a sender may have put into it."""
    metric = Metric(name="h", unit=unit)
    kind = "histogram"
    if isinstance(point, HistogramDataPoint):
        point.count = min(sum(point.bucket_counts), 2**64 - 1)
    else:
        kind = "exponential_histogram"
        point.count = min(sum(point.positive.bucket_counts) + sum(point.negative.bucket_counts), 2**64 - 1)
    data = getattr(metric, kind)
    data.aggregation_temporality = AGGREGATION_TEMPORALITY_DELTA
    data.data_points.append(point)

    settings = StatsDSettings(**chosen)
    read(Encoder(settings).encode(request(metric)).packets, settings.flavor)
