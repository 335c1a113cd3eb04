"""A model of large runs on Ray, computed from unit costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .ray_costs import Costs
from .stack_costs import StackCosts
from .tables import Table

WORKERS: Final = (10, 100, 10_000)
SECONDS: Final = (0.01, 1.0)
"""Times that a call of a stage takes, for which the model is shown."""
LIMITS: Final = (0.001, 0.01, 0.1, 1.0, 10.0)
"""The same, for which it is shown what the driver can feed."""
STAGES: Final = 3
BLOCK_SIZE: Final = 64
SAMPLING_RATE: Final = 0.01
WATCH: Final = 2.0
"""Seconds between two calls in which a worker asks the exchange whether the run goes on."""
CALLS: Final = 3 + 2 * STAGES
"""Calls of the exchange for a block: by the driver, the reader, the driver, and two by the worker of each stage."""
EXPORT: Final = 60.0
"""Seconds between two exports of metrics of a worker."""


@dataclass(frozen=True)
class Load:
    """A run that keeps all its workers busy."""

    costs: Costs
    stack: StackCosts | None
    workers: int
    seconds: float

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.workers / (STAGES * self.seconds)

    @property
    def driver(self) -> float:
        """Cores."""
        return self.rate * driver_seconds(self.costs)

    @property
    def exchange(self) -> float:
        """Cores."""
        return (self.workers / WATCH + self.rate * CALLS / BLOCK_SIZE) * self.costs.call

    @property
    def home(self) -> float:
        """Bytes per second, without data."""
        return self.rate * STAGES * self.costs.home

    @property
    def in_flight(self) -> float:
        """Bytes of the driver's memory, without data."""
        return (2 + 2 * self.workers) * BLOCK_SIZE * self.costs.waiting

    @property
    def spans(self) -> float:
        """Spans per second: of the driver one a sample and one a stage, of workers one a call."""
        return self.rate * (1 + 2 * STAGES) * SAMPLING_RATE

    @property
    def points(self) -> float:
        """Points per second of the workers."""
        return self.workers * self.costs.worker_points / EXPORT

    @property
    def collectors(self) -> float | None:
        """Cores of all Collectors of one layer."""
        return None if self.stack is None else self.spans * self.stack.span + self.workers / EXPORT * self.stack.export

    @property
    def series(self) -> float:
        """Series in Prometheus."""
        return self.costs.driver_series + STAGES * self.costs.stage_series + self.workers * self.costs.worker_series

    @property
    def prometheus(self) -> float | None:
        """Bytes of memory of Prometheus."""
        return None if self.stack is None else self.series * self.stack.series


def driver_seconds(costs: Costs) -> float:
    """Return the processor seconds of the driver for a sample, with telemetry."""
    return costs.sample_observed + STAGES * costs.step_observed + (STAGES + 1) * costs.block / BLOCK_SIZE


def tables(costs: Costs, stack: StackCosts | None) -> Mapping[str, Table]:
    """Return the model's tables by their marks in the page."""
    return {
        **{f"model-{seconds:g}": _model(costs, stack, seconds) for seconds in SECONDS},
        "limits": _limits(costs),
    }


def _model(costs: Costs, stack: StackCosts | None, seconds: float) -> Table:
    loads = [Load(costs, stack, workers, seconds) for workers in WORKERS]

    def row(what: str, values: Iterable[float | None], scale: float = 1.0) -> Sequence[str]:
        return (what, *("–" if value is None else number(value / scale) for value in values))

    rows = [
        row("samples/s", (load.rate for load in loads)),
        row("driver, cores", (load.driver for load in loads)),
        row("driver's memory, GB", (load.in_flight for load in loads), 1e9),
        row("comes home, MB/s", (load.home for load in loads), 1e6),
        row("exchange, cores", (load.exchange for load in loads)),
        row("spans/s", (load.spans for load in loads)),
        row("points/s", (load.points for load in loads)),
        row("Collectors, cores a layer", (load.collectors for load in loads)),
        row("series in Prometheus", (load.series for load in loads)),
        row("Prometheus, GB", (load.prometheus for load in loads), 1e9),
    ]
    columns = (f"calls of {seconds:g} s", *(f"{workers:,} workers" for workers in WORKERS))
    return Table(f"Model, calls of {seconds:g} s", columns, rows)


def _limits(costs: Costs) -> Table:
    rows = []
    for seconds in LIMITS:
        one = Load(costs, None, 1, seconds)
        rows.append((f"{seconds:g} s", number(1 / one.driver), number(1 / one.exchange)))
    return Table(
        "Limits", ("a call takes", "workers, one core of the driver", "workers, one core of the exchange"), rows
    )


def number(value: float) -> str:
    """Two digits that mean something."""
    if value >= 100:
        digits = len(f"{value:.0f}") - 2
        return f"{round(value, -digits):,.0f}"
    return f"{value:.2g}"
