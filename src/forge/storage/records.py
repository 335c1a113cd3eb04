"""Records that are written to the storage and read from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from ..pipeline.failure import FailureSource
    from ..pipeline.sample import SampleStatus


class WriteOutcome(StrEnum):
    """Outcome of a write for one row."""

    INSERTED = "inserted"
    """The row was not there."""
    UPDATED = "updated"
    """The row was there with other content."""
    UNCHANGED = "unchanged"
    """The row was there with the same content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """A stored sample, keyed by (pipeline, id)."""

    pipeline: str
    """Name of the pipeline."""
    id: str
    """Id of the sample."""
    status: SampleStatus
    """Its position in the pipeline."""
    pipeline_id: str = ""
    """Id of the pipeline's definition with which it was processed."""
    run_id: str = ""
    """Run that has written it."""
    parent: str | None = None
    """Id of the sample that it was split from."""
    input_digest: str | None = None
    """SHA-256 of the data as the source gave it; a later run skips samples with the same one."""
    digest: str | None = None
    """SHA-256 of the data as it was measured, to which cached measurements belong."""
    data: bytes | None = None
    """The sample's data, serialised."""
    reason: str | None = None
    """Reason for skipping, or class of the error."""
    children: tuple[str, ...] = ()
    """Ids of the samples it was split into."""
    values: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    """Measured values, serialised, by (key, version). When written: the newly computed ones, to be kept for
    `digest`. When read: for each key the newest one kept for `digest`."""
    costs: Mapping[tuple[str, str], Decimal] = field(default_factory=dict)
    """Costs of computing the values, in US dollars, by (key, version). Written, but not read with the sample."""
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
    """Stage that derived this sample from its parent; a replay continues behind it."""
    input_digest: str | None = None
    """SHA-256 of the data as the source gave it, in hex."""
    digest: str | None = None
    """SHA-256 of the data as it was measured, to which `values` belong."""
    carrier: Mapping[str, str] = field(default_factory=dict)
    """Strings for observers, kept unread, such as a trace context."""
    values: Mapping[tuple[str, str], bytes] = field(default_factory=dict, compare=False)
    """Values measured before the failure, serialised, by (key, version). Goes to the sample's cached values, and is not
    part of the entry when that is read again."""
    costs: Mapping[tuple[str, str], Decimal] = field(default_factory=dict, compare=False)
    """Costs of computing the values, by the same key."""

    @property
    def replayable(self) -> bool:
        """True if the data was stored, so that `Runner.replay` can process it."""
        return self.data is not None

    def with_carrier(self, carrier: Mapping[str, str]) -> DeadLetter:
        """Return a copy with another carrier."""
        return dataclasses.replace(self, carrier=dict(carrier))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterKey:
    """The properties by which dead letters are counted."""

    pipeline: str
    """Name of the pipeline."""
    sample_id: str
    """Id of the failed sample."""
    source: FailureSource
    """Kind of component in which the sample failed."""
    where: str
    """The stage's name, the measurement's key, or the storage's backend."""
    time: float
    """Unix time of the failure."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """Result of a write: the outcome of each record, in order, and the bytes of data and values written, with those of
    dead letters.
    """

    outcomes: tuple[WriteOutcome, ...]
    """Outcome of each record, in order."""
    size: int
    """Bytes of data and values, with those of dead letters."""
    superseded: tuple[DeadLetterKey, ...] = ()
    """Earlier dead letters of the same ids, removed or replaced by this write."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Result of a read: the samples found, sorted by id for `query`, and the bytes of their data and values, with those
    of dead letters.
    """

    samples: tuple[SampleRecord, ...]
    """The samples found, sorted by id for `query`."""
    size: int
    """Bytes of data and values, with those of dead letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A stored run. Without an end, it is still in progress, or its process died."""

    id: str
    """UUID of the run."""
    pipeline: str
    """Name of the pipeline."""
    pipeline_id: str
    """Id of the pipeline's definition."""
    started: float
    """Unix time."""
    ended: float | None = None
    """Unix time."""
    outcome: str | None = None
    """A value of `RunOutcome`."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """The run's record, as plain data."""
    host: str | None = None
    """Host of the process that drives it; None if an earlier release has."""
    pid: int | None = None
    """Id of that process."""
    process: str | None = None
    """Birth of that process, as in `ProcessIdentity`."""
    silence: float | None = field(default=None, compare=False)
    """Seconds since its last heartbeat, by the clock of the database."""


class StoredArtifact(NamedTuple):
    """An artifact in the store."""

    key: str
    """SHA-256 of the content, in hex."""
    size: int
    """Bytes of content."""
    modified: float
    """Unix time when it was written."""


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """An artifact that was stored or fetched."""

    key: str
    """SHA-256 of the content, in hex."""
    size: int
    """Bytes of content."""
    deduplicated: bool = False
    """The content was there already, so nothing was written."""
    content: bytes | None = None
    """Content read by `get`; None from `put`."""
    backend: str = field(default="", compare=False)
    """The kind of its store, such as `s3`."""
