"""Where samples, measured values, dead letters, runs and artifacts are kept."""

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
