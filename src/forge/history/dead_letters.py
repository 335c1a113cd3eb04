"""Dead letters of one pipeline or of all: found by filters, and dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..pipeline.serializer import JSONSerializer
from ..storage.dead_letters import DeadLetterQueue

if TYPE_CHECKING:
    from ..storage.records import DeadLetter
    from ..storage.sql import SQLStorage


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """A choice of dead letters: those that fit all of what is given."""

    pipeline: str | None = None
    """Name of the pipeline."""
    where: str | None = None
    """Stage, measurement or storage backend in which the sample failed."""
    error_type: str | None = None
    """Class of the error, as returned by `classify`."""
    run_id: str | None = None
    """Run in which the sample failed."""
    ids: Sequence[str] = ()
    """Ids of samples; empty for all."""
    since: float | None = None
    """Unix time of the failure, or later."""
    until: float | None = None
    """Unix time after the failure."""

    def find(self, storage: SQLStorage, limit: int | None = None) -> list[DeadLetter]:
        """Return the entries, the oldest first.

        Raises:
            StorageError: the storage cannot be read.
        """
        return storage.dead_letters(self.pipeline, ids=self.ids or None, limit=limit, **self._conditions)

    def count(self, storage: SQLStorage) -> dict[tuple[str, str, str], int]:
        """Return the numbers of entries by (pipeline, place, error type), the largest first; StorageError as above."""
        if not self.ids:
            return storage.count_dead_letters(self.pipeline, **self._conditions)
        counts: dict[tuple[str, str, str], int] = {}
        for entry in self.find(storage):
            key = (entry.pipeline, entry.where, entry.error_type)
            counts[key] = counts.get(key, 0) + 1
        return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))

    @property
    def chooses_all(self) -> bool:
        """True if nothing but the pipeline is given."""
        return not self.ids and all(value is None for value in self._conditions.values())

    @property
    def _conditions(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("where", "error_type", "run_id", "since", "until")}


def drop_dead_letters(storage: SQLStorage, entries: Iterable[DeadLetter]) -> list[DeadLetter]:
    """Remove entries, and return those that were removed. Their samples keep the status `dlq`, so the next run tries
    them again.

    Raises:
        StorageError: the storage does not work. Entries of other pipelines may have been removed.
    """
    by_pipeline: dict[str, list[str]] = {}
    for entry in entries:
        by_pipeline.setdefault(entry.pipeline, []).append(entry.sample_id)
    dropped: list[DeadLetter] = []
    for pipeline, ids in by_pipeline.items():
        dropped += DeadLetterQueue(storage, pipeline, JSONSerializer()).drop(ids)
    return dropped
