"""Dashboard of measurements: durations, cache hits and failures."""

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
    """Return the dashboard."""
    return Page(
        name="measurements",
        title="Measurements",
        description="Durations, cache hits and failures of measurements.",
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
                "Requested values in the time range: computed, cached, or failed.",
                COUNT,
                [now(asked, named(a.FORGE_MEASUREMENT_OUTCOME))],
                span=9,
                outcomes=ForgeMeasurementOutcome,
            ).decimals(0),
            figure(
                "Cache hit ratio",
                "Ratio of cached values among all requested values in the time range.",
                SHARE,
                [now(queries.cache_hit_ratio(RANGE, _HERE), named(*BY_MEASUREMENT))],
                span=9,
            ),
            figure(
                "Time spent computing",
                "Total time of all computations in the time range, without cached values.",
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
                "Requested values per second: computed, cached, or failed.",
                "count:values/s",
                [series(asked, named(a.FORGE_MEASUREMENT_OUTCOME))],
                outcomes=ForgeMeasurementOutcome,
            ),
            lines(
                "Cache hit ratio over time",
                "Ratio of cached values among all requested values. A new version of a measurement, or changed data, "
                "starts at 0.",
                SHARE,
                [series(queries.cache_hit_ratio(RATE, _HERE), named(*BY_MEASUREMENT))],
                greatest=1,
            ),
            bars(
                "Values that could not be computed",
                "Failed computations, whose samples become dead letters.",
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
            _quantile("Duration, median", "Time to compute a value, without cached values.", 0.5),
            _quantile("Duration, p95", "5% of the values took longer.", 0.95),
            _quantile("Duration, p99", "1% of the values took longer.", 0.99),
            distribution(
                "How durations are spread",
                "Durations of all selected measurements. The points are exemplars, which link to traces.",
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
                "Mean size of a measurement's batches.",
                COUNT,
                [series(size, named(*BY_MEASUREMENT))],
            ),
            lines(
                "Batches",
                "Batches per second, by measurement.",
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
                "One row for each measurement of each run that ended in the time range, from its summary event.",
                e.FORGE_MEASUREMENT_SUMMARY,
                where=_HERE,
                columns=columns,
                registry=registry,
            ),
            messages(
                "Values that could not be computed, one by one",
                "Failure events, each with the exception, the sample's id and its trace.",
                [records(events(e.FORGE_MEASUREMENT_EXCEPTION, _HERE))],
            ),
        ],
    )
