"""What the telemetry keeps about a run and about each sample, carried by their contexts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .operation import Call

RUN: ContextVar[RunScope | None] = ContextVar("forge_otel_run", default=None)
"""The run that the current work belongs to."""

SAMPLE: ContextVar[SampleScope | None] = ContextVar("forge_otel_sample", default=None)
"""The sample that the current work belongs to; None in a batch, whose items carry theirs."""


class RunScope:
    """One run, from its begin to its end."""

    __slots__ = ("_lock", "_spans", "call", "clock", "ended", "faults_before", "identity")

    def __init__(self, call: Call, identity: Mapping[str, Any], clock: Callable[[], float], faults_before: int) -> None:
        self.call = call
        """The run's own span and attributes."""
        self.identity = identity
        """What says on every span, metric and event which run it belongs to."""
        self.clock = clock
        """Readings in seconds; the run's own, so that durations agree with the run's record."""
        self.faults_before = faults_before
        """How many faults of the telemetry there had been when the run began."""
        self.ended = False
        """The run has given its account: what an abandoned thread still brings is not recorded."""
        self._spans = 0
        self._lock = threading.Lock()

    @property
    def spans(self) -> int:
        """How many spans of the run were recorded."""
        return self._spans

    def count_span(self) -> None:
        with self._lock:
            self._spans += 1


class SampleScope:
    """One sample, from its admission until it settles."""

    __slots__ = ("call", "open", "settled")

    def __init__(self, call: Call) -> None:
        self.call = call
        """The sample's own span and attributes."""
        self.settled = False
        self.open: dict[Call, None] = {}
        """The operations on this sample that have not come back; in the order in which they began."""
