"""Executions in worker processes: what came home of them, and how observers reach into the workers.

A runner whose stages run in other processes calls `executing` there and `Run.executed` on the driver; what
`StageExecutor` and `MeasurementOrchestrator` report to observers in one process comes by these two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..costs.usage import Usage
    from ..pipeline.measurement import Measurement
    from ..pipeline.stages import Stage
    from .item import Item
    from .results import BatchMeasurementResult, BatchVerdict, MeasurementResult, Verdict


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that executes stages or measurements for a run."""

    host: str
    """Host name of its node."""
    pid: int
    id: str
    """Unique within the run; a worker in the place of one that died has another one."""


@dataclass(slots=True, kw_only=True)
class Executions:
    """Executions of one stage or measurement by one worker, as they came home: the calls on a block of samples.

    Each call processed one sample, or a batch. Usage reported in them is booked before, each in its sample's context.
    """

    subject: Stage | Measurement
    items: Sequence[Item]
    """Samples that were processed, call by call."""
    results: Sequence[Verdict] | Sequence[MeasurementResult] | Sequence[BatchVerdict] | Sequence[BatchMeasurementResult]
    """Results of the calls, with their durations."""
    started: Sequence[float]
    """Unix time in seconds at which each call began, by the worker's clock."""
    waited: Sequence[float] | None
    """Seconds that each item had waited since its previous step: in queues, in transfer, and behind others of its
    block. None for measurements."""
    worker: Worker
    batches: Sequence[int] | None = None
    """Number of items of each call; None where each processed one."""
    carriers: Sequence[str] = ()
    """Results of `executing`, one for each call; empty if all of them are empty strings."""
    usages: Sequence[Sequence[Usage]] = ()
    """Usage reported in each batch, priced; empty if there was none in any of them."""
    transferred: float | None = None
    """Seconds in which the block was transferred to the worker, a part of what its items waited; None if unknown."""
    attempts: int = 1
    """Number of times the work was handed to workers; the earlier ones died, and what they reported is lost."""


def executing(carriers: Sequence[str]) -> str:  # noqa: ARG001 - for observers
    """Report that a call begins in a worker. Called in the call's context, with the carriers of its samples.

    Returns the carrier of the call, which comes home with its result. Does nothing: it is there to be observed.
    """
    return ""
