"""Pipelines of plain Ray Data, on a local Ray."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace

from benchmarks import ray_data
from forge import Pipeline, RayRunner, Sample, stage
from forge_otel import ForgeInstrumentor
from forge_otel.instrumentors.ray_data import MARK, execution
from tests.support.telemetry import Recorded, recording

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray warns of itself, in many ways

Row = dict[str, Any]
Batch = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _ray(local_cluster: None) -> None:
    import ray  # noqa: PLC0415 - takes a second

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # The workers need not be able to import this module.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> None:
    """Ray leaves threads behind where an iteration does not come to its end."""


@pytest.fixture
def context() -> Iterator[Any]:
    """The context of the datasets that are created in the test, which may change it."""
    import ray  # noqa: PLC0415

    before = ray.data.DataContext.get_current()
    ray.data.DataContext._set_current(before.copy())
    yield ray.data.DataContext.get_current()
    ray.data.DataContext._set_current(before)


# The first example of Ray Data's documentation, with a filter, on data of our own.


def compute_area(batch: Batch) -> Batch:
    batch["petal area (cm^2)"] = batch["petal length (cm)"] * batch["petal width (cm)"]
    return batch


def is_large(row: Row) -> bool:
    return bool(row["petal area (cm^2)"] >= 50)


def iris(folder: Path) -> Any:
    import ray  # noqa: PLC0415

    for file in range(3):
        rows = [f"{number},1" for number in range(file * 50, file * 50 + 50)]
        (folder / f"iris{file}.csv").write_text("\n".join(["petal length (cm),petal width (cm)", *rows]))
    dataset = ray.data.read_csv(str(folder), override_num_blocks=3)
    dataset.set_name("iris")
    return dataset.map_batches(compute_area).filter(is_large)


def test_read_map_filter_write(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    with recording() as recorded:
        iris(source).write_parquet(str(target))
    (run,) = runs(recorded)
    assert run["forge.pipeline.name"] == "iris"
    assert re.fullmatch("[0-9a-f]{16}", run["forge.pipeline.id"])
    assert {key: value for key, value in summary(recorded).items() if value} == {
        "admitted": 100,
        "ready": 100,
        "spans": 2 + len(stages(recorded)) - 1,
    }
    # Ray fuses what it can, so the rows that the filter dropped inside are not seen.
    last = stages(recorded)[-1]
    assert last["forge.stage.name"].endswith("MapBatches(compute_area)->Filter(is_large)->Write")
    assert last["forge.stage.output.samples"] == 100
    assert recorded.total("forge.sample.settled", "pipeline.name=iris", "sample.outcome=ready") == 100
    assert sum(rows_in(file) for file in target.iterdir()) == 100


def rows_in(file: Path) -> int:
    from pyarrow import parquet  # noqa: PLC0415 - takes a while

    return int(parquet.read_metadata(file).num_rows)


# The documentation's example of batch inference, with a model of our own.


class Predictor:
    def __call__(self, batch: Batch) -> Batch:
        batch["output"] = np.char.add(batch["data"], "!")
        return batch


def double(row: Row) -> list[Row]:
    return [row, row]


def is_even(row: Row) -> bool:
    return bool(int(row["data"]) % 2 == 0)


def predictions() -> Any:
    import ray  # noqa: PLC0415

    dataset = ray.data.from_numpy([np.asarray([str(n) for n in range(m, m + 10)]) for m in range(0, 40, 10)])
    dataset.set_name("predictions")
    actors = ray.data.ActorPoolStrategy(size=1)
    # Operators with different resources are not fused.
    return dataset.filter(is_even, num_cpus=0.5).map_batches(Predictor, compute=actors).flat_map(double)


TREE = """\
forge.pipeline predictions | pipeline.id=ID, pipeline.name=predictions, run.id=RUN, run.outcome=completed, \
run.type=full, runner.name=ray_data
  forge.stage.run Filter(is_even) | pipeline.name=predictions, run.id=RUN, stage.input.samples=40, \
stage.name=Filter(is_even), stage.outcome=success, stage.output.blocks=4, stage.output.samples=20, \
stage.output.size=SIZE
  forge.stage.run MapBatches(Predictor) | pipeline.name=predictions, run.id=RUN, stage.input.samples=20, \
