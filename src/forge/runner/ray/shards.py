"""The driver's side of reading on workers: it hands out shards, and admits the samples that readers tell of."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ...errors import ConfigurationError, SourceError, WorkerDiedError
from ...pipeline.exceptions import describe
from ...pipeline.failure import FailureSource
from ...pipeline.shards import ShardedSource, name_of
from ...support.numbers import is_count, shown
from ..queue import QueueClosed, StageQueue
from .blocks import pack, receive, unpack
from .cluster import Execution
from .flight import BlocksInFlight, SentBlock, row_of, unsendable
from .histories import histories_of
from .reader import NOTHING, BlockRead, BlockTask, NextShard, ReaderSpec, Refused, ShardRead, ShardTask

if TYPE_CHECKING:
    from ..run import Run

MAX_ATTEMPTS: Final = 3
"""Times that a shard is handed to readers without another block of it, after which the run fails."""


@dataclass(slots=True, eq=False)
class Shard:
    """A shard that is handed to readers."""

    number: int
    name: str
    content: bytes
    attempts: int = 0
    """Number of times it was handed out since a reader got on with it."""
    blocks: int | None = None
    """Number of its blocks, once it is read to its end."""
    fingerprints: list[bytes] = field(default_factory=list)
    """Fingerprints of the blocks that were admitted."""
    in_flight: dict[int, int] = field(default_factory=dict)
    """Numbers of its blocks in flight, by their place in the shard."""

    @property
    def is_settled(self) -> bool:
        """True if it is read, and nothing of it is in flight."""
        return self.blocks is not None and not self.in_flight


@dataclass(slots=True, eq=False)
class _Question:
    """A question of a reader."""

    execution: Execution
    number: int
    content: Any
    held_since: float | None = None
    """When it was put off, because there was no room for another block."""


class ShardReading:
    """Answers the questions of readers, on a thread of its own.

    Whatever a reader asks, it may ask again: it is told the same, so that a reader in the place of one that died gets
    on where that one was, and nothing is admitted twice.
    """

    def __init__(self, run: Run, flight: BlocksInFlight, finished: StageQueue, block_size: int) -> None:
        source = run.pipeline.source
        assert isinstance(source, ShardedSource)
        if not is_count(source.concurrency):
            raise ConfigurationError(
                f"the source of {run.pipeline!r} has concurrency={shown(source.concurrency)}: it must be a positive "
                "whole number"
            )
        self.readers = source.concurrency
        stored = run.pipeline.storage is not None
        self.spec = ReaderSpec(repr(run.pipeline), run.pipeline.serializer, stored, block_size)
        self._run = run
        self._flight = flight
        self._finished = finished
        self._busy = 0.0
        """Seconds in which readers worked, of all together."""
        self._readers: set[int] = set()
        """Readers that have had a shard."""
        self._exhausted = False
        """True if the source has no more shards."""
        # The attributes below are guarded by `flight.changed`.
        self._execution: Execution | None = None
        self._questions: deque[_Question] = deque()
        self._open: dict[int, Shard] = {}
        """Shards that are not settled, by number."""
        self._count = 0
        self._unread: deque[Shard] = deque()
        """Blocks that were handed out in an earlier execution."""
        self._assigned: dict[int, list[Shard]] = {}
        """Shards by reader, in the order in which it gets them, of this execution."""
        self._ending = False
        """True if nothing more is admitted."""
        self._over = False

    # For the driver's other threads.

    def begin(self, execution: Execution) -> None:
        """Begin an execution of Ray Data; called under `flight.changed`."""
        self._execution = execution
        self._assigned = {}
        self._unread = deque(shard for shard in self._open.values() if shard.in_flight or not self._ending)

    def listen(self, execution: Execution) -> None:
        """Take the questions of an execution, until there are no more."""
        for number, content in execution.questions():
            with self._flight.changed:
                self._questions.append(_Question(execution, number, unpack(content)))
                self._flight.changed.notify_all()

    def home(self, block: SentBlock) -> None:
        """Note that a block is home; called under `flight.changed`."""
        if block.shard is not None:
            del block.shard.in_flight[block.index]
            block.shard.attempts = 1
            self._close_if_settled(block.shard)

    def end(self) -> None:
        """Note that all blocks are home."""
        with self._flight.changed:
            self._over = True
            self._flight.changed.notify_all()

    # The methods below run on the thread that answers.

    def answer_all(self) -> None:
        """Answer questions until all blocks are home; the work of a thread."""
        with self._run.supervise(lambda: None):
            try:
                while (question := self._next()) is not None:
                    answer = self._answer(question)
                    question.execution.answer(question.number, None if answer is None else pack(answer))
            finally:
                self._run.close_source()

    def _next(self) -> _Question | None:
        """Wait for a question that can be answered; None at the end.

        Raises:
            QueueClosed: the run is over.
        """
        changed = self._flight.changed
        with changed:
            while not self._over:
                if self._run.stop.is_set():
                    raise QueueClosed
                for question in self._questions:
                    if question.execution is not self._execution or self._can_answer(question):
                        self._questions.remove(question)
                        break
                else:
                    changed.wait()
                    continue
                if question.execution is self._execution:
                    return question
            return None

    def _can_answer(self, question: _Question) -> bool:
        """Return False if it asks for another block, and there is no room."""
        asked = question.content
        if not isinstance(asked, BlockRead) or self._ending or self._flight.has_room:
            return True
        shard = self._open.get(asked.shard)
        if shard is None or asked.index < len(shard.fingerprints):
            return True
        if question.held_since is None:
            question.held_since = self._run.clock.monotonic()
        return False

    def _answer(self, question: _Question) -> Any:
        asked = question.content
        if question.held_since is not None:
            waited = self._run.clock.monotonic() - question.held_since
            self._run.source_blocked(waited / max(1, len(self._readers)))
        if isinstance(asked, BlockRead | ShardRead):
            self._busy += asked.busy
            self._run.counters.source.busy = self._busy / max(1, len(self._readers))  # of a reader, on average
        if isinstance(asked, NextShard):
            return self._next_shard(asked, question.execution)
        shard = self._open.get(asked.shard)
        if shard is None:  # it has settled meanwhile
            return None if isinstance(asked, ShardRead) else BlockTask(NOTHING)
        if isinstance(asked, BlockRead):
            return self._block(shard, asked)
        if isinstance(asked, Refused):
            return self._without(shard, asked)
        assert isinstance(asked, ShardRead)
        self._read(shard, asked)
        return None

    def _next_shard(self, asked: NextShard, execution: Execution) -> ShardTask | None:
        with self._flight.changed:
            assigned = self._assigned.setdefault(asked.reader, [])
            if asked.place < len(assigned):  # a reader in the place of one that died
                shard: Shard | None = assigned[asked.place]
            else:
                shard = self._unread.popleft() if self._unread else None
        if shard is None:
            shard = self._new_shard()
        if shard is None:
            return None
        with self._flight.changed:
            if execution is not self._execution:
                self._unread.append(shard)
                return None
            if asked.place >= len(assigned):
                assigned.append(shard)
            if shard.is_settled or (self._ending and not shard.in_flight):
                blocks = len(shard.fingerprints) if shard.blocks is None else shard.blocks
                return ShardTask(shard.number, None, blocks)
        self._readers.add(asked.reader)
        shard.attempts += 1
        if shard.attempts > MAX_ATTEMPTS:
            self._fail(WorkerDiedError(f"the worker died in {MAX_ATTEMPTS} attempts to read {shard.name}"))
            return None
        return ShardTask(shard.number, shard.content)

    def _new_shard(self) -> Shard | None:
        """Take the next shard of the source; None if there is none."""
        if self._exhausted or self._ending:
            return None
        given = self._run.take_shard()
        if given is None:
            self._exhausted = True
            if self._run.is_failing:
                self._end_reading()
            self._end_if_read()
            return None
        name = name_of(given)
        try:
            content = pack(given)
        except Exception as error:  # noqa: BLE001 - one of the user's objects cannot be pickled
            self._fail(SourceError(f"the shard {name} of the source cannot be sent to workers: {describe(error)}"))
            return None
        with self._flight.changed:
            shard = self._open[self._count] = Shard(self._count, name, content)
            self._count += 1
        return shard

    def _block(self, shard: Shard, asked: BlockRead) -> BlockTask | None:
        """Return what is to be done about a block: the same as before, if it was asked before."""
        if asked.index < len(shard.fingerprints):
            if shard.fingerprints[asked.index] != asked.fingerprint:
                raise _differs(shard)
            with self._flight.changed:
                number = shard.in_flight.get(asked.index)
                return BlockTask(NOTHING) if number is None else self._flight.blocks[number].task
        if shard.blocks is not None:
            raise _differs(shard)
        if self._ending:
            return None
        run = self._run
        if run.pipeline.max_cost is not None and (reached := run.costs.budget_reached) is not None:
            run.halt(reached)
            self._end_reading()
            return None
        run.pulled(asked.seconds)
        items = [run.take_read(*given) for given in zip(asked.ids, asked.digests, strict=True)]
        run.look_up(items)
        shard.fingerprints.append(asked.fingerprint)
        shard.attempts = 1
        places = [place for place, item in enumerate(items) if item.verdict is None]
        task = BlockTask(NOTHING)
        if places:
            going = [items[place] for place in places]
            histories = histories_of(run, going) if run.has_history else {}
            task.rows = [(place, row_of(items[place], histories.get(items[place].sample.id))) for place in places]
            with self._flight.changed:
                task.number = self._flight.next_number()
                self._flight.blocks[task.number] = SentBlock(going, None, shard, asked.index, task)
                shard.in_flight[asked.index] = task.number
        for item in items:
            if item.verdict is not None:
                self._finished.put(item)
        return task

    def _without(self, shard: Shard, refused: Refused) -> BlockTask:
        """Fail the samples of a block that cannot be pickled; returns what is to be done about the others."""
        number = shard.in_flight.get(refused.index)
        if number is None:
            return BlockTask(NOTHING)
        block = self._flight.blocks[number]
        assert block.task is not None
        good = [place not in refused.reasons for place, _ in block.task.rows]
        bad = [(place, item) for (place, _), item, ok in zip(block.task.rows, block.items, good, strict=True) if not ok]
        with self._flight.changed:
            block.items = _kept(block.items, good)
            block.task = BlockTask(number, _kept(block.task.rows, good))
            if not block.items:
                block.task = BlockTask(NOTHING)
                del self._flight.blocks[number], shard.in_flight[refused.index]
                self._flight.changed.notify_all()
        for place, item in bad:
            reason, item.original = refused.reasons[place]
            self._run.fail_item(item, unsendable(reason), FailureSource.STAGE, "source")
            self._finished.put(item)
        return block.task

    def _read(self, shard: Shard, read: ShardRead) -> None:
        """Note that a shard is read, to its end or to an error."""
        if read.error is not None:
            error = receive(read.error)
            if read.interrupted:
                self._run.interrupt(error)
                raise QueueClosed
            self._run.pulled([read.seconds], error)
            self._fail(error)
            return
        if read.blocks != len(shard.fingerprints):
            raise _differs(shard)
        with self._flight.changed:
            shard.blocks = read.blocks
            self._close_if_settled(shard)
        self._end_if_read()

    def _fail(self, error: BaseException) -> None:
        """End the run with an error, when everything that was admitted is through."""
        self._run.fail(error, now=False)
        self._end_reading()

    def _end_reading(self) -> None:
        """Admit nothing more."""
        with self._flight.changed:
            self._ending = self._flight.all_made = True
            self._flight.changed.notify_all()

    def _end_if_read(self) -> None:
        with self._flight.changed:
            if self._exhausted and all(shard.blocks is not None for shard in self._open.values()):
                self._flight.all_made = True
                self._flight.changed.notify_all()

    def _close_if_settled(self, shard: Shard) -> None:
        if shard.is_settled:
            self._open.pop(shard.number, None)
            shard.content = b""
            shard.fingerprints.clear()


def _differs(shard: Shard) -> SourceError:
    return SourceError(
        f"{shard.name} gave other samples when it was read again, in the place of a worker that had died; a shard must "
        "give the same samples in the same order each time"
    )


def _kept(things: Sequence[Any], good: Sequence[bool]) -> list[Any]:
    return [thing for thing, ok in zip(things, good, strict=True) if ok]
