"""The demos' telemetry in StatsD: every line is of its daemon's grammar, and they add up to the demos' summaries."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from forge_otel.semconv.statsd import NAMES
from tests.commands.test_demo import outcomes, stages
from tests.support.statsd import Line, Listener, read
from tests.support.statsd_demo import run_demo

FLAVORS: dict[str, dict[str, Any]] = {
    "dogstatsd": {"tags": "team:ml", "env": "test"},
    "plain": {"flavor": "statsd", "gauges": True},
    "tagged": {"flavor": "statsd", "dimensions": "tags", "tags": "team:ml", "env": "test"},
}
ORIGIN = {"service:forge-demo", "team:ml", "env:test"}
OURS = {form.name: form for form in NAMES.values()}


@pytest.mark.slow
@pytest.mark.parametrize("demo", ["corpus", "labels"])
def test_every_line(demo: str, tmp_path: Path) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(len(FLAVORS)) as pool:
        listeners = [stack.enter_context(Listener("tcp")) for _ in FLAVORS]
        streams = [pool.submit(listener.rest) for listener in listeners]
        readers = [
            {**settings, "protocol": "tcp", "port": listener.port}
            for settings, listener in zip(FLAVORS.values(), listeners, strict=True)
        ]
        document = run_demo(tmp_path, readers, "--pipeline", demo, "--limit", "10")
        sent = dict(zip(FLAVORS, (stream.result().splitlines() for stream in streams), strict=True))

    lines = {name: read(sent[name], FLAVORS[name].get("flavor", "dogstatsd")) for name in FLAVORS}
    for line in [*lines["dogstatsd"], *lines["tagged"]]:
        assert line.tags >= ORIGIN, line
        if line.name in OURS:
            keys = {tag.partition(":")[0] for tag in line.tags}
            assert "pipeline" in keys, line
            assert keys - {"service", "team", "env", "instance"} <= OURS[line.name].tags.keys(), line
    pipeline = document["pipeline"]
    expected: dict[tuple[str, ...], int] = {}
    expected |= {("forge.sample.settled", pipeline, name): count for name, count in outcomes(document).items()}
    expected |= {("forge.stage.executions", pipeline, *key): count for key, count in stages(document).items()}
    assert counts(lines["dogstatsd"]) == expected
    assert counts(lines["tagged"]) == expected
    plain = defaultdict[str, float](float)
    for line in lines["plain"]:
        plain[line.name] += line.value if line.kind == "c" else 0
    assert {key: plain[".".join(key)] for key in expected} == expected


def counts(lines: list[Line]) -> dict[tuple[str, ...], float]:
    """What was counted of samples and of executions, by their tags, but what is 0."""
    found = defaultdict[tuple[str, ...], float](float)
    for line in lines:
        if line.name in ("forge.sample.settled", "forge.stage.executions"):
            tags = dict(tag.split(":", 1) for tag in line.tags)
            found[line.name, *(tags[tag] for tag in OURS[line.name].tags)] += line.value
    return {key: value for key, value in found.items() if value}
