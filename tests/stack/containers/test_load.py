"""The stack under a steady load, and while its services are killed."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.stack.programs import wait_until
from tests.stack.services import records

from .conftest import SERVICES
from .stores import logs, trace, value

if TYPE_CHECKING:
    from .engine import Engine

LOAD = Path(__file__).with_name("load.py")
SETTLED = (
    'sum by (forge_sample_outcome) (max_over_time(forge_sample_settled_total{{forge_pipeline_name="{0}"}}[1h])) > 0'
)
WRITTEN_EVERY = 5.0
"""Seconds after which VictoriaLogs writes what it took in to its files."""


def load(up: Engine, name: str, samples: int, rate: int) -> dict[str, Any]:
    """Run the load in the demo's image, and return what it says of itself."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otelcol:4318",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "OTEL_SERVICE_NAME": name,
    }
    options = [option for key, value in variables.items() for option in ("--env", f"{key}={value}")]
    done = up.run(
        *("docker", "compose", "--profile", "demo", "run", "--rm", "-T", "--no-deps", *options),
        *("--volume", f"{LOAD}:/load.py:ro", "demo", f"python /load.py {name} {samples} {rate}"),
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ledger(run: dict[str, Any]) -> dict[tuple[str, ...], float]:
    return {(outcome,): float(run["ledger"][outcome]) for outcome in ("ready", "dlq")}


def settled(name: str) -> dict[tuple[str, ...], float]:
    return value(SETTLED.format(name), "forge_sample_outcome")


def of(service: str, folder: Path, signal: str) -> list[dict[str, Any]]:
    """What the Collector's files have of a service."""
    return [each for each in records(folder, signal) if each["resource"]["service.name"] == service]


def sent(written: list[dict[str, Any]]) -> int:
    """How many spans a run wrote within its budget, by its own account."""
    (number,) = {
        log["attributes"]["forge.summary.spans"] for log in written if log.get("eventName") == "forge.pipeline.summary"
    }
    return int(number)


@pytest.mark.slow
def test_everything_stays_within_its_limits(up: Engine) -> None:
    run = load(up, "steady", 24_000, 200)

    assert ledger(run) == {("ready",): 23_760.0, ("dlq",): 240.0}
    wait_until(lambda: settled("steady") == ledger(run), "Prometheus has what the ledger says")
    failures = 'event_name:="forge.stage.exception" "service.name":="steady"'
    wait_until(lambda: len(logs(failures)) == 240, "VictoriaLogs has the failures")
    for name in SERVICES:
        found = up.inspect(name)
        assert not found["State"]["OOMKilled"], name
        assert found["RestartCount"] == 0, name


@pytest.mark.slow
def test_nothing_is_lost_when_a_store_is_killed(up: Engine, tmp_path: Path) -> None:
    killed: dict[str, float] = {}
    with ThreadPoolExecutor(1) as runs:
        running = runs.submit(load, up, "stores", 4_000, 100)
        wait_until(lambda: bool(settled("stores")), "the run has begun")
        for name in SERVICES:
            if name != "otelcol":
                killed[name] = time.time()
                up.compose("kill", "--signal", "KILL", name)
                up.compose("start", name)
        run = running.result()

    assert ledger(run) == {("ready",): 3_960.0, ("dlq",): 40.0}
    up.run("make", "--silent", "ready")
    wait_until(lambda: settled("stores") == ledger(run), "Prometheus has what the ledger says")
    up.compose("cp", "otelcol:/var/lib/otelcol", str(tmp_path / "otelcol"))
    spans = {span["spanId"]: span for span in of("stores", tmp_path / "otelcol", "traces")}
    written = of("stores", tmp_path / "otelcol", "logs")
    assert len(spans) == sent(written)
    (root,) = [span for span in spans.values() if span["name"] == "forge.pipeline stores"]
    wait_until(lambda: trace(root["traceId"]).keys() == spans.keys(), "Jaeger has all spans")

    # What was taken in a moment before the kill is in memory only; all else is there.
    safe = Counter(
        log["spanId"]
        for log in written
        if not 0 <= killed["victoria-logs"] - int(log["timeUnixNano"]) / 1e9 <= 2 * WRITTEN_EVERY
    )
    assert sum(safe.values()) < len(written)

    def missing() -> Counter[str]:
        return safe - Counter(log["span_id"] for log in logs('"service.name":="stores"'))

    wait_until(lambda: not missing(), "VictoriaLogs has all log records")


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
    up.compose("cp", "otelcol:/var/lib/otelcol", str(tmp_path / "otelcol"))
    spans = {span["spanId"]: span for span in of("collector", tmp_path / "otelcol", "traces")}
    written = of("collector", tmp_path / "otelcol", "logs")
    assert len(spans) == sent(written)
    failures = {log["spanId"] for log in written if log.get("eventName") == "forge.stage.exception"}
    assert len(failures) == 20
