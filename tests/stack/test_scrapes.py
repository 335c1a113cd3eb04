"""Prometheus' own linter accepts what it scrapes of both demos: from the SDK's exporter, and from a Collector's."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.ports import free_port
from tests.support.tools import tool
from tests.support.waiting import LONG, wait_until

from .pipelines import PATIENT
from .programs import text

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack

SOME_FAILED = 3
"""Exit code of a demo of which some samples failed."""


def complaints(scrape: str, version: str = "promtool") -> str:
    """What the linter has to say about a scrape."""
    command = [str(tool(version)), "check", "metrics"]
    done = subprocess.run(command, input=scrape, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


def test_the_linter_finds_something() -> None:
    assert "non-counter" in complaints("# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n")


@pytest.mark.slow
@pytest.mark.parametrize(("pipeline", "limit"), [("corpus", 60), ("labels", 40)])
def test_scrapes_of_a_demo_with_failures(pipeline: str, limit: int, stack: Stack, tmp_path: Path) -> None:
    soon = {"connectors": {"span_metrics": {"metrics_flush_interval": "200ms"}}}
    collector, port = stack.collector(settings=soon).run(), free_port()
    options = ["--pipeline", pipeline, "--limit", str(limit), "--out", str(tmp_path / "out")]
    options += ["--otlp", collector.otlp, "--prometheus", str(port)]
    command = [sys.executable, "-m", "forge_otel.commands.cli", "demo", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **PATIENT}
    ) as demo:
        assert demo.stdout is not None
        written = []
        for line in demo.stdout:  # the last one, after the end of the run; then it waits to be scraped
            written.append(line)
            if f":{port}/metrics" in line:
                break
        of_the_sdk = text(f"http://127.0.0.1:{port}/metrics")
        assert demo.wait(LONG) == SOME_FAILED, "".join(written)
    url = f"http://{collector.scraped}/metrics"
    if pipeline == "labels":  # its clients have spans of their own
        for name in ("traces_span_metrics_calls_total{", "traces_span_metrics_duration_seconds_bucket{"):
            wait_until(lambda: name in text(url), "the calls of others have metrics")  # noqa: B023 - called at once
    of_the_collector = text(url)

    for scrape in (of_the_sdk, of_the_collector):
        for name in ("forge_stage_failures_total", "forge_dlq_depth", "forge_stage_duration_seconds_bucket"):
            assert f"\n{name}{{" in scrape
        assert complaints(scrape) == ""
        assert complaints(scrape, "promtool-2.42") == ""
    assert ("forge_cost_calls_total{" in of_the_sdk) == (pipeline == "labels")
