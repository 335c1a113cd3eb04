"""Runs of a real pipeline of datatrove in this process, and what is seen of them."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from forge_otel import ForgeInstrumentor
from forge_otel.instrumentors import targets
from forge_otel.instrumentors.datatrove import meter, runs
from tests.support.telemetry import Histogram, Recorded, recording

pytestmark = pytest.mark.slow  # importing datatrove alone takes a second

STEPS = ("JsonlReader", "LambdaFilter", "LengthFilter", "PIIFormatter", "JsonlWriter")


def executor(folder: Path, *more: Any, **settings: Any) -> Any:
    from tests.support import datatrove_pipelines  # noqa: PLC0415 - collecting the tests must not take a second

    return datatrove_pipelines.executor(folder, *more, **settings)


def written(folder: Path) -> list[int]:
    """The number of documents in each file that was written."""
    return [len(file.read_text().splitlines()) for file in sorted((folder / "output").iterdir())]


def counts(recorded: Recorded, metric: str) -> dict[str, float]:
    """The points of a counter that are not zero, without the pipeline's name."""
    points = recorded.points.get(metric, {}).items()
    return {re.sub("pipeline.name=letters(, )?", "", text): count for text, count in points if count}


EXECUTIONS = {
    "stage.name=JsonlReader, stage.outcome=success": 14,
    "stage.name=LambdaFilter, stage.outcome=success": 12,
    "stage.name=LambdaFilter, stage.outcome=skip": 2,
    "stage.name=LengthFilter, stage.outcome=success": 6,
    "stage.name=LengthFilter, stage.outcome=skip": 6,
    "stage.name=PIIFormatter, stage.outcome=success": 6,
    "stage.name=JsonlWriter, stage.outcome=success": 6,
}
SKIPS = {
    "skip.reason=dropped, stage.name=LambdaFilter": 2,
    "skip.reason=too_short, stage.name=LengthFilter": 4,
    "skip.reason=too_long, stage.name=LengthFilter": 2,
}
SETTLED = {"sample.outcome=ready": 6, "sample.outcome=skipped": 8}


def test_every_document_is_counted(tmp_path: Path) -> None:
    with recording() as recorded:
        stats = executor(tmp_path).run()
    assert written(tmp_path) == [3, 3]
    assert [each.stats["total"].total for each in stats.stats[1:]] == [14, 12, 6, 6]
    assert counts(recorded, "forge.stage.executions") == EXECUTIONS
    assert counts(recorded, "forge.stage.skips") == SKIPS
    assert counts(recorded, "forge.sample.admitted") == {"": 14}
    assert counts(recorded, "forge.sample.settled") == SETTLED
    assert counts(recorded, "forge.task.completed") == {"runner.name=datatrove, task.outcome=completed": 2}
    run = "run.type=full, runner.name=datatrove"
    assert counts(recorded, "forge.pipeline.started") == {run: 1}
    assert counts(recorded, "forge.pipeline.completed") == {f"run.outcome=completed, {run}": 1}
    assert counts(recorded, "forge.pipeline.last_run.success_ratio") == {"": 1.0}
    assert "forge.sample.derived" not in recorded.points
    assert "forge.telemetry.faults" not in recorded.points


def test_derived_documents_have_the_step_that_yielded_them(tmp_path: Path) -> None:
    def twice(data: Iterator[Any], rank: int, world_size: int) -> Iterator[Any]:
        for document in data:
            yield from (document, document)

    with recording() as recorded:
        executor(tmp_path, twice).run()
    assert counts(recorded, "forge.sample.derived") == {"stage.name=twice": 6}
    assert counts(recorded, "forge.sample.settled") == {"sample.outcome=ready": 12, "sample.outcome=skipped": 8}
    assert counts(recorded, "forge.sample.active") == {}


def test_trace_and_events(tmp_path: Path) -> None:
    with recording() as recorded:
        executor(tmp_path).run()
    run_id = next(span.attributes["forge.run.id"] for span in recorded.spans if span.attributes)
    run = f"pipeline.name=letters, run.id={run_id}"
    identity = "pipeline.id=1fb4afd3e003fa0d, " + run
    task = f"  forge.task | {run}, task.outcome=completed, task.rank={{}}, task.world_size=2\n"
    assert recorded.tree() == (
        f"forge.pipeline letters | {identity}, run.outcome=completed, run.type=full, runner.name=datatrove\n"
        + task.format(0)
        + task.format(1)
    )
    assert [event.name for event in recorded.events] == [
        *("forge.pipeline.start", "forge.pipeline.stop", "forge.pipeline.summary"),
        *["forge.stage.summary"] * 5,
    ]
    summary = recorded.events[2].attributes
    assert {name: summary[f"forge.summary.{name}"] for name in ("admitted", "ready", "skipped", "imbalance")} == {
        "admitted": 14,
        "ready": 6,
        "skipped": 8,
        "imbalance": 0,
    }
    stages = {event.attributes["forge.stage.name"]: event.attributes for event in recorded.events[3:]}
    assert {name: stage["forge.summary.executions"] for name, stage in stages.items()} == dict(
        zip(STEPS, (14, 14, 12, 6, 6), strict=True)
    )


