"""StatsD from end to end: what Etsy's daemon and the Collector's receiver make of what we send."""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from forge_otel.exporters._sockets import Sender
from forge_otel.exporters.statsd import StatsDMetricReader, StatsDSettings
from tests.forge_otel.test_auto_instrumentation import instrumented
from tests.support.ports import free_port
from tests.support.statsd_demo import run_demo
from tests.support.tools import tool
from tests.support.waiting import wait_until

from .conftest import Stack
from .etsy import Etsy
from .programs import Program, answers

DELTA, CUMULATIVE = AggregationTemporality.DELTA, AggregationTemporality.CUMULATIVE
SEED = 6
BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]
"""Of the durations that Forge measures, in seconds."""


def latencies(number: int) -> list[float]:
    """Seconds, most of them around 30 ms and some far above."""
    chance = random.Random(SEED)
    return [chance.lognormvariate(-3.5, 1.0) for _ in range(number)]


class Recorder:
    """A program that counts, times and measures."""

    def __init__(self, *readers: Any) -> None:
        resource = Resource({"service.instance.id": "i-1"})
        self.provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        meter = self.provider.get_meter("test")
        self.done = meter.create_counter("forge.stage.executions")
        self.cost = meter.create_counter("forge.cost.amount")
        self.balance = meter.create_gauge("balance")
        self.active = meter.create_up_down_counter("forge.stage.active")
        self.latency = meter.create_histogram("forge.stage.duration", "s", explicit_bucket_boundaries_advisory=BOUNDS)

    def record(self, values: list[float]) -> None:
        """Two stages, of which only one has latencies."""
        for stage, count in (("decode", 7), ("store:\n|#x", 5)):
            self.done.add(count, {"forge.stage.name": stage, "forge.stage.outcome": "success"})
            self.done.add(0, {"forge.stage.name": stage, "forge.stage.outcome": "error"})
            self.active.add(count, {"forge.stage.name": stage})
        self.cost.add(0.125, {"forge.stage.name": "decode", "gen_ai.request.model": "m:1"})
        self.balance.set(-2.5)
        for value in values:
            self.latency.record(value, {"forge.stage.name": "decode"})


def bucket(seconds: float) -> tuple[float, float]:
    """The bounds around a latency, in milliseconds."""
    bounds = [0.0, *BOUNDS, float("inf")]
    return next((low * 1000, high * 1000) for low, high in pairwise(bounds) if seconds <= high)


def assert_percentiles(timer: dict[str, float], values: list[float]) -> None:
    """Each is in the bucket that the real one is in: the error is at most its width."""
    ranked = sorted(values)
    for percent in (50, 90, 99):
        # As the daemon rounds.
        real = ranked[int(percent / 100 * len(values) + 0.5) - 1]
        low, high = bucket(real)
        assert low <= timer[f"upper_{percent}"] <= high
    assert timer["lower"] >= min(values) * 1000 - 1e-6
    assert timer["upper"] <= max(values) * 1000 + 1e-6


@pytest.mark.parametrize("server", ["udp", "tcp"])
def test_etsys_daemon(stack: Stack, server: str) -> None:
    etsy = Etsy(stack.folder / "statsd", server)
    stack.programs.append(etsy)
    etsy.run()
    reader = StatsDMetricReader(port=etsy.port, protocol=server, flavor="statsd", gauges=True)
    recorder = Recorder(reader)
    values = latencies(900)
    recorder.record(values[:500])
    recorder.provider.force_flush()
    recorder.record(values[500:])
    recorder.provider.shutdown()

    # Each time four counters and their cost, two gauges and one below 0, which takes two lines, and the latencies.
    metrics = etsy.result(lines=2 * (5 + 4) + 900)

    assert metrics["counters"] == {
        "forge.stage.executions._.decode.success": 14,
        "forge.stage.executions._.decode.error": 0,
        "forge.stage.executions._.store_x.success": 10,
        "forge.stage.executions._.store_x.error": 0,
        "forge.cost.amount._.decode._._.m_1._": 0.25,
    }
    assert metrics["gauges"] == {
        "forge.stage.active._.decode": 14,
        "forge.stage.active._.store_x": 10,
        "balance": -2.5,
    }
    timer = metrics["timer_data"]["forge.stage.latency._.decode"]
    assert timer["count"] == 900
    assert timer["sum"] == pytest.approx(sum(values) * 1000, rel=1e-9)
    assert_percentiles(timer, values)


def test_etsys_daemon_with_tags_and_fewer_lines_than_values(stack: Stack) -> None:
    etsy = Etsy(stack.folder / "statsd")
    stack.programs.append(etsy)
    etsy.run()
    values = latencies(5000)
    recorder = Recorder(StatsDMetricReader(port=etsy.port, flavor="statsd", dimensions="tags", max_values=500))
    recorder.record(values)
    recorder.provider.shutdown()

    metrics = etsy.result(etsy.received())

    assert metrics["counters"]["forge.stage.executions;stage=store_x;outcome=success"] == 5
    assert metrics["gauges"]["forge.stage.active;stage=decode;instance=i-1"] == 7
    timer = metrics["timer_data"]["forge.stage.latency;stage=decode"]
    assert timer["count"] == pytest.approx(5000, rel=1e-12)
    assert_percentiles(timer, values)


