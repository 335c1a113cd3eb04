"""Pipelines of plain Ray Data: executions of datasets are runs, physical operators are stages, rows are samples.

Ray Data has no public interface for observers of an execution. Nearest to one is `ExecutionCallback`, of which
`DataContext.custom_execution_callback_classes` is a list; a class in that list would be pickled with every task,
though. So one is added to the executor's own callbacks. Four methods are wrapped, all of them private:

| method | for |
|---|---|
| `StreamingExecutor.execute` | the begin, in the caller's context, after the plan is made |
| `StreamingExecutor.run` | the end, on the executor's own thread |
| `OpRuntimeMetrics.on_task_finished` | the exceptions of tasks |
| `OpRuntimeMetrics.on_output_taken` | how many rows a write has written, which it reports as its output |

The end is not read in the callback, nor in `shutdown`: that is also called by the garbage collector, in the middle of
any code, and with any lock held. `shutdown` waits for the executor's thread, so the end is recorded before it returns.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from ...patching import faults
from ...patching.patches import Layer, Target
from ...semconv.attributes import FORGE_RUNNER_NAME
from .execution import Execution

if TYPE_CHECKING:
    from ...signals.telemetry import Telemetry

MARK: Final = FORGE_RUNNER_NAME
"""Key in the `DataContext` of datasets that `RayRunner` drives: they are parts of a run that is recorded already."""

OLDEST: Final = (2, 60)
"""The oldest version of Ray whose executor is known."""

EXECUTION: ContextVar[Execution | None] = ContextVar("forge_otel_ray_execution", default=None)
"""The execution whose thread this is."""

_executions: WeakKeyDictionary[Any, Execution] = WeakKeyDictionary()
"""Executions in progress, by their executors."""


class UnsupportedVersionError(Exception):
    """Ray is older than the oldest version that is known; its pipelines run unobserved."""


def _is_supported() -> bool:
    import ray  # noqa: PLC0415 - the caller is Ray

    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < OLDEST:
        needed = ".".join(map(str, OLDEST))
        faults.suppress(UnsupportedVersionError(f"Ray {ray.__version__}, needs {needed}"), "observing Ray Data")
        return False
    return True


@functools.cache
def _callback_class() -> type:
    from ray.data._internal.execution.execution_callback import ExecutionCallback  # noqa: PLC0415 - not before Ray is

    class ForgeCallback(ExecutionCallback):
        """Tells of the begin and of every step of an execution.

        A subclass, so that it has all methods that Ray calls, also in later versions.
        """

        def __init__(self, telemetry: Telemetry) -> None:
            self._telemetry = telemetry

        def before_execution_starts(self, executor: Any) -> None:
            with faults.protected("the start of an execution of Ray Data"):
                execution = _begin(self._telemetry, executor)
                if execution is not None:
                    _executions[executor] = execution

        def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002 - its thread is this one
            execution = EXECUTION.get()
            if execution is not None:
                with faults.protected("a step of an execution of Ray Data"):
                    execution.step()

    return ForgeCallback


def _begin(telemetry: Telemetry, executor: Any) -> Execution | None:
    """Return a new execution; None if it is not to be recorded."""
    if executor._data_context.get_config(MARK) is not None:
        return None
    # The id is made of the dataset's name, or "dataset", and two more parts.
    name = executor._dataset_id.rsplit("_", 2)[0]
    execution = Execution(telemetry, executor._topology, None if name == "dataset" else name)
    if not execution.operators:  # its result was there already
        return None
    return execution if execution.begin() else None


def _execute(original: Callable[..., Any], layer: Layer) -> Callable[..., Any]:
    def execute(self: Any, dag: Any, initial_stats: Any = None, callbacks: list[Any] | None = None) -> Any:
        telemetry = layer.telemetry
        if telemetry is not None:
            with faults.protected("the start of an execution of Ray Data"):
                if _is_supported():
                    callbacks = [*(callbacks or ()), _callback_class()(telemetry)]
        try:
            return original(self, dag, initial_stats, callbacks)
        except BaseException as error:
            execution = _executions.pop(self, None)
            if execution is not None:
                with faults.protected("the end of an execution of Ray Data"):
                    execution.end(error)
            raise

    return execute


def _run(original: Callable[[Any], None], _: Layer) -> Callable[[Any], None]:
    def run(self: Any) -> None:
        execution = _executions.pop(self, None)
        if execution is None:
            original(self)
            return
        EXECUTION.set(execution)
        with faults.protected("the start of an execution of Ray Data"):
            execution.enter()
        raised: BaseException | None = None
        try:
            original(self)
        except BaseException as error:
            raised = error
            raise
        finally:
            with faults.protected("the end of an execution of Ray Data"):
                execution.end(raised if raised is not None else self._output_node[1]._exception)

    return run


def _on_task_finished(original: Callable[..., None], _: Layer) -> Callable[..., None]:
    def on_task_finished(
        self: Any, task_index: int, exception: Exception | None, task_exec_stats: Any, task_exec_driver_stats: Any
    ) -> None:
        execution = EXECUTION.get()
        if execution is not None:
            with faults.protected("a task of Ray Data"):
                task = self._running_tasks[task_index]
                execution.task_ends(
                    self._op, task.inputs.num_rows() or 0, exception, time.perf_counter() - task.start_time
                )
        original(self, task_index, exception, task_exec_stats, task_exec_driver_stats)

    return on_task_finished


def _on_output_taken(original: Callable[..., None], _: Layer) -> Callable[..., None]:
    def on_output_taken(self: Any, output: Any) -> None:
        execution = EXECUTION.get()
        if execution is not None:
            with faults.protected("the output of an operator of Ray Data"):
                execution.output_taken(self._op, output)
        original(self, output)

    return on_output_taken


_EXECUTOR = "ray.data._internal.execution.streaming_executor"
_METRICS = "ray.data._internal.execution.interfaces.op_runtime_metrics"

TARGETS: Sequence[Target] = (
    Target(_EXECUTOR, "StreamingExecutor.execute", _execute),
    Target(_EXECUTOR, "StreamingExecutor.run", _run),
    Target(_METRICS, "OpRuntimeMetrics.on_task_finished", _on_task_finished),
    Target(_METRICS, "OpRuntimeMetrics.on_output_taken", _on_output_taken),
)
