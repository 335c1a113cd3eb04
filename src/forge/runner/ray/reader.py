"""Readers: workers that read the shards of a source, and ask the driver about every block of samples."""

from __future__ import annotations

import hashlib
import threading
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import ray

from ...pipeline.exceptions import classify, is_a
from ...pipeline.sample import Sample
from ...pipeline.serializer import Serializer, content_of, digest_of
from ...pipeline.shards import read_shard
from ..source import sample_of
from .blocks import Block, Row, SentError, pack, send, unpack, unpicklable
from .stopping import leave_unless, wait_for_stop

NOTHING: Final = -1
"""Number of a block without samples. Ray may have a reader go over what it has read already, and takes its blocks by
their places: so every block has one, also if nothing of it is processed."""


@dataclass(slots=True)
class NextShard:
    """Asks for a shard. Answered by a `ShardTask`; None if there is nothing more to do."""

    reader: int
    place: int
    """Number of shards that the reader had before."""


@dataclass(slots=True)
class ShardTask:
    """A shard to be read."""

    number: int
    content: bytes | None
    """The shard; None if all of its samples have settled."""
    blocks: int = 0
    """Number of its blocks, if they have settled."""


@dataclass(slots=True)
class BlockRead:
    """Asks what is to be done about a block of samples. Answered by a `BlockTask`; None if the run ends."""

    shard: int
    index: int
    """Number of blocks of the shard before it."""
    busy: float = 0.0
    """Seconds in which the reader worked since it asked the last time."""
    ids: list[str] = field(default_factory=list)
    digests: list[str | None] = field(default_factory=list)
    seconds: array[float] = field(default_factory=lambda: array("f"))
    """Duration of each read, in seconds."""

    @property
    def fingerprint(self) -> bytes:
        """A digest, by which the block is recognised when it is read again."""
        text = repr((self.ids, self.digests)).encode("utf-8", "surrogatepass")
        return hashlib.sha256(text).digest()


@dataclass(slots=True)
class BlockTask:
    """Task of a reader: a block of samples to be processed."""

    number: int
    """The block's number; `NOTHING` if its samples have settled."""
    rows: list[tuple[int, Row]] = field(default_factory=list)
    """Places and rows of the samples to be processed, without data."""


@dataclass(slots=True)
class Refused:
    """Tells that samples of a block cannot be pickled. Answered as `BlockRead`, without them."""

    shard: int
    index: int
    reasons: dict[int, tuple[str, bytes | None]]
    """The reasons, and their serialised data, by their place."""


@dataclass(slots=True)
class ShardRead:
    """Tells that a shard is read, to its end or to an error. The answer says nothing."""

    shard: int
    blocks: int
    busy: float
    error: SentError | None = None
    interrupted: bool = False
    seconds: float = 0.0
    """Duration of the read that failed, in seconds."""


@dataclass(slots=True)
class ReaderSpec:
    """Task of the readers of a run."""

    pipeline: str
    """Representation of the pipeline."""
    serializer: Serializer
    stored: bool
    """True if the pipeline has a storage."""
    block_size: int


