"""Prometheus' rules: valid for old and new versions, tested, documented, and right in the real one."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
import yaml
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from forge import BatchRunner, Pipeline, Sample
from forge_otel.semconv import attributes as a
from tests.stack.services import PrometheusServer
from tests.support.prometheus import Prometheus
from tests.support.promql import names
from tests.support.telemetry import Recorded, recording
from tests.support.tools import tool
from tests.support.vocabulary import registry
from tests.support.waiting import wait_until
from tools.generate import alerts, links, prometheus_rules, recordings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "collector-config/prometheus/tests").glob("*.yaml"))
RUNBOOKS = ROOT / "docs/runbooks"

both_versions = pytest.mark.parametrize("version", ["promtool", "promtool-2.42"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated rules, and beside them their tests, as in the checkout."""
    folder = tmp_path_factory.mktemp("prometheus")
    for path, text in prometheus_rules.files(registry()).items():
        file = folder / "rules" / Path(path).name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    (folder / "tests").mkdir()
    for test in TESTS:
        (folder / "tests" / test.name).write_text(test.read_text())
    return folder


def promtool(version: str, *arguments: str | Path) -> None:
    done = subprocess.run([tool(version), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@both_versions
def test_rules_are_valid(version: str, folder: Path) -> None:
    promtool(version, "check", "rules", *sorted((folder / "rules").iterdir()))


@both_versions
@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.stem)
def test_rules_do_what_they_should(version: str, test: Path, folder: Path) -> None:
    promtool(version, "test", "rules", folder / "tests" / test.name)


@pytest.mark.parametrize("alert", alerts.ALL, ids=lambda alert: alert.name)
def test_every_alert_is_seen_to_fire_and_to_be_quiet(alert: alerts.Alert) -> None:
    cases: list[dict[str, Any]] = [case for test in TESTS for case in yaml.safe_load(test.read_text())["tests"]]
    seen = [check for case in cases for check in case.get("alert_rule_test", ()) if check["alertname"] == alert.name]

    assert any(check.get("exp_alerts") for check in seen)
    assert any(not check.get("exp_alerts") for check in seen)


def test_every_recording_is_tested() -> None:
    text = "".join(test.read_text() for test in TESTS)

    assert [rule.name for rule in recordings.ALL if rule.name not in text] == []


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    pages = {path.stem: path.read_text().partition("\n")[0] for path in RUNBOOKS.glob("*.md")}

    assert pages == {alert.runbook: f"# {alert.name}" for alert in alerts.ALL}


def test_alerts_say_what_the_alert_is_about_and_where_to_read_on() -> None:
    (group,) = yaml.safe_load(prometheus_rules.files(registry())[f"{prometheus_rules.FOLDER}/alerting.yaml"])["groups"]

    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert re.fullmatch(r"https://forge-otel\.dev/runbooks/[a-z-]+\.html", rule["annotations"]["runbook_url"])
        for text in rule["annotations"].values():
            assert not re.search(r"\$value \}\}", text), "numbers are written for people"
            assert set(re.findall(r"\$labels\.(\w+)", text)) <= (names().check(rule["expr"]) or set())


LINKED = {alert.name: alert for alert in alerts.ALL if alert.evidence is not None}


def test_alerts_without_links_are_those_whose_records_are_gone() -> None:
    assert {alert.name for alert in alerts.ALL} - LINKED.keys() == {
        "ForgeDeadLettersOld",  # older than what the stack keeps
        "ForgeTelemetryFaults",
        "ForgeTelemetryDropped",
    }


@pytest.mark.parametrize("alert", LINKED.values(), ids=LINKED)
def test_the_links_of_an_alert_are_in_its_runbook(alert: alerts.Alert) -> None:
    page = (RUNBOOKS / f"{alert.runbook}.md").read_text()
    (pipeline,) = set(re.findall(r'"forge\.pipeline\.name":="(\w+)"', page))
    assert alert.evidence is not None
    values = {a.FORGE_PIPELINE_NAME: pipeline, a.FORGE_STAGE_NAME: "annotate"}
    expected = links.on_page(alert.evidence, pipeline, values)

    assert [url for url in expected.values() if f"]({url})" not in page] == []
    (query,) = re.findall(r"\?query=([^&]+)&", expected["logs_url"])
    assert f"```text\n{unquote_plus(query)}\n```" in page


# With a real Prometheus.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = PrometheusServer(tmp_path_factory.mktemp("prometheus"), "prometheus.yml").run()
    yield server.api
    server.kill()


def run_and_die(server: Prometheus, instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short process: its run fails, and it exports once, at its end."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"service.name=corpus,service.instance.id={instance}")
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=server.otlp), export_interval_millis=math.inf)
    recorded = Recorded(readers=(reader,), in_memory=False)

    def source() -> Iterator[Sample]:
        yield Sample(id="1", data=1)
        raise OSError("the disk is gone")

    with recording(recorded=recorded, zero_points=False):
        run = BatchRunner().run(Pipeline(name="corpus", source=source, stages=[], storage=None))
        with pytest.raises(OSError, match="the disk is gone"):
            run.drain()
        recorded.meter_provider.force_flush()
    recorded.meter_provider.shutdown()


def test_all_rules_can_be_evaluated(server: Prometheus) -> None:
    def health() -> list[str]:
        return [rule["health"] for group in server.ask("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: "unknown" not in health(), "all rules were evaluated")

    assert health() == ["ok"] * (len(alerts.ALL) + len(recordings.ALL))


def test_two_short_processes_whose_runs_fail_are_one_alert(server: Prometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    def firing() -> list[dict[str, Any]]:
        return [alert for alert in server.ask("alerts")["alerts"] if alert["state"] == "firing"]

    for instance in ("a", "b"):
        run_and_die(server, instance, monkeypatch)
    wait_until(lambda: [float(alert["value"]) for alert in firing()] == [2], "one alert is about both")

    (alert,) = firing()
    assert alert["labels"] == {
        "alertname": "ForgeRunFailed",
        "forge_pipeline_name": "corpus",
        "severity": "warning",
    }
    assert alert["annotations"]["description"] == ("Runs of the pipeline corpus that failed in the last 15 minutes: 2.")
