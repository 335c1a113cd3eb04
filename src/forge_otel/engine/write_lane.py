"""The short way through the engine for the writes that a run makes itself, whose samples are not traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..patching import faults
from ..semconv.attributes import ForgeTelemetryReason, ForgeTelemetrySignal
from .call import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from forge import SQLStorage
    from forge.storage import SampleRecord, WriteResult

    from ..signals.metrics import Attributes
    from .operation import Operation
    from .scopes import RunScope


class WriteLane:
    """The writes of a run, as long as they are traced no more than their samples: there may be one for each sample."""

    __slots__ = ("_attributes", "_count", "_operation", "_run")

    def __init__(
        self, run: RunScope, operation: Operation, attributes: Attributes, count: Callable[[float, WriteResult], None]
    ) -> None:
        """`count` writes the points of a write that came back after so many seconds."""
        self._run = run
        self._operation = operation
        self._attributes = attributes
        self._count = count

    def call(
        self, original: Callable[..., WriteResult], store: SQLStorage, records: Sequence[SampleRecord]
    ) -> WriteResult:
        """Write, and record it."""
        started = self._run.clock()
        try:
            result = original(store, records)
        except BaseException as error:
            with faults.protected(f"the end of {self._operation.name}"):
                self._failed(started, error, store, records)
            raise
        with faults.protected(f"the end of {self._operation.name}"):
            self._succeeded(started, result)
        return result

    def _succeeded(self, started: float, result: WriteResult) -> None:
        run = self._run
        if run.ended:
            return
        self._count(run.clock() - started, result)
        if run.recording:
            run.suppress(ForgeTelemetrySignal.SPAN.value, ForgeTelemetryReason.SAMPLING.value)

    def _failed(self, started: float, error: BaseException, *arguments: Any) -> None:
        run = self._run
        call = Call(self._operation, run.telemetry, run, arguments, self._attributes)
        call.started = started
        if run.recording:
            call.is_left_out(ForgeTelemetryReason.SAMPLING.value)
        call.close(None, error)
