"""Usage and costs in spans, metrics and events."""

from __future__ import annotations

import asyncio
import decimal
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from forge import (
    BatchRunner,
    Measurement,
    Pipeline,
    Price,
    Prices,
    RetryPolicy,
    Sample,
    Skip,
    SQLStorage,
    StreamingRunner,
    stage,
    usage,
)
from forge.runner import Runner
from forge_otel.semconv import metrics
from forge_otel.signals.metrics import SeriesTable
from tests.support.clock import FakeClock
from tests.support.runs import both_runners, samples
from tests.support.telemetry import Recorded, recording

PRICES = Prices(
    [
        Price(
            provider="openai",
            model="small",
            per=Decimal(1000),
            input_price=Decimal("0.0001"),
            output_price=Decimal("0.0003"),
        )
    ],
    public=False,
)


def said(recorded: Recorded, name: str) -> list[tuple[Any, ...]]:
    """What the spans of this name say of calls, tokens sent and received, and money; sorted."""
    names = ("forge.usage.calls", "forge.usage.input_tokens", "forge.usage.output_tokens", "forge.cost.amount")
    found = [tuple((span.attributes or {}).get(each) for each in names) for span in recorded.spans if span.name == name]
    return sorted(found, key=str)


@stage
def ask(sample: Sample) -> Sample | Skip:
    usage.report(provider="openai", model="small", input_tokens=1000 * sample.data, output_tokens=1000)
    if sample.data == 3:
        usage.report(provider="openai", model="unknown", calls=2, input_tokens=10)
        return Skip("three")
    return sample


@stage(retry=RetryPolicy(max_attempts=2, initial_delay=0, retry_on=lambda _: True))
def look(sample: Sample) -> Sample:
    usage.report(provider="ocr", amount=0.25)
    if sample.data == 2:
        raise ValueError("two")
    return sample


@stage
def silent(sample: Sample) -> Sample:
    return sample


@both_runners
@pytest.mark.parametrize("batch_size", [None, 2])
def test_failed_calls_have_a_class_and_are_never_unpriced(runner: Runner, batch_size: int | None) -> None:
    def fail(_: Any) -> Any:
        usage.report(provider="openai", model="unknown", error=ConnectionError(), calls=2)
        raise ValueError("no answer")

    failing = stage(name="ask", batch_size=batch_size)(fail)
    with recording() as recorded:
        runner.run(Pipeline(name="p", source=samples(1, 2), stages=[failing], prices=PRICES)).drain()
    of = "stage.name=ask, gen_ai.provider.name=openai, gen_ai.request.model=unknown"
    calls = {
        f"error.type=network_error, cost.use={use}, pipeline.name=p, {of}": count
        for use, count in ({"failed": 4} if batch_size is None else {"retried": 2, "failed": 4}).items()
    }
    points = recorded.points
    assert points["forge.cost.calls"] == calls
    assert "forge.cost.unpriced" not in points
    assert "forge.cost.amount" not in points


@both_runners
@pytest.mark.parametrize("settings", [{}, {"events": "all"}], ids=["lanes", "calls"])
def test_usage_on_spans_and_costs_in_metrics(runner: Runner, settings: dict[str, Any]) -> None:
    pipeline = Pipeline(name="p", source=samples(1, 2, 3), stages=[ask, look, silent], prices=PRICES)
    with recording(**settings) as recorded:
        result = runner.run(pipeline).drain()
    assert said(recorded, "forge.stage ask") == [
        (1, 1000, 1000, 0.0004),
        (1, 2000, 1000, 0.0005),
        (3, 3010, 1000, 0.0006),
    ]
    assert said(recorded, "forge.stage look") == [(1, None, None, 0.25), (2, None, None, 0.5)]
    assert said(recorded, "forge.stage silent") == [(None, None, None, None)]
    assert said(recorded, "forge.sample") == [
        (2, 1000, 1000, 0.2504),
        (3, 2000, 1000, 0.5005),
        (3, 3010, 1000, 0.0006),
    ]
    assert result.cost.amount == Decimal("0.7515")
    assert said(recorded, "forge.pipeline p") == [(8, 6010, 3000, 0.7515)]
    (summary,) = (event for event in recorded.events if event.name == "forge.pipeline.summary")
    assert summary.attributes["forge.cost.amount"] == 0.7515
    small = "pipeline.name=p, stage.name=ask, gen_ai.provider.name=openai, gen_ai.request.model=small"
    unknown = small.replace("small", "unknown")
    ocr = "pipeline.name=p, stage.name=look, gen_ai.provider.name=ocr"
    points = recorded.points
    assert points["forge.cost.calls"] == {
        f"cost.use=useful, {small}": 1,
        f"cost.use=failed, {small}": 1,
        f"cost.use=skipped, {small}": 1,
        f"cost.use=skipped, {unknown}": 2,
        f"cost.use=useful, {ocr}": 1,
        f"cost.use=retried, {ocr}": 1,
        f"cost.use=failed, {ocr}": 1,
    }
    assert points["forge.cost.amount"] == {
        f"cost.use=useful, {small}": 0.0004,
        f"cost.use=failed, {small}": 0.0005,
        f"cost.use=skipped, {small}": 0.0006,
        f"cost.use=useful, {ocr}": 0.25,
        f"cost.use=retried, {ocr}": 0.25,
        f"cost.use=failed, {ocr}": 0.25,
    }
    assert points["forge.cost.tokens"] == {
        f"cost.use=useful, {small}, gen_ai.token.type=input": 1000,
        f"cost.use=failed, {small}, gen_ai.token.type=input": 2000,
        f"cost.use=skipped, {small}, gen_ai.token.type=input": 3000,
        f"cost.use=skipped, {unknown}, gen_ai.token.type=input": 10,
        f"cost.use=useful, {small}, gen_ai.token.type=output": 1000,
        f"cost.use=failed, {small}, gen_ai.token.type=output": 1000,
        f"cost.use=skipped, {small}, gen_ai.token.type=output": 1000,
    }
    assert points["forge.cost.unpriced"] == {unknown: 2}


