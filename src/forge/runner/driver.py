"""What a run expects of whatever moves its samples."""

from __future__ import annotations

from typing import Protocol

from .queue import StageQueue


class Driver(Protocol):
    """What moves the samples of a run: the difference between one runner and another."""

    output: StageQueue
    """Where ready samples come out."""
    queues: dict[str, StageQueue]
    """The queues in front of the stages, by name."""

    def start(self) -> None:
        """Start the threads."""

    def close(self) -> None:
        """Close the queues, so that the threads end."""

    def join(self, timeout: float) -> None:
        """Wait for the threads, together at most `timeout` seconds."""
