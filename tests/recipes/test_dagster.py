"""The recipe for Dagster: its job executed by Dagster, in an environment of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.recipes.conftest import Environment
from tests.support.collector import running_collector
from tests.support.recipes import copy_files, run_block, shell_blocks

pytestmark = pytest.mark.slow

EVALUATED = """
from dagster import build_sensor_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

from sensor import arrivals

[request] = arrivals(build_sensor_context())
[span] = exporter.get_finished_spans()
parent = span.get_span_context()
expected = f"00-{parent.trace_id:032x}-{parent.span_id:016x}-{parent.trace_flags:02x}"
assert request.tags == {"traceparent": expected}, request.tags
"""


def test_runs_of_a_job_send_all_they_have_and_join_the_trace_in_their_tags(
    tmp_path: Path, orchestrator: Environment
) -> None:
    copy_files("dagster", tmp_path)
    variables = {**orchestrator("dagster"), "DAGSTER_DISABLE_TELEMETRY": "yes"}
    with running_collector() as collector:
        _, execute = shell_blocks("dagster", {"http://localhost:4318": collector.url})
        done = run_block(execute, tmp_path, variables)
    assert done.returncode == 0, done.stderr
    assert "not delivered" not in done.stderr
    assert done.stderr.count("greetings: completed in ") == 2
    runs = [span for span in collector.spans if span.name == "forge.pipeline greetings"]
    assert [run.parent_span_id.hex() for run in runs] == ["", "b7ad6b7169203331"]
    assert runs[1].trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert [span.name for span in collector.spans].count("forge.stage shout") == 4
    assert collector.events.count("forge.pipeline.summary") == 2
    assert collector.metrics["forge.sample.settled"]["pipeline.name=greetings, sample.outcome=ready"] == 2
    assert {resource["service.name"] for resource in collector.resources} == {"greetings"}


def test_a_sensor_passes_its_span_on(tmp_path: Path, orchestrator: Environment) -> None:
    copy_files("dagster", tmp_path)
    command = ["python", "-c", EVALUATED]
    done = subprocess.run(
        command, cwd=tmp_path, env=orchestrator("dagster"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
