"""Services of the stack that are killed, an alert, and the whole of it stopped and started again.

In this order: Prometheus forgets at a restart for how long an alert has been pending.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import wait_until

from .conftest import SERVICES
from .runs import OVERDUE, collected, demo, ledger, load, of, sent, settled
from .stores import alerts, linked, logs, summaries, trace, value

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import Engine

WRITTEN_AFTER = 15.0
"""Seconds after which a log record is in VictoriaLogs' files at the latest: it writes what it took in every 5 s, as the
pipeline sends, and both may be busy.
"""


PATIENT = {"OTEL_EXPORTER_OTLP_TIMEOUT": "120", "OTEL_BSP_MAX_QUEUE_SIZE": "20000", "OTEL_BLRP_MAX_QUEUE_SIZE": "20000"}
"""Settings of a sender that waits for the Collector as long as it takes to start it again here."""


def kill(up: Engine, name: str) -> None:
    """Kill a service, see that `make ready` names it, and start it again."""
    up.compose("kill", "--signal", "KILL", name)
    said = up.run("make", "--silent", "ready", "ARGS=--timeout 3", check=False)
    up.compose("start", name)

    assert said.returncode == 2  # make's own, where a command of it failed
    assert said.stderr.startswith(f"no answer from: {name}. See: docker compose logs {name}\n")
    assert {line.split()[0] for line in said.stdout.splitlines()} == set(SERVICES) - {name}


@pytest.mark.slow
def test_nothing_is_lost_when_the_collector_is_killed(up: Engine, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as runs:
        running = runs.submit(load, up, "collector", 2_000, 100, **PATIENT)
        wait_until(lambda: bool(settled("collector")), "the run has begun")
        kill(up, "otelcol")
        run = running.result()

    assert ledger(run) == {("ready",): 1_980.0, ("dlq",): 20.0}
    wait_until(lambda: settled("collector") == ledger(run), "Prometheus has what the ledger says")
    files = collected(up, tmp_path)
    spans = {span["spanId"]: span for span in of("collector", files, "traces")}
    written = of("collector", files, "logs")
    assert len(spans) == sent(written)
    failures = {log["spanId"] for log in written if log.get("eventName") == "forge.stage.exception"}
    assert len(failures) == 20


@pytest.mark.slow
def test_an_alert_fires_and_is_resolved(up: Engine) -> None:
    alert = ("ForgePipelineOverdue", OVERDUE)
    wait_until(lambda: alert in alerts() and alerts()[alert]["state"] == "firing", "the alert fires", 600)
    records, traces = linked(alerts()[alert])
    assert sorted(record["event_name"] for record in records) == ["forge.pipeline.start", "forge.pipeline.stop"]
    assert {record["trace_id"] for record in records} == set(traces)

    load(up, OVERDUE, 1, 100, "--interval", "86400")

    wait_until(lambda: alert not in alerts(), "the alert is resolved")


@pytest.mark.slow
def test_nothing_is_lost_when_a_store_is_killed(up: Engine, tmp_path: Path) -> None:
    killed: dict[str, tuple[float, float]] = {}
    with ThreadPoolExecutor(1) as runs:
        running = runs.submit(load, up, "stores", 6_000, 100)
        wait_until(lambda: bool(settled("stores")), "the run has begun")
        # First the one of which something is lost, which has to be sent at that time.
        for name in sorted(SERVICES, key=lambda name: name != "victoria-logs"):
            if name != "otelcol":
                before = time.time()
                kill(up, name)
                killed[name] = (before, time.time())
                up.run("make", "--silent", "ready")
        run = running.result()

    assert ledger(run) == {("ready",): 5_940.0, ("dlq",): 60.0}
    up.run("make", "--silent", "ready")
    wait_until(lambda: settled("stores") == ledger(run), "Prometheus has what the ledger says")
    files = collected(up, tmp_path)
    spans = {span["spanId"]: span for span in of("stores", files, "traces")}
    written = of("stores", files, "logs")
    assert len(spans) == sent(written)
    (root,) = [span for span in spans.values() if span["name"] == "forge.pipeline stores"]
    wait_until(lambda: trace(root["traceId"]).keys() == spans.keys(), "Jaeger has all spans")

    # What was taken in a moment before the kill was in memory only; all else is there.
    begin, end = killed["victoria-logs"]
    safe = Counter(
        log["spanId"] for log in written if not begin - WRITTEN_AFTER <= int(log["timeUnixNano"]) / 1e9 <= end
    )
    assert sum(safe.values()) < len(written)

    def missing() -> Counter[str]:
        return safe - Counter(log["span_id"] for log in logs('"service.name":="stores"'))

    wait_until(lambda: not missing(), "VictoriaLogs has all log records")


@pytest.mark.slow
def test_a_restart_and_a_second_start_find_the_data(up: Engine) -> None:
    run = demo(up, "--limit", "3")
    wait_until(lambda: run["run_id"] in summaries(), "the run has arrived")
    runs = summaries()
    started = "sum(max_over_time(forge_pipeline_started_total[1h]))"
    wait_until(lambda: value(started) == {(): float(len(runs))}, "Prometheus has counted it")
    spans = {identity: trace(identity).keys() for identity in runs.values()}

    for again in (["restart"], ["down"], ["up", "--detach", "--wait"]):
        up.compose(*again)
        if again != ["down"]:
            up.run("make", "--silent", "ready")
            assert summaries() == runs
            assert value(started) == {(): float(len(runs))}
            assert {identity: trace(identity).keys() for identity in runs.values()} == spans


def test_its_volumes_go_where_that_is_asked_for(up: Engine) -> None:
    up.compose("--profile", "demo", "down", "--volumes")

    assert up.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=forge-otel-test") == ""
