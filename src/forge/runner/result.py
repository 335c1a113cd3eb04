"""Results of runs: snapshots while they go on, and the result at their end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, overload

from ..costs.summary import CostSummary
from ..pipeline.code import code_digest
from ..pipeline.exceptions import CANCELLED, classify, message_of
from ..pipeline.sample import SampleOutcome
from ..support.layout import terminal_width, to_html, to_text
from .outcome import ExitCode, RunOutcome, RunType, exit_code_of
from .report import failure_line, failures_in, headline, report
from .revision import code_revision
from .stalls import Stall
from .verdict import NO_VERDICT, RunVerdict, judge

if TYPE_CHECKING:
    from .run import Run

logger = logging.getLogger("forge")

_Summary = TypeVar("_Summary", bound="StageSummary | MeasurementSummary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Counts of a run's samples: `admitted + derived == settled + active` at every moment."""

    admitted: int = 0
    """Samples taken from the source, or from the dead letters in a replay."""
    derived: int = 0
    """Samples created by splitting."""
    active: int = 0
    """Samples in flight; 0 once the run has ended."""
    ready: int = 0
    """Samples that passed everything and are stored."""
    skipped: int = 0
    """Samples skipped by a stage."""
    unchanged: int = 0
    """Samples finished by an earlier run."""
    split: int = 0
    """Samples replaced by their children."""
    dlq: int = 0
    """Samples stored as dead letters."""
    failed: int = 0
    """Samples that failed without a dead letter."""

    @property
    def settled(self) -> int:
        """Sum of all outcomes."""
        return self.ready + self.skipped + self.unchanged + self.split + self.dlq + self.failed

    @property
    def tried(self) -> int:
        """Samples that have succeeded or failed; skipped, split and unchanged ones have done neither."""
        return self.ready + self.dlq + self.failed

    @property
    def imbalance(self) -> int:
        """0, unless samples were lost or counted twice."""
        return self.admitted + self.derived - self.settled - self.active


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSummary:
    """Summary of one stage of a run. Times are in seconds, percentiles within 1 %."""

    name: str
    """Name of the stage."""
    executions: int
    """Samples with a verdict of the stage: the sum of the four outcomes."""
    successes: int
    """Executions that returned samples."""
    skips: int
    """Executions that returned `Skip`."""
    errors: int
    """Executions that failed after all attempts."""
    cancelled: int
    """Executions abandoned because the run ended."""
    retries: int
    """Attempts after the first of each execution."""
    p50: float | None
    """Median duration; None without executions."""
    p95: float | None
    """95th percentile of the duration."""
    p99: float | None
    """99th percentile of the duration."""
    max: float | None
    """Longest duration."""
    busy: float
    """Seconds spent in attempts, summed over all slots."""
    utilization: float | None
    """`busy` divided by slots times the run's duration, or by the time of its workers' slots: near 1, the stage limits
    the run."""
    queue_wait_p95: float | None
    """95th percentile of the time waited in the stage's queue; None for runners without queues."""
    backpressure: float
    """Seconds blocked by a full next queue."""
    concurrency: int
    """Configured number of concurrent calls."""
    batches: int
    """Batches processed; 0 for stages without batches."""
    batch_failures: int
    """Batches that failed as a whole, so that their samples were processed alone."""
    workers: int | None = None
    """Largest number of its worker processes at a time; None if its calls were made in the run's process."""
    transfer: float | None = None
    """Seconds in which its worker processes unpacked blocks of samples."""
    lost: int = 0
    """Those of the retries that were made because worker processes died: calls of blocks that were handed out again.
    Usage reported before is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementSummary:
    """Summary of one measurement of a run. Times are seconds in `compute`."""

    key: str
    """Key of the measurement."""
    version: str
    """Version of the measurement."""
    computed: int
    """Values computed in this run."""
    cached: int
    """Values read from the storage."""
    errors: int
    """Samples for which the measurement failed."""
    p50: float | None
    """Median duration; None if nothing was computed."""
    p95: float | None
    """95th percentile of the duration."""
    p99: float | None
    """99th percentile of the duration."""
    max: float | None
    """Longest duration."""
    busy: float
    """Seconds spent in `compute`, summed over all slots."""
    utilization: float | None
    """`busy` divided by slots times the run's duration, or by the time of its workers' slots: near 1, the measurement
    limits the run."""
    concurrency: int
    """Configured number of concurrent calls."""
    workers: int | None = None
    """Largest number of its worker processes at a time; None if it was computed in the run's process."""
    transfer: float | None = None
    """Seconds in which its worker processes unpacked blocks of samples."""
    lost: int = 0
    """Calls that were handed out again because worker processes had died. Usage reported before is lost."""