@pytest.mark.slow
@both_runners
def test_late_spans_say_what_was_used(runner: Runner) -> None:
    pipeline = Pipeline(name="p", source=samples(1, 2, 3), stages=[ask, look, silent], prices=PRICES)
    with recording(sampling_rate=0.0) as recorded:
        runner.run(pipeline).drain()
    assert said(recorded, "forge.stage ask") == [(1, 2000, 1000, 0.0005)]
    assert said(recorded, "forge.stage look") == [(2, None, None, 0.5)]
    assert said(recorded, "forge.sample") == [(3, 2000, 1000, 0.5005)]
    assert said(recorded, "forge.pipeline p") == [(8, 6010, 3000, 0.7515)]


@stage(batch_size=2)
async def ask_together(items: list[Sample]) -> list[Sample]:
    await asyncio.to_thread(usage.report, provider="openai", model="small", input_tokens=1001)
    return items


class Vector(Measurement):
    key = "vector"

    def compute(self, sample: Sample) -> int:
        usage.report(provider="openai", model="small", input_tokens=1000, output_tokens=1000)
        return 1


class Vectors(Measurement):
    key = "vectors"
    batch_size = 2

    def compute_batch(self, samples: Sequence[Sample]) -> Sequence[Any]:
        tokens = 1000 * len(samples)
        usage.report(provider="openai", model="small", input_tokens=tokens, output_tokens=tokens)
        return [1] * len(samples)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.0])
def test_batches_and_what_the_cache_saves(rate: float, tmp_path: Path) -> None:
    def run() -> Recorded:
        storage = SQLStorage(f"sqlite:///{tmp_path}/x.db")
        pipeline = Pipeline(
            name="p",
            source=samples("a", "b"),
            stages=[ask_together],
            measurements=[Vector(), Vectors()],
            storage=storage,
            prices=PRICES,
        )
        with recording(sampling_rate=rate, slow_threshold=0) as recorded:
            StreamingRunner(resume=False).run(pipeline).drain()
        storage.close()
        return recorded

    first = run()
    assert said(first, "forge.stage.batch ask_together") == [(1, 1001, None, 0.0001001)]
    assert said(first, "forge.measurement vector") == [(1, 1000, 1000, 0.0004)] * 2
    assert said(first, "forge.measurement.batch vectors") == [(1, 2000, 2000, 0.0008)]
    assert said(first, "forge.sample") == [(1, 2500, 2000, 0.00085005), (3, 2501, 2000, 0.00085005)]
    assert "forge.cost.saved" not in first.points
    again = run()
    assert said(again, "forge.measurement vector") == [(None, None, None, None)] * 2
    assert again.points["forge.cost.saved"] == {
        "measurement.key=vector, pipeline.name=p": 0.0008,
        "measurement.key=vectors, pipeline.name=p": 0.0008,
    }
    assert again.total("forge.cost.amount") == 0.0001001


