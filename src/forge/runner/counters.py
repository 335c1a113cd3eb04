"""The counters of a run in progress."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from ..execution.results import MeasurementOutcome, StageOutcome
from ..pipeline.failure import Failure
from ..pipeline.sample import SampleOutcome
from ..support.percentiles import Sketch
from ..support.text import escape, shortened
from .result import FailureSummary, Ledger, MeasurementSummary, SourceSummary, StageSummary, StorageSummary

FailureKey = tuple[str, str, str]
MAX_FAILURE_CLASSES = 100
"""Number of classes of errors and places that are counted one by one."""
OTHER = "_OTHER"
"""Class of all errors beyond these."""
MAX_MESSAGE = 1000
"""Characters kept of the message of an example."""


@dataclass(slots=True)
class StageCounters:
    """The counters of one stage of a run in progress."""

    name: str
    concurrency: int
    active: int = 0
    retries: int = 0
    batches: int = 0
    batch_failures: int = 0
    lost: int = 0
    busy: float = 0.0
    backpressure: float = 0.0
    workers: int | None = None
    slot_time: float = 0.0
    """Seconds of the slots of its worker processes."""
    transfer: float = 0.0
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
            utilization=_utilization(self, wall),
            queue_wait_p95=self.waits.quantile(0.95),
            backpressure=self.backpressure,
            concurrency=self.concurrency,
            workers=self.workers,
            transfer=None if self.workers is None else self.transfer,
            lost=self.lost,
            batches=self.batches,
            batch_failures=self.batch_failures,
        )


@dataclass(slots=True)
class MeasurementCounters:
    """The counters of one measurement of a run in progress."""

    key: str
    version: str
    concurrency: int = 1
    lost: int = 0
    busy: float = 0.0
    workers: int | None = None
    slot_time: float = 0.0
    transfer: float = 0.0
    outcomes: dict[MeasurementOutcome, int] = field(default_factory=lambda: dict.fromkeys(MeasurementOutcome, 0))
    durations: Sketch = field(default_factory=Sketch)

    def summary(self, wall: float) -> MeasurementSummary:
        return MeasurementSummary(
            key=self.key,
            version=self.version,
            computed=self.outcomes[MeasurementOutcome.COMPUTED],
            cached=self.outcomes[MeasurementOutcome.CACHED],
            errors=self.outcomes[MeasurementOutcome.ERROR],
            **_percentiles(self.durations),
            busy=self.busy,
            utilization=_utilization(self, wall),
            concurrency=self.concurrency,
            workers=self.workers,
            transfer=None if self.workers is None else self.transfer,
            lost=self.lost,
        )


@dataclass(slots=True)
class SourceReading:
    """The time of the thread that reads the source: all of it that it is not blocked, or just its calls."""

    begun: float | None = None
    """When the reading of a thread that does nothing else began; None if there is no such thread."""
    ended: float | None = None
    blocked: float = 0.0
    busy: float = 0.0
    """Seconds in calls of the source, where there is no such thread."""

    def summary(self, now: float) -> SourceSummary:
        busy = self.busy
        if self.begun is not None:
            busy = max(0.0, (now if self.ended is None else self.ended) - self.begun - self.blocked)
        return SourceSummary(busy=busy, backpressure=self.blocked)


@dataclass(slots=True)
class FailureCounter:
    """The counter of failures of one class at one place, with the first of them as an example."""

    sample_id: str
    message: str
    count: int = 0
    dead_letters: int = 0
    logged: bool = False


class FailureCounters(dict[FailureKey, FailureCounter]):
    """The counters of a run's failures, by (source, stage or measurement or backend, error type).

    Classes of errors may be made while the run goes on, without end; so those beyond `MAX_FAILURE_CLASSES` are counted
    as one.
    """

    def add(self, failure: Failure, sample_id: str, *, dead_letter: bool = False) -> None:
        """Count a failure."""
        key = self._key(failure)
        counter = self.get(key)
        if counter is None:
            counter = self[key] = FailureCounter(sample_id, readable(failure.message))
        counter.count += 1
        counter.dead_letters += dead_letter

    def is_first(self, failure: Failure) -> bool:
        """Return True to the first who asks about a counted failure of its class and place."""
        counter = self[self._key(failure)]
        first, counter.logged = not counter.logged, True
        return first

    @property
    def count(self) -> int:
        """Number of all failures."""
        return sum(counter.count for counter in self.values())

    @property
    def dead_letters(self) -> dict[FailureKey, int]:
        """Numbers of those that are dead letters."""
        return {key: counter.dead_letters for key, counter in self.items() if counter.dead_letters}

    def _key(self, failure: Failure) -> FailureKey:
        key = (failure.source.value, failure.where, failure.error_type)
        known = key in self or len(self) < MAX_FAILURE_CLASSES
        return key if known else (*key[:2], OTHER)

    def summaries(self) -> list[FailureSummary]:
        """Return the summaries, the commonest first."""
        return sorted(
            (
                FailureSummary(
                    source=source,
                    where=where,
                    error_type=error_type,
                    count=counter.count,
                    sample_id=counter.sample_id,
                    message=counter.message,
                )
                for (source, where, error_type), counter in self.items()
            ),
            key=lambda summary: -summary.count,
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
    failures: FailureCounters = field(default_factory=FailureCounters)
    batch_failures: FailureCounters = field(default_factory=FailureCounters)
    skips: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_settled: float | None = None
    source: SourceReading = field(default_factory=SourceReading)
    consumer_wait: float = 0.0

    def ledger(self) -> Ledger:
        outcomes = {outcome.value: count for outcome, count in self.outcomes.items()}
        return Ledger(admitted=self.admitted, derived=self.derived, active=self.active, **outcomes)

    def storage_summary(self) -> StorageSummary:
        return StorageSummary(**{name.name: self.storage[name.name] for name in fields(StorageSummary)})


def readable(message: str) -> str:
    """Return a message without what cannot be encoded, cut after `MAX_MESSAGE` characters."""
    return shortened(escape(message), MAX_MESSAGE)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _utilization(counters: StageCounters | MeasurementCounters, wall: float) -> float | None:
    if counters.workers is None:
        return _ratio(counters.busy, counters.concurrency * wall)
    ratio = _ratio(counters.busy, counters.slot_time)
    return None if ratio is None else min(ratio, 1.0)  # the time was seen a moment ago


def _percentiles(sketch: Sketch) -> dict[str, float | None]:
    return {
        "p50": sketch.quantile(0.5),
        "p95": sketch.quantile(0.95),
        "p99": sketch.quantile(0.99),
        "max": sketch.maximum if sketch.count else None,
    }
