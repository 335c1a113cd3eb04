"""Alerting rules: only for problems that need attention. Full queues do not, because the queue before the slowest stage
is full in a healthy pipeline.

Alerts are per pipeline, some per stage, never per process: the same failure of many processes is one alert. Each alert
resolves by itself, after its processes have been gone for the time of its window.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import reduce
from typing import Final, Literal

from forge_otel.checker import prometheus_names
from forge_otel.semconv import attributes as a
from forge_otel.semconv import events as e
from forge_otel.semconv import metrics as m
from forge_otel.semconv.attributes import ForgeRunOutcome, ForgeSampleOutcome, ForgeStageOutcome
from forge_otel.semconv.definitions import Metric

from . import promql as q
from . import queries, recordings, sdk
from .links import Evidence
from .promql import Expression, Where
from .recordings import WINDOW

PROCESS: Final = (*q.TARGET, a.FORGE_PIPELINE_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alerting rule. `runbook` is the name of its page; texts may contain Prometheus templates."""

    name: str
    runbook: str
    expression: Expression
    severity: Literal["critical", "warning"]
    summary: str
    description: str
    wait: str | None = None
    """The duration for which the expression must hold before the alert fires."""
    evidence: Evidence | None = None
    """Linked from the alert; None if there is none, or if it is lost with what the alert is about."""


def _label(key: str) -> str:
    return f"{{{{ $labels.{prometheus_names.label(key)} }}}}"


RATIO: Final = "{{ $value | humanizePercentage }}"
DURATION: Final = "{{ $value | humanizeDuration }}"
COUNT: Final = '{{ $value | printf "%.0f" }}'
DOLLARS: Final = '{{ $value | printf "%.2f" }} USD'
_PIPELINE: Final = _label(a.FORGE_PIPELINE_NAME)
_STAGE: Final = _label(a.FORGE_STAGE_NAME)
_ERROR: Final = _label(a.ERROR_TYPE)
_PROVIDER: Final = _label(a.GEN_AI_PROVIDER_NAME)
_MODEL: Final = f"{{{{ with $labels.{prometheus_names.label(a.GEN_AI_REQUEST_MODEL)} }}}} {{{{ . }}}}{{{{ end }}}}"
"""With a leading space; empty for services without models."""


def _active(ago: str | None = None) -> Expression:
    """Return the active runs of each process, now or at an offset."""
    runs = q.select(m.FORGE_PIPELINE_ACTIVE)
    return q.sum_by(q.offset(runs, ago) if ago else runs, *PROCESS)


def _run_failed() -> Expression:
    failed = q.select(m.FORGE_PIPELINE_COMPLETED, {a.FORGE_RUN_OUTCOME: ForgeRunOutcome.FAILED})
    return q.sum_by(q.growth(failed, WINDOW), a.FORGE_PIPELINE_NAME) > 0


def _run_died() -> Expression:
    """Return the runs that started and are neither ended nor active. The last value of a killed process, an active run,
    expires after Prometheus' five minutes.
    """
    started = q.last(q.select(m.FORGE_PIPELINE_STARTED), "1h")
    completed = q.last(q.select(m.FORGE_PIPELINE_COMPLETED), "1h")  # has an outcome, so its series are distinct
    unfinished = q.sum_by(started | completed * -1, a.FORGE_PIPELINE_NAME)
    active = q.sum_by(q.select(m.FORGE_PIPELINE_ACTIVE), a.FORGE_PIPELINE_NAME)
    return unfinished - (active | 0 * unfinished) > 0


def _no_progress(limit: str, seconds: int) -> Expression:
    """Return the number of processes with runs that were active all the time and in which no sample has settled."""
    working = (_active() > 0) & (_active(limit) > 0)
    settled = q.max_by(q.select(m.FORGE_PIPELINE_PROGRESS_TIMESTAMP), *PROCESS)
    return q.count_by(q.combine(working, "unless", q.age(settled) < seconds), a.FORGE_PIPELINE_NAME)


def _overdue() -> Expression:
    # Two weeks: Prometheus keeps 15 days by default.
    return q.age(q.last(recordings.LAST_SUCCESS.series, "14d")) > q.last(recordings.EXPECTED_INTERVAL.series, "14d")


def _often(ratio: Expression, limit: float, *, of: Metric, by: tuple[str, ...], where: Where) -> Expression:
    """Return a ratio above a limit, with at least five occurrences: one failure among three samples is not reported."""
    return (ratio > limit) & (queries.grown(of, WINDOW, by, where) >= 5)


def _over_budget() -> Expression:
    budget = q.max_by(q.last(q.select(m.FORGE_STAGE_LATENCY_BUDGET), WINDOW), *queries.STAGE)
    samples = q.growth(q.select(m.FORGE_STAGE_DURATION, part="count"), WINDOW)
    return (recordings.P95.series > budget) & (q.sum_by(samples, *queries.STAGE) >= 20)


