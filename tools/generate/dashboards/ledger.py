"""Sections of the runs' dashboard: the ledger and the source."""

from __future__ import annotations

from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Metric

from .. import promql as q
from .. import queries
from ..promql import Expression
from ..queries import PIPELINE as BY_PIPELINE
from .colours import RED
from .layout import Section
from .panels import COUNT, SECONDS, bars, lines
from .tables import Column, metric_table, remarkable
from .targets import RANGE, RATE, STEP, named, per_second, series
from .variables import PIPELINE, chosen

_HERE = chosen(PIPELINE)
SAMPLES = "count:samples/s"


def _kept(metric: Metric, *by: str, where: q.Where = None) -> Expression:
    """Return the sum of the last values of all processes."""
    return q.sum_by(q.last(q.select(metric, where or _HERE), RANGE), *by)


def imbalance() -> Expression:
    """Return admitted + derived - settled - active samples by pipeline, which should be 0."""
    admitted = _kept(m.FORGE_SAMPLE_ADMITTED, *BY_PIPELINE)
    derived = _kept(m.FORGE_SAMPLE_DERIVED, *BY_PIPELINE) | 0 * admitted
    left = _kept(m.FORGE_SAMPLE_SETTLED, *BY_PIPELINE) + _kept(m.FORGE_SAMPLE_ACTIVE, *BY_PIPELINE)
    return admitted + derived - left


def section() -> Section:
    """Return the section of entered, settled and active samples."""
    entered = [
        series(per_second(m.FORGE_SAMPLE_ADMITTED, (), _HERE), "admitted"),
        series(per_second(m.FORGE_SAMPLE_DERIVED, (), _HERE), "derived"),
        series(per_second(m.FORGE_SAMPLE_SETTLED, (), _HERE), "settled"),
    ]
    waited = [
        series(q.quantile(at, m.FORGE_SAMPLE_DURATION, RATE, where=_HERE), name, exemplars=True)
        for at, name in ((0.5, "median"), (0.95, "p95"), (0.99, "p99"))
    ]
    active = q.sum_by(q.select(m.FORGE_SAMPLE_ACTIVE, _HERE), *BY_PIPELINE)
    columns = [
        Column("Admitted", expression=_kept(m.FORGE_SAMPLE_ADMITTED, *BY_PIPELINE)),
        Column("Derived", expression=_kept(m.FORGE_SAMPLE_DERIVED, *BY_PIPELINE)),
        Column("Settled", expression=_kept(m.FORGE_SAMPLE_SETTLED, *BY_PIPELINE)),
        Column("Active", expression=_kept(m.FORGE_SAMPLE_ACTIVE, *BY_PIPELINE)),
        Column("Imbalance", expression=imbalance(), look=remarkable(RED)),
    ]
    return Section(
        "Ledger",
        [
            lines(
                "Samples that entered and left",
                "Samples per second: admitted from the source, derived by splits, and settled. The first two add up to "
                "the third unless samples accumulate.",
                SAMPLES,
                entered,
            ),
            lines(
                "Samples in flight over time",
                "Samples that entered and have not settled yet. Limited by the capacity of the queues.",
                COUNT,
                [series(active, named(*BY_PIPELINE))],
            ),
            lines(
                "Time from admission to settling",
                "Duration of samples, including waits in queues. Exemplars link to traces.",
                SECONDS,
                waited,
            ),
            metric_table(
                "Ledger",
                "Totals of all processes in the time range: admitted + derived = settled + active. A process that died "
                "leaves its last active samples.",
                {a.FORGE_PIPELINE_NAME: "Pipeline"},
                columns,
                height=6,
            ),
        ],
    )


def source() -> Section:
    """Return the section of the source's rate, waits and errors."""
    reads = per_second(m.FORGE_SOURCE_READS, BY_PIPELINE, _HERE)
    failed = queries.grown(
        m.FORGE_SOURCE_READS, STEP, (*BY_PIPELINE, a.ERROR_TYPE), {**_HERE, a.ERROR_TYPE: q.unequal("")}
    )
    return Section(
        "Source",
        [
            lines("Reads", "Reads of the source per second.", "count:reads/s", [series(reads, named(*BY_PIPELINE))]),
            lines(
                "Waits for the next item, p95",
                "Waiting time for the source's next item. If it is long and no stage is busy, the source is the "
                "bottleneck.",
                SECONDS,
                [
                    series(
                        q.quantile(0.95, m.FORGE_SOURCE_DURATION, RATE, *BY_PIPELINE, where=_HERE),
                        named(*BY_PIPELINE),
                        exemplars=True,
                    )
                ],
            ),
            bars(
                "Errors of the source",
                "Failed reads. After a failed read the run completes the admitted samples and fails.",
                [series(failed, named(*BY_PIPELINE, a.ERROR_TYPE))],
                none="No errors",
            ),
        ],
    )