stage.name=MapBatches(Predictor), stage.outcome=success, stage.output.blocks=4, stage.output.samples=20, \
stage.output.size=SIZE
  forge.stage.run FlatMap(double) | pipeline.name=predictions, run.id=RUN, stage.input.samples=20, \
stage.name=FlatMap(double), stage.outcome=success, stage.output.blocks=4, stage.output.samples=40, \
stage.output.size=SIZE
"""

COUNTS = {
    "forge.pipeline.active": {"pipeline.name=predictions, run.type=full, runner.name=ray_data": 0},
    "forge.pipeline.completed": {
        "pipeline.name=predictions, run.outcome=completed, run.type=full, runner.name=ray_data": 1,
        "pipeline.name=predictions, run.outcome=failed, run.type=full, runner.name=ray_data": 0,
        "pipeline.name=predictions, run.outcome=cancelled, run.type=full, runner.name=ray_data": 0,
    },
    "forge.pipeline.last_run.size": {
        "pipeline.name=predictions, sample.outcome=ready": 40,
        "pipeline.name=predictions, sample.outcome=skipped": 20,
        "pipeline.name=predictions, sample.outcome=unchanged": 0,
        "pipeline.name=predictions, sample.outcome=split": 0,
        "pipeline.name=predictions, sample.outcome=dlq": 0,
        "pipeline.name=predictions, sample.outcome=failed": 0,
    },
    "forge.pipeline.last_run.success_ratio": {"pipeline.name=predictions": 1.0},
    "forge.pipeline.started": {"pipeline.name=predictions, run.type=full, runner.name=ray_data": 1},
    "forge.sample.active": {"pipeline.name=predictions": 0},
    "forge.sample.admitted": {"pipeline.name=predictions": 40},
    "forge.sample.derived": {
        "pipeline.name=predictions, stage.name=Filter(is_even)": 0,
        "pipeline.name=predictions, stage.name=MapBatches(Predictor)": 0,
        "pipeline.name=predictions, stage.name=FlatMap(double)": 20,
    },
    "forge.sample.settled": {
        "pipeline.name=predictions, sample.outcome=ready": 40,
        "pipeline.name=predictions, sample.outcome=skipped": 20,
        "pipeline.name=predictions, sample.outcome=failed": 0,
    },
    "forge.stage.active": {
        "pipeline.name=predictions, stage.name=Filter(is_even)": 0,
        "pipeline.name=predictions, stage.name=MapBatches(Predictor)": 0,
        "pipeline.name=predictions, stage.name=FlatMap(double)": 0,
    },
    "forge.stage.concurrency.limit": {
        "pipeline.name=predictions, stage.name=Filter(is_even)": 0,
        "pipeline.name=predictions, stage.name=MapBatches(Predictor)": 0,
        "pipeline.name=predictions, stage.name=FlatMap(double)": 0,
    },
    "forge.stage.executions": {
        "pipeline.name=predictions, stage.name=Filter(is_even), stage.outcome=success": 20,
        "pipeline.name=predictions, stage.name=Filter(is_even), stage.outcome=skip": 20,
        "pipeline.name=predictions, stage.name=Filter(is_even), stage.outcome=error": 0,
        "pipeline.name=predictions, stage.name=MapBatches(Predictor), stage.outcome=success": 20,
        "pipeline.name=predictions, stage.name=MapBatches(Predictor), stage.outcome=skip": 0,
        "pipeline.name=predictions, stage.name=MapBatches(Predictor), stage.outcome=error": 0,
        "pipeline.name=predictions, stage.name=FlatMap(double), stage.outcome=success": 20,
        "pipeline.name=predictions, stage.name=FlatMap(double), stage.outcome=skip": 0,
        "pipeline.name=predictions, stage.name=FlatMap(double), stage.outcome=error": 0,
    },
    "forge.stage.output.blocks": {
        "pipeline.name=predictions, stage.name=Filter(is_even)": 4,
        "pipeline.name=predictions, stage.name=MapBatches(Predictor)": 4,
        "pipeline.name=predictions, stage.name=FlatMap(double)": 4,
    },
    "forge.stage.queue.depth": {
        "pipeline.name=predictions, stage.name=Filter(is_even)": 0,
        "pipeline.name=predictions, stage.name=MapBatches(Predictor)": 0,
        "pipeline.name=predictions, stage.name=FlatMap(double)": 0,
    },
    "forge.task.completed": {
        f"pipeline.name=predictions, runner.name=ray_data, stage.name={stage}, task.outcome={outcome}": count
        for stage in ("Filter(is_even)", "MapBatches(Predictor)", "FlatMap(double)")
        for outcome, count in (("completed", 4), ("failed", 0), ("cancelled", 0))
    },
    "forge.stage.skips": {"pipeline.name=predictions, skip.reason=dropped, stage.name=Filter(is_even)": 20},
}

TIMES = {
    "forge.pipeline.duration",
    "forge.pipeline.end.timestamp",
    "forge.pipeline.progress.timestamp",
    "forge.pipeline.success.timestamp",
    "forge.stage.backpressure.time",
    "forge.stage.busy.time",
    "forge.stage.output.io",
    "forge.task.duration",
}


def test_batch_inference() -> None:
    with recording() as recorded:
        assert len(predictions().take_all()) == 40
        assert plain(recorded.tree()) == TREE
        points = recorded.points
    assert {name: points[name] for name in points if name not in TIMES} == COUNTS
    assert set(points) - set(COUNTS) == TIMES
    assert {at: histogram.count for at, histogram in points["forge.task.duration"].items()} == {
        f"pipeline.name=predictions, runner.name=ray_data, stage.name={stage}, task.outcome=completed": 4
        for stage in ("Filter(is_even)", "MapBatches(Predictor)", "FlatMap(double)")
    }
    assert all(seconds > 0 for seconds in points["forge.stage.busy.time"].values())
    assert [event.name for event in recorded.events] == [
        "forge.pipeline.start",
        "forge.pipeline.stop",
        "forge.pipeline.summary",
        *["forge.stage.summary"] * 3,
    ]
    assert {event.span for event in recorded.events} == {"forge.pipeline predictions"}
    assert {key: value for key, value in summary(recorded).items() if value} == {
        "admitted": 40,
        "derived": 20,
        "ready": 40,
        "skipped": 20,
        "spans": 4,
    }


def evens() -> Any:
    """A smaller dataset, which needs no actor: one operator, and half of its rows come out."""
    import ray  # noqa: PLC0415

    dataset = ray.data.from_numpy([np.asarray([str(n) for n in range(m, m + 10)]) for m in range(0, 40, 10)])
    dataset.set_name("evens")
    return dataset.filter(is_even)


def test_several_executions() -> None:
    """Each execution of a dataset is a run; a result that is there already is none."""
    with recording() as recorded:
        dataset = evens()
        materialized = dataset.materialize()
        assert len(materialized.take_all()) == 20
        assert dataset.count() == 20
        assert sum(1 for _ in dataset.iter_batches(batch_size=None)) == 4
        assert [run["forge.run.type"] for run in runs(recorded)] == ["full"] * 3
        assert recorded.total("forge.pipeline.completed", "run.outcome=completed") == 3
        # `count` aggregates the rows to one.
        assert recorded.total("forge.sample.settled", "sample.outcome=ready") == 20 + 1 + 20
    assert len({run["forge.run.id"] for run in runs(recorded)}) == 3
    assert len({run["forge.pipeline.id"] for run in runs(recorded)}) == 2


def test_limit_makes_a_partial_run() -> None:
    with recording() as recorded:
        assert len(evens().take(3)) == 3
        assert "forge.pipeline.last_run.size" not in recorded.points
    (run,) = runs(recorded)
    assert (run["forge.run.type"], run["forge.run.outcome"]) == ("partial", "completed")
    counts = summary(recorded)
    assert (counts["ready"], counts["imbalance"]) == (3, 0)


def test_name_of_a_dataset_without_one() -> None:
    import ray  # noqa: PLC0415

    with recording() as recorded:
        ray.data.range(10).map(add_one).filter(is_small).take(7)
    (run,) = runs(recorded)
    assert run["forge.pipeline.name"].startswith("ReadRange->")
    assert "7" not in run["forge.pipeline.name"]


def add_one(row: Row) -> Row:
    return {"id": row["id"] + 1}


def is_small(row: Row) -> bool:
    return bool(row["id"] < 9)


def test_shuffle_sort_aggregate_union_and_zip() -> None:
    import ray  # noqa: PLC0415

    with recording() as recorded:
        numbers = ray.data.from_items([{"id": number % 3} for number in range(30)], override_num_blocks=3)
        numbers.set_name("numbers")
        shuffled = numbers.random_shuffle().sort("id")
        assert [row["id"] for row in shuffled.take_all()] == [0] * 10 + [1] * 10 + [2] * 10
        assert len(numbers.groupby("id").count().take_all()) == 3
        assert numbers.union(numbers).materialize().count() == 60
        assert numbers.zip(numbers).materialize().count() == 30
    counts = [summary(recorded, place) for place in range(4)]
    assert [(each["admitted"], each["ready"], each["skipped"]) for each in counts] == [
        (30, 30, 0),
        (30, 3, 27),
        (60, 60, 0),
        (60, 30, 30),
    ]
    assert {each["imbalance"] for each in counts} == {0}


def fails_at_seven(row: Row) -> Row:
    if row["id"] == 7:
        raise json.JSONDecodeError("two\n  lines", "{", 1)
    return row


def numbers_in_blocks_of_five() -> Any:
    import ray  # noqa: PLC0415

    dataset = ray.data.range(20, override_num_blocks=4).materialize()
    dataset.set_name("failing")
    return dataset


def test_exception_of_user_code() -> None:
    import ray  # noqa: PLC0415

    numbers = numbers_in_blocks_of_five()
    with recording() as recorded:
        with pytest.raises(ray.exceptions.UserCodeException, match="UDF failed"):
            numbers.map(fails_at_seven).take_all()
        assert recorded.points["forge.stage.failures"] == {
            "error.type=json.decoder.JSONDecodeError, pipeline.name=failing, stage.name=Map(fails_at_seven)": 1
        }
        assert recorded.total("forge.stage.executions", "stage.outcome=error") == 5
        assert recorded.total("forge.pipeline.completed", "run.outcome=failed") == 1
    (run,) = runs(recorded)
    assert (run["forge.run.outcome"], run["error.type"]) == ("failed", "json.decoder.JSONDecodeError")
    (stage,) = stages(recorded)
    assert (stage["forge.stage.outcome"], stage["error.type"]) == ("error", "json.decoder.JSONDecodeError")
    counts = summary(recorded)
    assert (counts["admitted"], counts["ready"] + counts["failed"], counts["imbalance"]) == (20, 20, 0)
    assert counts["failed"] >= 5
    stage_event, run_event = (event for event in recorded.events if event.name.endswith(".exception"))
    assert (stage_event.name, stage_event.span) == ("forge.stage.exception", "forge.stage.run Map(fails_at_seven)")
    assert run_event.name == "forge.pipeline.exception"
    for event in (stage_event, run_event):
        assert event.attributes["exception.type"] == "json.decoder.JSONDecodeError"
        assert event.attributes["exception.message"] == "two\n  lines: line 1 column 2 (char 1)"
        assert "in fails_at_seven" in event.attributes["exception.stacktrace"]


def test_tolerated_exceptions(context: Any) -> None:
    """Blocks may fail, up to a limit of Ray Data's; events of a class of errors end with the budget."""
    context.max_errored_blocks = -1
    numbers = numbers_in_blocks_of_five()
    with recording(event_budget=1) as recorded:
        assert len(numbers.map(fails_in_odd_blocks).take_all()) == 10
        assert recorded.points["forge.stage.failures"] == {
            "error.type=ZeroDivisionError, pipeline.name=failing, stage.name=Map(fails_in_odd_blocks)": 2
        }
        assert recorded.total("forge.telemetry.suppressed", "telemetry.reason=budget") == 1
    (run,) = runs(recorded)
    assert (run["forge.run.outcome"], run.get("error.type")) == ("completed", None)
    assert [event.name for event in recorded.events].count("forge.stage.exception") == 1
    counts = summary(recorded)
    assert (counts["ready"], counts["failed"], counts["imbalance"], counts["suppressed"]) == (10, 10, 0, 1)


