"""A Collector that is killed and started again, and backends that are down for a while.

Nothing that was sent is missing in the files, and nothing that was in a queue is lost. What was under way when the
Collector was killed may come twice: the sender was not told that it had arrived, or the Collector had not noted that
the backend had taken it. What was on its way to a queue may be missing at the backend. Counts are neither doubled nor
lost: they are cumulative.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.waiting import wait_until

from .pipelines import Database, finish, start_worker
from .programs import text
from .services import Collector, by_label, samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Stack

BATCH = 32
"""Spans in a request."""
TO_THE_QUEUE = BATCH * ((os.cpu_count() or 1) + 1)
"""Spans that may be on their way to a queue: `batch/isolate` holds a request for each processor, and one more."""
MANY_REQUESTS = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": str(BATCH), "OTEL_BSP_SCHEDULE_DELAY": "20"}
OUTAGE = 60
"""Seconds that a backend is away, with one run after the other."""
SOON = {"retry_on_failure": {"initial_interval": "500ms", "max_interval": "1s"}}
"""So that the tests need not wait as long as a backend may."""


@pytest.fixture
def backend(stack: Stack) -> Collector:
    """Another Collector, where Jaeger would be; it is not running yet."""
    return stack.collector(name="backend")


def counted(spans: list[dict[str, Any]]) -> Counter[str]:
    return Counter(span["spanId"] for span in spans)


def is_queued(collector: Collector) -> bool:
    """Whether all spans and metrics that it took since its start are in a queue."""
    taken = (collector.counter(f"otelcol_receiver_accepted_{kind}_total") for kind in ("spans", "metric_points"))
    return sum(taken) == collector.counter("otelcol_processor_batch_batch_send_size_sum")


def sent(collector: Collector) -> int:
    """How many spans the run had, by its own account."""
    (summary,) = {
        log["attributes"]["forge.summary.spans"]
        for log in collector.logs()
        if log.get("eventName") == "forge.pipeline.summary"
    }
    return int(summary)


@pytest.mark.parametrize("end", [Collector.kill, Collector.stop], ids=["killed", "stopped"])
def test_away_in_the_middle_of_a_run(
    stack: Stack, backend: Collector, tmp_path: Path, end: Callable[[Collector], None]
) -> None:
    backend.run()
    server = stack.prometheus().run()
    collector = stack.collector(
        "jaeger", "prometheus", variables={"JAEGER_ENDPOINT": backend.otlp, "PROMETHEUS_ENDPOINT": server.url}
    ).run()
    go = tmp_path / "go"
    worker = start_worker(collector.otlp, tmp_path / "db", {"good": 500, "bad": 20, "pause": str(go)}, **MANY_REQUESTS)
    wait_until(lambda: len(collector.spans()) > 300, "spans arrive")

    end(collector)
    collector.run()
    go.touch()
    finish(worker)

    here = counted(collector.spans())
    assert len(here) == sent(collector)
    assert here.total() - len(here) <= BATCH  # the one request that was not answered
    wait_until(lambda: is_queued(collector), "everything is in the queues")
    wait_until(lambda: collector.counter("otelcol_exporter_queue_size") == 0, "the queues are empty")
    there = counted(backend.spans())
    assert there.keys() <= here.keys()
    assert len(here) - len(there) <= (TO_THE_QUEUE if end is Collector.kill else 0)

    database = Database(tmp_path / "db")
    statuses = {(status,): count for status, count in database.statuses().items()}
    scraped = text(f"http://{collector.scraped}/metrics")
    assert by_label(scraped, "forge_sample_settled_total", "forge_sample_outcome") == statuses
    settled = "sum by (forge_sample_outcome) (forge_sample_settled_total) > 0"
    wait_until(lambda: server.query(settled, "forge_sample_outcome") == statuses, "Prometheus has the same numbers")


def test_what_waits_for_a_backend_survives(stack: Stack, backend: Collector, tmp_path: Path) -> None:
    server = stack.prometheus()
    collector = stack.collector(
        "jaeger", "prometheus", variables={"JAEGER_ENDPOINT": backend.otlp, "PROMETHEUS_ENDPOINT": server.url}
    ).run()
    record = json.loads(finish(start_worker(collector.otlp, tmp_path / "db", {"good": 100}, **MANY_REQUESTS)))
    wait_until(lambda: is_queued(collector), "everything is in the queues")

    collector.kill()
    backend.run()
    server.run()
    collector.run()

    everything = counted(collector.spans())
    assert len(everything) == sent(collector)
    wait_until(lambda: counted(backend.spans()) == everything, "all spans have arrived")
    ready = 'sum (forge_sample_settled_total{forge_sample_outcome="ready"})'
    wait_until(lambda: server.query(ready) == {(): record["ledger"]["ready"]}, "the metrics have arrived")


def test_a_backend_that_comes_back(stack: Stack, backend: Collector, tmp_path: Path) -> None:
    collector = stack.collector(
        "jaeger", variables={"JAEGER_ENDPOINT": backend.otlp}, settings={"exporters": {"otlp_http/jaeger": SOON}}
    ).run()
    finish(start_worker(collector.otlp, tmp_path / "db1", {"good": 50}, **MANY_REQUESTS))
    wait_until(lambda: "Will retry the request" in collector.log.read_text(), "the backend is missed")
    backend.run()
    everything = counted(collector.spans())
    wait_until(lambda: counted(backend.spans()) == everything, "all spans have arrived")

    backend.stop()
    gone = time.monotonic()
    while time.monotonic() < gone + OUTAGE:
        finish(start_worker(collector.otlp, tmp_path / "db2", {"good": 50, "again": True}, **MANY_REQUESTS))
    backend.run()
    everything = counted(collector.spans())
    wait_until(lambda: counted(backend.spans()) == everything, "those of the other runs have arrived as well")
    assert set(everything.values()) == {1}
    failed = list(samples(text(f"http://{collector.own}/metrics"), "otelcol_exporter_send_failed_spans_total"))
    assert sum(value for _, value in failed) == 0
