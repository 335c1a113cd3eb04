"""The summary of a run at its end: gauges of the last run, and summary events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..engine.detected_usage import usage_attributes
from ..engine.operation import LogEvent, MetricPoint
from ..semconv import attributes as a
from ..semconv import events, metrics
from ..semconv.attributes import ForgeRunOutcome, ForgeSampleOutcome
from ..signals.metrics import Attributes

if TYPE_CHECKING:
    from forge import RunResult
    from forge.runner import MeasurementSummary, StageSummary


def foreign_result(  # noqa: PLR0917 - what a result consists of
    headline: str,
    counts: Mapping[str, int],
    outcome: ForgeRunOutcome,
    duration: float,
    stages: Sequence[Any],
    revision: str | None = None,
) -> Any:
    """Return the result of a run of another library, as far as it is read here.

    `counts` are those of samples: `admitted`, `derived`, and by outcome.
    """
    settled = {each.value: counts.get(each.value, 0) for each in ForgeSampleOutcome}
    imbalance = counts["admitted"] + counts["derived"] - sum(settled.values())
    return SimpleNamespace(
        headline=headline,
        failure_lines=lambda: (),
        ledger=SimpleNamespace(admitted=counts["admitted"], derived=counts["derived"], imbalance=imbalance, **settled),
        outcome=outcome,
        duration=duration,
        ended=time.time(),
        cost=SimpleNamespace(charges=()),
        input_digest=None,
        revision=revision,
        stages=stages,
        measurements=(),
    )


def foreign_stage(name: str, **counts: float | None) -> Any:
    """Return the summary of a stage of another library, as far as it is read here: what it does not count is None.

    Libraries count no retries, and no waits in queues.
    """
    unknown = dict.fromkeys(("p50", "p95", "p99", "max", "utilization", "queue_wait_p95"))
    return SimpleNamespace(name=name, retries=0, **{**unknown, **counts})


def last_run(result: RunResult, now: float) -> Iterator[MetricPoint]:
    """Yield the gauges of the last run, at this Unix time."""
    ledger = result.ledger
    for outcome in ForgeSampleOutcome:
        count = getattr(ledger, outcome.value)
        yield MetricPoint(metrics.FORGE_PIPELINE_LAST_RUN_SIZE, count, {a.FORGE_SAMPLE_OUTCOME: outcome.value})
    # Skipped, split and unchanged samples have neither succeeded nor failed.
    attempted = ledger.ready + ledger.dlq + ledger.failed
    if attempted:
        yield MetricPoint(metrics.FORGE_PIPELINE_LAST_RUN_SUCCESS_RATIO, ledger.ready / attempted)
    for measured in result.measurements:
        lookups = measured.cached + measured.computed + measured.errors
        if lookups:
            of = {a.FORGE_MEASUREMENT_KEY: measured.key}
            yield MetricPoint(metrics.FORGE_MEASUREMENT_CACHE_HIT_RATIO, measured.cached / lookups, of)
    ended = min(result.ended, now)  # not in the future, if the clock was set back: ages are not negative
    yield MetricPoint(metrics.FORGE_PIPELINE_END_TIMESTAMP, ended)
    if result.outcome.value == ForgeRunOutcome.COMPLETED:
        yield MetricPoint(metrics.FORGE_PIPELINE_SUCCESS_TIMESTAMP, ended)


def summaries(result: RunResult, extra: Attributes) -> Iterator[LogEvent]:
    """Yield the summary events; `extra` are attributes of the pipeline's event in addition to those of the result."""
    ledger = result.ledger
    yield LogEvent(
        events.FORGE_PIPELINE_SUMMARY,
        "; ".join([result.headline, *result.failure_lines()]),
        {
            **extra,
            a.FORGE_SUMMARY_ADMITTED: ledger.admitted,
            a.FORGE_SUMMARY_DERIVED: ledger.derived,
            a.FORGE_SUMMARY_READY: ledger.ready,
            a.FORGE_SUMMARY_SKIPPED: ledger.skipped,
            a.FORGE_SUMMARY_UNCHANGED: ledger.unchanged,
            a.FORGE_SUMMARY_SPLIT: ledger.split,
            a.FORGE_SUMMARY_DLQ: ledger.dlq,
            a.FORGE_SUMMARY_FAILED: ledger.failed,
            a.FORGE_SUMMARY_IMBALANCE: ledger.imbalance,
            a.FORGE_SUMMARY_DURATION: result.duration,
            a.FORGE_COST_AMOUNT: usage_attributes(result.cost.charges)[a.FORGE_COST_AMOUNT],
            a.FORGE_SUMMARY_INPUT_DIGEST: result.input_digest,
            a.VCS_REF_HEAD_REVISION: result.revision,
        },
    )
    for stage in result.stages:
        yield _stage_summary(stage)
    for measurement in result.measurements:
        yield _measurement_summary(measurement)


def _stage_summary(stage: StageSummary) -> LogEvent:
    body = (
        f"Stage {stage.name}: executions {stage.executions}, errors {stage.errors}, skips {stage.skips}, "
        f"retries {stage.retries}"
    )
    return LogEvent(
        events.FORGE_STAGE_SUMMARY,
        body,
        {
            a.FORGE_STAGE_NAME: stage.name,
            a.FORGE_SUMMARY_EXECUTIONS: stage.executions,
            a.FORGE_SUMMARY_ERRORS: stage.errors,
            a.FORGE_SUMMARY_SKIPS: stage.skips,
            a.FORGE_SUMMARY_RETRIES: stage.retries,
            **_percentiles(stage),
            a.FORGE_SUMMARY_BUSY: stage.busy,
            a.FORGE_SUMMARY_UTILIZATION: stage.utilization,
            a.FORGE_SUMMARY_QUEUE_WAIT_P95: stage.queue_wait_p95,
            a.FORGE_SUMMARY_BACKPRESSURE: stage.backpressure,
        },
    )


def _measurement_summary(measurement: MeasurementSummary) -> LogEvent:
    body = (
        f"Measurement {measurement.key}: computed {measurement.computed}, cached {measurement.cached}, "
        f"errors {measurement.errors}"
    )
    return LogEvent(
        events.FORGE_MEASUREMENT_SUMMARY,
        body,
        {
            a.FORGE_MEASUREMENT_KEY: measurement.key,
            a.FORGE_MEASUREMENT_VERSION: measurement.version,
            a.FORGE_SUMMARY_COMPUTED: measurement.computed,
            a.FORGE_SUMMARY_CACHED: measurement.cached,
            a.FORGE_SUMMARY_ERRORS: measurement.errors,
            **_percentiles(measurement),
        },
    )


def _percentiles(summary: StageSummary | MeasurementSummary) -> Attributes:
    return {
        a.FORGE_SUMMARY_P50: summary.p50,
        a.FORGE_SUMMARY_P95: summary.p95,
        a.FORGE_SUMMARY_P99: summary.p99,
        a.FORGE_SUMMARY_MAX: summary.max,
    }
