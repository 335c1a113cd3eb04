"""The steps of the samples in a chunk of a manifest: how long each one waited and took, retries, the final error."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

MAX_RETRIES: Final = 10
"""Retries of a sample in one step that are kept; the others are counted."""
MAX_MESSAGE: Final = 300
"""Characters kept of the message of a failed attempt."""
CACHED: Final = -1.0
"""Duration of a measurement whose value was read from the storage."""


class Retry(NamedTuple):
    """A failed attempt after which another one was made."""

    error_type: str
    """Class of the error, as returned by `classify`."""
    message: str
    """Message of the error, at most 300 characters of it."""
    delay: float | None
    """Seconds waited before the next attempt; None if a batch failed, and its samples were processed alone."""


class SampleNotes(NamedTuple):
    """Details of a sample's steps that are seldom worth telling."""

    retries: Sequence[tuple[int, int, Sequence[Retry]]] = ()
    """Index of a step, number of its attempts, and the failed ones before the last."""
    message: str | None = None
    """Message of the error with which the sample failed."""
    attempts: int = 1
    """Number of attempts made before it failed."""


class RecordedStep(NamedTuple):
    """A step that a sample has taken in a run."""

    name: str
    """Name of the stage, or key of the measurement."""
    waited: float
    """Seconds waited in the queue of the stage; 0 for runners without queues, and for measurements."""
    duration: float | None
    """Seconds from the first attempt to the result, for a batch those of the batch; None for a cached value."""
    attempts: int = 1
    """Number of attempts."""
    retries: Sequence[Retry] = ()
    """Failed attempts before the last one, at most `MAX_RETRIES` of them."""


class SampleSteps(NamedTuple):
    """The steps of a sample in a run."""

    steps: Sequence[RecordedStep]
    """Steps in order, those of stages first."""
    message: str | None
    """Message of the error with which it failed."""
    attempts: int
    """Number of attempts made before it failed."""


class StepPath(NamedTuple):
    """Steps that a sample has taken: so many from this one on."""

    first: int
    length: int


def encode(
    names: Sequence[str], paths: Sequence[StepPath], times: Iterable[float], notes: Mapping[int, SampleNotes]
) -> bytes:
    """Encode the steps of a chunk: names of the run's steps; for each sample its path; for each step of each sample the
    seconds that it waited and took; notes by the sample's place in the chunk.
    """
    kinds = list(dict.fromkeys(paths))
    numbers = {path: number for number, path in enumerate(kinds)}
    microseconds = [round(seconds * 1e6) for seconds in times]
    columns = [names, kinds, [numbers[path] for path in paths], microseconds, notes]
    return zlib.compress(json.dumps(columns, separators=(",", ":")).encode(), 1)


def decode(chunk: bytes, place: int) -> SampleSteps:
    """Return the steps of the sample at a place in the chunk."""
    names, kinds, paths, times, notes = json.loads(zlib.decompress(chunk))
    first, count = kinds[paths[place]]
    start = 2 * sum(kinds[path][1] for path in paths[:place])
    retries, message, attempts = notes.get(str(place), SampleNotes())
    failed: dict[int, tuple[int, Sequence[Retry]]] = {
        step: (tries, [Retry(*each) for each in kept]) for step, tries, kept in retries
    }
    steps = []
    for offset in range(count):
        waited, took = times[start + 2 * offset : start + 2 * offset + 2]
        tries, kept = failed.get(first + offset, (1, ()))
        duration = None if took < 0 else took / 1e6
        steps.append(RecordedStep(names[first + offset], waited / 1e6, duration, tries, kept))
    return SampleSteps(steps, message, attempts)
