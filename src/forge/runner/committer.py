"""The last step of a run: samples are stored, and settle once that is committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..errors import StorageError, UnstorableError
from ..execution.item import Item
from ..pipeline.exceptions import is_a
from ..pipeline.failure import FailureSource
from ..pipeline.sample import SampleOutcome, SampleStatus
from ..storage.records import DeadLetter, SampleRecord

if TYPE_CHECKING:
    from ..storage import WriteResult
    from .queue import StageQueue
    from .run import Run

logger = logging.getLogger("forge")

_STORED = (SampleOutcome.READY, SampleOutcome.SKIPPED, SampleOutcome.SPLIT)
"""Outcomes that are stored in the sample's row alone; a dead letter has a row of its own."""
_READY = SampleOutcome.READY  # an enum's members are found slowly

WRITE_BATCH = 256
"""Maximum number of samples stored in one transaction."""
MAX_COMMIT_PAUSE = 0.05
"""Maximum pause in seconds between transactions: as long as the last one took, unless a full one is waiting. A
transaction costs as much as storing ten samples: for three of them it would be the same as for thirty."""
REFRESH_INTERVAL: Final = 60.0
"""Seconds after which the dead letters are counted again, since other processes may replay and drop them."""


class Committer:
    """Stores and settles processed items; used by one thread at a time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._storage = run.pipeline.storage
        self._refreshed = run.clock.monotonic()

    def settle_all(
        self,
        finished: StageQueue,
        output: StageQueue,
        release: Callable[[Sequence[Item]], list[Item]] | None = None,
    ) -> None:
        """Settle the items of a queue until its end, and hand over those that became ready; the work of a thread.

        With `release`, those are handed over that it returns for items that have settled.
        """
        now = self._run.clock.monotonic
        with self._run.supervise(output.finish):
            rested = now()
            while items := finished.take_waiting(WRITE_BATCH, rested - now()):
                started = now()
                ready = self.settle(items)
                ended = now()
                rested = ended + min(ended - started, MAX_COMMIT_PAUSE)
                if release is not None:
                    ready = release(items)
                if not output.discards:
                    handing = now()
                    try:
                        output.put_all(ready)
                    finally:
                        self._run.counters.consumer_wait += now() - handing  # by this thread only

    def settle(self, items: Sequence[Item]) -> list[Item]:
        """Store items in one transaction, and settle them; returns those that became ready.

        Raises:
            StorageError: the storage does not work. What was stored before has settled.
        """
        for item in items:
            if item.verdict is None and (item.payload is not None or self._run.serialise(item)):
                item.verdict = _READY
        if self._storage is None:
            return self._settle(items)
        stored: set[Item] = set()
        try:
            self._write([item for item in items if item.verdict in _STORED], stored)
            for item in items:
                if item.verdict is SampleOutcome.DLQ:
                    self._enqueue(item)
                    stored.add(item)
        except StorageError:
            self._settle([item for item in items if item in stored])
            raise
        settled = self._settle(items)
        self._refresh_dead_letters()
        return settled

    def _refresh_dead_letters(self) -> None:
        now = self._run.clock.monotonic()
        if now - self._refreshed >= REFRESH_INTERVAL:
            self._refreshed = now
            try:
                self._run.pipeline.dead_letters.refresh()
            except StorageError:
                # All settled samples are stored; the next transaction tells whether the storage still does not work.
                logger.exception("the dead letters of pipeline %r cannot be counted", self._run.pipeline.name)

    def _settle(self, items: Sequence[Item]) -> list[Item]:
        settled = []
        for item in items:
            assert item.verdict is not None
            error = item.failure.error if item.failure else None
            if self._run.settle(item, item.verdict, error):
                settled.append(item)
        self._run.note(settled)
        for item in items:
            item.failure = None  # the traceback of its error leads to frames that lead back
        return [item for item in settled if item.verdict is _READY]

    def _write(self, items: Sequence[Item], stored: set[Item]) -> None:
        """Write items together; if one of them cannot be written, one by one, so that only this one fails.

        Adds those that were written to `stored`.
        """
        if not items:
            return
        assert self._storage is not None
        try:
            written = self._storage.write([self._record(item) for item in items])
        except Exception as error:
            if _is_fault(error):
                raise
            if len(items) == 1:
                from ..storage.faults import is_constraint  # noqa: PLC0415 - imports SQLAlchemy

                if not is_constraint(error):
                    items[0].original = None  # no row holds the result, nor would it the next time
                self._run.fail_item(items[0], error, FailureSource.STORAGE, self._storage.backend)
                return
            for item in items:
                self._write([item], stored)
            return
        stored.update(items)
        self._count(written)
        if written.superseded:
            self._run.pipeline.dead_letters.settled(*written.superseded)

    def _record(self, item: Item) -> SampleRecord:
        """Return the record of an item that will settle with `item.verdict`."""
        assert item.verdict is not None
        sample = item.sample
        ready = item.verdict is _READY
        return SampleRecord(
            pipeline=self._run.pipeline.name,
            id=sample.id,
            status=SampleStatus(item.verdict.value),
            pipeline_id=self._run.pipeline.id,
            run_id=self._run.id,
            parent=sample.parent,
            input_digest=item.input_digest,
            digest=sample.digest if ready else None,
            data=item.payload if ready else None,
            reason=item.skip[1] if item.skip else None,
            children=item.children,
            values=dict(item.values),
            costs=dict(item.value_costs or {}),
        )

    def _enqueue(self, item: Item) -> None:
        failure, sample = item.failure, item.sample
        assert failure is not None
        entry = DeadLetter(
            pipeline=self._run.pipeline.name,
            sample_id=sample.id,
            source=failure.source,
            where=failure.where,
            error_type=failure.error_type,
            message=failure.message,
            attempts=failure.attempts,
            time=self._run.clock.time(),
            data=item.original,
            run_id=self._run.id,
            pipeline_id=self._run.pipeline.id,
            parent=sample.parent,
            derived_by=item.derived_by,
            input_digest=item.input_digest,
            digest=sample.digest if item.values else None,
            values=dict(item.values),
            costs=dict(item.value_costs or {}),
        )
        enqueue = self._run.pipeline.dead_letters.enqueue
        try:
            try:
                written = item.context.copy().run(enqueue, entry, None, failure.error)
            except Exception as error:
                if _is_fault(error) or not (entry.data or entry.values):
                    raise
                # No row holds its data, or a value that was measured before it failed.
                bare = replace(entry, data=None, digest=None, values={}, costs={})
                written = item.context.copy().run(enqueue, bare, None, failure.error)
        except Exception as error:
            if _is_fault(error):
                raise
            logger.exception("sample %r failed, and its dead letter could not be written", sample.id)
            item.verdict = SampleOutcome.FAILED
        else:
            self._count(written)

    def _count(self, written: WriteResult) -> None:
        with self._run.lock:
            counts = self._run.counters.storage
            for outcome in written.outcomes:
                counts[outcome.value] += 1
            counts["bytes_written"] += written.size


def _is_fault(error: Exception) -> bool:
    """Return True for a fault of the storage, False for an error of the samples."""
    return is_a(error, StorageError) and not is_a(error, UnstorableError)