STAGES = """
from forge import BatchRunner, Pipeline, Sample, Skip, stage

@stage
def decode(sample: Sample) -> Sample | Skip:
    return sample if sample.data < "x" else Skip("empty")

for name, data in (("a", "uvx"), ("b", "uvwxy")):
    print(BatchRunner().run(Pipeline(name=name, source=list(data), stages=[decode])).drain())
"""


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({}, "forge.stage.{kind}.{pipeline}.decode.{value}"),
        (
            {"TAGS": "team:ml", "NAME_TEMPLATE": "{service}.{pipeline}.{name}.{tags}"},
            "labels.{pipeline}.forge.stage.{kind}.decode.{value}",
        ),
        (
            {"TAGS": "team:ml", "DIMENSIONS": "tags"},
            "forge.stage.{kind};pipeline={pipeline};stage=decode;{tag}={value};service=labels;team=ml",
        ),
    ],
    ids=["names", "template", "tags"],
)
def test_two_pipelines_with_a_stage_of_the_same_name(
    stack: Stack, tmp_path: Path, settings: dict[str, str], place: str
) -> None:
    etsy = Etsy(stack.folder / "statsd")
    stack.programs.append(etsy)
    etsy.run()
    instrumented(
        tmp_path,
        STAGES,
        OTEL_TRACES_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_METRICS_EXPORTER="statsd",
        OTEL_SERVICE_NAME="labels",
        STATSD_PORT=str(etsy.port),
        FORGE_OTEL_STATSD_FLAVOR="statsd",
        **{f"FORGE_OTEL_STATSD_{name}": value for name, value in settings.items()},
    )

    counters = etsy.result(etsy.received())["counters"]

    def count(pipeline: str, kind: str, tag: str, value: str) -> float:
        return float(counters[place.format(pipeline=pipeline, kind=kind, tag=tag, value=value)])

    assert [count(each, "executions", "outcome", "success") for each in "ab"] == [2, 3]
    assert [count(each, "executions", "outcome", "skip") for each in "ab"] == [1, 2]
    assert [count(each, "skips", "reason", "empty") for each in "ab"] == [1, 2]


def test_the_demo(stack: Stack, tmp_path: Path) -> None:
    """The daemon takes every line of it, without and with tags."""
    etsy = Etsy(stack.folder / "statsd")
    stack.programs.append(etsy)
    etsy.run()
    # By UDP, so not more packets than the daemon's socket holds.
    plain = {"port": etsy.port, "flavor": "statsd", "gauges": True, "max_values": 5}
    document = run_demo(tmp_path, [plain, {**plain, "dimensions": "tags", "tags": "team:ml"}], "--limit", "10")

    metrics = etsy.result(etsy.received())

    counters = metrics["counters"]
    for stage in document["stages"]:
        name, count = stage["name"], stage["successes"]
        assert counters[f"forge.stage.executions.code_corpus.{name}.success"] == count
        tags = f"pipeline=code_corpus;stage={name};outcome=success;service=forge-demo;team=ml"
        assert counters[f"forge.stage.executions;{tags}"] == count
    assert metrics["gauges"]["forge.pipeline.samples.code_corpus.ready"] == document["ledger"]["ready"]


RECEIVER = """
receivers:
  statsd:
    endpoint: 127.0.0.1:{port}
    aggregation_interval: 1s
    counter_type: float
    timer_histogram_mapping:
      - {{statsd_type: histogram, observer_type: histogram, histogram: {{max_size: 160}}}}
      - {{statsd_type: timing, observer_type: histogram, histogram: {{max_size: 160}}}}
exporters:
  file: {{path: received.jsonl, flush_interval: 100ms}}
extensions:
  health_check: {{endpoint: "127.0.0.1:{health}"}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    metrics: {{receivers: [statsd], exporters: [file]}}
"""


