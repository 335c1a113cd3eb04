"""One execution of a dataset: a run, with a span for each operator."""

from __future__ import annotations

import contextvars
import hashlib
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context

from ...engine.call import Call, open_call
from ...engine.operation import NOTHING, LogEvent, MetricPoint, Operation, Result
from ...engine.sampling import EventBudget
from ...engine.scopes import RUN, SAMPLE
from ...patching import faults
from ...semconv import attributes as a
from ...semconv import events, metrics, spans
from ...semconv.attributes import ForgeRunOutcome as RunOutcome
from ...semconv.attributes import ForgeRunType as RunType
from ...semconv.attributes import ForgeSampleOutcome as SampleOutcome
from ...semconv.attributes import ForgeStageOutcome as StageOutcome
from ...semconv.attributes import ForgeTaskOutcome as TaskOutcome
from ...semconv.attributes import ForgeTelemetryReason as Reason
from ...semconv.attributes import ForgeTelemetrySignal as Signal
from ...semconv.definitions import Metric
from ...signals.context import missing_parent
from ...signals.metrics import Attributes
from ..error_types import error_type
from ..run_summary import foreign_result, foreign_stage, last_run, summaries
from . import operators
from .errors import is_cancelled, user_error
from .operators import Operator

if TYPE_CHECKING:
    from ...signals.telemetry import Telemetry

RUNNER: Final = "ray_data"
DROPPED: Final = "dropped"
"""Reason of skips: Ray Data knows none."""
WRITE_INTERVAL: Final = 1.0
"""Seconds between two looks at the counts of the operators."""
REPORT_TIMEOUT: Final = 5.0
"""Maximum time in seconds that the end of a run waits for the reports of a write, which the caller waits for, too."""
MAX_NAME: Final = 100
"""Maximum length of a run's name that is made of the names of operators."""


def _start_run(execution: Execution) -> Attributes:
    return {**execution.run_attributes, a.VCS_REF_HEAD_REVISION: _revision()}


def _revision() -> str | None:
    from forge.runner.revision import code_revision  # noqa: PLC0415 - only where there are runs

    return code_revision()


_ON_SPAN_ONLY: Attributes = {a.VCS_REF_HEAD_REVISION: None}
"""Attributes that are not on the events of a run; the summary has its own."""


def _announce_run(call: Call) -> Sequence[LogEvent]:
    name = call.attributes[a.FORGE_PIPELINE_NAME]
    return [LogEvent(events.FORGE_PIPELINE_START, f"Run started: {name}", _ON_SPAN_ONLY)]


def _end_run(call: Call, outcome: RunOutcome | None, error: BaseException | None) -> Result:
    execution: Execution = call.arguments[0]
    outcome = RunOutcome.FAILED if outcome is None else outcome
    name, duration = call.attributes[a.FORGE_PIPELINE_NAME], call.elapsed
    kind = error_type(error) if error is not None else None
    attributes = {a.FORGE_RUN_OUTCOME: outcome.value, a.ERROR_TYPE: kind}
    emitted = []
    if error is not None:
        body = f"Run failed: {name}, {kind}"
        emitted.append(LogEvent(events.FORGE_PIPELINE_EXCEPTION, body, {a.ERROR_TYPE: kind}, error))
    body = f"Run {outcome.value}: {name}, after {duration:.3g} s"
    result = execution.result(outcome, duration)
    emitted += [
        LogEvent(events.FORGE_PIPELINE_STOP, body, attributes),
        *summaries(result, {**attributes, **execution.telemetry_counts()}),
    ]
    points = [
        MetricPoint(metrics.FORGE_PIPELINE_COMPLETED),
        MetricPoint(metrics.FORGE_PIPELINE_DURATION, duration),
        *(last_run(result, time.time()) if execution.is_full else ()),
    ]
    emitted = [event._replace(attributes={**_ON_SPAN_ONLY, **event.attributes}) for event in emitted]
    return Result(attributes=attributes, error=error, points=points, events=emitted, duration=duration)


RUN_OPERATION = Operation(
    name="a run of Ray Data", span=spans.FORGE_PIPELINE, start=_start_run, announce=_announce_run, end=_end_run
)


def _start_stage(execution: Execution, operator: Operator) -> Attributes:
    return {**execution.identity, a.FORGE_STAGE_NAME: operator.name}


