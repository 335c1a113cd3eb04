"""The verdict on a run: what limited its throughput, and what to change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..support.formatting import share
from .outcome import RunOutcome

if TYPE_CHECKING:
    from ..definition import Pipeline
    from ..pipeline.measurement import Measurement
    from ..pipeline.stages import Stage
    from .result import MeasurementSummary, RunResult, StageSummary

BLOCKED = 0.1
"""Ratio of its time that a stage is held up by a full queue, from which on its successors are the bottleneck."""
BUSY = 0.5
"""Utilization from which on a stage limits a run in which no queue was full."""
COMPUTING = 0.8
"""Number of busy cores from which on the Python interpreter is the bottleneck: it computes on one core at a time."""
FULL_BATCH = 0.7
"""Mean size of batches, as a ratio of `batch_size`, below which larger ones would not be filled."""
NO_CALLS_TOGETHER = "batch"
"""The runner that makes one call at a time."""
IN_WORKERS = "ray"
"""The runner whose stages are in other processes. No queue between them tells which one holds up which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunVerdict:
    """The bottleneck of a run."""

    limit: str
    """`stage`, `measurement`, `storage`, `source`, `consumer` (the loop over the run), `driver` (the process that
    drives workers), or `none` if there was too little work to tell."""
    stage: str | None
    """Name of the limiting stage, or key of the limiting measurement; None for other limits."""
    utilization: float | None
    """Utilization of what limits, 0 to 1: of a stage's slots, or of the source's time; None if it is not known."""
    text: str
    """The finding, as a sentence."""
    advice: str
    """Advice: a change and its expected effect; empty if there is nothing to say."""

    def __str__(self) -> str:
        return f"{self.text} {self.advice}".strip()


class _Part(NamedTuple):
    """A part of a run through which all samples go."""

    kind: str
    name: str
    utilization: float
    summary: StageSummary | MeasurementSummary | None = None

    @property
    def label(self) -> str:
        """The name, in a sentence."""
        return self.name if self.summary is not None else f"the {self.kind}"


_STORAGE = _Part("storage", "storage", 0.0)


def judge(result: RunResult, pipeline: Pipeline) -> RunVerdict:
    """Return the verdict on a run of the pipeline.

    In a chain of parts with bounded queues, those before the slowest one are held up by full queues, and those after it
    are not: so the slowest part follows the last one that was held up. Where nothing was held up, it is the busiest.
    """
    ledger = result.ledger
    if result.outcome is RunOutcome.FAILED:
        return _none("the run failed.", "The next run does not repeat what is finished." if pipeline.storage else "")
    if not ledger.settled or result.duration <= 0:
        return _none("nothing was processed.")
    if 2 * ledger.unchanged > ledger.settled:
        text = f"{ledger.unchanged} of {ledger.settled} samples were finished by an earlier run."
        return _none(text, "A runner with resume=False (forge run --rerun) processes them again.")
    parts = list(_parts(result))
    if result.runner == NO_CALLS_TOGETHER:
        return _one_at_a_time(result, pipeline, parts)
    if result.runner == IN_WORKERS:
        return _in_workers(result, pipeline, parts)
    return _all_at_once(result, pipeline, parts)


def _in_workers(result: RunResult, pipeline: Pipeline, parts: list[_Part]) -> RunVerdict:
    """Return the verdict on a run whose stages worked in other processes: its busiest part, after the source if that
    was held up."""
    held_up = result.source.backpressure / result.duration >= BLOCKED
    driver = _Part("driver", "driver", min(_cores(result), 1.0))
    limit = max([*parts[held_up:], driver], key=lambda part: part.utilization)
    if limit.utilization < BUSY:
        return _idle(result, limit)
    if limit is driver:
        text = f"The driver limits the run: its process kept {_cores(result):.1f} cores busy, of which Python uses one."
        advice = "It reads the source, and settles and stores all results: have it read and store less for each sample."
        return _verdict(limit, text, advice)
    if limit.summary is None:
        return _limited_by(limit, result, pipeline, [*parts, driver])
    what = "The measurement " if limit.kind == "measurement" else ""
    workers = limit.summary.workers or 1
    are = "one worker was" if workers == 1 else f"{workers} workers were"
    text = f"{what}{limit.name} limits the run: its {are} {share(limit.utilization)} utilized."
    return _verdict(limit, text, _more_workers(limit, workers, pipeline, [*parts, driver]))


def _more_workers(limit: _Part, workers: int, pipeline: Pipeline, parts: list[_Part]) -> str:
    """Return the advice to give a stage or measurement more workers, if it had all that it may have."""
    definition: Stage | Measurement
    if limit.kind == "stage":
        definition = next(stage for stage in pipeline.stages if stage.name == limit.name)
    else:
        definition = next(measurement for measurement in pipeline.measurements if measurement.key == limit.name)
    if definition.is_async and definition.min_concurrency is None:
        most = definition.concurrency
        return f"With concurrency={2 * most}, calls at a time in its worker, {_faster(limit, parts, 2.0)}."
    more = min(2 * workers, definition.concurrency)
    if more > workers:
        return (
            f"It may have {definition.concurrency}: the cluster had no room for more, or the run was too short for Ray "
            "to start them. More nodes, or less `resources` for each worker, give room; "
            f"with {more} workers {_faster(limit, parts, more / workers)}."
        )
    reserves = definition.resources or {"CPU": 1}
    each = ", ".join(f"{amount:g} {name}" for name, amount in reserves.items())
    return f"With concurrency={2 * workers} {_faster(limit, parts, 2.0)}; each worker reserves {each} of the cluster."


