"""Admission of samples into a run: items are created, and results of earlier runs looked up."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import DuplicateIdError, SerializationError, SourceError, UnstorableError
from ..execution.item import Item
from ..pipeline.exceptions import describe, is_a
from ..pipeline.failure import FailureSource
from ..pipeline.sample import Sample, SampleOutcome, SampleStatus, make_sample
from ..pipeline.serializer import content_of, digest_of
from ..storage.dead_letters import DeadLetterQueue
from ..storage.records import DeadLetter, SampleRecord
from ..storage.rows import why_not_id
from .seen_ids import SeenIds

if TYPE_CHECKING:
    from .run import Run

logger = logging.getLogger("forge")

_PENDING = SampleStatus.PENDING  # an enum's members are found slowly


class Replayed:
    """The samples of dead letters, as a source with a size."""

    def __init__(self, queue: DeadLetterQueue, entries: Sequence[DeadLetter]) -> None:
        self._queue = queue
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Sample]:
        for entry in self._entries:
            yield self._queue.replay(entry)


def derived_id(parent: str, given: str, index: int) -> str:
    """Return the id of the sample that a stage derived from `parent` as number `index`, and `given` this id."""
    # One made with `with_data` still has its parent's id.
    return given if given and given != parent else f"{parent}#{index}"


class Admission:
    """Creates the items of one run. Without `resume`, nothing counts as finished."""

    def __init__(self, run: Run, *, resume: bool, replay: Sequence[DeadLetter] | None) -> None:
        self._run = run
        self._pipeline = run.pipeline
        self._resume = resume
        self._replay = None if replay is None else {entry.sample_id: entry for entry in replay}
        self._seen = SeenIds()
        self._unnamed = 0
        self.reads_storage = run.pipeline.storage is not None
        """False if the storage was empty when the run began, so that lookups can be skipped."""

    def item(self, sample: Sample) -> Item:
        """Create an item for a sample of the source, or for a dead letter that is replayed."""
        item = self._new(sample)
        entry = self._replay.get(item.sample.id) if self._replay is not None else None
        if entry is not None:
            item.dead_letter = entry
            item.derived_by = entry.derived_by
        return item

    def read(self, sample_id: str, digest: str | None) -> Item:
        """Create an item for a sample of the source that a worker has read and serialised, and keeps."""
        return self._made(Sample(data=None, id=sample_id), None, digest)

    def children(
        self, parent: Item, samples: Sequence[Sample], stage_name: str, contents: Sequence[bytes | None] | None = None
    ) -> list[Item]:
        """Create items for the samples that a stage derived from one; a worker has serialised their `contents`."""
        children = []
        for index, sample in enumerate(samples):
            # A child made with `with_data` still has its parent's id.
            own = sample.id and sample.id != parent.sample.id
            sample_id = sample.id if own else parent.sample.child(str(index), None).id
            derived = Sample(data=sample.data, id=sample_id, parent=parent.sample.id)
            child = self._new(derived) if contents is None else self._serialised(derived, contents[index])
            child.derived_by = stage_name
            child.place = (*parent.place, index)
            child.step = parent.step
            child.family = parent.family
            children.append(child)
        parent.children = tuple(child.sample.id for child in children)
        return children

    def replayed(self) -> Replayed:
        """Return the dead letters that this run replays, as its source."""
        return Replayed(self._pipeline.dead_letters, list((self._replay or {}).values()))

    def look_up(self, items: Sequence[Item]) -> None:
        """Look up new items in the storage, and determine where each continues.

        Sets the `verdict` of those for which nothing is to be done, because their id was refused or an earlier run had
        finished them, and the `step` behind which a derived dead letter goes on.
        """
        new: dict[str, Item] = {}
        for item in items:
            if item.refusal is not None:
                self._run.fail_item(item, item.refusal, FailureSource.STAGE, item.derived_by or "source")
                item.verdict = SampleOutcome.FAILED
            elif item.dead_letter is not None:
                self._go_on_behind(item, item.dead_letter.derived_by)
            elif self.reads_storage:
                new[item.sample.id] = item
        if not new:
            return
        storage = self._pipeline.storage
        assert storage is not None
        for record in storage.read(self._pipeline.name, list(new)).samples:
            item = new[record.id]
            item.dead_letter = record.dead_letter
            item.was_ready = record.status is SampleStatus.READY
            if self._resume and item.input_digest is not None and self._finished(record, item.input_digest):
                item.verdict = SampleOutcome.UNCHANGED
                item.was_ready = record.status is not SampleStatus.SKIPPED

    def is_finished(self, record: SampleRecord) -> bool:
        """Return True if the run does nothing for a sample that is stored like this, and has not changed."""
        return self._resume and record.input_digest is not None and self._finished(record, None)

    def close(self) -> None:
        """Forget the ids seen."""
        self._seen.close()

    def _new(self, sample: Sample) -> Item:
        original: bytes | None = None
        digest: str | None = None
        if self._pipeline.storage is not None or not sample.id:
            try:
                content = content_of(self._pipeline.serializer, sample.data)
                digest = digest_of(content)
                original = content
            except Exception as error:  # noqa: BLE001 - the user's serializer may raise anything
                if not is_a(error, SerializationError):
                    logger.warning("the serializer failed on the data of sample %r: %s", sample.id, describe(error))
        return self._made(sample, original, digest)

    def _serialised(self, sample: Sample, content: bytes | None) -> Item:
        """Create an item for a sample that a worker has serialised, if that was needed and possible."""
        return self._made(sample, content, None if content is None else digest_of(content))

    def _made(self, sample: Sample, original: bytes | None, digest: str | None) -> Item:
        item = Item(
            make_sample(
                sample.data,
                sample.id or self._id_from(digest),
                self._pipeline.name,
                {},
                _PENDING,
                None,
                sample.parent,
                digest,
            ),
            self._run.context.copy(),
        )
        item.original, item.input_digest = original, digest
        item.refusal = self._refusal(item.sample.id)
        return item

    def _refusal(self, sample_id: str) -> Exception | None:
        """Return the error of a sample that must not be processed because of its id."""
        if not self._seen.add(sample_id):
            return DuplicateIdError(f"sample id {sample_id!r} came twice in this run; the first one is kept")
        if self._pipeline.storage is not None and (reason := why_not_id(sample_id)) is not None:
            return UnstorableError(f"sample {sample_id[:80]!r}… cannot be stored: {reason}")
        return None

    def _id_from(self, digest: str | None) -> str:
        if digest is not None:
            return digest[:32]
        # Without bytes to derive one from, an id of this run alone has to do.
        self._unnamed += 1
        return f"{self._run.id}:{self._unnamed}"

    def _go_on_behind(self, item: Item, stage: str | None) -> None:
        if stage is None:
            return
        names = [each.name for each in self._pipeline.stages]
        if stage in names:
            item.step = names.index(stage) + 1
        else:
            error = SourceError(f"the stage {stage!r}, behind which it goes on, is not in the pipeline")
            self._run.fail_item(item, error, FailureSource.STAGE, stage)

    def _finished(self, record: SampleRecord, input_digest: str | None) -> bool:
        """Return True if an earlier run finished the sample, and all samples split from it."""
        if record.pipeline_id != self._pipeline.id or (input_digest and record.input_digest != input_digest):
            return False
        if record.status is not SampleStatus.SPLIT:
            return record.status in (SampleStatus.READY, SampleStatus.SKIPPED)
        storage = self._pipeline.storage
        assert storage is not None
        children = storage.read(self._pipeline.name, record.children).samples
        return len(children) == len(record.children) and all(self._finished(child, None) for child in children)
