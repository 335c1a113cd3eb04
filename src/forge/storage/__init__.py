"""Storage of samples, measured values, dead letters, runs and artifacts."""

from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """Import the storage at its first use: SQLAlchemy would be half of the import of `forge`, in every worker."""
    if name != "SQLStorage":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sql import SQLStorage  # noqa: PLC0415

    return SQLStorage


def __dir__() -> list[str]:
    return sorted({*globals(), "SQLStorage"})
