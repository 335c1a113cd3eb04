"""Dashboard of runs: throughput, outcomes and the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import table

from forge_otel.checker.model import Registry
from forge_otel.semconv import attributes as a
from forge_otel.semconv import events as e
from forge_otel.semconv import metrics as m
from forge_otel.semconv.attributes import ForgeRunOutcome, ForgeSampleOutcome

from .. import promql as q
from .. import queries
from ..queries import PIPELINE as BY_PIPELINE
from . import ledger
from .colours import GREEN, ORANGE, RED, SUCCESSES, YELLOW, thresholds
from .layout import Page, Section, uid
from .panels import AGO, COUNT, SECONDS, SHARE, areas, bars, figure, lines
from .sources import VICTORIA_LOGS
from .tables import (
    Column,
    Property,
    column,
    event_table,
    link,
    metric_table,
    outcome,
    remarkable,
    run_columns,
    share,
)
from .targets import RANGE, RATE, counted, events, greatest, named, now, per_second, series
from .variables import PIPELINE, chosen

_HERE = chosen(PIPELINE)
_LONG = "14d"
"""The window in which a pipeline's last run is searched; Prometheus keeps 15 days by default."""


def page(registry: Registry) -> Page:
    """Return the dashboard."""
    return Page(
        name="runs",
        title="Runs",
        description="Throughput, outcomes and ledger of the pipelines' runs.",
        variables=[PIPELINE],
        sections=[_glance(), _pipelines(), _throughput(), _runs(registry), ledger.section(), ledger.source()],
    )


def _glance() -> Section:
    ended = queries.grown(m.FORGE_PIPELINE_COMPLETED, RANGE, (a.FORGE_RUN_OUTCOME,), _HERE)
    settled = queries.grown(m.FORGE_SAMPLE_SETTLED, RANGE, (), _HERE)
    return Section(
        "At a glance",
        [
            figure(
                "Runs active",
                "Active runs in all processes.",
                COUNT,
                [now(q.sum_by(q.select(m.FORGE_PIPELINE_ACTIVE, _HERE)))],
                span=3,
            ).no_value("0"),
            figure(
                "Runs ended",
                "Runs that ended in the time range, by outcome. Runs whose process died are not included.",
                COUNT,
                [now(ended, named(a.FORGE_RUN_OUTCOME))],
                span=6,
                outcomes=ForgeRunOutcome,
            ).decimals(0),
            figure(
                "Success ratio",
                "Ratio of ready samples among the ready and failed ones in the time range. Skipped, split and "
                "unchanged samples have neither succeeded nor failed.",
                SHARE,
                [now(queries.success_ratio(RANGE, _HERE), named(a.FORGE_PIPELINE_NAME))],
                span=6,
                limits=thresholds(RED, *SUCCESSES),
            ),
            figure(
                "Samples settled",
                "Samples that settled in the time range, with any outcome.",
                COUNT,
                [now(settled)],
                span=3,
            ),
            figure(
                "Samples in flight",
                "Samples that entered and have not settled yet. Constant during a healthy run, and 0 after it.",
                COUNT,
                [now(q.sum_by(q.select(m.FORGE_SAMPLE_ACTIVE, _HERE)))],
                span=3,
            ).no_value("0"),
            figure(
                "Imbalance",
                "Admitted + derived − settled − active. A value other than 0 after a run is a defect: samples were "
                "lost or counted twice.",
                COUNT,
                [now(q.sum_by(ledger.imbalance()))],
                span=3,
                limits=thresholds(RED, (0, GREEN), (1, RED)),
            ),
        ],
    )


def _pipelines() -> Section:
    succeeded = q.max_by(q.last(q.select(m.FORGE_PIPELINE_SUCCESS_TIMESTAMP, _HERE), _LONG), *BY_PIPELINE)
    interval = q.newest(m.FORGE_PIPELINE_EXPECTED_INTERVAL, _LONG, where=_HERE)
    progress = q.max_by(q.last(q.select(m.FORGE_PIPELINE_PROGRESS_TIMESTAMP, _HERE), _LONG), *BY_PIPELINE)
    ended = q.max_by(q.last(q.select(m.FORGE_PIPELINE_END_TIMESTAMP, _HERE), _LONG), *BY_PIPELINE)
    counts = [
        _last_count(ForgeSampleOutcome.READY),
        _last_count(ForgeSampleOutcome.SKIPPED),
        _last_count(ForgeSampleOutcome.UNCHANGED),
        _last_count(ForgeSampleOutcome.SPLIT),
        _last_count(ForgeSampleOutcome.DLQ, "Dead letters", remarkable(ORANGE)),
        _last_count(ForgeSampleOutcome.FAILED, look=remarkable(RED)),
    ]
    good = share(thresholds(RED, *SUCCESSES))
    due = share(thresholds(GREEN, (0.8, YELLOW), (1, RED)))
    columns = [
        Column("Last sample", expression=progress * 1000, unit=AGO),
        Column("Last end", expression=ended * 1000, unit=AGO),
        Column("Last success", expression=succeeded * 1000, unit=AGO),
        Column("Of its interval", expression=q.age(succeeded) / interval, unit=SHARE, look=due),
        Column(
            "Success ratio",
            expression=q.newest(m.FORGE_PIPELINE_LAST_RUN_SUCCESS_RATIO, _LONG, where=_HERE),
            unit=SHARE,
            look=good,
        ),
        *counts,
    ]
    return Section(
        "Last run",
        [
            metric_table(
                "Pipelines and their last runs",
                "Times of each pipeline's last settled sample, last end and last success, and the outcomes of the "
                "last run's samples. Of its interval: the time since the last success, divided by the pipeline's "
                "expected_interval; above 100% it is overdue. Covers the last two weeks, independent of the time "
                "range.",
                {a.FORGE_PIPELINE_NAME: "Pipeline"},
                columns,
            )
        ],
    )


