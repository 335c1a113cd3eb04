"""The story of one sample in a run: its steps, and what the storage has of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import SampleNotFoundError
from ..support.text import on_one_line
from .liveness import RunState
from .runs import trace_id_in

if TYPE_CHECKING:
    from ..storage.manifests import ManifestEntry, SampleFate
    from ..storage.records import DeadLetter, SampleRecord
    from ..storage.sql import SQLStorage
    from ..storage.steps import RecordedStep, SampleSteps
    from .runs import RecordedRun

_SUGGESTIONS = 3
"""Ids in an error about a sample that there is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleStory:
    """Story of one sample, in a run and since."""

    id: str
    """Id of the sample."""
    run_id: str
    """UUID of the run."""
    pipeline: str
    """Name of the pipeline."""
    fate: SampleFate | None
    """Its outcome in the run, with place and reason; None if the run has not recorded it."""
    steps: Sequence[RecordedStep]
    """Its steps in the run; none if it was `unchanged`, and for runs of earlier releases."""
    error: str | None
    """Message of the error with which it failed in the run."""
    attempts: int
    """Attempts made before it failed; otherwise 1."""
    note: str
    """Reason why the run has no steps of it; empty if there are steps."""
    status: str | None
    """Its status now, whichever run has given it; None if there is no row of it."""
    status_run_id: str | None
    """UUID of the last run that has changed its row."""
    parent: str | None
    """Id of the sample that it was split from."""
    derived_by: str | None
    """Stage that derived it."""
    children: Sequence[str]
    """Ids of the samples it was split into."""
    measurements: Mapping[str, Any]
    """Its measured values now, by key. What is not JSON is `bytes`."""
    versions: Mapping[str, str]
    """Versions of the measurements, by key."""
    size: int | None
    """Bytes of its stored data; None if there is none."""
    dead_letter: DeadLetter | None = field(repr=False)
    """Its dead letter now."""
    trace_id: str | None
    """Id of the trace in which it failed, in hex, if its dead letter has one."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON. Bytes are left out, but for their number."""
        letter = self.dead_letter
        return {
            "sample_id": self.id,
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "outcome": self.fate and self.fate.outcome,
            "where": self.fate and self.fate.where,
            "reason": self.fate and self.fate.reason,
            "error": self.error,
            "attempts": self.attempts,
            "note": self.note,
            "steps": [
                {**step._asdict(), "retries": [retry._asdict() for retry in step.retries]} for step in self.steps
            ],
            "status": self.status,
            "status_run_id": self.status_run_id,
            "parent": self.parent,
            "derived_by": self.derived_by,
            "children": list(self.children),
            "measurements": {
                key: {"bytes": len(value)} if isinstance(value, bytes) else value
                for key, value in self.measurements.items()
            },
            "versions": dict(self.versions),
            "size": self.size,
            "dead_letter": letter
            and {
                "source": letter.source.value,
                "where": letter.where,
                "error_type": letter.error_type,
                "message": letter.message,
                "attempts": letter.attempts,
                "time": letter.time,
                "run_id": letter.run_id,
                "replayable": letter.replayable,
            },
            "trace_id": self.trace_id,
        }


def story_of(storage: SQLStorage, run: RecordedRun, sample_id: str) -> SampleStory:
    """Return the story of a sample of a run.

    Its steps and its outcome are those in the run; status, measurements, children and dead letter are those of today.

    Raises:
        SampleNotFoundError: neither the run nor the storage knows the sample.
        StorageError: the storage cannot be read.
    """
    entries = storage.manifest_entries(run.id, sample_id)
    records = storage.read(run.pipeline, [sample_id]).samples
    if not entries and not records:
        raise SampleNotFoundError(_unknown(storage, run, sample_id))
    # If an id came twice, only the entry of the kept sample has steps.
    entry, taken = max(entries, key=_number_of_steps) if entries else (None, None)
    record = records[0] if records else None
    letter = record.dead_letter if record else None
    steps = taken.steps if taken else ()
    values = {key: _decoded(value) for (key, _), value in record.values.items()} if record else {}
    return SampleStory(
        id=sample_id,
        run_id=run.id,
        pipeline=run.pipeline,
        fate=entry.fate if entry else None,
        steps=steps,
        error=taken.message if taken else None,
        attempts=taken.attempts if taken else 1,
        note="" if steps else _reason_without_steps(run, entry, taken, record),
        status=record.status.value if record else None,
        status_run_id=record.run_id if record else None,
        parent=record.parent if record else None,
        derived_by=(entry.fate.derived_by if entry else None) or (letter.derived_by if letter else None),
        children=record.children if record else (),
        measurements=dict(sorted(values.items())),
        versions=dict(record.values.keys()) if record else {},
        size=len(record.data) if record and record.data is not None else None,
        dead_letter=letter,
        trace_id=trace_id_in(letter.carrier) if letter else None,
    )


def _number_of_steps(found: tuple[ManifestEntry, SampleSteps | None]) -> int:
    return len(found[1].steps) if found[1] else 0


def _reason_without_steps(
    run: RecordedRun, entry: ManifestEntry | None, taken: SampleSteps | None, record: SampleRecord | None
) -> str:
    if entry is not None and entry.fate.outcome == "unchanged":
        return "an earlier run had finished it, so it took no steps in this one"
    if entry is not None:
        if taken is not None:
            return "it took no steps: it failed before the first one" if taken.message else "it took no steps"
        return "a release that recorded no steps has run it"
    if record is not None and record.run_id == run.id:
        if run.state is RunState.ENDED:
            return "a release that recorded no steps has run it"
        return "it has settled, but its steps are not written yet; if the run has died, they are lost"
    if run.state is RunState.ENDED:
        return "this run has not settled it"
    return "this run has not settled it, or not yet"


def _unknown(storage: SQLStorage, run: RecordedRun, sample_id: str) -> str:
    what = f"there is no sample {on_one_line(sample_id, 80)!r} in pipeline {run.pipeline!r}"
    if run.state is RunState.ACTIVE:
        what += ", or it is still in flight"
    like = storage.ids_like(run.pipeline, sample_id, _SUGGESTIONS)
    return f"{what}; there is {', '.join(repr(on_one_line(each, 80)) for each in like)}" if like else what


def _decoded(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
