"""The recipe for GitHub Actions: its workflow keeps to the schema, and the steps run as a runner runs them."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.collector import Collector, running_collector
from tests.support.recipes import copy_files, environment

WORKFLOW = ".github/workflows/greetings.yml"
ACTIONS = {"actions/checkout@v5", "actions/setup-python@v6"}
GITHUB = {"GITHUB_RUN_ID": "16408873218", "GITHUB_RUN_ATTEMPT": "2", "GITHUB_JOB": "pipeline"}


def run_job(folder: Path, expressions: dict[str, str]) -> list[str]:
    """Run the steps of the workflow's job like a runner, and return the output of each.

    `expressions` are the values of all expressions. Actions are not run: what they would do is done.
    """
    [job] = yaml.safe_load((folder / WORKFLOW).read_text())["jobs"].values()
    variables = {name: evaluated(text, expressions) for name, text in job["env"].items()}
    shared = folder / "github-env"
    shared.touch()
    outputs = []
    for step in job["steps"]:
        if "uses" in step:
            assert step["uses"] in ACTIONS
            continue
        if "if" in step and expressions[step["if"]] != "true":
            continue
        added = dict(line.split("=", 1) for line in shared.read_text().splitlines())
        script = folder / "step.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "-e", script],
            cwd=folder,
            # All that is installed is installed here already, and nothing is to change.
            env=environment(**GITHUB, **variables, **added, GITHUB_ENV=str(shared), PIP_NO_INDEX="1"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{step['name']}: {done.stdout}{done.stderr}"
        assert "not delivered" not in done.stderr
        outputs.append(done.stdout)
    return outputs


def evaluated(text: str, expressions: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: expressions[match[1]], text)


def run_with(folder: Path, *, traced: bool) -> tuple[Collector, list[str]]:
    copy_files("github-actions", folder)
    with running_collector() as collector:
        outputs = run_job(
            folder,
            {
                "github.run_id": "16408873218",
                "github.sha": "6dcb09b5b57875f334f61aebed695e2e4193db5e",
                "vars.OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "secrets.OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc123",
                "vars.WORKFLOWS_ARE_TRACED == 'true'": str(traced).lower(),
            },
        )
    return collector, outputs


@pytest.mark.slow
def test_workflow_keeps_to_the_schema(tmp_path: Path) -> None:
    copy_files("github-actions", tmp_path)
    command = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok -- validation done\n"), done.stdout + done.stderr


@pytest.mark.slow
def test_steps_run_and_join_the_trace_of_the_job(tmp_path: Path) -> None:
    collector, outputs = run_with(tmp_path, traced=True)
    [_, _, printed] = outputs
    assert printed.startswith("greetings: completed in ")
    assert collector.names == [
        "forge.pipeline greetings",
        "forge.sample",
        "forge.sample",
        "forge.stage shout",
        "forge.stage shout",
    ]
    # The ids of the GitHub receiver: newTraceID and newJobSpanID there.
    trace_id = hashlib.sha256(b"164088732182t").hexdigest()[:32]
    job_id = hashlib.sha256(b"164088732182pipeline").hexdigest()[16:32]
    assert {span.trace_id.hex() for span in collector.spans} == {trace_id}
    [run] = [span for span in collector.spans if span.name == "forge.pipeline greetings"]
    assert run.parent_span_id.hex() == job_id
    assert collector.headers["authorization"] == {"Bearer abc123"}
    [resource] = collector.resources
    assert resource["service.name"] == "greetings"
    assert resource["cicd.pipeline.run.id"] == "16408873218"
    assert resource["vcs.ref.head.revision"] == "6dcb09b5b57875f334f61aebed695e2e4193db5e"
    assert collector.metrics["forge.sample.settled"]["pipeline.name=greetings, sample.outcome=ready"] == 2
    assert collector.events == [
        "forge.pipeline.start",
        "forge.pipeline.stop",
        "forge.pipeline.summary",
        "forge.stage.summary",
    ]


@pytest.mark.slow
def test_a_run_of_an_untraced_workflow_is_a_trace_of_its_own(tmp_path: Path) -> None:
    collector, outputs = run_with(tmp_path, traced=False)
    assert len(outputs) == 2
    [run] = [span for span in collector.spans if span.name == "forge.pipeline greetings"]
    assert run.parent_span_id == b""
