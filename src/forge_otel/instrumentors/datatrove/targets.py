"""The functions of datatrove to wrap."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import _logs, metrics, trace
from opentelemetry import context as otel_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ...patching import faults
from ...patching.patches import Layer, Patches, Target
from ...semconv.attributes import ForgeTaskOutcome
from ...signals.delivery import Delivery
from ...signals.exceptions import exception_attributes
from ...support.exceptions import is_a, message
from ..error_types import error_type
from . import workers
from .meter import TaskMeter
from .runs import DatatroveRun, Task, TaskEnd, pipeline_name

_propagator = TraceContextTextMapPropagator()

_runs: dict[int, tuple[DatatroveRun, workers.Receiver | None]] = {}
"""Active runs, by the `id` of their executor."""

# Runs.


def _run(original: Callable[..., Any], layer: Layer) -> Callable[..., Any]:
    def run(self: Any) -> Any:
        telemetry = layer.telemetry
        opened = None
        if telemetry is not None and id(self) not in _runs:
            with faults.protected("the start of a datatrove run"):
                opened = DatatroveRun(telemetry, self)
        if opened is None:
            return original(self)
        return opened.observe(_with_workers, opened, original, self)

    return run


def _with_workers(run: DatatroveRun, original: Callable[..., Any], executor: Any) -> Any:
    """Run an executor, and receive the reports of its workers meanwhile."""
    receiver = None
    with faults.protected("the reports of datatrove's workers"):
        if executor.workers != 1:
            receiver = workers.Receiver(run)
    _runs[id(executor)] = run, receiver
    try:
        return original(executor)
    finally:
        del _runs[id(executor)]
        if receiver is not None:
            with faults.protected("the reports of datatrove's workers"):
                receiver.close()


def _get_incomplete_ranks(original: Callable[..., list[int]], layer: Layer) -> Callable[..., list[int]]:
    def get_incomplete_ranks(self: Any, *arguments: Any, **keywords: Any) -> list[int]:
        ranks = original(self, *arguments, **keywords)
        if layer.telemetry is not None and id(self) in _runs:
            with faults.protected("the completed tasks of a datatrove run"):
                _runs[id(self)][0].tasks_to_run = len(ranks)
        return ranks

    return get_incomplete_ranks


def _reduce_ex(original: Callable[..., Any], layer: Layer) -> Callable[..., Any]:
    def __reduce_ex__(self: Any, protocol: Any) -> Any:  # noqa: N807 - the name of the original
        reduced = original(self, protocol)
        if layer.telemetry is not None and id(self) in _runs:
            with faults.protected("the executor of a datatrove worker"):
                receiver = _runs[id(self)][1]
                if receiver is not None and isinstance(reduced, tuple):
                    make, arguments, *rest = reduced
                    return workers.revive, (receiver.address, _connect, make, arguments), *rest
        return reduced

    return __reduce_ex__


def _connect(address: workers.Address) -> None:
    """Have the tasks of this worker process measured."""
    _patches.apply(_WORKER_TARGETS, address)


_patches = Patches()
"""The patches of a worker."""

# Tasks.


def _run_for_rank(original: Callable[..., Any], layer: Layer) -> Callable[..., Any]:
    def _run_for_rank(self: Any, rank: int, *arguments: Any, **keywords: Any) -> Any:
        task = None
        if layer.telemetry is not None:
            with faults.protected("the start of a datatrove task"):
                task = _ObservedTask(layer.telemetry, self, rank)
        if task is None:
            return original(self, rank, *arguments, **keywords)
        try:
            result = original(self, rank, *arguments, **keywords)
        except BaseException as error:
            task.end(error)
            raise
        task.end(None)
        return result

    return _run_for_rank


class _ObservedTask:
    """A task of this process: its steps are measured until it ends."""

    def __init__(self, telemetry: Any, executor: Any, rank: int) -> None:
        self._executor = executor
        self._pipeline = executor.pipeline
        self._flushed: Any = None
        """The telemetry to be flushed at the end, where the run is not in this process."""
        self._task: Task | workers.Sender
        context = None
        if workers.address is not None:
            self._task = workers.Sender(workers.address, rank, executor.world_size)
            clock = time.perf_counter
            if self._task.carrier:
                context = _propagator.extract(self._task.carrier, otel_context.get_current())
        else:
            run = _runs[id(executor)][0] if id(executor) in _runs else None
            if run is not None:
                telemetry = run.telemetry
            else:
                telemetry.prepare()
                self._flushed = telemetry
            clock = telemetry.clock
            self._task = Task(telemetry, run, pipeline_name(executor), rank, executor.world_size)
            context = self._task.context
        self._clock = clock
        self._meter = TaskMeter(self._pipeline, clock, self._task.report)
        executor.pipeline = self._meter.observed_steps()
        self._token = otel_context.attach(context) if context is not None else None

    def end(self, error: BaseException | None) -> None:
        self._executor.pipeline = self._pipeline
        with faults.protected("the context of a datatrove task"):
            if self._token is not None:
                otel_context.detach(self._token)
        with faults.protected("the end of a datatrove task"):
            self._task.end(self._describe(error))
        if workers.address is not None:
            with faults.protected("the flush at a task's end"):
                _flush_worker()
        if self._flushed is not None:
            with faults.protected("the flush at a task's end"):
                self._flushed.flush(self._flushed.config.shutdown_timeout)

    def _describe(self, error: BaseException | None) -> TaskEnd:
        meter = self._meter
        duration = self._clock() - meter.began
        outcome = ForgeTaskOutcome.COMPLETED if meter.started else ForgeTaskOutcome.SKIPPED
        report = meter.end(completed=error is None)
        if error is None:
            return TaskEnd(report, outcome.value, duration)
        outcome = ForgeTaskOutcome.FAILED if is_a(error, Exception) else ForgeTaskOutcome.CANCELLED
        return TaskEnd(
            report,
            outcome.value,
            duration,
            error_type(error),
            message(error),
            exception_attributes(error) if workers.address is not None else {},
            error,
            meter.failed_step if meter.failure is error and outcome is ForgeTaskOutcome.FAILED else None,
            meter.failed_after,
        )


def _flush_worker() -> None:
    """Flush the providers of a worker, if other libraries have some: the pool kills its workers in the end."""
    delivery = Delivery()
    delivery.prepare(trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
    delivery.flush(_FLUSH_TIMEOUT)
    delivery.close()


_FLUSH_TIMEOUT: Final = 5.0
"""Maximum time in seconds for the flush of a worker's providers, at the end of each task."""

_BASE = "datatrove.executor.base"

_WORKER_TARGETS = (Target(_BASE, "PipelineExecutor._run_for_rank", _run_for_rank),)

TARGETS = (
    *_WORKER_TARGETS,
    Target(_BASE, "PipelineExecutor.get_incomplete_ranks", _get_incomplete_ranks),
    Target(_BASE, "PipelineExecutor.__reduce_ex__", _reduce_ex),
    Target("datatrove.executor.local", "LocalPipelineExecutor.run", _run),
)