def fails_in_odd_blocks(row: Row) -> Row:
    row["id"] // (1 - row["id"] // 5 % 2)
    return row


def test_abandoned_iterator(tmp_path: Path) -> None:
    import ray  # noqa: PLC0415

    gate = tmp_path / "open"

    def waits(row: Row) -> Row:
        while row["id"] >= 2 and not gate.exists():
            time.sleep(0.01)
        return row

    with recording() as recorded:
        dataset = ray.data.range(100, override_num_blocks=100).map(waits)
        dataset.set_name("abandoned")
        for row in dataset.iter_rows():
            assert row["id"] < 2
            assert recorded.total("forge.pipeline.active", "pipeline.name=abandoned") == 1
            break
        gate.touch()
        points = recorded.points
    (run,) = runs(recorded)
    assert (run["forge.run.outcome"], run.get("error.type")) == ("cancelled", None)
    (stage,) = stages(recorded)
    assert stage["forge.stage.outcome"] == "cancelled"
    assert points["forge.pipeline.active"] == {
        "pipeline.name=abandoned, run.type=full, runner.name=ray_data": 0,
    }
    counts = summary(recorded)
    assert 1 <= counts["ready"] < 100
    assert counts["imbalance"] == 0


def test_killed_worker(tmp_path: Path) -> None:
    """Ray tries the task of a killed worker again, unseen by Ray Data; no row is lost or counted twice."""
    import ray  # noqa: PLC0415

    mark = tmp_path / "killed"

    class DiesOnce:
        def __call__(self, batch: Batch) -> Batch:
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return batch

    with recording() as recorded:
        dataset = ray.data.range(20, override_num_blocks=4)
        dataset.set_name("killed")
        assert dataset.map_batches(DiesOnce, compute=ray.data.ActorPoolStrategy(size=1)).materialize().count() == 20
        assert "forge.stage.failures" not in recorded.points
    assert mark.exists()
    counts = summary(recorded)
    assert (counts["admitted"], counts["ready"], counts["imbalance"]) == (20, 20, 0)


