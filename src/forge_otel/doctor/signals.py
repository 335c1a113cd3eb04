"""Where spans, metrics and log records go: the global providers, and what they send by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry import _logs, metrics, trace

from ..sdk_internals import is_sdk
from ..sdk_internals.providers import endpoint_of, exporter_of, processors_of, readers_of
from .finding import Finding


@dataclass(frozen=True, slots=True)
class Signal:
    """One of the three."""

    name: str
    """As in `OTEL_…_EXPORTER`."""
    records: str
    provider: Any
    """The global one, as it is now."""

    @property
    def goes_somewhere(self) -> bool:
        """Whether the provider is the SDK's or somebody else's, and not the one that does nothing."""
        return is_sdk(type(self.provider)) or not type(self.provider).__module__.startswith("opentelemetry.")


def signals() -> Sequence[Signal]:
    """All three, with their providers."""
    return (
        Signal("traces", "spans", trace.get_tracer_provider()),
        Signal("metrics", "metrics", metrics.get_meter_provider()),
        Signal("logs", "events", _logs.get_logger_provider()),
    )


def examine(signal: Signal) -> Finding:
    """Where the signal goes.

    The SDK does not say publicly what a provider sends by: where this does not find it, that is said.
    """
    provider, kind = signal.provider, type(signal.provider)
    if not signal.goes_somewhere:
        return Finding("warning", signal.name, f"no SDK is configured for it, so there are no {signal.records}")
    if not is_sdk(kind):
        return Finding("ok", signal.name, f"the provider is {kind.__module__}.{kind.__qualname__}")
    behind = readers_of(provider) if signal.name == "metrics" else processors_of(provider)
    if behind is None:
        return Finding("ok", signal.name, "an SDK is configured; what it sends by cannot be seen")
    if not behind:
        return Finding(
            "warning",
            signal.name,
            f"no exporter, so {signal.records} go nowhere: set OTEL_{signal.name.upper()}_EXPORTER",
        )
    return Finding("ok", signal.name, ", ".join(map(_described, behind)))


def _described(processor: Any) -> str:
    """A processor or a reader by its exporter, where it has one."""
    sender = exporter_of(processor) or processor
    name, endpoint = type(sender).__qualname__, endpoint_of(sender)
    if endpoint is None:
        return name
    return f"{name} to {re.sub('//[^/@]*@', '//…@', endpoint)}"  # what is before an @ may be a password