def _old_letters(limit: int) -> Expression:
    # All processes report the same storage, and its oldest letter only gets younger: the greatest time is the latest.
    oldest = q.max_by(q.last(q.select(m.FORGE_DLQ_OLDEST_TIMESTAMP), "1h"), a.FORGE_PIPELINE_NAME)
    return q.age(oldest) > limit


def _imbalance() -> Expression:
    """Return the difference between entered and settled samples in processes whose runs have all ended."""
    entered = q.last(q.select(m.FORGE_SAMPLE_ADMITTED), WINDOW) | q.last(q.select(m.FORGE_SAMPLE_DERIVED), WINDOW)
    left = q.last(q.select(m.FORGE_SAMPLE_SETTLED), WINDOW) * -1
    balance = q.magnitude(q.sum_by(entered | left, *PROCESS)) > 0
    running = q.sum_by(q.last(q.select(m.FORGE_PIPELINE_ACTIVE), WINDOW), *PROCESS)
    return q.max_by(balance & q.combine(running, "==", 0), a.FORGE_PIPELINE_NAME)


def _faults() -> Expression:
    faults = q.select(m.FORGE_TELEMETRY_FAULTS)
    return q.sum_by(q.growth(faults, "1h"), a.FORGE_PIPELINE_NAME, a.ERROR_TYPE) > 0


def _dropped() -> Expression:
    """Return the records dropped by the SDK's processors and exporters. Their component types differ by signal, so the
    series of the metrics do not collide.
    """
    finished = (sdk.SPANS_PROCESSED, sdk.LOGS_PROCESSED, sdk.SPANS_EXPORTED, sdk.LOGS_EXPORTED, sdk.POINTS_EXPORTED)
    lost = (q.growth(q.select(metric, {a.ERROR_TYPE: q.unequal("")}), "1h") for metric in finished)
    return q.sum_by(reduce(operator.or_, lost), q.JOB) > 0


def _wasteful(limit: float) -> Expression:
    """Return the wasted share above a limit, with at least one dollar wasted: less is not reported."""
    wasted = queries.grown(m.FORGE_COST_AMOUNT, "1h", queries.PIPELINE, queries.WASTED)
    return (recordings.WASTED_SHARE.series > limit) & (wasted >= 1)


