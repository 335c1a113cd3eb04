"""Dashboard of stages: executions, durations and the bottleneck."""

from __future__ import annotations

from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.models.common import BigValueTextMode

from forge_otel.checker.model import Registry
from forge_otel.semconv import attributes as a
from forge_otel.semconv import events as e
from forge_otel.semconv import metrics as m
from forge_otel.semconv.attributes import ForgeStageOutcome

from .. import promql as q
from .. import queries
from ..queries import STAGE as BY_STAGE
from . import queues
from .colours import FAILURES, GREEN, ORANGE, YELLOW, thresholds
from .layout import Page, Section
from .panels import (
    COUNT,
    SECONDS,
    SHARE,
    areas,
    bars,
    distribution,
    figure,
    lines,
    linked,
    messages,
    ranking,
    with_budget,
)
from .tables import column, event_table, run_columns, share
from .targets import RANGE, RATE, STEP, buckets, cells, events, mean, named, now, per_second, records, series
from .variables import PIPELINE, STAGE, chosen

_HERE = chosen(PIPELINE, STAGE)
_EXECUTIONS = "count:executions/s"
_BUSY = thresholds(GREEN, (0.8, YELLOW), (0.95, ORANGE))
"""No red: a stage that is always busy is the one to scale, not a fault."""


def page(registry: Registry) -> Page:
    """Return the dashboard."""
    return Page(
        name="stages",
        title="Stages",
        description="Executions, durations and errors of stages, and the bottleneck of each pipeline.",
        variables=[PIPELINE, STAGE],
        sections=[
            _scaling(),
            _executions(),
            _duration(),
            queues.section(),
            queues.retries(),
            queues.workers(),
            _runs(registry),
            _batches(),
        ],
    )


def _scaling() -> Section:
    worked = queries.work_per_worker(RANGE, _HERE)
    return Section(
        "The stage to scale",
        [
            figure(
                "Stage to scale",
                "The stage of each pipeline whose workers were busiest in the time range, which is the bottleneck: "
                "raise its concurrency, or make it faster.",
                SECONDS,
                [now(q.top(1, worked, a.FORGE_PIPELINE_NAME), named(*BY_STAGE))],
                span=6,
                limits=thresholds(ORANGE),
            )
            .text_mode(BigValueTextMode.NAME)
            .height(8),
            ranking(
                "Work per worker",
                "Busy time per worker of a stage in the time range. Stages of a run share its duration, so the order "
                "is that of their utilization, also for runs too short for the panel beside it.",
                SECONDS,
                cells(worked),
            ),
            lines(
                "Utilization",
                "Busy time ÷ (concurrency limit × elapsed time). The stage that stays near 100%, unlike those after "
                "it, is the one to scale.",
                SHARE,
                [series(queries.utilization(RATE, _HERE), named(*BY_STAGE))],
                span=12,
                limits=_BUSY,
                greatest=1,
            ).no_value("No run was long enough; see the table of the runs below"),
        ],
    )


def _executions() -> Section:
    failures = queries.grown(m.FORGE_STAGE_FAILURES, STEP, BY_STAGE, _HERE)
    errors = queries.grown(m.FORGE_STAGE_FAILURES, STEP, (*BY_STAGE, a.ERROR_TYPE), _HERE)
    batches = queries.grown(m.FORGE_STAGE_BATCH_FAILURES, STEP, (*BY_STAGE, a.ERROR_TYPE), _HERE)
    skips = queries.grown(m.FORGE_STAGE_SKIPS, STEP, (*BY_STAGE, a.FORGE_SKIP_REASON), _HERE)
    return Section(
        "Executions and errors",
        [
            areas(
                "Executions by outcome",
                "Executions of stages per second. A sample counts once in every stage that it reached.",
                _EXECUTIONS,
                [
                    series(
                        per_second(m.FORGE_STAGE_EXECUTIONS, (a.FORGE_STAGE_OUTCOME,), _HERE),
                        named(a.FORGE_STAGE_OUTCOME),
                    )
                ],
                outcomes=ForgeStageOutcome,
            ),
            lines(
                "Executions by stage",
                "Executions of each stage per second.",
                _EXECUTIONS,
                [series(per_second(m.FORGE_STAGE_EXECUTIONS, BY_STAGE, _HERE), named(*BY_STAGE))],
            ),
            lines(
                "Error ratio",
                "Ratio of executions that failed after all attempts. 0 for a stage without failures; no value for a "
                "stage without executions.",
                SHARE,
                [series(queries.error_ratio(RATE, _HERE), named(*BY_STAGE))],
                limits=thresholds(GREEN, *FAILURES),
            ),
            linked(
                bars(
                    "Samples given up on, by stage",
                    "Samples that failed in each stage, after all attempts. Stages link to their events.",
                    [series(queues.with_zeros(failures), named(*BY_STAGE))],
                    none="No stage worked",
                    span=6,
                ),
                "Events of this stage",
                a.FORGE_STAGE_NAME,
            ),
            bars(
                "Samples given up on, by error",
                "Causes of failed executions: the class of the error, or the exception.",
                [series(errors, named(*BY_STAGE, a.ERROR_TYPE))],
                none="No errors",
                span=6,
            ),
            bars(
                "Failed batch calls, by error",
                "Batch calls that failed, after all attempts. Their samples were then processed alone, and may have "
                "succeeded.",
                [series(batches, named(*BY_STAGE, a.ERROR_TYPE))],
                none="No failed batches",
                span=6,
            ),
            bars(
                "Samples skipped, by reason",
                "Samples that stages skipped.",
                [series(skips, named(*BY_STAGE, a.FORGE_SKIP_REASON))],
                none="Nothing skipped",
                span=6,
            ),
        ],
    )


