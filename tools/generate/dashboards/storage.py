"""Dashboard of the storage and the dead letters."""

from __future__ import annotations

from forge_otel.checker.model import Registry
from forge_otel.semconv import attributes as a
from forge_otel.semconv import events as e
from forge_otel.semconv import metrics as m
from forge_otel.semconv.attributes import ForgeStorageWriteResult

from .. import promql as q
from .. import queries
from ..promql import Expression
from ..queries import PIPELINE as BY_PIPELINE
from .colours import GREEN, LETTERS, ORANGE, thresholds
from .layout import Page, Section
from .panels import AGO, COUNT, SECONDS, SHARE, areas, bars, figure, lines, messages
from .tables import Column, metric_table
from .targets import RANGE, RATE, STEP, events, happened, named, now, per_second, records, series
from .variables import PIPELINE, STAGE, chosen

_HERE = chosen(PIPELINE)
_AT_STAGE = chosen(PIPELINE, STAGE)
_PLACE = (a.FORGE_PIPELINE_NAME, a.FORGE_DLQ_SOURCE, a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY)
_OPERATION = (a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_OPERATION)


def page(_: Registry) -> Page:
    """Return the dashboard."""
    return Page(
        name="storage",
        title="Storage and dead letters",
        description="Failed samples kept for replay, and the operations of the storage.",
        variables=[PIPELINE, STAGE],
        sections=[_glance(), _dead_letters(), _storage(), _contents()],
    )


def _depth(*by: str) -> Expression:
    # Several processes report the same storage, each during its lifetime.
    letters = q.last(q.select(m.FORGE_DLQ_DEPTH, _AT_STAGE), RATE)
    return q.sum_by(q.max_by(letters, *_PLACE), *by)


def _glance() -> Section:
    # A storage's oldest letter only gets younger, so the greatest time is the latest.
    oldest = q.min_by(q.max_by(q.last(q.select(m.FORGE_DLQ_OLDEST_TIMESTAMP, _HERE), RATE), *BY_PIPELINE))
    trouble = thresholds("text", (1, ORANGE))
    return Section(
        "At a glance",
        [
            figure(
                "Dead letters",
                "Dead letters in the storage, as last reported by a process.",
                COUNT,
                [series(_depth(), "")],
                limits=thresholds(GREEN, (1, ORANGE)),
            ),
            figure("Oldest dead letter", "Time of its failure.", AGO, [series(oldest * 1000, "")]).no_value("None"),
            figure(
                "Enqueued",
                "Dead letters enqueued in the time range.",
                COUNT,
                [now(happened(m.FORGE_DLQ_ENQUEUED, _AT_STAGE))],
                limits=trouble,
            ).decimals(0),
            figure(
                "Replayed",
                "Dead letters replayed in the time range.",
                COUNT,
                [now(happened(m.FORGE_DLQ_REPLAYED, _AT_STAGE))],
            ).decimals(0),
            figure(
                "Dropped",
                "Dead letters dropped in the time range.",
                COUNT,
                [now(happened(m.FORGE_DLQ_DROPPED, _AT_STAGE))],
            ).decimals(0),
            figure(
                "Dead-letter ratio",
                "Ratio of dead letters among the ready and failed samples in the time range.",
                SHARE,
                [now(queries.dead_letter_ratio(RANGE, _HERE), named(*BY_PIPELINE))],
                limits=thresholds(GREEN, *LETTERS),
            ),
        ],
    )


