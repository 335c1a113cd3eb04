"""Buffered metrics: one series for each instrument and set of attributes.

Recording values one by one would cost more than the code that they measure. They are buffered, and written in bulk when
a buffer is full and at the beginning of every collection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from ..patching import faults
from ..semconv import metrics
from ..semconv.definitions import Instrument, Metric
from .cardinality import Cardinality
from .sdk.histograms import NOWHERE, Merger
from .sdk.starts import start_before

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Span, SpanContext

Attributes = Mapping[str, Any]
"""Attributes by name; None values are dropped when they are written."""

FLUSH_SIZE: Final = 2048
"""Number of buffered values that triggers a write."""

TRACED_FLUSH_SIZE: Final = 128
"""The same for values with the contexts of their spans, which occupy the garbage collector until then."""

LOCK_TIMEOUT: Final = 1.0
"""Maximum time in seconds that a collection waits for a thread that is writing a buffer."""


class Buffer:
    """Values to be written in bulk by `write`, which receives each of them exactly once.

    `list.append` is atomic, with and without the global interpreter lock, so threads append without locking.
    """

    __slots__ = ("_flush_size", "_lock", "_write", "name", "pending")

    def __init__(self, name: str, write: Callable[..., None], flush_size: int = FLUSH_SIZE) -> None:
        self.pending: list[Any] = []
        """The buffered values. Code that appends here directly sees to it that somebody calls `drain` in time."""
        self.name = name
        self._flush_size = flush_size
        self._write = write
        self._lock = threading.Lock()

    def append(self, value: Any) -> None:
        """Append a value."""
        values = self.pending
        values.append(value)
        if len(values) >= self._flush_size:
            self.drain()

    def drain(self, timeout: float = 0) -> None:
        """Write the buffered values. If another thread is writing them, wait for it up to `timeout` seconds."""
        if not self._lock.acquire(timeout=timeout):
            return
        try:
            count = len(self.pending)
            if count:
                chunk = self.pending[:count]
                del self.pending[:count]
                with faults.protected(f"the metric {self.name}"):
                    self._write(chunk)
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Discard the parent's values in a forked process, and replace the lock, which a parent's thread may hold."""
        self.pending.clear()
        self._lock = threading.Lock()


class TracedBuffer(Buffer):
    """Values of a histogram, each followed by the context of its span. (As tuples, they would occupy the garbage
    collector twice as much.)
    """

    __slots__ = ()

    def __init__(self, name: str, write: Callable[[Sequence[float], Sequence[SpanContext]], None]) -> None:
        super().__init__(name, lambda values: write(values[::2], values[1::2]), 2 * TRACED_FLUSH_SIZE)

    def add(self, value: float, span: SpanContext) -> None:
        """Add a value with the context of its span."""
        values = self.pending
        values += (value, span)  # atomic, as `append` is
        if len(values) >= self._flush_size:
            self.drain()


_MONEY: Final = frozenset({metrics.FORGE_COST_AMOUNT.name, metrics.FORGE_COST_SAVED.name})


class _Adder:
    """Adds the sum of values to a counter."""

    __slots__ = ("_attributes", "_instrument", "_zero")

    def __init__(self, instrument: Any, attributes: dict[str, Any], zero: float = 0) -> None:
        self._instrument = instrument
        self._attributes = attributes
        self._zero = zero

    def __call__(self, values: Sequence[float]) -> None:
        self._instrument.add(sum(values, self._zero), self._attributes, NOWHERE)


class _MoneyAdder(_Adder):
    """Adds decimals to a counter, and keeps its value the double nearest to their exact sum.

    The exact sum is kept here. The counter receives the difference to its own value, which compensates its rounding.
    """

    __slots__ = ("_lock", "_sum", "_written")

    def __init__(self, instrument: Any, attributes: dict[str, Any], zero: float = 0) -> None:
        super().__init__(instrument, attributes, zero)
        self._sum = Decimal(0)
        self._written = 0.0
        self._lock = threading.Lock()

    def __call__(self, values: Sequence[Any]) -> None:
        from forge.support.money import total  # noqa: PLC0415 - money was spent, so it is imported

        with self._lock:
            self._sum = total((self._sum, *values))
            difference = float(self._sum) - self._written
            if difference >= 0:  # a counter that was rounded up receives nothing until the sum has caught up
                self._instrument.add(difference, self._attributes, NOWHERE)
                self._written += difference


