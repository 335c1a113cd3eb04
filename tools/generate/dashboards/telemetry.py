"""Dashboard of the telemetry itself: losses, suppression and delays."""

from __future__ import annotations

from opentelemetry.semconv._incubating.attributes.otel_attributes import (
    OTEL_COMPONENT_NAME,
    OTEL_COMPONENT_TYPE,
    OTEL_SPAN_SAMPLING_RESULT,
)

from forge_otel.checker.model import Registry
from forge_otel.semconv import attributes as a
from forge_otel.semconv import events as e
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Metric

from .. import collector, queries, sdk
from .. import promql as q
from ..promql import Expression
from .colours import GREEN, RED, YELLOW, thresholds
from .layout import Page, Section
from .panels import BYTES, COUNT, SECONDS, SHARE, Panel, Target, areas, bars, figure, lines
from .tables import column, event_table, run_columns
from .targets import RANGE, STEP, happened, mean, named, now, per_second, series
from .variables import PIPELINE, SERVICE, chosen

_HERE = chosen(PIPELINE)
_SERVICE = chosen(SERVICE)
_FAILED = {**_SERVICE, a.ERROR_TYPE: q.unequal("")}
_SIGNALS = ("spans", "points of metrics", "log records")
_SUPPRESSED = (a.FORGE_TELEMETRY_SIGNAL, a.FORGE_TELEMETRY_REASON)


def page(registry: Registry) -> Page:
    """Return the dashboard."""
    return Page(
        name="telemetry",
        title="Telemetry health",
        description="Telemetry that was lost, suppressed or delayed by Forge's instrumentation, the OpenTelemetry SDK "
        "and the Collector.",
        variables=[PIPELINE, SERVICE],
        sections=[_glance(), _ours(registry), _sdk(), _collector()],
    )


def _lost(metric: Metric) -> Expression:
    """Return the failed records counted by the SDK in the time range; no value if the SDK's metrics are disabled."""
    return queries.grown(metric, RANGE, (), _FAILED) | 0 * queries.grown(metric, RANGE, (), _SERVICE)


def _glance() -> Section:
    trouble = thresholds(GREEN, (1, RED))
    needs = "Requires OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED=true."
    return Section(
        "At a glance",
        [
            figure(
                "Faults",
                "Suppressed faults of Forge's telemetry in the time range. They do not affect the pipeline, but some "
                "telemetry is missing.",
                COUNT,
                [now(happened(m.FORGE_TELEMETRY_FAULTS, _HERE))],
                limits=trouble,
            ).decimals(0),
            figure(
                "Suppressed",
                "Spans and events in the time range that were not recorded, because of sampling or budgets. Metrics "
                "include them.",
                COUNT,
                [now(happened(m.FORGE_TELEMETRY_SUPPRESSED, _HERE))],
            ).decimals(0),
            figure(
                "Spans dropped",
                f"Spans that the SDK dropped in the time range, usually because its queue was full. {needs}",
                COUNT,
                [now(_lost(sdk.SPANS_PROCESSED))],
                limits=trouble,
            ).decimals(0),
            figure(
                "Log records dropped",
                f"Log records that the SDK dropped in the time range. {needs}",
                COUNT,
                [now(_lost(sdk.LOGS_PROCESSED))],
                limits=trouble,
            ).decimals(0),
            figure(
                "Spans not exported",
                f"Spans that an exporter could not deliver in the time range. {needs}",
                COUNT,
                [now(_lost(sdk.SPANS_EXPORTED))],
                limits=trouble,
            ).decimals(0),
            figure(
                "Points not exported",
                f"Points of metrics that an exporter could not deliver in the time range. "
                f"The next export includes their sums. {needs}",
                COUNT,
                [now(_lost(sdk.POINTS_EXPORTED))],
                limits=trouble,
            ).decimals(0),
        ],
    )


def _ours(registry: Registry) -> Section:
    faults = queries.grown(m.FORGE_TELEMETRY_FAULTS, STEP, (a.ERROR_TYPE,), _HERE)
    suppressed = queries.grown(m.FORGE_TELEMETRY_SUPPRESSED, STEP, _SUPPRESSED, _HERE)
    columns = [
        column(a.FORGE_PIPELINE_NAME, "Pipeline"),
        column(a.FORGE_SUMMARY_SPANS),
        column(a.FORGE_SUMMARY_SUPPRESSED),
        column(a.FORGE_SUMMARY_FAULTS),
        column(a.FORGE_SUMMARY_ADMITTED),
        column(a.FORGE_SUMMARY_DURATION),
        *run_columns(),
    ]
    return Section(
        "Forge",
        [
            bars(
                "Faults, by error",
                "Faults of Forge's telemetry, caused by a defect of it or of a hook.",
                [series(faults, named(a.ERROR_TYPE))],
                none="No faults",
                span=12,
            ),
            bars(
                "Suppressed spans and events",
                "Spans and events that were not recorded, by reason: sampling or the run's budget.",
                [series(suppressed, named(*_SUPPRESSED))],
                none="Everything recorded",
                span=12,
            ),
            event_table(
                "Telemetry of each run",
                "One row for each run that ended in the time range: recorded spans, suppressed spans and events, "
                "faults.",
                e.FORGE_PIPELINE_SUMMARY,
                where=_HERE,
                columns=columns,
                registry=registry,
            ),
        ],
    )