def test_a_step_has_the_time_of_its_own(tmp_path: Path) -> None:
    """Not that of the steps before it, which run while it waits."""
    now = [0.0]

    def slow(data: Iterator[Any], rank: int, world_size: int) -> Iterator[Any]:
        now[0] += 100  # until the first document is asked for
        for document in data:
            now[0] += 0.25
            yield document
            now[0] += 0.5

    def slower(data: Iterator[Any], rank: int, world_size: int) -> Iterator[Any]:
        for document in data:
            now[0] += 2
            yield document

    with recording() as recorded:
        telemetry = ForgeInstrumentor().telemetry
        assert telemetry is not None
        telemetry.clock = lambda: now[0]
        executor(tmp_path, slow, slower).run()
    assert counts(recorded, "forge.stage.busy.time") == {
        "stage.name=slow": 2 * (100 + 3 * 0.75),
        "stage.name=slower": 2 * 3 * 2,
    }
    durations = recorded.points["forge.stage.duration"]
    assert durations["pipeline.name=letters, stage.name=slow, stage.outcome=success"] == Histogram(6, 4.5, 0.75, 0.75)
    assert durations["pipeline.name=letters, stage.name=slower, stage.outcome=success"] == Histogram(6, 12, 2, 2)


def test_an_error_of_a_step(tmp_path: Path) -> None:
    from tests.support.datatrove_pipelines import fail_in_the_second_task  # noqa: PLC0415

    with recording() as recorded, pytest.raises(ValueError, match=r"^cannot read this$"):
        executor(tmp_path, fail_in_the_second_task).run()
    step = "stage.name=fail_in_the_second_task"
    assert counts(recorded, "forge.stage.executions") == {
        "stage.name=JsonlReader, stage.outcome=success": 13,
        "stage.name=LambdaFilter, stage.outcome=success": 11,
        "stage.name=LambdaFilter, stage.outcome=skip": 2,
        "stage.name=LengthFilter, stage.outcome=success": 6,
        "stage.name=LengthFilter, stage.outcome=skip": 5,
        f"{step}, stage.outcome=success": 5,
        f"{step}, stage.outcome=error": 1,
        "stage.name=PIIFormatter, stage.outcome=success": 5,
        "stage.name=JsonlWriter, stage.outcome=success": 5,
    }
    assert counts(recorded, "forge.stage.failures") == {f"error.type=ValueError, {step}": 1}
    assert counts(recorded, "forge.sample.admitted") == {"": 13}
    assert counts(recorded, "forge.sample.settled") == {
        "sample.outcome=ready": 5,
        "sample.outcome=skipped": 7,
        "sample.outcome=failed": 1,
    }
    assert counts(recorded, "forge.task.completed") == {
        "runner.name=datatrove, task.outcome=completed": 1,
        "runner.name=datatrove, task.outcome=failed": 1,
    }
    assert [line.rpartition(" | ")[2] for line in recorded.tree().splitlines() if "ERROR" in line] == [
        *("ERROR(cannot read this)", "ERROR(cannot read this)")
    ]
    failed = next(event for event in recorded.events if event.name == "forge.stage.exception")
    assert (failed.span, failed.attributes["forge.stage.name"]) == ("forge.task", "fail_in_the_second_task")
    assert failed.attributes["exception.message"] == "cannot read this"
    assert "fail_in_the_second_task" in failed.attributes["exception.stacktrace"]
    assert "forge.pipeline.exception" in [event.name for event in recorded.events]


def test_completed_tasks_are_skipped(tmp_path: Path) -> None:
    from tests.support.datatrove_pipelines import fail_in_the_second_task  # noqa: PLC0415

    with pytest.raises(ValueError, match=r"^cannot read this$"):
        executor(tmp_path, fail_in_the_second_task).run()
    with recording() as recorded:
        executor(tmp_path).run()
    assert counts(recorded, "forge.task.completed") == {
        "runner.name=datatrove, task.outcome=completed": 1,
        "runner.name=datatrove, task.outcome=skipped": 1,
    }
    assert counts(recorded, "forge.sample.admitted") == {"": 7}
    with recording() as recorded:
        assert executor(tmp_path).run() is None
    assert counts(recorded, "forge.task.completed") == {"runner.name=datatrove, task.outcome=skipped": 2}
    assert counts(recorded, "forge.sample.admitted") == {}
    assert recorded.tree().count("\n") == 1


