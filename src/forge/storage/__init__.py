"""Storage of samples, measured values, dead letters, runs and artifacts."""

from typing import TYPE_CHECKING

from ..support.lazy import lazy
from .artifacts import ArtifactStore
from .manifests import SampleFate
from .records import (
    ArtifactResult,
    DeadLetterKey,
    ReadResult,
    RunRow,
    SampleRecord,
    StoredArtifact,
    WriteOutcome,
    WriteResult,
)
from .steps import RecordedStep, Retry

if TYPE_CHECKING:
    from .sql import SQLStorage
else:
    # SQLAlchemy would be half of the import of `forge`, in every worker.
    __getattr__, __dir__ = lazy(__name__, SQLStorage="forge.storage.sql")

__all__ = [
    "ArtifactResult",
    "ArtifactStore",
    "DeadLetterKey",
    "ReadResult",
    "RecordedStep",
    "Retry",
    "RunRow",
    "SQLStorage",
    "SampleFate",
    "SampleRecord",
    "StoredArtifact",
    "WriteOutcome",
    "WriteResult",
]
