"""Reading the source of a pipeline, sync or async."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..definition import has_iterator, is_iterable
from ..errors import SourceError
from ..pipeline.exceptions import outside_iteration
from ..pipeline.sample import Sample
from ..pipeline.shards import ShardedSource
from .loop import LoopThread
from .queue import QueueClosed

if TYPE_CHECKING:
    from ..definition import Pipeline, Source
    from .run import Run

_END = object()


@contextmanager
def reading_source(run: Run) -> Iterator[None]:
    """Time the thread of a driver that does nothing but read the source, and close the source at its end."""
    now = run.clock.monotonic
    reading = run.counters.source  # written by this thread only
    reading.begun = now()
    try:
        yield
    except QueueClosed as closed:
        if closed.waited:
            run.source_blocked(closed.waited)
        raise
    finally:
        reading.ended = now()
        run.close_source()


class SourceReader:
    """The source of one run, or the first `limit` samples of it; opened, read and closed on the same thread. What is
    async in it runs on the loop.
    """

    def __init__(
        self, pipeline: Pipeline, replay: Callable[[], Iterable[Sample]] | None = None, limit: int | None = None
    ) -> None:
        self.loop = LoopThread()
        self._pipeline = pipeline
        self._source: Source = replay or pipeline.source
        self._sync: Iterator[Any] | None = None
        self._async: AsyncIterator[Any] | None = None
        self._size: int | None = None
        self._left = math.inf if limit is None else limit
        """Number of samples that may still be read."""
        self._ended = False

    def remaining(self, read: int) -> int | None:
        """Return the number of samples left after `read` ones; None if the source does not have a size.

        Never negative, though its `len()` may be wrong, and 0 at its end. Never waits; may be called on any thread.
        """
        if self._size is None:
            return None
        return 0 if self._ended else max(0, self._size - read)

    def next(self) -> Sample | None:
        """Return the next sample; None at the end.

        Raises:
            SourceError: the source is an iterator that an earlier run used up, or nothing that can be iterated, or
                the id of its sample is no string.
            RuntimeError: it raised `StopIteration` when it was opened, which is not the end of an iterator.
            Exception: what the source raised.
        """
        if self._left <= 0:
            self._ended = True
            return None
        if self._sync is None and self._async is None:
            outside_iteration("opening the source", self._open)
        if self._async is not None:
            iterator = self._async
            data = self.loop.wait_for(lambda: anext(iterator, _END), reads=True)
        else:
            assert self._sync is not None
            data = next(self._sync, _END)
        if data is _END:
            self._ended = True
            return None
        self._left -= 1
        return sample_of(data, repr(self._pipeline))

    def next_shard(self) -> Iterable[Any] | None:
        """Return the next shard of a source that is not read here; None at the end. To be closed all the same.

        Raises:
            SourceError: what `shards()` returned cannot be iterated.
            Exception: what it raised.
        """
        if self._sync is None:
            outside_iteration("opening the source", self._open_shards)
            assert self._sync is not None
        shard: Any = next(self._sync, _END)
        if shard is _END:
            self._ended = True
            return None
        if not is_iterable(shard):
            raise SourceError(f"the source of {self._pipeline!r} gave the shard {shard!r}, which is not iterable")
        return shard  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close what was opened, if it can be closed (generators can)."""
        self._ended = True
        if self._async is not None and hasattr(self._async, "aclose"):
            self.loop.wait_for(self._async.aclose, cleans_up=True)
        elif self._sync is not None and hasattr(self._sync, "close"):
            self._sync.close()

    def _open(self) -> None:
        source = self._source
        given: Any = source() if callable(source) and not has_iterator(source) else source
        if not is_iterable(given):
            raise SourceError(f"the source of {self._pipeline!r} gave {type(given).__name__}, which is not iterable")
        if getattr(type(given), "__aiter__", None) is not None:
            self._async = aiter(given)
            used_up = self._async is source
        else:
            self._sync = iter(given)
            used_up = self._sync is source
        if used_up and not self._pipeline.claim_source():
            self._sync = self._async = None
            raise SourceError(
                f"the source of {self._pipeline!r} is an iterator that an earlier run used up; "
                "give a list, or a function that makes a new iterator"
            )
        size = _size(given)
        self._size = size if size is None else int(min(size, self._left))

    def _open_shards(self) -> None:
        source = self._source
        assert isinstance(source, ShardedSource)
        given: Any = source.shards()
        if not is_iterable(given):
            kind = type(given).__name__
            raise SourceError(f"shards() of the source of {self._pipeline!r} gave {kind}, which is not iterable")
        self._sync = iter(given)
        self._size = _size(source)


def sample_of(data: Any, pipeline: str) -> Sample:
    """Return the sample that the source of a pipeline has given, or made of the plain data.

    Raises:
        SourceError: its id is no string.
    """
    if not isinstance(data, Sample):
        return Sample(data=data)
    if not isinstance(data.id, str):
        raise SourceError(f"the source of {pipeline} gave the id {data.id!r}; it must be a string")
    return data


def _size(given: Any) -> int | None:
    """Return the length of a source, if it has one. Only forecasts depend on it."""
    try:
        return len(given)
    except Exception:  # noqa: BLE001 - the user's `__len__` may raise anything
        return None