class Series(Buffer):
    """A buffer for one instrument with one set of attributes."""

    __slots__ = ("_attributes", "_initialized", "_instrument", "_set", "_since", "_writer", "traced")

    def __init__(
        self, metric: Metric, instrument: Any, attributes: dict[str, Any], since: Callable[[], int] = time.time_ns
    ) -> None:
        """`since` returns a Unix time in nanoseconds that no value is earlier than which was not written yet."""
        self._attributes = attributes
        self._instrument = instrument
        self._since = since
        self._initialized = False
        self._set = None
        self.traced: TracedBuffer | None = None
        """Values of a histogram, with the contexts of their spans."""
        if metric.instrument is Instrument.HISTOGRAM:
            self._writer: Callable[..., None] = Merger(instrument, attributes, metric.boundaries or ())
            super().__init__(metric.name, self._write_first)
            self.traced = TracedBuffer(metric.name, self.write_all)
        elif metric.instrument is Instrument.COUNTER:
            adder = _MoneyAdder if metric.name in _MONEY else _Adder
            # Seconds are doubles from the initial point on: backends may take a series of another type for another one.
            self._writer = adder(instrument, attributes, 0.0 if metric.unit == "s" else 0)
            super().__init__(metric.name, self._write_first)
        else:
            super().__init__(metric.name, lambda values: instrument.set(values[-1], attributes, NOWHERE))
            self._set = instrument.set

    def _write_first(self, *values: Any) -> None:
        """Write the first values; the series starts before them."""
        self._writer(*values)
        if start_before(self._instrument, self._attributes, self._since()):
            self._write = self._writer

    def write(self, value: float | Decimal, span: Span | None = None) -> None:
        """Add to a counter, record in a histogram, or set a gauge. The span is used for exemplars of histograms."""
        if self._set is not None:
            self._set(value, self._attributes, NOWHERE)
        elif self.traced is not None and span is not None:
            self.traced.add(value, span.get_span_context())  # type: ignore[arg-type]  # only counters add decimals
        else:
            self.append(value)

    def write_all(self, values: Sequence[float], spans: Sequence[SpanContext] = ()) -> None:
        """Write several values without buffering them; those of histograms may each have the context of its span."""
        if spans:
            self._write(values, spans)
        else:
            self._write(values)

    def initialize(self) -> bool:
        """Write an initial point of 0 once, so that the series exists before its first increase; return True if it was
        written now.
        """
        if self._initialized:
            return False
        self._initialized = True
        self._write([0])
        return True


class BoundInstruments(Buffer):
    """Instruments bound to the attributes of one frequent operation of a run: histograms of its durations, counters of
    its calls, and counters of its total seconds. Each of them may be absent.
    """

    __slots__ = ("_counts", "_durations", "_totals", "traced")

    def __init__(
        self, table: SeriesTable, durations: Sequence[Series], counts: Sequence[Series], totals: Sequence[Series] = ()
    ) -> None:
        self._durations = durations
        self._counts = counts
        self._totals = totals
        name = (*durations, *counts)[0].name
        super().__init__(name, self._write_all)
        self.traced = TracedBuffer(name, self._write_all)
        """Durations of traced calls."""
        table.add(self)
        table.add(self.traced)

    def _write_all(self, durations: Sequence[float], spans: Sequence[SpanContext] = ()) -> None:
        for series in self._durations:
            series.write_all(durations, spans)
        for series in self._counts:
            series.append(len(durations))
        if self._totals:
            seconds = sum(durations)
            for series in self._totals:
                series.append(seconds)


class SeriesTable:
    """All series of a meter. Creates its instruments once, and keeps only the attributes that the registry allows for a
    metric, with values limited by `Cardinality`.
    """

    def __init__(self, meter: Meter) -> None:
        self.cardinality = Cardinality()
        self._instruments = {m.name: (m, _instrument(meter, m)) for m in metrics.ALL if not m.observable}
        self._series: dict[tuple[Any, ...], Series] = {}
        self._buffers: list[Buffer] = []
        self._drained = time.time_ns()
        """Unix time in nanoseconds of the last collection; that of the beginning, if there was none."""

    def get(self, metric: Metric, attributes: Attributes) -> Series:
        """Return the series of a metric with these attributes."""
        series = self._series.get(_key(metric, attributes))
        if series is None:
            kept = self.cardinality.limit(metric, attributes)
            key = _key(metric, kept)
            series = self._series.get(key)
            if series is None:
                created = Series(*self._instruments[metric.name], kept, lambda: self._drained)
                # Two threads may create the same series; one of them is kept.
                series = self._series.setdefault(key, created)
                if series is created:
                    self._buffers += [created] if created.traced is None else [created, created.traced]
        return series

    def buffer(self, name: str, write: Callable[[list[Any]], None]) -> Buffer:
        """Return a buffer whose `write` function writes to series."""
        buffer = Buffer(name, write)
        self.add(buffer)
        return buffer

    def add(self, buffer: Buffer) -> None:
        """Register a buffer to be drained before the series that it writes to."""
        self._buffers.insert(0, buffer)

    def release(self, buffer: Buffer) -> None:
        """Drain a buffer that is no longer used, and unregister it."""
        buffer.drain(LOCK_TIMEOUT)
        self._buffers.remove(buffer)

    def drain(self) -> None:
        """Write all buffered values."""
        now = time.time_ns()
        for buffer in tuple(self._buffers):
            if buffer.pending:
                buffer.drain(LOCK_TIMEOUT)
        self._drained = now

    def forget(self) -> None:
        """Discard the parent's values in a forked process."""
        for buffer in self._buffers:
            buffer.forget()


def _key(metric: Metric, attributes: Attributes) -> tuple[Any, ...]:
    return (metric.name, *[attributes.get(name) for name in metric.attributes])


def _instrument(meter: Meter, metric: Metric) -> Any:
    arguments = {"name": metric.name, "unit": metric.unit, "description": metric.brief}
    if metric.instrument is Instrument.COUNTER:
        return meter.create_counter(**arguments)
    if metric.instrument is Instrument.GAUGE:
        return meter.create_gauge(**arguments)
    return meter.create_histogram(**arguments, explicit_bucket_boundaries_advisory=metric.boundaries)
