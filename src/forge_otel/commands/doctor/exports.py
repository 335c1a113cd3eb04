"""Where spans, metrics and log records go: the global providers, and what they send by."""

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
    """One of the three."""

    name: str
    """As in `OTEL_…_EXPORTER`."""
    records: str
    provider: Any
    """The global one, as it is now."""

    @property
    def configured(self) -> bool:
        """Whether the provider is not the one that does nothing."""
        return self.by_sdk or not type(self.provider).__module__.startswith("opentelemetry.")

    @property
    def by_sdk(self) -> bool:
        """Whether the provider is the SDK's."""
        return is_sdk(type(self.provider))

    @property
    def sent_by(self) -> Sequence[Any] | None:
        """The processors or readers of the SDK's provider; None where they are not found."""
        return readers_of(self.provider) if self.name == "metrics" else processors_of(self.provider)


def signal_exports() -> Sequence[SignalExport]:
    """All three, with their providers."""
    return (
        SignalExport("traces", "spans", trace.get_tracer_provider()),
        SignalExport("metrics", "metrics", metrics.get_meter_provider()),
        SignalExport("logs", "events", _logs.get_logger_provider()),
    )


def check_export(export: SignalExport) -> Diagnostic:
    """Where the signal goes.

    The SDK does not say publicly what a provider sends by: where this does not find it, that is said.
    """
    if not export.configured:
        return Diagnostic("warning", export.name, f"no SDK is configured for it, so there are no {export.records}")
    if not export.by_sdk:
        kind = type(export.provider)
        return Diagnostic("ok", export.name, f"the provider is {kind.__module__}.{kind.__qualname__}")
    sent_by = export.sent_by
    if sent_by is None:
        return Diagnostic("ok", export.name, "an SDK is configured; what it sends by cannot be seen")
    if not sent_by:
        remedy = f"set OTEL_{export.name.upper()}_EXPORTER"
        return Diagnostic("warning", export.name, f"no exporter, so {export.records} go nowhere: {remedy}")
    return Diagnostic("ok", export.name, ", ".join(map(_described, sent_by)))


def _described(processor: Any) -> str:
    """A processor or a reader by its exporter, where it has one."""
    sender = exporter_of(processor) or processor
    name, endpoint = type(sender).__qualname__, endpoint_of(sender)
    if endpoint is None:
        return name
    return f"{name} to {re.sub('//[^/@]*@', '//…@', endpoint)}"  # what is before an @ may be a password
