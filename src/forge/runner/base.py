"""The base class of runners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import ClassVar

from ..definition import Pipeline
from ..errors import ConfigurationError, NotReplayableError
from ..storage.records import DeadLetter
from ..support.clock import LONGEST_WAIT, Clock, SystemClock
from ..support.numbers import is_finite, shown
from .driver import Driver
from .run import Run


class Runner(ABC):
    """Runs pipelines; one runner may run many, also at the same time.

    `resume=False` does everything again instead of settling what is finished as `unchanged`; measurements are still
    taken from the cache. `clock` is for tests.

    While the main thread drives a run, SIGTERM and SIGHUP end it as `cancelled`, within `shutdown_timeout` seconds,
    before they end the process; where they are ignored, or have a handler, nothing changes. `handle_signals=False`
    turns that off.

    `introspect=True` lets `forge ps` of the same user show where each sample is, while a run is in progress: through a
    Unix socket that nobody else can open. SIGUSR1 then prints the same, where it has no handler.

    Raises:
        ConfigurationError: `shutdown_timeout` is no positive number.
    """

    name: ClassVar[str]
    """Name of the runner, in records of runs: `batch`, `streaming` or `ray`."""

    def __init__(
        self,
        *,
        resume: bool = True,
        clock: Clock | None = None,
        shutdown_timeout: float = 5.0,
        handle_signals: bool = True,
        introspect: bool = False,
    ) -> None:
        if not is_finite(shutdown_timeout) or not 0 < shutdown_timeout <= LONGEST_WAIT:
            what = f"{type(self).__name__}(shutdown_timeout={shown(shutdown_timeout)})"
            raise ConfigurationError(f"{what}: must be a positive number of seconds")
        self._resume = resume
        self._clock = clock or SystemClock()
        self._shutdown_timeout = float(shutdown_timeout)
        self._handle_signals = handle_signals
        self._introspect = introspect

    @abstractmethod
    def driver(self, run: Run) -> Driver:
        """Create the driver that moves the samples of a run."""

    def run(self, pipeline: Pipeline, *, limit: int | None = None) -> Run:
        """Create a run of the pipeline, which begins when it is iterated or drained.

        With a `limit`, it takes at most so many samples from the source, and is a partial run.

        Raises:
            ConfigurationError: it is no pipeline, the limit is no positive whole number, or the file of prices that
                `FORGE_PRICES` names is faulty.
        """
        if not isinstance(pipeline, Pipeline):
            raise ConfigurationError(f"{type(self).__name__}().run() takes a Pipeline, not {pipeline!r}")
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            what = f"{type(self).__name__}().run(limit={limit!r})"
            raise ConfigurationError(f"{what}: must be a positive number of samples, or None for all")
        return self._run(pipeline, self._resume, limit=limit)

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
        return self._run(pipeline, True, replay=entries)

    def _run(
        self,
        pipeline: Pipeline,
        resume: bool,
        *,
        replay: Sequence[DeadLetter] | None = None,
        limit: int | None = None,
    ) -> Run:
        return Run(
            pipeline,
            runner=self.name,
            clock=self._clock,
            resume=resume,
            driver=self.driver,
            replay=replay,
            limit=limit,
            shutdown_timeout=self._shutdown_timeout,
            handle_signals=self._handle_signals,
            introspect=self._introspect,
        )
