"""Observable instruments: the state of active runs and dead letters, read at every collection of metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet, WeakValueDictionary, ref

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from ..patching import faults
from ..semconv import attributes as a
from ..semconv import metrics
from ..semconv.definitions import Instrument, Metric
from .metrics import Attributes, SeriesTable
from .sdk.providers import real

if TYPE_CHECKING:
    from forge import DeadLetterQueue, Pipeline, Run
    from forge.runner import RunSnapshot
    from forge.storage.dead_letters import DeadLetterSnapshot

_RUNNER = (
    metrics.FORGE_PIPELINE_ACTIVE,
    metrics.FORGE_PIPELINE_PROGRESS_TIMESTAMP,
    metrics.FORGE_PIPELINE_EXPECTED_INTERVAL,
    metrics.FORGE_SOURCE_REMAINING,
    metrics.FORGE_SAMPLE_ACTIVE,
    metrics.FORGE_COST_BUDGET,
)
_STAGE = (
    metrics.FORGE_STAGE_ACTIVE,
    metrics.FORGE_STAGE_CONCURRENCY_LIMIT,
    metrics.FORGE_STAGE_WORKER_ACTIVE,
    metrics.FORGE_STAGE_LATENCY_BUDGET,
    metrics.FORGE_STAGE_QUEUE_DEPTH,
    metrics.FORGE_STAGE_QUEUE_LIMIT,
    metrics.FORGE_DLQ_DEPTH,
    metrics.FORGE_DLQ_OLDEST_TIMESTAMP,
)

_INT64_MAX: Final = 2**63 - 1

ObservedPoints = dict[str, dict[tuple[Any, ...], tuple[float, dict[str, Any]]]]
"""Values and attributes of points, by metric and attribute values."""

_OTHERS: Final = frozenset({"datatrove", "ray_data"})
"""Components for pipelines of other libraries, whose runs have the points of runners and stages."""

Callbacks = list[Callable[[CallbackOptions], Sequence[Observation]]]


class LiveRun(Protocol):
    """A run of another library."""

    def up_down_counters(self) -> Iterable[tuple[Metric, float, Attributes]]:
        """Return the values of up-down counters at this moment."""

    def gauges(self) -> Iterable[tuple[Metric, float, Attributes]]:
        """Return the values of gauges at this moment."""


class Observables:
    """The points of the observable instruments.

    Up-down counters are sums over the active runs, and fall back to 0 when these end; gauges keep their last values.
    All instruments report one snapshot, taken at the beginning of the collection, when buffered values are written too.
    """

    def __init__(self, components: Collection[str], series: SeriesTable) -> None:
        self._enabled = {
            metric.name
            for component, group in (("runner", _RUNNER), ("stage", _STAGE))
            if component in components or not _OTHERS.isdisjoint(components)
            for metric in group
        }
        self._runs: WeakSet[Run] = WeakSet()
        self._others: WeakSet[LiveRun] = WeakSet()
        self._queues: WeakValueDictionary[str, DeadLetterQueue] = WeakValueDictionary()
        self._letters: dict[str, DeadLetterSnapshot] = {}
        self._places: dict[str, dict[tuple[str, str], None]] = {}
        """By pipeline, where its dead letters may come from: the sources, with stages and measurements."""
        self._points: ObservedPoints = {}
        self._series = series
        self._lock = threading.Lock()
        self._members = threading.Lock()
        self._observers: list[_Observer] = []

    def attach(self, provider: MeterProvider, meter: Meter) -> None:
        """Make the observable instruments of this meter report these points, in addition to those of others that are
        attached: of an earlier telemetry that still has runs.
        """
        _observers[:] = [observer for observer in _observers if observer.provider is not None]
        self._observers = [observer for observer in _observers if observer.provider is real(provider)]
        if not self._observers:
            self._observers = [_Observer(provider, meter)]
            _observers.extend(self._observers)
        for observer in self._observers:
            observer.attached = (*observer.attached, self)

    def close(self) -> None:
        """Detach from the observable instruments."""
        for observer in self._observers:
            observer.attached = tuple(each for each in observer.attached if each is not self)

    def add_run(self, run: Run) -> None:
        """Add a run that begins, with its series, so that they exist even if it ends before the next collection."""
        with self._lock:
            self._initialize(_up_down_counters(run, run.snapshot()))
        with self._members:
            self._runs.add(run)
        if run.pipeline.storage is not None:
            self.track_queue(run.pipeline.dead_letters)

    def add_places(self, pipeline: Pipeline) -> None:
        """Report the number of dead letters of all places of a pipeline. To be called when the storage was read: until
        then it is not known that there are none.
        """
        places = [("stage", stage.name) for stage in pipeline.stages]
        places += [("measurement", measurement.key) for measurement in pipeline.measurements]
        with self._lock:
            self._places.setdefault(pipeline.name, {}).update(dict.fromkeys([*places, ("storage", "")]))

    def remove_run(self, run: Run) -> None:
        """Remove a run that has ended, after a last read of its gauges."""
        with self._members:
            self._runs.discard(run)
        with self._lock:
            self._read_gauges(run, run.snapshot())
            self._read_letters()

    def add(self, run: LiveRun) -> None:
        """Add a run of another library, with its series, so that they exist even if it ends before the next
        collection.
        """
        with self._lock:
            self._initialize(run.up_down_counters())
        with self._members:
            self._others.add(run)

    def remove(self, run: LiveRun) -> None:
        """Remove a run of another library that has ended, after a last read of its gauges."""
        with self._members:
            self._others.discard(run)
        with self._lock:
            for gauge in run.gauges():
                self._set(*gauge)

    def track_queue(self, queue: DeadLetterQueue) -> None:
        """Report a queue of dead letters, instead of an earlier one of the same pipeline."""
        with self._members:
            self._queues[queue.pipeline] = queue

    def collect(self) -> None:
        """Write buffered values and take the snapshot of a collection."""
        self._series.drain()
        with self._lock:
            self._refresh()

    def read(self, metric: Metric) -> list[Observation]:
        """Return the points of one metric."""
        if metric.name not in self._enabled:
            return []
        with self._lock:
            return [Observation(value, attributes) for value, attributes in self._points.get(metric.name, {}).values()]

    def _initialize(self, counters: Iterable[tuple[Metric, float, Attributes]]) -> None:
        for metric, _, attributes in counters:
            kept = self._limit(metric, attributes)
            self._points.setdefault(metric.name, {}).setdefault(tuple(kept.values()), (0, kept))

    def _refresh(self) -> None:
        with self._members:
            runs, others = list(self._runs), list(self._others)
        snapshots = [(run, run.snapshot()) for run in runs]
        for metric in (*_RUNNER, *_STAGE):
            if metric.instrument is Instrument.UPDOWNCOUNTER:
                previous = self._points.get(metric.name, {})
                previous.update({key: (0, attributes) for key, (_, attributes) in previous.items()})
        for run, snapshot in snapshots:
            for counter in _up_down_counters(run, snapshot):
                self._set(*counter)
        for other in others:
            for point in (*other.up_down_counters(), *other.gauges()):
                self._set(*point)
        for run, snapshot in sorted(snapshots, key=lambda pair: pair[1].last_settled or 0):
            self._read_gauges(run, snapshot)
        self._read_letters()

    def _read_gauges(self, run: Run, snapshot: RunSnapshot) -> None:
        where = {a.FORGE_PIPELINE_NAME: run.pipeline.name}
        if snapshot.last_settled is not None:
            # Not in the future, if the clock was set back since: ages are not negative.
            self._set(metrics.FORGE_PIPELINE_PROGRESS_TIMESTAMP, min(snapshot.last_settled, run.clock.time()), where)
        if run.pipeline.expected_interval is not None:
            self._set(metrics.FORGE_PIPELINE_EXPECTED_INTERVAL, float(run.pipeline.expected_interval), where)
        if run.pipeline.hourly_budget is not None:
            self._set(metrics.FORGE_COST_BUDGET, float(run.pipeline.hourly_budget), where)
        for stage in run.pipeline.stages:
            if stage.latency_budget is not None:
                at = {**where, a.FORGE_STAGE_NAME: stage.name}
                self._set(metrics.FORGE_STAGE_LATENCY_BUDGET, float(stage.latency_budget), at)

    def _read_letters(self) -> None:
        with self._members:
            queues = dict(self._queues)
        # A queue may be gone at the last export of the process; its last snapshot still holds.
        self._letters.update({pipeline: queue.snapshot() for pipeline, queue in queues.items()})
        self._points.pop(metrics.FORGE_DLQ_DEPTH.name, None)
        self._points.pop(metrics.FORGE_DLQ_OLDEST_TIMESTAMP.name, None)
        for pipeline, snapshot in self._letters.items():
            where = {a.FORGE_PIPELINE_NAME: pipeline}
            if snapshot.oldest is not None:
                self._set(metrics.FORGE_DLQ_OLDEST_TIMESTAMP, min(snapshot.oldest, time.time()), where)
            places = dict.fromkeys(self._places.get(pipeline, ()), 0)
            for (source, place), depth in (*places.items(), *snapshot.depth.items()):
                at = {**where, a.FORGE_DLQ_SOURCE: str(source), **failed_in(str(source), place)}
                self._set(metrics.FORGE_DLQ_DEPTH, depth, at, summed=True)

    def _limit(self, metric: Metric, attributes: Attributes) -> dict[str, Any]:
        return self._series.cardinality.limit(metric, attributes)

    def _set(self, metric: Metric, value: float, attributes: Attributes, *, summed: bool = False) -> None:
        points = self._points.setdefault(metric.name, {})
        kept = self._limit(metric, attributes)
        key = tuple(kept.values())
        if key in points and (summed or metric.instrument is Instrument.UPDOWNCOUNTER):
            value += points[key][0]
        # A source may say that it has as many samples as its `len()` can; two of them are more than OTLP can carry.
        points[key] = (min(value, _INT64_MAX) if isinstance(value, int) else value, kept)


def _up_down_counters(run: Run, snapshot: RunSnapshot) -> Iterator[tuple[Metric, float, Attributes]]:
    """Yield the values of a run's up-down counters."""
    where = {
        a.FORGE_PIPELINE_NAME: run.pipeline.name,
        a.FORGE_RUNNER_NAME: run.runner,
        a.FORGE_RUN_TYPE: run.type.value,
    }
    yield metrics.FORGE_PIPELINE_ACTIVE, 1, where
    yield metrics.FORGE_SAMPLE_ACTIVE, snapshot.ledger.active, where
    if snapshot.source_remaining is not None:
        yield metrics.FORGE_SOURCE_REMAINING, snapshot.source_remaining, where
    for stage in snapshot.stages:
        at = {**where, a.FORGE_STAGE_NAME: stage.name}
        yield metrics.FORGE_STAGE_ACTIVE, stage.active, at
        yield metrics.FORGE_STAGE_CONCURRENCY_LIMIT, stage.slots, at
        if stage.workers is not None:
            yield metrics.FORGE_STAGE_WORKER_ACTIVE, stage.workers, at
        if stage.workers is not None or stage.queue_limit:
            yield metrics.FORGE_STAGE_QUEUE_DEPTH, stage.queue_depth, at
        if stage.queue_limit:
            yield metrics.FORGE_STAGE_QUEUE_LIMIT, stage.queue_limit, at


