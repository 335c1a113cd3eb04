"""Measurements: computed, or taken from what was computed before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from ..engine.batch_lane import BatchLane
from ..engine.call import Call, observe, observe_async
from ..engine.lane import Lane
from ..engine.operation import Emission, Ending, Operation, Point
from ..engine.scopes import RUN, SAMPLE
from ..patching import faults
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import events, metrics, spans
from ..semconv.attributes import ForgeMeasurementOutcome as Outcome
from ..signals.metrics import FULL, Attributes
from .errors import error_type
from .stage import current_sample, ids_of, samples_of

if TYPE_CHECKING:
    from forge import Measurement, Sample
    from forge.execution.item import Item
    from forge.execution.measurement_orchestrator import MeasurementOrchestrator
    from forge.execution.results import BatchMeasurementResult, MeasurementResult

    from ..engine.scopes import RunScope


def _start(_: MeasurementOrchestrator, measurement: Measurement, sample: Sample) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: sample.pipeline or None,
        a.FORGE_MEASUREMENT_KEY: measurement.key,
        a.FORGE_MEASUREMENT_VERSION: measurement.version,
        a.FORGE_SAMPLE_ID: sample.id or None,
    }


def _start_batch(_: MeasurementOrchestrator, measurement: Measurement, items: Sequence[Item]) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: items[0].sample.pipeline or None if items else None,
        a.FORGE_MEASUREMENT_KEY: measurement.key,
        a.FORGE_MEASUREMENT_VERSION: measurement.version,
        a.FORGE_MEASUREMENT_BATCH_SIZE: len(items),
    }


def _announce(call: Call) -> Sequence[Emission]:
    return [Emission(events.FORGE_MEASUREMENT_START, f"Measurement started: {call.arguments[1].key}")]


def _end(call: Call, result: MeasurementResult | None, error: BaseException | None) -> Ending:
    measurement: Measurement = call.arguments[1]
    if result is None:
        return _no_result(error)
    said = {a.FORGE_MEASUREMENT_OUTCOME: result.outcome.value, a.ERROR_TYPE: result.error_type}
    points = _counts([result])
    emissions = []
    if result.outcome.value != Outcome.CACHED:
        points.append(Point(metrics.FORGE_MEASUREMENT_DURATION, result.duration))
    if result.error is not None:
        emissions.append(_failed(measurement, result))
    body = f"Measurement done: {measurement.key}, {result.outcome.value}"
    emissions.append(Emission(events.FORGE_MEASUREMENT_STOP, body, said))
    return Ending(attributes=said, error=result.error, points=points, events=emissions)


def _end_batch(call: Call, batch: BatchMeasurementResult | None, error: BaseException | None) -> Ending:
    measurement, items = call.arguments[1:]
    if batch is None:
        return _no_result(error)
    outcomes = {result.outcome.value for result in batch.results}
    outcome = next((o for o in (Outcome.ERROR, Outcome.COMPUTED) if o in outcomes), Outcome.CACHED)
    said = {a.FORGE_MEASUREMENT_OUTCOME: outcome.value, a.ERROR_TYPE: batch.error_type}
    points = _counts(batch.results)
    if batch.computed:
        points += [
            Point(metrics.FORGE_MEASUREMENT_BATCH_DURATION, batch.duration),
            Point(metrics.FORGE_MEASUREMENT_BATCH_SIZE, len(items)),
        ]
    body = f"Measurement done: {measurement.key}, batch of {len(items)}, {batch.computed} computed"
    return Ending(
        attributes=said,
        error=batch.error,
        points=points,
        events=[
            *(
                _failed(measurement, result, item.sample.id)
                for item, result in zip(items, batch.results, strict=True)
                if result.error is not None
            ),
            Emission(events.FORGE_MEASUREMENT_BATCH_COMPLETE, body, said),
        ],
    )


def _no_result(error: BaseException | None) -> Ending:
    """The run ended first. It does not count such measurements, so they are seen in the trace alone."""
    return Ending(attributes={a.ERROR_TYPE: error_type(error) if error is not None else None}, error=error)


def _counts(results: Sequence[MeasurementResult]) -> list[Point]:
    points = []
    for outcome, number in Counter(result.outcome.value for result in results).items():
        cache = (
            metrics.FORGE_MEASUREMENT_CACHE_HITS
            if outcome == Outcome.CACHED
            else metrics.FORGE_MEASUREMENT_CACHE_MISSES
        )
        points += [
            Point(metrics.FORGE_MEASUREMENT_COMPUTATIONS, number, {a.FORGE_MEASUREMENT_OUTCOME: outcome}),
            Point(cache, number),
        ]
    points += [Point(metrics.FORGE_COST_SAVED, result.saved) for result in results if result.saved]
    return points


def _failed(measurement: Measurement, result: MeasurementResult, sample_id: str | None = None) -> Emission:
    said = {a.ERROR_TYPE: result.error_type}
    return Emission(
        events.FORGE_MEASUREMENT_EXCEPTION,
        f"Measurement failed: {measurement.key}, {result.error_type}",
        said if sample_id is None else {**said, a.FORGE_SAMPLE_ID: sample_id},
        result.error,
    )


MEASUREMENT = Operation(
    name="a measurement",
    span=spans.FORGE_MEASUREMENT,
    start=_start,
    announce=_announce,
    end=_end,
    samples=current_sample,
    spends=True,
    about=lambda _, __, sample: [sample.id],
    hooks="measurement",
)
MEASUREMENT_BATCH = Operation(
    name="a measurement's batch",
    span=spans.FORGE_MEASUREMENT_BATCH,
    start=_start_batch,
    announce=_announce,
    end=_end_batch,
    samples=samples_of,
    spends=True,
    about=ids_of,
    links_samples=True,
    hooks="measurement",
    subject=lambda _, measurement, items: (measurement, [item.sample for item in items]),
)


class MeasurementLane(Lane):
    """A measurement, which usually is computed."""

    __slots__ = ()

    def __init__(self, run: RunScope, measurement: Measurement) -> None:
        from forge.execution.results import MeasurementOutcome, MeasurementResult  # noqa: PLC0415 - there is a run, so it is imported

        start = {a.FORGE_MEASUREMENT_KEY: measurement.key, a.FORGE_MEASUREMENT_VERSION: measurement.version}
        super().__init__(run, MEASUREMENT, measurement, start, MeasurementResult(outcome=MeasurementOutcome.COMPUTED))

    def likeness(self, result: MeasurementResult) -> Hashable:
        return None if result.saved else (result.outcome, result.error_type)


class MeasurementBatchLane(BatchLane):
    """A measurement that takes batches, all of which usually is computed."""

    __slots__ = ("_computations", "_computed", "_duration", "_misses", "_sizes")

    def __init__(self, run: RunScope, measurement: Measurement) -> None:
        from forge.execution.results import MeasurementOutcome  # noqa: PLC0415 - there is a run, so it is imported

        self._computed = MeasurementOutcome.COMPUTED
        start = {a.FORGE_MEASUREMENT_KEY: measurement.key, a.FORGE_MEASUREMENT_VERSION: measurement.version}
        usual = {a.FORGE_MEASUREMENT_OUTCOME: self._computed.value}
        super().__init__(run, MEASUREMENT_BATCH, start, usual, a.FORGE_MEASUREMENT_BATCH_SIZE)
        self._computations = self.series(metrics.FORGE_MEASUREMENT_COMPUTATIONS)
        self._misses = self.series(metrics.FORGE_MEASUREMENT_CACHE_MISSES)
        self._duration = self.series(metrics.FORGE_MEASUREMENT_BATCH_DURATION)
        self._sizes = self.series(metrics.FORGE_MEASUREMENT_BATCH_SIZE)

    def is_usual(self, result: BatchMeasurementResult) -> bool:
        computed = self._computed
        return result.computed > 0 and all(each.outcome is computed for each in result.results)

    def count(self, size: int, result: BatchMeasurementResult) -> None:
        self._computations.append(size)
        self._misses.append(size)
        self._duration.append(result.duration)
        self._sizes.append(size)


def _measure(original: Callable[..., MeasurementResult], layer: Layer) -> Callable[..., MeasurementResult]:
    from forge.execution.results import MeasurementOutcome  # noqa: PLC0415 - it is being patched, so it is imported

    computed, sample_of, full = MeasurementOutcome.COMPUTED, SAMPLE.get, FULL  # what is local is found faster

    def measure(self: MeasurementOrchestrator, measurement: Measurement, sample: Sample) -> MeasurementResult:
        scope = sample_of()
        if scope is None or scope.busy is not None or (lane := scope.measurements.get(measurement.key)) is None:
            return observe(MEASUREMENT, layer, original, self, measurement, sample)
        if scope.span is not None:
            return lane.trace(scope, original, self, measurement, sample)
        # From here on this is `measure_async` with `Lane.begin` and `Lane.ended` written out, like the call of a stage.
        scope.busy = lane
        scope.busy_since = started = scope.clock()
        if scope.settled:
            scope.busy = None
            return original(self, measurement, sample)
        try:
            result = original(self, measurement, sample)
        except BaseException as error:
            lane.raised(scope, error)
            raise
        try:
            if result.outcome is computed and scope.spending is None:
                duration = result.duration
                scope.busy = None
                trail = scope.trail
                trail += lane.record, started, duration
                if not scope.settled or scope.claim():
                    durations = lane.durations
                    durations.append(duration)
                    if len(durations) >= full:
                        lane.tally.drain()
            else:
                lane.ended(scope, result)
        except Exception as fault:  # noqa: BLE001 - the call must go on without us
            faults.suppress(fault, "the end of a measurement")
        try:
            return result
        finally:
            del result  # see `Lane.trace`

    return measure


def _measure_async(
    original: Callable[..., Awaitable[MeasurementResult]], layer: Layer
) -> Callable[..., Awaitable[MeasurementResult]]:
    async def measure_async(
        self: MeasurementOrchestrator, measurement: Measurement, sample: Sample
    ) -> MeasurementResult:
        scope = SAMPLE.get()
        if scope is None or scope.busy is not None or (lane := scope.measurements.get(measurement.key)) is None:
            return await observe_async(MEASUREMENT, layer, original, self, measurement, sample)
        if scope.span is not None:
            return await lane.trace_async(scope, original, self, measurement, sample)
        if not lane.begin(scope):
            return await original(self, measurement, sample)
        try:
            result = await original(self, measurement, sample)
        except BaseException as error:
            lane.raised(scope, error)
            raise
        lane.ended(scope, result)
        return result

    return measure_async


def _measure_batch(
    original: Callable[..., BatchMeasurementResult], layer: Layer
) -> Callable[..., BatchMeasurementResult]:
    def measure_batch(
        self: MeasurementOrchestrator, measurement: Measurement, items: Sequence[Item]
    ) -> BatchMeasurementResult:
        run = RUN.get()
        lane = run.measurement_batches.get(measurement.key) if run is not None else None
        if lane is None or (call := lane.begin(self, measurement, items)) is None:
            return observe(MEASUREMENT_BATCH, layer, original, self, measurement, items)
        return lane.observe(call, original, self, measurement, items)

    return measure_batch


def _measure_batch_async(
    original: Callable[..., Awaitable[BatchMeasurementResult]], layer: Layer
) -> Callable[..., Awaitable[BatchMeasurementResult]]:
    async def measure_batch_async(
        self: MeasurementOrchestrator, measurement: Measurement, items: Sequence[Item]
    ) -> BatchMeasurementResult:
        run = RUN.get()
        lane = run.measurement_batches.get(measurement.key) if run is not None else None
        if lane is None or (call := lane.begin(self, measurement, items)) is None:
            return await observe_async(MEASUREMENT_BATCH, layer, original, self, measurement, items)
        return await lane.observe_async(call, original, self, measurement, items)

    return measure_batch_async


_MODULE = "forge.execution.measurement_orchestrator"

TARGETS = (
    Target(_MODULE, "MeasurementOrchestrator.measure", _measure),
    Target(_MODULE, "MeasurementOrchestrator.measure_async", _measure_async),
    Target(_MODULE, "MeasurementOrchestrator.measure_batch", _measure_batch),
    Target(_MODULE, "MeasurementOrchestrator.measure_batch_async", _measure_batch_async),
)
