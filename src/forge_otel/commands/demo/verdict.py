"""Which part of a pipeline limited a run, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .numbers import share

if TYPE_CHECKING:
    from forge import Pipeline, RunResult
    from forge.runner.result import StageSummary

BLOCKED = 0.1
"""The share of its time that a stage is held up by a full queue, from which on what follows is too slow for it."""
COMPUTING = 0.8
"""The number of cores, from which on the Python interpreter itself is the limit: it computes on one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What limited a run."""

    limit: str
    """`stage`, `measurements` (with the storage behind them), `source`, or `none` where little was to be done."""
    stage: str | None
    utilization: float | None
    cores: float
    """Processor seconds of the process for each second of the run."""
    text: str
    advice: str


def judge(result: RunResult, pipeline: Pipeline, cpu: float) -> Verdict:
    """The verdict on a run that took so many processor seconds.

    In a line of stages joined by bounded queues everything before the slowest one is held up by full queues, and
    nothing behind it is: it comes right after the last one that was held up.
    """
    cores = cpu / result.duration if result.duration > 0 else 0.0
    stages = result.stages
    ledger = result.ledger
    if 2 * ledger.unchanged > ledger.settled:
        return Verdict(
            limit="none",
            stage=None,
            utilization=None,
            cores=cores,
            text=f"Nothing to judge: {ledger.unchanged} of {ledger.settled} samples were finished by an earlier run.",
            advice="--rerun does everything again.",
        )
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
            text=f"No stage limits the run: the busiest, {stage.name}, was used to {share(utilization)}.",
            advice="Feed it faster: more input at a time, or a faster source.",
        )
    text = f"{stage.name} limits the run: its {_slots(stage)} used to {share(utilization)}"
    if stage.retries:
        text += f", with {stage.retries} retries"
    definition = next(one for one in pipeline.stages if one.name == stage.name)
    if computing:
        advice = _computing(cores)
    elif definition.is_async or (utilization or 0.0) >= 0.5:
        advice = f"It mostly waits: raise its concurrency (now {stage.concurrency})."
    else:
        advice = "Look at what its attempts wait for between retries."
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
        "Make what it computes cheaper, or share the input among several processes."
    )
