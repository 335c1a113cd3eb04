"""The recipe for worker processes: one trace over all of them, and counts that add up in a real Prometheus."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.collector import running_collector
from tests.support.prometheus import Prometheus
from tests.support.recipes import copy_files, environment, queries, run_block, shell_blocks
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

RECIPE = "workers"


def test_one_trace_and_one_sum(tmp_path: Path, prometheus: Prometheus) -> None:
    copy_files(RECIPE, tmp_path)
    [command] = shell_blocks(RECIPE)
    with running_collector() as collector:
        command = command.replace("http://127.0.0.1:4318", collector.url)
        done = run_block(
            command,
            tmp_path,
            environment(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=prometheus.otlp, FORGE_OTEL_EVENTS="none"),
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "40 samples are ready\n", "")

    assert Counter(collector.names) == {
        "all shards": 1,
        "forge.pipeline greetings": 4,
        "forge.sample": 40,
        "forge.stage shout": 40,
    }
    assert len({span.trace_id for span in collector.spans}) == 1
    [above] = [span for span in collector.spans if span.name == "all shards"]
    runs = [span for span in collector.spans if span.name == "forge.pipeline greetings"]
    assert {run.parent_span_id for run in runs} == {above.span_id}
    instances = {resource["service.instance.id"] for resource in collector.resources}
    assert {resource["service.name"] for resource in collector.resources} == {"greetings"}

    def values(query: str) -> dict[str, float]:
        return {
            next(iter(series["metric"].values()), ""): float(series["value"][1])
            for series in prometheus.ask("query", query=query)["result"]
        }

    counters, quantile, active, latest = queries(RECIPE)
    wait_until(lambda: values(counters).get("ready") == 40, "all counts are there")
    assert 0 < values(quantile)["shout"] < 1
    assert values(active) == {"greetings": 0}
    assert list(values(latest)) == ["greetings"]
    by_instance = values('sum by (instance) (forge_sample_settled_total{forge_sample_outcome="ready"})')
    assert sum(by_instance.values()) == 40
    assert set(by_instance) < instances  # the parent runs no pipeline