def failed_in(source: str, place: str) -> Mapping[str, Any]:
    """Return the attributes for the origin of a dead letter: the name of the stage or the measurement; none for a
    storage.
    """
    names = {"stage": a.FORGE_STAGE_NAME, "measurement": a.FORGE_MEASUREMENT_KEY}
    return {names[source]: place} if source in names else {}


class _Observer:
    """The observable instruments of one meter provider.

    A provider keeps the first callbacks registered for a name, and ignores those of a later instrument of the same
    name. So the callbacks stay registered, and report the points that are attached.
    """

    def __init__(self, provider: MeterProvider, meter: Meter) -> None:
        self.attached: tuple[Observables, ...] = ()
        """From the earliest to the latest."""
        self._provider = _weak_reference(provider)
        # A collection calls the callbacks in the order of creation, before it reads the synchronous instruments.
        first: Callbacks = [self._begin]
        for metric in metrics.ALL:
            if metric.observable:
                create = (
                    meter.create_observable_gauge
                    if metric.instrument is Instrument.GAUGE
                    else meter.create_observable_up_down_counter
                )
                callbacks: Callbacks = [*first, partial(self._read, metric)]
                first = []
                create(metric.name, callbacks=callbacks, unit=metric.unit, description=metric.brief)

    @property
    def provider(self) -> MeterProvider | None:
        """The provider; None if it was garbage-collected."""
        provider = self._provider()
        return None if provider is None else real(provider)

    def _begin(self, options: CallbackOptions) -> Sequence[Observation]:  # noqa: ARG002 - waits are bounded
        for observables in self.attached:
            with faults.protected("the beginning of a collection"):
                observables.collect()
        return []

    def _read(self, metric: Metric, options: CallbackOptions) -> Sequence[Observation]:  # noqa: ARG002 - does not wait
        with faults.protected(f"the metric {metric.name}"):
            if len(self.attached) == 1:
                return self.attached[0].read(metric)
            return _merged(metric, [point for each in self.attached for point in each.read(metric)])
        return []


def _merged(metric: Metric, points: Iterable[Observation]) -> Sequence[Observation]:
    """Add up points with the same attributes; of a gauge, the last one counts."""
    merged: dict[Any, Observation] = {}
    for point in points:
        key = frozenset((point.attributes or {}).items())
        earlier = merged.get(key)
        if earlier is not None and metric.instrument is Instrument.UPDOWNCOUNTER:
            merged[key] = Observation(earlier.value + point.value, point.attributes)
        else:
            merged[key] = point
    return list(merged.values())


_observers: list[_Observer] = []


def _weak_reference(provider: MeterProvider) -> Callable[[], MeterProvider | None]:
    try:
        return ref(provider)
    except TypeError:  # a class with `__slots__`: its provider is kept alive
        return lambda: provider