def _duration() -> Section:
    spread = q.sum_by(q.growth(q.select(m.FORGE_STAGE_DURATION, _HERE, part="bucket"), RATE), q.BUCKET)
    return Section(
        "Duration",
        [
            _quantile(
                "Duration, median", "From the first attempt to the verdict, including the delays between attempts.", 0.5
            ),
            _quantile(
                "Duration, p95",
                "5% of the samples took longer. Dashed: the stage's latency budget, if declared.",
                0.95,
                budget=True,
            ),
            _quantile("Duration, p99", "1% of the samples took longer.", 0.99),
            distribution(
                "How durations are spread",
                "Durations of all selected stages. The points are exemplars, which link to traces.",
                SECONDS,
                buckets(spread),
            ),
        ],
    )


def _quantile(title: str, description: str, at: float, *, budget: bool = False) -> timeseries.Panel:
    duration = q.quantile(at, m.FORGE_STAGE_DURATION, RATE, *BY_STAGE, where=_HERE)
    targets = [series(duration, named(*BY_STAGE), exemplars=True)]
    if not budget:
        return lines(title, description, SECONDS, targets)
    declared = q.max_by(q.select(m.FORGE_STAGE_LATENCY_BUDGET, _HERE), *BY_STAGE)
    return with_budget(lines(title, description, SECONDS, [*targets, series(declared, f"{named(*BY_STAGE)} budget")]))


def _runs(registry: Registry) -> Section:
    columns = [
        column(a.FORGE_PIPELINE_NAME, "Pipeline"),
        column(a.FORGE_STAGE_NAME, "Stage"),
        column(a.FORGE_SUMMARY_UTILIZATION, look=share(_BUSY)),
        *(
            column(key)
            for key in (
                a.FORGE_SUMMARY_EXECUTIONS,
                a.FORGE_SUMMARY_ERRORS,
                a.FORGE_SUMMARY_SKIPS,
                a.FORGE_SUMMARY_RETRIES,
                a.FORGE_SUMMARY_P50,
                a.FORGE_SUMMARY_P95,
                a.FORGE_SUMMARY_P99,
                a.FORGE_SUMMARY_MAX,
                a.FORGE_SUMMARY_BUSY,
            )
        ),
        column(a.FORGE_SUMMARY_QUEUE_WAIT_P95, "Queue p95"),
        column(a.FORGE_SUMMARY_BACKPRESSURE),
        *run_columns(),
    ]
    return Section(
        "Stages of the runs",
        [
            event_table(
                "Stages of each run",
                "One row for each stage of each run that ended in the time range, from its summary event. Percentiles "
                "and utilization are those of the whole run.",
                e.FORGE_STAGE_SUMMARY,
                where=_HERE,
                columns=columns,
                registry=registry,
            ),
            messages(
                "Samples given up on, one by one",
                "Failure events, each with the exception, the sample's id and its trace.",
                [records(events(e.FORGE_STAGE_EXCEPTION, _HERE))],
            ),
        ],
    )


def _batches() -> Section:
    batches = per_second(m.FORGE_STAGE_BATCH_SIZE, BY_STAGE, _HERE, part="count")
    return Section(
        "Batches",
        [
            lines(
                "Samples in a batch",
                "Mean size of a stage's batches. If it is far below the configured batch size, batches are sent after "
                "their maximum wait, because samples arrive too slowly.",
                COUNT,
                [series(mean(m.FORGE_STAGE_BATCH_SIZE, BY_STAGE, _HERE), named(*BY_STAGE))],
                span=12,
            ),
            lines(
                "Batches",
                "Batches per second, by stage.",
                "count:batches/s",
                [series(batches, named(*BY_STAGE))],
                span=12,
            ),
        ],
        collapsed=True,
    )
