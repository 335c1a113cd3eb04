"""Computing measurements that are not cached."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Collection, Generator, Mapping, Sequence, Set
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ..costs import usage
from ..errors import RunCancelled, StageResultError, StageStuckError
from ..pipeline.exceptions import CANCELLED, classify, describe, is_a
from ..pipeline.measurement import Measurement
from ..pipeline.sample import Sample, private_copy
from ..pipeline.serializer import JSONSerializer, content_of
from ..storage.gate import Gate
from ..support import sans_io
from ..support.clock import Clock, SystemClock
from ..support.money import ZERO
from .calls import Batch, Calls, Interrupted, Payload, to_thread
from .item import Item
from .results import BatchMeasurementResult, MeasurementOutcome, MeasurementResult

if TYPE_CHECKING:
    from ..definition import Pipeline

logger = logging.getLogger("forge")

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
        gate: Gate | None = None,
        nothing_stored: bool = False,
    ) -> None:
        self._pipeline = pipeline
        measurements = pipeline.measurements if pipeline else ()
        # Read once: a measurement may change its own settings, which must not change the keys of its values.
        self._versions = {id(each): (each.key, each.version) for each in measurements}
        self._storage = pipeline.storage if pipeline else None
        self._clock = clock or SystemClock()
        self._stop = stop or threading.Event()
        self._gate = gate or Gate()
        self._calls = Calls(_private_values)
        self.nothing_stored = nothing_stored
        """True if the storage was empty when the run began, so that lookups can be skipped."""
        self.costs_stored = False
        """True if the storage has costs of cached values."""

    def measure(self, measurement: Measurement, sample: Sample) -> MeasurementResult:
        """Return the value of a sync measurement for one sample, cached or computed.

        Raises:
            StageStuckError: the measurement has a timeout, and no slot left.
            KeyboardInterrupt, SystemExit: raised by the measurement.
        """
        return sans_io.run(self._measure(measurement, sample), self._perform)

    async def measure_async(self, measurement: Measurement, sample: Sample) -> MeasurementResult:
        """Return the value of an async measurement for one sample; an interrupt is in the result's `error`."""
        return await sans_io.run_async(self._measure(measurement, sample), self._perform_async)

    def measure_batch(self, measurement: Measurement, items: Sequence[Item]) -> BatchMeasurementResult:
        """Return the values of a sync measurement for several samples.

        If computing them together fails, each is computed alone, so that one bad sample fails alone.

        Raises:
            StageStuckError, KeyboardInterrupt, SystemExit: as for `measure`.
        """
        return sans_io.run(self._measure_batch(measurement, items), self._perform)

    async def measure_batch_async(self, measurement: Measurement, items: Sequence[Item]) -> BatchMeasurementResult:
        """Return the values of an async measurement for several samples, computed alone if that fails together."""
        return await sans_io.run_async(self._measure_batch(measurement, items), self._perform_async)

    def close(self) -> None:
        """End the threads that ran calls with a timeout."""
        self._calls.close()

    # The logic of measuring, for both kinds of measurements. It yields lookups in the storage, and computations.

    def _measure(self, measurement: Measurement, sample: Sample) -> _Steps[MeasurementResult]:
        if self._is_cacheable(sample):
            cached = yield _Lookup(measurement, (sample,))
            if sample.id in cached:
                result: MeasurementResult = cached[sample.id]
                return result
        started = self._clock.monotonic()
        outcome = yield measurement, measurement.compute, sample
        return self._result(outcome, self._clock.monotonic() - started)

    def _measure_batch(self, measurement: Measurement, items: Sequence[Item]) -> _Steps[BatchMeasurementResult]:
        samples = tuple(item.sample for item in items)
        cacheable = tuple(filter(self._is_cacheable, samples))
        cached: Mapping[str, MeasurementResult] = (yield _Lookup(measurement, cacheable)) if cacheable else {}
        missing = [item for item in items if item.sample.id not in cached]
        started = self._clock.monotonic()
        outcomes: list[Outcome] = []
        whole: BaseException | None = None
        if missing:
            usage.narrow_to(missing)
            compute = measurement.compute_batch
            values, error = yield measurement, compute, tuple(item.sample for item in missing)
            if error is None:
                outcomes = [(value, None) for value in values]
            elif not is_a(error, Exception) or classify(error) == CANCELLED:
                outcomes = [(None, error)] * len(missing)
            elif len(missing) == 1:
                whole, outcomes = error, [(None, error)]
            else:
                whole = error
                for item in usage.retry_each(missing):
                    values, error = yield measurement, compute, (item.sample,)
                    outcomes.append((None, error) if error is not None else (values[0], None))
        return self._batch_result(samples, cached, outcomes, self._clock.monotonic() - started, whole)

    def _is_cacheable(self, sample: Sample) -> bool:
        return self._storage is not None and not self.nothing_stored and bool(sample.digest)

    def _perform(self, request: _Request) -> Mapping[str, MeasurementResult] | Outcome:
        if isinstance(request, _Lookup):
            return self._cached(*request)
        if self._gate.closed:
            self._gate.wait(self._stop)
        if self._stop.is_set():
            return None, RunCancelled("the run ended")
        measurement, function, payload = request
        try:
            return self._calls.call(measurement, function, _argument(payload)), None
        except StageStuckError:
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it becomes the result
            return None, error

    async def _perform_async(self, request: _Request) -> Mapping[str, MeasurementResult] | Outcome:
        if isinstance(request, _Lookup):
            return await to_thread(self._cached, *request)
        if self._gate.closed:
            await self._gate.wait_async(self._stop)
        if self._stop.is_set():
            return None, RunCancelled("the run ended")
        measurement, function, payload = request
        try:
            return await self._calls.call_async(measurement, function, _argument(payload)), None
        except Interrupted as interrupted:
            return None, interrupted.interrupt
        except asyncio.CancelledError as error:
            return None, RunCancelled("the run ended") if self._stop.is_set() else error
        except Exception as error:  # noqa: BLE001 - it becomes the result
            return None, error

    def _cached(self, measurement: Measurement, samples: Sequence[Sample]) -> dict[str, MeasurementResult]:
        assert self._storage is not None
        assert self._pipeline is not None
        pairs = [(sample.id, sample.digest) for sample in samples if sample.digest]
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
                logger.warning(
                    "the cached %r of sample %r cannot be read: %s", measurement.key, sample_id, describe(error)
                )
            else:
                cached[sample_id] = MeasurementResult(
                    outcome=MeasurementOutcome.CACHED, value=private_copy(value), saved=saved.get(sample_id, ZERO)
                )
        return cached

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
        try:
            if error is not None:
                failed, kind = MeasurementOutcome.ERROR, classify(error)
                return MeasurementResult(outcome=failed, error=error, error_type=kind, duration=duration)
            computed = MeasurementOutcome.COMPUTED
            return MeasurementResult(outcome=computed, value=value, content=content, duration=duration)
        finally:
            del error, outcome  # the traceback leads to this frame, if the serializer has raised

    def _batch_result(
        self,
        samples: Sequence[Sample],
        cached: Mapping[str, MeasurementResult],
        outcomes: Sequence[Outcome],
        duration: float,
        whole: BaseException | None,
    ) -> BatchMeasurementResult:
        computed = iter([self._result(outcome, duration) for outcome in outcomes])
        results = tuple(cached.get(sample.id) or next(computed) for sample in samples)
        error = whole
        if error is None:
            error = next((result.error for result in results if result.error is not None), None)
        try:
            return BatchMeasurementResult(
                results=results,
                computed=len(outcomes),
                duration=duration,
                failed=whole is not None,
                error=error,
                error_type=None if error is None else classify(error),
            )
        finally:
            del computed, results, error  # see `_result`


