"""A metric reader for StatsD, `OTEL_METRICS_EXPORTER=otlp,statsd`, and the exporter of configuration files."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from ._encoding import encode_all_metrics
from ._lines import Encoder
from ._settings import StatsDSettings
from ._sockets import Sender

__all__ = ["StatsDMetricExporter", "StatsDMetricReader", "StatsDSettings"]

_logger: Final = logging.getLogger("forge_otel")


class StatsDMetricReader(PeriodicExportingMetricReader):
    """Sends metrics to StatsD every `interval` seconds, by default 10.

    Settings that are given neither as `settings` nor by keyword are read from the environment variables. Invalid ones
    are logged, and the default is used: an exception would stop all telemetry of the process.

    Raises:
        TypeError: there is no such setting.
        ValueError: a setting has a value that is not allowed.
    """

    def __init__(self, settings: StatsDSettings | None = None, **fields: Any) -> None:
        if settings is None:
            settings, invalid = StatsDSettings.from_environment()
            _warn(invalid)
        settings = dataclasses.replace(settings, **fields)
        exporter = StatsDMetricExporter(settings)
        self._sender = exporter.sender
        milliseconds = settings.interval * 1000
        super().__init__(exporter, milliseconds, milliseconds)

    @property
    def packets_sent(self) -> int:
        """Number of packets handed to the operating system. UDP may lose some of them."""
        return self._sender.sent

    @property
    def packets_lost(self) -> int:
        """Number of packets known to be lost."""
        return self._sender.lost

    @property
    def _preferred_aggregation(self) -> NoReturn:  # what another reader asks of its exporter
        raise TypeError("statsd is a metric reader; in a configuration file, the exporter is forge_statsd")


def _warn(invalid: Iterable[str]) -> None:
    for line in invalid:
        _logger.warning("%s; it is ignored", line)


class StatsDMetricExporter(MetricExporter):
    """The exporter `forge_statsd` of a declarative configuration file, whose reader exports periodically.

    Its entries are the keywords of `StatsDMetricReader`, except `interval`. Environment variables set the others.
    Invalid ones are logged and left out: an exception would stop all telemetry of the process. With `settings`, neither
    entries nor variables are read.
    """

    def __init__(self, settings: StatsDSettings | None = None, /, **entries: Any) -> None:
        delta = AggregationTemporality.DELTA
        super().__init__(preferred_temporality={Counter: delta, ObservableCounter: delta, Histogram: delta})
        if settings is None:
            settings, invalid = StatsDSettings.from_entries(entries)
            _warn(invalid)
        self.sender = Sender(settings)
        self._encoder = Encoder(settings)
        self._endpoint = settings.address  # where messages about deliveries look for it
        self._logged: set[str] = set()
        self._process = os.getpid()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:  # noqa: ARG002
        if self._process != os.getpid():
            # After a fork, the first export contains values that the parent sends as well.
            self._process = os.getpid()
            return MetricExportResult.SUCCESS
        packets, refused = self._encoder.encode(encode_all_metrics(metrics_data))
        for reason in refused.keys() - self._logged:
            self._logged.add(reason)
            _logger.warning("not sent to StatsD: %s", reason)
        sent = self.sender.send(packets)
        return MetricExportResult.SUCCESS if sent == len(packets) else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:  # noqa: ARG002 - the SDK's signature
        return True  # nothing is buffered

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:  # noqa: ARG002 - the SDK's signature
        self.sender.close()
