"""The runner for Ray; Ray itself is imported when it is created."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Final

from ...errors import ConfigurationError
from ...support.clock import Clock
from ...support.numbers import MAX_COUNT, is_count, shown
from ..base import Runner

if TYPE_CHECKING:
    from ..run import Run
    from .driver import RayDriver

BLOCK_SIZE = 64
"""Default number of samples that travel together."""
_SKIPPED: Final = ("RAY_DEDUP_LOGS_SKIP_REGEX", "PYTHON worker processes have been started on node")
"""Variable that Ray reads when it is imported: a line that it leaves out. On a small machine, the workers of a long
pipeline have shares of a core, and Ray would warn of that."""


class RayRunner(Runner):
    """Runs each stage in worker processes of a Ray cluster, with Ray Data.

    The source is read, and results are stored, in the process that iterates the run: a sample settles there, once, when
    it has come home. Samples travel in blocks of at most `block_size`, at least as many as the largest `batch_size` or
    `concurrency` of async stages; a slow source sends smaller ones.

    Connects to nothing by itself: it runs on the cluster that `ray.init` connected to, or starts Ray on this machine.

    Raises:
        ConfigurationError: Ray is not installed, or `block_size` is no positive whole number.
    """

    name = "ray"

    def __init__(
        self,
        *,
        block_size: int = BLOCK_SIZE,
        resume: bool = True,
        clock: Clock | None = None,
        shutdown_timeout: float = 5.0,
        handle_signals: bool = True,
        introspect: bool = False,
    ) -> None:
        super().__init__(
            resume=resume,
            clock=clock,
            shutdown_timeout=shutdown_timeout,
            handle_signals=handle_signals,
            introspect=introspect,
        )
        if not is_count(block_size, 1, MAX_COUNT):
            raise ConfigurationError(
                f"RayRunner(block_size={shown(block_size)}): must be a whole number from 1 to {MAX_COUNT}"
            )
        if importlib.util.find_spec("ray") is None:
            raise ConfigurationError('RayRunner needs Ray: pip install "forge-otel[ray]"')
        self._block_size = block_size

    def driver(self, run: Run) -> RayDriver:
        """Create the driver that moves the samples of a run through the cluster.

        Raises:
            ConfigurationError: the pipeline has nothing that Ray could run, or a part that cannot be pickled.
        """
        os.environ.setdefault(*_SKIPPED)
        from .driver import RayDriver  # noqa: PLC0415 - imports Ray, which takes a second

        return RayDriver(run, block_size=self._block_size)
