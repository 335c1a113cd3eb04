"""The protocol between a run and the driver that moves its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .queue import StageQueue

if TYPE_CHECKING:
    from ..execution.item import Item


class StageLoad(NamedTuple):
    """The load of one stage at one moment, as far as its driver knows it."""

    queue_depth: int
    queue_limit: int
    """Size of the queue; 0 if it has no limit of its own."""
    active: int | None = None
    """Calls in progress, if worker processes make them."""
    workers: int | None = None
    """Worker processes, if they make the calls."""
    slots: int | None = None
    """Calls that these can make at a time."""


class Carried(NamedTuple):
    """Samples that travel together, at one moment."""

    items: Sequence[Item]
    step: int
    """Index of the step that they are in, or wait for."""
    worker: str | None
    """Process that has them, such as `20391 on vm`; None if they wait."""
    duration: float
    """Seconds for which that goes on."""


class Driver(Protocol):
    """Moves the samples of a run; each runner has its own driver."""

    output: StageQueue
    """Queue of ready samples."""

    remote: bool
    """True if stages run in other processes, which set them up and close them."""

    def start(self) -> None:
        """Start the threads."""

    def close(self) -> None:
        """Close the queues, so that the threads end."""

    def join(self, timeout: float) -> None:
        """Wait for the threads, together at most `timeout` seconds."""

    def lacking(self) -> Mapping[str, str]:
        """Return the worker processes that are lacking, by name of the stage or measurement. Never raises."""
        return {}

    def loads(self) -> Mapping[str, StageLoad]:
        """Return the loads of the stages that have queues, by name. May be called on any thread; does not wait."""
        return {}

    def carried(self) -> Sequence[Carried]:
        """Return the samples that are with worker processes or on their way between them. Does not wait either."""
        return ()
