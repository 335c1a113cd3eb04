"""The names, types and tags of the metrics in StatsD, as the contract lists them."""

from __future__ import annotations

from forge_otel.semconv import statsd
from forge_otel.semconv.attributes import FORGE_PIPELINE_NAME
from forge_otel.semconv.metrics import ALL

CONTRACT = """
forge.pipeline.started c
forge.pipeline.completed c outcome
forge.pipeline.active g
forge.pipeline.duration h,ms
forge.pipeline.samples g outcome
forge.pipeline.success_ratio g
forge.source.reads c
forge.source.latency h,ms
forge.source.backpressure c,ms
forge.source.remaining g
forge.sample.admitted c
forge.sample.derived c stage
forge.sample.settled c outcome
forge.sample.active g
forge.sample.latency h,ms outcome
forge.stage.executions c stage outcome
forge.stage.skips c stage reason
forge.stage.latency h,ms stage
forge.stage.failures c stage error
forge.stage.retries c stage attempt
forge.stage.busy c,ms stage
forge.stage.transfer c,ms stage
forge.stage.worker.active g stage
forge.stage.retry_wait c,ms stage
forge.stage.active g stage
forge.stage.concurrency_limit g stage
forge.stage.batch_failures c stage error
forge.stage.batch_size h stage
forge.stage.queue.depth g stage
forge.stage.queue.limit g stage
forge.stage.queue.wait h,ms stage
forge.stage.output.blocks c stage
forge.stage.output.bytes c stage
forge.stage.backpressure c,ms stage
forge.measurement.computations c measurement outcome
forge.measurement.latency h,ms measurement
forge.measurement.cache_hits c measurement
forge.measurement.cache_misses c measurement
forge.measurement.cache_hit_ratio g measurement
forge.measurement.retries c measurement
forge.measurement.batch_size h measurement
forge.measurement.batch_latency h,ms measurement
forge.storage.samples.written c backend
forge.storage.samples.read c backend
forge.storage.artifacts.uploaded c backend deduplicated
forge.storage.artifacts.downloaded c backend
forge.storage.bytes c backend direction
forge.storage.latency h,ms backend operation
forge.dlq.enqueued c source stage measurement error
forge.dlq.replayed c source stage measurement error
forge.dlq.dropped c source stage measurement error
forge.dlq.depth g source stage measurement
forge.cost.calls c stage measurement provider model use error
forge.cost.tokens c stage measurement provider model use token_type
forge.cost.amount c stage measurement provider model use
forge.cost.saved c measurement
forge.cost.unpriced c stage measurement provider model
forge.telemetry.faults c error
forge.telemetry.suppressed c signal reason
forge.task.completed c outcome
forge.task.duration h,ms outcome
"""
"""Name, type, and the tags after `pipeline`."""


def test_names_types_and_tags() -> None:
    expected = {}
    for line in CONTRACT.split("\n"):
        if line:
            name, kind, *tags = line.split()
            type_, _, unit = kind.partition(",")
            expected[name] = (type_, 1000 if unit == "ms" else 1, ["pipeline", *tags])

    assert {each.name: (each.type, each.factor, list(each.tags)) for each in statsd.NAMES.values()} == expected
    assert {each.tags["pipeline"] for each in statsd.NAMES.values()} == {FORGE_PIPELINE_NAME}


def test_every_metric_has_the_pipeline() -> None:
    assert [each.name for each in ALL if FORGE_PIPELINE_NAME not in each.attributes] == []