def _end_stage(call: Call, outcome: StageOutcome | None, _: BaseException | None) -> Result:
    operator: Operator = call.arguments[1]
    attributes = {
        a.FORGE_STAGE_OUTCOME: (outcome or StageOutcome.ERROR).value,
        a.ERROR_TYPE: error_type(operator.error) if operator.error is not None else None,
        a.FORGE_STAGE_INPUT_SAMPLES: None if operator.reads or operator.lists else operator.input,
        a.FORGE_STAGE_OUTPUT_SAMPLES: operator.output,
        a.FORGE_STAGE_OUTPUT_BLOCKS: operator.blocks,
        a.FORGE_STAGE_OUTPUT_SIZE: operator.size,
    }
    return Result(attributes=attributes, error=operator.error)


STAGE_OPERATION = Operation(
    name="an operator of Ray Data", span=spans.FORGE_STAGE_RUN, start=_start_stage, end=_end_stage
)


def _task_failed(call: Call, _: None, __: BaseException | None) -> Result:
    execution, operator, error, duration = call.arguments
    kind = error_type(error)
    points = [MetricPoint(metrics.FORGE_STAGE_FAILURES, 1, {a.ERROR_TYPE: kind})]
    if not execution.may_emit(kind):
        return Result(points=points)
    body = f"Stage failed: {operator.name}, {kind}, after 1 attempts"
    event = LogEvent(events.FORGE_STAGE_EXCEPTION, body, {a.ERROR_TYPE: kind}, error)
    return Result(points=points, events=[event], duration=duration)


FAILURE = Operation(
    name="a failed task of Ray Data",
    start=lambda execution, operator, *_: _start_stage(execution, operator),
    end=_task_failed,
)


