"""Encoding metrics as StatsD lines and packets."""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from ._histograms import Distribution, Weighted, merged
from ._keys import Keys, StatsDKey
from ._points import StatsDPoints, StatsDSeries
from ._settings import StatsDSettings

_MAX_KEYS: Final = 10_000
"""Maximum number of series whose keys are remembered."""

_MAX_VALUES: Final = 200_000
"""Maximum number of lines for all histograms of a request; one of 4 MiB could need a hundred times as many."""

T = TypeVar("T")


class Encoded(NamedTuple):
    """Encoded packets, and the number of points or lines that were refused, by reason."""

    packets: list[bytes]
    refused: Counter[str]


class Encoder:
    """Encodes OTLP requests as packets of StatsD lines. Stateless between requests.

    With `forwarding`, the requests are those of other processes.
    """

    def __init__(self, settings: StatsDSettings, *, forwarding: bool = False) -> None:
        self._settings = settings
        self._key = lru_cache(_MAX_KEYS)(Keys(settings, forwarding=forwarding).key)

    def encode(self, request: ExportMetricsServiceRequest) -> Encoded:
        """Encode all points that StatsD supports."""
        points = StatsDPoints.of(request)
        refused = points.refused
        return Encoded(list(self._packets(self._lines(points, refused), refused)), refused)

    def _packets(self, lines: Iterable[str], refused: Counter[str]) -> Iterator[bytes]:
        """Yield packets with as many lines as fit, separated by newlines."""
        packet = bytearray()
        for line in lines:
            data = line.encode()
            if len(data) > self._settings.packet_size:
                refused[f"{line.partition(':')[0]}: too many tags: its line is longer than a packet"] += 1
                continue
            if packet and len(packet) + 1 + len(data) > self._settings.packet_size:
                yield bytes(packet)
                packet.clear()
            packet += b"\n" + data if packet else data
        if packet:
            yield bytes(packet)

    def _lines(self, points: StatsDPoints, refused: Counter[str]) -> Iterator[str]:
        """Yield one line for each value, or several lines that must be sent together."""
        for key, value in self._by_key(points.counters, sum):
            yield _line(key, value, "c")
        if self._settings.sends_gauges:
            for key, value in self._by_key(points.gauges, sum, gauges=True):
                yield _gauge(key, value)
        if self._settings.histograms == "summary":
            yield from self._summary(points.histograms)
            return
        distributions = list(self._by_key(points.histograms, merged))
        limit = min(self._settings.value_limit, _MAX_VALUES // max(len(distributions), 1))
        for key, distribution in distributions:
            yield from self._values(key, distribution.values(limit), refused)

    def _values(self, key: StatsDKey, values: Iterable[Weighted], refused: Counter[str]) -> Iterator[str]:
        plain = self._settings.flavor == "statsd"
        for value, weight in values:
            if plain and value < 0:
                refused[f"{key.name}: a timer cannot be negative"] += 1
            else:
                yield _line(key, value, "ms" if plain else "h", weight)

    def _summary(self, histograms: list[tuple[StatsDSeries, Distribution]]) -> Iterator[str]:
        for (name, tags), distribution in self._by_key(histograms, merged):
            yield _line(StatsDKey(f"{name}.count", tags), distribution.count, "c")
            if distribution.sum is not None:
                yield _line(StatsDKey(f"{name}.sum", tags), distribution.sum, "c")
        if self._settings.sends_gauges:
            for (name, tags), distribution in self._by_key(histograms, merged, gauges=True):
                if distribution.min is not None:
                    yield _gauge(StatsDKey(f"{name}.min", tags), distribution.min)
                if distribution.max is not None:
                    yield _gauge(StatsDKey(f"{name}.max", tags), distribution.max)

    def _by_key(
        self, values: Iterable[tuple[StatsDSeries, T]], combine: Callable[[Iterable[T]], T], *, gauges: bool = False
    ) -> Iterator[tuple[StatsDKey, T]]:
        """Combine series with the same key, as after the removal of tags or unsafe characters."""
        by_key: defaultdict[StatsDKey, list[T]] = defaultdict(list)
        for series, value in values:
            by_key[self._key(series, gauges)].append(value)
        return ((key, each[0] if len(each) == 1 else combine(each)) for key, each in by_key.items())


def _gauge(key: StatsDKey, value: float) -> str:
    line = _line(key, value, "g")
    # A sign means a change of the gauge, so the gauge is set to 0 before.
    return f"{_line(key, 0, 'g')}\n{line}" if value < 0 else line


def _line(key: StatsDKey, value: float, kind: str, weight: int = 1) -> str:
    return f"{key.name}:{_decimal(value)}|{kind}{_rate(weight)}{key.tags}"


def _rate(weight: int) -> str:
    """Return the sampling rate of a value that represents `weight` values, rounded such that a daemon that truncates
    1 / rate gets the weight.
    """
    if weight == 1:
        return ""
    rate = 1 / weight
    while 1 / rate < weight:
        rate = math.nextafter(rate, 0)
    return f"|@{_decimal(rate)}"


def _decimal(value: float) -> str:
    """Format a number without an exponent, which some daemons cannot read; infinities become the largest number."""
    text = repr(min(max(value, -sys.float_info.max), sys.float_info.max))
    return (format(Decimal(text), "f") if "e" in text else text).removesuffix(".0")
