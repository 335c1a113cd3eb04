"""Data pipelines for machine learning: a source, stages, measurements, storage, dead letters."""

from . import usage
from .costs import Charge, CostSummary, Use
from .dead_letters import DeadLetter, DeadLetterQueue, FailureSource
from .measurement import Measurement
from .pipeline import Pipeline
from .prices import Price, Prices
from .results import MeasurementOutcome, RunOutcome, StageOutcome
from .retry import RetryPolicy, classify
from .runner import BatchRunner, Run, RunResult, StreamingRunner
from .sample import Sample, SampleOutcome, SampleStatus, Skip
from .serializer import JSONSerializer
from .stages import Stage, stage
from .storage import ArtifactStore, SQLStorage
from .usage import Usage

__all__ = [
    "ArtifactStore",
    "BatchRunner",
    "Charge",
    "CostSummary",
    "DeadLetter",
    "DeadLetterQueue",
    "FailureSource",
    "JSONSerializer",
    "Measurement",
    "MeasurementOutcome",
    "Pipeline",
    "Price",
    "Prices",
    "RetryPolicy",
    "Run",
    "RunOutcome",
    "RunResult",
    "SQLStorage",
    "Sample",
    "SampleOutcome",
    "SampleStatus",
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
