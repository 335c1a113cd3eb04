"""Storage of samples, measured values, dead letters, runs and artifacts."""

from .artifacts import ArtifactStore
from .records import ArtifactResult, DeadLetterKey, ReadResult, RunRow, SampleRecord, WriteOutcome, WriteResult
from .sql import SQLStorage

__all__ = [
    "ArtifactResult",
    "ArtifactStore",
    "DeadLetterKey",
    "ReadResult",
    "RunRow",
    "SQLStorage",
    "SampleRecord",
    "WriteOutcome",
    "WriteResult",
]
