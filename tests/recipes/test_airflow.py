"""The recipe for Airflow: its tasks executed by Airflow, in an environment of its own.

`airflow dags test --use-executor` starts tasks as the scheduler does: the executor's worker supervises a process for
each task, which talks to the API server.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.recipes.conftest import Environment
from tests.stack.programs import Program, answers
from tests.support.collector import Collector, running_collector
from tests.support.ports import free_port
from tests.support.recipes import copy_files, shell_blocks
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


class Airflow:
    """An Airflow with the DAGs of the recipe."""

    def __init__(self, folder: Path, variables: dict[str, str], collector: Collector) -> None:
        self.folder = folder
        self.collector = collector
        _, settings = shell_blocks("airflow")
        port = free_port()
        self.variables = {
            **variables,
            **dict(re.findall(r"(\w+)=(\S+)", settings.replace("http://localhost:4318", collector.url))),
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__API_AUTH__JWT_SECRET": "0123456789abcdef" * 4,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        }
        self._run("airflow db migrate", self.variables)
        command = ["airflow", "api-server", "--apps", "execution", "--workers", "1", "--port", str(port)]
        # The server's spans are waited for. Those of tasks must not come because time has passed.
        impatient = {**self.variables, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        self.server = Program("api-server", [*command, "--host", "127.0.0.1"], folder / "server", impatient)
        self.server.start(lambda: answers(f"http://127.0.0.1:{port}/execution/health"))

    def execute(self, dag: str) -> str:
        """Run a DAG to its end, and return the output."""
        return self._run(f"airflow dags test {dag} --use-executor", self.variables)

    def spans(self, dag: str) -> dict[str, Span]:
        """The spans of the trace of a DAG's run that have a name of their own, once they have all arrived."""
        [root] = [span for span in self.collector.spans if span.name == f"dag_run.{dag}"]

        def found() -> dict[str, Span]:
            return {span.name: span for span in self.collector.spans if span.trace_id == root.trace_id}

        wait_until(lambda: "task_run.run" in found(), "the API server has sent the task's span")
        return found()

    def _run(self, command: str, variables: dict[str, str]) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def airflow(tmp_path: Path, orchestrator: Environment) -> Iterator[Airflow]:
    copy_files("airflow", tmp_path)
    with running_collector() as collector:
        started = Airflow(tmp_path, orchestrator("airflow"), collector)
        try:
            yield started
        finally:
            started.server.kill()


def test_tasks_join_the_trace_of_their_dag_and_send_all_they_have(airflow: Airflow) -> None:
    # The environment of the pipeline's own, of which the recipe does not say how it is made.
    apart = airflow.folder / "dags" / "greetings_apart.py"
    apart.write_text(apart.read_text().replace("/opt/greetings/bin", os.path.dirname(sys.executable)))

    for dag, parent in (("greetings", "worker.run"), ("greetings_apart", "task_run.run")):
        output = airflow.execute(dag)
        assert "greetings: completed in " in output
        assert "not delivered" not in output
        spans = airflow.spans(dag)
        assert set(spans) == {
            f"dag_run.{dag}",
            "task_run.run",
            "worker.run",
            "forge.pipeline greetings",
            "forge.sample",
            "forge.stage shout",
        }
        assert spans["task_run.run"].parent_span_id == spans[f"dag_run.{dag}"].span_id
        assert spans["worker.run"].parent_span_id == spans["task_run.run"].span_id
        assert spans["forge.pipeline greetings"].parent_span_id == spans[parent].span_id
        settled = airflow.collector.metrics.pop("forge.sample.settled")
        assert settled["pipeline.name=greetings, sample.outcome=ready"] == 2
        assert airflow.collector.events.count("forge.pipeline.summary") == 1
        airflow.collector.events.clear()
    assert {resource["service.name"] for resource in airflow.collector.resources} == {"airflow", "greetings"}
