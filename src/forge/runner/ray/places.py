"""Places of blocks in a cluster, and what that says about the load of each stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..driver import StageLoad

if TYPE_CHECKING:
    from ...pipeline.measurement import Measurement
    from ...pipeline.stages import Stage


class Place(NamedTuple):
    """Place of a block at a moment."""

    step: int
    """Index of the step that it is in, or waits for; beyond the last one, it is on its way home."""
    worker: str | None = None
    """Process of the worker that has it, such as `20391 on vm`; None if it waits."""
    duration: float = 0.0
    """Seconds for which that goes on."""


NOWHERE = Place(0)
"""Place of a block that nobody has seen yet: it waits for the first step."""


class ClusterState(NamedTuple):
    """State of an execution at a moment."""

    places: Mapping[int, Place] = {}
    """Places of blocks by number."""
    workers: Mapping[int, int] = {}
    """By step, the workers that are set up."""
    peaks: Mapping[int, int] = {}
    """By step, the largest number of them so far."""
    times: Mapping[int, float] = {}
    """By step, the seconds since their setups, summed over the workers, until each one was closed."""
    open: int = 0
    """Workers that are not closed, those among them that are being set up."""


def slots(part: Stage | Measurement) -> tuple[int, int]:
    """Return how many workers a stage or measurement has at least, and at most."""
    least = part.min_concurrency
    if least is not None:
        return least, part.concurrency
    return (1, 1) if part.is_async else (part.concurrency, part.concurrency)


def calls_per_worker(part: Stage | Measurement) -> int:
    """Return how many calls a worker makes at a time."""
    return part.concurrency if part.is_async and part.min_concurrency is None else 1


def loads_of(
    parts: Sequence[Stage | Measurement], state: ClusterState, blocks: Iterable[tuple[int, int]]
) -> list[StageLoad]:
    """Return the load of each step, given the numbers and sizes of the blocks in flight.

    A worker is counted with the calls that it can make at a time, as long as it has a block. The other samples of the
    block wait.
    """
    active, waiting = [0] * len(parts), [0] * len(parts)
    for number, size in blocks:
        place = state.places.get(number, NOWHERE)
        if place.step >= len(parts):
            continue
        part = parts[place.step]
        batch = part.batch_size or 1
        calls = min(calls_per_worker(part), math.ceil(size / batch)) if place.worker is not None else 0
        active[place.step] += calls
        waiting[place.step] += max(0, size - calls * batch)
    loads = []
    for step, (part, calls, depth) in enumerate(zip(parts, active, waiting, strict=True)):
        workers = state.workers.get(step, 0)
        loads.append(StageLoad(depth, 0, active=calls, workers=workers, slots=workers * calls_per_worker(part)))
    return loads
