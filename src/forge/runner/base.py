"""The base class of runners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

from ..definition import Pipeline
from ..errors import ConfigurationError, NotReplayableError
from ..support.clock import Clock, SystemClock
from .driver import Driver
from .run import Run


class Runner(ABC):
    """Runs pipelines; one runner may run many, also at the same time.

    `resume=False` does everything again instead of settling what is finished as `unchanged`; measurements are still
    taken from the cache. `clock` is for tests.
    """

    name: ClassVar[str]

    def __init__(self, *, resume: bool = True, clock: Clock | None = None) -> None:
        self._resume = resume
        self._clock = clock or SystemClock()

    @abstractmethod
    def driver(self, run: Run) -> Driver:
        """Create the driver that moves the samples of a run."""

    def run(self, pipeline: Pipeline) -> Run:
        """Create a run of the pipeline, which begins when it is iterated or drained.

        Raises:
            ConfigurationError: it is no pipeline, or the file of prices that `FORGE_PRICES` names is faulty.
        """
        if not isinstance(pipeline, Pipeline):
            raise ConfigurationError(f"{type(self).__name__}().run() takes a Pipeline, not {pipeline!r}")
        return Run(pipeline, runner=self.name, clock=self._clock, resume=self._resume, driver=self.driver)

    def replay(self, pipeline: Pipeline, sample_ids: Collection[str] | None = None) -> Run:
        """Create a run that processes the pipeline's dead letters instead of its source: all replayable ones, or those
        named. A sample that succeeds loses its dead letter; one that fails again gets a new one.

        Raises:
            ConfigurationError: the pipeline has no storage, or one of the ids has no dead letter.
            NotReplayableError: one of the ids has a dead letter without data.
        """
        entries = pipeline.dead_letters.list()
        if sample_ids is None:
            entries = [entry for entry in entries if entry.replayable]
        else:
            known = {entry.sample_id: entry for entry in entries}
            missing = [sample_id for sample_id in sample_ids if sample_id not in known]
            if missing:
                raise ConfigurationError(f"pipeline {pipeline.name!r} has no dead letter for {', '.join(missing)}")
            entries = [known[sample_id] for sample_id in sample_ids]
            for entry in entries:
                if not entry.replayable:
                    raise NotReplayableError(
                        f"the dead letter of {entry.sample_id!r} has no data, because it could not be serialised"
                    )
        return Run(pipeline, runner=self.name, clock=self._clock, resume=True, driver=self.driver, replay=entries)