class Reader:
    """Reads shards as long as the driver has any."""

    def __init__(self, number: int, spec: ReaderSpec, exchange: Any) -> None:
        self._number = number
        self._spec = spec
        self._exchange = exchange

    def blocks(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the blocks with their numbers."""
        over = threading.Event()
        threading.Thread(target=self._watch, args=(over,), daemon=True, name="forge-watch").start()
        place = 0
        try:
            while (task := self._answer(self._ask(NextShard(self._number, place)))) is not None:
                if task.content is None:
                    yield from ((NOTHING, None) for _ in range(task.blocks))
                else:
                    yield from self._read(task.number, task.content)
                place += 1
        finally:
            over.set()  # the process is Ray's, and goes on with other tasks

    def _watch(self, over: threading.Event) -> None:
        """Wait for the end of the run before its time: a shard may hang."""
        if wait_for_stop(self._exchange, f"reader {self._number}", over.is_set):
            leave_unless(over)

    def _read(self, shard: int, content: bytes) -> Iterator[tuple[int, bytes | None]]:
        reading = _ShardReading(shard, content, self._spec)
        waiting: tuple[_BlockReading, Any] | None = None
        for block in reading.blocks():
            # While the driver looks at one block, the next one is read.
            done = None if waiting is None else self._block(*waiting)
            if waiting is not None and done is None:
                return
            waiting = block, self._ask(block.question)
            if done is not None:
                yield done
        if waiting is not None:
            done = self._block(*waiting)
            if done is None:
                return
            yield done
        self._answer(self._ask(reading.end()))

    def _block(self, block: _BlockReading, asked: Any) -> tuple[int, bytes | None] | None:
        """Return a block as the driver wants it; None if the run ends."""
        task: BlockTask | None = self._answer(asked)
        if task is None or task.number == NOTHING:
            return None if task is None else (NOTHING, None)
        try:
            return task.number, pack(block.filled(task))
        except Exception:  # noqa: BLE001 - one of the user's objects cannot be pickled
            task = self._answer(self._ask(block.refused(task)))
            if task is None or task.number == NOTHING:
                return None if task is None else (NOTHING, None)
            return task.number, pack(block.filled(task))

    def _ask(self, question: Any) -> Any:
        return self._exchange.ask.remote(pack(question))

    def _answer(self, asked: Any) -> Any:
        content = ray.get(asked)
        return None if content is None else unpack(content)


class _BlockReading:
    """A block as it was read."""

    def __init__(self, shard: int, index: int) -> None:
        self.question = BlockRead(shard, index)
        self.data: list[Any] = []
        self.contents: list[bytes | None] = []

    def add(self, sample: Sample, spec: ReaderSpec, seconds: float) -> None:
        """Add a sample."""
        content: bytes | None = None
        if spec.stored or not sample.id:
            try:
                content = content_of(spec.serializer, sample.data)
            except Exception:  # noqa: BLE001 - the user's serializer may raise anything; its sample fails when it is stored
                content = None
        self.data.append(sample.data)
        self.contents.append(content if spec.stored else None)
        self.question.ids.append(sample.id)
        self.question.digests.append(None if content is None else digest_of(content))
        self.question.seconds.append(seconds)

    def filled(self, task: BlockTask) -> Block:
        """Return the block that is sent to the first stage."""
        rows = []
        for place, row in task.rows:
            row.data, row.original = self.data[place], self.contents[place]
            rows.append(row)
        return Block(task.number, rows, time.time())

    def refused(self, task: BlockTask) -> Refused:
        """Return what says that samples of the block cannot be pickled."""
        reasons = {}
        for place, _ in task.rows:
            if (reason := unpicklable(self.data[place], "data")) is not None:
                reasons[place] = reason, self.contents[place]
        return Refused(self.question.shard, self.question.index, reasons)


class _ShardReading:
    """The reading of one shard. An error in it does not raise: it is said at the end."""

    def __init__(self, shard: int, content: bytes, spec: ReaderSpec) -> None:
        self._shard = shard
        self._content = content
        self._spec = spec
        self._count = 0
        self._since = time.monotonic()
        self._error: BaseException | None = None
        self._failed_after = 0.0

    def blocks(self) -> Iterator[_BlockReading]:
        """Yield blocks that have `block_size` samples each, except for the last one: always the same ones."""
        block = _BlockReading(self._shard, 0)
        for sample, seconds in self._samples():
            block.add(sample, self._spec, seconds)
            if len(block.data) == self._spec.block_size:
                yield self._complete(block)
                self._since = time.monotonic()  # meanwhile it waited for the driver
                block = _BlockReading(self._shard, self._count)
        if block.data:
            yield self._complete(block)
            self._since = time.monotonic()

    def end(self) -> ShardRead:
        """Return what says that the shard is read."""
        read = ShardRead(self._shard, self._count, self._worked(), seconds=self._failed_after)
        if self._error is not None:
            read.error = send(self._error, classify(self._error))
            read.interrupted = is_a(self._error, SystemExit)
        return read

    def _complete(self, block: _BlockReading) -> _BlockReading:
        self._count += 1
        block.question.busy = self._worked()
        return block

    def _worked(self) -> float:
        """Return the seconds of work since it was asked the last time."""
        before, self._since = self._since, time.monotonic()
        return self._since - before

    def _samples(self) -> Iterator[tuple[Sample, float]]:
        """Yield the samples, and how long reading each of them took."""
        began = time.monotonic()
        try:
            shard: Iterable[Any] = unpack(self._content)
            for data in read_shard(shard):
                sample = sample_of(data, self._spec.pipeline)
                took = time.monotonic() - began
                yield sample, took
                began = time.monotonic()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it ends the run, on the driver; Ray cancels with others
            self._error, self._failed_after = error, time.monotonic() - began
