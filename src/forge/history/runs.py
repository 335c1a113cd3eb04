"""Runs as they are recorded in a storage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..errors import RunNotFoundError
from ..support.money import ZERO
from ..support.numbers import MAX_COUNT
from .liveness import RunState, state_of

if TYPE_CHECKING:
    from ..storage.records import RunRow
    from ..storage.sql import SQLStorage

_LAST = re.compile(r"last(?:~(\d{1,9}))?")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_PAGE = 50
"""Runs that are read together."""
_TELEMETRY = "telemetry."
"""Prefix of what telemetry says about itself in the carrier of a run."""
_SHOWN_IDS = 4
"""Ids in an error about an ambiguous prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run in the storage."""

    id: str
    """UUID of the run."""
    pipeline: str
    """Name of the pipeline."""
    pipeline_id: str
    """Id of the pipeline's definition."""
    started: float
    """Unix time."""
    ended: float | None
    """Unix time; None without an end."""
    outcome: str | None
    """A value of `RunOutcome`; None without an end."""
    state: RunState
    """State of the run, as it can be told from here."""
    evidence: str
    """Reason for taking it as died or active; empty once it has ended."""
    host: str | None
    """Host of its process; None if an earlier release has recorded it."""
    pid: int | None
    """Id of its process there."""
    record: Mapping[str, Any]
    """The run's record: `RunResult.to_dict()` once the run has ended, and only its `definition`, `carrier` and `stalls`
    before."""

    @property
    def is_stalled(self) -> bool:
        """True if it is active, and nothing has settled for its pipeline's `stall_after` seconds."""
        stalls: Sequence[Mapping[str, Any]] = self.record.get("stalls") or []
        return self.state is RunState.ACTIVE and bool(stalls) and not stalls[-1]["over"]

    @property
    def duration(self) -> float | None:
        """Seconds from start to end; None without an end."""
        return None if self.ended is None else self.ended - self.started

    @property
    def ledger(self) -> Mapping[str, int] | None:
        """Counts of samples by outcome, as in `Ledger`; None without an end."""
        found: Mapping[str, int] | None = self.record.get("ledger")
        return found

    @property
    def cost(self) -> Decimal:
        """Costs of API calls in US dollars."""
        return Decimal(self.record["cost"]["amount"]) if "cost" in self.record else ZERO

    @property
    def trace_id(self) -> str | None:
        """Id of the trace of the run, in hex; None if it was not recorded."""
        return trace_id_in(self.record.get("carrier") or {})

    @property
    def telemetry(self) -> Mapping[str, int | bool]:
        """Counts of telemetry recorded and lost until the run's end: `spans`, `suppressed` (left out by sampling or a
        budget), `faults` (inside it), `undelivered` (in exports that failed) and `queue_full` (True if a queue has
        been full, and may have dropped some). Empty without telemetry. Losses after the end are not in it.
        """
        found = (self.record.get("carrier") or {}).items()
        texts = {name.removeprefix(_TELEMETRY): text for name, text in found if name.startswith(_TELEMETRY)}
        return {name: int(text) if text.isdecimal() else text == "true" for name, text in texts.items()}

    @property
    def limited_by(self) -> str | None:
        """Name of the stage that limited the run, or another limit such as `source`, where the record says so."""
        verdict = self.record.get("verdict") or {}
        limit: str | None = verdict.get("stage") or verdict.get("limit")
        return None if limit == "none" else limit

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "run_id": self.id,
            "pipeline": self.pipeline,
            "pipeline_id": self.pipeline_id,
            "started": self.started,
            "ended": self.ended,
            "state": self.state.value,
            "evidence": self.evidence,
            "host": self.host,
            "pid": self.pid,
            "outcome": self.outcome,
            "duration": self.duration,
            "trace_id": self.trace_id,
            "telemetry": dict(self.telemetry) or None,
            **{key: value for key, value in self.record.items() if key not in _COLUMNS},
        }


_COLUMNS = frozenset({"run_id", "pipeline", "pipeline_id", "started", "ended", "outcome", "duration"})


def trace_id_in(carrier: Mapping[str, str]) -> str | None:
    """Return the id of the trace of a carrier of W3C's Trace Context, in hex; None if there is none."""
    found = _TRACEPARENT.fullmatch(carrier.get("traceparent", ""))
    return found[1] if found else None


