"""Measurements: how long they take, and how many need not be computed again."""

from __future__ import annotations

from forge_otel.checker.model import Registry
from forge_otel.semconv import attributes as a
from forge_otel.semconv import events as e
from forge_otel.semconv import metrics as m
from forge_otel.semconv.attributes import ForgeMeasurementOutcome
from forge_otel.semconv.definitions import Metric

from .. import promql as q
from .. import queries
from ..queries import MEASUREMENT as BY_MEASUREMENT
from .layout import Page, Section
from .panels import COUNT, SECONDS, SHARE, Panel, areas, bars, distribution, figure, lines, messages
from .tables import column, event_table, run_columns
from .targets import RANGE, RATE, STEP, buckets, events, mean, named, now, per_second, records, series
from .variables import MEASUREMENT, PIPELINE, chosen

_HERE = chosen(PIPELINE, MEASUREMENT)


def page(registry: Registry) -> Page:
    """The dashboard."""
    return Page(
        name="measurements",
        title="Measurements",
        description="How long measurements take, and how many need not be computed again.",
        variables=[PIPELINE, MEASUREMENT],
        sections=[_glance(), _cache(), _duration(), _batches(), _runs(registry)],
    )


def _glance() -> Section:
    asked = queries.grown(m.FORGE_MEASUREMENT_COMPUTATIONS, RANGE, (a.FORGE_MEASUREMENT_OUTCOME,), _HERE)
    spent = q.sum_by(q.growth(q.select(m.FORGE_MEASUREMENT_DURATION, _HERE, part="sum"), RANGE))
    return Section(
        "At a glance",
        [
            figure(
                "Values asked for",
                "Values of the time range: computed, taken from the cache, or failed.",
                COUNT,
                [now(asked, named(a.FORGE_MEASUREMENT_OUTCOME))],
                span=9,
                outcomes=ForgeMeasurementOutcome,
            ).decimals(0),
            figure(
                "Cache hit ratio",
                "Values of the time range that had been computed before, among all that were looked up.",
                SHARE,
                [now(queries.cache_hit_ratio(RANGE, _HERE), named(*BY_MEASUREMENT))],
                span=9,
            ),
            figure(
                "Time spent computing",
                "All computations of the time range together, cached values left out.",
                SECONDS,
                [now(spent)],
                span=6,
            ),
        ],
    )


def _cache() -> Section:
    asked = per_second(m.FORGE_MEASUREMENT_COMPUTATIONS, (a.FORGE_MEASUREMENT_OUTCOME,), _HERE)
    failed = queries.grown(
        m.FORGE_MEASUREMENT_COMPUTATIONS,
        STEP,
        BY_MEASUREMENT,
        {**_HERE, a.FORGE_MEASUREMENT_OUTCOME: ForgeMeasurementOutcome.ERROR},
    )
    return Section(
        "Values and the cache",
        [
            areas(
                "Values by outcome",
                "Values asked for, a second: computed, taken from the cache, or failed.",
                "count:values/s",
                [series(asked, named(a.FORGE_MEASUREMENT_OUTCOME))],
                outcomes=ForgeMeasurementOutcome,
            ),
            lines(
                "Cache hit ratio over time",
                "Values that had been computed before, among all that were looked up. A new version of a measurement, "
                "or changed data, begins at 0 again.",
                SHARE,
                [series(queries.cache_hit_ratio(RATE, _HERE), named(*BY_MEASUREMENT))],
                greatest=1,
            ),
            bars(
                "Values that could not be computed",
                "Each sends its sample to the dead letters.",
                [series(failed, named(*BY_MEASUREMENT))],
                none="Nothing measured",
            ),
        ],
    )


def _duration() -> Section:
    spread = q.sum_by(q.growth(q.select(m.FORGE_MEASUREMENT_DURATION, _HERE, part="bucket"), RATE), q.BUCKET)
    return Section(
        "Duration",
        [
            _quantile("Duration, median", "Time to compute one value; cached ones are left out.", 0.5),
            _quantile("Duration, p95", "One in twenty values took longer.", 0.95),
            _quantile("Duration, p99", "One in a hundred values took longer.", 0.99),
            distribution(
                "How durations are spread",
                "All measurements that were chosen, together. The points are exemplars: they lead to traces.",
                SECONDS,
                buckets(spread),
            ),
        ],
    )


def _batches() -> Section:
    size = mean(m.FORGE_MEASUREMENT_BATCH_SIZE, BY_MEASUREMENT, _HERE)
    batches = per_second(m.FORGE_MEASUREMENT_BATCH_SIZE, BY_MEASUREMENT, _HERE, part="count")
    return Section(
        "Batches",
        [
            lines(
                "Samples in a batch",
                "Mean over the batches that a measurement was given.",
                COUNT,
                [series(size, named(*BY_MEASUREMENT))],
            ),
            lines(
                "Batches",
                "Batches that measurements were given, a second.",
                "count:batches/s",
                [series(batches, named(*BY_MEASUREMENT))],
            ),
            _quantile(
                "Duration of a batch, p95",
                "Time to compute the values of a whole batch.",
                0.95,
                m.FORGE_MEASUREMENT_BATCH_DURATION,
            ),
        ],
    )


def _quantile(title: str, description: str, at: float, histogram: Metric = m.FORGE_MEASUREMENT_DURATION) -> Panel:
    duration = q.quantile(at, histogram, RATE, *BY_MEASUREMENT, where=_HERE)
    return lines(title, description, SECONDS, [series(duration, named(*BY_MEASUREMENT), exemplars=True)])


def _runs(registry: Registry) -> Section:
    columns = [
        column(a.FORGE_PIPELINE_NAME, "Pipeline"),
        column(a.FORGE_MEASUREMENT_KEY, "Measurement"),
        column(a.FORGE_MEASUREMENT_VERSION),
        *(
            column(key)
            for key in (
                a.FORGE_SUMMARY_COMPUTED,
                a.FORGE_SUMMARY_CACHED,
                a.FORGE_SUMMARY_ERRORS,
                a.FORGE_SUMMARY_P50,
                a.FORGE_SUMMARY_P95,
                a.FORGE_SUMMARY_P99,
                a.FORGE_SUMMARY_MAX,
            )
        ),
        *run_columns(),
    ]
    return Section(
        "Measurements of the runs",
        [
            event_table(
                "Measurements of each run",
                "One row for each measurement of each run that ended in the time range, as its summary says.",
                e.FORGE_MEASUREMENT_SUMMARY,
                where=_HERE,
                columns=columns,
                registry=registry,
            ),
            messages(
                "Values that could not be computed, one by one",
                "The events of failures, each with its exception, the sample's id and its trace.",
                [records(events(e.FORGE_MEASUREMENT_EXCEPTION, _HERE))],
            ),
        ],
    )
