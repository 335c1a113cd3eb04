"""Stalls: times in which a run settles nothing, although its consumer waits."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from ..support.formatting import seconds

if TYPE_CHECKING:
    from ..support.clock import Clock
    from .result import RunSnapshot

_CHECKS: Final = 4
"""Number of checks within `stall_after`, unless that is longer than as many `MAX_INTERVAL`."""
MAX_INTERVAL: Final = 15.0
"""Maximum number of seconds between two checks."""


class StallReason(StrEnum):
    """Reason for a stall."""

    STORAGE = "storage"
    """The storage does not work, and is tried again: no calls are made meanwhile."""
    RETRY = "retry"
    """All calls in progress wait for their next attempt."""
    WORKERS = "workers"
    """The cluster has no room for workers of a stage or measurement."""
    CALL = "call"
    """Calls of stages are in progress."""
    SOURCE = "source"
    """No sample is in flight: the source yields none."""
    OTHER = "other"
    """Samples are in measurements, being stored, in worker processes, or waiting for a batch to fill."""


STALLS: Final[Mapping[str, tuple[str, str]]] = {
    StallReason.STORAGE: ("the storage does not work", "the storage did not work"),
    StallReason.RETRY: ("all calls wait for a retry", "all calls waited for a retry"),
    StallReason.WORKERS: ("the cluster has no room for workers", "the cluster had no room for workers"),
    StallReason.CALL: ("calls do not return", "calls did not return"),
    StallReason.SOURCE: ("the source yields nothing", "the source yielded nothing"),
    StallReason.OTHER: (
        "samples are measured, stored, in worker processes, or wait for a batch",
        "samples were measured, stored, in worker processes, or waited for a batch",
    ),
}
"""Texts by reason: of a stall that lasts, and of one that is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StalledStage:
    """State of a stage, or of a measurement that lacks workers, when a stall was noticed."""

    name: str
    """Name of the stage."""
    calls: int
    """Calls in progress, those included that wait for a retry."""
    retries: int
    """Calls that wait for a retry."""
    queued: int
    """Samples in the stage's queue."""
    lacks: str = ""
    """The workers that it lacks."""

    def __str__(self) -> str:
        parts = []
        if self.calls:
            waiting = f", {self.retries} of them waiting for a retry" if self.retries else ""
            parts.append(f"{self.calls} call{'' if self.calls == 1 else 's'} in progress{waiting}")
        if self.queued:
            parts.append(f"{self.queued} queued")
        if self.lacks:
            parts.append(self.lacks)
        return f"{self.name}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A time in which a run settled nothing."""

    started: float
    """Unix time of the last settlement before, or of the run's start."""
    duration: float
    """Seconds until a sample settled or the run ended; while it lasts, until it was noticed."""
    over: bool
    """False while it lasts."""
    reason: StallReason
    """Reason for the stall when it was noticed."""
    stage: str | None
    """Stage that lacks workers, or else has the most calls in progress; None if there is none."""
    active: int
    """Samples in flight."""
    stages: Sequence[StalledStage]
    """The stages that had samples, or lacked workers."""

    def __str__(self) -> str:
        where = f" ({'; '.join(map(str, self.stages))})" if self.stages else ""
        flight = f"{self.active} sample{'' if self.active == 1 else 's'} in flight"
        return f"nothing settled for {seconds(self.duration)}: {STALLS[self.reason][False]}; {flight}{where}"


