"""The recipe that follows ids from one signal to the others, in the real backends of the stack."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.stack.conftest import Stack
from tests.stack.programs import text
from tests.support.needs import lacking
from tests.support.recipes import copy_files, environment, run_block, shell_blocks
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

RECIPE = "find-the-trace"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    for command in ("curl", "jq"):
        if shutil.which(command) is None:
            lacking(f"needs {command}: apt-get install {command}")
    stack = Stack(tmp_path / "stack")
    yield stack
    for program in stack.programs:
        program.kill()


def test_every_step_leads_to_the_next(stack: Stack, tmp_path: Path) -> None:
    jaeger, logs, prometheus = stack.jaeger().run(), stack.victoria_logs().run(), stack.prometheus().run()
    collector = stack.collector(
        "prometheus",
        "victoria-logs",
        "jaeger",
        variables={
            "PROMETHEUS_ENDPOINT": prometheus.url,
            "VICTORIA_LOGS_ENDPOINT": logs.url,
            "JAEGER_ENDPOINT": jaeger.otlp,
        },
    ).run()
    replaced = {
        "http://127.0.0.1:4318": collector.otlp,
        "http://127.0.0.1:16686": jaeger.url,
        "http://127.0.0.1:9428": logs.url,
        "http://127.0.0.1:9090": prometheus.url,
    }
    copy_files(RECIPE, tmp_path)
    blocks = shell_blocks(RECIPE, replaced)
    replay = next(number for number, block in enumerate(blocks) if "replay.py" in block)

    def has_exemplars() -> bool:
        query = {"query": "forge_stage_duration_seconds_bucket", "start": time.time() - 600, "end": time.time() + 1}
        return bool(json.loads(text(f"{prometheus.url}/api/v1/query_exemplars?{urlencode(query)}"))["data"])

    exports = "".join(f"{line}\n" for line in blocks[0].splitlines() if line.startswith("export "))

    def run(first: int, last: int, **variables: str) -> list[str]:
        """Run blocks in one shell, with the variables of those before; returns what each printed."""
        script = exports + "".join(f"echo ---\n{block}" for block in blocks[first:last])
        done = run_block(script, tmp_path, environment(**variables))
        assert done.returncode == 0, done.stdout + done.stderr
        return [part.strip() for part in done.stdout.split("---\n")[1:]]

    def traces(**chosen: str) -> set[str]:
        query = urlencode({"service": "numbers", **chosen})
        return {trace["traceID"] for trace in json.loads(text(f"{jaeger.url}/api/traces?{query}"))["data"]}

    [printed] = run(0, 1)
    assert "numbers: completed in " in printed
    message = "invalid literal for int() with base 10: 'two'"
    about_the_sample = [
        "parsing line-2",
        "Stage failed: parse, ValueError, after 1 attempt",
        "Dead letter: line-2, ValueError, stage parse",
        f"numbers: sample 'line-2' failed in parse: ValueError: {message} (others like it are counted)",
    ]

    def has_all_spans() -> bool:
        found = [span for trace in traces() for span in jaeger.spans(trace)]
        return len(found) == collector.counter("otelcol_receiver_accepted_spans_total")

    def has_all_records() -> bool:
        """Whether those of Python's loggers have arrived as well, which are sent apart from the events."""
        return set(about_the_sample) <= {record["_msg"] for record in logs.query("*")}

    wait_until(has_all_spans, "the spans are there")
    wait_until(has_all_records, "the log records are there")
    wait_until(has_exemplars, "the exemplars are there")

    letter, line, event, exemplar, back, found_message, metrics, record = run(1, replay)
    url, *names = letter.split("\n")
    trace = url.rpartition("/")[2]
    assert traces(operation="forge.pipeline numbers") == {trace}
    assert sorted(names) == ["forge.stage parse", "forge.storage write sqlite"]
    span = line.rpartition("=")[2]  # the stage's
    assert line == f"trace_id={trace} span_id={span}"
    [sample] = [each["spanID"] for each in jaeger.spans(trace) if each["tags"].get("forge.sample.outcome") == "dlq"]
    assert event == f"line-2 {trace} {span} ValueError"
    assert exemplar == f"{trace} {span}"
    assert back.split("\n") == about_the_sample
    assert found_message == message
    assert sorted(metrics.split("\n")) == ["cancelled 0", "error 1", "skip 0", "success 1"]
    assert record.endswith(" completed")
    assert len(record.split("\n")) == 1

    run(replay, replay + 1)
    wait_until(has_all_spans, "those of the replay are there as well")
    assert len(traces(operation="forge.pipeline numbers")) == 2
    [link] = run(replay + 1, replay + 2, trace=trace)
    assert link == f"{trace} {sample}"
