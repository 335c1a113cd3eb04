"""Prometheus 3, fed by real runs: the ADR's five queries give the right numbers, by push, by scrape and by pull."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forge import ExitCode
from forge_otel.checker import prometheus_names
from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics as m
from tests.support.waiting import wait_until
from tools.generate import promql as q
from tools.generate import queries

from .pipelines import Database, demo_input, finish, start_demo, start_worker
from .programs import text

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack
    from .services import PrometheusServer

WINDOW = "10m"
STAGE = prometheus_names.label(a.FORGE_STAGE_NAME)
KEY = prometheus_names.label(a.FORGE_MEASUREMENT_KEY)
OUTCOME = prometheus_names.label(a.FORGE_SAMPLE_OUTCOME)
PIPELINE = prometheus_names.label(a.FORGE_PIPELINE_NAME)

# The five queries of the ADR, as dashboards ask them; throughput is per window, not per second.
THROUGHPUT = str(queries.grown(m.FORGE_SAMPLE_SETTLED, WINDOW, (a.FORGE_SAMPLE_OUTCOME,)))
ERROR_RATIO = str(queries.error_ratio(WINDOW))
P95 = str(q.quantile(0.95, m.FORGE_STAGE_DURATION, WINDOW, a.FORGE_STAGE_NAME))
HIT_RATIO = str(queries.cache_hit_ratio(WINDOW))
DEPTH = str(q.max_by(q.select(m.FORGE_DLQ_DEPTH), a.FORGE_STAGE_NAME) > 0)


@pytest.fixture
def server(stack: Stack) -> PrometheusServer:
    return stack.prometheus().run()


@pytest.fixture
def endpoint(stack: Stack, server: PrometheusServer) -> str:
    """A Collector that pushes to Prometheus."""
    return stack.collector("prometheus", variables={"PROMETHEUS_ENDPOINT": server.url}).run().otlp


def wait_for_runs(server: PrometheusServer, count: int) -> None:
    """Wait until so many runs are known to have ended."""
    ended = str(queries.grown(m.FORGE_PIPELINE_COMPLETED, WINDOW, ()))
    wait_until(lambda: server.query(ended) == {(): count}, f"{count} runs have arrived")


def settled(server: PrometheusServer) -> dict[str, float]:
    """By outcome, without those that are 0."""
    return {outcome: value for (outcome,), value in server.query(THROUGHPUT, OUTCOME).items() if value}


def test_a_run_shorter_than_an_export_interval(server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    record = json.loads(finish(start_worker(endpoint, tmp_path / "db", {"good": 17, "bad": 2, "limited": 1})))
    wait_for_runs(server, 1)

    assert settled(server) == {"ready": 18, "dlq": 2}
    assert server.query(ERROR_RATIO, PIPELINE, STAGE) == {
        ("worker", "never_fails"): 0,
        ("worker", "check"): pytest.approx(2 / 20),
    }
    assert server.query(HIT_RATIO, PIPELINE, KEY) == {("worker", "length"): 0}
    assert server.query(DEPTH, STAGE) == {("check",): 2}
    assert {stage["name"]: stage["executions"] for stage in record["stages"]} == {"never_fails": 20, "check": 20}


def test_the_quantile_is_that_of_the_histogram(server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    finish(start_worker(endpoint, tmp_path / "db", {"good": 50}))
    wait_for_runs(server, 1)

    buckets = server.query("sum by (le, forge_stage_name) (forge_stage_duration_seconds_bucket)", STAGE, "le")
    for stage in ("never_fails", "check"):
        bounds = sorted((float(le), count) for (name, le), count in buckets.items() if name == stage)
        assert bounds[-1] == (float("inf"), 50)
        assert server.query(P95, STAGE)[(stage,)] == pytest.approx(interpolated(bounds, 0.95 * 50))


def interpolated(bounds: list[tuple[float, float]], rank: float) -> float:
    """Where in its bucket a rank lies, if values are spread evenly over a bucket; the first one begins at 0."""
    lower, below = 0.0, 0.0
    for upper, count in bounds:
        if count >= rank:
            return lower + (upper - lower) * (rank - below) / (count - below)
        lower, below = upper, count
    raise AssertionError(bounds)


def test_exemplars_lead_to_traces(stack: Stack, server: PrometheusServer, tmp_path: Path) -> None:
    collector = stack.collector("prometheus", variables={"PROMETHEUS_ENDPOINT": server.url}).run()
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 5}))
    wait_for_runs(server, 1)

    now = time.time()
    found = server.api.ask(
        "query_exemplars",
        query="forge_stage_duration_seconds_bucket",
        start=str(now - 600),
        end=str(now + 1),
    )
    exemplars = {exemplar["labels"]["span_id"] for series in found for exemplar in series["exemplars"]}
    stages = {span["spanId"] for span in collector.spans() if span["name"].startswith("forge.stage ")}
    assert exemplars
    assert exemplars <= stages


def test_ten_processes_one_after_the_other(server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    for number in range(10):
        finish(start_worker(endpoint, tmp_path / f"db{number}", {"good": 3, "bad": 1}))
    wait_for_runs(server, 10)

    assert settled(server) == {"ready": 30, "dlq": 10}
    assert server.query(ERROR_RATIO, PIPELINE, STAGE)["worker", "check"] == pytest.approx(1 / 4)


def test_two_workers_at_once(server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    workers = [
        start_worker(endpoint, tmp_path / f"db{number}", {"good": 5 * number, "bad": number}) for number in (1, 2)
    ]
    for worker in workers:
        finish(worker)
    wait_for_runs(server, 2)

    assert settled(server) == {"ready": 15, "dlq": 3}
    assert server.query(ERROR_RATIO, PIPELINE, STAGE)["worker", "check"] == pytest.approx(3 / 18)
    assert server.query(DEPTH, STAGE) == {("check",): 2}  # of two databases: the greatest


def test_measurements_from_the_cache(server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    finish(start_worker(endpoint, tmp_path / "db", {"good": 4}))
    finish(start_worker(endpoint, tmp_path / "db", {"good": 12, "again": True}))
    wait_for_runs(server, 2)

    assert server.query(HIT_RATIO, PIPELINE, KEY) == {("worker", "length"): pytest.approx(4 / 16)}


def test_push_scrape_and_pull_give_the_same_numbers(stack: Stack, server: PrometheusServer, tmp_path: Path) -> None:
    collector = stack.collector("prometheus", variables={"PROMETHEUS_ENDPOINT": server.url}).run()
    scraping = stack.prometheus("prometheus-scrape.yml", name="scraping", pipelines=collector.scraped).run()
    demo = start_demo(
        tmp_path / "out", collector.otlp, "--input", str(demo_input(tmp_path / "in")), "--prometheus", "0"
    )
    assert demo.stderr is not None
    url = next(found[0] for line in demo.stderr if (found := re.search(r"http://127\S+/metrics", line)))
    pulled = counters(text(url))
    finish(demo, ExitCode.SAMPLES_FAILED)
    wait_for_runs(server, 1)
    wait_for_runs(scraping, 1)

    assert pulled["forge_sample_settled_total", "code_corpus", "ready"] > 0
    assert counters(text(f"http://{collector.scraped}/metrics")) == pulled
    assert stored(server) == pulled
    assert stored(scraping) == pulled
    database = Database(tmp_path / "out" / "corpus.db")
    assert settled(server) == database.statuses()
    jobs = 'count by (job) (forge_pipeline_completed_total{forge_run_outcome="completed"})'
    assert server.query(jobs, "job") == scraping.query(jobs, "job") == {("forge-demo",): 1}


def counters(exposition: str) -> Counter[tuple[str, ...]]:
    """All counts, the histograms' too, by their names and the values of their labels, those of the target left out."""
    found: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name.startswith("forge_") and sample.name.endswith(("_total", "_bucket", "_count")):
                found[_key({**sample.labels, "__name__": sample.name})] += int(sample.value)
    return found


def stored(server: PrometheusServer) -> Counter[tuple[str, ...]]:
    """The same, as Prometheus has it."""
    found: Counter[tuple[str, ...]] = Counter()
    for series in server.api.ask("query", query='{__name__=~"forge_.+(_total|_bucket|_count)"}')["result"]:
        found[_key(series["metric"])] += int(float(series["value"][1]))
    return found


def _key(labels: dict[str, str]) -> tuple[str, ...]:
    left_out = {"__name__", "job", "instance"}
    rest = [
        str(float(value)) if name == "le" else value
        for name, value in sorted(labels.items())
        if value and name not in left_out and not name.startswith("otel_scope_")
    ]
    return (labels["__name__"], *rest)
