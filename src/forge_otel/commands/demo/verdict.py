"""The verdict on a run: its bottleneck, and advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..numbers import share

if TYPE_CHECKING:
    from forge import Pipeline, RunResult
    from forge.runner.result import StageSummary

BLOCKED = 0.1
"""Ratio of its time that a stage is held up by a full queue, from which on its successors are the bottleneck."""
COMPUTING = 0.8
"""Number of busy cores from which on the Python interpreter is the bottleneck: it computes on one core at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The bottleneck of a run."""

    limit: str
    """`stage`, `measurements` (including the storage), `source`, or `none` if there was too little work to tell."""
    stage: str | None
    utilization: float | None
    cores: float
    """Processor seconds of the process per second of the run."""
    text: str
    advice: str


def judge(result: RunResult, pipeline: Pipeline, cpu: float) -> Verdict:
    """Return the verdict on a run that took `cpu` processor seconds.

    In a chain of stages with bounded queues, the stages before the slowest one are held up by full queues, and those
    after it are not: so the slowest stage follows the last one that was held up.
    """
    cores = cpu / result.duration if result.duration > 0 else 0.0
    stages = result.stages
    ledger = result.ledger
    none: str | None = None
    if result.outcome == "failed":
        none, advice = "the run failed.", "The next run does not repeat what is finished."
    elif 2 * ledger.unchanged > ledger.settled:
        none = f"{ledger.unchanged} of {ledger.settled} samples were finished by an earlier run."
        advice = "Use --rerun to process them again."
    if none is not None:
        text = f"No verdict: {none}"
        return Verdict(limit="none", stage=None, utilization=None, cores=cores, text=text, advice=advice)
    held_up = [index for index, stage in enumerate(stages) if _held_up(stage, result.duration)]
    after = max(held_up) + 1 if held_up else _busiest(stages)
    computing = cores >= COMPUTING
    if after == len(stages):
        keys = ", ".join(measurement.key for measurement in result.measurements)
        return Verdict(
            limit="measurements",
            stage=None,
            utilization=None,
            cores=cores,
            text=f"The measurements ({keys}) and the storage limit the run: {stages[-1].name} waited for them.",
            advice=_computing(cores) if computing else "Measure in batches, or raise the measurements' concurrency.",
        )
    stage = stages[after]
    utilization = stage.utilization
    if not held_up and (utilization or 0.0) < 0.5:
        return Verdict(
            limit="source",
            stage=None,
            utilization=utilization,
            cores=cores,
            text=f"No stage limits the run: the busiest, {stage.name}, was {share(utilization)} utilized.",
            advice="Use a faster source, or more input.",
        )
    text = f"{stage.name} limits the run: its {_slots(stage)} {share(utilization)} utilized"
    if stage.retries:
        text += f", with {stage.retries} retries"
    definition = next(one for one in pipeline.stages if one.name == stage.name)
    if computing:
        advice = _computing(cores)
    elif definition.is_async or (utilization or 0.0) >= 0.5:
        advice = f"It mostly waits: raise its concurrency (now {stage.concurrency})."
    else:
        advice = "Find the cause of its retries, and of the waits between them."
    return Verdict(
        limit="stage", stage=stage.name, utilization=utilization, cores=cores, text=f"{text}.", advice=advice
    )


def _held_up(stage: StageSummary, duration: float) -> bool:
    return duration > 0 and stage.backpressure >= BLOCKED * stage.concurrency * duration


def _busiest(stages: Sequence[StageSummary]) -> int:
    return max(range(len(stages)), key=lambda index: stages[index].utilization or 0.0)


def _slots(stage: StageSummary) -> str:
    return "one slot was" if stage.concurrency == 1 else f"{stage.concurrency} slots were"


def _computing(cores: float) -> str:
    return (
        f"The process kept {cores:.1f} cores busy, and Python computes on one: more concurrency will not help. "
        "Reduce the computation, or split the input among several processes."
    )
