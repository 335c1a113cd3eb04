"""The stack in containers: it starts, it is confined, and what is sent to it arrives."""

from __future__ import annotations

import shutil
from collections import Counter
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.stack.graphite import total
from tests.stack.programs import wait_until
from tests.support.needs import lacking

from .confinement import assert_confined
from .conftest import SERVICES
from .runs import collected, demo, of
from .stores import GRAPHITE, LOGS, logs, trace, value

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import Engine


DEMO = "forge-demo"
"""The demo's service."""


def test_the_project_is_one_that_compose_takes(containers: Engine) -> None:
    assert containers.run("docker", "compose", "--profile", "*", "config", "--quiet").stderr == ""


def test_it_comes_up_and_says_where_it_is(up: Engine) -> None:
    said = up.run("make", "--silent", "ready").stdout

    assert {line.split()[0] for line in said.splitlines()} == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_each_is_confined(up: Engine, name: str) -> None:
    assert_confined(up.inspect(name))


def test_a_run_of_the_demo_arrives_everywhere(up: Engine, tmp_path: Path) -> None:
    run = demo(up, "--limit", "60")
    ledger = {(outcome,): float(run["ledger"][outcome]) for outcome in ("ready", "skipped", "split", "dlq")}
    executions = Counter({stage["name"]: stage["executions"] for stage in run["stages"]})

    settled = 'sum by (forge_sample_outcome) (forge_sample_settled_total{forge_pipeline_name="code_corpus"}) > 0'
    wait_until(
        lambda: value(settled, "forge_sample_outcome") == {key: count for key, count in ledger.items() if count},
        "Prometheus has what the ledger says",
    )
    executed = 'sum by (forge_stage_name) (forge_stage_executions_total{forge_pipeline_name="code_corpus"})'
    assert value(executed, "forge_stage_name") == {(name,): count for name, count in executions.items()}

    def spans() -> dict[str, str]:
        """The names of the spans in the Collector's files, by id."""
        return {span["spanId"]: span["name"] for span in of(DEMO, collected(up, tmp_path), "traces")}

    def stored() -> dict[str, str]:
        return {identity: span["operationName"] for identity, span in trace(root).items()}

    files = collected(up, tmp_path)
    (root,) = [span["traceId"] for span in of(DEMO, files, "traces") if span["name"].startswith("forge.pipeline ")]
    written = of(DEMO, files, "logs")
    wait_until(lambda: stored() == spans(), "Jaeger has all spans")

    ours = f'"service.name":="{DEMO}"'
    wait_until(lambda: len(logs(ours)) == len(written), "VictoriaLogs has all log records")
    assert Counter(log["event_name"] for log in logs(f"{ours} event_name:*")) == Counter(
        log["eventName"] for log in written if log.get("eventName")
    )
    assert len(logs(f'trace_id:="{root}"')) == len([log for log in written if log["traceId"]])

    graphite = "stats.counters.forge.stage.executions.*.{}.*.count"
    wait_until(
        lambda: Counter({name: int(total(GRAPHITE, graphite.format(name))) for name in executions}) == executions,
        "Graphite has all executions",
    )


def test_the_page_of_victoria_logs_shows_the_run(up: Engine, tmp_path: Path) -> None:
    run = demo(up, "--limit", "3", "--rerun")
    chromium = shutil.which("chromium")
    if chromium is None:
        lacking("needs Chromium: apt-get install chromium")
    query = f'"forge.run.id":="{run["run_id"]}" event_name:="forge.pipeline.stop"'
    wait_until(lambda: len(logs(query)) == 1, "VictoriaLogs has the run's end")
    (stop,) = logs(query)

    page = up.run(
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
        *("--virtual-time-budget=20000", "--dump-dom", f"{LOGS}/select/vmui/#/?query={quote(query)}"),
    ).stdout

    assert stop["_msg"] in unescape(page)
