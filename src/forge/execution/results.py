"""Results of the seams: all that an observer needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from ..pipeline.sample import Sample
from ..storage.steps import Retry
from ..support.money import ZERO


class StageOutcome(StrEnum):
    """Outcome of a stage's execution for one sample."""

    __hash__ = str.__hash__  # an enum's own is written in Python, and there is a count for every call

    SUCCESS = "success"
    """Returned one or several samples."""
    SKIP = "skip"
    """Returned `Skip`."""
    ERROR = "error"
    """Failed after all attempts."""
    CANCELLED = "cancelled"
    """Abandoned because the run ended."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """Result of a stage for one sample, after all attempts."""

    # Not frozen, because there is one for every call of a stage, and a frozen one takes four times as long to make.

    outcome: StageOutcome
    samples: Sequence[Sample] = ()
    """On success: the sample, or the children of a split."""
    split: bool = False
    contents: Sequence[bytes | None] | None = None
    """Serialised data of the children, where a worker has derived them."""
    skip_reason: str | None = None
    error: BaseException | None = None
    error_type: str | None = None
    attempts: int = 1
    busy: float = 0.0
    """Seconds in attempts, without the waits between them."""
    duration: float = 0.0
    """Seconds from the first attempt to the verdict."""
    retries: Sequence[Retry] = ()
    """Failed attempts before the last one, at most `MAX_RETRIES` of them."""


@dataclass(slots=True, kw_only=True)
class BatchVerdict:
    """Results of a stage for a batch: one verdict per sample, in order, and the attempts and seconds of the batch.

    Attempts and seconds stand here once; the verdicts inside carry none of their own.
    """

    verdicts: Sequence[Verdict]
    attempts: int
    busy: float
    duration: float
    error: BaseException | None = None
    """Error of the last attempt if the batch failed as a whole, so that its samples were processed alone."""
    error_type: str | None = None
    retries: Sequence[Retry] = ()
    """Failed attempts of the batch, at most `MAX_RETRIES` of them."""


class MeasurementOutcome(StrEnum):
    """Outcome of a measurement for one sample."""

    __hash__ = str.__hash__  # as above

    COMPUTED = "computed"
    """Computed in this run."""
    CACHED = "cached"
    """Read from the storage."""
    ERROR = "error"
    """Failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementResult:
    """Result of a measurement for one sample."""

    outcome: MeasurementOutcome
    value: Any = None
    error: BaseException | None = None
    error_type: str | None = None
    content: bytes | None = None
    """A computed value, serialised for the storage."""
    duration: float = 0.0
    """Seconds in `compute`; 0 where the value was cached."""
    saved: Decimal = ZERO
    """US dollars that a cached value would have cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMeasurementResult:
    """Results of a measurement for a batch, one per sample, in order. Only what was not cached was computed."""

    results: Sequence[MeasurementResult]
    computed: int
    """Number of samples passed to `compute_batch`."""
    duration: float
    failed: bool = False
    """True if the batch failed as a whole, so that its samples were measured alone."""
    error: BaseException | None = None
    """Error of the batch if it failed as a whole, or else of the first sample that failed."""
    error_type: str | None = None