class Summaries(list[_Summary]):
    """Summaries in order, found by index, and by the name of the stage or the key of the measurement.

    Raises:
        KeyError: there is none of that name; it tells which there are.
    """

    @overload
    def __getitem__(self, index: SupportsIndex | str) -> _Summary: ...

    @overload
    def __getitem__(self, index: slice) -> list[_Summary]: ...

    def __getitem__(self, index: SupportsIndex | str | slice) -> _Summary | list[_Summary]:
        if not isinstance(index, str):
            return super().__getitem__(index)
        for summary in self:
            if _name_of(summary) == index:
                return summary
        raise KeyError(f"{index!r}; there are {', '.join(map(_name_of, self)) or 'none'}")


def _name_of(summary: StageSummary | MeasurementSummary) -> str:
    return summary.name if isinstance(summary, StageSummary) else summary.key


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSummary:
    """Summary of the source of a run. Times are in seconds."""

    busy: float = 0.0
    """Seconds in which the source was read: near the run's duration, the source limits the run."""
    backpressure: float = 0.0
    """Seconds in which reading was blocked by a full queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSummary:
    """Totals written by a run: rows by outcome, artifacts, bytes of content."""

    inserted: int = 0
    """Sample rows inserted."""
    updated: int = 0
    """Sample rows updated."""
    unchanged: int = 0
    """Sample rows that had the same content already."""
    bytes_written: int = 0
    """Bytes of data and values written to the database."""
    artifacts_uploaded: int = 0
    """Artifacts written to the artifact store."""
    artifacts_deduplicated: int = 0
    """Artifacts whose content was stored already."""
    artifact_bytes_written: int = 0
    """Bytes written to the artifact store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureSummary:
    """Failures of one class at one place, with the first of them as an example."""

    source: str
    """Kind of component: a value of `FailureSource`."""
    where: str
    """Stage, measurement or storage backend."""
    error_type: str
    """Class of the error, as returned by `classify`. Beyond 100 classes and places, `_OTHER`."""
    count: int
    """Number of failures."""
    sample_id: str
    """Id of the first sample that failed; of a batch, of its first sample."""
    message: str
    """Message of the first error, at most 1000 characters of it."""

    def __str__(self) -> str:
        return failure_line(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of a run, which is also stored as its record."""

    run_id: str
    """UUID of the run."""
    pipeline: str
    """Name of the pipeline."""
    pipeline_id: str
    """Id of the pipeline's definition."""
    definition: Mapping[str, Any]
    """Names and versions of stages and measurements, from which the id is derived."""
    runner: str
    """Name of the runner: `batch`, `streaming` or `ray`."""
    type: RunType
    """Kind of the run."""
    outcome: RunOutcome
    """Outcome of the run as a whole."""
    exit_code: ExitCode
    """Exit code for a process that did nothing but this run."""
    error_type: str | None
    """Class of the error that ended the run, as returned by `classify`; None if there was none."""
    error: str | None
    """Message of that error."""
    started: float
    """Unix time."""
    ended: float
    """Unix time: `started` plus `duration`, also if the machine's clock was set meanwhile."""
    duration: float
    """Seconds, from a monotonic clock."""
    ledger: Ledger
    """Counts of samples by outcome."""
    stages: Summaries[StageSummary]
    """One summary per stage, in pipeline order; also by the stage's name: `stages["parse"].p95`."""
    measurements: Summaries[MeasurementSummary]
    """One summary per measurement, in order of execution; also by the measurement's key."""
    storage: StorageSummary
    """Rows, artifacts and bytes written."""
    dead_letters: Mapping[tuple[str, str, str], int]
    """Dead letters enqueued, by (source, stage or measurement or backend, error type)."""
    failures: Sequence[FailureSummary]
    """Samples that failed, with and without a dead letter, the commonest first."""
    batch_failures: Sequence[FailureSummary]
    """Batches that failed as a whole, so that their samples were processed alone, the commonest first."""
    skips: Mapping[tuple[str, str], int]
    """Skipped samples, by (stage, reason)."""
    input_digest: str
    """Sum of the SHA-256 digests of the ids that the source gave, in whatever order."""
    revision: str | None
    """Revision of the code; None outside of a git checkout."""
    cost: CostSummary = field(default_factory=CostSummary)
    """Usage and costs of API calls."""
    source: SourceSummary = field(default_factory=SourceSummary)
    """Time spent in the source."""
    consumer_wait: float = 0.0
    """Seconds in which ready samples waited for the loop over the run, because it had as many as it can hold."""
    cpu: float = 0.0
    """Processor seconds of the process during the run."""
    stalls: Sequence[Stall] = field(default_factory=list)
    """Times longer than the pipeline's `stall_after` in which nothing settled although the consumer waited."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Digests of the code of stages and measurements, by name; they do not decide what is processed again."""
    carrier: Mapping[str, str] = field(default_factory=dict)
    """Strings of observers, such as a trace context; see `Run.carrier`."""
    verdict: RunVerdict = NO_VERDICT
    """Bottleneck of the run, what to change, and what that would give."""

    @property
    def unfinished(self) -> int:
        """Samples that were in flight when the run ended; they settled as `failed`, without a failure of their own."""
        return self.ledger.dlq + self.ledger.failed - sum(failure.count for failure in self.failures)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain = asdict(self) | {name: [*map(asdict, getattr(self, name))] for name in ("stages", "measurements")}
        plain["cost"] = self.cost.to_dict()
        plain["ledger"] |= {"settled": self.ledger.settled, "imbalance": self.ledger.imbalance}
        plain["dead_letters"] = [
            {"source": source, "where": where, "error_type": kind, "count": count}
            for (source, where, kind), count in sorted(self.dead_letters.items())
        ]
        plain["skips"] = [
            {"stage": stage, "reason": reason, "count": count} for (stage, reason), count in sorted(self.skips.items())
        ]
        return plain

    @property
    def headline(self) -> str:
        """Outcome of the run and of its samples, on one line."""
        return headline(self.to_dict())

    def failure_lines(self) -> list[str]:
        """Return a line for each class of failures, of samples and of batches the commonest five each."""
        return [line.text for line in failures_in(self.to_dict())]

    def report(self, width: int | None = None) -> str:
        """Return the whole report: the outcome, and why samples are not ready; stages, measurements, costs and storage;
        the verdict. With a width, lines are folded, and tables leave out columns.
        """
        return to_text(report(self.to_dict()), width)

    def __str__(self) -> str:
        """Return the report, as wide as the terminal that it is printed on."""
        return self.report(terminal_width())

    def _repr_html_(self) -> str:
        """Return the report for a notebook."""
        return to_html(report(self.to_dict()))


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """The state of one stage at one moment."""

    name: str
    """Name of the stage."""
    executions: int
    """Samples with a verdict of the stage so far."""
    errors: int
    """Executions that failed after all attempts."""
    retries: int
    """Attempts after the first of each execution."""
    active: int
    """Calls in progress; a batch is one."""
    concurrency: int
    """Maximum number of concurrent calls."""
    queue_depth: int
    """Samples that wait for the stage; 0 if the runner has no queues."""
    queue_limit: int
    """Size of the queue; 0 if it has none, or no limit of its own."""
    workers: int | None
    """Worker processes of the stage; None if its calls are made in the run's process."""
    slots: int
    """Number of calls that can be made at a time now: `concurrency`, or as many as its worker processes can make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSnapshot:
    """The state of a run at one moment, read under one lock."""

    ledger: Ledger
    """Counts of samples by outcome."""
    stages: Sequence[StageState]
    """One state per stage, in pipeline order."""
    last_settled: float | None
    """Unix time when a sample last settled."""
    source_remaining: int | None
    """Samples of the source that are not admitted yet; None if its size is unknown, 0 once it has ended."""
    cost: Decimal
    """US dollars spent so far."""


def result_of(run: Run, outcome: RunOutcome, error: BaseException | None) -> RunResult:
    """Return the result of a run that has just ended."""
    duration = run.clock.monotonic() - run.started.monotonic
    pipeline, ledger = run.pipeline, run.ledger
    revision = code_revision()
    cancelled = CANCELLED if outcome is RunOutcome.CANCELLED else None
    with ledger.lock:
        counters = ledger.counters
        result = RunResult(
            run_id=run.id,
            pipeline=pipeline.name,
            pipeline_id=pipeline.id,
            definition=pipeline.definition,
            runner=run.runner,
            type=run.type,
            outcome=outcome,
            exit_code=exit_code_of(outcome, error, counters.failures.count),
            error_type=classify(error) if error is not None else cancelled,
            error=message_of(error) if error is not None else None,
            started=run.started.time,
            ended=run.started.time + duration,
            duration=duration,
            ledger=counters.ledger(),
            stages=Summaries(stage.summary(duration) for stage in counters.stages.values()),
            measurements=Summaries(measurement.summary(duration) for measurement in counters.measurements.values()),
            storage=counters.storage_summary(),
            dead_letters=counters.failures.dead_letters,
            failures=counters.failures.summaries(),
            batch_failures=counters.batch_failures.summaries(),
            skips=dict(counters.skips),
            cost=ledger.costs.summary(counters.outcomes[SampleOutcome.READY]),
            input_digest=ledger.input_digest,
            revision=revision,
            source=counters.source.summary(run.started.monotonic + duration),
            consumer_wait=counters.consumer_wait,
            cpu=time.process_time() - run.started_cpu,
            stalls=run.stalls,
            code={
                name: digest
                for name, each in (
                    *((stage.name, stage) for stage in pipeline.stages),
                    *((measurement.key, measurement) for measurement in pipeline.measurements),
                )
                if (digest := code_digest(each)) is not None
            },
            carrier=dict(run.carrier),
        )
    try:
        return replace(result, verdict=judge(result, pipeline))
    except Exception:
        logger.exception("the verdict on run %s cannot be given", run.id)
        return result
