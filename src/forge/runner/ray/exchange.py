"""The actor through which blocks reach a cluster, and workers report what they do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

WATCH_INTERVAL: Final = 2.0
"""Seconds after which a worker asks again whether the run goes on."""
MAX_SILENCE: Final = 3 * WATCH_INTERVAL
"""Seconds without a question after which a worker counts as dead."""


class Exchange:
    """Has the blocks that the driver made until their samples have settled; one for each execution of Ray Data.

    Blocks can be read again in the same order: a reader that died is replaced by one that begins at the first.
    """

    def __init__(self) -> None:
        self._sequence: list[int] = []
        self._blocks: dict[int, bytes] = {}
        self._count: int | None = None
        self._stopped = asyncio.Event()
        self._finished = asyncio.Event()
        self._changed = asyncio.Condition()
        self._attempts: Counter[tuple[int, int]] = Counter()
        self._marks: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
        self._workers: dict[str, int] = {}
        """The steps of workers that have not closed."""
        self._opened: set[int] = set()
        """The steps that have had workers."""
        self._heard: dict[str, float] = {}
        """Monotonic times when workers asked something last."""

    # Calls of an async actor may begin in another order than the one in which they were made.

    async def put(self, number: int, block: bytes) -> None:
        """Add a block."""
        async with self._changed:
            self._sequence.append(number)
            self._blocks[number] = block
            self._changed.notify_all()

    async def end(self, count: int) -> None:
        """Note that there are so many blocks, and no more."""
        async with self._changed:
            self._count = count
            self._changed.notify_all()

    async def stop(self) -> None:
        """Stop: readers and workers end as soon as they can."""
        async with self._changed:
            self._stopped.set()
            self._changed.notify_all()

    async def read(self, index: int) -> tuple[int, bytes | None] | None:
        """Wait for a block by its place; None at the end. A block that is home already has no content any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: index < len(self._sequence) or index == self._count or self.is_stopped)
        if self.is_stopped or index >= len(self._sequence):
            return None
        number = self._sequence[index]
        return number, self._blocks.get(number)

    async def home(self, number: int) -> None:
        """Forget a block that is home."""
        self._blocks.pop(number, None)

    async def begin(self, step: int, number: int) -> tuple[int, dict[int, int]]:
        """Note that a worker begins a step on a block; returns the number of the attempt, and how many of the earlier
        ones had ended in calls with each row."""
        self._attempts[step, number] += 1
        return self._attempts[step, number], dict(self._marks[step, number])

    async def mark(self, step: int, number: int, rows: Sequence[int]) -> None:
        """Note that a worker, in the place of one that died, begins a call."""
        self._marks[step, number].update(rows)

    async def unmark(self, step: int, number: int, rows: Sequence[int]) -> None:
        """Note that the worker has survived the call."""
        self._marks[step, number].subtract(rows)

    async def open(self, step: int, worker: str) -> bool:
        """Note a worker of a step; returns False if it has nothing to do any more."""
        if not self.is_stopped:
            self._workers[worker] = step
            self._opened.add(step)
            self._heard[worker] = time.monotonic()
        return not self.is_stopped

    async def close(self, worker: str) -> None:
        """Note that a worker has closed its stage."""
        self._workers.pop(worker, None)

    async def workers(self) -> int:
        """Return the number of workers that are alive, and whose stage is not closed."""
        return sum(map(self._is_alive, self._workers))

    async def lacking(self, wanted: Sequence[int]) -> dict[int, int]:
        """Return how many workers run each step for which fewer do than are wanted, although some have died or none
        has come yet."""
        alive: Counter[int] = Counter()
        lost: set[int] = set()
        for worker, step in self._workers.items():
            if self._is_alive(worker):
                alive[step] += 1
            else:
                lost.add(step)
        return {
            step: alive[step]
            for step, least in enumerate(wanted)
            if alive[step] < least and (step in lost or step not in self._opened)
        }

    def _is_alive(self, worker: str) -> bool:
        return time.monotonic() - self._heard[worker] < MAX_SILENCE

    async def finish(self) -> None:
        """Note that all blocks are home."""
        self._finished.set()

    async def watch(self, worker: str) -> bool | None:
        """Wait a moment; returns True if the worker is to stop, False if it has nothing more to do.

        It does not wait for long, because Ray ends no worker that waits for an answer.
        """
        self._heard[worker] = time.monotonic()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stopped, self._finished)]
        done, pending = await asyncio.wait(waits, timeout=WATCH_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        return self.is_stopped if done else None

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()
