"""The protocol between a run and the driver that moves its samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .queue import StageQueue


class Driver(Protocol):
    """Moves the samples of a run; each runner has its own driver."""

    output: StageQueue
    """Queue of ready samples."""
    queues: dict[str, StageQueue]
    """Queues of the stages, by name of the stage."""

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
