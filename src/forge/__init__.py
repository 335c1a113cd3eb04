"""Data pipelines for machine learning: a source, stages, measurements, storage, dead letters."""

from typing import TYPE_CHECKING

from .costs import usage
from .costs.prices import Price, Prices
from .costs.summary import Charge, CostSummary, Use
from .costs.usage import Usage
from .definition import Pipeline
from .execution.results import MeasurementOutcome, StageOutcome
from .pipeline.exceptions import classify
from .pipeline.failure import FailureSource
from .pipeline.files import JSONLinesFiles, ParquetFiles
from .pipeline.measurement import Measurement
from .pipeline.retry import RetryPolicy
from .pipeline.sample import Sample, SampleOutcome, SampleStatus, Skip
from .pipeline.serializer import JSONSerializer
from .pipeline.shards import ShardedSource
from .pipeline.stages import Stage, stage
from .runner import BatchRunner, RayRunner, Run, RunResult, StreamingRunner
from .runner.outcome import ExitCode, RunOutcome, RunType
from .storage import ArtifactStore
from .storage.dead_letters import DeadLetterQueue
from .storage.records import DeadLetter
from .support.lazy import lazy

if TYPE_CHECKING:
    from .storage import SQLStorage
else:
    __getattr__, __dir__ = lazy(__name__, SQLStorage="forge.storage.sql")

__all__ = [
    "ArtifactStore",
    "BatchRunner",
    "Charge",
    "CostSummary",
    "DeadLetter",
    "DeadLetterQueue",
    "ExitCode",
    "FailureSource",
    "JSONLinesFiles",
    "JSONSerializer",
    "Measurement",
    "MeasurementOutcome",
    "ParquetFiles",
    "Pipeline",
    "Price",
    "Prices",
    "RayRunner",
    "RetryPolicy",
    "Run",
    "RunOutcome",
    "RunResult",
    "RunType",
    "SQLStorage",
    "Sample",
    "SampleOutcome",
    "SampleStatus",
    "ShardedSource",
    "Skip",
    "Stage",
    "StageOutcome",
    "StreamingRunner",
    "Usage",
    "Use",
    "classify",
    "stage",
    "usage",
]
