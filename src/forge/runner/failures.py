"""Failures of a run: logged when a class of them first occurs, summed up at the end, and limited."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import ForgeError, TooManyFailuresError
from ..pipeline.exceptions import is_a, printable
from ..pipeline.sample import SampleOutcome
from .counters import readable
from .outcome import RunOutcome

if TYPE_CHECKING:
    from ..execution.item import Item
    from ..pipeline.failure import Failure
    from .counters import RunCounters
    from .result import RunResult

logger = logging.getLogger("forge")

MIN_TRIED = 100
"""Number of samples that must have been tried before a share of them, or all of them, are too many failures."""


class FailureLimit:
    """The limit on a run's failed samples: a number, a share of those tried; None: the first ones must not all fail."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self.waits = isinstance(limit, float)
        """True until enough samples were tried for a share of them; then only another failure can exceed it."""

    def error(self, counters: RunCounters) -> TooManyFailuresError | None:
        """Return the error that ends the run if too many of its samples have failed; None if not."""
        outcomes, limit = counters.outcomes, self._limit
        failed = outcomes[SampleOutcome.DLQ] + outcomes[SampleOutcome.FAILED]
        tried = failed + outcomes[SampleOutcome.READY]  # like `Ledger.tried`
        if isinstance(limit, int):
            exceeded = failed > limit
        elif tried < MIN_TRIED:
            return None
        else:
            self.waits = False
            exceeded = failed == tried if limit is None else failed / tried > limit
        if not exceeded:
            return None
        cause = counters.failures.summaries()[0]
        what, hint = f"{failed} of {tried} samples tried failed", f"max_failures={limit} allows no more"
        if limit is None:
            what, hint = f"the first {tried} samples tried all failed", "Pipeline(max_failures=1.0) would go on"
        return TooManyFailuresError(f"{what}, most of them as {cause} ({hint})")


class FailureLog:
    """Logs the failures of a run: the first one of each class and stage, and all others in one record at the end.

    Nothing is raised if a handler of the log fails.
    """

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline

    def sample_failed(self, item: Item, failure: Failure) -> None:
        """Log the first failure of its class and stage, in the context of its sample."""
        item.context.copy().run(self._warn_of, f"sample {item.sample.id!r}", failure)

    def batch_failed(self, items: Sequence[Item], failure: Failure) -> None:
        """Log the first failure of its class and stage to a batch call."""
        self._warn_of(f"a batch of {len(items)}, from sample {items[0].sample.id!r},", failure)

    def ended(self, result: RunResult) -> None:
        """Log the sums, if there were more failures than those logged, or nothing but failures."""
        failed = sum(failure.count for failure in result.failures)
        tried = result.ledger.tried - result.unfinished
        nothing_else = result.outcome is RunOutcome.COMPLETED and failed == tried > 0
        repeated = any(failure.count > 1 for failure in (*result.failures, *result.batch_failures))
        if nothing_else or repeated:
            share = "every sample" if nothing_else else f"{failed} of {tried} samples"
            self._warn("%s: %s tried failed: %s", share, "; ".join(result.failure_lines()))

    def _warn_of(self, what: str, failure: Failure) -> None:
        message = readable(failure.message)
        # An error of ours says it all; and no handler may be able to encode a text that had to be escaped, or hold one
        # that had to be cut.
        traced = message == failure.message and not is_a(failure.error, ForgeError)
        self._warn(
            "%s: %s failed in %s: %s: %s (others like it are counted)",
            what,
            failure.where,
            failure.error_type,
            message,
            error=printable(failure.error) if traced else None,
        )

    def _warn(self, message: str, *arguments: str, error: BaseException | None = None) -> None:
        with suppress(Exception):
            logger.warning(message, self._pipeline, *arguments, exc_info=error)
