"""What rules and dashboards both ask of Prometheus.

All ratios come from the growth of counters, and so count short processes as well. `where` narrows each of them down,
such as to Grafana's `$pipeline`.
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
"""Who made an API call: a stage or a measurement, so one of the two labels is always missing."""
MODEL = (a.GEN_AI_PROVIDER_NAME, a.GEN_AI_REQUEST_MODEL)
WASTED = {a.FORGE_COST_USE: q.unequal(ForgeCostUse.USEFUL)}
"""Money that went to anything but samples that became ready."""


def grown(metric: Metric, window: str, by: tuple[str, ...], where: Where = None) -> Expression:
    """How much a counter grew in all processes together."""
    return q.sum_by(q.growth(q.select(metric, where), window), *by)


def error_ratio(window: str, where: Where = None) -> Expression:
    """Executions of a stage that failed, among all."""
    failed = {**(where or {}), a.FORGE_STAGE_OUTCOME: ForgeStageOutcome.ERROR}
    return q.ratio(
        grown(m.FORGE_STAGE_EXECUTIONS, window, STAGE, failed), grown(m.FORGE_STAGE_EXECUTIONS, window, STAGE, where)
    )


def success_ratio(window: str, where: Where = None) -> Expression:
    """Samples that became ready, among those of a pipeline that had something to do: what was skipped, split or
    unchanged has neither succeeded nor failed."""
    return _settled_ratio((ForgeSampleOutcome.READY,), window, where)


def dead_letter_ratio(window: str, where: Where = None) -> Expression:
    """Samples that went to the dead letters, among those of a pipeline that had something to do."""
    return _settled_ratio((ForgeSampleOutcome.DLQ,), window, where)


def cache_hit_ratio(window: str, where: Where = None) -> Expression:
    """Values of a measurement that had been computed before, among all that were asked for."""
    cached = {**(where or {}), a.FORGE_MEASUREMENT_OUTCOME: ForgeMeasurementOutcome.CACHED}
    return q.ratio(
        grown(m.FORGE_MEASUREMENT_COMPUTATIONS, window, MEASUREMENT, cached),
        grown(m.FORGE_MEASUREMENT_COMPUTATIONS, window, MEASUREMENT, where),
    )


def utilization(window: str, where: Where = None) -> Expression:
    """How busy a stage was: time in attempts ÷ (limit × wall time), in processes that worked through the whole window.

    Of a run that is shorter than the window, the event at its end says it exactly.
    """
    limit = q.select(m.FORGE_STAGE_CONCURRENCY_LIMIT, where)
    throughout = (q.low(limit, window) > 0) & (q.offset(limit, window) > 0)
    busy = q.rate(q.select(m.FORGE_STAGE_BUSY_TIME, where), window)
    return q.sum_by(q.combine(busy, "and", throughout, on=(*q.TARGET, *STAGE)), *STAGE) / q.sum_by(throughout, *STAGE)


def wasted_share(window: str, where: Where = None) -> Expression:
    """Money that went to anything but samples that became ready, among all that a pipeline spent."""
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
