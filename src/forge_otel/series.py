"""Where values are written: one object for each instrument with one set of attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .semconv import metrics
from .semconv.definitions import Instrument, Metric

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter

Attributes = Mapping[str, Any]
"""Attributes by name; those that are None are left out wherever they are written."""


class Series:
    """One instrument with one set of attributes."""

    __slots__ = ("_attributes", "_write", "_zeroed")

    def __init__(self, write: Callable[..., None], attributes: dict[str, Any]) -> None:
        self._write = write
        self._attributes = attributes
        self._zeroed = False

    def write(self, value: float, context: Context | None = None) -> None:
        """Add to a counter, record in a histogram, set a gauge. The context is where an exemplar points to."""
        self._write(value, self._attributes, context)

    def zero(self) -> bool:
        """Add nothing, once, so that the series exists before there is something to add; says whether it did."""
        if self._zeroed:
            return False
        self._zeroed = True
        self._write(0, self._attributes)
        return True


class SeriesTable:
    """All series of a meter. Its instruments are created here, once; of the attributes given, each takes only those
    that the vocabulary allows it.
    """

    def __init__(self, meter: Meter) -> None:
        self._writers = {metric.name: _writer(meter, metric) for metric in metrics.ALL if not metric.observable}
        self._series: dict[tuple[Any, ...], Series] = {}

    def get(self, metric: Metric, attributes: Attributes) -> Series:
        """The series of a metric with these attributes."""
        key = (metric.name, *[attributes.get(name) for name in metric.attributes])
        series = self._series.get(key)
        if series is None:
            # Two threads may make the same one; both then write to the same instrument, and one of them is kept.
            series = self._series.setdefault(key, Series(self._writers[metric.name], allowed(metric, attributes)))
        return series


def allowed(metric: Metric, attributes: Attributes) -> dict[str, Any]:
    """The attributes that may stand on a point of the metric and have a value."""
    return {name: attributes[name] for name in metric.attributes if attributes.get(name) is not None}


def _writer(meter: Meter, metric: Metric) -> Callable[..., None]:
    described = {"name": metric.name, "unit": metric.unit, "description": metric.brief}
    if metric.instrument is Instrument.COUNTER:
        return meter.create_counter(**described).add
    if metric.instrument is Instrument.GAUGE:
        return meter.create_gauge(**described).set
    return meter.create_histogram(**described, explicit_bucket_boundaries_advisory=metric.boundaries).record
