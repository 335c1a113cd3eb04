"""`forge-otel trace --jaeger`: the same answers from a Jaeger as from the Collector's files."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from forge import ExitCode
from tests.support.waiting import wait_until

from .pipelines import demo_input, finish, start_demo

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack


def trace(*arguments: str | Path, code: int = 0) -> str:
    line = [sys.executable, "-m", "forge_otel.commands.cli", "trace", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout or done.stderr


def document(*arguments: str | Path) -> Any:
    return json.loads(trace(*arguments, "--json"))


def spans(nodes: list[dict[str, Any]]) -> list[Any]:
    """A tree without what only files have: log records, and the order of attributes."""
    return [
        {
            key: spans(value) if key == "children" else value
            for key, value in node.items()
            if key not in ("log_records", "next")
        }
        for node in nodes
    ]


def test_a_jaeger_tells_what_files_tell(stack: Stack, tmp_path: Path) -> None:
    jaeger = stack.jaeger().run()
    collector = stack.collector("jaeger", variables={"JAEGER_ENDPOINT": jaeger.otlp}).run()
    assert "this Jaeger has no traces" in trace("top", "--jaeger", jaeger.url, code=2)
    demo = start_demo(tmp_path / "out", collector.otlp, "--input", str(demo_input(tmp_path / "in")))
    finish(demo, ExitCode.SAMPLES_FAILED)
    files = tmp_path / "out" / "telemetry"
    sent = collector.spans()
    (trace_id,) = {span["traceId"] for span in sent if span["name"].startswith("forge.pipeline ")}
    wait_until(lambda: len(jaeger.spans(trace_id)) == len(sent), "all spans are in Jaeger")

    from_files, from_jaeger = document("top", files), document("top", "--jaeger", jaeger.url)
    assert from_jaeger["spans"] == from_files["spans"] == len(sent)
    names = [[row["name"], row["count"], row["errors"], row["max"]] for row in from_files["operations"]]
    assert [[row["name"], row["count"], row["errors"], row["max"]] for row in from_jaeger["operations"]] == names

    sample = next(row["first"]["sample_id"] for row in from_files["errors"] if row["first"]["sample_id"])
    from_files, from_jaeger = (
        document("waterfall", sample, files),
        document("waterfall", "--jaeger", jaeger.url, sample),
    )
    assert spans(from_jaeger["roots"]) == spans(from_files["roots"])
    assert f"forge-otel trace waterfall --jaeger {jaeger.url} {trace_id}" in from_jaeger["next"]
    assert from_jaeger["pages"] == {"trace": f"{jaeger.url}/trace/{trace_id}"}
    whole = document("waterfall", "--jaeger", jaeger.url, "--limit", "5", trace_id)
    assert whole["spans"] == len(sent)

    found = document("grep", f"forge.sample.id='{sample}'", "--jaeger", jaeger.url)
    assert {record["span_id"] for record in found["records"]} == {
        record["span_id"]
        for record in document("grep", f"forge.sample.id='{sample}'", files)["records"]
        if record["type"] == "span"
    }
    assert "no sample, trace or run has this id" in trace("waterfall", "--jaeger", jaeger.url, "nope", code=2)


def test_what_is_no_jaeger(stack: Stack) -> None:
    logs = stack.victoria_logs().run()
    said = trace("top", "--jaeger", logs.url, code=2)
    assert said.startswith(f"forge-otel trace top: {logs.url}/api/v3/services: answered 400 ")
    assert said.endswith("; is it the address of a Jaeger 2?\n")
