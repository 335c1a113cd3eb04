"""Running pipelines."""

from .base import Runner
from .batch import BatchRunner
from .result import (
    FailureSummary,
    Ledger,
    MeasurementSummary,
    RunResult,
    RunSnapshot,
    StageState,
    StageSummary,
    StorageSummary,
)
from .run import Run
from .streaming import StreamingRunner

__all__ = [
    "BatchRunner",
    "FailureSummary",
    "Ledger",
    "MeasurementSummary",
    "Run",
    "RunResult",
    "RunSnapshot",
    "Runner",
    "StageState",
    "StageSummary",
    "StorageSummary",
    "StreamingRunner",
]
