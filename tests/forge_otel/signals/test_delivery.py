"""Flush and shutdown in bounded time, with exporters that are held up."""

from __future__ import annotations

import atexit
import functools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NoOpTracerProvider

from forge_otel.signals.delivery import Delivery
from tests.support.ports import free_port
from tests.support.sdk_versions import on_other_sdks, run_on

PATIENCE = 60.0
HOUR = 3600.0
"""A timeout that the tests would not survive."""
NO_METRICS = NoOpMeterProvider()


class Exporter(SpanExporter):
    """Exports while its gate is open."""

    def __init__(self, endpoint: str = "http://collector:4318/v1/traces") -> None:
        self._endpoint = endpoint
        self.gate = threading.Event()
        self.exporting = threading.Event()
        self.names: list[str] = []
        self.result = SpanExportResult.SUCCESS
        self.was_shut_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.exporting.set()
        assert self.gate.wait(PATIENCE)
        self.names += [span.name for span in spans]
        return self.result

    def shutdown(self) -> None:
        self.was_shut_down = True


@contextmanager
def delivering(*exporters: Exporter, shutdown_on_exit: bool = True, **options: Any) -> Iterator[tuple[Delivery, Any]]:
    """A delivery that has looked at a provider with these exporters, and the provider."""
    provider = TracerProvider(shutdown_on_exit=shutdown_on_exit)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter, **options))
    delivery = Delivery()
    delivery.prepare(provider, NO_METRICS, None)
    try:
        yield delivery, provider
    finally:
        for exporter in exporters:
            exporter.gate.set()
        delivery.close()
        provider.shutdown()


def span(provider: TracerProvider, name: str = "span") -> None:
    provider.get_tracer("test").start_span(name).end()


def texts(undelivered: Sequence[object]) -> list[str]:
    return [str(each) for each in undelivered]


def test_flush_does_not_wait_again_for_what_had_its_time() -> None:
    exporter = Exporter()
    with delivering(exporter) as (delivery, provider):
        span(provider)
        assert not delivery.flush(0.001)
        [outlet] = delivery._outlets
        outlet.busy_since -= HOUR
        assert not delivery.flush(HOUR)
        exporter.gate.set()
        outlet.wait(time.monotonic() + PATIENCE)
        span(provider, "another")
        assert delivery.flush(PATIENCE)
        assert exporter.names == ["span", "another"]
        assert delivery.shut_down(PATIENCE) == []


@pytest.mark.slow
def test_exit_does_not_wait_again_for_what_had_its_time() -> None:
    exporter = Exporter()
    with delivering(exporter) as (delivery, provider):
        span(provider)
        delivery.flush(0.001)
        delivery._outlets[0].busy_since -= HOUR
        assert texts(delivery.shut_down(HOUR)) == ["1 span to http://collector:4318/v1/traces"]


def test_flush_behind_one_that_goes_on_waits_for_both() -> None:
    exporter = Exporter()
    with delivering(exporter) as (delivery, provider):
        span(provider)
        delivery.flush(0.001)
        assert exporter.exporting.wait(PATIENCE)
        span(provider, "another")
        threading.Timer(0.01, exporter.gate.set).start()
        assert delivery.flush(PATIENCE)
        assert exporter.names == ["span", "another"]


@pytest.mark.slow
def test_processor_that_hangs_takes_nothing_from_the_others() -> None:
    hangs, other = Exporter("http://user:secret@hangs:4318"), Exporter()
    other.gate.set()
    with delivering(hangs, other) as (delivery, provider):
        span(provider)
        assert texts(delivery.shut_down(2.0)) == ["1 span to http://…@hangs:4318"]
        assert other.names == ["span"]
        assert not other.was_shut_down


def test_provider_with_several_processors_is_shut_down_when_all_are_flushed() -> None:
    one, other = Exporter(), Exporter()
    one.gate.set()
    with delivering(one, other) as (delivery, provider):
        span(provider)
        threading.Timer(0.01, other.gate.set).start()
        assert delivery.shut_down(PATIENCE) == []
        assert (one.names, other.names) == (["span"], ["span"])
        assert one.was_shut_down
        assert other.was_shut_down