@pytest.mark.parametrize("flavor", ["dogstatsd", "statsd"])
def test_the_collectors_receiver(stack: Stack, flavor: str) -> None:
    port, health = free_port(), free_port()
    folder = stack.folder / "receiver"
    folder.mkdir()
    (folder / "receiver.yaml").write_text(RECEIVER.format(port=port, health=health))
    receiver = Program("receiver", [tool("otelcol-forge"), "--config", "receiver.yaml"], folder)
    stack.programs.append(receiver)
    receiver.start(lambda: answers(f"http://127.0.0.1:{health}"))
    values = latencies(900)
    recorder = Recorder(StatsDMetricReader(port=port, flavor=flavor, dimensions="tags"))
    recorder.record(values)
    recorder.provider.shutdown()
    # By another socket, and so after all that was received before.
    wait_until(lambda: "forge.stage.latency" in received(folder), "the receiver has written what it received")
    receiver.stop()

    found = totals(folder)
    assert found["forge.stage.executions", "decode", "success"] == 7
    assert found["forge.stage.executions", "store_x", "success"] == 5
    assert found["forge.cost.amount", "decode", ""] == 0.125
    assert found["forge.stage.active", "decode", ""] == 7
    assert found["balance", "", ""] == -2.5
    assert found["forge.stage.latency", "decode", "count"] == 900
    assert found["forge.stage.latency", "decode", "sum"] == pytest.approx(sum(values) * 1000, rel=1e-9)
    assert "invalid" not in receiver.tail()


def received(folder: Path) -> str:
    file = folder / "received.jsonl"
    return file.read_text() if file.exists() else ""


def totals(folder: Path) -> dict[tuple[str, str, str], float]:
    """By name, stage and outcome; of histograms, count and sum; of gauges, the last."""
    found: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for line in received(folder).splitlines():
        for resource in json.loads(line)["resourceMetrics"]:
            for metric in (metric for scope in resource["scopeMetrics"] for metric in scope["metrics"]):
                [kind] = metric.keys() & {"sum", "gauge", "exponentialHistogram"}
                for point in metric[kind]["dataPoints"]:
                    tags = {tag["key"]: tag["value"]["stringValue"] for tag in point.get("attributes", ())}
                    name, stage, outcome = metric["name"], tags.get("stage", ""), tags.get("outcome", "")
                    value = float(point.get("asDouble", point.get("asInt", 0)))
                    if kind == "sum":
                        found[name, stage, outcome] += value
                    elif kind == "gauge":
                        found[name, stage, outcome] = value
                    else:
                        found[name, stage, "count"] += int(point["count"])
                        found[name, stage, "sum"] += point["sum"]
    return dict(found)


@pytest.mark.parametrize(
    ("temporality", "restart", "counted"),
    [
        pytest.param(CUMULATIVE, False, 300, id="cumulative"),
        pytest.param(DELTA, True, 300, id="delta-restart"),
        # After its restart the Collector does not know what of a total is new, and counts from there.
        pytest.param(CUMULATIVE, True, 200, id="cumulative-restart"),
    ],
)
def test_through_the_collector_and_the_bridge(
    stack: Stack, temporality: AggregationTemporality, restart: bool, counted: int
) -> None:
    etsy = Etsy(stack.folder / "statsd")
    port = free_port()
    bridge = Program(
        "bridge",
        [sys.executable, "-m", "forge_otel.commands.cli", "statsd-bridge", "--port", str(port)],
        stack.folder / "bridge",
        {"STATSD_PORT": str(etsy.port), "FORGE_OTEL_STATSD_FLAVOR": "statsd"},
    )
    stack.programs += [etsy, bridge]
    etsy.run()
    bridge.start(lambda: answers(f"http://127.0.0.1:{port}/health"))
    collector = stack.collector("statsd", variables={"FORGE_STATSD_BRIDGE_ENDPOINT": f"http://127.0.0.1:{port}"}).run()
    exporter = OTLPMetricExporter(
        f"{collector.otlp}/v1/metrics",
        preferred_temporality=dict.fromkeys((Counter, Histogram), temporality),
        timeout=60,
    )
    recorder = Recorder(PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf")))
    values = latencies(300)

    recorder.record(values[:200])
    recorder.provider.force_flush(60_000)
    if restart:
        collector.stop()
        collector.run()
    recorder.record(values[200:])
    recorder.provider.force_flush(60_000)
    recorder.provider.shutdown()
    collector.stop()
    bridge.stop()

    metrics = etsy.result(etsy.received())
    rounds = 2 if counted == 300 else 1
    assert metrics["counters"]["forge.stage.executions._.decode.success"] == 7 * rounds
    assert metrics["counters"]["forge.cost.amount._.decode._._.m_1._"] == 0.125 * rounds
    timer = metrics["timer_data"]["forge.stage.latency._.decode"]
    assert timer["count"] == counted
    assert timer["sum"] == pytest.approx(sum(values[:counted]) * 1000, rel=1e-9)
    assert bridge.tail() == f"http://127.0.0.1:{port}/v1/metrics -> udp://127.0.0.1:{etsy.port}\n"


def test_more_packets_at_once_than_the_daemons_socket_holds(stack: Stack) -> None:
    etsy = Etsy(stack.folder / "statsd")
    stack.programs.append(etsy)
    etsy.run()
    sender = Sender(StatsDSettings(port=etsy.port))
    packet = b"\n".join([b"forge.stage.latency.decode:29.731842|ms"] * 36)
    assert sender.send([packet] * 500) == 500
    sender.close()
    assert etsy.received() == 36 * 500 + 1
