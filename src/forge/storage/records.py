"""What goes into the storage and what comes back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from ..pipeline.failure import FailureSource
    from ..pipeline.sample import SampleStatus


class WriteOutcome(StrEnum):
    """What a write did to a row."""

    INSERTED = "inserted"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    """The row was there with the same content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """A sample as it is stored, keyed by (pipeline, id)."""

    pipeline: str
    id: str
    status: SampleStatus
    pipeline_id: str = ""
    run_id: str = ""
    parent: str | None = None
    input_digest: str | None = None
    """Of the data as the source gave it: a later run with the same one need not repeat the work."""
    digest: str | None = None
    """Of the data as it was measured: what cached measurements belong to."""
    data: bytes | None = None
    reason: str | None = None
    """Why it was skipped, or what it failed with."""
    children: tuple[str, ...] = ()
    """The ids that a split made."""
    values: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    """Measured values, serialised, by (key, version). When written: the newly computed ones, to be kept for
    `digest`. When read: for each key the newest one kept for `digest`."""
    costs: Mapping[tuple[str, str], Decimal] = field(default_factory=dict)
    """What computing the values cost, in US dollars, by (key, version). Written, but not read with the sample."""
    dead_letter: DeadLetter | None = None
    """Written in the same transaction; a record without one removes the dead letter that its id had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One failed sample. There is at most one for a sample id: a newer failure replaces the older one."""

    pipeline: str
    """Name of the pipeline."""
    sample_id: str
    """Id of the failed sample."""
    source: FailureSource
    """Kind of component in which the sample failed."""
    where: str
    """The stage's name, the measurement's key, or the storage's backend."""
    error_type: str
    """Error class, as returned by `classify`."""
    message: str
    """Message of the exception."""
    attempts: int
    """Number of attempts made."""
    time: float
    """Unix time of the failure."""
    data: bytes | None
    """The sample's data as the source gave it or the stage derived it, serialised; None if that failed."""
    run_id: str = ""
    """Run in which the sample failed."""
    pipeline_id: str = ""
    """Id of the pipeline's definition at that time."""
    parent: str | None = None
    """Id of the sample that this one was split from."""
    derived_by: str | None = None
    """The stage that split this sample from its parent: a replay goes on behind it."""
    input_digest: str | None = None
    """SHA-256 of the data as the source gave it, in hex."""
    digest: str | None = None
    """Of the data as it was measured: what `values` belong to."""
    carrier: Mapping[str, str] = field(default_factory=dict)
    """What `enqueue` was given: strings for somebody else, such as a trace context."""
    values: Mapping[tuple[str, str], bytes] = field(default_factory=dict, compare=False)
    """What was measured before it failed, serialised, by (key, version). Goes to the sample's cached values,
    and is not part of the entry when that is read again."""
    costs: Mapping[tuple[str, str], Decimal] = field(default_factory=dict, compare=False)
    """What computing the values cost, in the same way."""

    @property
    def replayable(self) -> bool:
        """True if the data was stored, so that `Runner.replay` can process it."""
        return self.data is not None

    def with_carrier(self, carrier: Mapping[str, str]) -> DeadLetter:
        """Return a copy with another carrier."""
        return dataclasses.replace(self, carrier=dict(carrier))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterKey:
    """What a dead letter is counted by."""

    pipeline: str
    sample_id: str
    source: FailureSource
    where: str
    time: float


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of each record, in order, and how many bytes of data and values were written."""

    outcomes: tuple[WriteOutcome, ...]
    size: int
    superseded: tuple[DeadLetterKey, ...] = ()
    """The dead letters that the records' ids had before: removed or replaced by this write."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The samples that were found, by id where `query` found them, and the bytes of their data and values."""

    samples: tuple[SampleRecord, ...]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as it is stored. One without an end is still going on, or died."""

    id: str
    pipeline: str
    pipeline_id: str
    started: float
    """Unix time."""
    ended: float | None = None
    """Unix time."""
    outcome: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """An artifact that was stored or fetched."""

    key: str
    """SHA-256 of the content, in hex."""
    size: int
    deduplicated: bool = False
    """The content was there already, so nothing was written."""
    content: bytes | None = None
    """What `get` read; None from `put`."""
