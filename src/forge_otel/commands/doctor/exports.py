"""Destinations of spans, metrics and log records: the global providers with their processors and readers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry import _logs, metrics, trace

from ...signals.sdk import is_sdk
from ...signals.sdk.providers import endpoint_of, exporter_of, processors_of, readers_of
from .diagnostic import Diagnostic


@dataclass(frozen=True, slots=True)
class SignalExport:
    """The export of traces, metrics or logs."""

    name: str
    """The signal's name in `OTEL_…_EXPORTER`."""
    records: str
    provider: Any
    """The current global provider."""

    @property
    def configured(self) -> bool:
        """True unless the provider is the API's no-op."""
        return self.by_sdk or not type(self.provider).__module__.startswith("opentelemetry.")

    @property
    def by_sdk(self) -> bool:
        """True if the provider is the SDK's."""
        return is_sdk(type(self.provider))

    @property
    def sent_by(self) -> Sequence[Any] | None:
        """The processors or readers of the SDK's provider; None if they cannot be found."""
        return readers_of(self.provider) if self.name == "metrics" else processors_of(self.provider)


def signal_exports() -> Sequence[SignalExport]:
    """Return the exports of all signals."""
    return (
        SignalExport("traces", "spans", trace.get_tracer_provider()),
        SignalExport("metrics", "metrics", metrics.get_meter_provider()),
        SignalExport("logs", "events", _logs.get_logger_provider()),
    )


def check_export(export: SignalExport) -> Diagnostic:
    """Return the destination of a signal.

    The SDK has no public API for a provider's processors and readers, so they may be unknown.
    """
    if not export.configured:
        return Diagnostic("warning", export.name, f"no SDK is configured, so there are no {export.records}")
    if not export.by_sdk:
        kind = type(export.provider)
        return Diagnostic("ok", export.name, f"the provider is {kind.__module__}.{kind.__qualname__}")
    sent_by = export.sent_by
    if sent_by is None:
        return Diagnostic("ok", export.name, "an SDK is configured; its exporters cannot be determined")
    if not sent_by:
        remedy = f"set OTEL_{export.name.upper()}_EXPORTER"
        return Diagnostic("warning", export.name, f"no exporter, so {export.records} are dropped: {remedy}")
    return Diagnostic("ok", export.name, ", ".join(map(_described, sent_by)))


def _described(processor: Any) -> str:
    """Return the name and the endpoint of the exporter of a processor or reader, or its own name without one."""
    sender = exporter_of(processor) or processor
    name, endpoint = type(sender).__qualname__, endpoint_of(sender)
    if endpoint is None:
        return name
    return f"{name} to {re.sub('//[^/@]*@', '//…@', endpoint)}"  # what is before an @ may be a password
