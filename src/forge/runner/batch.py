"""A runner that makes one call at a time, on one thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..execution.item import Item
from .base import Runner
from .committer import Committer
from .driver import Driver
from .queue import QueueClosed, StageQueue
from .steps import Step, steps_of

if TYPE_CHECKING:
    from .run import Run


class BatchRunner(Runner):
    """Takes samples from the source to the storage on one thread, one call after the other.

    The order of everything is fixed, which makes it the runner for tests and for looking at a fault. It takes one
    sample at a time; with stages or measurements in batches, as many as the largest `batch_size`, waiting for the
    source until it has them or ends. The samples of a split go on together.
    """

    name = "batch"

    def driver(self, run: Run) -> SequentialDriver:
        return SequentialDriver(run)


class SequentialDriver(Driver):
    """Drives a run on one thread, which works only while the consumer waits for the next sample."""

    remote = False

    def __init__(self, run: Run) -> None:
        self.output = StageQueue(1, clock=run.clock)
        self._run = run
        self._steps = steps_of(run)
        self._round_size = max((step.batch_size or 1 for step in self._steps), default=1)
        """Number of samples of the source that are taken together."""
        self._committer = Committer(run)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = self._run.thread(self._work, "forge-batch")

    def close(self) -> None:
        self.output.close()

    def join(self, timeout: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _work(self) -> None:
        with self._run.supervise(self.output.finish):
            try:
                more = True
                while more:
                    self.output.wait_for_taker()
                    items = self._take()
                    more = len(items) == self._round_size
                    self.output.put_all(self._finish(items))
            finally:
                self._run.close_source()

    def _take(self) -> list[Item]:
        """Take the items of the next round; fewer at the end of the source."""
        items: list[Item] = []
        while len(items) < self._round_size and (item := self._take_one()) is not None:
            item.context.copy().run(self._run.look_up, [item])
            items.append(item)
        if self._run.stop.is_set():
            raise QueueClosed
        return items

    def _take_one(self) -> Item | None:
        begun = self._run.clock.monotonic()
        try:
            return self._run.take()
        finally:
            self._run.counters.source.busy += self._run.clock.monotonic() - begun  # by this thread only

    def _finish(self, items: Sequence[Item]) -> list[Item]:
        """Process items, and those derived from them, to the end; returns those that became ready."""
        done: list[Item] = []
        going = list(items)
        for step in self._steps:
            here: list[Item] = []
            beyond: list[Item] = []
            for item in going:
                (done if item.verdict is not None else here if item.step <= step.index else beyond).append(item)
            size = step.batch_size or 1
            for start in range(0, len(here), size):
                beyond += self._process(step, here[start : start + size])
                if self._run.stop.is_set():
                    raise QueueClosed
            going = beyond
        return self._committer.settle(done + going)

    def _process(self, step: Step, items: list[Item]) -> list[Item]:
        if step.is_async:
            done: list[Item] = self._run.wait_for(lambda: step.process_async(items))
            return done
        return step.process(items)
