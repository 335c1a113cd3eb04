"""Measurements: computed, or read from the cache."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..engine.call import Call
from ..engine.fast_path import FastPath, observed
from ..engine.operation import NOTHING, LogEvent, MetricPoint, Operation, Result
from ..patching.patches import Target
from ..semconv import attributes as a
from ..semconv import events, metrics, spans
from ..semconv.attributes import ForgeMeasurementOutcome as Outcome
from ..signals.metrics import Attributes
from .error_types import error_type
from .stage import current_sample, ids_of, own_sample, samples_of

if TYPE_CHECKING:
    from forge import Measurement, Sample
    from forge.execution.item import Item
    from forge.execution.measurement_orchestrator import MeasurementOrchestrator
    from forge.execution.results import BatchMeasurementResult, MeasurementOutcome, MeasurementResult

    from ..engine.scopes import RunScope


def _start(_: MeasurementOrchestrator, measurement: Measurement, sample: Sample) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: sample.pipeline or None,
        a.FORGE_MEASUREMENT_KEY: measurement.key,
        a.FORGE_MEASUREMENT_VERSION: measurement.version,
        a.FORGE_SAMPLE_ID: sample.id or None,
    }


def _start_batch(_: MeasurementOrchestrator, measurement: Measurement, items: Sequence[Item]) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: items[0].sample.pipeline or None if items else None,
        a.FORGE_MEASUREMENT_KEY: measurement.key,
        a.FORGE_MEASUREMENT_VERSION: measurement.version,
        a.FORGE_MEASUREMENT_BATCH_SIZE: len(items),
    }


def _announce(call: Call) -> Sequence[LogEvent]:
    return [LogEvent(events.FORGE_MEASUREMENT_START, f"Measurement started: {call.arguments[1].key}")]


def _end(call: Call, result: MeasurementResult | None, error: BaseException | None) -> Result:
    measurement: Measurement = call.arguments[1]
    if result is None:
        return _no_result(error)
    attributes = {a.FORGE_MEASUREMENT_OUTCOME: result.outcome.value, a.ERROR_TYPE: result.error_type}
    points = _counts([result])
    log_events = []
    if result.outcome.value != Outcome.CACHED:
        points.append(MetricPoint(metrics.FORGE_MEASUREMENT_DURATION, result.duration))
    if result.error is not None:
        log_events.append(_failed(measurement, result))
    body = f"Measurement done: {measurement.key}, {result.outcome.value}"
    log_events.append(LogEvent(events.FORGE_MEASUREMENT_STOP, body, attributes))
    return Result(attributes=attributes, error=result.error, points=points, events=log_events, duration=result.duration)


def _end_batch(call: Call, batch: BatchMeasurementResult | None, error: BaseException | None) -> Result:
    measurement, items = call.arguments[1:]
    if batch is None:
        return _no_result(error)
    outcomes = {result.outcome.value for result in batch.results}
    outcome = next((o for o in (Outcome.ERROR, Outcome.COMPUTED) if o in outcomes), Outcome.CACHED)
    if batch.failed:
        outcome = Outcome.ERROR
    attributes = {a.FORGE_MEASUREMENT_OUTCOME: outcome.value, a.ERROR_TYPE: batch.error_type}
    points = _counts(batch.results)
    if batch.computed:
        points += [
            MetricPoint(metrics.FORGE_MEASUREMENT_BATCH_DURATION, batch.duration),
            MetricPoint(metrics.FORGE_MEASUREMENT_BATCH_SIZE, len(items)),
        ]
    body = f"Measurement done: {measurement.key}, batch of {len(items)}, {batch.computed} computed"
    return Result(
        attributes=attributes,
        error=batch.error,
        points=points,
        tail_kept=batch.failed,
        events=[
            *(
                _failed(measurement, result, item.sample.id)
                for item, result in zip(items, batch.results, strict=True)
                if result.error is not None
            ),
            LogEvent(events.FORGE_MEASUREMENT_BATCH_COMPLETE, body, attributes),
        ],
        duration=batch.duration,
    )


def _no_result(error: BaseException | None) -> Result:
    """Describe a measurement that the end of the run cut off. The run does not count it, so it has a span only."""
    return Result(attributes={a.ERROR_TYPE: error_type(error) if error is not None else None}, error=error)


def _counts(results: Sequence[MeasurementResult]) -> list[MetricPoint]:
    points = []
    for outcome, number in Counter(result.outcome.value for result in results).items():
        cache = (
            metrics.FORGE_MEASUREMENT_CACHE_HITS
            if outcome == Outcome.CACHED
            else metrics.FORGE_MEASUREMENT_CACHE_MISSES
        )
        points += [
            MetricPoint(metrics.FORGE_MEASUREMENT_COMPUTATIONS, number, {a.FORGE_MEASUREMENT_OUTCOME: outcome}),
            MetricPoint(cache, number),
        ]
    points += [MetricPoint(metrics.FORGE_COST_SAVED, result.saved) for result in results if result.saved]
    return points


def _failed(measurement: Measurement, result: MeasurementResult, sample_id: str | None = None) -> LogEvent:
    attributes = {a.ERROR_TYPE: result.error_type}
    return LogEvent(
        events.FORGE_MEASUREMENT_EXCEPTION,
        f"Measurement failed: {measurement.key}, {result.error_type}",
        attributes if sample_id is None else {**attributes, a.FORGE_SAMPLE_ID: sample_id},
        result.error,
    )


def usual_outcome() -> MeasurementOutcome:
    """Return the outcome that most calls come to in a first run."""
    from forge.execution.results import MeasurementOutcome  # noqa: PLC0415 - it is being patched, so it is imported

    return MeasurementOutcome.COMPUTED


def usual_batch() -> Callable[[BatchMeasurementResult], bool]:
    """Return a predicate for batches in which every sample came to it."""
    computed = usual_outcome()
    return lambda batch: (
        batch.computed > 0 and batch.error is None and all(result.outcome is computed for result in batch.results)
    )


def _batch_values(batch: BatchMeasurementResult, _: float) -> Sequence[float]:
    samples = len(batch.results)
    return samples, samples, batch.duration, samples


def _own(result: MeasurementResult) -> MeasurementResult:
    from forge.pipeline.sample import private_copy  # noqa: PLC0415 - there is a result, so it is imported

    return dataclasses.replace(result, value=private_copy(result.value))


def _own_batch(batch: BatchMeasurementResult) -> BatchMeasurementResult:
    return dataclasses.replace(batch, results=tuple(map(_own, batch.results)))


MEASUREMENT = Operation(
    name="a measurement",
    span=spans.FORGE_MEASUREMENT,
    start=_start,
    announce=_announce,
    end=_end,
    samples=current_sample,
    spends=True,
    sample_ids=lambda _, __, sample: [sample.id],
    hooks="measurement",
    hook_arguments=lambda _, measurement, sample: (measurement, own_sample(sample)),
    hook_result=_own,
    cache_key=lambda result: None if result.saved else (result.outcome, result.error_type),
)
MEASUREMENT_BATCH = Operation(
    name="a measurement's batch",
    span=spans.FORGE_MEASUREMENT_BATCH,
    start=_start_batch,
    announce=_announce,
    end=_end_batch,
    samples=samples_of,
    spends=True,
    sample_ids=ids_of,
    links_samples=True,
    hooks="measurement",
    hook_arguments=lambda _, measurement, items: (measurement, [own_sample(item.sample) for item in items]),
    hook_result=_own_batch,
    values=_batch_values,
)


def fast_path(run: RunScope, measurement: Measurement, where: Attributes = NOTHING) -> FastPath:
    """Return the fast path of a measurement, whose usual outcome is `computed`; `where` as for a stage's."""
    from forge.execution.results import (  # noqa: PLC0415 - `forge` is imported by now
        BatchMeasurementResult,
        MeasurementOutcome,
        MeasurementResult,
    )

    start = {a.FORGE_MEASUREMENT_KEY: measurement.key, a.FORGE_MEASUREMENT_VERSION: measurement.version, **where}
    usual = MeasurementResult(outcome=MeasurementOutcome.COMPUTED)
    if not measurement.batch_size:
        return FastPath(run, MEASUREMENT, start, (None, measurement, None), usual)
    batch = BatchMeasurementResult(results=(usual,), computed=1, duration=0.0)
    return FastPath(run, MEASUREMENT_BATCH, start, (None, measurement, [None]), batch)


_MODULE = "forge.execution.measurement_orchestrator"

TARGETS = (
    Target(_MODULE, "MeasurementOrchestrator.measure", observed(MEASUREMENT, usual_outcome)),
    Target(_MODULE, "MeasurementOrchestrator.measure_async", observed(MEASUREMENT, usual_outcome)),
    Target(_MODULE, "MeasurementOrchestrator.measure_batch", observed(MEASUREMENT_BATCH, usual_batch)),
    Target(_MODULE, "MeasurementOrchestrator.measure_batch_async", observed(MEASUREMENT_BATCH, usual_batch)),
)
