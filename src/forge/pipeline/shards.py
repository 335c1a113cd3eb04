"""Sources in shards, which several workers can read at the same time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from .exceptions import add_note


class ShardedSource(ABC):
    """A source in shards, such as files.

    `RayRunner` has up to `concurrency` workers read whole shards, in any order. Other runners read one after the other.

    Each shard is an iterable of samples or plain data, which can be pickled and read again, and gives the same samples
    in the same order each time. Its `str` names it in messages.
    """

    concurrency: int = 4
    """Maximum number of workers that read shards at the same time."""

    @abstractmethod
    def shards(self) -> Iterable[Iterable[Any]]:
        """Return the shards in order, or yield them: they are asked for one by one, while others are read."""

    def __iter__(self) -> Iterator[Any]:
        for shard in self.shards():
            yield from read_shard(shard)


def read_shard(shard: Iterable[Any]) -> Iterator[Any]:
    """Yield what a shard gives. An error in it gets a note that names the shard."""
    try:
        yield from shard
    except Exception as error:
        add_note(error, f"raised by the shard {name_of(shard)} of the source")
        raise


def name_of(shard: object) -> str:
    """Return the name of a shard for messages."""
    try:
        return str(shard)
    except Exception:  # noqa: BLE001 - the user's class may raise anything
        return type(shard).__name__
