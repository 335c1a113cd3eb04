"""Queues between stages: the time that samples wait in them, and the time that full ones block stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from ..engine.scopes import RUN
from ..patching import faults
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import metrics
from ..semconv.definitions import Metric
from ..signals.metrics import FLUSH_SIZE

if TYPE_CHECKING:
    from forge.execution.item import Item
    from forge.runner.queue import StageQueue


def _waited(layer: Layer, metric: Metric, stage: str, seconds: float) -> None:
    """Record a wait on the slow path: outside of runs, and for rare waits."""
    telemetry = layer.telemetry
    if telemetry is None:
        return
    try:
        run = RUN.get()
        if run is not None:
            if not run.ended:
                run.series(metric, a.FORGE_STAGE_NAME, stage).append(seconds)
        elif is_instrumentation_enabled():
            telemetry.series.get(metric, {a.FORGE_STAGE_NAME: stage}).append(seconds)
    except Exception as fault:  # noqa: BLE001 - the sample must not be affected
        faults.suppress(fault, f"the metric {metric.name}")


def _blocked(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def blocked(self: StageQueue, producer: str, seconds: float) -> None:
        original(self, producer, seconds)
        _waited(layer, metrics.FORGE_STAGE_BACKPRESSURE_TIME, producer, seconds)

    return blocked


def _begin(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    run_of = RUN.get  # local names are looked up faster

    def begin(self: StageQueue, item: Item) -> None:
        original(self, item)
        stage = self.stage
        if stage is None:
            return
        scope = item.scope
        if scope is not None:
            scope.waited = item.waited
            series = scope.run.waits.get(stage)
        else:
            run = run_of()
            series = run.waits.get(stage) if run is not None else None
        if series is not None:
            # `Series.append` inlined: called for every sample and stage.
            values = series.pending
            values.append(item.waited)
            if len(values) >= FLUSH_SIZE:
                series.drain()
        else:
            _waited(layer, metrics.FORGE_STAGE_QUEUE_DURATION, stage, item.waited)

    return begin


_MODULE = "forge.runner.queue"

TARGETS = (
    Target(_MODULE, "StageQueue.blocked", _blocked),
    Target(_MODULE, "StageQueue.begin", _begin),
)