class _Lookup(NamedTuple):
    """Values to look up in the storage; answered with those found, by sample id."""

    measurement: Measurement
    samples: Sequence[Sample]


_Computation: TypeAlias = tuple[Measurement, Callable[[Any], Any], Payload]
"""A measurement's function to call with a payload; answered with its outcome."""
_Request: TypeAlias = _Lookup | _Computation
_Steps: TypeAlias = Generator[_Request, Any, sans_io.Result]


def _argument(payload: Payload) -> Sample | Batch:
    """Return the argument of the measurement's function."""
    return payload if isinstance(payload, Sample) else Batch(payload)


_NOT_MANY = (str, bytes, bytearray, memoryview, Mapping, Set)
"""Collections that are one value, or have no order."""


def _private_values(measurement: Measurement, argument: Sample | Batch, value: Any) -> Any:
    """Copy the value, or the values of a batch: user code may keep the originals, and change them later.

    Raises:
        StageResultError: a batch has another number of values than samples, or was put into another order.
    """
    if inspect.iscoroutine(value):
        value.close()  # or Python would complain elsewhere that nobody awaited it
        raise StageResultError(f"measurement {measurement.key!r} returned a coroutine (await it, in an async def)")
    if not isinstance(argument, Batch):
        return private_copy(value)
    many = isinstance(value, Collection) and not isinstance(value, _NOT_MANY)
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
