"""Executions in worker processes: recorded on the driver when they have come home, with their own times and process.

Whatever a call in this process would leave behind is written by the same descriptions, series and steps. Only spans of
traced samples start in the past, with the ids that the worker has made known to what was called there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from itertools import repeat
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanContext, TraceFlags

from ..patching import faults
from ..semconv import attributes as a
from ..semconv import metrics
from ..signals.metrics import FLUSH_SIZE
from ..signals.spans import without_none
from .call import Call

if TYPE_CHECKING:
    from forge.costs.usage import Usage
    from forge.execution.executions import Executions
    from forge.execution.item import Item

    from ..signals.metrics import Attributes
    from .fast_path import FastPath
    from .operation import Operation
    from .scopes import RunScope, SampleScope


class RemoteCall(Call):
    """A call that was made by a worker, and is over."""

    __slots__ = ("_lasted",)

    _lasted: float

    @property
    def elapsed(self) -> float:
        """Seconds that it took in the worker."""
        return self._lasted

    def took_place(self, unix_time: float, reading: float, duration: float, carrier: str) -> None:
        """Set its start, as a Unix time and as a reading of the run's clock, its duration, and its span's context."""
        self.started, self._started_ns, self._lasted = reading, round(unix_time * 1e9), duration
        self.own = context_of(carrier)


class Arrival:
    """Executions that have come home, while they are recorded."""

    def __init__(
        self, run: RunScope, operation: Operation, path: FastPath | None, executions: Executions, start: Attributes
    ) -> None:
        """`start` are the attributes of the operation's calls that say which worker it was."""
        self._run = run
        self._operation = operation
        self._path = path
        self._executions = executions
        self._start = start
        self._offset = run.wall_ns() / 1e9 - run.clock()
        """The Unix time at which the run's clock would have read 0."""

    def record_each(  # noqa: PLR0912 - for speed
        self, usual: Any, record_retries: Callable[[RemoteCall, Any], None]
    ) -> None:
        """Record calls on one sample each; `usual` is the outcome that most of them come to, at the first attempt."""
        executions, path, offset = self._executions, self._path, self._offset
        tried = self._operation.has_attempts
        waits: Sequence[float | None] = executions.waited or [None] * len(executions.items)
        carriers = executions.carriers or [""] * len(executions.items)
        results: Any = executions.results
        if path is not None:
            durations, template = path.usual.durations, path.usual.template
        for item, result, began, waited, carrier in zip(
            executions.items, results, executions.started, waits, carriers, strict=True
        ):
            scope = item.scope
            if scope is None or scope.settled:
                continue
            try:
                scope.waited = waited
                if tried and result.split:
                    scope.split_at = began - offset + result.duration
                if path is None:
                    self._describe(item, result, began, carrier, record_retries)
                elif result.outcome is usual and (not tried or result.attempts == 1):
                    if scope.span is not None:
                        self._write(path, scope, result.duration, began, waited, carrier)
                    else:
                        durations.append(result.duration)
                        if scope.kept is not None:
                            scope.kept += (template, began - offset, result.duration, waited)
                elif scope.span is None and path.knows(result):
                    path.ended(scope, began - offset, result)
                else:
                    self._describe(item, result, began, carrier, record_retries)
            except Exception as fault:  # noqa: BLE001 - the run has counted it
                faults.suppress(fault, f"the end of {self._operation.name}")
        if path is not None and len(durations) >= FLUSH_SIZE:
            path.usual.instruments.drain()

    def record_batches(
        self,
        sizes: Sequence[int],
        is_usual: Callable[[Any], bool],
        record_retries: Callable[[RemoteCall, Any], None],
        record_usage: Callable[[RemoteCall, Sequence[Usage]], None],
    ) -> None:
        """Record calls on batches of these sizes. Called in the run's context."""
        executions = self._executions
        items = executions.items
        results: Sequence[Any] = executions.results
        waits: Sequence[float | None] = executions.waited or [None] * len(items)
        carriers, usages = executions.carriers or repeat(""), executions.usages or repeat(())
        first = 0
        # Carriers and usages may be endless.
        for size, began, result, carrier, used in zip(sizes, executions.started, results, carriers, usages):  # noqa: B905
            batch, waited = items[first : first + size], waits[first : first + size]
            first += size
            try:
                untraced = self._untraced(batch, waited, began, result)
                if self._path is not None and len(untraced) == size and not used and is_usual(result):
                    attributes = {**self._path.attributes, **self._operation.start(None, executions.subject, batch)}
                    self._path.arrived_together(untraced, attributes, began - self._offset, result)
                else:
                    call = self._call(batch, began, result.duration, carrier)
                    copy_context().run(self._describe_batch, call, result, used, is_usual, record_retries, record_usage)
            except Exception as fault:  # noqa: BLE001 - the run has counted it
                faults.suppress(fault, f"the end of {self._operation.name}")

    def _untraced(
        self, batch: Sequence[Item], waited: Sequence[float | None], began: float, result: Any
    ) -> list[SampleScope]:
        """Tell the scopes of a batch what came home; returns those that have no span, and have not settled."""
        untraced: list[SampleScope] = []
        for item, seconds in zip(batch, waited, strict=True):
            scope = item.scope
            if scope is not None:
                scope.waited = seconds
                if scope.span is None and not scope.settled:
                    untraced.append(scope)
        for item, verdict in zip(batch, getattr(result, "verdicts", ()), strict=False):
            if verdict.split and item.scope is not None:
                item.scope.split_at = began - self._offset + result.duration
        return untraced

    def _describe_batch(  # noqa: PLR0917 - one call of it
        self,
        call: RemoteCall,
        result: Any,
        used: Sequence[Usage],
        is_usual: Callable[[Any], bool],
        record_retries: Callable[[RemoteCall, Any], None],
        record_usage: Callable[[RemoteCall, Sequence[Usage]], None],
    ) -> None:
        """Record a call on a batch whose samples are traced, or that did not come to its usual result."""
        if not call.enter_samples(self._operation.samples(*call.arguments)):
            return
        record_usage(call, used)
        call.start()
        record_retries(call, result)
        if self._path is not None and len(call.scopes) == len(call.arguments[2]):
            self._path.ended_together(call, result, is_usual)
        else:
            call.close(result)

    def _call(self, subject_of_call: Any, began: float, duration: float, carrier: str) -> RemoteCall:
        arguments = (None, self._executions.subject, subject_of_call)
        attributes = {**self._operation.start(*arguments), **self._start, **self._run.identity}
        call = RemoteCall(self._operation, self._run.telemetry, self._run, arguments, attributes)
        call.took_place(began, began - self._offset, duration, carrier)
        return call

    def _describe(
        self, item: Item, result: Any, began: float, carrier: str, record_retries: Callable[[RemoteCall, Any], None]
    ) -> None:
        """Record a call on one sample by the slow path."""
        call = self._call(item.sample, began, result.duration, carrier)

        def record() -> None:
            if call.enter_samples(self._operation.samples(*call.arguments)):
                call.start()
                record_retries(call, result)
                call.close(result)

        item.context.copy().run(record)

    def _write(  # noqa: PLR0917 - what a span is made of
        self, path: FastPath, scope: SampleScope, duration: float, began: float, waited: float | None, carrier: str
    ) -> None:
        """Write the span of a usual call on a traced sample."""
        run = self._run
        assert scope.span is not None
        parent = scope.span.get_span_context()
        own = context_of(carrier) or run.telemetry.spans.reserve(parent, parent.trace_flags)
        path.usual.instruments.traced.add(duration, own)
        attributes = {**path.begun, a.FORGE_SAMPLE_ID: scope.exported_id, **path.usual.template.ended}
        if waited is not None:
            attributes[a.FORGE_STAGE_QUEUE_WAIT] = waited
        if scope.usage is not None:
            attributes.update(without_none(scope.usage.attributes_of(path.name)))
        starts = round(began * 1e9)
        if run.telemetry.spans.write(
            *(path.name, parent, path.kind, attributes, (), None, starts, starts + round(duration * 1e9), own),
            light=run.telemetry.spans.light.current() if path.is_plain else None,
        ):
            scope.spans += 1
            run.count_span()


def count_waits(run: RunScope, stage: str, waited: Sequence[float]) -> None:
    """Count the waits of samples for a stage."""
    series = run.waits.get(stage) or run.series(metrics.FORGE_STAGE_QUEUE_DURATION, a.FORGE_STAGE_NAME, stage)
    series.pending.extend(waited)
    if len(series.pending) >= FLUSH_SIZE:
        series.drain()


_VERSION, _TRACE_ID, _SPAN_ID = 2, 32, 16


def context_of(carrier: str) -> SpanContext | None:
    """Read a `traceparent`; None where it is none."""
    parts = carrier.split("-")
    if [len(part) for part in parts] != [_VERSION, _TRACE_ID, _SPAN_ID, _VERSION]:
        return None
    try:
        trace_id, span_id, flags = (int(part, 16) for part in parts[1:])
    except ValueError:
        return None
    return SpanContext(trace_id, span_id, True, TraceFlags(flags))


def carrier_of(context: SpanContext) -> str:
    """Write a `traceparent`."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
