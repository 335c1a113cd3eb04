"""Running pipelines."""

from .base import Runner
from .batch import BatchRunner
from .ray import RayRunner
from .result import (
    FailureSummary,
    Ledger,
    MeasurementSummary,
    RunResult,
    RunSnapshot,
    SourceSummary,
    StageState,
    StageSummary,
    StorageSummary,
    Summaries,
)
from .run import Run
from .streaming import StreamingRunner
from .verdict import RunVerdict

__all__ = [
    "BatchRunner",
    "FailureSummary",
    "Ledger",
    "MeasurementSummary",
    "RayRunner",
    "Run",
    "RunResult",
    "RunSnapshot",
    "RunVerdict",
    "Runner",
    "SourceSummary",
    "StageState",
    "StageSummary",
    "StorageSummary",
    "StreamingRunner",
    "Summaries",
]
