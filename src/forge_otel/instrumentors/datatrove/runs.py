"""Runs and tasks: their descriptions, and what is written of the reports of tasks."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Token
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import context as otel_context

from ...engine.call import Call, Clocks, open_call
from ...engine.operation import LogEvent, MetricPoint, Operation, Result
from ...engine.scopes import RUN, SAMPLE, RunScope
from ...patching import faults
from ...semconv import attributes as a
from ...semconv import events, metrics, spans
from ...semconv.attributes import ForgeRunOutcome, ForgeRunType, ForgeSampleOutcome, ForgeStageOutcome, ForgeTaskOutcome
from ...signals.context import missing_parent
from ...support.exceptions import is_a
from ..error_types import error_type
from ..run_summary import foreign_result, foreign_stage, last_run, summaries
from .meter import StepReport, TaskReport, step_names

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from ...semconv.definitions import Metric
    from ...signals.metrics import Attributes
    from ...signals.telemetry import Telemetry

RUNNER: Final = "datatrove"

_UNNAMED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[a-z]{5}")
"""The logging directory that datatrove makes up: another one in each run."""


class TaskEnd(NamedTuple):
    """The end of a task."""

    report: TaskReport
    """Work since the last report."""
    outcome: str
    duration: float
    error_type: str | None = None
    message: str | None = None
    exception: Mapping[str, str] = {}
    """Attributes of the exception, where it was raised in another process."""
    error: BaseException | None = None
    step: str | None = None
    """The step that raised it."""
    failed_after: float = 0.0
    """Seconds that this step had spent on the document."""


NOTHING_MORE: Final = TaskReport((), 0, 0)


class _RemoteError(Exception):
    """Stands for an exception of another process, of which the text is known."""


# The identity of a pipeline.


def pipeline_name(executor: Any) -> str:
    """Return a name for the pipeline of an executor, the same in each of its runs.

    The first one of: the executor's attribute `pipeline_name`, a Slurm job's name, the last part of the logging
    directory unless datatrove has made it up, the name of the program.
    """
    for attribute in ("pipeline_name", "job_name"):
        name = getattr(executor, attribute, None)
        if isinstance(name, str) and name:
            return name
    directory = getattr(getattr(executor, "logging_dir", None), "path", None)
    last = PurePath(directory).name if isinstance(directory, str) else ""
    if last and not _UNNAMED.fullmatch(last):
        return last
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    return PurePath(program).stem if isinstance(program, str) and program else RUNNER


def _pipeline_id(name: str, steps: Sequence[str]) -> str:
    return hashlib.sha256("\0".join((name, *steps)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _run_type(executor: Any) -> ForgeRunType:
    """Return `partial` where a part of the tasks or of the documents was asked for."""
    limited = any(getattr(step, "limit", None) not in (None, -1) for step in executor.pipeline)
    return ForgeRunType.PARTIAL if limited or executor.local_tasks < executor.tasks else ForgeRunType.FULL


@contextmanager
def _parent(telemetry: Telemetry) -> Iterator[None]:
    """Make the parent current that the environment names, if that was asked for and there is none."""
    parent = missing_parent(telemetry.config.parent_from_environment)
    if parent is None:
        yield
        return
    token = otel_context.attach(parent)
    try:
        yield
    finally:
        otel_context.detach(token)


# The run.


_MOST_DURATIONS: Final = 256
"""Durations of one report that the percentiles are taken of."""


class StepTotals:
    """All that a step has done in a run."""

    def __init__(self) -> None:
        from forge.support.percentiles import Sketch  # noqa: PLC0415 - the telemetry imports `forge` late

        self.outcomes: Counter[str] = Counter()
        self.busy = 0.0
        self.durations = Sketch()
        self.longest = 0.0

    def add(self, durations: Sequence[float]) -> None:
        """Add the durations of a report: of many the longest and every so many, which take a bounded time."""
        if durations:
            longest = max(durations)
            self.longest = max(self.longest, longest)
            for duration in durations[:: len(durations) // _MOST_DURATIONS + 1]:
                self.durations.add(duration)

    def summary(self, name: str, available: float) -> Any:
        """Return the summary of the step in a run whose workers had so many seconds together."""
        quantile = self.durations.quantile
        return foreign_stage(
            name,
            executions=self.outcomes.total(),
            errors=self.outcomes[ForgeStageOutcome.ERROR.value],
            skips=self.outcomes[ForgeStageOutcome.SKIP.value],
            p50=quantile(0.5),
            p95=quantile(0.95),
            p99=quantile(0.99),
            max=self.longest if self.durations.count else None,
            busy=self.busy,
            utilization=self.busy / available if available else None,
            backpressure=0.0,
        )


class DatatroveRun:
    """A run of an executor, while it goes on."""

    runner = RUNNER

    def __init__(self, telemetry: Telemetry, executor: Any) -> None:
        self.telemetry = telemetry
        self.executor = executor
        self.id = str(uuid.uuid4())
        self.name = pipeline_name(executor)
        self.type = _run_type(executor)
        self.steps = [
            name for name, step in zip(step_names(executor.pipeline), executor.pipeline, strict=True) if callable(step)
        ]
        self.totals = {step: StepTotals() for step in self.steps}
        self.samples: Counter[str] = Counter()
        """Documents: `admitted`, `derived`, and those that have settled by outcome."""
        self.tasks_to_run: int | None = None
        """Tasks that no earlier run has completed; None as long as the executor has not looked."""
        self.last_settled: float | None = None
        self.lock = threading.Lock()
        self.faults_before = telemetry.faults
        self._tokens: tuple[Token[Any], Token[Any]] | None = None
        self._opened = self._open()

    def up_down_counters(self) -> Iterator[tuple[Metric, float, Attributes]]:
        """Yield the values of up-down counters at this moment."""
        where = {a.FORGE_PIPELINE_NAME: self.name, a.FORGE_RUNNER_NAME: RUNNER, a.FORGE_RUN_TYPE: self.type.value}
        yield metrics.FORGE_PIPELINE_ACTIVE, 1, where
        yield metrics.FORGE_SAMPLE_ACTIVE, max(0, self.active), where
        for step in self.steps:  # in each worker, one of them has a document
            yield metrics.FORGE_STAGE_CONCURRENCY_LIMIT, self.workers, {**where, a.FORGE_STAGE_NAME: step}

    def gauges(self) -> Iterator[tuple[Metric, float, Attributes]]:
        """Yield the values of gauges at this moment."""
        if self.last_settled is not None:
            progressed = min(self.last_settled, time.time())  # not in the future, if the clock was set back since
            yield metrics.FORGE_PIPELINE_PROGRESS_TIMESTAMP, progressed, {a.FORGE_PIPELINE_NAME: self.name}

    @property
    def workers(self) -> int:
        """Maximum number of tasks at a time."""
        return max(1, min(int(self.executor.workers), int(self.executor.local_tasks)))

    @property
    def active(self) -> int:
        """Documents that have not settled."""
        entered = self.samples["admitted"] + self.samples["derived"]
        return entered - sum(self.samples[outcome.value] for outcome in ForgeSampleOutcome)

    @property
    def scope(self) -> RunScope | None:
        return self._opened[1] if self._opened is not None else None

    def observe(self, original: Any, *arguments: Any) -> Any:
        """Call the executor's method inside the run's span, and record how it ends."""
        if self._opened is None:
            return original(*arguments)
        call, scope = self._opened
        try:
            return call.observe(original, *arguments)
        finally:
            with faults.protected("the end of a datatrove run"):
                scope.ended = True
                scope.close()
                self.telemetry.observables.remove(self)
            with faults.protected("the context of a datatrove run"):
                if self._tokens is not None:
                    RUN.reset(self._tokens[0])
                    SAMPLE.reset(self._tokens[1])
            with faults.protected("the flush at a run's end"):
                self.telemetry.run_ended(scope, self.telemetry.config.shutdown_timeout, exiting=False)

    def _open(self) -> tuple[Call, RunScope] | None:
        telemetry = self.telemetry
        outer = RUN.set(None), SAMPLE.set(None)  # a run inside another one is independent
        try:
            telemetry.prepare()
            clocks = Clocks(telemetry.clock, time.time_ns)
            with _parent(telemetry):
                call = open_call(RUN_OPERATION, telemetry, self, clocks=clocks)
            if call is None:
                return None
            identity = {a.FORGE_PIPELINE_NAME: self.name, a.FORGE_RUN_ID: self.id}
            scope = RunScope(telemetry, call, identity, *clocks, self.faults_before)
            telemetry.runs.add(scope)
            telemetry.observables.add(self)
            telemetry.write_initial_points(self._initial_points())
            call.write(MetricPoint(metrics.FORGE_PIPELINE_STARTED))
        except BaseException:
            RUN.reset(outer[0])
            SAMPLE.reset(outer[1])
            raise
        RUN.set(scope)
        self._tokens = outer
        return call, scope

    def _initial_points(self) -> Iterator[tuple[Metric, Attributes]]:
        run = {a.FORGE_PIPELINE_NAME: self.name, a.FORGE_RUNNER_NAME: RUNNER, a.FORGE_RUN_TYPE: self.type.value}
        yield metrics.FORGE_PIPELINE_STARTED, run
        for ended in ForgeRunOutcome:
            yield metrics.FORGE_PIPELINE_COMPLETED, {**run, a.FORGE_RUN_OUTCOME: ended.value}
        for task in ForgeTaskOutcome:
            yield metrics.FORGE_TASK_COMPLETED, {**run, a.FORGE_TASK_OUTCOME: task.value}
        yield metrics.FORGE_SAMPLE_ADMITTED, run
        for settled in _SETTLED:
            yield metrics.FORGE_SAMPLE_SETTLED, {**run, a.FORGE_SAMPLE_OUTCOME: settled}
        for step in self.steps:
            at = {**run, a.FORGE_STAGE_NAME: step}
            yield metrics.FORGE_STAGE_BUSY_TIME, at
            for outcome in _EXECUTED:
                yield metrics.FORGE_STAGE_EXECUTIONS, {**at, a.FORGE_STAGE_OUTCOME: outcome}


_SETTLED: Final = (
    ForgeSampleOutcome.READY.value,
    ForgeSampleOutcome.SKIPPED.value,
    ForgeSampleOutcome.FAILED.value,
)
_EXECUTED: Final = (ForgeStageOutcome.SUCCESS.value, ForgeStageOutcome.SKIP.value, ForgeStageOutcome.ERROR.value)


def _start_run(run: DatatroveRun) -> Attributes:
    from forge.runner.revision import code_revision  # noqa: PLC0415 - the telemetry imports `forge` late

    return {
        a.FORGE_PIPELINE_NAME: run.name,
        a.FORGE_PIPELINE_ID: _pipeline_id(run.name, run.steps),
        a.FORGE_RUN_ID: run.id,
        a.FORGE_RUN_TYPE: run.type.value,
        a.FORGE_RUNNER_NAME: RUNNER,
        a.VCS_REF_HEAD_REVISION: code_revision(),
    }


def _announce_run(call: Call) -> Sequence[LogEvent]:
    return [LogEvent(events.FORGE_PIPELINE_START, f"Run started: {call.arguments[0].name}", _ON_SPAN_ONLY)]


_ON_SPAN_ONLY: Attributes = {a.VCS_REF_HEAD_REVISION: None}


def _end_run(call: Call, _: Any, error: BaseException | None) -> Result:
    run: DatatroveRun = call.arguments[0]
    outcome, kind = _run_outcome(error), error_type(error) if error is not None else None
    duration = call.elapsed
    attributes = {a.FORGE_RUN_OUTCOME: outcome.value, a.ERROR_TYPE: kind}
    found = []
    if outcome is ForgeRunOutcome.FAILED:
        body = f"Run failed: {run.name}, {kind}"
        found.append(LogEvent(events.FORGE_PIPELINE_EXCEPTION, body, {a.ERROR_TYPE: kind}, error))
    body = f"Run {outcome.value}: {run.name}, after {duration:.3g} s"
    found.append(LogEvent(events.FORGE_PIPELINE_STOP, body, attributes))
    counted = {
        a.FORGE_SUMMARY_SPANS: run.scope.spans if run.scope is not None else 0,
        a.FORGE_SUMMARY_SUPPRESSED: run.scope.suppressed if run.scope is not None else 0,
        a.FORGE_SUMMARY_FAULTS: call.telemetry.faults - run.faults_before,
    }
    result = _result(run, outcome, duration)
    found += summaries(result, {**attributes, **counted})
    skipped = run.executor.local_tasks - run.tasks_to_run if run.tasks_to_run is not None else 0
    if run.tasks_to_run is None and error is None:  # all are completed, which the executor looks at one by one
        skipped = run.executor.local_tasks
    points = [MetricPoint(metrics.FORGE_PIPELINE_COMPLETED), MetricPoint(metrics.FORGE_PIPELINE_DURATION, duration)]
    if skipped:
        points.append(
            MetricPoint(metrics.FORGE_TASK_COMPLETED, skipped, {a.FORGE_TASK_OUTCOME: ForgeTaskOutcome.SKIPPED.value})
        )
    if run.type is ForgeRunType.FULL:
        points += last_run(result, time.time())
    log_events = [event._replace(attributes={**_ON_SPAN_ONLY, **event.attributes}) for event in found]
    return Result(attributes=attributes, error=error, points=points, events=log_events, duration=duration)


def _run_outcome(error: BaseException | None) -> ForgeRunOutcome:
    if error is None:
        return ForgeRunOutcome.COMPLETED
    return ForgeRunOutcome.FAILED if is_a(error, Exception) else ForgeRunOutcome.CANCELLED


def _result(run: DatatroveRun, outcome: ForgeRunOutcome, duration: float) -> Any:
    """Return the result of a run as the summary events read it."""
    counts = ", ".join(f"{name} {run.samples[name]}" for name in ("admitted", *_SETTLED))
    stages = [totals.summary(step, duration * run.workers) for step, totals in run.totals.items()]
    headline = f"{run.name}: {outcome.value} in {duration:.3g} s; {counts}"
    return foreign_result(headline, run.samples, outcome, duration, stages)


RUN_OPERATION = Operation(
    name="a datatrove run", span=spans.FORGE_PIPELINE, start=_start_run, announce=_announce_run, end=_end_run
)


# A task.


class Task:
    """A task in this process or in a worker: writes its reports."""

    def __init__(self, telemetry: Telemetry, run: DatatroveRun | None, name: str, rank: int, world_size: int) -> None:
        """`run` is None where it is in another process, and has no part in this one."""
        self.telemetry = telemetry
        self.run = run
        self.name = name
        self.rank = rank
        self.world_size = world_size
        self.samples: Counter[str] = Counter()
        self._where = {a.FORGE_PIPELINE_NAME: name}
        with _parent(telemetry):
            self.call = open_call(TASK, telemetry, self)

    @property
    def context(self) -> Context | None:
        """The context with the task's span; None if there is no span."""
        return self.call.context if self.call is not None else None

    def report(self, report: TaskReport) -> None:
        """Write what was done since the last report."""
        for step in report.steps:
            self._write_step(step)
        skipped = sum(sum(step.skips.values()) for step in report.steps)
        self._count(
            admitted=report.admitted,
            derived=sum(step.derived for step in report.steps),
            **{ForgeSampleOutcome.READY.value: report.ready, ForgeSampleOutcome.SKIPPED.value: skipped},
        )

    def end(self, end: TaskEnd) -> None:
        """Write the last report and the end of the task."""
        if end.outcome != ForgeTaskOutcome.SKIPPED.value:
            self.report(end.report)
            self._settle_the_rest()
        if end.step is not None:
            self._write_failure(end)
        if self.call is not None:
            self.call.close(end)

    def _settle_the_rest(self) -> None:
        """Settle the documents that were still in the steps; a task that has completed has none."""
        settled = sum(self.samples[outcome.value] for outcome in ForgeSampleOutcome)
        rest = self.samples["admitted"] + self.samples["derived"] - settled
        if rest > 0:
            self._count(**{ForgeSampleOutcome.FAILED.value: rest})

    def _write_step(self, report: StepReport) -> None:
        at = {**self._where, a.FORGE_STAGE_NAME: report.step}
        series = self.telemetry.series
        skipped = sum(report.skips.values())
        for outcome, count, durations in (
            (ForgeStageOutcome.SUCCESS.value, report.passed, report.durations),
            (ForgeStageOutcome.SKIP.value, skipped, report.skip_durations),
        ):
            if count:
                series.get(metrics.FORGE_STAGE_EXECUTIONS, {**at, a.FORGE_STAGE_OUTCOME: outcome}).append(count)
            if durations:
                series.get(metrics.FORGE_STAGE_DURATION, {**at, a.FORGE_STAGE_OUTCOME: outcome}).write_all(durations)
        for reason, count in report.skips.items():
            series.get(metrics.FORGE_STAGE_SKIPS, {**at, a.FORGE_SKIP_REASON: reason}).append(count)
        if report.busy:
            series.get(metrics.FORGE_STAGE_BUSY_TIME, at).append(report.busy)
        if report.derived:
            series.get(metrics.FORGE_SAMPLE_DERIVED, at).append(report.derived)
        totals = self.run.totals.get(report.step) if self.run is not None else None
        if self.run is not None and totals is not None:
            with self.run.lock:
                totals.outcomes[ForgeStageOutcome.SUCCESS.value] += report.passed
                totals.outcomes[ForgeStageOutcome.SKIP.value] += skipped
                totals.busy += report.busy
                totals.add(report.durations)
                totals.add(report.skip_durations)

    def _write_failure(self, end: TaskEnd) -> None:
        tokens = self.call.enter() if self.call is not None else None
        try:
            failed = open_call(FAILED_STEP, self.telemetry, self, end)
            if failed is not None:
                failed.close(end)
        finally:
            if self.call is not None:
                self.call.leave(tokens)
        totals = self.run.totals.get(end.step or "") if self.run is not None else None
        if self.run is not None and totals is not None:
            with self.run.lock:
                totals.outcomes[ForgeStageOutcome.ERROR.value] += 1
                totals.add([end.failed_after])

    def _count(self, **samples: int) -> None:
        """Count documents that were admitted or derived, or have settled with an outcome."""
        series = self.telemetry.series
        for name, count in samples.items():
            if not count:
                continue
            if name == "admitted":
                series.get(metrics.FORGE_SAMPLE_ADMITTED, self._where).append(count)
            elif name != "derived":  # those are counted by step
                series.get(metrics.FORGE_SAMPLE_SETTLED, {**self._where, a.FORGE_SAMPLE_OUTCOME: name}).append(count)
            self.samples[name] += count
            if self.run is not None:
                with self.run.lock:
                    self.run.samples[name] += count
                    if name not in ("admitted", "derived"):
                        self.run.last_settled = time.time()


