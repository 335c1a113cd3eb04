"""The errors that `forge` raises. All but configuration errors belong to a sample or a run."""

from __future__ import annotations

import signal


class ForgeError(Exception):
    """Base class of the errors below."""


class ConfigurationError(ForgeError, ValueError):
    """A pipeline, stage, measurement or storage was described wrongly; raised where it is built."""


class StageResultError(ForgeError, TypeError):
    """A stage or a measurement returned something that is not allowed."""


class StageTimeoutError(ForgeError, TimeoutError):
    """One call of a stage or a measurement took longer than its `timeout`."""


class StageStuckError(ForgeError, RuntimeError):
    """All slots of a stage are held by calls that ran into their timeout and never returned."""


class TooManyFailuresError(ForgeError, RuntimeError):
    """More samples of a run failed than its pipeline's `max_failures` allows."""


class SourceError(ForgeError, RuntimeError):
    """The source cannot be read, or not a second time: a file is missing or broken, an iterator is used up."""


class DuplicateIdError(ForgeError, ValueError):
    """The same sample id came twice in one run."""


class SerializationError(ForgeError, TypeError):
    """The data cannot be stored with the pipeline's serializer."""


class StorageError(ForgeError, RuntimeError):
    """The storage cannot be opened or used: bad URL, missing driver, no permission, no server."""


class UnstorableError(StorageError, ValueError):
    """A sample cannot be stored in any database: its id is too long, or it has measured values without a digest."""


class RunCancelled(ForgeError):  # noqa: N818 - the field says cancelled, and nothing went wrong
    """The run ended before this sample was finished; samples in flight settle with it."""


class RunTerminated(RunCancelled):
    """A signal is ending the process, and the run with it."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"the process received {number.name}")
        self.signal = number
        """The signal."""


class RunNotFoundError(ForgeError, LookupError):
    """There is no such run in the storage, or several begin like that."""


class UnendedRunError(ForgeError, ValueError):
    """A run that is still in progress, or whose process died, has no counts to compare."""


class SampleNotFoundError(ForgeError, LookupError):
    """Neither a run nor its storage knows a sample with this id."""


class NotReplayableError(ForgeError, ValueError):
    """A dead letter cannot be replayed: its data was not stored, or can no longer be read."""


class ArtifactNotFoundError(ForgeError, LookupError):
    """There is no artifact under this key."""


class ArtifactCorruptError(StorageError):
    """The content of an artifact does not match its key."""


class UsageError(ForgeError, ValueError):
    """A `Usage` was built that makes no sense: out of range, contradictory or without a provider."""


class BudgetReached(RunCancelled):
    """A run has spent its `max_cost`, so it ended before its source did."""


class ClusterError(ForgeError, RuntimeError):
    """A cluster could not run the pipeline, although it was asked several times."""


class WorkerDiedError(ForgeError, RuntimeError):
    """The worker process died each time that it processed this sample."""
