"""Private state of providers, readers, processors and exporters; callers do without what is not found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Any, Final

from opentelemetry.metrics import MeterProvider

from . import is_sdk

_PROCESSORS: Final = (
    ("_active_span_processor", "_span_processors"),
    ("_multi_log_record_processor", "_log_record_processors"),
)
_QUEUES: Final = (("_batch_processor", "_queue"),)
_SHUT_DOWN: Final = (("_batch_processor", "_shutdown"), ("_shutdown",))
_EXIT_HANDLERS: Final = (("_atexit_handler",), ("_at_exit_handler",))
_DESTINATIONS: Final = (("_endpoint",), ("path",))
_RESOURCES: Final = (("resource",), ("_sdk_config", "resource"))
_EXPORTERS: Final = (("span_exporter",), ("_exporter",), ("_batch_processor", "_exporter"))


def real(provider: MeterProvider) -> MeterProvider:
    """The provider itself. Until there is a global one, OpenTelemetry has another stand in for it, whose instruments
    become the real one's.
    """
    behind: MeterProvider | None = getattr(provider, "_real_meter_provider", None)
    return provider if behind is None else behind


def readers_of(provider: Any) -> Sequence[Any] | None:
    """The readers of a meter provider; None where they are not found."""
    configuration = getattr(provider, "_sdk_config", None)  # until SDK 1.44
    readers: Sequence[Any] | None = getattr(provider, "_metric_readers", getattr(configuration, "metric_readers", None))
    return readers


def processors_of(provider: Any) -> Sequence[Any] | None:
    """The processors of a provider of tracers or loggers; None where they are not found."""
    return _first(provider, _PROCESSORS)


def resource_of(provider: Any) -> Any | None:
    """Return the resource of a provider; None if it is not found."""
    return _first(provider, _RESOURCES)


def exporter_of(processor: Any) -> Any | None:
    """Return the exporter of a processor or a reader; None if it is not found, or if there is none."""
    return _first(processor, _EXPORTERS)


def endpoint_of(exporter: Any) -> str | None:
    """Where an exporter of OTLP sends, or the file it writes; None where neither is found."""
    endpoint = _first(exporter, _DESTINATIONS)
    return str(endpoint) if isinstance(endpoint, str | PurePath) else None


def problem_of(exporter: Any) -> str:
    """Return what an exporter of ours says about its last export; an empty text for others."""
    problem = getattr(exporter, "problem", None)
    return problem if isinstance(problem, str) else ""


def queue_of(processor: Any) -> Collection[Any] | None:
    """Return the queue of a processor, with its `maxlen` if it is bounded; None if it is not found."""
    if is_sdk(type(processor)) and type(processor).__name__.startswith("Simple"):
        return ()
    queue: Collection[Any] | None = _first(processor, _QUEUES)
    return queue


def is_periodic(reader: Any) -> bool:
    """Return True if a reader exports periodically, and is not scraped."""
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415 - only where it is used

    return isinstance(reader, PeriodicExportingMetricReader)


def shuts_down_at_exit(provider: Any) -> bool:
    """Return True if the SDK shuts the provider down when the process exits, and has not done so."""
    return _first(provider, _EXIT_HANDLERS) is not None


def flushes_at_shutdown(sender: Any) -> bool:
    """Return True if a processor or reader exports everything when it is shut down."""
    # A periodic reader does so on its thread, which it lacks if its interval is infinite.
    return queue_of(sender) is not None or getattr(sender, "_daemon_thread", None) is not None


def is_shut_down(sender: Any) -> bool:
    """Return True if a processor or reader is known to be shut down."""
    return _first(sender, _SHUT_DOWN) is True


def aborts_quickly(exporter: Any) -> bool:
    """Return True if the `shutdown` of an exporter is known to return at once, and ends repeated attempts."""
    return type(exporter).__module__.startswith("opentelemetry.exporter.otlp.")


def _first(start: Any, paths: Sequence[Sequence[str]]) -> Any | None:
    """Return the value at the first of the paths that leads to one; None if none does."""
    for path in paths:
        reached = start
        for name in path:
            reached = getattr(reached, name, None)
        if reached is not None:
            return reached
    return None