@pytest.mark.slow
def test_provider_that_hangs_does_not_hold_up_the_others() -> None:
    traces, metrics = Exporter(), Metrics()
    provider = MeterProvider([PeriodicExportingMetricReader(metrics, float("inf"))])
    provider.get_meter("test").create_counter("counter").add(1)
    with delivering(traces) as (delivery, tracer_provider):
        delivery.prepare(tracer_provider, provider, None)
        span(tracer_provider)
        assert texts(delivery.shut_down(2.0)) == ["1 span to http://collector:4318/v1/traces"]
        assert metrics.exports == 1
        assert metrics.was_shut_down


@pytest.mark.slow
def test_what_fails_waits_and_is_exported_is_counted() -> None:
    exporter = Exporter()
    exporter.gate.set()
    exporter.result = SpanExportResult.FAILURE
    with delivering(exporter) as (delivery, provider):
        span(provider)
        assert delivery.flush(PATIENCE)
        exporter.gate.clear()
        exporter.exporting.clear()
        span(provider)
        delivery.flush(0.001)
        assert exporter.exporting.wait(PATIENCE)
        span(provider)
        assert texts(delivery.shut_down(0.001)) == ["3 spans to http://collector:4318/v1/traces"]


@pytest.mark.slow
def test_full_queue_has_dropped_more() -> None:
    exporter = Exporter()
    with delivering(exporter, max_queue_size=2, max_export_batch_size=1) as (delivery, provider):
        for _ in range(9):
            span(provider)
        [text] = texts(delivery.shut_down(0.001))
        assert text.startswith("at least ")


def test_queue_that_was_full_has_dropped_more() -> None:
    exporter = Exporter()
    exporter.result = SpanExportResult.FAILURE
    with delivering(exporter, max_queue_size=2, max_export_batch_size=1) as (delivery, provider):
        for _ in range(9):
            span(provider)
        exporter.gate.set()
        [text] = texts(delivery.shut_down(PATIENCE))
        assert text.startswith("at least ")


def test_otlp_exporter_that_repeats_its_attempts_is_aborted() -> None:
    # The environments with other SDKs have no exporters.
    otlp = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter", exc_type=ImportError)
    endpoint = f"http://127.0.0.1:{free_port()}/v1/traces"
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(otlp.OTLPSpanExporter(endpoint, timeout=HOUR)))
    delivery = Delivery()
    delivery.prepare(provider, NO_METRICS, None)
    span(provider)
    assert texts(delivery.shut_down(0.1)) == [f"1 span to {endpoint}"]
    [outlet] = delivery._outlets
    assert outlet.wait(time.monotonic() + PATIENCE / 3)  # it would give up by itself after 30 s
    delivery.close()
    provider.shutdown()


def test_exporter_that_raises() -> None:
    class Raises(Exporter):
        def export(self, _: Sequence[ReadableSpan]) -> SpanExportResult:
            raise ConnectionError

    with delivering(Raises()) as (delivery, provider):
        span(provider)
        assert texts(delivery.shut_down(PATIENCE)) == ["1 span to http://collector:4318/v1/traces"]


