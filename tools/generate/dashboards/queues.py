"""Sections of the stages' dashboard: queues, backpressure, retries and worker processes."""

from __future__ import annotations

from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Metric

from .. import promql as q
from .. import queries
from ..promql import Expression
from ..queries import STAGE as BY_STAGE
from .layout import Section
from .panels import COUNT, SECONDS, SHARE, bars, lines, linked
from .targets import RATE, STEP, named, per_second, series
from .variables import PIPELINE, STAGE, chosen

_HERE = chosen(PIPELINE, STAGE)


def _share_of_workers(metric: Metric) -> Expression:
    """Return the share of a stage's workers that spent a time."""
    limit = q.sum_by(q.select(m.FORGE_STAGE_CONCURRENCY_LIMIT, _HERE), *BY_STAGE)
    return per_second(metric, BY_STAGE, _HERE) / (limit > 0)


def with_zeros(grown: Expression) -> Expression:
    """Add values of 0 for stages that were executed."""
    return grown | 0 * queries.grown(m.FORGE_STAGE_EXECUTIONS, STEP, BY_STAGE, _HERE)


def section() -> Section:
    """Return the section of queues and backpressure."""
    depth = q.sum_by(q.select(m.FORGE_STAGE_QUEUE_DEPTH, _HERE), *BY_STAGE)
    limit = q.sum_by(q.select(m.FORGE_STAGE_QUEUE_LIMIT, _HERE), *BY_STAGE)
    active = q.sum_by(q.select(m.FORGE_STAGE_ACTIVE, _HERE), *BY_STAGE)
    waited = q.quantile(0.95, m.FORGE_STAGE_QUEUE_DURATION, RATE, *BY_STAGE, where=_HERE)
    return Section(
        "Queues and backpressure",
        [
            lines(
                "Queue depth",
                "Samples in the queue before each stage.",
                COUNT,
                [series(depth, named(*BY_STAGE))],
            ),
            lines(
                "Queue filled",
                "Depth ÷ limit. The queue before the slowest stage is normally full.",
                SHARE,
                [series(depth / (limit > 0), named(*BY_STAGE))],
                greatest=1,
            ),
            lines(
                "Wait in the queue, p95",
                "Waiting time of samples in the stage's queue.",
                SECONDS,
                [series(waited, named(*BY_STAGE), exemplars=True)],
            ),
            lines(
                "Backpressure",
                "Share of a stage's workers blocked by the full queue after it. The stage after the last blocked one "
                "is the bottleneck.",
                SHARE,
                [series(_share_of_workers(m.FORGE_STAGE_BACKPRESSURE_TIME), named(*BY_STAGE))],
                span=12,
                greatest=1,
            ),
            lines(
                "Samples being worked on",
                "Samples that each stage is processing.",
                COUNT,
                [series(active, named(*BY_STAGE))],
                span=12,
            ),
        ],
    )


def retries() -> Section:
    """Return the section of retries."""
    again = queries.grown(m.FORGE_STAGE_RETRIES, STEP, BY_STAGE, _HERE)
    errors = queries.grown(m.FORGE_STAGE_RETRIES, STEP, (*BY_STAGE, a.ERROR_TYPE), _HERE)
    return Section(
        "Retries",
        [
            linked(
                bars(
                    "Retries by stage",
                    "Failed attempts that were retried. Stages link to their events.",
                    [series(with_zeros(again), named(*BY_STAGE))],
                    none="No stage worked",
                ),
                "Events of this stage",
                a.FORGE_STAGE_NAME,
            ),
            bars(
                "Retries by error",
                "Errors that caused retries.",
                [series(errors, named(*BY_STAGE, a.ERROR_TYPE))],
                none="No retries",
            ),
            lines(
                "Workers that wait to retry",
                "Share of a stage's workers that waited for their next attempt, and could not process other samples. "
                "If it is high, the service that they call is overloaded or rate-limited, and more workers make it "
                "worse.",
                SHARE,
                [series(_share_of_workers(m.FORGE_STAGE_RETRY_WAIT_TIME), named(*BY_STAGE))],
                greatest=1,
            ),
        ],
    )


def workers() -> Section:
    """Return the section of worker processes, which runs on Ray have."""
    active = q.sum_by(q.select(m.FORGE_STAGE_WORKER_ACTIVE, _HERE), *BY_STAGE)
    lost = queries.grown(m.FORGE_STAGE_RETRIES, STEP, BY_STAGE, {**_HERE, a.ERROR_TYPE: "worker_lost"})
    return Section(
        "Worker processes",
        [
            lines(
                "Workers",
                "Worker processes of each stage that are set up, as Ray Data starts and ends them.",
                COUNT,
                [series(active, named(*BY_STAGE))],
            ).no_value("No run on Ray"),
            lines(
                "Transfer",
                "Share of a stage's workers that unpacked samples, and could not process them. If it is high, samples "
                "are large: send what they are made from, such as paths.",
                SHARE,
                [series(_share_of_workers(m.FORGE_STAGE_TRANSFER_TIME), named(*BY_STAGE))],
            ).no_value("No run on Ray"),
            bars(
                "Calls handed out again",
                "Calls in blocks of samples whose worker process died.",
                [series(lost, named(*BY_STAGE))],
                none="No worker died",
            ),
        ],
        collapsed=True,
    )
