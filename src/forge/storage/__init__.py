"""Storage of samples, measured values, dead letters, runs and artifacts."""

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
from .sql import SQLStorage
from .steps import RecordedStep, Retry

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
