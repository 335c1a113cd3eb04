"""StatsD's lines and packets."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from ._histograms import Distribution, Weighted, merged
from ._points import StatsDPoints, StatsDSeries
from ._settings import StatsDSettings

_UNSAFE: Final = re.compile(r"[^\w./-]+")
"""All but letters, digits and what names are made of: anything else may end a name, a tag or a line in some daemon."""

_MAX_NAME: Final = 200
"""Bytes of a name, a tag or a tag's value, which DogStatsD limits too; what is longer is cut."""

_INSTANCE: Final = "instance"
"""The tag that keeps the gauges of several processes apart."""

_MAX_VALUES: Final = 200_000
"""Lines for all histograms of a request together: one of 4 MiB could ask for a hundred times as many."""

T = TypeVar("T")


class StatsDKey(NamedTuple):
    """Where a value goes: what stands before it on the line, and what after it."""

    name: str
    tags: str


class Encoded(NamedTuple):
    """Packets, and how many points, or lines of them, are not in there, by the reason."""

    packets: list[bytes]
    refused: Counter[str]


class Encoder:
    """Turns an OTLP request into packets of StatsD's lines. It keeps nothing from one request to the next."""

    def __init__(self, settings: StatsDSettings) -> None:
        self._settings = settings

    def encode(self, request: ExportMetricsServiceRequest) -> Encoded:
        """The packets for all points that StatsD has a form for."""
        points = StatsDPoints.of(request)
        refused = points.refused
        return Encoded(list(self._packets(self._lines(points, refused), refused)), refused)

    def _packets(self, lines: Iterable[str], refused: Counter[str]) -> Iterator[bytes]:
        """As many lines as fit, with newlines between them."""
        packet = bytearray()
        for line in lines:
            data = line.encode()
            if len(data) > self._settings.packet_size:
                refused[f"{line.partition(':')[0]}: its line is longer than a packet; it has too many tags"] += 1
                continue
            if packet and len(packet) + 1 + len(data) > self._settings.packet_size:
                yield bytes(packet)
                packet.clear()
            packet += b"\n" + data if packet else data
        if packet:
            yield bytes(packet)

    def _lines(self, points: StatsDPoints, refused: Counter[str]) -> Iterator[str]:
        """One line for each value, or several that must stay together."""
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
        """Several series may share a key: without their tags, or when unsafe characters are gone."""
        by_key: defaultdict[StatsDKey, list[T]] = defaultdict(list)
        for series, value in values:
            by_key[self._key(series, gauges=gauges)].append(value)
        return ((key, each[0] if len(each) == 1 else combine(each)) for key, each in by_key.items())

    def _key(self, series: StatsDSeries, *, gauges: bool) -> StatsDKey:
        name = _safe(series.name)
        match self._settings.tag_placement:
            case "drop":
                return StatsDKey(name, "")
            case "name":
                return StatsDKey(".".join([name, *(_safe(value).replace(".", "_") for _, value in series.tags)]), "")
            case "tags":
                tags = [f"{_safe(tag)}:{_safe(value)}" for tag, value in series.tags]
                if gauges and self._settings.instance_tag and series.process:
                    tags.append(f"{_INSTANCE}:{_safe(series.process)}")
                return StatsDKey(name, f"|#{','.join(tags)}" if tags else "")


def _gauge(key: StatsDKey, value: float) -> str:
    line = _line(key, value, "g")
    # A sign makes it a change of the gauge, so the gauge has to be 0 before.
    return f"{_line(key, 0, 'g')}\n{line}" if value < 0 else line


def _line(key: StatsDKey, value: float, kind: str, weight: int = 1) -> str:
    return f"{key.name}:{_decimal(value)}|{kind}{_rate(weight)}{key.tags}"


def _safe(text: str) -> str:
    safe = _UNSAFE.sub("_", text[:_MAX_NAME])
    return safe.encode()[:_MAX_NAME].decode(errors="ignore") or "_"


def _rate(weight: int) -> str:
    """The rate at which a value stands for so many. A daemon that cuts off the fraction must not find one too few."""
    if weight == 1:
        return ""
    rate = 1 / weight
    while 1 / rate < weight:
        rate = math.nextafter(rate, 0)
    return f"|@{_decimal(rate)}"


def _decimal(value: float) -> str:
    """A number without an exponent, which not every daemon reads. What is too large is cut."""
    text = repr(min(max(value, -sys.float_info.max), sys.float_info.max))
    return (format(Decimal(text), "f") if "e" in text else text).removesuffix(".0")
