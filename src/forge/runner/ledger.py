"""The ledger of a run: counts of samples that entered it, and of their outcomes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from ..costs.ledger import CostLedger
from ..costs.prices import Prices
from ..execution.item import Item
from ..execution.results import StageOutcome
from ..pipeline.sample import SampleOutcome, SampleStatus, replace
from ..storage.artifacts import artifact_stored
from .counters import MeasurementCounters, RunCounters, StageCounters
from .queue import QueueClosed
from .result import RunSnapshot, StageState

if TYPE_CHECKING:
    from ..costs.summary import Charge
    from ..definition import Pipeline
    from ..storage import ArtifactResult
    from ..support.clock import Clock
    from .driver import Driver, StageLoad
    from .source import SourceReader

_STATUS: dict[SampleOutcome, SampleStatus] = {
    outcome: SampleStatus(outcome.value) for outcome in SampleOutcome if outcome is not SampleOutcome.UNCHANGED
}
_SKIPPED, _UNCHANGED = SampleOutcome.SKIPPED, SampleOutcome.UNCHANGED  # an enum's members are found slowly


class RunLedger:
    """All counts of a run under one lock, so that they are consistent at every moment.

    `settled_late` is called with what was spent on a sample that had settled before it was reported.
    """

    def __init__(
        self, pipeline: Pipeline, clock: Clock, settled_late: Callable[[Item, Sequence[Charge]], None]
    ) -> None:
        self.lock = threading.Lock()
        self.counters = RunCounters(
            stages={stage.name: StageCounters(stage.name, stage.concurrency) for stage in pipeline.stages},
            measurements={m.key: MeasurementCounters(m.key, m.version, m.concurrency) for m in pipeline.measurements},
        )
        """The counts, guarded by `lock`."""
        self.costs = CostLedger(
            prices=pipeline.prices or Prices.from_environment(),
            clock=clock,
            lock=self.lock,
            max_cost=pipeline.max_cost,
            settled_late=settled_late,
        )
        """The cost ledger; its methods tell which of them need `lock`."""
        self._clock = clock
        self._active: dict[Item, None] = {}  # a set that keeps the order
        self._ids = 0
        self.sealed = False
        """True once nothing enters any more; guarded by `lock`."""

    @property
    def input_digest(self) -> str:
        """Sum of the SHA-256 digests of the ids that the source gave, which may come in any order."""
        return f"{self._ids % 2**256:064x}"

    @property
    def active(self) -> Collection[Item]:
        """The items in flight, in the order in which they entered; to be read under `lock`."""
        return self._active.keys()

    def admit(self, item: Item) -> None:
        """Admit a sample of the source.

        Raises:
            QueueClosed: the ledger is sealed.
        """
        with self.lock:
            self._enter(item)
            self.counters.admitted += 1
            self._ids += int.from_bytes(hashlib.sha256(item.sample.id.encode("utf-8", "surrogatepass")).digest())

    def derive(self, children: Sequence[Item]) -> None:
        """Admit samples derived from another one; QueueClosed as for `admit`."""
        with self.lock:
            for child in children:
                self._enter(child)
                if child.family is not None:
                    child.family.pending += 1
            self.counters.derived += len(children)

    def settle(self, item: Item, outcome: SampleOutcome) -> Sequence[Charge] | None:
        """Settle a sample; returns its charges, None if it had settled already."""
        with self.lock:
            if item.outcome is not None:
                return None
            item.outcome = outcome
            if outcome is not _UNCHANGED:
                reason = item.failure.error_type if item.failure and outcome is SampleOutcome.DLQ else None
                item.sample = replace(item.sample, status=_STATUS[outcome], dlq_reason=reason)
            self._active.pop(item, None)
            counters = self.counters
            counters.active -= 1
            counters.outcomes[outcome] += 1
            counters.last_settled = self._clock.time()
            if outcome is _SKIPPED and item.skip:
                counters.skips[item.skip] += 1
            if item.failure:
                counters.failures.add(item.failure, item.sample.id, dead_letter=outcome is SampleOutcome.DLQ)
            return self.costs.settle(item, outcome) if item.pending_costs is not None else ()

    def seal(self) -> list[Item]:
        """Seal the ledger at the run's end: nothing enters, and executions in progress count as cancelled. Returns the
        active items."""
        with self.lock:
            self.sealed = True
            rest = list(self._active)
            for item in rest:
                if item.executing is not None:
                    counters = self.counters.stages[item.executing]
                    counters.active = 0
                    counters.outcomes[StageOutcome.CANCELLED] += 1
                    item.executing = None
        return rest

    def count_artifacts(self) -> None:
        """Count artifacts that are stored in the current context and its copies."""
        artifact_stored.set(self.count_artifact)

    def snapshot(self, driver: Driver, source: SourceReader) -> RunSnapshot:
        """Return counts and states at this moment, consistent with each other."""
        with self.lock:
            loads = driver.loads()
            return RunSnapshot(
                ledger=self.counters.ledger(),
                last_settled=self.counters.last_settled,
                source_remaining=source.remaining(self.counters.admitted),
                cost=self.costs.amount,
                stages=[_state(counters, loads.get(counters.name)) for counters in self.counters.stages.values()],
            )

    def _enter(self, item: Item) -> None:
        if self.sealed:
            raise QueueClosed  # a thread that was abandoned comes too late
        self._active[item] = None
        self.counters.active += 1

    def count_artifact(self, artifact: ArtifactResult) -> None:
        """Count an artifact that was stored."""
        with self.lock:
            counts = self.counters.storage
            counts["artifacts_uploaded"] += 1
            if artifact.deduplicated:
                counts["artifacts_deduplicated"] += 1
            else:
                counts["artifact_bytes_written"] += artifact.size


def _state(counters: StageCounters, load: StageLoad | None) -> StageState:
    """Return the state of a stage; without a load, it has no queue."""
    return StageState(
        name=counters.name,
        executions=sum(counters.outcomes.values()),
        errors=counters.outcomes[StageOutcome.ERROR],
        retries=counters.retries,
        active=counters.active if load is None or load.active is None else load.active,
        concurrency=counters.concurrency,
        queue_depth=0 if load is None else load.queue_depth,
        queue_limit=0 if load is None else load.queue_limit,
        workers=None if load is None else load.workers,
        slots=counters.concurrency if load is None or load.slots is None else load.slots,
    )
