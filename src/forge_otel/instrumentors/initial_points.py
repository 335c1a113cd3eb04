"""Initial points: the counter series that follow from a pipeline's definition."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from ..semconv import attributes as a
from ..semconv import metrics
from ..semconv.definitions import Metric
from ..signals.metrics import Attributes

if TYPE_CHECKING:
    from forge import Pipeline, Run


def initial_points(run: Run, components: Collection[str]) -> Iterator[tuple[Metric, Attributes]]:
    """Yield the counter series of a run, without those that depend on data, such as error types."""
    fixed = {
        "runner": _runner,
        "stage": _stages,
        "measurement": _measurements,
        "storage": _storage,
    }
    where = {
        a.FORGE_PIPELINE_NAME: run.pipeline.name,
        a.FORGE_RUNNER_NAME: run.runner,
        a.FORGE_RUN_TYPE: run.type.value,
    }
    for component, series in fixed.items():
        if component in components:
            for metric, extra in series(run.pipeline):
                yield metric, {**where, **extra}


def _runner(pipeline: Pipeline) -> Iterator[tuple[Metric, dict[str, Any]]]:
    for metric in (
        metrics.FORGE_PIPELINE_STARTED,
        metrics.FORGE_SOURCE_READS,
        metrics.FORGE_SOURCE_BACKPRESSURE_TIME,
        metrics.FORGE_SAMPLE_ADMITTED,
    ):
        yield metric, {}
    for outcome in a.ForgeRunOutcome:
        yield metrics.FORGE_PIPELINE_COMPLETED, {a.FORGE_RUN_OUTCOME: outcome.value}
    for settled in a.ForgeSampleOutcome:
        yield metrics.FORGE_SAMPLE_SETTLED, {a.FORGE_SAMPLE_OUTCOME: settled.value}
    for stage in pipeline.stages:
        yield metrics.FORGE_SAMPLE_DERIVED, {a.FORGE_STAGE_NAME: stage.name}


def _stages(pipeline: Pipeline) -> Iterator[tuple[Metric, dict[str, Any]]]:
    for stage in pipeline.stages:
        at = {a.FORGE_STAGE_NAME: stage.name}
        yield metrics.FORGE_STAGE_BUSY_TIME, at
        yield metrics.FORGE_STAGE_BACKPRESSURE_TIME, at
        for outcome in a.ForgeStageOutcome:
            yield metrics.FORGE_STAGE_EXECUTIONS, {**at, a.FORGE_STAGE_OUTCOME: outcome.value}


def _measurements(pipeline: Pipeline) -> Iterator[tuple[Metric, dict[str, Any]]]:
    for measurement in pipeline.measurements:
        of = {a.FORGE_MEASUREMENT_KEY: measurement.key}
        yield metrics.FORGE_MEASUREMENT_CACHE_HITS, of
        yield metrics.FORGE_MEASUREMENT_CACHE_MISSES, of
        for outcome in a.ForgeMeasurementOutcome:
            yield metrics.FORGE_MEASUREMENT_COMPUTATIONS, {**of, a.FORGE_MEASUREMENT_OUTCOME: outcome.value}


def _storage(pipeline: Pipeline) -> Iterator[tuple[Metric, dict[str, Any]]]:
    for store in (pipeline.storage, pipeline.artifacts):
        if store is not None:
            for direction in a.ForgeStorageDirection:
                yield (
                    metrics.FORGE_STORAGE_IO,
                    {a.FORGE_STORAGE_BACKEND: store.backend, a.FORGE_STORAGE_DIRECTION: direction.value},
                )
    if pipeline.storage is not None:
        of = {a.FORGE_STORAGE_BACKEND: pipeline.storage.backend}
        yield metrics.FORGE_STORAGE_SAMPLES_READ, of
        for result in a.ForgeStorageWriteResult:
            yield metrics.FORGE_STORAGE_SAMPLES_WRITTEN, {**of, a.FORGE_STORAGE_WRITE_RESULT: result.value}
    if pipeline.artifacts is not None:
        of = {a.FORGE_STORAGE_BACKEND: pipeline.artifacts.backend}
        yield metrics.FORGE_STORAGE_ARTIFACTS_DOWNLOADED, of
        for deduplicated in (False, True):
            yield metrics.FORGE_STORAGE_ARTIFACTS_UPLOADED, {**of, a.FORGE_ARTIFACT_DEDUPLICATED: deduplicated}
