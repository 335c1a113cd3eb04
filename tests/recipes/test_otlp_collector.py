"""The recipe for a Collector: a real one receives everything."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.recipes import copy_files, run_block, running_block, shell_blocks, with_programs
from tests.support.waiting import LONG, wait_until

pytestmark = pytest.mark.slow

RECIPE = "otlp-collector"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_everything_arrives(tmp_path: Path, protocol: str) -> None:
    grpc, http = str(free_port()), str(free_port())
    replaced = {"4317": grpc, "4318": http}
    variables = with_programs(tmp_path, otelcol_contrib="otelcol-forge")
    copy_files(RECIPE, tmp_path, replaced)
    collector, pipeline, look = shell_blocks(RECIPE, replaced)
    if protocol == "grpc":
        pipeline = pipeline.replace("http/protobuf", "grpc").replace(http, grpc)
    with running_block(collector, tmp_path, variables, "collector.log") as started:
        log = tmp_path / "collector.log"
        wait_until(lambda: "Everything is ready" in log.read_text(), "the Collector is ready")
        done = run_block(pipeline, tmp_path, variables)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.startswith("greetings: completed in ")
        started.send_signal(signal.SIGTERM)  # bash has become the Collector, which writes what it holds
        started.wait(LONG)
    seen = run_block(look, tmp_path, variables)
    assert seen.returncode == 0, seen.stderr
    names = re.findall(r"forge\.\w+(?: [a-z]+)?(?= .*s$)", seen.stdout.partition("\n\n")[0], re.MULTILINE)
    assert [name.split(" ")[0] for name in names] == [
        "forge.pipeline",
        "forge.sample",
        "forge.stage",
        "forge.sample",
        "forge.stage",
    ]
    assert "greetings  2 samples: 2 ready\n" in seen.stdout
    requests = [json.loads(line) for line in (tmp_path / "telemetry.jsonl").read_text().splitlines()]
    events = {
        record["eventName"]
        for request in requests
        for resource in request.get("resourceLogs", ())
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
        if "eventName" in record
    }
    assert events == {"forge.pipeline.start", "forge.pipeline.stop", "forge.pipeline.summary", "forge.stage.summary"}
    metrics = {
        metric["name"]
        for request in requests
        for resource in request.get("resourceMetrics", ())
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    }
    assert {"forge.sample.settled", "forge.stage.duration", "forge.pipeline.success.timestamp"} <= metrics
