"""The first examples: copied from the README and the recipe into an empty folder, they print what the page says."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from .test_docs import ROOT, blocks, environment

PATIENT = {"FORGE_OTEL_SHUTDOWN_TIMEOUT": "60"}
"""On a busy machine, delivery takes its time."""


def normal(output: str) -> list[str]:
    """What is the same in every run: no ids, times and durations, and no columns that are as wide as these."""
    output = re.sub(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}\b", "ID", output)
    output = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", output)
    output = re.sub(r"\b\d+(\.\d+)? ?(µs|ms|s)\b", "DURATION", output)
    output = re.sub(r"<?\b\d+%", "SHARE", output)
    return [re.sub(r"\s+", " ", line) for line in output.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/recipes/files.md"])
def test_it_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    path = ROOT / page
    (script,) = (code for code in blocks(path, "python") if code.startswith("# pipeline.py"))
    (tmp_path / "pipeline.py").write_text(script)
    (commands,) = (code for code in blocks(path, "sh") if "forge-otel read" in code)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=environment() | PATIENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    (shown,) = (code for code in blocks(path, "text") if "forge.pipeline greetings" in code)
    expected = normal(shown.removesuffix("…\n"))
    printed = normal(done.stdout)
    assert "".join(expected) in "".join(printed)
    assert sorted(path.name for path in (tmp_path / "telemetry").iterdir()) == [
        "logs.jsonl",
        "metrics.jsonl",
        "traces.jsonl",
    ]


@pytest.mark.slow
def test_the_report_is_what_the_readme_says(tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    (tmp_path / "pipeline.py").write_text(blocks(readme, "python")[0])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", blocks(readme, "sh")[0]],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    report, code = blocks(readme, "text")[0].split("…\n")
    printed = normal(done.stdout)
    assert printed[: len(normal(report))] == normal(report)
    assert printed[-1:] == normal(code)


@pytest.mark.slow
def test_its_configuration_file_does_the_same(tmp_path: Path) -> None:
    page = ROOT / "docs" / "recipes" / "files.md"
    (tmp_path / "pipeline.py").write_text(blocks(page, "python")[0])
    (configuration,) = blocks(page, "yaml")
    (tmp_path / "otel.yaml").write_text(configuration.replace("forge: {}", "forge: {shutdown_timeout: 60}"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "opentelemetry-instrument python pipeline.py && forge-otel read --json"],
        cwd=tmp_path,
        env=environment() | {"OTEL_CONFIG_FILE": "otel.yaml"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout[done.stdout.index("\n{") :])
    assert report["unreadable"] == 0
    assert [(trace["spans"], trace["failed_spans"]) for trace in report["traces"]] == [(7, 2)]
    assert [pipeline["samples"] for pipeline in report["pipelines"]] == [{"ready": 2, "failed": 1}]
    assert [failure["error_type"] for failure in report["failures"]] == ["AttributeError"]