def _all_at_once(result: RunResult, pipeline: Pipeline, parts: list[_Part]) -> RunVerdict:
    """Return the verdict on a run whose parts worked at the same time."""
    held_up = _last_held_up(result)
    if held_up is None:
        limit = max(parts, key=lambda part: part.utilization)
        return _idle(result, limit) if limit.utilization < BUSY else _limited_by(limit, result, pipeline, parts)
    if held_up == len(result.stages):
        return _limited_by(_behind_the_stages(result, parts), result, pipeline, parts)
    limit = parts[1 + held_up]
    if held_up == 0 and pipeline.storage is not None and _waits_for_work(result, limit):
        text = "The storage limits the run: new samples waited until they were looked up in it."
        return _verdict(_STORAGE, text, "Use a faster disk or database.")
    return _limited_by(limit, result, pipeline, parts)


def _limited_by(limit: _Part, result: RunResult, pipeline: Pipeline, parts: list[_Part]) -> RunVerdict:
    if limit.kind == "stage":
        return _stage_limits(result, pipeline, limit, parts)
    if limit.kind == "measurement":
        return _measurement_limits(result, pipeline, limit, parts)
    if limit.kind == "source":
        text = f"The source limits the run: reading it took {share(limit.utilization)} of the time."
        return _verdict(limit, text, f"A faster source, or several samples per read, gives {_faster(limit, parts)}.")
    if limit.kind == "consumer":
        text = f"The loop over the run limits it: results waited for it for {share(limit.utilization)} of the time."
        return _verdict(limit, text, "Do less in the loop: move its work into a stage.")
    text = "The storage limits the run: everything before it waited for it."
    return _verdict(limit, text, "Use a faster disk or database, or store less per sample.")


def _parts(result: RunResult) -> Iterator[_Part]:
    """Yield the source, the stages, the measurements and the consumer, in this order."""
    yield _Part("source", "source", result.source.busy / result.duration)
    for stage in result.stages:
        yield _Part("stage", stage.name, stage.utilization or 0.0, stage)
    for measurement in result.measurements:
        yield _Part("measurement", measurement.key, measurement.utilization or 0.0, measurement)
    yield _Part("consumer", "consumer", result.consumer_wait / result.duration)


def _last_held_up(result: RunResult) -> int | None:
    """Return how many stages precede the first part that nothing held up; None if nothing was held up at all."""
    blocked = [result.source.backpressure / result.duration]
    blocked += [stage.backpressure / (stage.concurrency * result.duration) for stage in result.stages]
    return max((index for index, ratio in enumerate(blocked) if ratio >= BLOCKED), default=None)


def _waits_for_work(result: RunResult, limit: _Part) -> bool:
    """Return True if a stage had time, and neither retries nor computations took it."""
    stage = next(each for each in result.stages if each.name == limit.name)
    return limit.utilization < BUSY and not stage.retries and _cores(result) < COMPUTING


def _behind_the_stages(result: RunResult, parts: list[_Part]) -> _Part:
    """Return what limits a run whose last stage was held up."""
    behind = max(parts[1 + len(result.stages) :], key=lambda part: part.utilization)
    return behind if behind.utilization >= BUSY else _STORAGE


def _stage_limits(result: RunResult, pipeline: Pipeline, limit: _Part, parts: list[_Part]) -> RunVerdict:
    stage = next(each for each in result.stages if each.name == limit.name)
    if limit.utilization < BUSY and stage.cancelled:
        calls = "a call" if stage.cancelled == 1 else f"calls of {stage.cancelled} samples"
        text = f"{stage.name} limits the run: {calls} had not come back when it ended."
        return _verdict(limit, text, "Give it a timeout; forge ps shows where the calls of a run in progress are.")
    text = f"{stage.name} limits the run: its {_slots(stage.concurrency)} {share(stage.utilization)} utilized"
    if stage.retries:
        text += f", with {stage.retries} {'retry' if stage.retries == 1 else 'retries'}"
    definition = next(each for each in pipeline.stages if each.name == stage.name)
    if _cores(result) >= COMPUTING and not definition.is_async:
        return _verdict(limit, f"{text}.", _computing(result))
    if limit.utilization < BUSY and stage.retries:
        return _verdict(
            limit, f"{text}.", "Find the cause of its retries: its slots are held during the waits between them."
        )
    advice = _more_slots(result, limit, parts, stage.concurrency)
    if definition.batch_size:
        return _verdict(limit, f"{text}.", _larger_batches(stage, definition.batch_size) + advice)
    return _verdict(limit, f"{text}.", f"It mostly waits: {advice}")