def test_run_is_below_the_callers_span() -> None:
    with recording() as recorded:
        tracer = recorded.tracer_provider.get_tracer("test")
        with tracer.start_as_current_span("job"):
            batches = evens().iter_batches(batch_size=None)
            next(iter(batches))
            assert trace.get_current_span().name == "job"  # type: ignore[attr-defined]
            with tracer.start_as_current_span("train"):
                assert sum(1 for _ in batches) == 4
    lines = [line.split(" |")[0] for line in recorded.tree().splitlines()]
    assert lines[:2] == ["job", "  forge.pipeline evens"]
    assert "  train" in lines


def test_stops_with_the_instrumentor() -> None:
    from ray.data._internal.execution.interfaces.op_runtime_metrics import OpRuntimeMetrics  # noqa: PLC0415
    from ray.data._internal.execution.streaming_executor import StreamingExecutor  # noqa: PLC0415

    seams = [
        (StreamingExecutor, "execute"),
        (StreamingExecutor, "run"),
        (OpRuntimeMetrics, "on_task_finished"),
        (OpRuntimeMetrics, "on_output_taken"),
    ]
    before = [vars(owner)[name] for owner, name in seams]
    with recording() as recorded:
        assert [vars(owner)[name] for owner, name in seams] != before
    assert [vars(owner)[name] for owner, name in seams] == before
    assert len(evens().take_all()) == 20
    assert recorded.spans == ()
    assert recorded.events == []


