"""Series start no later than the values in them, although these have waited in buffers.

This uses private parts of the SDK, so the last test runs all others once more on other SDKs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from forge import BatchRunner, Pipeline, Sample, stage
from forge_otel.signals.sdk import starts
from tests.support.runs import samples
from tests.support.sdk_versions import on_other_sdks, run_on
from tests.support.shortcuts import found_out_anew
from tests.support.telemetry import Recorded, recording

DELTA: dict[type, Any] = dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)


def readers() -> dict[str, InMemoryMetricReader]:
    return {
        "cumulative": InMemoryMetricReader(),
        "delta": InMemoryMetricReader(DELTA),
        "exponential": InMemoryMetricReader({}, {Histogram: ExponentialBucketHistogramAggregation()}),
    }


def points(reader: InMemoryMetricReader, *metrics: str) -> Iterator[Any]:
    data = reader.get_metrics_data()
    assert data is not None
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name in metrics:
                    yield from metric.data.data_points


class Moments:
    """When each sample was in the stage, and a pipeline that fails for some of them."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def pipeline(self, *data: int) -> Pipeline:
        @stage
        def one(sample: Sample) -> Sample:
            self.seen.append(time.time_ns())
            if sample.data < 0:
                raise ValueError("negative")
            return sample

        return Pipeline(name="p", source=samples(*data), stages=[one])


OF_ALL = ("forge.stage.duration", "forge.sample.duration", "forge.sample.settled", "forge.stage.failures")


@pytest.mark.parametrize("rate", [1.0, 0.0], ids=["traced", "untraced"])
@pytest.mark.parametrize("kind", ["cumulative", "delta", "exponential"])
def test_series_start_before_their_values(kind: str, rate: float) -> None:
    chosen = readers()[kind]
    moments = Moments()
    with recording(recorded=Recorded(readers=(chosen,), in_memory=False), zero_points=False, sampling_rate=rate):
        before = time.time_ns()
        BatchRunner().run(moments.pipeline(1, -1, 2)).drain()
        found = list(points(chosen, *OF_ALL))
        assert len(found) == 2 + 2 + 2 + 1  # with and without an error
        assert all(point.start_time_unix_nano <= before for point in found)
        assert all(point.start_time_unix_nano < point.time_unix_nano for point in found)


@pytest.mark.parametrize("kind", ["cumulative", "delta", "exponential"])
def test_a_later_series_starts_at_the_collection_before(kind: str) -> None:
    chosen = readers()[kind]
    moments = Moments()
    with recording(recorded=Recorded(readers=(chosen,), in_memory=False), zero_points=False):
        BatchRunner().run(moments.pipeline(1)).drain()
        first = list(points(chosen, *OF_ALL))
        BatchRunner().run(moments.pipeline(1, -1)).drain()
        second = list(points(chosen, *OF_ALL))
    collected, earliest = first[0].time_unix_nano, first[0].start_time_unix_nano
    known = [dict(point.attributes) for point in first]
    assert len(second) > len(first)
    for point in second:
        is_new = dict(point.attributes) not in known
        if is_new:
            assert earliest < point.start_time_unix_nano <= collected < moments.seen[1]
        else:
            assert point.start_time_unix_nano == (collected if kind == "delta" else earliest)


def test_without_the_private_parts_series_start_when_the_sdk_has_them_start() -> None:
    chosen = InMemoryMetricReader()
    with (
        found_out_anew("off"),
        recording(recorded=Recorded(readers=(chosen,), in_memory=False), zero_points=False),
    ):
        assert not starts.works()
        moments = Moments()
        BatchRunner().run(moments.pipeline(1)).drain()
        assert all(point.start_time_unix_nano > moments.seen[0] for point in points(chosen, "forge.stage.duration"))


def test_this_sdk_is_known() -> None:
    assert starts.works()


@pytest.mark.slow
@on_other_sdks
def test_all_of_this_on_other_sdks(sdk: str) -> None:
    run_on(sdk, __file__)
