"""Two agents and two gateways with tail sampling, in containers; during two runs a gateway is killed and comes back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.stack.services import traces_of
from tests.support.compose import ROOT, SCALE
from tests.support.waiting import wait_until

from .confinement import assert_confined
from .conftest import SERVICES
from .engine import PROJECT
from .runs import ledger, load, settled
from .stores import JAEGER, logs, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .engine import Engine

AGENTS = {"first": "otelcol", "second": "otelcol-2"}
"""The pipelines, and the agents that they send to."""
MORE = ("otelcol-2", "gateway-1", "gateway-2")
SAMPLES, RATE = 2_000, 50
"""Few enough for all of their spans to be within the budget."""
DECISION_WAIT = 5
EXPORTED_EVERY = 0.5
"""Seconds between two exports of spans."""
UNDECIDED = DECISION_WAIT + 1 + EXPORTED_EVERY
"""Seconds before the kill in which a span that is lost was made: gateways look every second what they can decide on."""
LATE = 5
"""Seconds by which a busy machine may delay a sample."""
COUNTED = "stats by (event_name) count() as records"
WHOLE = {"forge.sample", "forge.stage double", "forge.stage check"}
"""The spans of each sample."""


@pytest.fixture(scope="module")
def scaled(containers: Engine) -> Iterator[Engine]:
    """The engine, in which the stack runs with agents and gateways, which keep all traces."""
    found = containers.told(
        COMPOSE_FILE=":".join(SCALE),
        OTELCOL_DECISION_WAIT=f"{DECISION_WAIT}s",
        OTELCOL_SAMPLING_PERCENTAGE="100",
    )
    found.compose("--profile", "demo", "down", "--volumes", "--remove-orphans")
    found.compose("build")
    found.compose("up", "--detach", "--wait")
    yield found
    found.compose("--profile", "demo", "down", "--volumes", "--remove-orphans")


@dataclass(frozen=True)
class Killed:
    """Two runs, during which a gateway was killed."""

    runs: dict[str, dict[str, Any]]
    asked: float
    """When the engine was asked to kill it, in seconds since the epoch."""
    done: float
    """When it was dead."""
    said: str
    """By `make ready`, while it was down."""

    def sent(self, name: str) -> int:
        """How many spans a run wrote, by its own account."""
        (summary,) = logs(f'"service.name":="{name}" event_name:="forge.pipeline.summary"')
        return int(summary["forge.summary.spans"])

    def due(self, name: str, sample: str) -> float:
        """When a sample came from its source, in seconds since the epoch."""
        (start,) = logs(f'"service.name":="{name}" event_name:="forge.pipeline.start"')
        began = datetime.fromisoformat(start["_time"]).timestamp()
        return began + int(sample.removeprefix("sample-")) / RATE


@pytest.fixture(scope="module")
def killed(scaled: Engine) -> Killed:
    """Both runs, in whose midst a gateway is killed, and comes back when the other one has taken its place."""
    variables = {"OTEL_BSP_SCHEDULE_DELAY": f"{1000 * EXPORTED_EVERY:.0f}"}
    with ThreadPoolExecutor(len(AGENTS)) as runs:
        running = {
            name: runs.submit(load, scaled, name, SAMPLES, RATE, agent=agent, **variables)
            for name, agent in AGENTS.items()
        }
        wait_until(lambda: all(ready(name) > 2 * RATE * UNDECIDED for name in AGENTS), "the runs are in their midst")
        asked = time.time()
        scaled.compose("kill", "--signal", "KILL", "gateway-1")
        done = time.time()
        before = {name: ready(name) for name in AGENTS}
        said = scaled.run("make", "--silent", "ready", "ARGS=--timeout 5", check=False).stderr
        wait_until(lambda: all(ready(name) > before[name] for name in AGENTS), "the metrics of both runs go on")
        scaled.compose("start", "gateway-1")
        return Killed({name: run.result() for name, run in running.items()}, asked, done, said)


def ready(name: str) -> float:
    """How many samples of a pipeline are stored, as Prometheus has it."""
    return settled(name).get(("ready",), 0)


def samples(name: str) -> dict[str, set[str]]:
    """The names of the spans that Jaeger has of each sample of a pipeline."""
    found = {}
    for spans in traces_of(JAEGER, name, 10 * SAMPLES):
        for sample in {span["tags"]["forge.sample.id"] for span in spans if "forge.sample.id" in span["tags"]}:
            found[sample] = {span["operationName"] for span in spans}
    return found


def broken(name: str) -> set[str]:
    """The samples of a pipeline of which Jaeger has nothing, or not all."""
    found = samples(name)
    return {sample for sample in map("sample-{}".format, range(SAMPLES)) if not found.get(sample, set()) >= WHOLE}


def test_it_comes_up_and_says_where_it_is(scaled: Engine) -> None:
    said = scaled.run("make", "--silent", "ready").stdout

    assert {line.split()[0] for line in said.splitlines()} == {*SERVICES, *MORE}


def test_it_is_known_which_files_it_was_started_with(containers: Engine, scaled: Engine) -> None:
    assert containers.run("make", "--silent", "ready").stdout == scaled.run("make", "--silent", "ready").stdout


@pytest.mark.parametrize("name", ["otelcol", *MORE])
def test_each_is_confined(scaled: Engine, name: str) -> None:
    assert_confined(scaled.inspect(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_no_metric_is_lost_when_a_gateway_is_killed(killed: Killed, name: str) -> None:
    expected = ledger(killed.runs[name])

    assert expected == {("ready",): 0.99 * SAMPLES, ("dlq",): 0.01 * SAMPLES}
    wait_until(lambda: settled(name) == expected, "Prometheus has what the ledger says")


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_no_log_record_is_lost_when_a_gateway_is_killed(killed: Killed, name: str) -> None:
    letters = SAMPLES // 100
    expected = {
        ("forge.pipeline.start", 1),
        ("forge.stage.exception", letters),
        ("forge.dlq.enqueue", letters),
        ("forge.stage.summary", 2),
        ("forge.pipeline.summary", 1),
        ("forge.pipeline.stop", 1),
    }
    # Some may have come twice: what had not been answered when the gateway was killed.
    distinct = f'"service.name":="{name}" | uniq by (event_name, span_id, "forge.stage.name")'

    def found() -> set[tuple[str, int]]:
        return {(each["event_name"], int(each["records"])) for each in logs(f"{distinct} | {COUNTED}")}

    wait_until(lambda: found() == expected, "VictoriaLogs has all log records")


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_of_spans_those_are_lost_that_the_gateway_had_not_decided_on(killed: Killed, name: str) -> None:
    def others() -> set[str]:
        """Broken samples but those that the gateway had not decided on."""
        begin, end = killed.asked - UNDECIDED - LATE, killed.done
        return {sample for sample in broken(name) if not begin <= killed.due(name, sample) <= end}

    wait_until(lambda: not others(), "all other traces are whole")
    kept = {span["spanID"] for spans in traces_of(JAEGER, name, 10 * SAMPLES) for span in spans}
    lost = killed.sent(name) - len(kept)
    rate = killed.sent(name) / killed.runs[name]["duration"]
    assert 0 < lost <= UNDECIDED * rate


@pytest.mark.slow
def test_make_ready_names_a_gateway_that_is_down(killed: Killed) -> None:
    files = " ".join(f"--file {ROOT / file}" for file in SCALE)

    assert f"no answer from: gateway-1. See: docker compose {files} logs gateway-1\n" in killed.said


@pytest.mark.slow
def test_everything_was_taken_in_once_by_agents_and_all_took_part(killed: Killed) -> None:
    accepted = "max by (instance) (max_over_time(otelcol_receiver_accepted_spans_total[15m]))"

    def found() -> dict[str, float]:
        return {instance.partition(":")[0]: count for (instance,), count in value(accepted, "instance").items()}

    wait_until(
        lambda: [found().get(agent) for agent in AGENTS.values()] == [killed.sent(name) for name in AGENTS],
        "the agents have taken in all spans",
    )
    assert all(found()[gateway] > 0 for gateway in ("gateway-1", "gateway-2"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SERVICES, *MORE])
def test_all_stay_within_their_limits(scaled: Engine, killed: Killed, name: str) -> None:
    found = scaled.inspect(name)

    assert not found["State"]["OOMKilled"]
    assert found["RestartCount"] == 0


def test_its_volumes_go_where_that_is_asked_for(containers: Engine, scaled: Engine) -> None:
    found = scaled.docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
    assert f"{PROJECT}_gateway-secrets" in found.splitlines()

    containers.run("make", "down", "ARGS=--volumes")

    assert containers.docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}") == ""
