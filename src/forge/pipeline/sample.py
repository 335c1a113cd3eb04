"""Samples: the data that pipelines process."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class SampleStatus(StrEnum):
    """Position of a sample in the pipeline, stored with it."""

    PENDING = "pending"
    """Not yet processed by all stages."""
    MEASURED = "measured"
    """Processed by all stages and measurements, not yet stored."""
    READY = "ready"
    """Processed and stored."""
    SKIPPED = "skipped"
    """A stage returned `Skip`."""
    SPLIT = "split"
    """A stage returned several samples, which continue in its place."""
    DLQ = "dlq"
    """Failed, and is stored as a dead letter."""
    FAILED = "failed"
    """Failed without a dead letter."""


class SampleOutcome(StrEnum):
    """Outcome of a sample in a run; each sample settles with exactly one."""

    __hash__ = str.__hash__  # an enum's own is written in Python, and there is a count for every sample

    READY = "ready"
    """Passed all stages and measurements, and is stored."""
    SKIPPED = "skipped"
    """A stage returned `Skip`."""
    UNCHANGED = "unchanged"
    """Finished by an earlier run, so nothing was done."""
    SPLIT = "split"
    """A stage returned several samples, which continue in its place."""
    DLQ = "dlq"
    """Failed, and is stored as a dead letter."""
    FAILED = "failed"
    """Failed without a dead letter: the pipeline has no storage, the id is a duplicate, or the run was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One unit of data in a pipeline. Frozen: a stage returns a new one.

    A source gives `data` and, if it knows one, an `id` by which a later run recognises the sample;
    without one the id is derived from the content. All other fields are filled in by the run.
    """

    data: Any
    """The content that stages transform; any type that the pipeline's serializer can store."""
    id: str = ""
    """Identity of the sample within its pipeline, the same in every run."""
    pipeline: str = ""
    """Name of the pipeline."""
    measurements: Mapping[str, Any] = field(default_factory=dict)
    """Measured values by key, filled in as measurements complete."""
    status: SampleStatus = SampleStatus.PENDING
    """Position in the pipeline."""
    dlq_reason: str | None = None
    """Class of the error, if the status is `dlq`."""
    parent: str | None = None
    """Id of the sample that this one was split from; None for samples of the source."""
    digest: str | None = None
    """SHA-256 of the serialised data, in hex; None if it was not needed or the data cannot be serialised."""

    def with_data(self, data: Any) -> Sample:
        """Return the same sample with other data, as most stages do."""
        return replace(self, data=data, digest=None)

    def child(self, key: str, data: Any) -> Sample:
        """Return a sample that is split off from this one.

        `key` tells the children of one parent apart; the child's id is `{parent id}#{key}`, so a key that is
        the same in the next run makes the child recognisable there.
        """
        return Sample(data=data, id=f"{self.id}#{key}", pipeline=self.pipeline, parent=self.id)


_SAME: Any = object()


def with_private_values(sample: Sample) -> Sample:
    """Copy a sample with its measured values, for another call of user code."""
    return replace(sample, measurements=private_copies(sample.measurements))


def private_copies(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy measured values, which user code may change in place."""
    return {key: private_copy(value) for key, value in values.items()}


def private_copy(value: Any) -> Any:
    """Copy a value, so that nobody else can change it; immutable ones and those that cannot be copied are returned."""
    if type(value) in _IMMUTABLE:
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - the user's class may raise anything
        return value


_IMMUTABLE = frozenset({str, int, float, bool, bytes, type(None)})


def replace(
    sample: Sample,
    *,
    data: Any = _SAME,
    measurements: Mapping[str, Any] = _SAME,
    status: SampleStatus = _SAME,
    dlq_reason: str | None = _SAME,
    digest: str | None = _SAME,
) -> Sample:
    """Return a copy with other fields, in a third of the time of `dataclasses.replace`, which inspects the class each
    time."""
    return make_sample(
        sample.data if data is _SAME else data,
        sample.id,
        sample.pipeline,
        sample.measurements if measurements is _SAME else measurements,
        sample.status if status is _SAME else status,
        sample.dlq_reason if dlq_reason is _SAME else dlq_reason,
        sample.parent,
        sample.digest if digest is _SAME else digest,
    )


class _Draft:
    """A sample that is not frozen yet."""

    __slots__ = Sample.__slots__


def make_sample(  # noqa: PLR0917 - named arguments take longer
    data: Any,
    id: str,  # noqa: A002 - the field's name
    pipeline: str,
    measurements: Mapping[str, Any],
    status: SampleStatus,
    dlq_reason: str | None,
    parent: str | None,
    digest: str | None,
) -> Sample:
    """Create a sample in a third of the time of `Sample(…)`: a frozen dataclass sets each field by a call of its own.

    It is filled in as an object of a class with the same slots, and given its own class at the end.
    """
    draft: Any = _Draft()
    draft.data = data
    draft.id = id
    draft.pipeline = pipeline
    draft.measurements = measurements
    draft.status = status
    draft.dlq_reason = dlq_reason
    draft.parent = parent
    draft.digest = digest
    draft.__class__ = Sample
    return draft  # type: ignore[no-any-return]  # it is one now


@dataclass(frozen=True, slots=True)
class Skip:
    """Result of a stage for a sample that is dropped without being a failure.

    `reason` is counted, so keep it to a few fixed words (`duplicate`, `too short`), without ids or values.
    """

    reason: str
    """Reason for skipping, counted in the record and in `forge.skip.reason`."""
