"""Each component alone is useful, and together they see everything that `forge` does."""

from __future__ import annotations

import importlib
import inspect
import operator
from typing import TYPE_CHECKING, Any

import pytest

from forge_otel.instrumentors import targets
from forge_otel.patching.patches import Layer, Target
from forge_otel.semconv import metrics
from tests.support.clock import FakeClock
from tests.support.small_run import small_run
from tests.support.telemetry import Recorded, recording

if TYPE_CHECKING:
    from pathlib import Path


def emitted(folder: Path, component: str) -> tuple[set[str], set[str], set[str]]:
    """The names of the spans, metrics and events of a small run in which one component is instrumented."""
    with recording(components=[component]) as recorded:
        run = small_run(folder, FakeClock())  # alive until the metrics are read, like its dead letters
        assert run.drain().ledger.ready == 3
        return names(recorded)


def names(recorded: Recorded) -> tuple[set[str], set[str], set[str]]:
    spans = {span.name for span in recorded.spans}
    return spans, set(recorded.points), {event.name for event in recorded.events}


def test_runner_alone(tmp_path: Path) -> None:
    spans, points, events = emitted(tmp_path, "runner")
    assert spans == {"forge.pipeline small", "forge.sample"}
    assert points == {
        "forge.pipeline.started",
        "forge.pipeline.completed",
        "forge.pipeline.active",
        "forge.pipeline.duration",
        "forge.pipeline.last_run.size",
        "forge.pipeline.last_run.success_ratio",
        "forge.pipeline.progress.timestamp",
        "forge.pipeline.end.timestamp",
        "forge.pipeline.success.timestamp",
        "forge.pipeline.expected_interval",
        "forge.cost.budget",
        "forge.measurement.cache.hit_ratio",
        "forge.source.reads",
        "forge.source.backpressure.time",
        "forge.source.duration",
        "forge.sample.admitted",
        "forge.sample.derived",
        "forge.sample.settled",
        "forge.sample.active",
        "forge.sample.duration",
    }
    assert events == {
        "forge.pipeline.start",
        "forge.pipeline.stop",
        "forge.pipeline.summary",
        "forge.stage.summary",
        "forge.measurement.summary",
    }


def test_stage_alone(tmp_path: Path) -> None:
    spans, points, events = emitted(tmp_path, "stage")
    assert spans == {"forge.stage clean", "forge.stage.batch tag"}
    assert points == {
        "forge.stage.executions",
        "forge.stage.skips",
        "forge.stage.duration",
        "forge.stage.failures",
        "forge.stage.retries",
        "forge.stage.busy.time",
        "forge.stage.retry_wait.time",
        "forge.stage.batch.size",
        "forge.dlq.enqueued",
        "forge.dlq.depth",
        "forge.dlq.oldest.timestamp",
    }
    assert events == {"forge.stage.exception", "forge.stage.retry", "forge.dlq.enqueue"}


def test_measurement_alone(tmp_path: Path) -> None:
    spans, points, events = emitted(tmp_path, "measurement")
    assert spans == {"forge.measurement density", "forge.measurement.batch length"}
    assert points == {
        "forge.measurement.computations",
        "forge.measurement.duration",
        "forge.measurement.cache.misses",
        "forge.measurement.batch.size",
        "forge.measurement.batch.duration",
    }
    assert events == {"forge.measurement.exception"}


def test_storage_alone(tmp_path: Path) -> None:
    spans, points, events = emitted(tmp_path, "storage")
    assert spans == {"forge.storage write sqlite", "forge.storage upload file"}
    assert points == {
        "forge.storage.samples.written",
        "forge.storage.artifacts.uploaded",
        "forge.storage.io",
        "forge.storage.operation.duration",
    }
    assert events == set()


@pytest.mark.parametrize("component", ["stage", "measurement"])
def test_what_stands_alone_still_names_the_pipeline(tmp_path: Path, component: str) -> None:
    with recording(components=[component]) as recorded:
        small_run(tmp_path, FakeClock()).drain()
        points = recorded.points
    assert all("pipeline.name=small" in text for metric in points.values() for text in metric)


def test_every_metric_of_a_run_belongs_to_one_component(tmp_path: Path) -> None:
    """What is in the vocabulary and not seen after a small run needs a queue, a run that goes on, a failed batch, a
    failed read, a fault, worker processes or a run of another library.
    """
    with recording() as recorded:
        small_run(tmp_path, FakeClock()).drain()
        _, points, _ = names(recorded)
    assert {metric.name for metric in metrics.ALL} - points == {
        "forge.source.remaining",
        "forge.stage.batch.failures",
        "forge.stage.queue.depth",
        "forge.stage.queue.limit",
        "forge.stage.queue.duration",
        "forge.stage.transfer.time",
        "forge.stage.worker.active",
        "forge.measurement.retries",
        "forge.dlq.replayed",
        "forge.dlq.dropped",
        "forge.cost.calls",
        "forge.cost.tokens",
        "forge.cost.amount",
        "forge.cost.saved",
        "forge.cost.unpriced",
        "forge.telemetry.faults",
        "forge.telemetry.suppressed",
        "forge.stage.output.blocks",
        "forge.stage.output.io",
        "forge.task.completed",
        "forge.task.duration",
    }


TARGETS = targets(["runner", "stage", "measurement", "storage"])

NOT_OBSERVED = {
    "StageExecutor": {"attempt", "attempt_async", "close"},
    "StageQueue": {
        "put",
        "put_all",
        "put_async",
        "enqueue_unlocked",
        "get",
        "get_async",
        "take_waiting",
        "wait_for_taker",
        "discard",
        "finish",
        "close",
    },
    "MeasurementOrchestrator": {"close"},
    "SQLStorage": {
        "open",
        "close",
        "schema_version",
        "has_current_schema",
        "release",
        "count",
        "dead_letter_state",
        "count_dead_letters",
        "begin_run",
        "beat",
        "end_run",
        "update_run",
        "runs",
        "add_manifest",
        "manifest",
        "manifest_entries",
        "delete_runs",
        "contents",
        "statuses",
        "ids_like",
        "costs",
        "has_costs",
    },
    "ArtifactStore": {"open", "exists", "stored"},
    "DeadLetterQueue": {"list", "get", "settled", "snapshot", "refresh"},
}
"""What is no work on samples, or is seen where it is used."""


def owner_of(target: Target) -> type:
    owner: type = getattr(importlib.import_module(target.module), target.path.split(".")[0])
    return owner


@pytest.mark.parametrize("name", NOT_OBSERVED)
def test_a_new_method_is_observed_or_left_out_on_purpose(name: str) -> None:
    observed = {target.path.split(".")[1]: owner_of(target) for target in TARGETS if target.path.startswith(f"{name}.")}
    (owner,) = set(observed.values())
    methods = {key for key, _ in inspect.getmembers(owner, inspect.isfunction) if not key.startswith("_")}
    assert methods == observed.keys() | NOT_OBSERVED[name]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.path)
def test_wrappers_have_the_signature_of_what_they_wrap(target: Target) -> None:
    original = operator.attrgetter(target.path)(importlib.import_module(target.module))
    wrapper = target.wrap(original, Layer())
    assert parameters(wrapper) == parameters(original)
    assert inspect.iscoroutinefunction(wrapper) == inspect.iscoroutinefunction(original)


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(function, follow_wrapped=False)
    return [(parameter.name, parameter.kind, parameter.default) for parameter in signature.parameters.values()]