ALL: Final = (
    Alert(
        name="ForgeRunFailed",
        runbook="run-failed",
        expression=_run_failed(),
        severity="warning",
        summary=f"A run of {_PIPELINE} failed",
        description=f"Runs of the pipeline {_PIPELINE} that failed in the last 15 minutes: {COUNT}.",
        evidence=Evidence(events=(e.FORGE_PIPELINE_EXCEPTION,), failed=True),
    ),
    Alert(
        name="ForgeRunDied",
        runbook="run-died",
        expression=_run_died(),
        wait="5m",
        severity="critical",
        summary=f"A run of {_PIPELINE} died",
        description=f"Runs of the pipeline {_PIPELINE} in the last hour that have not ended, but whose processes no "
        f"longer report: {COUNT}.",
        evidence=Evidence(),
    ),
    Alert(
        name="ForgeNoProgress",
        runbook="no-progress",
        expression=_no_progress("15m", 900),
        severity="critical",
        summary=f"A run of {_PIPELINE} makes no progress",
        description=f"Processes with an active run of the pipeline {_PIPELINE} in which no sample has settled for 15 "
        f"minutes: {COUNT}.",
        evidence=Evidence(),
    ),
    Alert(
        name="ForgePipelineOverdue",
        runbook="pipeline-overdue",
        expression=_overdue(),
        wait="5m",
        severity="critical",
        summary=f"{_PIPELINE} has not succeeded for {DURATION}",
        description=f"The last completed run of the pipeline {_PIPELINE} ended {DURATION} ago. That is longer than its "
        "expected_interval.",
        evidence=Evidence(events=(e.FORGE_PIPELINE_START, e.FORGE_PIPELINE_STOP, e.FORGE_PIPELINE_EXCEPTION)),
    ),
    Alert(
        name="ForgeStageErrors",
        runbook="stage-errors",
        expression=_often(
            recordings.ERROR_RATIO.series,
            0.05,
            of=m.FORGE_STAGE_EXECUTIONS,
            by=queries.STAGE,
            where={a.FORGE_STAGE_OUTCOME: ForgeStageOutcome.ERROR},
        ),
        wait="5m",
        severity="warning",
        summary=f"{RATIO} of the samples fail in the stage {_STAGE} of {_PIPELINE}",
        description=f"{RATIO} of the executions of the stage {_STAGE} of the pipeline {_PIPELINE} failed in the last "
        "15 minutes, after all attempts.",
        evidence=Evidence(events=(e.FORGE_STAGE_EXCEPTION,), about=queries.STAGE, failed=True),
    ),
    Alert(
        name="ForgeStageOverBudget",
        runbook="stage-over-budget",
        expression=_over_budget(),
        wait="5m",
        severity="warning",
        summary=f"The stage {_STAGE} of {_PIPELINE} exceeds its latency budget",
        description=f"The 95th percentile of the duration of the stage {_STAGE} of the pipeline {_PIPELINE} was "
        f"{DURATION} in the last 15 minutes. That is longer than its latency_budget.",
        evidence=Evidence(events=(e.FORGE_STAGE_RETRY,), about=queries.STAGE),
    ),
    Alert(
        name="ForgeDeadLetters",
        runbook="dead-letters",
        expression=_often(
            recordings.DEAD_LETTER_RATIO.series,
            0.1,
            of=m.FORGE_SAMPLE_SETTLED,
            by=queries.PIPELINE,
            where={a.FORGE_SAMPLE_OUTCOME: ForgeSampleOutcome.DLQ},
        ),
        wait="5m",
        severity="warning",
        summary=f"{RATIO} of the samples of {_PIPELINE} become dead letters",
        description=f"{RATIO} of the ready and failed samples of the pipeline {_PIPELINE} became dead letters in the "
        "last 15 minutes.",
        evidence=Evidence(events=(e.FORGE_DLQ_ENQUEUE,), failed=True),
    ),
    Alert(
        name="ForgeDeadLettersOld",
        runbook="dead-letters-old",
        expression=_old_letters(7 * 24 * 3600),
        severity="warning",
        summary=f"{_PIPELINE} has old dead letters",
        description=f"The oldest dead letter of the pipeline {_PIPELINE} is {DURATION} old.",
    ),
    Alert(
        name="ForgeLedgerImbalance",
        runbook="ledger-imbalance",
        expression=_imbalance(),
        wait="5m",
        severity="critical",
        summary=f"Samples of {_PIPELINE} are missing",
        description=f"All runs of the pipeline {_PIPELINE} in a process have ended, but the numbers of admitted + "
        f"derived and of settled samples differ by {COUNT}.",
        evidence=Evidence(events=(e.FORGE_PIPELINE_SUMMARY,)),
    ),
    Alert(
        name="ForgeSpendRate",
        runbook="spend-rate",
        # The budget is looked up over the window of the costs, for processes that have ended.
        expression=recordings.SPEND_RATE.series > q.last(recordings.BUDGET.series, "1h"),
        severity="warning",
        summary=f"{_PIPELINE} exceeds its budget",
        description=f"The pipeline {_PIPELINE} spent {DOLLARS} in the last hour. That is more than its hourly_budget.",
        evidence=Evidence(events=(e.FORGE_PIPELINE_SUMMARY,)),
    ),
    Alert(
        name="ForgeWastedCost",
        runbook="wasted-cost",
        expression=_wasteful(0.5),
        wait="5m",
        severity="warning",
        summary=f"{RATIO} of the costs of {_PIPELINE} are wasted",
        description=f"{RATIO} of the costs of the pipeline {_PIPELINE} in the last hour were for samples that did not "
        "become ready, for retried attempts, or for samples that were ready before.",
        evidence=Evidence(events=(e.FORGE_PIPELINE_SUMMARY,)),
    ),
    Alert(
        name="ForgeUnpricedCalls",
        runbook="unpriced-calls",
        expression=queries.grown(m.FORGE_COST_UNPRICED, "1h", (*queries.PIPELINE, *queries.MODEL)) > 0,
        severity="warning",
        summary=f"Calls of {_PIPELINE} have no price: {_PROVIDER}{_MODEL}",
        description=f"API calls of the pipeline {_PIPELINE} in the last hour without a known price, which are not "
        f"included in the costs: {COUNT} ({_PROVIDER}{_MODEL}).",
        evidence=Evidence(events=(e.FORGE_PIPELINE_SUMMARY,)),
    ),
    Alert(
        name="ForgeTelemetryFaults",
        runbook="telemetry-faults",
        expression=_faults(),
        severity="warning",
        summary=f"Faults of the telemetry: {_ERROR}",
        description=f"Suppressed faults of the telemetry in the last hour: {COUNT} ({_ERROR}). The pipeline is not "
        "affected; spans, metrics or events may be missing.",
    ),
    Alert(
        name="ForgeTelemetryDropped",
        runbook="telemetry-dropped",
        expression=_dropped(),
        severity="warning",
        summary=f"Telemetry of {_label(q.JOB)} is lost",
        description="Spans, log records and points that the OpenTelemetry SDK dropped in the last hour, because a "
        f"queue was full or an export failed: {COUNT}.",
    ),
)
