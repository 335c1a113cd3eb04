"""Dashboard of costs: amount, origin and waste.

Costs are booked when samples settle, and a series begins with its first booking, so all queries use `growth`.
"""

from __future__ import annotations

from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import GenAiTokenTypeValues

from forge_otel.checker.model import Registry
from forge_otel.semconv import attributes as a
from forge_otel.semconv import events as e
from forge_otel.semconv import metrics as m
from forge_otel.semconv.attributes import ForgeCostUse, ForgeRunOutcome, ForgeSampleOutcome
from forge_otel.semconv.definitions import Metric

from .. import promql as q
from .. import queries
from ..promql import Expression, Where
from ..queries import MODEL as BY_MODEL
from ..queries import PIPELINE as BY_PIPELINE
from ..queries import SPENDER as BY_SPENDER
from .colours import GREEN, ORANGE, WASTE, thresholds
from .layout import Page, Section
from .panels import COUNT, DOLLARS, SHARE, Target, bars, figure, lines, ranking, with_budget
from .tables import Column, column, event_table, metric_table, outcome, remarkable, run_columns
from .targets import RANGE, STEP, cells, happened, named, now, series
from .variables import MODEL, PIPELINE, chosen

_PIPELINES = chosen(PIPELINE)
_HERE = chosen(PIPELINE, MODEL)
_HOUR = "1h"
_OF_LATE = "15m"
"""The window of the forecast: long enough for slow samples, short enough to follow changes."""


def page(registry: Registry) -> Page:
    """Return the dashboard."""
    return Page(
        name="cost",
        title="Cost",
        description="Costs of API calls, by stage and model, and the wasted share.",
        variables=[PIPELINE, MODEL],
        sections=[_glance(), _spending(), _where(), _usage(), _runs(registry)],
    )


def _per_sample(window: str) -> Expression:
    """Return the costs of a pipeline per ready sample; no value without ready samples."""
    ready = {**_PIPELINES, a.FORGE_SAMPLE_OUTCOME: ForgeSampleOutcome.READY}
    samples = queries.grown(m.FORGE_SAMPLE_SETTLED, window, BY_PIPELINE, ready)
    return queries.grown(m.FORGE_COST_AMOUNT, window, BY_PIPELINE, _HERE) / (samples > 0)


def _forecast() -> Expression:
    """Return the estimated costs of the remaining samples, based on the recently admitted ones. Includes failures,
    retries and derived samples, because all of them originate from a sample of the source.
    """
    remaining = q.sum_by(q.select(m.FORGE_SOURCE_REMAINING, _PIPELINES), *BY_PIPELINE)
    spent = queries.grown(m.FORGE_COST_AMOUNT, _OF_LATE, BY_PIPELINE, _HERE)
    entered = queries.grown(m.FORGE_SAMPLE_ADMITTED, _OF_LATE, BY_PIPELINE, _PIPELINES)
    return remaining * spent / (entered > 0)


def _glance() -> Section:
    return Section(
        "At a glance",
        [
            figure(
                "Spent",
                "Costs in the time range, for all uses. Excludes calls without a price.",
                DOLLARS,
                [now(happened(m.FORGE_COST_AMOUNT, _HERE))],
            ),
            figure(
                "Spent in the last hour",
                "Costs in the hour before the end of the time range.",
                DOLLARS,
                [now(queries.grown(m.FORGE_COST_AMOUNT, _HOUR, (), _HERE))],
            ).no_value("Nothing"),
            figure(
                "Cost of a ready sample",
                "Costs in the time range, divided by the number of ready samples.",
                DOLLARS,
                [now(_per_sample(RANGE), named(*BY_PIPELINE))],
            ),
            figure(
                "Wasted share",
                "Share of the costs in the time range for samples that did not become ready, for retried attempts, and "
                "for samples that were ready before.",
                SHARE,
                [now(queries.wasted_share(RANGE, _HERE), named(*BY_PIPELINE))],
                limits=thresholds(GREEN, *WASTE),
            ),
            figure(
                "Saved by the cache",
                "Costs that cached values in the time range would have caused, for all models. Not part of the costs.",
                DOLLARS,
                [now(happened(m.FORGE_COST_SAVED, _PIPELINES))],
            ),
            figure(
                "Calls without a price",
                "API calls in the time range without a known price, which are not included in the costs.",
                COUNT,
                [now(happened(m.FORGE_COST_UNPRICED, _HERE))],
                limits=thresholds(GREEN, (1, ORANGE)),
            ).decimals(0),
        ],
    )


