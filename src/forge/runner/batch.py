"""One sample at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..item import Item
from ..queue import QueueClosed, StageQueue
from .base import Runner
from .settler import Settler
from .steps import Step, steps_of

if TYPE_CHECKING:
    from .run import Run


class BatchRunner(Runner):
    """Takes one sample after the other from the source to the storage, on one thread.

    The order of everything is fixed, which makes it the runner for tests and for looking at a fault. The samples that
    a split makes go on together, so that stages and measurements in batches see them together.
    """

    name = "batch"

    def driver(self, run: Run) -> SequentialDriver:
        return SequentialDriver(run)


class SequentialDriver:
    """Drives a run on one thread, which works only while the consumer waits for the next sample."""

    def __init__(self, run: Run) -> None:
        self.output = StageQueue(1, clock=run.clock)
        self.queues: dict[str, StageQueue] = {}
        self._run = run
        self._steps = steps_of(run)
        self._settler = Settler(run)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = self._run.thread(self._work, "forge-batch")

    def close(self) -> None:
        self.output.close()

    def join(self, timeout: float) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _work(self) -> None:
        with self._run.watch(self.output.finish):
            try:
                while (item := self._take()) is not None:
                    self.output.put_all(self._finish(item))
            finally:
                self._run.close_source()

    def _take(self) -> Item | None:
        self.output.wait_for_taker()
        item = self._run.take()
        if item is not None:
            item.context.copy().run(self._run.look_up, [item])
        return item

    def _finish(self, first: Item) -> list[Item]:
        """Take one item, and what is split from it, all the way; returns what became ready."""
        done: list[Item] = []
        going = [first]
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
        return self._settler.settle(done + going)

    def _process(self, step: Step, items: list[Item]) -> list[Item]:
        if step.is_async:
            done: list[Item] = self._run.wait_for(lambda: step.process_async(items))
            return done
        return step.process(items)