def _start_task(task: Task) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: task.name,
        a.FORGE_RUNNER_NAME: RUNNER,
        a.FORGE_TASK_RANK: task.rank,
        a.FORGE_TASK_WORLD_SIZE: task.world_size,
    }


def _end_task(_: Call, end: TaskEnd | None, __: BaseException | None) -> Result:
    assert end is not None
    attributes = {a.FORGE_TASK_OUTCOME: end.outcome, a.ERROR_TYPE: end.error_type}
    points = [MetricPoint(metrics.FORGE_TASK_COMPLETED), MetricPoint(metrics.FORGE_TASK_DURATION, end.duration)]
    return Result(attributes=attributes, error=_error_of(end), points=points, duration=end.duration)


def _error_of(end: TaskEnd) -> BaseException | None:
    return _RemoteError(end.message) if end.error is None and end.message is not None else end.error


TASK = Operation(name="a datatrove task", span=spans.FORGE_TASK, start=_start_task, end=_end_task)


def _start_failed_step(task: Task, end: TaskEnd) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: task.name,
        a.FORGE_STAGE_NAME: end.step,
        a.FORGE_STAGE_OUTCOME: ForgeStageOutcome.ERROR.value,
        a.ERROR_TYPE: end.error_type,
    }


def _failed_step(_: Call, end: TaskEnd | None, __: BaseException | None) -> Result:
    assert end is not None
    body = f"Stage failed: {end.step}, {end.error_type}, after 1 attempt"
    exception = {a.FORGE_STAGE_OUTCOME: None, **end.exception}
    return Result(
        duration=end.failed_after,
        points=[
            MetricPoint(metrics.FORGE_STAGE_EXECUTIONS),
            MetricPoint(metrics.FORGE_STAGE_FAILURES),
            MetricPoint(metrics.FORGE_STAGE_DURATION, end.failed_after),
        ],
        events=[LogEvent(events.FORGE_STAGE_EXCEPTION, body, exception, end.error)],
    )


FAILED_STEP = Operation(name="a failed step of datatrove", start=_start_failed_step, end=_failed_step)