def test_a_task_outside_of_a_run(tmp_path: Path) -> None:
    """As in the jobs of Slurm, which run single ranks."""
    with recording() as recorded:
        executor(tmp_path)._run_for_rank(1)
        assert executor(tmp_path)._run_for_rank(1).stats == []  # completed by now
    assert recorded.tree() == (
        "forge.task | pipeline.name=letters, task.outcome=completed, task.rank=1, task.world_size=2\n"
        "forge.task | pipeline.name=letters, task.outcome=skipped, task.rank=1, task.world_size=2\n"
    )
    assert counts(recorded, "forge.sample.settled") == {"sample.outcome=ready": 3, "sample.outcome=skipped": 4}
    assert "forge.pipeline.started" not in recorded.points


def test_the_parent_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with recording(parent_from_environment=True) as recorded:
        executor(tmp_path)._run_for_rank(0)
        executor(tmp_path).run()
    parents = [span.parent.span_id if span.parent else None for span in recorded.spans]
    run = recorded.spans[-1].context
    assert parents == [0xB7AD6B7169203331, run.span_id if run else None, 0xB7AD6B7169203331]
    assert not trace.get_current_span().get_span_context().is_valid


def test_spans_of_libraries_are_below_the_task(tmp_path: Path) -> None:
    found = []

    def look(data: Iterator[Any], rank: int, world_size: int) -> Iterator[Any]:
        for document in data:
            found.append(trace.get_current_span().get_span_context().span_id)
            yield document

    with recording() as recorded:
        executor(tmp_path, look).run()
    first, second = [span.context.span_id for span in recorded.spans if span.name == "forge.task" and span.context]
    assert found == [first] * 3 + [second] * 3
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_fault_of_ours_leaves_the_documents_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    for owner, name in ((runs.Task, "report"), (meter.TaskMeter, "observed_steps"), (runs.DatatroveRun, "_open")):
        folder = tmp_path / name
        folder.mkdir()
        with monkeypatch.context() as patched, recording(raise_faults=False) as recorded:
            patched.setattr(owner, name, fail)
            executor(folder).run()
        assert written(folder) == [3, 3]
        assert recorded.total("forge.telemetry.faults", "error.type=RuntimeError") > 0


def test_nothing_stays_behind(tmp_path: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415
    from datatrove.executor.base import PipelineExecutor  # noqa: PLC0415

    def entries() -> dict[str, Any]:
        owners = (LocalPipelineExecutor, PipelineExecutor)
        return {f"{owner.__name__}.{name}": entry for owner in owners for name, entry in vars(owner).items()}

    before = entries()
    with recording():
        assert {name for name, entry in entries().items() if before.get(name) is not entry} == {
            *("LocalPipelineExecutor.run", "PipelineExecutor._run_for_rank"),
            *("PipelineExecutor.get_incomplete_ranks", "PipelineExecutor.__reduce_ex__"),
        }
        mine = executor(tmp_path)
        steps = mine.pipeline
        mine._run_for_rank(0)
        assert mine.pipeline is steps
    assert entries() == before
    with recording(components=["runner", "stage"]) as recorded:
        assert entries() == before
        executor(tmp_path).run()
    assert recorded.spans == ()


def test_copies_of_executors(tmp_path: Path) -> None:
    """Only the executor of a run in progress takes the run with it."""
    with recording():
        mine = executor(tmp_path)
        mine.pipeline = []
        assert vars(copy.copy(mine)) == vars(mine)
        assert b"forge_otel" not in pickle.dumps(mine)


def test_executor_json_is_unchanged(tmp_path: Path) -> None:
    for folder in (tmp_path / "without", tmp_path / "with"):
        folder.mkdir()
        if folder.name == "with":
            with recording():
                executor(folder).run()
        else:
            executor(folder).run()
    found = [json.loads((tmp_path / name / "logs/letters/executor.json").read_text()) for name in ("without", "with")]
    assert found[0].keys() == found[1].keys()
    assert [len(each["pipeline"]) for each in found] == [5, 5]


def test_importing_us_does_not_import_datatrove() -> None:
    script = "import sys; from forge_otel import ForgeInstrumentor; ForgeInstrumentor().instrument(); "
    script += "print([name for name in sys.modules if name.split('.')[0] in ('datatrove', 'multiprocess', 'loguru')])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_changed_version_is_noticed() -> None:
    """What is wrapped, and what the wrappers rely on."""
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415
    from datatrove.executor.base import PipelineExecutor  # noqa: PLC0415

    assert [f"{target.module}.{target.path}" for target in targets(["datatrove"])] == [
        "datatrove.executor.base.PipelineExecutor._run_for_rank",
        "datatrove.executor.base.PipelineExecutor.get_incomplete_ranks",
        "datatrove.executor.base.PipelineExecutor.__reduce_ex__",
        "datatrove.executor.local.LocalPipelineExecutor.run",
    ]
    assert list(inspect.signature(LocalPipelineExecutor.run).parameters) == ["self"]
    task = inspect.signature(PipelineExecutor._run_for_rank)
    assert list(task.parameters) == ["self", "rank", "local_rank", "node_rank"]
    assert "for pipeline_step in self.pipeline:" in inspect.getsource(PipelineExecutor._run_for_rank)
