"""What metrics and attributes are called in Prometheus.

The rules are those of OpenTelemetry's compatibility specification for Prometheus, with names translated the way that
every exporter does by default: dots become underscores, a unit and a type become suffixes.
"""

from __future__ import annotations

import re

from .model import Metric

_UNITS = {"s": "seconds", "By": "bytes"}


def name(metric: Metric) -> str:
    """The metric's name: with its unit; of a counter with `_total`; of a histogram without `_bucket` and the like."""
    parts = [_underscored(metric.name)]
    unit = _unit(metric)
    if unit and not parts[0].endswith(f"_{unit}"):
        parts.append(unit)
    if metric.instrument == "counter":
        parts.append("total")
    return "_".join(parts)


def series(metric: Metric) -> tuple[str, ...]:
    """The names that the metric's series have: three for a histogram, one for anything else."""
    base = name(metric)
    if metric.instrument == "histogram":
        return (f"{base}_bucket", f"{base}_sum", f"{base}_count")
    return (base,)


def label(key: str) -> str:
    """The label of an attribute."""
    return _underscored(key)


def _unit(metric: Metric) -> str:
    if metric.unit.startswith("{"):  # an annotation, which is no unit
        return ""
    if metric.unit == "1":
        return "ratio" if metric.instrument == "gauge" else ""
    return _UNITS[metric.unit]


def _underscored(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", text)
