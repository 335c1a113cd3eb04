"""The recipe for migrating: its scripts run, with the real libraries, and everything is there once, in one trace."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.recipes.conftest import Environment
from tests.support.collector import Collector, running_collector
from tests.support.recipes import copy_files, environment, run_block, shell_blocks

pytestmark = pytest.mark.slow

RECIPE = "migrating"
EVENTS = ["forge.pipeline.start", "forge.pipeline.stop", "forge.pipeline.summary", "forge.stage.summary"]
OURS = {
    ("forge.sample", "forge.pipeline numbers"): 2,
    ("forge.stage parse", "forge.sample"): 2,
}


def run_script(name: str, folder: Path, variables: dict[str, str], **replaced: str) -> Collector:
    """Run the block that starts a script of the page."""
    with running_collector() as collector:
        endpoint = {"http://127.0.0.1:4318": collector.url}
        copy_files(RECIPE, folder, replaced)
        [command] = [block for block in shell_blocks(RECIPE, endpoint) if f"python {name}" in block]
        done = run_block(command, folder, variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not delivered" not in done.stderr
    assert "numbers: completed in " in done.stdout
    return collector


def parents(collector: Collector) -> Counter[tuple[str, str]]:
    """Numbers of spans by their name and that of their parent; all of them are in one trace."""
    names = {span.span_id: span.name for span in collector.spans}
    assert len({span.trace_id for span in collector.spans}) == 1
    return Counter((span.name, names.get(span.parent_span_id, "")) for span in collector.spans)


def ready(collector: Collector) -> float:
    return collector.metrics["forge.sample.settled"]["pipeline.name=numbers, sample.outcome=ready"]


def test_before_and_after(tmp_path: Path) -> None:
    with running_collector() as before:
        copy_files(RECIPE, tmp_path)
        variables = environment(OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf", OTEL_EXPORTER_OTLP_ENDPOINT=before.url)
        assert run_block("opentelemetry-instrument python before.py", tmp_path, variables).returncode == 0
    assert parents(before) == {
        ("numbers", ""): 1,
        ("forge.pipeline numbers", "numbers"): 1,
        **OURS,
        ("parse", "forge.stage parse"): 2,
        ("normalise", "parse"): 2,
    }

    after = run_script("after.py", tmp_path, environment())
    assert parents(after) == {
        ("forge.pipeline numbers", ""): 1,
        **OURS,
        ("normalise", "forge.stage parse"): 2,
    }
    for span in after.spans:
        own = [attribute.value.int_value for attribute in span.attributes if attribute.key == "numbers.base"]
        assert own == ([10] if span.name == "forge.stage parse" else [])
    assert "parsed" not in after.metrics
    [counted] = [
        value for key, value in after.metrics["forge.stage.executions"].items() if "stage.outcome=success" in key
    ]
    assert counted == before.metrics["parsed"][""] == 2


def test_logfire(tmp_path: Path, orchestrator: Environment) -> None:
    collector = run_script("with_logfire.py", tmp_path, orchestrator("logfire"))
    assert parents(collector) == {
        ("nightly", ""): 1,
        ("forge.pipeline numbers", "nightly"): 1,
        **OURS,
        ("parsing {sample}", "forge.stage parse"): 2,
        ("normalise", "forge.stage parse"): 2,
    }
    assert sorted(collector.events) == EVENTS
    assert ready(collector) == 2


def test_traceloop(tmp_path: Path, orchestrator: Environment) -> None:
    variables = {**orchestrator("traceloop"), "TRACELOOP_TRACE_CONTENT": "false"}
    collector = run_script("with_traceloop.py", tmp_path, variables)
    assert parents(collector) == {
        ("nightly.workflow", ""): 1,
        ("forge.pipeline numbers", "nightly.workflow"): 1,
        **OURS,
        ("normalise.task", "forge.stage parse"): 2,
    }
    for span in collector.spans:
        [workflow] = [each for each in span.attributes if each.key == "traceloop.workflow.name"]
        assert workflow.value.string_value == "nightly"
    assert sorted(collector.events) == EVENTS
    assert ready(collector) == 2


def test_openlit(tmp_path: Path, orchestrator: Environment) -> None:
    (tmp_path / "prices.json").write_text("{}")  # it would download them
    given = 'application_name="numbers", pricing_json="prices.json"'
    collector = run_script(
        "with_openlit.py", tmp_path, orchestrator("openlit"), **{'application_name="numbers"': given}
    )
    assert parents(collector) == {
        ("nightly", ""): 1,
        ("forge.pipeline numbers", "nightly"): 1,
        **OURS,
        ("normalise", "forge.stage parse"): 2,
    }
    assert sorted(collector.events) == EVENTS
    assert ready(collector) == 2
