"""Alerts fire on real runs that deserve them, and on no other.

The rules are the real ones, in a hurry: none has to hold for a while before it fires, and what a process said last
counts for five seconds instead of five minutes.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
import yaml

from forge_otel.semconv import attributes as a
from tests.support.browser import text_of
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tools.generate import alerts, links

from .pipelines import finish, start_worker
from .programs import text
from .services import CONFIGURATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .conftest import Stack
    from .services import PrometheusServer

HURRY = {"forge_pipeline_active offset 15m": "forge_pipeline_active offset 3s", "< 900": "< 3"}
"""How long a run may make no progress."""
LOOKBACK = 5
"""Seconds."""
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "300"}
UNDESERVED = {"ForgeLedgerImbalance"}
"""What no run makes fire unless Forge itself is broken; `collector-config/prometheus/tests` has the series for it."""


@pytest.fixture
def server(stack: Stack) -> PrometheusServer:
    folder = stack.folder / "rules"
    folder.mkdir()
    for source in (CONFIGURATIONS / "prometheus" / "rules").glob("*.yaml"):
        content = yaml.safe_load(source.read_text())
        for rule in (rule for group in content["groups"] for rule in group["rules"]):
            rule.pop("for", None)
            if rule.get("alert") == "ForgeNoProgress":
                for text, other in HURRY.items():
                    assert text in rule["expr"]
                    rule["expr"] = rule["expr"].replace(text, other)
        (folder / source.name).write_text(yaml.safe_dump(content))
    return stack.prometheus(rules=folder / "*.yaml", lookback=f"{LOOKBACK}s").run()


@pytest.fixture
def endpoint(stack: Stack, server: PrometheusServer) -> str:
    return stack.collector("prometheus", variables={"PROMETHEUS_ENDPOINT": server.url}).run().otlp


def evaluated(server: PrometheusServer) -> datetime:
    """When all rules were evaluated last."""
    return min(datetime.fromisoformat(group["lastEvaluation"]) for group in server.api.ask("rules")["groups"])


def wait_for_rules(server: PrometheusServer) -> None:
    """Wait until the rules have seen what has arrived until now."""
    for _ in range(2):  # an alert may be evaluated before the rule that it reads
        arrived = datetime.now(UTC)
        wait_until(lambda: evaluated(server) > arrived, "the rules have seen it")  # noqa: B023 - called at once


def firing(server: PrometheusServer) -> set[str]:
    found = server.api.ask("alerts")["alerts"]
    assert {alert["state"] for alert in found} <= {"firing"}
    return {alert["labels"]["alertname"] for alert in found}


SHORT: Mapping[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "ForgeRunFailed": ({"good": 3, "fails": True}, {}),
    "ForgeStageErrors": ({"good": 90, "bad": 6}, {}),
    "ForgeStageOverBudget": ({"good": 30, "budget": 1e-9}, {}),
    "ForgeDeadLetters": ({"good": 5, "bad": 5}, {}),
    "ForgePipelineOverdue": ({"good": 1, "interval": 1}, {}),
    "ForgeWastedCost": ({"good": 90, "bad": 1, "spends": {"bad": "2"}}, {}),
    "ForgeSpendRate": ({"good": 2, "spends": {"good": "2.5"}, "hourly_budget": 4}, {}),
    "ForgeUnpricedCalls": ({"good": 1, "spends": {"good": None}}, {}),
    "ForgeTelemetryFaults": ({"good": 1, "faulty": True}, {}),
    "ForgeTelemetryDropped": (
        {"good": 300},
        {
            "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
        },
    ),
}
"""What the worker does, and its variables."""
TOGETHER = {"ForgeDeadLetters": {"ForgeStageErrors"}}
"""A run that deserves the one deserves these as well."""


@pytest.mark.parametrize("alert", SHORT)
def test_a_short_run(server: PrometheusServer, endpoint: str, tmp_path: Path, alert: str) -> None:
    settings, variables = SHORT[alert]
    finish(start_worker(endpoint, tmp_path / "db", settings, **variables))

    expected = {alert} | TOGETHER.get(alert, set())
    wait_until(lambda: firing(server) >= expected, f"{expected} fire")
    wait_for_rules(server)  # some may not have seen yet that the run is over
    assert firing(server) == expected


def test_a_replay_after_a_failed_night_is_no_success(server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    finish(start_worker(endpoint, tmp_path / "db", {"good": 1, "interval": 5}))
    wait_until(lambda: firing(server) == {"ForgePipelineOverdue"}, "it is overdue")
    night = {"good": 1, "bad": 1, "interval": 5, "fails": True, "replays": True}
    finish(start_worker(endpoint, tmp_path / "db", night))

    replayed = 'sum (last_over_time(forge_pipeline_completed_total{forge_run_type="replay"}[1h]))'
    wait_until(lambda: server.query(replayed) == {(): 1}, "the replay has arrived")
    wait_for_rules(server)
    assert {"ForgePipelineOverdue", "ForgeRunFailed"} <= firing(server)


def test_the_first_failure_of_a_process_is_an_increase(server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    finish(start_worker(endpoint, tmp_path / "db", {"good": 1, "fails": True}))

    failed = 'sum (increase(forge_pipeline_completed_total{forge_run_outcome="failed"}[15m])) > 0'
    wait_until(lambda: bool(server.query(failed)), "the counter went from 0 to 1")


def test_old_dead_letters(server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    database = tmp_path / "db"
    finish(start_worker(f"http://127.0.0.1:{free_port()}", database, {"bad": 1}, OTEL_SDK_DISABLED="true"))
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE forge_dead_letters SET time = time - 8 * 86400")
    connection.close()

    finish(start_worker(endpoint, database, {"good": 1}))

    wait_until(lambda: firing(server) == {"ForgeDeadLettersOld"}, "it fires, and nothing else")


def test_a_run_that_hangs_and_then_dies(server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    worker = start_worker(endpoint, tmp_path / "db", {"good": 2, "pause": str(tmp_path / "never")}, **OFTEN)
    wait_until(lambda: firing(server) == {"ForgeNoProgress"}, "it hangs, and that is all")

    worker.kill()
    worker.communicate()
    wait_until(lambda: firing(server) == {"ForgeRunDied"}, "it is gone")


def test_a_healthy_run(stack: Stack, server: PrometheusServer, endpoint: str, tmp_path: Path) -> None:
    samples = {"good": 200, "limited": 5, "bad": 1, "spends": {"good": "0.25"}}
    settings = {**samples, "budget": 30, "interval": 3600, "hourly_budget": 100}
    variables = {"OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true", **OFTEN}
    record = json.loads(finish(start_worker(endpoint, tmp_path / "db", settings, **variables)))
    ready = 'sum (last_over_time(forge_sample_settled_total{forge_sample_outcome="ready"}[1h]))'
    wait_until(lambda: server.query(ready) == {(): record["ledger"]["ready"]}, "it has arrived")

    stale = datetime.now(UTC) + timedelta(seconds=LOOKBACK + 1)
    wait_until(lambda: evaluated(server) > stale, "the rules have seen that it is gone")
    assert firing(server) == set()
    assert server.query("count (ALERTS)") == {}


def test_an_alert_links_the_log_records_and_the_traces_that_it_is_about(
    stack: Stack, server: PrometheusServer, tmp_path: Path
) -> None:
    jaeger, logs = stack.jaeger().run(), stack.victoria_logs().run()
    variables = {
        "PROMETHEUS_ENDPOINT": server.url,
        "JAEGER_ENDPOINT": jaeger.otlp,
        "VICTORIA_LOGS_ENDPOINT": logs.url,
    }
    collector = stack.collector("prometheus", "jaeger", "victoria-logs", variables=variables).run()
    name = 'a "name" with + and & and %'
    finish(start_worker(collector.otlp, tmp_path / "other", {"good": 5, "bad": 5, "name": "other"}))
    # Prometheus' job has the service's namespace, which Jaeger's service has not.
    attributes = {"OTEL_RESOURCE_ATTRIBUTES": "service.namespace=team"}
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 5, "bad": 5, "name": name}, **attributes))

    def linked(alert: str) -> dict[str, str]:
        found = [
            each for each in server.api.ask("alerts")["alerts"] if each["labels"].get("forge_pipeline_name") == name
        ]
        return {
            key: url
            for each in found
            if each["labels"]["alertname"] == alert
            for key, url in each["annotations"].items()
        }

    wait_until(lambda: "service=worker" in linked("ForgeStageErrors").get("traces_url", ""), "the alert has its links")
    urls = linked("ForgeStageErrors")
    (query,) = parse_qs(urlsplit(urls["logs_url"]).fragment.partition("?")[2])["query"]
    wait_until(lambda: len(logs.query(query)) == 5, "the log records are there")
    (root,) = {log["trace_id"] for log in logs.query(query)}
    assert {log["forge.pipeline.name"] for log in logs.query(query)} == {name}
    # The page's search has the parameters of the API's.
    search = f"{jaeger.url}/api/traces?{urlsplit(urls['traces_url']).query}"
    wait_until(lambda: [trace["traceID"] for trace in json.loads(text(search))["data"]] == [root], "the trace is found")


def test_the_page_that_an_alert_links_shows_a_week(stack: Stack, tmp_path: Path) -> None:
    logs = stack.victoria_logs().run()
    about = {a.FORGE_PIPELINE_NAME: "corpus"}
    record = {
        "_time": f"{datetime.now(UTC) - timedelta(days=6, hours=20):%Y-%m-%dT%H:%M:%SZ}",
        "_msg": "Run failed six days ago",
        "event_name": "forge.pipeline.exception",
        **about,
    }
    headers = {"Content-Type": "application/stream+json"}
    with urlopen(Request(f"{logs.url}/insert/jsonline", json.dumps(record).encode(), headers)) as response:
        response.read()
    wait_until(lambda: len(logs.query("*")) == 1, "the log record is there")

    (alert,) = (alert for alert in alerts.ALL if alert.name == "ForgeRunFailed")
    assert alert.evidence is not None
    page = links.on_page(alert.evidence, "corpus", about)["logs_url"].replace("http://127.0.0.1:9428", logs.url)
    assert "Run failed six days ago" in text_of(page, tmp_path / "browser")


def test_every_alert_has_its_run() -> None:
    here = {*SHORT, "ForgeDeadLettersOld", "ForgeNoProgress", "ForgeRunDied"}

    assert here | UNDESERVED == {alert.name for alert in alerts.ALL}
