"""Executions in worker processes, when they have come home to the driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..engine.call import Call
from ..engine.detected_usage import usage_of
from ..engine.fast_path import FastPath
from ..engine.operation import LogEvent, Operation
from ..engine.remote import Arrival, RemoteCall, count_waits
from ..engine.scopes import RUN, RunScope
from ..patching import faults
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import metrics
from ..semconv.definitions import Metric
from ..signals.metrics import Attributes
from ..signals.spans import span_name
from . import measurement, stage

if TYPE_CHECKING:
    from forge import Run
    from forge.costs.usage import Usage
    from forge.execution.executions import Executions, Worker
    from forge.storage.steps import Retry

WORKER_LOST: Final = "worker_lost"
"""The class of attempts that were lost with their worker process."""


class _Kind(NamedTuple):
    """Descriptions and rules for executions of stages, or of measurements."""

    component: str
    operation: Operation
    batch_operation: Operation
    usual: Any
    usual_batch: Callable[[Any], bool]
    fast_path: Callable[[RunScope, Any, Attributes], FastPath]


def _kinds() -> dict[bool, _Kind]:
    """Return the kinds of executions: True for those of stages."""
    return {
        True: _Kind(
            *("stage", stage.STAGE, stage.STAGE_BATCH, stage.usual_outcome(), stage.usual_batch(), stage.fast_path)
        ),
        False: _Kind(
            *("measurement", measurement.MEASUREMENT, measurement.MEASUREMENT_BATCH, measurement.usual_outcome()),
            *(measurement.usual_batch(), measurement.fast_path),
        ),
    }


def _record(run: RunScope, kind: _Kind, executions: Executions) -> None:
    """Record executions. Called in the run's context."""
    where = {a.HOST_NAME: executions.worker.host, a.PROCESS_PID: executions.worker.pid}
    path = _path(run, kind, executions.subject, executions.worker, where)
    if kind.component == "stage":
        _record_travel(run, executions, where)
    elif executions.attempts > 1:
        key = executions.subject.key  # type: ignore[union-attr]  # a measurement
        attributes = {**run.identity, a.FORGE_MEASUREMENT_KEY: key, a.ERROR_TYPE: WORKER_LOST}
        _count_losses(run, executions, metrics.FORGE_MEASUREMENT_RETRIES, attributes, executions.attempts - 1)
    if executions.batches is not None:
        arrival = Arrival(run, kind.batch_operation, path, executions, where)
        arrival.record_batches(executions.batches, kind.usual_batch, _record_retries, _use)
    else:
        Arrival(run, kind.operation, path, executions, where).record_each(kind.usual, _record_retries)


def _path(run: RunScope, kind: _Kind, subject: Any, worker: Worker, where: Attributes) -> FastPath | None:
    """Return the fast path for what a worker executes, if the run has one for what is executed in this process."""
    if id(subject) not in run.paths:
        return None
    key = id(subject), worker.id
    path = run.worker_paths.get(key)
    if path is None:
        path = run.worker_paths[key] = kind.fast_path(run, subject, where)
    return path


def _record_travel(run: RunScope, executions: Executions, where: Attributes) -> None:
    """Count the waits of samples for a stage, the transfer of their block, and the attempts that were lost before."""
    name = executions.subject.name  # type: ignore[union-attr]  # a stage
    if executions.waited is not None:
        count_waits(run, name, executions.waited)
    if executions.transferred:
        run.series(metrics.FORGE_STAGE_TRANSFER_TIME, a.FORGE_STAGE_NAME, name).append(executions.transferred)
    for attempt in range(1, executions.attempts):
        _record_loss(run, executions, attempt, where)


def _record_loss(run: RunScope, executions: Executions, attempt: int, where: Attributes) -> None:
    """Record that the work was handed to a worker that died."""
    subject: Any = executions.subject
    attributes = {a.FORGE_STAGE_NAME: subject.name, a.FORGE_STAGE_ATTEMPT: attempt, a.ERROR_TYPE: WORKER_LOST}
    _count_losses(run, executions, metrics.FORGE_STAGE_RETRIES, {**run.identity, **attributes}, 1)
    exception = {a.EXCEPTION_TYPE: WORKER_LOST, a.EXCEPTION_MESSAGE: "the worker process died"}
    call = Call(stage.RETRY, run.telemetry, run, (), {**run.identity, **where, a.FORGE_STAGE_NAME: subject.name})
    call.emit([stage.retry_event(subject, attempt, WORKER_LOST, 0.0, exception)])


def _count_losses(run: RunScope, executions: Executions, metric: Metric, attributes: Attributes, attempts: int) -> None:
    """Count the calls of attempts that were lost, and keep the traces of their samples."""
    run.telemetry.series.get(metric, attributes).append(len(executions.results) * attempts)
    for item in executions.items:
        if item.scope is not None:
            item.scope.tail_kept = True


def _record_retries(call: RemoteCall, result: Any) -> None:
    """Record the attempts that failed in the worker before the last one."""
    retries: list[Retry] = [retry for retry in getattr(result, "retries", ()) if retry.delay is not None]
    if not retries:
        return
    subject = call.arguments[1]
    missing = result.attempts - 1 - len(retries)  # a result has only the first ones
    delays = [retry.delay or 0.0 for retry in retries]
    rest = max(0.0, result.duration - result.busy - sum(delays))
    known = [(retry.error_type, retry.message, delay) for retry, delay in zip(retries, delays, strict=True)]
    known += [(retries[-1].error_type, retries[-1].message, rest / missing)] * missing if missing > 0 else []
    events: list[LogEvent] = []
    for attempt, (kind, message, delay) in enumerate(known, 1):
        call.notes = (*call.notes, (attempt, kind, delay))
        exception = {a.EXCEPTION_TYPE: kind, a.EXCEPTION_MESSAGE: message}
        events.append(stage.retry_event(subject, attempt, kind, delay, exception))
    call.emit(events)


def _use(call: RemoteCall, usages: Sequence[Usage]) -> None:
    """Keep the usage of a batch for its span."""
    assert call.operation.span is not None
    for usage in usages:
        usage_of(call).total(span_name(call.operation.span, call.attributes)).add(usage, usage.amount)


def _executed(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    from forge import Stage  # noqa: PLC0415 - it is being patched, so it is imported

    kinds = _kinds()

    def executed(self: Run, executions: Executions) -> None:
        original(self, executions)
        run = self.context.get(RUN) if layer.telemetry is not None else None
        if run is None or run.ended:
            return
        kind = kinds[isinstance(executions.subject, Stage)]
        if kind.component in run.telemetry.config.components:
            try:
                self.context.copy().run(_record, run, kind, executions)
            except Exception as fault:  # noqa: BLE001 - the run has counted them
                faults.suppress(fault, "executions in a worker")

    return executed


TARGETS = (Target("forge.runner.run", "Run.executed", _executed),)
