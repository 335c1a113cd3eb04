"""Names of metrics and attributes in Prometheus.

The rules are those of OpenTelemetry's compatibility specification for Prometheus, with the default translation of
exporters: dots become underscores, units and types become suffixes.
"""

from __future__ import annotations

import re
from typing import Protocol


class NamedMetric(Protocol):
    """The fields that determine a name: of a metric in a registry's model, or of a generated definition."""

    @property
    def name(self) -> str: ...
    @property
    def instrument(self) -> str: ...
    @property
    def unit(self) -> str: ...


_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "%": "percent",
}
_PERIODS = {"s": "per_second", "h": "per_hour"}


def name(metric: NamedMetric) -> str:
    """Return the metric's name: with its unit, for a counter with `_total`, for a histogram without `_bucket` etc.

    Raises:
        ValueError: the unit has no known name in Prometheus.
    """
    parts = [_underscored(metric.name)]
    unit = _unit(metric)
    if unit and not parts[0].endswith(f"_{unit}"):
        parts.append(unit)
    if metric.instrument == "counter":
        parts.append("total")
    return "_".join(parts)


def series(metric: NamedMetric) -> tuple[str, ...]:
    """Return the names of the metric's series: three for a histogram, one for other metrics."""
    base = name(metric)
    if metric.instrument == "histogram":
        return (f"{base}_bucket", f"{base}_sum", f"{base}_count")
    return (base,)


def label(key: str) -> str:
    """Return the label of an attribute."""
    return _underscored(key)


def _unit(metric: NamedMetric) -> str:
    if metric.unit == "1":
        return "ratio" if metric.instrument == "gauge" else ""
    unit, per, period = re.sub(r"\{[^{}]*\}", "", metric.unit).partition("/")  # an annotation is no unit
    if (unit and unit not in _UNITS) or (per and period not in _PERIODS):
        known = f"{', '.join(_UNITS)}, and any of them per {', '.join(_PERIODS)}"
        raise ValueError(f"{metric.name}: the unit {metric.unit} has no name in Prometheus; known: {known}")
    return "_".join(filter(None, (_UNITS.get(unit), _PERIODS.get(period))))


def _underscored(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", text)
