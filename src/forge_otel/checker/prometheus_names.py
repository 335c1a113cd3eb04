"""What metrics and attributes are called in Prometheus.

The rules are those of OpenTelemetry's compatibility specification for Prometheus, with names translated the way that
every exporter does by default: dots become underscores, a unit and a type become suffixes.
"""

from __future__ import annotations

import re
from typing import Protocol


class NamedMetric(Protocol):
    """What a name follows from: a metric of a registry's model, or one of the generated definitions."""

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
    """The metric's name: with its unit; of a counter with `_total`; of a histogram without `_bucket` and the like.

    Raises `ValueError` for a unit whose name in Prometheus is not known here.
    """
    parts = [_underscored(metric.name)]
    unit = _unit(metric)
    if unit and not parts[0].endswith(f"_{unit}"):
        parts.append(unit)
    if metric.instrument == "counter":
        parts.append("total")
    return "_".join(parts)


def series(metric: NamedMetric) -> tuple[str, ...]:
    """The names that the metric's series have: three for a histogram, one for anything else."""
    base = name(metric)
    if metric.instrument == "histogram":
        return (f"{base}_bucket", f"{base}_sum", f"{base}_count")
    return (base,)


def label(key: str) -> str:
    """The label of an attribute."""
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
