"""Computing measurements, unless the same was computed before."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection, Mapping, Sequence, Set
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..costs import usage
from ..errors import RunCancelled, StageResultError, StageStuckError
from ..pipeline.measurement import Measurement
from ..pipeline.retry import CANCELLED, classify
from ..pipeline.sample import Sample, private_copy
from ..pipeline.serializer import JSONSerializer, content_of
from ..support.clock import Clock, SystemClock
from ..support.money import ZERO
from .calls import Batch, Calls, Interrupted
from .item import Item
from .results import BatchMeasurementResult, MeasurementOutcome, MeasurementResult

if TYPE_CHECKING:
    from ..definition import Pipeline

logger = logging.getLogger("forge")

Payload = Sample | tuple[Sample, ...]
"""A sample, or those of a batch. What pairs them with values is this; the measurement gets a list of its own."""
Outcome = tuple[Any, BaseException | None]
"""A value and None, or None and an error."""


class MeasurementOrchestrator:
    """Computes the measurements of a pipeline.

    As with `StageExecutor`, there is a method for sync measurements and one ending in `_async` for async ones. Without
    a pipeline, or one without storage, nothing is cached.
    """

    def __init__(
        self,
        pipeline: Pipeline | None = None,
        *,
        clock: Clock | None = None,
        stop: threading.Event | None = None,
        nothing_stored: bool = False,
    ) -> None:
        self._pipeline = pipeline
        measurements = pipeline.measurements if pipeline else ()
        # Read once: which value is whose must not depend on what a measurement does to its own settings.
        self._versions = {id(each): (each.key, each.version) for each in measurements}
        self._storage = pipeline.storage if pipeline else None
        self._clock = clock or SystemClock()
        self._stop = stop or threading.Event()
        self._calls = Calls(_take)
        self.nothing_stored = nothing_stored
        """Set where the storage was empty when the run began: then there is no need to look."""
        self.costs_stored = False
        """Set where the storage knows what computing some of its values cost."""

    def measure(self, measurement: Measurement, sample: Sample) -> MeasurementResult:
        """The value of a sync measurement for one sample, cached or computed.

        Raises:
            StageStuckError: the measurement has a timeout, and no slot left.
            KeyboardInterrupt, SystemExit: the measurement raised it.
        """
        cached = self._cached(measurement, [sample])
        if sample.id in cached:
            return cached[sample.id]
        started = self._clock.monotonic()
        outcome = self._compute(measurement, measurement.compute, sample)
        try:
            return self._result(outcome, self._clock.monotonic() - started)
        finally:
            del outcome  # or an error in it, whose traceback leads to this frame, would keep itself alive

    async def measure_async(self, measurement: Measurement, sample: Sample) -> MeasurementResult:
        """The same for an async measurement; an interrupt is in the result's `error`."""
        cached = await self._cached_async(measurement, [sample])
        if sample.id in cached:
            return cached[sample.id]
        started = self._clock.monotonic()
        outcome = await self._compute_async(measurement, measurement.compute, sample)
        return self._result(outcome, self._clock.monotonic() - started)

    def measure_batch(self, measurement: Measurement, items: Sequence[Item]) -> BatchMeasurementResult:
        """The values of a sync measurement for several samples. If computing them together fails, each is computed
        alone, so that one bad sample fails alone.
        """
        samples = tuple(item.sample for item in items)
        cached = self._cached(measurement, samples)
        to_do = [item for item in items if item.sample.id not in cached]
        started = self._clock.monotonic()
        outcomes: list[Outcome] = []
        if to_do:
            usage.narrow_to(to_do)
            missing = tuple(item.sample for item in to_do)
            together = self._compute(measurement, measurement.compute_batch, missing)
            outcomes = _each(together, len(missing))
            if _repeat_alone(together, missing):
                outcomes = [
                    _each(self._compute(measurement, measurement.compute_batch, (item.sample,)), 1)[0]
                    for item in usage.retry_each(to_do)
                ]
        return self._batch_result(samples, cached, outcomes, self._clock.monotonic() - started)

    async def measure_batch_async(self, measurement: Measurement, items: Sequence[Item]) -> BatchMeasurementResult:
        """The same for an async measurement."""
        samples = tuple(item.sample for item in items)
        cached = await self._cached_async(measurement, samples)
        to_do = [item for item in items if item.sample.id not in cached]
        started = self._clock.monotonic()
        outcomes: list[Outcome] = []
        if to_do:
            usage.narrow_to(to_do)
            missing = tuple(item.sample for item in to_do)
            together = await self._compute_async(measurement, measurement.compute_batch, missing)
            outcomes = _each(together, len(missing))
            if _repeat_alone(together, missing):
                outcomes = [
                    _each(await self._compute_async(measurement, measurement.compute_batch, (item.sample,)), 1)[0]
                    for item in usage.retry_each(to_do)
                ]
        return self._batch_result(samples, cached, outcomes, self._clock.monotonic() - started)

    def close(self) -> None:
        """Let go of the threads that calls with a timeout were made on."""
        self._calls.close()

    def _compute(self, measurement: Measurement, function: Any, payload: Payload) -> Outcome:
        if self._stop.is_set():
            return None, RunCancelled("the run ended")
        try:
            return self._calls.call(measurement, function, _argument(payload)), None
        except StageStuckError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it becomes the result
            return None, error

    async def _compute_async(self, measurement: Measurement, function: Any, payload: Payload) -> Outcome:
        if self._stop.is_set():
            return None, RunCancelled("the run ended")
        try:
            return await self._calls.call_async(measurement, function, _argument(payload)), None
        except Interrupted as interrupted:
            return None, interrupted.__cause__
        except asyncio.CancelledError as error:
            return None, RunCancelled("the run ended") if self._stop.is_set() else error
        except Exception as error:  # noqa: BLE001 - it becomes the result
            return None, error

    def _cached(self, measurement: Measurement, samples: Sequence[Sample]) -> dict[str, MeasurementResult]:
        if self._storage is None or self._pipeline is None or self.nothing_stored:
            return {}
        pairs = [(sample.id, sample.digest) for sample in samples if sample.digest]
        if not pairs:
            return {}
        kept = self._versions.get(id(measurement), (measurement.key, measurement.version))
        found = self._storage.measured(self._pipeline.name, pairs, *kept)
        saved: dict[str, Decimal] = {}
        if found and self.costs_stored:
            saved = self._storage.costs(self._pipeline.name, pairs, *kept)
        cached = {}
        for sample_id, content in found.items():
            try:
                value = self._pipeline.serializer.loads(content)
            except Exception as error:  # noqa: BLE001 - the user's serializer may raise anything
                logger.warning("the cached %r of sample %r cannot be read: %r", measurement.key, sample_id, error)
            else:
                cached[sample_id] = MeasurementResult(
                    outcome=MeasurementOutcome.CACHED, value=private_copy(value), saved=saved.get(sample_id, ZERO)
                )
        return cached

    async def _cached_async(self, measurement: Measurement, samples: Sequence[Sample]) -> dict[str, MeasurementResult]:
        if self._storage is None or self.nothing_stored:
            return {}
        return await asyncio.to_thread(self._cached, measurement, samples)

    def _result(self, outcome: Outcome, duration: float) -> MeasurementResult:
        value, error = outcome
        content = None
        if error is None and self._storage is not None and self._pipeline is not None:
            try:
                serializer = self._pipeline.serializer
                handed = value if type(serializer) is JSONSerializer else private_copy(value)
                content = content_of(serializer, handed)
            except Exception as fault:  # noqa: BLE001 - the user's serializer may raise anything
                error = fault
        if error is not None:
            kind = classify(error)
            return MeasurementResult(outcome=MeasurementOutcome.ERROR, error=error, error_type=kind, duration=duration)
        return MeasurementResult(outcome=MeasurementOutcome.COMPUTED, value=value, content=content, duration=duration)

    def _batch_result(
        self,
        samples: Sequence[Sample],
        cached: dict[str, MeasurementResult],
        outcomes: Sequence[Outcome],
        duration: float,
    ) -> BatchMeasurementResult:
        computed = iter([self._result(outcome, duration) for outcome in outcomes])
        results = tuple(cached.get(sample.id) or next(computed) for sample in samples)
        failed = next((result for result in results if result.error is not None), None)
        return BatchMeasurementResult(
            results=results,
            computed=len(outcomes),
            duration=duration,
            error=failed.error if failed else None,
            error_type=failed.error_type if failed else None,
        )


