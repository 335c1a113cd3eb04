"""Outcomes of runs, and the exit codes of processes that drive them."""

from __future__ import annotations

from enum import IntEnum, StrEnum

from ..errors import BudgetReached, RunTerminated, TooManyFailuresError
from ..pipeline.exceptions import is_a


class RunType(StrEnum):
    """Kind of a run, by the samples that it takes."""

    FULL = "full"
    """All samples of the source."""
    PARTIAL = "partial"
    """The first samples of the source, as many as a limit allows."""
    REPLAY = "replay"
    """Dead letters, instead of the source."""


class RunOutcome(StrEnum):
    """Outcome of a run."""

    COMPLETED = "completed"
    """The source was exhausted and every sample has settled; single samples may have failed."""
    FAILED = "failed"
    """An error of the source, the storage, a stage's `setup` or the consumer, or `max_failures`, ended the run."""
    CANCELLED = "cancelled"
    """Closed early, interrupted, or stopped by `max_cost`."""


class ExitCode(IntEnum):
    """Exit code for a process that drives one run. 2 is left to errors of usage, for which commands have it."""

    OK = 0
    """No sample failed: all that were tried are ready, skipped or split."""
    RUN_FAILED = 1
    """The run failed, or an exception that is neither an error nor a signal ended it."""
    SAMPLES_FAILED = 3
    """Some samples failed, and the run did not."""
    TOO_MANY_FAILURES = 4
    """The run failed because more samples did than `max_failures` allows."""
    HUNG_UP = 129
    """SIGHUP ended the run: 128 + 1."""
    INTERRUPTED = 130
    """SIGINT, as sent by Ctrl-C, ended the run: 128 + 2."""
    TERMINATED = 143
    """SIGTERM ended the run: 128 + 15."""


def exit_code_of(outcome: RunOutcome, error: BaseException | None, failures: int) -> ExitCode:
    """Return the exit code for a run that ended because of an error, if any, and in which so many samples failed."""
    if is_a(error, TooManyFailuresError):
        return ExitCode.TOO_MANY_FAILURES
    if is_a(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if is_a(error, RunTerminated):
        return ExitCode(128 + error.signal)
    # Closed early by its consumer, perhaps at the end of a generator around it, or by its budget: that was intended.
    intended = error is None or is_a(error, BudgetReached, GeneratorExit)
    if outcome is RunOutcome.FAILED or not intended:
        return ExitCode.RUN_FAILED
    return ExitCode.SAMPLES_FAILED if failures else ExitCode.OK