class Slotted:
    """An exporter without a place for a wrapper."""

    __slots__ = ("entered", "gate")

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()

    def export(self, _: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


class Own(SpanProcessor):
    """A processor that the SDK does not know."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return self.gate.wait(PATIENCE)


@pytest.mark.slow
def test_exporter_that_cannot_be_watched() -> None:
    exporter = Slotted()
    with delivering(exporter) as (delivery, provider):  # type: ignore[arg-type]
        span(provider)
        delivery.flush(0.001)
        assert exporter.entered.wait(PATIENCE)
        span(provider)
        [text] = texts(delivery.shut_down(0.001))
        assert text in ("at least 1 span to Slotted", "at least 2 spans to Slotted")


@pytest.mark.slow
def test_processor_of_an_unknown_kind() -> None:
    own = Own()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(own)
    delivery = Delivery()
    delivery.prepare(provider, NO_METRICS, None)
    assert texts(delivery.shut_down(0.001)) == ["some traces to Own"]
    own.gate.set()
    delivery.close()


def test_shutdown_flushes_and_shuts_down() -> None:
    exporter = Exporter()
    exporter.gate.set()
    with delivering(exporter) as (delivery, provider):
        span(provider)
        assert delivery.shut_down(PATIENCE) == []
        assert exporter.names == ["span"]
        assert exporter.was_shut_down
        assert delivery.shut_down(PATIENCE) == []


def test_provider_without_an_exit_handler_is_only_flushed() -> None:
    exporter = Exporter()
    exporter.gate.set()
    with delivering(exporter, shutdown_on_exit=False) as (delivery, provider):
        span(provider)
        assert delivery.shut_down(PATIENCE) == []
        assert exporter.names == ["span"]
        assert not exporter.was_shut_down


def exit_handlers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the functions that are registered from now on, and not unregistered."""
    registered: list[Any] = []

    def register(function: Any) -> Any:
        registered.append(function)
        return function

    def unregister(function: Any) -> None:
        if function in registered:
            registered.remove(function)

    monkeypatch.setattr(atexit, "register", register)
    monkeypatch.setattr(atexit, "unregister", unregister)
    return registered


def test_exit_handlers_of_the_sdk_are_taken_over_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = exit_handlers(monkeypatch)
    provider, logs = TracerProvider(), LoggerProvider()
    delivery = Delivery()
    assert registered == [provider.shutdown, logs.shutdown]
    delivery.prepare(provider, NO_METRICS, logs)
    delivery.prepare(provider, NO_METRICS, logs)
    assert registered == []
    logs.shutdown()
    delivery.close()
    assert registered == [provider.shutdown]
    provider.shutdown()
    assert registered == []


def test_exporter_gets_its_method_back() -> None:
    exporter, patched = Exporter(), Exporter()
    export = patched.export
    patched.export = export  # type: ignore[method-assign]  # somebody has wrapped it
    with delivering(exporter, patched) as (delivery, _):
        assert "export" in vars(exporter)
        assert vars(patched)["export"] is not export
        delivery.close()
        assert "export" not in vars(exporter)
        assert vars(patched)["export"] is export


def test_wrapper_of_somebody_else_stays() -> None:
    exporter = Exporter()
    with delivering(exporter) as (delivery, _):
        theirs = exporter.export
        wrapped = exporter.export = functools.partial(theirs)  # type: ignore[method-assign]
        delivery.close()
        assert vars(exporter)["export"] is wrapped


def test_providers_without_an_sdk() -> None:
    delivery = Delivery()
    delivery.prepare(NoOpTracerProvider(), NO_METRICS, object())
    assert delivery.flush(HOUR)
    assert delivery.shut_down(HOUR) == []


class Metrics(MetricExporter):
    def __init__(self, temporality: AggregationTemporality = AggregationTemporality.CUMULATIVE) -> None:
        super().__init__({Counter: temporality})
        self.exports = 0
        self.was_shut_down = False
        self.result = MetricExportResult.SUCCESS

    def export(self, *_: Any, **__: Any) -> MetricExportResult:
        self.exports += 1
        return self.result

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        self.was_shut_down = True


@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
def test_metrics_since_the_last_delivery(temporality: AggregationTemporality) -> None:
    exporter, scraped = Metrics(temporality), InMemoryMetricReader()
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, float("inf")), scraped], shutdown_on_exit=False)
    counter = provider.get_meter("test").create_counter("counter")
    counter.add(1)
    delivery = Delivery()
    delivery.prepare(None, provider, None)
    assert delivery.flush(PATIENCE)
    assert exporter.exports == 1
    assert scraped._metrics_data is None  # it is not flushed
    [outlet] = delivery._outlets
    assert outlet.watch.undelivered(flushed=True) is None
    exporter.result = MetricExportResult.FAILURE
    counter.add(1)
    assert delivery.flush(PATIENCE)
    lost = outlet.watch.undelivered(flushed=True)
    assert lost is not None
    assert lost.since is not None
    assert str(lost).startswith("the metrics since ")
    assert str(lost).endswith(" to Metrics")
    exporter.result = MetricExportResult.SUCCESS
    counter.add(1)
    assert delivery.flush(PATIENCE)
    # The next export of a sum says all, that of a difference does not.
    again = outlet.watch.undelivered(flushed=True)
    assert again == (None if temporality is AggregationTemporality.CUMULATIVE else lost)
    delivery.close()
    provider.shutdown()


@pytest.mark.slow
@on_other_sdks
def test_all_of_this_on_other_sdks(sdk: str) -> None:
    run_on(sdk, __file__)