def _sdk() -> Section:
    started = per_second(sdk.SPANS_STARTED, (OTEL_SPAN_SAMPLING_RESULT,), _SERVICE)
    size, capacity = (
        q.sum_by(q.select(metric, _SERVICE), q.JOB, OTEL_COMPONENT_NAME)
        for metric in (sdk.SPAN_QUEUE_SIZE, sdk.SPAN_QUEUE_CAPACITY)
    )
    return Section(
        "OpenTelemetry SDK",
        [
            areas(
                "Spans started",
                "Started spans per second, by the sampler's decision.",
                "count:spans/s",
                [series(started, named(OTEL_SPAN_SAMPLING_RESULT))],
            ),
            lines(
                "Span queue filled",
                "Share of the span queue in use. A full queue drops further spans.",
                SHARE,
                [series(size / (capacity > 0), named(q.JOB, OTEL_COMPONENT_NAME))],
                limits=thresholds(GREEN, (0.5, YELLOW), (0.8, RED)),
                greatest=1,
            ),
            bars(
                "Dropped before export",
                "Spans and log records that a processor dropped, by error.",
                [_failures(sdk.SPANS_PROCESSED, "spans"), _failures(sdk.LOGS_PROCESSED, "log records")],
                none="Nothing dropped",
            ),
            lines(
                "Exported",
                "Records handled by exporters per second.",
                "count:records/s",
                [
                    series(per_second(metric, (), _SERVICE), name)
                    for metric, name in (
                        (sdk.SPANS_EXPORTED, "spans"),
                        (sdk.LOGS_EXPORTED, "log records"),
                        (sdk.POINTS_EXPORTED, "points of metrics"),
                    )
                ],
                span=6,
            ),
            bars(
                "Not exported",
                "Records that an exporter could not deliver, by error.",
                [
                    _failures(sdk.SPANS_EXPORTED, "spans"),
                    _failures(sdk.LOGS_EXPORTED, "log records"),
                    _failures(sdk.POINTS_EXPORTED, "points of metrics"),
                ],
                none="Everything exported",
                span=6,
            ),
            _sdk_duration("Duration of exports", "Mean response time of the receiver.", sdk.EXPORT_DURATION),
            _sdk_duration(
                "Duration of collections",
                "Mean time to collect the metrics of a process, once per interval.",
                sdk.COLLECTION_DURATION,
            ),
        ],
    )


def _failures(metric: Metric, what: str) -> Target:
    grown = queries.grown(metric, STEP, (a.ERROR_TYPE,), _FAILED)
    return series(grown, f"{what}: {named(a.ERROR_TYPE)}")


def _sdk_duration(title: str, description: str, histogram: Metric) -> Panel:
    # Not a quantile: the SDK's first bucket goes up to five seconds.
    by = (q.JOB, OTEL_COMPONENT_TYPE)
    return lines(title, description, SECONDS, [series(mean(histogram, by, _SERVICE), named(*by))], span=6)


def _collector() -> Section:
    size, capacity = (
        q.sum_by(q.select(metric), q.INSTANCE, collector.EXPORTER)
        for metric in (collector.QUEUE_SIZE, collector.QUEUE_CAPACITY)
    )
    return Section(
        "Collector",
        [
            lines(
                "Received",
                "Records accepted by the Collector's receivers per second.",
                "count:records/s",
                [series(per_second(metric), _SIGNALS[at]) for at, metric in enumerate(collector.ACCEPTED)],
                span=6,
            ),
            bars(
                "Refused and lost",
                "Records refused by a receiver or a full queue, or not delivered by an exporter.",
                [
                    series(queries.grown(metric, STEP, ()), f"{_SIGNALS[at]} {what}")
                    for what, metrics in (
                        ("refused", collector.REFUSED),
                        ("not queued", collector.ENQUEUE_FAILED),
                        ("not sent", collector.SEND_FAILED),
                    )
                    for at, metric in enumerate(metrics)
                ],
                none="Nothing refused or lost",
                span=6,
            ),
            lines(
                "Export queue filled",
                "Share of each exporter's queue in use. It grows while a backend is unavailable.",
                SHARE,
                [series(size / (capacity > 0), named(q.INSTANCE, collector.EXPORTER))],
                limits=thresholds(GREEN, (0.5, YELLOW), (0.8, RED)),
                span=6,
                greatest=1,
            ),
            lines(
                "Memory",
                "Resident memory of each Collector. Above the limit of its memory_limiter it refuses new records.",
                BYTES,
                [series(q.max_by(q.select(collector.MEMORY), q.INSTANCE), named(q.INSTANCE))],
                span=6,
            ),
        ],
        collapsed=True,
    )
