"""The stack in containers: it starts, what is sent to it arrives, and it is confined."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.stack.graphite import total
from tests.stack.programs import wait_until
from tests.stack.services import records

from .conftest import SERVICES
from .stores import GRAPHITE, logs, summaries, trace, value

if TYPE_CHECKING:
    from pathlib import Path

    from .engine import Engine


def test_the_project_is_one_that_compose_takes(containers: Engine) -> None:
    assert containers.run("docker", "compose", "--profile", "*", "config", "--quiet").stderr == ""


def test_it_comes_up_and_says_where_it_is(up: Engine) -> None:
    said = up.run("make", "--silent", "ready").stdout

    assert {line.split()[0] for line in said.splitlines()} == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_each_is_confined(up: Engine, name: str) -> None:
    found = up.inspect(name)
    host = found["HostConfig"]

    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert not host["Privileged"]
    assert int(found["Config"]["User"].partition(":")[0]) > 0
    assert 0 < host["Memory"] <= 2**30
    assert not found["State"]["OOMKilled"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}
    published = [each for ports in found["NetworkSettings"]["Ports"].values() for each in ports or ()]
    assert {port["HostIp"] for port in published} == {"127.0.0.1"}


def demo(up: Engine, *options: str) -> dict[str, Any]:
    """A run of the demo in its container, and what it says of itself."""
    command = f"forge-otel demo --otlp http://otelcol:4317 --out /demo --json {' '.join(options)}"
    done = up.run("docker", "compose", "--profile", "demo", "run", "--rm", "-T", "demo", command, check=False)
    assert done.returncode in (0, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_run_of_the_demo_arrives_everywhere(up: Engine, tmp_path: Path) -> None:
    run = demo(up, "--limit", "60")
    ledger = {(outcome,): float(run["ledger"][outcome]) for outcome in ("ready", "skipped", "split", "dlq")}
    executions = Counter({stage["name"]: stage["executions"] for stage in run["stages"]})

    settled = "sum by (forge_sample_outcome) (forge_sample_settled_total) > 0"
    wait_until(
        lambda: value(settled, "forge_sample_outcome") == {key: count for key, count in ledger.items() if count},
        "Prometheus has what the ledger says",
    )
    assert value("sum by (forge_stage_name) (forge_stage_executions_total)", "forge_stage_name") == {
        (name,): count for name, count in executions.items()
    }

    up.compose("cp", "otelcol:/var/lib/otelcol", str(tmp_path / "otelcol"))
    spans = {span["spanId"]: span for span in records(tmp_path / "otelcol", "traces")}
    written = list(records(tmp_path / "otelcol", "logs"))
    (root,) = [span for span in spans.values() if span["name"].startswith("forge.pipeline ")]
    wait_until(lambda: len(trace(root["traceId"])) == len(spans), "Jaeger has all spans")
    assert {key: span["operationName"] for key, span in trace(root["traceId"]).items()} == {
        key: span["name"] for key, span in spans.items()
    }

    wait_until(lambda: len(logs("*")) == len(written), "VictoriaLogs has all log records")
    assert Counter(log["event_name"] for log in logs("event_name:*")) == Counter(
        log["eventName"] for log in written if log.get("eventName")
    )
    assert len(logs(f'trace_id:="{root["traceId"]}"')) == len([log for log in written if log["traceId"]])

    graphite = "stats.counters.forge.stage.executions.{}.*.count"
    wait_until(
        lambda: Counter({name: int(total(GRAPHITE, graphite.format(name))) for name in executions}) == executions,
        "Graphite has all executions",
    )


def test_a_service_that_is_down_is_named(up: Engine) -> None:
    up.compose("kill", "--signal", "KILL", "jaeger")

    said = up.run("make", "--silent", "ready", "ARGS=--timeout 1", check=False)
    up.compose("up", "--detach", "--wait")

    assert said.returncode == 2  # make's own, where a command of it failed
    assert "no answer from: jaeger. See: docker compose logs jaeger" in said.stderr
    assert "jaeger" in up.run("make", "--silent", "ready").stdout


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
