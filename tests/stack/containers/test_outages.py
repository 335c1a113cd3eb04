"""Services of the stack that are killed, an alert, and the whole of it stopped and started again.

In this order: Prometheus forgets at a restart for how long an alert has been pending.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.stack.programs import wait_until

from .conftest import SERVICES
from .runs import OVERDUE, collected, demo, ledger, load, of, sent, settled
from .stores import alerts, logs, summaries, trace, value

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import Engine

WRITTEN_EVERY = 5.0
"""Seconds after which VictoriaLogs writes what it took in to its files."""


@pytest.mark.slow
def test_nothing_is_lost_when_the_collector_is_killed(up: Engine, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as runs:
        running = runs.submit(load, up, "collector", 2_000, 100)
        wait_until(lambda: bool(settled("collector")), "the run has begun")
        up.compose("kill", "--signal", "KILL", "otelcol")
        up.compose("start", "otelcol")
        run = running.result()

    assert ledger(run) == {("ready",): 1_980.0, ("dlq",): 20.0}
    wait_until(lambda: settled("collector") == ledger(run), "Prometheus has what the ledger says")
    files = collected(up, tmp_path)
    spans = {span["spanId"]: span for span in of("collector", files, "traces")}
    written = of("collector", files, "logs")
    assert len(spans) == sent(written)
    failures = {log["spanId"] for log in written if log.get("eventName") == "forge.stage.exception"}
    assert len(failures) == 20


def test_a_service_that_is_down_is_named(up: Engine) -> None:
    up.compose("kill", "--signal", "KILL", "jaeger")

    said = up.run("make", "--silent", "ready", "ARGS=--timeout 1", check=False)
    up.compose("up", "--detach", "--wait")

    assert said.returncode == 2  # make's own, where a command of it failed
    assert "no answer from: jaeger. See: docker compose logs jaeger" in said.stderr
    assert "jaeger" in up.run("make", "--silent", "ready").stdout


@pytest.mark.slow
def test_an_alert_fires_and_is_resolved(up: Engine) -> None:
    alert = ("ForgePipelineOverdue", OVERDUE)
    wait_until(lambda: alerts().get(alert) == "firing", "the alert fires", 400)

    load(up, OVERDUE, 1, 100, "--interval", "86400")

    wait_until(lambda: alert not in alerts(), "the alert is resolved")


@pytest.mark.slow
def test_nothing_is_lost_when_a_store_is_killed(up: Engine, tmp_path: Path) -> None:
    killed: dict[str, tuple[float, float]] = {}
    with ThreadPoolExecutor(1) as runs:
        running = runs.submit(load, up, "stores", 4_000, 100)
        wait_until(lambda: bool(settled("stores")), "the run has begun")
        for name in SERVICES:
            if name != "otelcol":
                before = time.time()
                up.compose("kill", "--signal", "KILL", name)
                killed[name] = (before, time.time())
                up.compose("start", name)
        run = running.result()

    assert ledger(run) == {("ready",): 3_960.0, ("dlq",): 40.0}
    up.run("make", "--silent", "ready")
    wait_until(lambda: settled("stores") == ledger(run), "Prometheus has what the ledger says")
    files = collected(up, tmp_path)
    spans = {span["spanId"]: span for span in of("stores", files, "traces")}
    written = of("stores", files, "logs")
    assert len(spans) == sent(written)
    (root,) = [span for span in spans.values() if span["name"] == "forge.pipeline stores"]
    wait_until(lambda: trace(root["traceId"]).keys() == spans.keys(), "Jaeger has all spans")

    # What was taken in a moment before the kill was in memory only; all else is there. Exporters wait as well.
    begin, end = killed["victoria-logs"]
    safe = Counter(
        log["spanId"] for log in written if not begin - 2 * WRITTEN_EVERY <= int(log["timeUnixNano"]) / 1e9 <= end
    )
    assert sum(safe.values()) < len(written)

    def missing() -> Counter[str]:
        return safe - Counter(log["span_id"] for log in logs('"service.name":="stores"'))

    wait_until(lambda: not missing(), "VictoriaLogs has all log records")


def test_a_second_start_finds_the_data(up: Engine) -> None:
    run = demo(up, "--limit", "3")
    wait_until(lambda: run["run_id"] in summaries(), "the run has arrived")
    runs = summaries()
    started = "sum(max_over_time(forge_pipeline_started_total[1h]))"
    wait_until(lambda: value(started) == {(): float(len(runs))}, "Prometheus has counted it")
    spans = {identity: trace(identity).keys() for identity in runs.values()}

    up.compose("down")
    up.compose("up", "--detach", "--wait")
    up.run("make", "--silent", "ready")

    assert summaries() == runs
    assert value(started) == {(): float(len(runs))}
    assert {identity: trace(identity).keys() for identity in runs.values()} == spans


def test_its_volumes_go_where_that_is_asked_for(up: Engine) -> None:
    up.compose("--profile", "demo", "down", "--volumes")

    assert up.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=forge-otel-test") == ""
