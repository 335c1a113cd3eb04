"""The part of the stages' dashboard about waits: in queues, for the next stage, before the next attempt."""

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
    """The part of all workers that a time was spent by."""
    limit = q.sum_by(q.select(m.FORGE_STAGE_CONCURRENCY_LIMIT, _HERE), *BY_STAGE)
    return per_second(metric, BY_STAGE, _HERE) / (limit > 0)


def with_zeros(grown: Expression) -> Expression:
    """What happened, and 0 for stages that did something else."""
    return grown | 0 * queries.grown(m.FORGE_STAGE_EXECUTIONS, STEP, BY_STAGE, _HERE)


def section() -> Section:
    """Waits in queues, and because of them."""
    depth = q.sum_by(q.select(m.FORGE_STAGE_QUEUE_DEPTH, _HERE), *BY_STAGE)
    limit = q.sum_by(q.select(m.FORGE_STAGE_QUEUE_LIMIT, _HERE), *BY_STAGE)
    active = q.sum_by(q.select(m.FORGE_STAGE_ACTIVE, _HERE), *BY_STAGE)
    waited = q.quantile(0.95, m.FORGE_STAGE_QUEUE_DURATION, RATE, *BY_STAGE, where=_HERE)
    return Section(
        "Queues and backpressure",
        [
            lines(
                "Queue depth",
                "Samples that wait in front of each stage.",
                COUNT,
                [series(depth, named(*BY_STAGE))],
            ),
            lines(
                "Queue filled",
                "Depth ÷ limit. The queue in front of the slowest stage is normally full: that is no fault.",
                SHARE,
                [series(depth / (limit > 0), named(*BY_STAGE))],
                greatest=1,
            ),
            lines(
                "Wait in the queue, p95",
                "How long samples waited before a worker of the stage took them.",
                SECONDS,
                [series(waited, named(*BY_STAGE), exemplars=True)],
            ),
            lines(
                "Backpressure",
                "Share of a stage's workers that were blocked because the next queue was full. The stage behind the "
                "last one that is blocked is the slow one.",
                SHARE,
                [series(_share_of_workers(m.FORGE_STAGE_BACKPRESSURE_TIME), named(*BY_STAGE))],
                span=12,
                greatest=1,
            ),
            lines(
                "Samples being worked on",
                "Samples that each stage has taken and given no verdict on.",
                COUNT,
                [series(active, named(*BY_STAGE))],
                span=12,
            ),
        ],
    )


def retries() -> Section:
    """Attempts that were made again."""
    again = queries.grown(m.FORGE_STAGE_RETRIES, STEP, BY_STAGE, _HERE)
    errors = queries.grown(m.FORGE_STAGE_RETRIES, STEP, (*BY_STAGE, a.ERROR_TYPE), _HERE)
    return Section(
        "Retries",
        [
            linked(
                bars(
                    "Retries by stage",
                    "Attempts that failed and were made again. A stage leads to its events.",
                    [series(with_zeros(again), named(*BY_STAGE))],
                    none="No stage worked",
                ),
                "Events of this stage",
                a.FORGE_STAGE_NAME,
            ),
            bars(
                "Retries by error",
                "Why attempts were made again.",
                [series(errors, named(*BY_STAGE, a.ERROR_TYPE))],
                none="No retries",
            ),
            lines(
                "Workers that wait to retry",
                "Share of a stage's workers that waited for their next attempt. They hold their places meanwhile: "
                "where it is high, whatever they call is overloaded or limits them, and more workers make it worse.",
                SHARE,
                [series(_share_of_workers(m.FORGE_STAGE_RETRY_WAIT_TIME), named(*BY_STAGE))],
                greatest=1,
            ),
        ],
    )