def _last_count(settled: ForgeSampleOutcome, title: str = "", look: Sequence[Property] = ()) -> Column:
    """Return the column of the last run's samples with an outcome."""
    where = {**_HERE, a.FORGE_SAMPLE_OUTCOME: settled}
    counted = q.max_by(q.newest(m.FORGE_PIPELINE_LAST_RUN_SIZE, _LONG, where=where), *BY_PIPELINE)
    return Column(title or settled.value.capitalize(), expression=counted, look=look)


def _throughput() -> Section:
    settled = per_second(m.FORGE_SAMPLE_SETTLED, (a.FORGE_SAMPLE_OUTCOME,), _HERE)
    return Section(
        "Throughput",
        [
            areas(
                "Throughput by outcome",
                "Settled samples per second. Each sample counts once, regardless of its number of stages.",
                ledger.SAMPLES,
                [series(settled, named(a.FORGE_SAMPLE_OUTCOME))],
                outcomes=ForgeSampleOutcome,
            ),
            lines(
                "Throughput by pipeline",
                "Settled samples per second, with any outcome.",
                ledger.SAMPLES,
                [series(per_second(m.FORGE_SAMPLE_SETTLED, BY_PIPELINE, _HERE), named(*BY_PIPELINE))],
            ),
            lines(
                "Success ratio over time",
                "Ratio of ready samples among the ready and failed ones. No value while no sample settles.",
                SHARE,
                [series(queries.success_ratio(RATE, _HERE), named(*BY_PIPELINE))],
                limits=thresholds(RED, *SUCCESSES),
                greatest=1,
            ),
        ],
    )


def _runs(registry: Registry) -> Section:
    stopped = events(e.FORGE_PIPELINE_STOP, _HERE)
    summaries = events(e.FORGE_PIPELINE_SUMMARY, _HERE)
    durations = [
        series(
            q.quantile(at, m.FORGE_PIPELINE_DURATION, RATE, *BY_PIPELINE, where=_HERE),
            f"{named(*BY_PIPELINE)} {name}",
            exemplars=True,
        )
        for at, name in ((0.5, "median"), (0.95, "p95"))
    ]
    return Section(
        "Runs",
        [
            bars(
                "Runs that ended",
                "Ended runs by outcome, from their events, so that very short runs are included.",
                [counted(stopped, a.FORGE_RUN_OUTCOME)],
                none="No run ended",
                outcomes=ForgeRunOutcome,
                source=VICTORIA_LOGS,
            ),
            lines(
                "Duration of each run",
                "Duration of the runs that ended, the maximum of each pipeline, from their events.",
                SECONDS,
                [greatest(summaries, a.FORGE_SUMMARY_DURATION, a.FORGE_PIPELINE_NAME)],
                source=VICTORIA_LOGS,
            ),
            lines(
                "Duration of runs",
                "Duration of runs, estimated from a histogram's buckets. Exemplars link to the traces of runs.",
                SECONDS,
                durations,
            ),
            _table_of_runs(registry),
        ],
    )


def _table_of_runs(registry: Registry) -> table.Panel:
    stages = f"/d/{uid('stages')}?var-pipeline=${{__value.raw}}&from=${{__from}}&to=${{__to}}"
    columns = [
        column(a.FORGE_PIPELINE_NAME, "Pipeline", [link("Stages of this pipeline", stages)]),
        column(a.FORGE_RUN_OUTCOME, "Outcome", outcome(ForgeRunOutcome)),
        column(a.ERROR_TYPE, "Error"),
        column(a.FORGE_SUMMARY_DURATION),
        *(
            column(key)
            for key in (
                a.FORGE_SUMMARY_ADMITTED,
                a.FORGE_SUMMARY_DERIVED,
                a.FORGE_SUMMARY_READY,
                a.FORGE_SUMMARY_SKIPPED,
                a.FORGE_SUMMARY_UNCHANGED,
                a.FORGE_SUMMARY_SPLIT,
            )
        ),
        column(a.FORGE_SUMMARY_DLQ, "Dead letters"),
        column(a.FORGE_SUMMARY_FAILED),
        column(a.FORGE_SUMMARY_IMBALANCE),
        column(a.FORGE_COST_AMOUNT, "Cost"),
        column(a.FORGE_RUNNER_NAME, "Runner"),
        column(a.VCS_REF_HEAD_REVISION, "Revision"),
        *run_columns(),
    ]
    return event_table(
        "Runs",
        "One row for each run that ended in the time range, from its summary event. Pipelines link to their stages, "
        "runs to their events, traces to their spans.",
        e.FORGE_PIPELINE_SUMMARY,
        where=_HERE,
        columns=columns,
        registry=registry,
    )