def _argument(payload: Payload) -> Sample | Batch:
    """What the measurement is called with."""
    return payload if isinstance(payload, Sample) else Batch(payload)


def _take(measurement: Measurement, argument: Sample | Batch, value: Any) -> Any:
    """Copies of the value, or of the values of a batch: the user may keep the originals, and change them later.

    Raises:
        StageResultError: a batch has another number of values than samples, or was put into another order.
    """
    if not isinstance(argument, Batch):
        return private_copy(value)
    many = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping | Set)
    values = tuple(value) if many else ()
    if not many or len(values) != argument.size:
        what = f"{len(values)} values" if many else type(value).__name__
        raise StageResultError(
            f"measurement {measurement.key!r} returned {what} for a batch of {argument.size}; "
            "it must return a list with one value for each sample, in order"
        )
    if argument.reordered:
        raise StageResultError(
            f"measurement {measurement.key!r} put its list of samples into another order; "
            "sort a copy, and return the values in the order in which the samples were given"
        )
    return tuple(private_copy(each) for each in values)


def _each(together: Outcome, count: int) -> list[Outcome]:
    values, error = together
    return [(None, error)] * count if error is not None else [(value, None) for value in values]


def _repeat_alone(together: Outcome, samples: Sequence[Sample]) -> bool:
    error = together[1]
    return error is not None and len(samples) > 1 and isinstance(error, Exception) and classify(error) != CANCELLED