class Execution:
    """One execution of a dataset, from before its first task to after its last one.

    All but `begin` and `up_down_counters` are called on the executor's thread.
    """

    def __init__(self, telemetry: Telemetry, topology: Any, name: str | None) -> None:
        self._telemetry = telemetry
        self._by_operator = operators.operators(topology)
        self.operators = list(self._by_operator.values())
        self._writer = next((each for each, operator in self._by_operator.items() if operator.writes), None)
        names = [operator.name for operator in self.operators]
        self.is_full = all(operator.limit is None for operator in self.operators)
        self.run_attributes: Attributes = {
            a.FORGE_PIPELINE_NAME: name or _joined(names),
            a.FORGE_PIPELINE_ID: hashlib.sha256("\n".join(names).encode()).hexdigest()[:16],
            a.FORGE_RUN_ID: str(uuid.uuid4()),
            a.FORGE_RUN_TYPE: (RunType.FULL if self.is_full else RunType.PARTIAL).value,
            a.FORGE_RUNNER_NAME: RUNNER,
        }
        self.identity = {key: self.run_attributes[key] for key in (a.FORGE_PIPELINE_NAME, a.FORGE_RUN_ID)}
        self._call: Call | None = None
        self._stages: dict[Operator, Call] = {}
        """The spans of the operators that have begun and not ended."""
        self._spans = 0
        self._suppressed = 0
        self._faults_before = telemetry.faults
        self._budget = EventBudget(telemetry.config.event_budget)
        self._written: dict[tuple[Any, ...], float] = {}
        self._due = 0.0
        self._ready = 0
        self._progressed: float | None = None
        self._closed: set[Operator] = set()
        """The operators of which also is counted what went in and did not come out."""
        self._remaining: dict[str, int] = {}
        """Rows without an operator that accounts for them, by the outcome with which they settle at the end."""
        self._lock = threading.Lock()
        """Held while counts are written: at the end of the telemetry another thread does so."""

    # On the caller's thread.

    def begin(self) -> bool:
        """Start the run's span as a child of the caller's; return False if nothing is to be recorded."""
        return contextvars.copy_context().run(self._begin)

    def _begin(self) -> bool:
        RUN.set(None)  # a dataset inside a stage of `forge` is a run of its own
        SAMPLE.set(None)
        telemetry = self._telemetry
        telemetry.prepare()
        parent = missing_parent(telemetry.config.parent_from_environment)
        if parent is not None:
            otel_context.attach(parent)
        self._call = open_call(RUN_OPERATION, telemetry, self)
        return self._call is not None

    # On the executor's thread.

    def enter(self) -> None:
        """Begin to record, with the run's span current on this thread until it ends."""
        assert self._call is not None
        RUN.set(None)
        SAMPLE.set(None)
        self._count_span(self._call)
        if self._call.context is not None:
            otel_context.attach(self._call.context)  # never detached: the thread is the run's
        self._telemetry.runs.add(self)
        self._telemetry.observables.add(self)
        self._telemetry.write_initial_points(self._initial_points())
        self._call.write(MetricPoint(metrics.FORGE_PIPELINE_STARTED))

    def step(self) -> None:
        """Look at the operators: which have begun, which have ended, and now and then at their counts."""
        for operator in self.operators:
            if operator in self._closed:
                continue
            if operator not in self._stages and operator.started:
                self._open_stage(operator)
            if operator in self._stages and operator.finished:
                operator.read_reports(0)
                if not operator.reports:
                    self._close_stage(operator, StageOutcome.SUCCESS)
        if self._telemetry.clock() >= self._due:
            self.write()

    def task_ends(self, operator: Any, rows: int, error: BaseException | None, duration: float) -> None:
        """Count a task that has ended; `operator` is Ray's."""
        found = self._by_operator.get(operator)
        if found is None:
            return
        raised = user_error(error) if error is not None else None
        if is_cancelled(raised):  # by Ray, because nobody needs its rows any more
            outcome, kind, raised = TaskOutcome.CANCELLED, None, None
        elif raised is not None:
            outcome, kind = TaskOutcome.FAILED, error_type(raised)
        else:
            outcome, kind = TaskOutcome.COMPLETED, None
        found.task_ends(rows, raised)
        at = {a.FORGE_STAGE_NAME: found.name, a.FORGE_TASK_OUTCOME: outcome.value, a.ERROR_TYPE: kind}
        self._series(metrics.FORGE_TASK_COMPLETED, at).append(1)
        self._series(metrics.FORGE_TASK_DURATION, at).append(duration)
        if raised is not None:
            if found not in self._stages and found not in self._closed:
                self._open_stage(found)
            stage = self._stages.get(found)
            tokens = stage.enter() if stage is not None else None
            failure = open_call(FAILURE, self._telemetry, self, found, raised, duration)
            if failure is not None:
                failure.close(None)
            if stage is not None:
                stage.leave(tokens)

    def output_taken(self, operator: Any, output: Any) -> None:
        """Keep what a write reports; `operator` and `output` are Ray's."""
        if operator is self._writer:
            self._by_operator[operator].reports += output.block_refs

    def end(self, error: BaseException | None) -> None:
        """End the run with what is known of it, after the last step."""
        call, output = self._call, self.operators[-1]
        assert call is not None
        with faults.protected("the reports of a write"):
            output.read_reports(REPORT_TIMEOUT)
        limits = [operator.limit for operator in self.operators if operator.limit is not None]
        if error is not None:
            outcome, stopped = RunOutcome.FAILED, StageOutcome.CANCELLED
        elif output.finished or (limits and output.output >= min(limits)):
            outcome, stopped = RunOutcome.COMPLETED, StageOutcome.SUCCESS
        else:
            outcome, stopped = RunOutcome.CANCELLED, StageOutcome.CANCELLED
        for operator in self.operators:
            if operator not in self._closed and (operator in self._stages or operator.started):
                if operator not in self._stages:
                    self._open_stage(operator)
                self._close_stage(operator, StageOutcome.SUCCESS if operator.finished else stopped)
        left = self.summed("admitted") + self._derived - output.output - self._dropped - self._errors
        settled = SampleOutcome.SKIPPED if outcome is RunOutcome.COMPLETED else SampleOutcome.FAILED
        self._remaining = {settled.value: max(0, left)}
        self.write()
        call.close(outcome, user_error(error) if error is not None else None)
        self._telemetry.observables.remove(self)
        self._telemetry.release(self)

    def may_emit(self, kind: str) -> bool:
        """Return True if the budget has room for an event about this class of errors; else it is suppressed."""
        if self._budget.take(kind):
            return True
        self._suppressed += 1
        suppressed = {a.FORGE_TELEMETRY_SIGNAL: Signal.EVENT.value, a.FORGE_TELEMETRY_REASON: Reason.BUDGET.value}
        self._series(metrics.FORGE_TELEMETRY_SUPPRESSED, suppressed).append(1)
        return False

    # Counts.

    def write(self) -> None:
        """Write what was counted since the last time."""
        if not self._telemetry.is_closed:
            self._write()

    def _write(self) -> None:
        with self._lock:
            for place, operator in enumerate(self.operators):
                if operator.writes:
                    operator.read_reports(0)
                self._write_stage(place, operator)
            ready = self.operators[-1].output
            self._add(metrics.FORGE_SAMPLE_ADMITTED, self.summed("admitted"))
            settled = {
                SampleOutcome.READY.value: ready,
                SampleOutcome.SKIPPED.value: self._dropped + self._remaining.get(SampleOutcome.SKIPPED.value, 0),
                SampleOutcome.FAILED.value: self._errors + self._remaining.get(SampleOutcome.FAILED.value, 0),
            }
            for outcome, count in settled.items():
                self._add(metrics.FORGE_SAMPLE_SETTLED, count, {a.FORGE_SAMPLE_OUTCOME: outcome})
            if ready > self._ready:
                self._ready, self._progressed = ready, time.time()
            self._due = self._telemetry.clock() + WRITE_INTERVAL

    def close(self) -> None:
        """Write what was counted, while the telemetry is closed."""
        self._write()

    def forget(self) -> None:
        """Do nothing in a forked process: the executor's thread is not there."""

    def up_down_counters(self) -> Iterator[tuple[Metric, float, Attributes]]:
        """Yield the values of up-down counters at this moment."""
        yield metrics.FORGE_PIPELINE_ACTIVE, 1, self.run_attributes
        yield metrics.FORGE_SAMPLE_ACTIVE, self.summed("active") + self.summed("queued"), self.run_attributes
        for operator in self.operators:
            at = {**self.run_attributes, a.FORGE_STAGE_NAME: operator.name}
            yield metrics.FORGE_STAGE_ACTIVE, operator.active, at
            yield metrics.FORGE_STAGE_QUEUE_DEPTH, operator.queued, at
            if operator.concurrency is not None:
                yield metrics.FORGE_STAGE_CONCURRENCY_LIMIT, operator.concurrency, at

    def gauges(self) -> Iterator[tuple[Metric, float, Attributes]]:
        """Yield the values of gauges at this moment."""
        if self._progressed is not None:
            yield metrics.FORGE_PIPELINE_PROGRESS_TIMESTAMP, self._progressed, self.run_attributes

    def summed(self, count: str) -> int:
        """Return the sum of a count over all operators."""
        return sum(getattr(operator, count) for operator in self.operators)

    @property
    def _dropped(self) -> int:
        return sum(operator.dropped for operator in self.operators if operator in self._closed and operator.finished)

    @property
    def _derived(self) -> int:
        return sum(operator.derived for operator in self.operators if operator in self._closed)

    @property
    def _errors(self) -> int:
        return sum(operator.errors for operator in self.operators if operator in self._closed)

    def _write_stage(self, place: int, operator: Operator) -> None:
        at = {a.FORGE_STAGE_NAME: operator.name}
        self._add(metrics.FORGE_STAGE_BUSY_TIME, operator.busy, at, place)
        self._add(metrics.FORGE_STAGE_BACKPRESSURE_TIME, operator.backpressure, at, place)
        self._add(metrics.FORGE_STAGE_OUTPUT_BLOCKS, operator.blocks, at, place)
        self._add(metrics.FORGE_STAGE_OUTPUT_IO, operator.size, at, place)
        counts = {StageOutcome.SUCCESS: operator.succeeded}
        if operator in self._closed:
            counts[StageOutcome.ERROR] = operator.errors
            self._add(metrics.FORGE_SAMPLE_DERIVED, operator.derived, at, place)
            if operator.finished:
                counts[StageOutcome.SKIP] = operator.dropped
                self._add(metrics.FORGE_STAGE_SKIPS, operator.dropped, {**at, a.FORGE_SKIP_REASON: DROPPED}, place)
        for outcome, count in counts.items():
            self._add(metrics.FORGE_STAGE_EXECUTIONS, count, {**at, a.FORGE_STAGE_OUTCOME: outcome.value}, place)

    def _add(self, metric: Metric, total: float, extra: Attributes = NOTHING, place: int | None = None) -> None:
        """Add to a counter by how much a total has grown."""
        key = (metric.name, place, *extra.values())
        grown = total - self._written.get(key, 0)
        if grown > 0:
            self._written[key] = total
            self._series(metric, extra).append(grown)

    def _series(self, metric: Metric, extra: Attributes) -> Any:
        return self._telemetry.series.get(metric, {**self.run_attributes, **extra})

    def _initial_points(self) -> Iterable[tuple[Metric, Attributes]]:
        """Yield the counter series that follow from the operators."""
        where = self.run_attributes
        yield metrics.FORGE_PIPELINE_STARTED, where
        yield metrics.FORGE_SAMPLE_ADMITTED, where
        for run_outcome in RunOutcome:
            yield metrics.FORGE_PIPELINE_COMPLETED, {**where, a.FORGE_RUN_OUTCOME: run_outcome.value}
        for settled in (SampleOutcome.READY, SampleOutcome.SKIPPED, SampleOutcome.FAILED):
            yield metrics.FORGE_SAMPLE_SETTLED, {**where, a.FORGE_SAMPLE_OUTCOME: settled.value}
        for operator in self.operators:
            at = {**where, a.FORGE_STAGE_NAME: operator.name}
            yield metrics.FORGE_SAMPLE_DERIVED, at
            yield metrics.FORGE_STAGE_BUSY_TIME, at
            yield metrics.FORGE_STAGE_BACKPRESSURE_TIME, at
            for ended in (TaskOutcome.COMPLETED, TaskOutcome.FAILED, TaskOutcome.CANCELLED):
                yield metrics.FORGE_TASK_COMPLETED, {**at, a.FORGE_TASK_OUTCOME: ended.value}
            for outcome in (StageOutcome.SUCCESS, StageOutcome.SKIP, StageOutcome.ERROR):
                yield metrics.FORGE_STAGE_EXECUTIONS, {**at, a.FORGE_STAGE_OUTCOME: outcome.value}

    # Spans of operators.

    def _open_stage(self, operator: Operator) -> None:
        call = open_call(STAGE_OPERATION, self._telemetry, self, operator)
        if call is not None:
            self._stages[operator] = call
            self._count_span(call)

    def _close_stage(self, operator: Operator, outcome: StageOutcome) -> None:
        self._closed.add(operator)
        call = self._stages.pop(operator, None)
        if call is not None:
            call.close(StageOutcome.ERROR if operator.error is not None else outcome)

    def _count_span(self, call: Call) -> None:
        self._spans += call.span is not None and call.span.is_recording()

    # The end.

    def result(self, outcome: RunOutcome, duration: float) -> Any:
        """Return the result of the run, as the summary reads it."""
        counts = self._counts()
        shown = ", ".join(f"{each} {count}" for each, count in counts.items() if count)
        name = self.run_attributes[a.FORGE_PIPELINE_NAME]
        headline = f"{name}: {outcome.value} in {duration:.3g} s; {shown or 'no rows'}"
        return foreign_result(headline, counts, outcome, duration, list(self._stage_summaries()), _revision())

    def telemetry_counts(self) -> Attributes:
        """Return what the telemetry of the run says of itself."""
        return {
            a.FORGE_SUMMARY_SPANS: self._spans,
            a.FORGE_SUMMARY_SUPPRESSED: self._suppressed,
            a.FORGE_SUMMARY_FAULTS: self._telemetry.faults - self._faults_before,
        }

    def _stage_summaries(self) -> Iterator[Any]:
        for operator in self.operators:
            skips = operator.dropped if operator.finished else 0
            yield foreign_stage(
                operator.name,
                executions=operator.succeeded + operator.errors + skips,
                errors=operator.errors,
                skips=skips,
                busy=operator.busy,
                backpressure=operator.backpressure,
            )

    def _counts(self) -> dict[str, int]:
        """Return the counts of rows: admitted, derived, and by outcome."""
        settled = dict.fromkeys((each.value for each in SampleOutcome), 0)
        settled["ready"] = self.operators[-1].output
        settled["skipped"] = self._dropped + self._remaining.get("skipped", 0)
        settled["failed"] = self._errors + self._remaining.get("failed", 0)
        return {"admitted": self.summed("admitted"), "derived": self._derived, **settled}


def _joined(names: Sequence[str]) -> str:
    """Return the name of a run without one: the names of its operators, the middle cut out if it is too long."""
    joined = "->".join(names)
    half = (MAX_NAME - 1) // 2
    return joined if len(joined) <= MAX_NAME else f"{joined[:half]}…{joined[-half:]}"
