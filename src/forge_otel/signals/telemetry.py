"""What everything is written to: the tracer, the meter, the logger, every instrument; and the state that is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

from opentelemetry import _logs, metrics, trace

from .._version import __version__
from ..patching import faults
from ..semconv import SCHEMA_URL
from ..semconv import attributes as a
from ..semconv.metrics import FORGE_TELEMETRY_FAULTS
from .exceptions import qualified_name
from .metrics import Attributes, SeriesTable
from .observables import Observables
from .sdk import histograms, is_sdk
from .sdk.log_records import Records
from .sdk.providers import readers_of
from .spans import Spans

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from ..config.config import ForgeConfig
    from ..semconv.definitions import Event, Metric

SCOPE_NAME: Final = "forge_otel"
"""The name of the tracer, the meter and the logger."""


class LiveRun(Protocol):
    """A run that buffers values of its own."""

    def close(self) -> None:
        """Write what waits, and buffer nothing any more."""

    def forget(self) -> None:
        """Buffer nothing any more, in a forked process, where what waits is the parent's."""


class Telemetry:
    """Where an instrumented process writes to. The providers are the user's: they are used, never configured."""

    def __init__(
        self,
        config: ForgeConfig,
        *,
        identity: Callable[[], Attributes],
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        """`identity` gives the attributes of the run that the current work belongs to; none outside of runs."""
        self.config = config
        self._identity = identity
        self.clock = time.perf_counter
        """Readings in seconds, outside of runs; a run brings its own clock."""
        self.faults = 0
        """How many faults of the telemetry were swallowed."""
        self.runs: WeakSet[LiveRun] = WeakSet()
        """Those that go on."""
        self._logger_provider = logger_provider
        self._meter_provider = meter_provider
        self._tracer_provider = tracer_provider
        self._get_tracer()
        self._logger = _logs.get_logger(SCOPE_NAME, __version__, logger_provider, SCHEMA_URL)
        meter = metrics.get_meter(SCOPE_NAME, __version__, meter_provider, SCHEMA_URL)
        self.series = SeriesTable(meter)
        self.observables = Observables(config.components, self.series)
        self.observables.attach(meter_provider or metrics.get_meter_provider(), meter)
        self._forget_faults = faults.on_fault(self._count_fault)
        self._inspect_providers()

    def emits(self, event: Event) -> bool:
        """Whether the configuration wants this event."""
        return self.config.events == "all" or (self.config.events == "default" and event.default)

    def write_initial_points(self, points: Iterable[tuple[Metric, Attributes]]) -> None:
        """Let counter series begin at zero, each once, and let that be exported before anything is added to them.

        Waits for the export, but no longer than the configuration allows.
        """
        if not self.config.zero_points:
            return
        # A list, because every series is to be written and `any` would stop at the first new one.
        new = [self.series.get(metric, attributes).initialize() for metric, attributes in points]
        provider = self._meter_provider or metrics.get_meter_provider()
        if any(new) and _all_periodic(provider):
            self._flush(provider)

    def prepare(self) -> None:
        """A run begins. Since the last one there may be global providers where there were none."""
        if isinstance(self._tracer, trace.ProxyTracer):
            self._get_tracer()
        self._inspect_providers()

    def close(self) -> None:
        """Write what waits, and stop observing and counting faults. Flushes nothing: the providers are the user's."""
        for run in tuple(self.runs):
            run.close()
        self.series.drain()
        self._forget_faults()
        self.observables.close()
        self.spans.restore()

    def forget(self) -> None:
        """The same in a forked process, where what waits is the parent's. Takes no lock: another thread may have held
        it when the process was forked.
        """
        self.series.forget()
        for run in tuple(self.runs):
            run.forget()
        self._forget_faults()
        self.observables.close()
        self.spans.restore()

    def _get_tracer(self) -> None:
        self._tracer = trace.get_tracer(SCOPE_NAME, __version__, self._tracer_provider, SCHEMA_URL)
        self.spans = Spans(self._tracer)

    def _inspect_providers(self) -> None:
        """Here, and not when a stage waits for its first values to be written, or for its first span to end."""
        provider = self._logger_provider or _logs.get_logger_provider()
        self.records = Records(self._logger, from_sdk=is_sdk(type(provider)))
        if is_sdk(type(self._meter_provider or metrics.get_meter_provider())):
            histograms.works()

    def _flush(self, provider: MeterProvider) -> None:
        # An exporter that hangs must not hang the run, and force_flush alone does not promise to come back in time.
        timeout = self.config.zero_point_timeout

        def flush() -> None:
            with faults.protected("the flush of the initial points"):
                provider.force_flush(timeout * 1000)  # type: ignore[attr-defined] # `_all_periodic` saw the SDK's

        thread = threading.Thread(target=flush, daemon=True, name="forge-otel-flush")
        thread.start()
        thread.join(timeout)

    def _count_fault(self, fault: BaseException, where: str) -> None:  # noqa: ARG002 - where it was is in the log
        self.faults += 1
        attributes = {**self._identity(), a.ERROR_TYPE: qualified_name(type(fault))}
        self.series.get(FORGE_TELEMETRY_FAULTS, attributes).append(1)


def _all_periodic(provider: MeterProvider) -> bool:
    """Whether all readers of a provider export by themselves; flushing one that is scraped would make its next scrape
    repeat what it has seen. Where they are not found, nothing is flushed.
    """
    readers = readers_of(provider)
    if not readers:
        return False
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415 - only where it is used

    return all(isinstance(reader, PeriodicExportingMetricReader) for reader in readers)
