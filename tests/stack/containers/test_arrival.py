"""The stack in containers: it starts, it is confined, and what is sent to it arrives."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.stack.graphite import total
from tests.support.browser import text_of
from tests.support.compose import ROOT
from tests.support.waiting import wait_until
from tools.stack import answers

from .confinement import assert_confined
from .conftest import SERVICES
from .runs import collected, demo, load, of
from .stores import GRAPHITE, JAEGER, LOGS, exemplars, logs, logs_of_page, trace, value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .engine import Engine


DEMO = "forge-demo"
"""The demo's service."""
OTHERS = {"double", "check"}
"""The stages of the load."""
PAGES = (
    rf"^trace  {re.escape(JAEGER)}/trace/(\w+)$\n"
    rf"^logs   {re.escape(LOGS)}/select/vmui/#/\?query=trace_id%3A%3D%22(\w+)%22&g0\.relative_time=last_7_days$"
)
"""The demo's last lines."""
ERROR = 2
"""What OTLP calls the status of a span that failed."""
LINES: dict[str, tuple[str, set[str]]] = {
    "forge.pipeline.exception": ("ERROR", {"forge.pipeline.id", "exception.type"}),
    "forge.stage.exception": ("WARN", {"forge.sample.id", "forge.stage.name", "error.type", "forge.duration"}),
    "forge.dlq.enqueue": ("INFO", {"forge.sample.id", "forge.stage.name", "error.type"}),
}
"""The ADR's log lines: pipeline failed, stage failed, sample to the dead letters; with their severities and fields."""


def tree(span: Mapping[str, Any]) -> tuple[str, str, bool, set[str]]:
    """A span of Jaeger's: its name, its parent, whether it failed, and the spans that it is linked to."""
    parents = [each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"]
    linked = {each["spanID"] for each in span["references"] if each["refType"] == "FOLLOWS_FROM"}
    return span["operationName"], "".join(parents), span["tags"].get("error", False), linked


def test_the_project_is_one_that_compose_takes(containers: Engine) -> None:
    assert containers.run("docker", "compose", "--profile", "*", "config", "--quiet").stderr == ""


def test_who_has_docker_without_compose_is_told_so(containers: Engine, tmp_path: Path) -> None:
    alone = containers.told(DOCKER_CONFIG=str(tmp_path))
    if alone.run("docker", "compose", "version", check=False).returncode == 0:
        pytest.skip("needs a Docker that has Compose in the user's folder only")

    done = alone.run(sys.executable, "tools/stack/ready.py", check=False)

    said = "make ready needs Docker Compose: https://docs.docker.com/compose/install/\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_it_comes_up_and_says_where_it_is(up: Engine) -> None:
    said = up.run("make", "--silent", "ready").stdout

    assert {line.split()[0] for line in said.splitlines()} == set(SERVICES)


def test_it_is_known_at_which_address_it_was_started(up: Engine) -> None:
    elsewhere = up.told(PUBLISH_ADDRESS="127.0.0.30")

    said = elsewhere.run("make", "--silent", "ready", "ARGS=--timeout 180").stdout

    assert sorted(said.splitlines()) == sorted(up.run("make", "--silent", "ready").stdout.splitlines())


def test_who_waits_for_it_may_stop_waiting(up: Engine) -> None:
    up.compose("stop", "statsd")
    command = [sys.executable, str(ROOT / "tools" / "stack" / "ready.py")]
    with subprocess.Popen(
        command, cwd=ROOT, env=up.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().split()[0] for _ in range(len(SERVICES) - 1)]
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=180)
    up.compose("start", "statsd")

    assert set(said) == {*SERVICES} - {"statsd"}
    assert (process.returncode, *rest) == (130, "", "")


@pytest.mark.parametrize("name", SERVICES)
def test_each_is_confined(up: Engine, name: str) -> None:
    assert_confined(up.inspect(name))


def test_a_run_of_the_demo_arrives_everywhere(up: Engine, tmp_path: Path) -> None:
    began = time.time()
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

    window = math.ceil(time.time() - began) + 1
    for question, values in answers.expected([run], window).items():
        found = {name: each for (name,), each in value(question.over(window), question.label).items()}
        of_the_demo = {name: each for name, each in found.items() if name not in OTHERS}
        if values is not None:
            assert of_the_demo == pytest.approx(values), question.title
        else:
            assert of_the_demo.keys() == executions.keys(), question.title

    files = collected(up, tmp_path)
    spans = of(DEMO, files, "traces")
    (root,) = [span["traceId"] for span in spans if span["name"].startswith("forge.pipeline ")]
    written = of(DEMO, files, "logs")
    wait_until(lambda: len(trace(root)) == len(spans), "Jaeger has all spans")
    assert {name: tree(span) for name, span in trace(root).items()} == {
        span["spanId"]: (
            span["name"],
            span.get("parentSpanId", ""),
            span["status"].get("code") == ERROR,
            {link["spanId"] for link in span.get("links", ())},
        )
        for span in spans
    }

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