def runs(
    storage: SQLStorage,
    *,
    pipeline: str | None = None,
    before: float | None = None,
    limit: int | None = None,
    skip: int = 0,
) -> list[RecordedRun]:
    """Return the recorded runs of one pipeline, or of all, the newest first, without the first `skip` of them; only
    those started `before` this Unix time, if one is given.

    Raises:
        StorageError: the storage cannot be read.
    """
    return [_recorded(row) for row in storage.runs(pipeline, limit, before=before, skip=skip)]


def find_run(storage: SQLStorage, reference: str, *, pipeline: str | None = None) -> RecordedRun:
    """Return the run with an id or an unambiguous prefix of one; `last` is the newest run, `last~1` the one before.

    Raises:
        RunNotFoundError: there is no such run, or there are several.
        StorageError: the storage cannot be read.
    """
    of = f" of pipeline {pipeline!r}" if pipeline is not None else ""
    if (last := _LAST.fullmatch(reference)) is not None:
        back = int(last[1] or 0)
        found = storage.runs(pipeline, 1, skip=min(back, MAX_COUNT))
        if not found:
            count = len(storage.runs(pipeline))
            counted = f"{count} run{'' if count == 1 else 's'}{of and ' of it'}"
            raise RunNotFoundError(f"there is no run {reference}{of}: the storage has {counted}")
    else:
        found = storage.runs(pipeline, _SHOWN_IDS + 1, prefix=reference.lower()) if reference else []
        if not found:
            raise RunNotFoundError(f"there is no run {reference!r}{of}")
        if len(found) > 1:
            ids = ", ".join(row.id for row in found[:_SHOWN_IDS])
            more = ", …" if len(found) > _SHOWN_IDS else ""
            raise RunNotFoundError(f"{reference!r} begins the ids of several runs: {ids}{more}")
    return _recorded(found[0])


def last_two(storage: SQLStorage, *, pipeline: str | None = None) -> tuple[RecordedRun, RecordedRun, list[RecordedRun]]:
    """Return the last two runs of one pipeline that have ended, the older one first; and those without an end that were
    passed over, the newest first.

    Without a `pipeline`, it is the one that has ended last.

    Raises:
        RunNotFoundError: fewer than two runs have ended.
        StorageError: the storage cannot be read.
    """
    ended: list[RecordedRun] = []
    passed: list[RecordedRun] = []
    read = 0
    while page := runs(storage, skip=read, limit=_PAGE):
        read += len(page)
        for run in page:
            if run.pipeline != (ended[0].pipeline if ended else pipeline or run.pipeline):
                continue
            (passed if run.ended is None else ended).append(run)
            if len(ended) == 2:
                of_it = [each for each in passed if each.pipeline == run.pipeline]
                return run, ended[0], of_it
    of = f" of pipeline {ended[0].pipeline if ended else pipeline!r}" if ended or pipeline is not None else ""
    found = f"{len(ended)} run{of} has ended" if ended else f"no run{of} has ended"
    raise RunNotFoundError(f"there are no two runs to compare: {found}")


def stored_by(storage: SQLStorage, run: RecordedRun) -> dict[str, int]:
    """Return the number of samples that a run was the last to change in the storage, by status.

    For a run without an end, which has no ledger: what it has stored until now, or had until it died. Samples that it
    found `unchanged`, or stored again with the same content, are not among them.

    Raises:
        StorageError: the storage cannot be read.
    """
    return {status.value: count for status, count in storage.statuses(run.pipeline, run.id).items()}


def _completed(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record of a run that has ended, with what release 0.1.0 did not record: its `failures` were only those
    without a dead letter, and without the first message.
    """
    if "type" in record or "ledger" not in record:
        return record
    failures = [
        {**letters, "sample_id": "", "message": "release 0.1.0 has recorded no message"}
        for letters in record["dead_letters"]
    ]
    added = {"type": "full", "batch_failures": [], "stalls": [], "failures": [*record["failures"], *failures]}
    return {**record, **added, "cost": {"failed_calls": 0, **record["cost"]}}


def _recorded(row: RunRow) -> RecordedRun:
    state, evidence = state_of(row)
    return RecordedRun(
        id=row.id,
        pipeline=row.pipeline,
        pipeline_id=row.pipeline_id,
        started=row.started,
        ended=row.ended,
        outcome=row.outcome,
        state=state,
        evidence=evidence,
        host=row.host,
        pid=row.pid,
        record=_completed(row.record),
    )
