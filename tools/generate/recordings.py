"""Recording rules: frequently used expressions, and those that alerts depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from forge_otel.checker import prometheus_names
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Metric

from . import promql as q
from . import queries
from .promql import Expression, Selector

WINDOW: Final = "15m"
"""The time window of ratios. Processes with a shorter lifetime are included."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule, named `level:metric:operation`, where the level is what the series are aggregated by."""

    level: str
    metric: Metric
    operation: str
    expression: Expression

    @property
    def name(self) -> str:
        """The name of the recorded series."""
        return f"{self.level}:{prometheus_names.name(self.metric).removesuffix('_total')}:{self.operation}"

    @property
    def series(self) -> Selector:
        """The recorded series."""
        return q.recorded(self.name)


THROUGHPUT: Final = Recording(
    "pipeline",
    m.FORGE_SAMPLE_SETTLED,
    "rate5m",
    queries.grown(m.FORGE_SAMPLE_SETTLED, "5m", queries.PIPELINE) / 300,
)

SUCCESS_RATIO: Final = Recording(
    "pipeline", m.FORGE_SAMPLE_SETTLED, f"success_ratio{WINDOW}", queries.success_ratio(WINDOW)
)

DEAD_LETTER_RATIO: Final = Recording(
    "pipeline", m.FORGE_SAMPLE_SETTLED, f"dead_letter_ratio{WINDOW}", queries.dead_letter_ratio(WINDOW)
)

ERROR_RATIO: Final = Recording("stage", m.FORGE_STAGE_EXECUTIONS, f"error_ratio{WINDOW}", queries.error_ratio(WINDOW))

P95: Final = Recording(
    "stage",
    m.FORGE_STAGE_DURATION,
    f"p95_{WINDOW}",
    q.quantile(0.95, m.FORGE_STAGE_DURATION, WINDOW, *queries.STAGE),
)

UTILIZATION: Final = Recording("stage", m.FORGE_STAGE_BUSY_TIME, "utilization5m", queries.utilization("5m"))

CACHE_HIT_RATIO: Final = Recording(
    "measurement", m.FORGE_MEASUREMENT_COMPUTATIONS, f"cache_hit_ratio{WINDOW}", queries.cache_hit_ratio(WINDOW)
)


SPEND_RATE: Final = Recording(
    "pipeline", m.FORGE_COST_AMOUNT, "sum1h", queries.grown(m.FORGE_COST_AMOUNT, "1h", queries.PIPELINE)
)
"""US dollars per hour. Costs are booked when samples settle, so a shorter window would be noisy."""

WASTED_SHARE: Final = Recording("pipeline", m.FORGE_COST_AMOUNT, "wasted_share1h", queries.wasted_share("1h"))


def _greatest(metric: Metric) -> Recording:
    # Ten minutes, to include processes that ended before the next evaluation.
    return Recording("pipeline", metric, "max", q.max_by(q.last(q.select(metric), "10m"), *queries.PIPELINE))


LAST_SUCCESS: Final = _greatest(m.FORGE_PIPELINE_SUCCESS_TIMESTAMP)
"""One series per pipeline instead of per process, which is cheap to query over days."""

EXPECTED_INTERVAL: Final = _greatest(m.FORGE_PIPELINE_EXPECTED_INTERVAL)

BUDGET: Final = _greatest(m.FORGE_COST_BUDGET)
"""Declared by each process for all processes together, so it is not added up."""

ALL: Final = (
    THROUGHPUT,
    SUCCESS_RATIO,
    DEAD_LETTER_RATIO,
    ERROR_RATIO,
    P95,
    UTILIZATION,
    CACHE_HIT_RATIO,
    SPEND_RATE,
    WASTED_SHARE,
    LAST_SUCCESS,
    EXPECTED_INTERVAL,
    BUDGET,
)
