"""What the tests of pipelines share: the runners, short ways to look at a run."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import pytest

from forge import BatchRunner, RunResult, Sample, SampleStatus, SQLStorage, StreamingRunner

if TYPE_CHECKING:
    from forge import Run

RUNNERS = {
    "batch": BatchRunner(),
    "streaming": StreamingRunner(),
    "ordered": StreamingRunner(ordered=True),
}

every_runner = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS.keys())
"""Gives the test a `runner`: one of each kind."""

both_runners = pytest.mark.parametrize("runner", [RUNNERS["batch"], RUNNERS["streaming"]], ids=["batch", "streaming"])
"""The same for tests that have nothing to do with the order."""

PATIENCE = 120
"""Seconds after which a wait that should have ended long ago fails the test instead of hanging it."""


def samples(*data: Any) -> list[Sample]:
    """Samples with the ids "0", "1", …"""
    return [Sample(id=str(number), data=item) for number, item in enumerate(data)]


def ledger(run: Run | RunResult) -> dict[str, int]:
    """The counts of a finished run that are not 0."""
    result = run if isinstance(run, RunResult) else run.result
    assert result is not None
    return {name: count for name, count in dataclasses.asdict(result.ledger).items() if count}


def rows(storage: SQLStorage, pipeline: str = "p") -> dict[str, SampleStatus]:
    """The status of every sample that is stored."""
    found = {record.id: record.status for record in storage.query(pipeline).samples}
    storage.close()
    return found


def wait(event: threading.Event) -> None:
    """Wait for an event that is sure to come."""
    assert event.wait(PATIENCE), "waited in vain"
