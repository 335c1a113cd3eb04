"""The dead-letter queue: failed samples, with all that is needed to inspect and replay them."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import NotReplayableError
from ..pipeline.exceptions import describe
from ..pipeline.failure import FailureSource
from ..pipeline.sample import Sample, SampleStatus
from ..pipeline.serializer import Serializer, digest_of
from .records import DeadLetter, SampleRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .records import DeadLetterKey, WriteResult
    from .sql import SQLStorage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeadLetterSnapshot:
    """Counts of a pipeline's dead letters."""

    depth: Mapping[tuple[FailureSource, str], int] = field(default_factory=lambda: MappingProxyType({}))
    """Numbers by (source, where). Places that were emptied stay, with 0."""
    oldest: float | None = None
    """Unix time of the oldest entry."""


class DeadLetterQueue:
    """The dead letters of one pipeline, kept in its storage."""

    def __init__(self, storage: SQLStorage, pipeline: str, serializer: Serializer) -> None:
        self.storage = storage
        self.pipeline = pipeline
        self.serializer = serializer
        # Counting in the database takes longer the more entries there are, so every change is counted here
        # instead. Changes take turns, storage included, so that none is counted twice; readers take what was
        # published last.
        self._lock = threading.Lock()
        self._snapshot = DeadLetterSnapshot()

    def enqueue(
        self,
        entry: DeadLetter,
        carrier: Mapping[str, str] | None = None,
        error: BaseException | None = None,  # noqa: ARG002 - for observers
    ) -> WriteResult:
        """Store a failed sample: the entry, and the sample's row with status `dlq`, in one transaction.

        A carrier replaces the entry's own. `error` is the exception that the entry is about, where there is one. Errors
        are those of `SQLStorage.write`.
        """
        if carrier is not None:
            entry = entry.with_carrier(carrier)
        record = SampleRecord(
            pipeline=entry.pipeline,
            id=entry.sample_id,
            status=SampleStatus.DLQ,
            pipeline_id=entry.pipeline_id,
            run_id=entry.run_id,
            parent=entry.parent,
            input_digest=entry.input_digest,
            digest=entry.digest,
            reason=entry.error_type,
            values=entry.values if entry.digest is not None else {},
            costs=entry.costs if entry.digest is not None else {},
            dead_letter=entry,
        )
        with self._lock:
            result = self.storage.write([record])
            self._count(added=[entry], removed=result.superseded)
        return result

    def list(
        self, *, where: str | None = None, error_type: str | None = None, limit: int | None = None
    ) -> list[DeadLetter]:
        """Return the entries, the oldest first; optionally only those of one place or class of error."""
        return self.storage.dead_letters(self.pipeline, where=where, error_type=error_type, limit=limit)

    def get(self, sample_id: str) -> DeadLetter | None:
        """Return the entry of a sample, if it has one."""
        return next(iter(self.storage.dead_letters(self.pipeline, ids=[sample_id])), None)

    def replay(self, entry: DeadLetter) -> Sample:
        """Return an entry's sample for a replay, with the data as the source gave it or the stage derived it.

        The entry stays until the sample's success is stored.

        Raises:
            NotReplayableError: if the data was not stored, or the serializer cannot read it.
        """
        if entry.data is None:
            raise NotReplayableError(
                f"sample {entry.sample_id!r} cannot be replayed: its data was not stored ({entry.message})"
            )
        try:
            data = self.serializer.loads(entry.data)
        except Exception as error:
            raise NotReplayableError(
                f"sample {entry.sample_id!r} cannot be replayed: the serializer cannot read its data: {describe(error)}"
            ) from error
        return Sample(
            data=data,
            id=entry.sample_id,
            pipeline=entry.pipeline,
            parent=entry.parent,
            digest=digest_of(entry.data),
        )

    def drop(self, sample_ids: Iterable[str]) -> Sequence[DeadLetter]:
        """Remove entries, and return them.

        Their samples keep the status `dlq`, so the next run tries them again.
        """
        with self._lock:
            dropped = self.storage.drop_dead_letters(self.pipeline, sample_ids)
        self.refresh()  # done by hand and seldom, so what others did may be seen as well
        return dropped

    def settled(self, *entries: DeadLetter | DeadLetterKey) -> None:
        """Count entries that the write of a success has removed: `WriteResult.superseded` names them."""
        with self._lock:
            self._count(removed=entries)

    def snapshot(self) -> DeadLetterSnapshot:
        """Return the numbers of the last `refresh`, with changes made here since; never waits, never reads. A run
        refreshes them at its start and end, and once a minute while samples settle.
        """
        return self._snapshot

    def refresh(self) -> DeadLetterSnapshot:
        """Read the numbers from the storage: what other processes did is seen only then."""
        with self._lock:
            stored, oldest = self.storage.dead_letter_state(self.pipeline)
            self._publish({**dict.fromkeys(self._snapshot.depth, 0), **stored}, oldest)
        return self._snapshot

    def __reduce__(self) -> tuple[type[DeadLetterQueue], tuple[SQLStorage, str, Serializer]]:
        # In another process it starts with no numbers, as it does here before the first `refresh`.
        return type(self), (self.storage, self.pipeline, self.serializer)

    def _count(
        self,
        *,
        added: Iterable[DeadLetter] = (),
        removed: Iterable[DeadLetter | DeadLetterKey] = (),
    ) -> None:
        depth, oldest = dict(self._snapshot.depth), self._snapshot.oldest
        stale = False
        for entry in removed:
            place = (entry.source, entry.where)
            depth[place] = max(0, depth.get(place, 0) - 1)
            stale = stale or oldest is None or entry.time <= oldest
        for entry in added:
            place = (entry.source, entry.where)
            depth[place] = depth.get(place, 0) + 1
            oldest = entry.time if oldest is None else min(oldest, entry.time)
        if stale:
            try:
                first = self.storage.dead_letters(self.pipeline, limit=1)
                oldest = first[0].time if first else None
            except Exception:
                # The change itself is stored, and must not look as if it had failed; `refresh` puts this right.
                logger.exception("the time of pipeline %r's oldest dead letter is not known", self.pipeline)
        self._publish(depth, oldest)

    def _publish(self, depth: Mapping[tuple[FailureSource, str], int], oldest: float | None) -> None:
        self._snapshot = DeadLetterSnapshot(MappingProxyType(dict(depth)), oldest)