def test_a_failure_leads_from_its_metric_to_its_trace_and_its_log_records_and_back(up: Engine) -> None:
    run = load(up, "failing", 100, 100, "--fails")
    assert run["outcome"] == "failed"
    ours = '"service.name":="failing"'
    wait_until(lambda: len(logs(f"{ours} event_name:in({','.join(LINES)})")) == len(LINES), "the log records are there")
    found = {log["event_name"]: log for log in logs(ours) if log.get("event_name") in LINES}
    for name, (severity, fields) in LINES.items():
        assert found[name]["severity_text"] == severity
        assert fields | {"forge.pipeline.name", "forge.run.id"} <= found[name].keys(), name
        assert found[name]["forge.run.id"] == run["run_id"]
    failure = found["forge.stage.exception"]

    failed = 'forge_stage_duration_seconds_bucket{forge_pipeline_name="failing",forge_stage_outcome="error"}'
    wait_until(lambda: bool(exemplars(failed)), "the point has an exemplar")
    ((identity, span),) = exemplars(failed)
    wait_until(lambda: span in trace(identity), "Jaeger has its span")
    tags = trace(identity)[span]["tags"]
    assert (tags["forge.sample.id"], tags["forge.stage.name"]) == ("sample-0", "check")
    assert [log["event_name"] for log in logs(f'trace_id:="{identity}" span_id:="{span}"')] == ["forge.stage.exception"]
    assert (failure["trace_id"], failure["span_id"]) == (identity, span)
    assert failure in logs_of_page(identity)


@pytest.mark.slow
def test_the_demo_runs_over_and_over_and_says_where_to_look(up: Engine) -> None:
    def runs() -> list[tuple[str, str]]:
        """The trace of each run on Jaeger's page, and on that of VictoriaLogs."""
        return re.findall(PAGES, up.compose("logs", "--no-log-prefix", "demo"), re.MULTILINE)

    def are_there(identity: str) -> bool:
        """Whether a run's own span is behind its link to Jaeger, and its summary behind that to VictoriaLogs."""
        names = Counter(span["operationName"] for span in trace(identity).values())
        summary = logs(f'trace_id:="{identity}" event_name:="forge.pipeline.summary"')
        return (names["forge.pipeline code_corpus"], len(summary)) == (1, 1)

    up.compose("--profile", "demo", "up", "--detach")
    # A run is told of before the last of its telemetry is sent.
    wait_until(lambda: [are_there(identity) for identity, _ in runs()] == [True], "the first run has arrived", 600)
    up.compose("restart", "demo")
    wait_until(lambda: [are_there(identity) for identity, _ in runs()] == [True, True], "both runs have arrived", 600)
    told = runs()
    assert_confined(up.inspect("demo"))
    up.compose("rm", "--force", "--stop", "demo")

    assert len(set(told)) == 2
    assert [identity for identity, _ in told] == [queried for _, queried in told]


def test_the_pages_of_victoria_logs_and_victoria_metrics_show_the_run(up: Engine, tmp_path: Path) -> None:
    run = demo(up, "--limit", "3", "--rerun")
    query = f'"forge.run.id":="{run["run_id"]}" event_name:="forge.pipeline.stop"'
    wait_until(lambda: len(logs(query)) == 1, "VictoriaLogs has the run's end")
    (stop,) = logs(query)
    counters = "stats.counters.forge.stage.executions.code_corpus.*.success.count"
    names = {counters.replace("*", stage["name"]) for stage in run["stages"] if stage["successes"]}
    wait_until(lambda: all(total(GRAPHITE, name) for name in names), "Graphite has the counters")

    assert stop["_msg"] in text_of(f"{LOGS}/select/vmui/#/?query={quote(query)}", tmp_path)
    expression = quote(f'{{__graphite__="{counters}"}}')
    graph = text_of(f"{GRAPHITE}/vmui/#/?g0.expr={expression}&g0.relative_time=last_30_minutes", tmp_path)
    assert [name for name in names if name not in graph] == []
