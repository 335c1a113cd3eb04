"""The manifest of a run: its settled samples, written to the storage in chunks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..pipeline.sample import SampleOutcome
from ..storage import steps
from ..storage.manifests import SampleFate, encode
from ..storage.steps import SampleNotes, StepPath
from ..support.text import shortened

if TYPE_CHECKING:
    from ..execution.item import Item
    from ..storage import SQLStorage

CHUNK: Final = 1024
"""Samples in a chunk. More would not be smaller, and a run that is killed loses more of them."""

MAX_MESSAGE: Final = 1000
"""Characters kept of the message of an error with which a sample failed."""

_READY = SampleFate("ready")
_KEPT = SampleFate("unchanged", None, "ready")
_READY_OUTCOME, _SKIPPED, _UNCHANGED = SampleOutcome.READY, SampleOutcome.SKIPPED, SampleOutcome.UNCHANGED


class Manifest:
    """Collects the settled samples of one run, and writes each full chunk. May be used by several threads."""

    def __init__(self, storage: SQLStorage, run_id: str, step_names: Sequence[str]) -> None:
        self._storage = storage
        self._run_id = run_id
        self._lock = threading.Lock()
        self._ids: list[str] = []
        self._digests: list[str | None] = []
        self._fates: list[SampleFate] = []
        self._names = step_names
        self._paths: list[StepPath] = []
        self._times: list[float] = []
        self._notes: dict[int, SampleNotes] = {}
        self._written = 0

    def add(self, items: Sequence[Item], *, write: bool = True) -> None:
        """Add settled items, which still have their failures. Without `write`, they wait for `flush`.

        Raises:
            StorageError: the storage does not work. The items are kept for the next time.
        """
        with self._lock:
            self._ids += [item.sample.id for item in items]
            self._digests += [item.input_digest for item in items]
            self._fates += [fate_of(item) for item in items]
            for item in items:
                count = len(item.steps) // 2
                if item.retries is not None or item.failure is not None:
                    self._notes[len(self._paths)] = notes_on(item)
                self._paths.append(StepPath(item.step - count, count))
                self._times += item.steps
            if write and len(self._ids) >= CHUNK:
                self._write()

    def flush(self) -> None:
        """Write what is left. StorageError as for `add`."""
        with self._lock:
            if self._ids:
                self._write()

    def _write(self) -> None:
        chunk = encode(self._ids, self._digests, self._fates)
        taken = steps.encode(self._names, self._paths, self._times, self._notes)
        self._storage.add_manifest(self._run_id, self._written, chunk, taken)
        self._written += 1
        for column in (self._ids, self._digests, self._fates, self._paths, self._times, self._notes):
            column.clear()


def notes_on(item: Item) -> SampleNotes:
    """Return the notes on a settled item that was retried, or has failed."""
    failure = item.failure
    retries = item.retries or ()
    if failure is None:
        return SampleNotes(retries)
    return SampleNotes(retries, shortened(failure.message, MAX_MESSAGE), failure.attempts)


def fate_of(item: Item) -> SampleFate:
    """Return what became of a settled item."""
    outcome, failure = item.outcome, item.failure
    assert outcome is not None
    if failure is not None:
        return SampleFate(outcome.value, failure.where, failure.error_type, item.derived_by)
    if outcome is _SKIPPED and item.skip is not None:
        return SampleFate(outcome.value, *item.skip, item.derived_by)
    if outcome is _UNCHANGED:
        if item.was_ready and item.derived_by is None:
            return _KEPT
        return SampleFate(outcome.value, None, "ready" if item.was_ready else "skipped", item.derived_by)
    if outcome is _READY_OUTCOME and item.derived_by is None:
        return _READY
    reason = "cancelled" if outcome is SampleOutcome.FAILED else None  # it was in flight when the run ended
    return SampleFate(outcome.value, None, reason, item.derived_by)
