"""The stack's way to StatsD: what a run counted is what has arrived in Graphite."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.waiting import wait_until

from .graphite import Bridge, Graphite, StatsD
from .pipelines import finish, start_worker
from .programs import text

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack

EXECUTIONS = "stats.counters.forge.stage.executions.worker"


def test_counts_and_durations(stack: Stack, tmp_path: Path) -> None:
    graphite = Graphite(tmp_path / "graphite")
    statsd = StatsD(tmp_path / "statsd", graphite)
    bridge = Bridge(tmp_path / "bridge", statsd)
    stack.programs += [graphite, statsd, bridge]
    for program in (graphite, statsd, bridge):
        program.run()
    collector = stack.collector("statsd", variables={"FORGE_STATSD_BRIDGE_ENDPOINT": bridge.url}).run()

    record = json.loads(finish(start_worker(collector.otlp, tmp_path / "db", {"good": 17, "bad": 3})))
    assert {stage["name"]: (stage["successes"], stage["errors"]) for stage in record["stages"]} == {
        "never_fails": (20, 0),
        "check": (17, 3),
    }
    expected = {
        "stats.counters.forge.pipeline.completed.worker.completed.count": 1,
        f"{EXECUTIONS}.never_fails.success.count": 20,
        f"{EXECUTIONS}.never_fails.error.count": 0,
        f"{EXECUTIONS}.check.success.count": 17,
        f"{EXECUTIONS}.check.error.count": 3,
        "stats.timers.forge.stage.latency.worker.check.count": 20,
    }

    def found() -> dict[str, float]:
        return {target: graphite.total(target) for target in expected}

    # Not all of it can be asked for in the same moment.
    wait_until(lambda: sum(found().values()) >= sum(expected.values()), "all of the run is in Graphite")
    assert found() == expected
    # Graphite's API, as Grafana asks it.
    rendered = json.loads(text(f"{graphite.url}/render?target={EXECUTIONS}.*.success.count&from=-5min&format=json"))
    assert {series["target"] for series in rendered} == {
        f"{EXECUTIONS}.never_fails.success.count",
        f"{EXECUTIONS}.check.success.count",
    }
    stages = json.loads(text(f"{graphite.url}/metrics/find?query={EXECUTIONS}.*"))
    assert {stage["text"] for stage in stages} == {"never_fails", "check"}