class StallDetector:
    """Notices stalls of one run; checked by threads that wait for its samples.

    Nothing is noted for it when a sample settles: a check compares the counts with those of the check before.
    """

    def __init__(self, after: float | None, clock: Clock) -> None:
        self.after = after
        """Seconds without a settled sample; None: stalls are not looked for."""
        self._clock = clock
        self._lock = threading.Lock()
        self._settled = 0
        self._since = self._checked = 0.0
        """Monotonic times of the last settlement, as far as known, and of the last check."""
        self._started = 0.0
        self._current: Stall | None = None
        self._past: list[Stall] = []

    def begin(self, time: float, monotonic: float) -> None:
        """Begin with the run, at these readings of its clock."""
        self._since = self._checked = monotonic
        self._started = time

    def interval(self) -> float:
        """Return the seconds between two checks."""
        return MAX_INTERVAL if self.after is None else min(MAX_INTERVAL, self.after / _CHECKS)

    def check(
        self,
        found: RunSnapshot,
        waiting_since: float,
        *,
        storage_waits: bool,
        retries: Sequence[str],
        lacking: Callable[[], Mapping[str, str]],
    ) -> tuple[Stall | None, Stall | None]:
        """Look for a stall; returns one that has just been noticed, and one that is over.

        `waiting_since` is the monotonic time since which the consumer waits: what it did before was not the run's.
        `retries` are the names of the stages of calls that wait for their next attempt. `lacking` returns the workers
        that are lacking, by name of the stage or measurement.
        """
        if self.after is None:
            return None, None
        with self._lock:
            now = self._clock.monotonic()
            over = self._progress(found, now, waiting_since)
            if self._current is not None or now - self._since < self.after:
                return None, over
            lacks = lacking()
            stages = _stages(found, retries, lacks)
            busiest = max(stages, key=lambda stage: (bool(stage.lacks), stage.calls), default=None)
            self._current = Stall(
                started=self._started,
                duration=now - self._since,
                over=False,
                reason=_reason(found, storage_waits, len(retries), bool(lacks)),
                stage=busiest.name if busiest is not None and (busiest.calls or busiest.lacks) else None,
                active=found.ledger.active,
                stages=stages,
            )
            return self._current, over

    def end(self) -> None:
        """End with the run: a stall that lasts is over."""
        with self._lock:
            self._finish(self._clock.monotonic())

    @property
    def stalls(self) -> list[Stall]:
        """The stalls so far, the last of which may last."""
        return [*self._past, *([] if self._current is None else [self._current])]

    def _progress(self, found: RunSnapshot, now: float, waiting_since: float) -> Stall | None:
        """Note what has settled since the last check; returns a stall that is over by that."""
        over = None
        settled = found.ledger.settled
        if settled != self._settled:
            # It settled between the last check and this one. The wall clock tells when, unless it was set meanwhile.
            ago = self._clock.time() - (found.last_settled or 0.0)
            since = now - min(max(ago, 0.0), now - self._checked)
            over = self._finish(since)
            self._settled, self._since = settled, since
            self._started = found.last_settled or self._started
        if waiting_since > self._since and self._current is None:
            self._started += waiting_since - self._since
            self._since = waiting_since
        self._checked = now
        return over

    def _finish(self, now: float) -> Stall | None:
        if self._current is None:
            return None
        over = replace(self._current, duration=now - self._since, over=True)
        self._past.append(over)
        self._current = None
        return over


def _reason(found: RunSnapshot, storage_waits: bool, retries: int, lacking: bool) -> StallReason:
    """Return what a stalled run waits for."""
    calls = sum(stage.active for stage in found.stages)
    if storage_waits:
        return StallReason.STORAGE
    if lacking:
        return StallReason.WORKERS
    if calls:
        return StallReason.RETRY if retries >= calls else StallReason.CALL
    return StallReason.OTHER if found.ledger.active else StallReason.SOURCE


def _stages(found: RunSnapshot, retries: Sequence[str], lacks: Mapping[str, str]) -> list[StalledStage]:
    waiting = Counter(retries)
    states = {stage.name: (stage.active, stage.queue_depth) for stage in found.stages}
    stages = [
        StalledStage(name=name, calls=calls, retries=waiting[name], queued=queued, lacks=lacks.get(name, ""))
        for name, (calls, queued) in {**dict.fromkeys(lacks, (0, 0)), **states}.items()
    ]
    return [stage for stage in stages if stage.calls or stage.queued or stage.lacks]
