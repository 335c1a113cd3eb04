"""The actor through which blocks reach a cluster, and workers report what they do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .places import ClusterState, Place

WATCH_INTERVAL: Final = 2.0
"""Seconds after which a worker asks again whether the run goes on."""
MAX_SILENCE: Final = 3 * WATCH_INTERVAL
"""Seconds without a question after which a worker counts as dead."""

Attempts = Mapping[int, Mapping[int, int]]
"""By block, how often each step has begun."""


@dataclass(slots=True)
class _Worker:
    """A worker that is not closed."""

    step: int
    process: str
    heard: float = field(default_factory=time.monotonic)
    """When it asked something last."""
    since: float | None = None
    """When its setup was over; None while that goes on."""

    @property
    def is_alive(self) -> bool:
        return time.monotonic() - self.heard < MAX_SILENCE

    @property
    def time(self) -> float:
        """Seconds since its setup, until it died if it did."""
        return 0.0 if self.since is None else (time.monotonic() if self.is_alive else self.heard) - self.since


class Exchange:
    """Has the blocks that the driver made until their samples have settled; one for each execution of Ray Data.

    Blocks can be read again in the same order: a reader that died is replaced by one that begins at the first.
    """

    def __init__(self, attempts: Attempts) -> None:
        """`attempts` are those of the execution before, on blocks that it has not brought home."""
        self._sequence: list[int] = []
        self._blocks: dict[int, bytes] = {}
        self._count: int | None = None
        self._stopped = asyncio.Event()
        self._finished = asyncio.Event()
        self._changed = asyncio.Condition()
        self._places: dict[int, tuple[int, str | None, float]] = {}
        """By block, its step, the worker that has it, and since when."""
        self._attempts = defaultdict(Counter[int], {number: Counter(steps) for number, steps in attempts.items()})
        self._marks: defaultdict[int, defaultdict[int, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
        """By block and step, how many attempts have ended in calls with each row."""
        self._workers: dict[str, _Worker] = {}
        self._opened: set[int] = set()
        """The steps that have had workers."""
        self._peaks: Counter[int] = Counter()
        self._times: defaultdict[int, float] = defaultdict(float)
        """Seconds of workers that are closed."""
        self._questions: list[tuple[int, bytes]] = []
        self._asked: dict[int, asyncio.Future[bytes | None]] = {}
        """Questions of readers that have no answer yet, by number."""
        self._asked_so_far = 0

    # Calls of an async actor may begin in another order than the one in which they were made.

    async def put(self, number: int, block: bytes) -> None:
        """Add a block."""
        async with self._changed:
            self._sequence.append(number)
            self._blocks[number] = block
            self._places[number] = (0, None, time.monotonic())
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
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_result(None)
            self._changed.notify_all()

    async def ask(self, question: bytes) -> bytes | None:
        """Ask the driver, and wait for its answer; None if there is none, because the run ends."""
        async with self._changed:
            if self.is_stopped:
                return None
            number, self._asked_so_far = self._asked_so_far, self._asked_so_far + 1
            answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
            self._asked[number] = answer
            self._questions.append((number, question))
            self._changed.notify_all()
        try:
            return await answer
        finally:
            del self._asked[number]

    async def questions(self) -> list[tuple[int, bytes]] | None:
        """Wait for questions, and return those that have come, with their numbers; None if there will be no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._questions or self.is_stopped or self._finished.is_set())
            questions, self._questions = self._questions, []
        return questions or None

    async def answer(self, number: int, content: bytes | None) -> None:
        """Answer a question."""
        answer = self._asked.get(number)
        if answer is not None and not answer.done():
            answer.set_result(content)

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
        for kept in (self._blocks, self._places, self._attempts, self._marks):
            kept.pop(number, None)

    async def begin(self, step: int, number: int, worker: str) -> tuple[int, dict[int, int]]:
        """Note that a worker begins a step on a block; returns the number of the attempt, and how many of the earlier
        ones had ended in calls with each row.

        Readers make blocks that were not put here. One that is home already, and is executed again because a node has
        died, leaves a few bytes here.
        """
        self._places[number] = (step, worker, time.monotonic())
        self._attempts[number][step] += 1
        return self._attempts[number][step], dict(self._marks[number][step])

    async def done(self, step: int, number: int) -> None:
        """Note that a worker is done with a block, which goes on to the next step."""
        if number in self._places and self._places[number][0] == step:
            self._places[number] = (step + 1, None, time.monotonic())

    async def mark(self, step: int, number: int, rows: Sequence[int]) -> None:
        """Note that a worker, in the place of one that died, begins a call."""
        self._marks[number][step].update(rows)

    async def unmark(self, step: int, number: int, rows: Sequence[int]) -> None:
        """Note that the worker has survived the call."""
        self._marks[number][step].subtract(rows)

    async def open(self, step: int, worker: str, process: str) -> bool:
        """Note a worker of a step, which it sets up next; returns False if it has nothing to do any more."""
        if not self.is_stopped:
            self._leave(worker)  # it has died, and is another process
            self._workers[worker] = _Worker(step, process)
            self._opened.add(step)
        return not self.is_stopped

    async def set_up(self, worker: str) -> None:
        """Note that a worker has set up its stage."""
        if worker in self._workers:
            found = self._workers[worker]
            found.since = time.monotonic()
            self._peaks[found.step] = max(self._peaks[found.step], self._set_up()[found.step])

    async def close(self, worker: str) -> None:
        """Note that a worker has closed its stage."""
        self._leave(worker)

    async def lacking(self, wanted: Sequence[int]) -> dict[int, int]:
        """Return how many workers run each step for which fewer do than are wanted, although some have died or none
        has come yet."""
        alive = Counter(worker.step for worker in self._workers.values() if worker.is_alive)
        lost = {worker.step for worker in self._workers.values() if not worker.is_alive}
        return {
            step: alive[step]
            for step, least in enumerate(wanted)
            if alive[step] < least and (step in lost or step not in self._opened)
        }

    async def state(self) -> ClusterState:
        """Return where blocks are, and which workers there are."""
        now = time.monotonic()
        times = self._times.copy()
        for worker in self._workers.values():
            times[worker.step] += worker.time
        return ClusterState(
            places={number: self._place(*place, now) for number, place in self._places.items()},
            workers=self._set_up(),
            peaks=self._peaks,
            times=times,
            open=sum(worker.is_alive for worker in self._workers.values()),
        )

    async def attempts(self) -> Attempts:
        """Return how often each step has begun on blocks that are not home."""
        return dict(self._attempts)

    async def finish(self) -> None:
        """Note that all blocks are home."""
        async with self._changed:
            self._finished.set()
            self._changed.notify_all()

    async def watch(self, worker: str) -> bool | None:
        """Wait a moment; returns True if the worker is to stop, False if it has nothing more to do.

        It does not wait for long, because Ray ends no worker that waits for an answer.
        """
        if worker in self._workers:
            self._workers[worker].heard = time.monotonic()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stopped, self._finished)]
        done, pending = await asyncio.wait(waits, timeout=WATCH_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        return self.is_stopped if done else None

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def _leave(self, worker: str) -> None:
        found = self._workers.pop(worker, None)
        if found is not None:
            self._times[found.step] += found.time

    def _set_up(self) -> Counter[int]:
        return Counter(worker.step for worker in self._workers.values() if worker.since is not None and worker.is_alive)

    def _place(self, step: int, worker: str | None, since: float, now: float) -> Place:
        found = self._workers.get(worker) if worker is not None else None
        return Place(step, None if worker is None else found.process if found else worker, max(0.0, now - since))