@pytest.mark.slow
@both_runners
@pytest.mark.parametrize("settings", [{}, {"events": "all"}], ids=["lanes", "calls"])
def test_a_call_that_is_reported_by_hand_in_a_stage_with_a_provider_counts_once(
    runner: Runner, settings: dict[str, Any]
) -> None:
    @stage(provider="openai")
    def both(sample: Sample) -> Sample:
        if sample.data:
            usage.report(provider="openai", model="small", input_tokens=1000)
        return sample

    with recording(**settings) as recorded:
        runner.run(Pipeline(name="p", source=samples(0, 1), stages=[both], prices=PRICES)).drain()
    spans = [(1, 1000, None, 0.0001), (1, None, None, None)]
    assert said(recorded, "forge.stage both") == said(recorded, "forge.sample") == spans
    at = "pipeline.name=p, stage.name=both, gen_ai.provider.name=openai"
    assert recorded.points["forge.cost.calls"] == {
        f"cost.use=useful, {at}, gen_ai.request.model=small": 1,
        f"cost.use=useful, {at}": 1,
    }


def test_a_run_that_has_spent_its_budget_ends_without_an_error() -> None:
    @stage
    def costly(sample: Sample) -> Sample:
        usage.report(provider="openai", amount=0.5)
        return sample

    pipeline = Pipeline(name="p", source=samples(*range(9)), stages=[costly], max_cost=1)
    with recording() as recorded:
        result = BatchRunner().run(pipeline).drain()
    assert result.outcome == "cancelled"
    (span,) = (span for span in recorded.spans if span.name == "forge.pipeline p")
    attributes = span.attributes or {}
    assert (span.status.status_code.name, span.status.description) == ("UNSET", None)
    assert (attributes["forge.run.outcome"], attributes["error.type"]) == ("cancelled", "cancelled")
    assert attributes["forge.cost.amount"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
def test_a_million_calls_sum_to_the_cent(temporality: AggregationTemporality) -> None:
    reader = InMemoryMetricReader({Counter: temporality})
    provider = MeterProvider([reader], shutdown_on_exit=False)
    table = SeriesTable(provider.get_meter("test"))
    series = table.get(metrics.FORGE_COST_AMOUNT, {})
    exported = []
    price = Decimal("0.0000001")  # a token, where a thousand are $0.0001
    with decimal.localcontext(prec=3):  # the user's, on whose threads values are written
        for number in range(1_000_000):
            series.append(price * (number % 100))
            if number % 100_000 == 99_999:
                table.drain()
                data: Any = reader.get_metrics_data()
                (point,) = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
                exported.append(point.value)
    provider.shutdown()
    if temporality is AggregationTemporality.CUMULATIVE:
        assert exported == [float(Decimal("0.495") * step) for step in range(1, 11)]
    else:
        assert round(sum(exported), 12) == 4.95


def test_nothing_is_kept_where_nobody_reports() -> None:
    pipeline = Pipeline(name="p", source=samples(1), stages=[silent])
    with recording() as recorded:
        BatchRunner(clock=FakeClock()).run(pipeline).drain()
    assert [name for name in recorded.points if name.startswith("forge.cost")] == []
    assert said(recorded, "forge.pipeline p") == [(None, None, None, None)]


def test_what_waits_in_a_parent_process_is_not_the_childs() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    table = SeriesTable(provider.get_meter("test"))
    table.get(metrics.FORGE_COST_AMOUNT, {}).append(Decimal("0.5"))
    table.forget()
    table.drain()
    assert reader.get_metrics_data() is None
    provider.shutdown()


class Elsewhere(Measurement):
    key = "elsewhere"

    def compute(self, sample: Sample) -> int:
        usage.report(provider="elsewhere")
        return 1


@both_runners
def test_calls_without_a_price(runner: Runner) -> None:
    pipeline = Pipeline(name="p", source=samples(1), measurements=[Elsewhere()], prices=PRICES)
    with recording() as recorded:
        runner.run(pipeline).drain()
    of = "measurement.key=elsewhere, pipeline.name=p, gen_ai.provider.name=elsewhere"
    assert recorded.points["forge.cost.unpriced"] == {of: 1}
    assert "forge.cost.amount" not in recorded.points
    assert said(recorded, "forge.measurement elsewhere") == [(1, None, None, None)]


@both_runners
def test_numbers_that_metrics_cannot_carry_leave_the_others_exact(runner: Runner) -> None:
    @stage
    def report(sample: Sample) -> Sample:
        usage.report(provider="p", model="m", input_tokens=sample.data)
        return sample

    pipeline = Pipeline(name="p", source=samples(10, 2**63, 2**64, 20), stages=[report], prices=Prices(public=False))
    with recording() as recorded:
        runner.run(pipeline).drain()
    [tokens] = recorded.points["forge.cost.tokens"].values()
    [calls] = recorded.points["forge.cost.calls"].values()
    assert (tokens, calls) == (30, 4)
    for collected in recorded.collected:
        encode_metrics(collected)
    encode_spans(recorded.spans)