def _measurement_limits(result: RunResult, pipeline: Pipeline, limit: _Part, parts: list[_Part]) -> RunVerdict:
    definition = next(each for each in pipeline.measurements if each.key == limit.name)
    slots = _slots(definition.concurrency)
    text = f"The measurement {limit.name} limits the run: its {slots} {share(limit.utilization)} utilized."
    if _cores(result) >= COMPUTING and not definition.is_async:
        return _verdict(limit, text, _computing(result))
    return _verdict(limit, text, f"It mostly waits: {_more_slots(result, limit, parts, definition.concurrency)}")


def _one_at_a_time(result: RunResult, pipeline: Pipeline, parts: list[_Part]) -> RunVerdict:
    """Return the verdict on a run that made one call at a time: what is left of its time, the storage took."""
    ratios = [part.utilization * (part.summary.concurrency if part.summary else 1) for part in parts]
    ratio, limit = max(zip(ratios, parts, strict=True), key=lambda pair: pair[0])
    if pipeline.storage is not None and 1 - sum(ratios) > ratio:
        text = f"The batch runner stores one sample at a time: the storage took {share(1 - sum(ratios))} of the run."
        return _verdict(_STORAGE, text, "StreamingRunner stores many in one transaction.")
    if ratio < BLOCKED:
        return _idle(result, limit)
    text = f"The batch runner makes one call at a time: {limit.label} took {share(ratio)} of the run."
    if _cores(result) >= COMPUTING:
        return _verdict(limit, text, _computing(result))
    slowest = max(part.utilization for part in parts)
    times = min(1 / slowest, 1 / max(_cores(result), 1e-9)) if slowest else 1.0
    if times < 1.15:
        return _verdict(limit, text, "")
    return _verdict(
        limit, text, f"StreamingRunner, with the same settings, gives about {_times(times)} the throughput."
    )


def _idle(result: RunResult, busiest: _Part) -> RunVerdict:
    used = share(busiest.utilization)
    text = f"nothing was busy for half of the time: the busiest, {busiest.label}, was {used} utilized."
    if sum(stage.retries - stage.lost for stage in result.stages):
        return _none(text, "Its time went into waits between retries.")
    starts = ": workers take seconds to start" if result.runner == IN_WORKERS else ""
    return _none(text, f"A longer run, with more input, tells more{starts}.")


def _more_slots(result: RunResult, limit: _Part, parts: list[_Part], slots: int) -> str:
    """Return the advice to double the slots, with what that gives: no more than any other part can take."""
    effect = _faster(limit, [*parts, _interpreter(result)], 2.0)
    return f"with {2 * slots} instead of {slots} {'slot' if slots == 1 else 'slots'} (concurrency) {effect}."


def _larger_batches(stage: StageSummary, batch_size: int) -> str:
    mean = stage.executions / stage.batches if stage.batches else 0.0
    if mean < FULL_BATCH * batch_size:
        return f"Its batches had {mean:.1f} of {batch_size} samples on average: raise its max_wait, or "
    return f"Raise its batch_size (now {batch_size}), which helps if a call takes little longer for it; or "


def _faster(limit: _Part, parts: list[_Part], most: float = math.inf) -> str:
    """Return by how much the throughput may grow until another part limits it: one that is half utilized can take twice
    as much."""
    others = [part for part in parts if part is not limit and part.kind != "consumer"]
    following = max(others, key=lambda part: part.utilization, default=None)
    if following is None or not following.utilization or following.utilization * most <= 1.0:
        return f"about {_times(most)} the throughput" if most < math.inf else "more throughput"
    times = 1 / following.utilization
    if times < 1.05:
        return f"hardly more throughput, because {following.label} limits next"
    return f"{'up to' if most == math.inf else 'about'} {_times(times)} the throughput, then {following.label} limits"


def _times(factor: float) -> str:
    rounded = f"{factor:.1f}".removesuffix(".0") if factor < 10 else f"{factor:.0f}"
    return f"{rounded} times"


def _slots(count: int) -> str:
    return "one slot was" if count == 1 else f"{count} slots were"


def _cores(result: RunResult) -> float:
    return result.cpu / result.duration


def _interpreter(result: RunResult) -> _Part:
    return _Part("interpreter, on its one core,", "interpreter", min(_cores(result), 1.0))


def _computing(result: RunResult) -> str:
    return (
        f"The process kept {_cores(result):.1f} cores busy, and Python computes on one: more concurrency will not "
        "help. Compute less, or split the input among several processes: on two cores, two give about twice as much."
    )


def _verdict(limit: _Part, text: str, advice: str) -> RunVerdict:
    return RunVerdict(
        limit=limit.kind,
        stage=limit.name if limit.summary is not None else None,
        utilization=limit.utilization if limit.kind != "storage" else None,
        text=text,
        advice=advice,
    )


def _none(reason: str, advice: str = "") -> RunVerdict:
    return RunVerdict(limit="none", stage=None, utilization=None, text=f"No verdict: {reason}", advice=advice)


NO_VERDICT = _none("the run has not ended.")
