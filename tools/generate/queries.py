"""Prometheus queries shared by rules and dashboards.

All ratios are computed from the growth of counters, and so include short processes. `where` restricts them, for example
to Grafana's `$pipeline`.
"""

from __future__ import annotations

from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics as m
from forge_otel.semconv.attributes import ForgeCostUse, ForgeMeasurementOutcome, ForgeSampleOutcome, ForgeStageOutcome
from forge_otel.semconv.definitions import Metric

from . import promql as q
from .promql import Expression, Where

PIPELINE = (a.FORGE_PIPELINE_NAME,)
STAGE = (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME)
MEASUREMENT = (a.FORGE_PIPELINE_NAME, a.FORGE_MEASUREMENT_KEY)
SPENDER = (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY)
"""The origin of an API call: a stage or a measurement, so one of the two labels is always missing."""
MODEL = (a.GEN_AI_PROVIDER_NAME, a.GEN_AI_REQUEST_MODEL)
WASTED = {a.FORGE_COST_USE: q.unequal(ForgeCostUse.USEFUL)}
"""Costs of everything except samples that became ready."""


def grown(metric: Metric, window: str, by: tuple[str, ...], where: Where = None) -> Expression:
    """Return the growth of a counter in all processes together."""
    return q.sum_by(q.growth(q.select(metric, where), window), *by)


def error_ratio(window: str, where: Where = None) -> Expression:
    """Return the ratio of a stage's failed executions."""
    failed = {**(where or {}), a.FORGE_STAGE_OUTCOME: ForgeStageOutcome.ERROR}
    return q.ratio(
        grown(m.FORGE_STAGE_EXECUTIONS, window, STAGE, failed), grown(m.FORGE_STAGE_EXECUTIONS, window, STAGE, where)
    )


def success_ratio(window: str, where: Where = None) -> Expression:
    """Return the ratio of ready samples among the ready and failed ones of a pipeline; skipped, split and unchanged
    samples have neither succeeded nor failed.
    """
    return _settled_ratio((ForgeSampleOutcome.READY,), window, where)


def dead_letter_ratio(window: str, where: Where = None) -> Expression:
    """Return the ratio of dead letters among the ready and failed samples of a pipeline."""
    return _settled_ratio((ForgeSampleOutcome.DLQ,), window, where)


def cache_hit_ratio(window: str, where: Where = None) -> Expression:
    """Return the ratio of cached values of a measurement."""
    cached = {**(where or {}), a.FORGE_MEASUREMENT_OUTCOME: ForgeMeasurementOutcome.CACHED}
    return q.ratio(
        grown(m.FORGE_MEASUREMENT_COMPUTATIONS, window, MEASUREMENT, cached),
        grown(m.FORGE_MEASUREMENT_COMPUTATIONS, window, MEASUREMENT, where),
    )


def utilization(window: str, where: Where = None) -> Expression:
    """Return the utilization of a stage: time in attempts ÷ (limit × elapsed time), in processes that were active for
    the whole window.

    For shorter runs, the summary event has the exact value.
    """
    limit = q.select(m.FORGE_STAGE_CONCURRENCY_LIMIT, where)
    throughout = (q.low(limit, window) > 0) & (q.offset(limit, window) > 0)
    busy = q.rate(q.select(m.FORGE_STAGE_BUSY_TIME, where), window)
    return q.sum_by(q.combine(busy, "and", throughout, on=(*q.TARGET, *STAGE)), *STAGE) / q.sum_by(throughout, *STAGE)


def work_per_worker(window: str, where: Where = None) -> Expression:
    """Return the busy time per worker of a stage, in seconds. Stages of a run share its duration, so the order is that
    of their utilization, also for short runs.
    """
    workers = q.sum_by(q.peak(q.select(m.FORGE_STAGE_CONCURRENCY_LIMIT, where), window), *STAGE)
    return grown(m.FORGE_STAGE_BUSY_TIME, window, STAGE, where) / (workers > 0)


def wasted_share(window: str, where: Where = None) -> Expression:
    """Return the ratio of a pipeline's costs for everything except samples that became ready."""
    return q.ratio(
        grown(m.FORGE_COST_AMOUNT, window, PIPELINE, {**(where or {}), **WASTED}),
        grown(m.FORGE_COST_AMOUNT, window, PIPELINE, where),
    )


def _settled_ratio(outcomes: tuple[ForgeSampleOutcome, ...], window: str, where: Where) -> Expression:
    def settled(*among: ForgeSampleOutcome) -> Expression:
        return grown(
            m.FORGE_SAMPLE_SETTLED, window, PIPELINE, {**(where or {}), a.FORGE_SAMPLE_OUTCOME: q.one_of(*among)}
        )

    return q.ratio(
        settled(*outcomes), settled(ForgeSampleOutcome.READY, ForgeSampleOutcome.DLQ, ForgeSampleOutcome.FAILED)
    )
