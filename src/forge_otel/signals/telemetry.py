"""The tracer, meter, logger and instruments that one instrumentor writes to."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

from opentelemetry import _logs, metrics, trace

from .._version import __version__
from ..patching import faults
from ..semconv import SCHEMA_URL
from ..semconv import attributes as a
from ..semconv.metrics import FORGE_TELEMETRY_FAULTS
from ..support.exceptions import class_name
from .delivery import ABORT_GRACE, Delivery
from .metrics import Attributes, SeriesTable
from .observables import Observables
from .sdk import histograms, is_sdk, starts
from .sdk.log_records import Records
from .sdk.providers import is_periodic, readers_of
from .spans import Spans

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from ..config.config import ForgeConfig
    from ..semconv.definitions import Event, Metric
    from .sdk.exports import Undelivered

SCOPE_NAME: Final = "forge_otel"
"""The name of the tracer, the meter and the logger."""


class LiveRun(Protocol):
    """A run with its own buffers."""

    def close(self) -> None:
        """Write all buffered values, and stop buffering."""

    def forget(self) -> None:
        """Discard the parent's values in a forked process, and stop buffering."""


class Telemetry:
    """The output of one instrumentor. The providers belong to the user: they are used, never configured."""

    def __init__(
        self,
        config: ForgeConfig,
        *,
        identity: Callable[[], Attributes],
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        """Create the instruments. `identity` returns the attributes of the current run, or none outside of runs."""
        self.config = config
        self.exceptions_on_spans = config.exceptions != "logs"
        """True if exceptions are events of their spans."""
        self._identity = identity
        self.clock = time.perf_counter
        """Monotonic clock in seconds for calls outside of runs; runs have their own."""
        self.faults = 0
        """Number of suppressed faults."""
        self.runs: WeakSet[LiveRun] = WeakSet()
        """The active runs."""
        self.is_closed = False
        """True if nothing is written to it any more."""
        self._successor: Telemetry | None = None
        """The telemetry that has replaced this one."""
        self._earlier: set[Telemetry] = set()
        """Predecessors of this one, as long as they have runs."""
        self._closing = threading.Lock()
        self._logger_provider = logger_provider
        self._meter_provider = meter_provider
        self._tracer_provider = tracer_provider
        self._get_tracer()
        self._logger = _logs.get_logger(SCOPE_NAME, __version__, logger_provider, SCHEMA_URL)
        meter = metrics.get_meter(SCOPE_NAME, __version__, meter_provider, SCHEMA_URL)
        self.series = SeriesTable(meter)
        self.observables = Observables(config.components, self.series)
        self.observables.attach(meter_provider or metrics.get_meter_provider(), meter)
        self.delivery = Delivery()
        self._forget_faults = faults.on_fault(self._count_fault)
        self._inspect_providers()

    def emits(self, event: Event, error: BaseException | None = None) -> bool:
        """Return True if the configuration enables an event, which describes this exception, if any."""
        if error is not None and self.config.exceptions == "span_events":
            return False
        return self.config.events == "all" or (self.config.events == "default" and event.default)

    def write_initial_points(self, points: Iterable[tuple[Metric, Attributes]]) -> None:
        """Write the initial points of counter series, each once, and export them before the first increase.

        Waits for the export up to `zero_point_timeout` seconds.
        """
        if not self.config.zero_points:
            return
        # A list, because `any` over a generator would stop at the first new series.
        new = [self.series.get(metric, attributes).initialize() for metric, attributes in points]
        provider = self._meter_provider or metrics.get_meter_provider()
        if any(new) and _all_periodic(provider):
            self.delivery.flush(self.config.zero_point_timeout, "metrics")

    def prepare(self) -> None:
        """Prepare for a run: global providers may have been set since the last one."""
        if isinstance(self._tracer, trace.ProxyTracer):
            self._get_tracer()
        self._inspect_providers()
        with faults.protected("looking at the providers"):
            self.delivery.prepare(
                self._tracer_provider or trace.get_tracer_provider(),
                self._meter_provider or metrics.get_meter_provider(),
                self._logger_provider or _logs.get_logger_provider(),
            )

    def replace(self, earlier: Telemetry) -> None:
        """Take the place of an earlier telemetry: it is flushed, and closed when the last of its runs has ended."""
        self._earlier = {earlier, *earlier._earlier}
        for each in self._earlier:
            each._successor = self
        earlier._forget_faults()
        if not earlier.runs:
            earlier.prepare()  # it may have written without a run
        earlier.flush(self.config.shutdown_timeout)
        earlier._close_if_over()

    def run_ended(self, run: LiveRun | None, timeout: float, *, exiting: bool) -> None:
        """Flush the providers at the end of a run, in at most `timeout` seconds, and `shutdown_timeout`.

        At exit everything is delivered together, in a moment.
        """
        if run is not None:
            self.runs.discard(run)
        if not exiting:
            self.flush(timeout)
            self._close_if_over()

    def release(self, run: LiveRun) -> None:
        """Forget a run that has ended, without a flush of the providers."""
        self.runs.discard(run)
        self._close_if_over()

    def flush(self, timeout: float) -> None:
        """Flush the providers in at most `timeout` seconds, and `shutdown_timeout`."""
        self.delivery.flush(min(timeout, self.config.shutdown_timeout))

    def shut_down(self, timeout: float = math.inf) -> Sequence[Undelivered]:
        """Deliver everything, and shut down what the SDK would at exit; returns what was not delivered.

        Takes at most `shutdown_timeout` and a moment, or `timeout` in all if that is less.
        """
        return self.delivery.shut_down(max(0.0, min(self.config.shutdown_timeout, timeout - ABORT_GRACE)))

    def exit(self, timeout: float | None) -> None:
        """Shut down before the process ends, in `timeout` seconds if a signal ends it, and print what is lost."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        for telemetry in (*self._earlier, self):
            for missing in telemetry.shut_down(end - time.monotonic()):
                with contextlib.suppress(Exception):
                    print(f"forge-otel: not delivered: {missing}", file=sys.stderr, flush=True)  # noqa: T201

    def close(self) -> None:
        """Write all buffered values, and stop observing and counting faults. Does not flush the user's providers."""
        for earlier in tuple(self._earlier):
            earlier.close()
        with self._closing:
            if self.is_closed:
                return
            self.is_closed = True
        for run in tuple(self.runs):
            run.close()
        self.series.drain()
        self._forget_faults()
        self.observables.close()
        self.spans.restore()
        if self._successor is None:
            self.delivery.close()
        else:
            self._successor.delivery.inherit(self.delivery)
            self._successor._earlier.discard(self)

    def forget(self) -> None:
        """Discard the parent's values in a forked process, and stop observing. Takes no lock, since a parent's thread
        may have held it at the fork.
        """
        self.is_closed = True
        for earlier in self._earlier:
            earlier.forget()
        self._earlier.clear()
        self.series.forget()
        for run in tuple(self.runs):
            run.forget()
        self._forget_faults()
        self.observables.close()
        self.spans.restore()
        self.delivery.forget()

    def _close_if_over(self) -> None:
        """Close if another telemetry has replaced this one, and no run needs it any more."""
        if self._successor is not None and not self.runs:
            self.close()

    def _get_tracer(self) -> None:
        self._tracer = trace.get_tracer(SCOPE_NAME, __version__, self._tracer_provider, SCHEMA_URL)
        self.spans = Spans(self._tracer)

    def _inspect_providers(self) -> None:
        """Run the self-tests of the SDK fast paths now, and not while a stage waits for its first write."""
        provider = self._logger_provider or _logs.get_logger_provider()
        self.records = Records(self._logger, from_sdk=is_sdk(type(provider)))
        if is_sdk(type(self._meter_provider or metrics.get_meter_provider())):
            histograms.works()
            starts.works()

    def _count_fault(self, fault: BaseException, where: str) -> None:  # noqa: ARG002 - logged, not counted
        self.faults += 1
        attributes = {**self._identity(), a.ERROR_TYPE: class_name(type(fault))}
        self.series.get(FORGE_TELEMETRY_FAULTS, attributes).append(1)


def _all_periodic(provider: MeterProvider) -> bool:
    """Return True if all readers of a provider export periodically. Flushing a scraped reader would make its next
    scrape repeat data. Readers that cannot be found are not flushed.
    """
    readers = readers_of(provider)
    if not readers:
        return False
    return all(map(is_periodic, readers))