def test_end_of_the_telemetry_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted until then is written; the dataset goes on."""
    import ray  # noqa: PLC0415

    monkeypatch.setattr(execution, "WRITE_INTERVAL", 3600.0)
    gate = tmp_path / "open"

    def waits(row: Row) -> Row:
        while row["id"] >= 2 and not gate.exists():
            time.sleep(0.01)
        return row

    with recording() as recorded:
        dataset = ray.data.range(20, override_num_blocks=20).map(waits)
        rows = iter(dataset.iter_rows())
        next(rows)
    gate.touch()
    assert sum(1 for _ in rows) == 19
    assert 1 <= recorded.total("forge.sample.admitted") < 20


def test_component_can_be_switched_off() -> None:
    with recording(components=["runner", "stage", "measurement", "storage"]) as recorded:
        assert len(evens().take_all()) == 20
        assert recorded.points == {}
    assert recorded.spans == ()


def test_component_alone() -> None:
    with recording(components=["ray_data"]) as recorded:
        assert len(evens().take_all()) == 20
        points = recorded.points
    assert set(points) == {*COUNTS, *TIMES}


@stage
def upper(sample: Sample) -> Sample:
    return sample.with_data(sample.data.upper())


def test_ray_runner_is_one_run() -> None:
    """Its datasets are no runs of their own: it says so in their context."""
    with recording() as recorded:
        source = [Sample(data=letter, id=letter) for letter in "abc"]
        result = RayRunner().run(Pipeline(name="letters", source=source, stages=[upper])).drain()
        assert result.ledger.ready == 3
        assert recorded.points["forge.pipeline.started"] == {
            "pipeline.name=letters, run.type=full, runner.name=ray": 1,
        }
        assert recorded.total("forge.sample.settled", "sample.outcome=ready") == 3
    assert [run["forge.runner.name"] for run in runs(recorded)] == ["ray"]
    assert stages(recorded) == []


def test_marked_dataset_is_left_out(context: Any) -> None:
    context.set_config(MARK, "ray")
    with recording() as recorded:
        assert len(evens().take_all()) == 20
        assert recorded.points == {}
    assert recorded.spans == ()


def test_older_version_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import ray  # noqa: PLC0415

    with recording(raise_faults=False) as recorded:
        monkeypatch.setattr(ray, "__version__", "2.59.1")
        assert len(evens().take_all()) == 20
        assert len(evens().take_all()) == 20
    assert recorded.spans == ()
    logged = [record.getMessage() for record in caplog.records if record.name == "forge_otel"]
    assert logged == [
        (
            "observing Ray Data failed; the pipeline continues without it: "
            "forge_otel.instrumentors.ray_data.UnsupportedVersionError: Ray 2.59.1, needs 2.60"
        )
    ]


@pytest.mark.parametrize("method", ["begin", "enter", "step", "task_ends", "output_taken", "end"])
def test_fault_does_not_harm_the_dataset(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: Any) -> None:
        raise AttributeError("as in another version of Ray")

    with recording(raise_faults=False) as recorded:
        monkeypatch.setattr(execution.Execution, method, faulty)
        assert len(evens().take_all()) == 20
        assert recorded.total("forge.telemetry.faults", "error.type=AttributeError") >= 1


def test_streaming_split_is_not_seen_on_the_driver() -> None:
    """It is executed in an actor of Ray Data, whose process is not instrumented here."""
    import ray  # noqa: PLC0415

    @ray.remote(num_cpus=0)
    def consume(split: Any) -> int:
        return sum(1 for _ in split.iter_rows())

    with recording() as recorded:
        splits = ray.data.range(20, override_num_blocks=4).streaming_split(2, equal=True)
        assert ray.get([consume.remote(split) for split in splits]) == [10, 10]
    assert recorded.spans == ()


def test_nothing_imports_ray() -> None:
    code = "import sys, forge_otel; forge_otel.ForgeInstrumentor().instrument(); print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_instrumented_functions() -> None:
    with recording():
        patched = [target.path for target in ForgeInstrumentor().patched if target.module.startswith("ray.")]
    assert sorted(patched) == [
        "OpRuntimeMetrics.on_output_taken",
        "OpRuntimeMetrics.on_task_finished",
        "StreamingExecutor.execute",
        "StreamingExecutor.run",
    ]


def test_benchmark() -> None:
    assert ray_data.execute(2) > 0


def runs(recorded: Recorded) -> list[dict[str, Any]]:
    """The attributes of the runs' spans."""
    return [dict(span.attributes or {}) for span in recorded.spans if span.name.startswith("forge.pipeline")]


def stages(recorded: Recorded) -> list[dict[str, Any]]:
    """The attributes of the operators' spans."""
    return [dict(span.attributes or {}) for span in recorded.spans if span.name.startswith("forge.stage.run")]


def summary(recorded: Recorded, place: int = 0) -> dict[str, Any]:
    """The counts in the summary of a run."""
    found = [event for event in recorded.events if event.name == "forge.pipeline.summary"][place]
    prefix = "forge.summary."
    counts = {key.removeprefix(prefix): value for key, value in found.attributes.items() if key.startswith(prefix)}
    del counts["duration"]
    return counts


def plain(tree: str) -> str:
    """A tree without ids and sizes."""
    for pattern, replacement in ((r"pipeline\.id=\w+", "pipeline.id=ID"), (r"run\.id=[\w-]+", "run.id=RUN")):
        tree = re.sub(pattern, replacement, tree)
    return re.sub(r"output\.size=\d+", "output.size=SIZE", tree)
