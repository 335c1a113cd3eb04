"""The queries of the ADR and those that replace them, in a real Prometheus that has the metrics of two real runs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from forge import BatchRunner, Measurement, Pipeline, Sample, SQLStorage, stage
from tests.support.clock import FakeClock
from tests.support.telemetry import Recorded, recording
from tests.support.tools import tool
from tools.generate import adr

if TYPE_CHECKING:
    from .conftest import Stack
    from .services import PrometheusServer

MINUTE = 60
BEGIN = int(time.time()) // 7200 * 7200 - 7200
"""When both processes are scraped for the first time, before their first sample; a minute later again, and from the
second minute on with the final values."""

QUERIES = {query.name: query for query in adr.QUERIES}
RESULTS: dict[str, dict[tuple[str, ...], Any]] = {
    "Pipeline throughput (samples/sec)": {("words",): pytest.approx(40 / 300)},
    "Stage error rate": {("words", "check"): pytest.approx(4 / 40), ("words", "shorten"): 0},
    # Of 40 checks, 36 took 0.04 s and 4 took 0.4 s: the 38th is in the middle of the bucket from 0.25 to 0.5 s.
    "P95 stage latency": {("words", "check"): pytest.approx(0.375), ("words", "shorten"): pytest.approx(0.000975)},
    "Cache hit rate": {("words", "length"): pytest.approx(18 / 36)},
    "DLQ depth": {
        ("words", "stage", "check"): 2,
        ("words", "stage", "shorten"): 0,
        ("words", "measurement", "length"): 0,
        ("words", "storage"): 0,
    },
}
LABELS = ("forge_pipeline_name", "forge_dlq_source", "forge_stage_name", "forge_measurement_key")
NAMES = {
    "forge_metrics_stage_latency_ms": "forge_stage_duration_seconds",
    "forge_metrics_measurement_cache_": "forge_measurement_cache_",
    "forge_metrics_": "forge_",
    'outcome="': 'forge_stage_outcome="',
    "stage)": "forge_stage_name)",
    "(measurement_key": "(forge_measurement_key",
}
"""Names in the queries of the ADR, and those that its page has for them."""
TRANSLATED: dict[str, dict[tuple[str, ...], Any]] = {
    "Stage error rate": {("check",): pytest.approx(4 / 40), ("shorten",): 0},
    # A histogram has no zero points, and `rate` misses the first values of its series: these runs have no others.
    "P95 stage latency": {("check",): pytest.approx(nan, nan_ok=True), ("shorten",): pytest.approx(nan, nan_ok=True)},
    "Cache hit rate": {("length",): pytest.approx(18 / 36)},
    "DLQ depth": {("check",): 4},
}
"""What the queries of the ADR say with today's names. Its throughput has a series for each stage and outcome."""


def run(folder: Path) -> tuple[bytes, bytes]:
    """Run a pipeline in which two of twenty samples fail, whatever was stored before; two scrapes: one before its first
    sample, and one at its end.
    """
    target = CollectorRegistry()
    reader = PrometheusMetricReader(registry=target, disable_target_info=True, scope_info_enabled=False)
    clock = FakeClock()
    scrapes = []

    def source() -> Iterator[Sample]:
        scrapes.append(generate_latest(target))
        for number in range(20):
            yield Sample(id=f"s{number}", data=f"word {number}" if number < 18 else "")

    @stage
    def check(sample: Sample) -> Sample:
        clock.advance(0.04 if sample.data else 0.4)
        if not sample.data:
            raise ValueError("no word")
        return sample

    @stage
    def shorten(sample: Sample) -> Sample:
        clock.advance(0.0008)
        return sample.with_data(sample.data.upper())

    class Length(Measurement):
        key, version = "length", "1"

        def compute(self, sample: Sample) -> int:
            return len(sample.data)

    pipeline = Pipeline(
        name="words",
        source=source,
        stages=[check, shorten],
        measurements=[Length()],
        storage=SQLStorage(f"sqlite:///{folder / 'words.db'}"),
    )
    with recording(recorded=Recorded(readers=(reader,), in_memory=False)):
        BatchRunner(clock=clock, resume=False).run(pipeline).drain()
        scrapes.append(generate_latest(target))
    first, last = scrapes
    return first, last


def scraped(instance: str, exposition: bytes, minutes: range) -> Iterator[str]:
    """What was scraped at each of these minutes, in the format that Prometheus imports."""
    for family in text_string_to_metric_families(exposition.decode()):
        for sample in family.samples:
            labels = {"job": "words", "instance": instance, **sample.labels}
            text = ",".join(f'{name}="{value}"' for name, value in labels.items())
            for minute in minutes if sample.name.startswith("forge_") else ():
                yield f"{sample.name}{{{text}}} {sample.value} {BEGIN + minute * MINUTE}"


@pytest.fixture
def server(stack: Stack, tmp_path: Path) -> PrometheusServer:
    lines = []
    for instance in ("first", "second"):
        before, after = run(tmp_path)
        lines += [*scraped(instance, before, range(2)), *scraped(instance, after, range(2, 11))]
    metrics = tmp_path / "metrics.txt"
    metrics.write_text("\n".join([*lines, "# EOF"]) + "\n")
    server = stack.prometheus()
    data = stack.folder / "prometheus" / "data"
    command = [str(tool("promtool")), "tsdb", "create-blocks-from", "openmetrics", str(metrics), str(data)]
    subprocess.run(command, check=True, capture_output=True)
    return server.run()


def ask(server: PrometheusServer, query: str, minute: int) -> dict[tuple[str, ...], float]:
    """The result of a query at a minute, by the labels that it has."""
    found = server.api.ask("query", query=query, time=str(BEGIN + minute * MINUTE))["result"]
    return {
        tuple(each["metric"][label] for label in LABELS if label in each["metric"]): float(each["value"][1])
        for each in found
    }


@pytest.mark.slow
def test_the_queries_of_the_adr_and_ours(server: PrometheusServer) -> None:
    assert RESULTS.keys() == QUERIES.keys()
    for name, query in QUERIES.items():
        # At minute 4 the series are newer than the window, so `unless` counts them; at minute 5 `increase` does.
        for minute in (4, 5):
            assert ask(server, str(query.expression), minute) == RESULTS[name], (name, minute)
        assert ask(server, query.original, 5) == {}, "its names are not used here"

    translated = {name: query.original for name, query in QUERIES.items()}
    for old, new in NAMES.items():
        translated = {name: query.replace(old, new) for name, query in translated.items()}
    for name, expected in TRANSLATED.items():
        assert ask(server, translated[name], 5) == expected, name
    executions = ask(server, f"sum({translated['Pipeline throughput (samples/sec)']})", 5)
    assert executions == {(): pytest.approx((40 + 36) / 300)}
