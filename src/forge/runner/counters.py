"""The counters of a run in progress."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from ..execution.results import MeasurementOutcome, StageOutcome
from ..pipeline.sample import SampleOutcome
from ..support.percentiles import Sketch
from .result import Ledger, MeasurementSummary, StageSummary, StorageSummary


@dataclass(slots=True)
class StageCounters:
    """The counters of one stage of a run in progress."""

    name: str
    concurrency: int
    active: int = 0
    retries: int = 0
    batches: int = 0
    busy: float = 0.0
    backpressure: float = 0.0
    # Plain dictionaries where something is counted for every sample: a `Counter` takes three times as long.
    outcomes: dict[StageOutcome, int] = field(default_factory=lambda: dict.fromkeys(StageOutcome, 0))
    durations: Sketch = field(default_factory=Sketch)
    waits: Sketch = field(default_factory=Sketch)

    def summary(self, wall: float) -> StageSummary:
        return StageSummary(
            name=self.name,
            executions=sum(self.outcomes.values()),
            successes=self.outcomes[StageOutcome.SUCCESS],
            skips=self.outcomes[StageOutcome.SKIP],
            errors=self.outcomes[StageOutcome.ERROR],
            cancelled=self.outcomes[StageOutcome.CANCELLED],
            retries=self.retries,
            **_percentiles(self.durations),
            busy=self.busy,
            utilization=self.busy / (self.concurrency * wall) if wall > 0 else None,
            queue_wait_p95=self.waits.quantile(0.95),
            backpressure=self.backpressure,
            concurrency=self.concurrency,
            batches=self.batches,
        )


@dataclass(slots=True)
class MeasurementCounters:
    """The counters of one measurement of a run in progress."""

    key: str
    version: str
    outcomes: dict[MeasurementOutcome, int] = field(default_factory=lambda: dict.fromkeys(MeasurementOutcome, 0))
    durations: Sketch = field(default_factory=Sketch)

    def summary(self) -> MeasurementSummary:
        return MeasurementSummary(
            key=self.key,
            version=self.version,
            computed=self.outcomes[MeasurementOutcome.COMPUTED],
            cached=self.outcomes[MeasurementOutcome.CACHED],
            errors=self.outcomes[MeasurementOutcome.ERROR],
            **_percentiles(self.durations),
        )


@dataclass(slots=True)
class RunCounters:
    """All counters of a run, guarded by the run's lock."""

    stages: dict[str, StageCounters]
    measurements: dict[str, MeasurementCounters]
    admitted: int = 0
    derived: int = 0
    active: int = 0
    outcomes: dict[SampleOutcome, int] = field(default_factory=lambda: dict.fromkeys(SampleOutcome, 0))
    storage: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failures: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    skips: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_settled: float | None = None

    def ledger(self) -> Ledger:
        outcomes = {outcome.value: count for outcome, count in self.outcomes.items()}
        return Ledger(admitted=self.admitted, derived=self.derived, active=self.active, **outcomes)

    def storage_summary(self) -> StorageSummary:
        return StorageSummary(**{name.name: self.storage[name.name] for name in fields(StorageSummary)})


def _percentiles(sketch: Sketch) -> dict[str, float | None]:
    return {
        "p50": sketch.quantile(0.5),
        "p95": sketch.quantile(0.95),
        "p99": sketch.quantile(0.99),
        "max": sketch.maximum if sketch.count else None,
    }
