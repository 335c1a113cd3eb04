"""A Ray Job: a driver that a cluster with a dashboard starts, by the command of the page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

import forge
from forge import SQLStorage
from tests.support.ports import free_port
from tests.support.runs import PATIENCE, rows
from tests.support.tools import tool
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[4] / "docs" / "ray.md"
TOKEN = "0123456789abcdef" * 4
"""What Ray asks everyone for who wants to submit a job."""
PIPELINE = """
import os

from forge import Pipeline, RayRunner, Sample, SQLStorage, stage
from words import shout

@stage
def loud(sample: Sample) -> Sample:
    return sample.with_data(shout(sample.data))

source = [Sample(id=str(number), data=f"word {number}") for number in range(100)]
RayRunner().run(Pipeline(name="p", source=source, stages=[loud], storage=SQLStorage(os.environ["STORAGE"]))).drain()
"""


@contextmanager
def cluster(folder: Path, variables: dict[str, str], port: int) -> Iterator[None]:
    """Start a cluster with a dashboard at a port, which logs to a folder."""
    options = f"--num-cpus 2 --disable-usage-stats --port 0 --dashboard-port {port}"
    options += f" --dashboard-agent-listen-port {free_port()} --ray-client-server-port {free_port()}"
    options += " --min-worker-port 0 --max-worker-port 0"
    command = [str(tool("ray")), "start", "--head", "--block", *options.split()]
    log = folder / "head.log"
    with log.open("w") as written, subprocess.Popen(command, env=variables, stdout=written, stderr=written) as head:
        try:

            def answers() -> bool:
                assert head.poll() is None, log.read_text()
                return asked(port, "api/version") is not None

            wait_until(answers, "the dashboard answers")
            yield
        finally:
            head.terminate()


def asked(port: int, path: str) -> Any:
    """What the dashboard answers; None as long as there is none."""
    request = Request(f"http://127.0.0.1:{port}/{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)
    except (URLError, ConnectionError):
        return None


def test_a_job_runs_a_pipeline_that_the_dashboard_shows_by_its_name(tmp_path: Path) -> None:
    [command] = re.findall(r"```text\n(ray job submit .*?)```", PAGE.read_text(), re.DOTALL)
    port = free_port()
    storage = f"sqlite:///{tmp_path}/rows.db"
    shared = {"STORAGE": storage, "PYTHONPATH": str(Path(forge.__file__).parents[1])}
    command = command.replace("HEAD:8265", f"127.0.0.1:{port}")
    command = command.replace('{"pip": ["forge-otel[ray]"]}', json.dumps({"env_vars": shared}))
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "pipeline.py").write_text(PIPELINE)
    (tmp_path / "job" / "words.py").write_text("def shout(text: str) -> str:\n    return text.upper()\n")
    with tempfile.TemporaryDirectory(prefix="job") as folder:  # a short one: the paths of sockets are
        variables = {
            **os.environ,
            "PATH": os.pathsep.join([str(tool("ray").parent), os.environ["PATH"]]),
            "RAY_TMPDIR": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
        }
        with cluster(tmp_path, variables, port):
            done = subprocess.run(
                command, shell=True, cwd=tmp_path / "job", env=variables, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
            [job] = [each for each in asked(port, "api/jobs/") if each["type"] == "SUBMISSION"]
            [dataset] = asked(port, f"api/data/datasets/{job['job_id']}")["datasets"]

    assert rows(SQLStorage(storage)) == dict.fromkeys(map(str, range(100)), forge.SampleStatus.READY)
    [run] = SQLStorage(storage).runs()
    assert (job["status"], dataset["state"]) == ("SUCCEEDED", "FINISHED")
    assert dataset["dataset"].startswith(f"p-{run.id[:8]}_")
