"""The blocks that are in flight: sent to workers, and not home yet."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import SourceError
from .blocks import HOW_TO_SEND, History, Row

if TYPE_CHECKING:
    from ...execution.item import Item
    from .reader import BlockTask
    from .shards import Shard


@dataclass(slots=True, eq=False)
class SentBlock:
    """A block in flight, with all that it takes to send it again."""

    items: list[Item]
    content: bytes | None = None
    """Content that the driver sends; None if a reader has it."""
    shard: Shard | None = None
    """The shard of which a reader makes it."""
    index: int = 0
    """Number of blocks of the shard before it."""
    task: BlockTask | None = None
    """Answer that the reader got about it."""
    is_held: bool = False
    """True if it waits for the next execution of Ray Data."""


class BlocksInFlight:
    """The blocks of a run that are in flight, by number. To be touched only under `changed`, which tells of changes."""

    def __init__(self, window: int) -> None:
        self.changed = threading.Condition()
        self.blocks: dict[int, SentBlock] = {}
        self.all_made = False
        """True once there will be no more blocks."""
        self._window = window
        self._made = 0

    @property
    def has_room(self) -> bool:
        """True if another block may be sent."""
        return sum(not block.is_held for block in self.blocks.values()) < self._window

    @property
    def is_over(self) -> bool:
        """True if all blocks are home."""
        return self.all_made and not self.blocks

    def next_number(self) -> int:
        """Return the number of a new block."""
        self._made += 1
        return self._made - 1


def unsendable(reason: str) -> SourceError:
    """Return the error of a sample that cannot be sent for a reason."""
    return SourceError(f"a sample cannot be sent to a worker process: {reason} ({HOW_TO_SEND})")


def row_of(item: Item, history: History | None) -> Row:
    """Return a sample as it is sent."""
    sample = item.sample
    return Row(
        id=sample.id,
        data=sample.data,
        parent=sample.parent,
        digest=sample.digest,
        step=item.step,
        history=history,
        carrier=item.carrier,
    )