def _spending() -> Section:
    rate = queries.grown(m.FORGE_COST_AMOUNT, _HOUR, BY_PIPELINE, _HERE)
    budget = q.max_by(q.select(m.FORGE_COST_BUDGET, _PIPELINES), *BY_PIPELINE)
    saved = queries.grown(m.FORGE_COST_SAVED, STEP, queries.MEASUREMENT, _PIPELINES)
    return Section(
        "Spending over time",
        [
            with_budget(
                lines(
                    "Spend rate",
                    "Costs in the preceding hour, in US dollars. Dashed: the pipeline's hourly_budget for all models "
                    "together, if declared.",
                    DOLLARS,
                    [series(rate, named(*BY_PIPELINE)), series(budget, f"{named(*BY_PIPELINE)} budget")],
                )
            ),
            lines(
                "Cost of a ready sample over time",
                "Costs in the preceding hour, divided by the number of samples that became ready.",
                DOLLARS,
                [series(_per_sample(_HOUR), named(*BY_PIPELINE))],
            ),
            lines(
                "Wasted share over time",
                "Share of the costs in the preceding hour that was not useful. The red line is the alert's threshold.",
                SHARE,
                [series(queries.wasted_share(_HOUR, _HERE), named(*BY_PIPELINE))],
                limits=thresholds(GREEN, *WASTE),
                greatest=1,
            ),
            lines(
                "Forecast for the rest of the run",
                "Estimated costs of the source's remaining samples, from the costs per sample admitted in the last 15 "
                "minutes, including failures and retries. Only for sources with a known number of samples.",
                DOLLARS,
                [series(_forecast(), named(*BY_PIPELINE))],
            ).no_value("No source of known size"),
            bars(
                "Spent, by use",
                "Costs by use. Only `useful` costs were for samples that became ready.",
                [_each_step(m.FORGE_COST_AMOUNT, a.FORGE_COST_USE)],
                none="Nothing spent",
                unit=DOLLARS,
                outcomes=ForgeCostUse,
            ),
            bars(
                "Saved, by measurement",
                "Costs that cached values would have caused, for all models.",
                [series(saved, named(*queries.MEASUREMENT))],
                none="Nothing saved",
                unit=DOLLARS,
            ),
        ],
    )


def _where() -> Section:
    def columns(by: tuple[str, ...]) -> list[Column]:
        return [
            _column("Spent", m.FORGE_COST_AMOUNT, by, unit=DOLLARS),
            _column("Wasted", m.FORGE_COST_AMOUNT, by, queries.WASTED, unit=DOLLARS),
            _column("Calls", m.FORGE_COST_CALLS, by),
            _column("Tokens sent", m.FORGE_COST_TOKENS, by, {a.GEN_AI_TOKEN_TYPE: GenAiTokenTypeValues.INPUT.value}),
            _column(
                "Tokens received", m.FORGE_COST_TOKENS, by, {a.GEN_AI_TOKEN_TYPE: GenAiTokenTypeValues.OUTPUT.value}
            ),
            _column("Unpriced calls", m.FORGE_COST_UNPRICED, by),
        ]

    return Section(
        "Costs by origin",
        [
            metric_table(
                "Cost by stage and measurement",
                "Costs, wasted costs and usage of each stage and measurement in the time range. Each call belongs to "
                "one of them.",
                {
                    a.FORGE_PIPELINE_NAME: "Pipeline",
                    a.FORGE_STAGE_NAME: "Stage",
                    a.FORGE_MEASUREMENT_KEY: "Measurement",
                },
                columns(BY_SPENDER),
            ),
            metric_table(
                "Cost by model",
                "Costs and usage of each model in the time range; of the provider for services without models.",
                {a.GEN_AI_PROVIDER_NAME: "Provider", a.GEN_AI_REQUEST_MODEL: "Model"},
                columns(BY_MODEL),
                span=16,
            ),
            ranking(
                "Cost by use",
                "Costs in the time range by use.",
                DOLLARS,
                cells(queries.grown(m.FORGE_COST_AMOUNT, RANGE, (a.FORGE_COST_USE,), _HERE)),
                span=8,
            ).height(7),
        ],
    )


def _column(title: str, metric: Metric, by: tuple[str, ...], where: Where = None, unit: str = "") -> Column:
    expression = queries.grown(metric, RANGE, by, {**_HERE, **(where or {})})
    look = remarkable(ORANGE) if metric is m.FORGE_COST_UNPRICED else ()
    return Column(title, expression=expression, look=look, **({"unit": unit} if unit else {}))


def _each_step(metric: Metric, *by: str) -> Target:
    return series(queries.grown(metric, STEP, by, _HERE), named(*by))


def _usage() -> Section:
    return Section(
        "Usage",
        [
            bars(
                "Tokens",
                "Tokens sent and received.",
                [_each_step(m.FORGE_COST_TOKENS, a.GEN_AI_TOKEN_TYPE)],
                none="No tokens",
            ),
            bars(
                "Calls",
                "API calls, by provider and model.",
                [_each_step(m.FORGE_COST_CALLS, *BY_MODEL)],
                none="No calls",
            ),
            bars(
                "Calls without a price, by model",
                "API calls without a known price, which are not included in the costs: add them to your price table.",
                [_each_step(m.FORGE_COST_UNPRICED, *BY_MODEL)],
                none="All calls have a price",
            ),
        ],
    )


def _runs(registry: Registry) -> Section:
    columns = [
        column(a.FORGE_PIPELINE_NAME, "Pipeline"),
        column(a.FORGE_RUN_OUTCOME, "Outcome", outcome(ForgeRunOutcome)),
        column(a.FORGE_COST_AMOUNT, "Cost"),
        column(a.FORGE_SUMMARY_ADMITTED),
        column(a.FORGE_SUMMARY_READY),
        column(a.FORGE_SUMMARY_SKIPPED),
        column(a.FORGE_SUMMARY_DLQ, "Dead letters"),
        column(a.FORGE_SUMMARY_FAILED),
        column(a.FORGE_SUMMARY_DURATION),
        *run_columns(),
    ]
    return Section(
        "Runs",
        [
            event_table(
                "Cost of each run",
                "One row for each run that ended in the time range, from its summary event. A run that reached its "
                "max_cost is cancelled.",
                e.FORGE_PIPELINE_SUMMARY,
                where=_PIPELINES,
                columns=columns,
                registry=registry,
            )
        ],
    )
