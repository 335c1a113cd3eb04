"""`make stack-demo` runs, and every number that it can compare is right."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.compose import ROOT, described
from tests.support.tools import tool
from tools.stack import answers

if TYPE_CHECKING:
    from pathlib import Path


def test_its_queries_are_those_in_the_documentation() -> None:
    asked = (answers.THROUGHPUT, answers.ERRORS, answers.LATENCY, answers.HITS, answers.DEPTH)
    documented = (ROOT / "docs" / "stack.md").read_text()

    assert [question.title for question in asked if question.promql.replace("WINDOW", "2m") not in documented] == []


def test_all_numbers_agree(tmp_path: Path) -> None:
    for name in ("otelcol-forge", "prometheus", "jaeger", "victoria-logs", "victoria-metrics", "statsd"):
        tool(name)
    command = [sys.executable, "-m", "tools.stack.demo", "--limit", "30", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    services = {name for name, service in described().items() if "profiles" not in service} - {"init"}
    assert f"{len(services)} programs are ready" in done.stdout
    assert "✗" not in done.stdout
    assert done.stdout.count("✓") > 20
    assert "Every count is what the runs say." in done.stdout
    assert (tmp_path / "collector" / "data" / "traces.jsonl").stat().st_size > 0
