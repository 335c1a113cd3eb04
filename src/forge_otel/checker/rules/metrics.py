"""Rules for metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from ..findings import Finding
from ..model import Metric, Registry
from .word_forms import is_participle, is_plural, last_word, split_name

_UNITS: Final = frozenset(
    {
        *("ns", "us", "ms", "s", "sec", "secs", "second", "seconds", "millis", "millisecond", "milliseconds"),
        *(
            "microsecond",
            "microseconds",
            "nanosecond",
            "nanoseconds",
            "minute",
            "minutes",
            "hour",
            "hours",
            "day",
            "days",
        ),
        *("byte", "bytes", "kb", "mb", "gb", "kib", "mib", "gib", "kilobytes", "megabytes", "gigabytes"),
        *("percent", "usd", "dollars"),
    }
)
_QUANTITIES: Final = frozenset(("amount", "io", "time"))
_STATSD: Final = {"counter": "c", "histogram": "h", "gauge": "g", "updowncounter": "g"}


def _name(registry: Registry) -> Iterator[Finding]:
    for name, metric in registry.metrics.items():
        last = name.rpartition(".")[2]
        if last_word(last) == "total":
            yield Finding(metric.place, "metric/name", f"{name} ends with `total`; Prometheus adds it to counters")
        for unit in _UNITS.intersection(split_name(last)):
            yield Finding(metric.place, "metric/name", f"{name} repeats the unit `{unit}` of the field `unit`")


def _counter(registry: Registry) -> Iterator[Finding]:
    for name, metric in registry.metrics.items():
        if metric.instrument != "counter":
            continue
        word = last_word(name)
        annotated = metric.unit.startswith("{")
        if is_plural(word) and not annotated:
            message = f"{name} counts things, in {metric.unit!r}; write a unit such as `{{sample}}`"
            yield Finding(metric.at("unit"), "metric/counter", message)
        elif not (is_plural(word) or is_participle(word) or word in _QUANTITIES):
            message = f"{name} ends with `{word}`: neither a plural noun, a past participle, `time`, `io` nor `amount`"
            yield Finding(metric.place, "metric/counter", message)


def _singular(registry: Registry) -> Iterator[Finding]:
    for name, metric in registry.metrics.items():
        if metric.instrument in ("gauge", "updowncounter") and is_plural(last_word(name)):
            message = f"{name} is a {metric.instrument} and ends with a plural; write the singular"
            yield Finding(metric.place, "metric/singular", message)


def _boundaries(registry: Registry) -> Iterator[Finding]:
    for name, metric in registry.metrics.items():
        place, boundaries = metric.at("annotations"), metric.boundaries
        if metric.instrument != "histogram":
            if boundaries is not None:
                yield Finding(place, "metric/boundaries", f"{name} is not a histogram and has bucket boundaries")
        elif boundaries is None:
            yield Finding(place, "metric/boundaries", f"{name} has no bucket boundaries")
        elif any(low >= high for low, high in pairwise((-math.inf, *boundaries))):
            yield Finding(place, "metric/boundaries", f"{name}: the bucket boundaries do not increase")


def _attribute(registry: Registry) -> Iterator[Finding]:
    for name, metric in registry.metrics.items():
        for reference in metric.attributes:
            attribute = reference.attribute
            if not attribute.on_metrics:
                message = f"{name} has {attribute.key}, which is not marked `on_metrics`: too many values for a metric"
                yield Finding(reference.place or metric.place, "metric/attribute", message)


def _statsd(registry: Registry) -> Iterator[Finding]:
    for name, metric in registry.metrics.items():
        for fault in _statsd_faults(metric):
            yield Finding(metric.at("annotations"), "metric/statsd", f"{name}: {fault}")


def _statsd_faults(metric: Metric) -> Iterator[str]:
    statsd = metric.statsd
    if statsd is None:
        return
    expected = _STATSD[metric.instrument]
    if statsd.type != expected:
        yield f"a {metric.instrument} is `{expected}` in StatsD, not `{statsd.type}`"
    if statsd.unit == "ms" and metric.unit != "s":
        yield f"only seconds become `ms` in StatsD, and this is in {metric.unit!r}"
    for tag, key in statsd.tags.items():
        if metric.reference(key) is None:
            yield f"the StatsD tag `{tag}` is {key}, which is not an attribute of the metric"


METRIC_RULES: Final = (_name, _counter, _singular, _boundaries, _attribute, _statsd)
