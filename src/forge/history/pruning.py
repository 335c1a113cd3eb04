"""Removal of what is no longer needed: records of old runs, and artifacts that nobody refers to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigurationError
from ..support.clock import Clock, SystemClock
from ..support.numbers import is_finite, shown
from ..support.text import on_one_line
from .liveness import RunState
from .runs import RecordedRun, runs

if TYPE_CHECKING:
    from ..storage.artifacts import ArtifactStore
    from ..storage.records import StoredArtifact
    from ..storage.sql import SQLStorage

_PAGE: Final = 50
"""Runs that are read, or removed, together."""
_KEY = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """Records and artifacts that were removed, or would be."""

    runs: Sequence[RecordedRun]
    """Runs whose records were removed, the newest first."""
    artifacts: Sequence[StoredArtifact]
    """Artifacts that were removed."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "runs": [{"run_id": run.id, "pipeline": run.pipeline, "started": run.started} for run in self.runs],
            "artifacts": [artifact._asdict() for artifact in self.artifacts],
        }


def prune(
    storage: SQLStorage,
    older_than: float,
    *,
    pipeline: str | None = None,
    artifacts: ArtifactStore | None = None,
    dry_run: bool = False,
    clock: Clock | None = None,
) -> Pruned:
    """Remove the records of runs that ended, or died, more than `older_than` seconds ago: of one pipeline, or of all.

    Samples, measured values and dead letters stay. With `artifacts`, those that are as old are removed as well if
    neither ids nor data nor values of any pipeline in the storage have their keys. With `dry_run`, nothing is removed.

    Raises:
        ConfigurationError: `older_than` is no number of seconds; or artifacts cannot be pruned, because a run is in
            progress, whose samples may refer to them, or because something is stored in which keys cannot be found.
        StorageError: the storage or the artifact store cannot be used.
    """
    if not is_finite(older_than) or older_than < 0:
        raise ConfigurationError(f"older_than must be a number of seconds from 0, not {shown(older_than)}")
    limit = (clock or SystemClock()).time() - older_than
    old = [run for run in _runs_before(storage, limit, pipeline) if _is_over(run, limit)]
    unused = _unused(storage, artifacts, limit) if artifacts is not None else []
    if not dry_run:
        for start in range(0, len(old), _PAGE):
            storage.delete_runs(run.id for run in old[start : start + _PAGE])
        if artifacts is not None:
            for artifact in unused:
                artifacts.delete(artifact.key)
    return Pruned(runs=old, artifacts=unused)


def _runs_before(storage: SQLStorage, limit: float | None, pipeline: str | None = None) -> Iterator[RecordedRun]:
    read = 0
    while page := runs(storage, pipeline=pipeline, before=limit, skip=read, limit=_PAGE):
        yield from page
        read += len(page)


def _is_over(run: RecordedRun, limit: float) -> bool:
    return run.state is not RunState.ACTIVE and (run.started if run.ended is None else run.ended) < limit


def _unused(storage: SQLStorage, artifacts: ArtifactStore, limit: float) -> list[StoredArtifact]:
    for run in _runs_before(storage, None):
        if run.state is RunState.ACTIVE:
            raise ConfigurationError(
                f"run {run.id} of pipeline {run.pipeline!r} is in progress, and may refer to artifacts that no sample "
                "refers to yet; prune them when it has ended"
            )
    found = {artifact.key: artifact for artifact in artifacts.stored() if artifact.modified < limit}
    if found:
        for pipeline, sample_id, content in storage.contents():
            if content is not None and not _is_text(content):
                raise ConfigurationError(
                    f"sample {on_one_line(sample_id, 80)!r} of pipeline {pipeline!r} is not stored as text, so it "
                    "cannot be seen which artifacts it refers to; none is pruned"
                )
            for key in _KEY.findall(sample_id.encode("utf-8", "surrogatepass") + b"\n" + (content or b"")):
                found.pop(key.decode(), None)
    return [found[key] for key in sorted(found)]


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