def _dead_letters() -> Section:
    movements = [
        (m.FORGE_DLQ_ENQUEUED, "enqueued"),
        (m.FORGE_DLQ_REPLAYED, "replayed"),
        (m.FORGE_DLQ_DROPPED, "dropped"),
    ]
    enqueued = queries.grown(m.FORGE_DLQ_ENQUEUED, RANGE, (*_PLACE, a.ERROR_TYPE), _AT_STAGE)
    return Section(
        "Dead letters",
        [
            areas(
                "Dead letters in the storage",
                "Dead letters by the source, the stage or the measurement in which they failed.",
                COUNT,
                [series(_depth(*_PLACE), named(*_PLACE))],
            ),
            bars(
                "Enqueued, replayed, dropped",
                "Dead letters that were added and removed.",
                [series(queries.grown(metric, STEP, (), _AT_STAGE), name) for metric, name in movements],
                none="No movement",
            ),
            lines(
                "Dead-letter ratio over time",
                "Ratio of dead letters among the ready and failed samples.",
                SHARE,
                [series(queries.dead_letter_ratio(RATE, _HERE), named(*BY_PIPELINE))],
                limits=thresholds(GREEN, *LETTERS),
            ),
            metric_table(
                "Where dead letters came from",
                "Dead letters enqueued in the time range, by origin and error.",
                {
                    a.FORGE_PIPELINE_NAME: "Pipeline",
                    a.FORGE_DLQ_SOURCE: "Failed in",
                    a.FORGE_STAGE_NAME: "Stage",
                    a.FORGE_MEASUREMENT_KEY: "Measurement",
                    a.ERROR_TYPE: "Error",
                },
                [Column("Samples", expression=enqueued)],
                span=12,
                height=8,
            ),
            messages(
                "Dead letters, one by one",
                "Events of dead letters, each with the sample's id and its trace.",
                [records(events(e.FORGE_DLQ_ENQUEUE, _AT_STAGE))],
                span=12,
            ),
        ],
    )


def _storage() -> Section:
    operations = per_second(m.FORGE_STORAGE_OPERATION_DURATION, _OPERATION, _HERE, part="count")
    failed = q.sum_by(
        q.growth(
            q.select(m.FORGE_STORAGE_OPERATION_DURATION, {**_HERE, a.ERROR_TYPE: q.unequal("")}, part="count"), STEP
        ),
        *_OPERATION,
        a.ERROR_TYPE,
    )
    return Section(
        "Storage",
        [
            lines(
                "Operations",
                "Operations of the storage and the artifact store per second.",
                "count:operations/s",
                [series(operations, named(*_OPERATION))],
            ),
            lines(
                "Duration of operations, p95",
                "5% of the operations took longer. Exemplars link to traces.",
                SECONDS,
                [
                    series(
                        q.quantile(0.95, m.FORGE_STORAGE_OPERATION_DURATION, RATE, *_OPERATION, where=_HERE),
                        named(*_OPERATION),
                        exemplars=True,
                    )
                ],
            ),
            bars(
                "Operations that failed",
                "Failed operations by backend, operation and error.",
                [series(failed, named(*_OPERATION, a.ERROR_TYPE))],
                none="No errors",
            ),
            messages(
                "Operations that failed, one by one",
                "Events of failed operations, each with the exception.",
                [records(events(e.FORGE_STORAGE_EXCEPTION, _HERE))],
            ),
        ],
    )


def _contents() -> Section:
    written = per_second(m.FORGE_STORAGE_SAMPLES_WRITTEN, (a.FORGE_STORAGE_WRITE_RESULT,), _HERE)
    read = per_second(m.FORGE_STORAGE_SAMPLES_READ, (a.FORGE_STORAGE_BACKEND,), _HERE)
    moved = per_second(m.FORGE_STORAGE_IO, (a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_DIRECTION), _HERE)
    uploaded = per_second(m.FORGE_STORAGE_ARTIFACTS_UPLOADED, (a.FORGE_ARTIFACT_DEDUPLICATED,), _HERE)
    downloaded = per_second(m.FORGE_STORAGE_ARTIFACTS_DOWNLOADED, (), _HERE)
    return Section(
        "Data written and read",
        [
            areas(
                "Samples written, by result",
                "Inserted, updated and unchanged rows per second.",
                "count:samples/s",
                [series(written, named(a.FORGE_STORAGE_WRITE_RESULT))],
                span=6,
                outcomes=ForgeStorageWriteResult,
            ),
            lines(
                "Samples read",
                "Samples read per second, to resume, replay or inspect them.",
                "count:samples/s",
                [series(read, named(a.FORGE_STORAGE_BACKEND))],
                span=6,
            ),
            lines(
                "Bytes written and read",
                "Size of samples and artifacts per second.",
                "Bps",
                [series(moved, named(a.FORGE_STORAGE_BACKEND, a.FORGE_STORAGE_DIRECTION))],
                span=6,
            ),
            lines(
                "Artifacts",
                "Artifacts uploaded and downloaded per second. Deduplicated ones were already stored.",
                "count:artifacts/s",
                [
                    series(uploaded, f"uploaded, deduplicated: {named(a.FORGE_ARTIFACT_DEDUPLICATED)}"),
                    series(downloaded, "downloaded"),
                ],
                span=6,
            ),
        ],
    )
