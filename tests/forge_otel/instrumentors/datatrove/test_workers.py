"""Runs of a real pipeline of datatrove in worker processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from forge_otel.instrumentors.datatrove import workers
from forge_otel.instrumentors.datatrove.meter import StepReport, TaskReport
from forge_otel.instrumentors.datatrove.runs import NOTHING_MORE, TaskEnd
from tests.forge_otel.instrumentors.datatrove.test_targets import EXECUTIONS, SETTLED, SKIPS, counts, executor, written
from tests.support.telemetry import recording

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("start_method", ["forkserver", "spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_workers_report_to_the_run(tmp_path: Path, start_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[str] = []
    make = tempfile.mkdtemp

    def mkdtemp(*arguments: Any, **keywords: Any) -> str:
        folders.append(str(make(*arguments, **keywords)))
        return folders[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with recording() as recorded:
        executor(tmp_path, workers=2, start_method=start_method).run()
    assert written(tmp_path) == [3, 3]
    assert counts(recorded, "forge.stage.executions") == EXECUTIONS
    assert counts(recorded, "forge.stage.skips") == SKIPS
    assert counts(recorded, "forge.sample.admitted") == {"": 14}
    assert counts(recorded, "forge.sample.settled") == SETTLED
    assert counts(recorded, "forge.task.completed") == {"runner.name=datatrove, task.outcome=completed": 2}
    assert "forge.telemetry.faults" not in recorded.points
    run = next(span for span in recorded.spans if span.name == "forge.pipeline letters")
    tasks = [span for span in recorded.spans if span.name == "forge.task"]
    assert [span.parent.span_id if span.parent else None for span in tasks] == [run.context and run.context.span_id] * 2
    assert {(span.attributes or {})["forge.task.rank"] for span in tasks} == {0, 1}
    assert [Path(folder).exists() for folder in folders if "forge-otel-" in folder] == [False]


def test_an_error_in_a_worker(tmp_path: Path) -> None:
    from tests.support.datatrove_pipelines import fail_in_the_second_task  # noqa: PLC0415

    with recording() as recorded:
        mine = executor(tmp_path, fail_in_the_second_task, workers=2)
        mine._run_for_rank(0)  # complete, so the second one's failure does not cancel it
        with pytest.raises(ValueError, match=r"^cannot read this$"):
            mine.run()
    assert counts(recorded, "forge.task.completed") == {
        "runner.name=datatrove, task.outcome=completed": 1,
        "runner.name=datatrove, task.outcome=failed": 1,
        "runner.name=datatrove, task.outcome=skipped": 1,
    }
    assert counts(recorded, "forge.stage.failures") == {"error.type=ValueError, stage.name=fail_in_the_second_task": 1}
    assert counts(recorded, "forge.sample.admitted") == {"": 13}
    assert counts(recorded, "forge.sample.settled") == {
        "sample.outcome=ready": 5,
        "sample.outcome=skipped": 7,
        "sample.outcome=failed": 1,
    }
    (failed,) = [event for event in recorded.events if event.name == "forge.stage.exception"]
    assert (failed.span, failed.attributes["exception.type"]) == ("forge.task", "ValueError")
    assert failed.attributes["exception.message"] == "cannot read this"
    assert "in fail_in_the_second_task" in failed.attributes["exception.stacktrace"]
    assert [span.status.description for span in recorded.spans if not span.status.is_ok] == ["cannot read this"] * 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system with SIGKILL")
def test_a_worker_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task is cancelled; the documents that it had reported are those that it had not finished."""
    from tests.support.datatrove_pipelines import kill_the_second_task  # noqa: PLC0415

    monkeypatch.setenv("DATATROVE_TEST_FOLDER", str(tmp_path))
    with recording() as recorded, pytest.raises(ValueError, match=r"^the other one is dead$"):
        executor(tmp_path, kill_the_second_task, workers=2, start_method="spawn").run()
    assert counts(recorded, "forge.task.completed") == {
        "runner.name=datatrove, task.outcome=failed": 1,
        "runner.name=datatrove, task.outcome=cancelled": 1,
    }
    assert counts(recorded, "forge.sample.settled") == {"sample.outcome=ready": 3, "sample.outcome=skipped": 4}


def test_without_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is seen, and goes on; its tasks are not seen."""

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    with recording(raise_faults=False) as recorded:
        executor(tmp_path, workers=2).run()
    assert written(tmp_path) == [3, 3]
    assert [span.name for span in recorded.spans] == ["forge.pipeline letters"]
    assert recorded.total("forge.telemetry.faults", "error.type=OSError") == 1


def test_a_run_that_takes_no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task waits once, and no longer than the timeout."""
    monkeypatch.setattr(workers, "_SEND_TIMEOUT", 0.01)
    monkeypatch.setattr(workers, "_ANSWER_TIMEOUT", 0.0)
    folder = tempfile.mkdtemp()  # shorter than the path that a socket may have
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{folder}/run")
            server.listen()
            sender = workers.Sender(workers.Address(f"{folder}/run", 0), 0, 1)
            step = StepReport("step", 1, {}, 1.0, [0.1] * 100_000, [], 0)
            with pytest.raises(BlockingIOError):
                sender.report(TaskReport([step], 0, 0))
            sender.report(TaskReport([step], 0, 0))
            sender.end(TaskEnd(NOTHING_MORE, "completed", 1.0))
    finally:
        shutil.rmtree(folder)


SCRIPT = """
import sys
from pathlib import Path
from opentelemetry import trace
from tests.support import datatrove_pipelines

def look(data, rank, world_size):
    for document in data:
        trace.get_tracer("a library").start_span("inside").end()
        yield document

if __name__ == "__main__":
    datatrove_pipelines.executor(Path(sys.argv[1]), look, workers=2).run()
"""


def test_spans_of_libraries_in_workers(tmp_path: Path) -> None:
    """With `opentelemetry-instrument`, the workers have providers."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    none = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    file = {"OTEL_TRACES_EXPORTER": "console", "PYTHONPATH": str(Path(__file__).parents[4])}
    program = Path(sys.executable).with_name("opentelemetry-instrument")
    done = subprocess.run(
        [program, sys.executable, script, tmp_path],
        env={**os.environ, **none, **file},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    spans = re.findall(r'"name": "([^"]*)".*?"span_id": "(\w+)".*?"parent_id": "?(\w+)', done.stdout, re.DOTALL)
    assert sorted(name for name, _, _ in spans) == ["forge.pipeline letters", *["forge.task"] * 2, *["inside"] * 6]
    tasks = [own for name, own, _ in spans if name == "forge.task"]
    assert sorted(parent for name, _, parent in spans if name == "inside") == sorted(tasks * 3)
