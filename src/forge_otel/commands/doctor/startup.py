"""The inspected state: the environment, and the process after it was started like one under OpenTelemetry."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.instrumentation.auto_instrumentation import initialize
from opentelemetry.sdk.environment_variables import OTEL_CONFIG_FILE

from ...config.config import ForgeConfig
from ...instrumentor import ForgeInstrumentor
from ...instrumentors import targets
from ...patching.patches import Target
from ...signals.sdk.providers import resource_of
from .diagnostic import LogMessage, logged
from .exports import SignalExport, signal_exports

PROXY: Final = trace.ProxyTracerProvider


@dataclass
class Setup:
    """A process with its telemetry."""

    environ: Mapping[str, str]
    """The environment variables before the start, which adds to them."""
    instrumentor: ForgeInstrumentor
    exports: Sequence[SignalExport] = ()
    messages: list[LogMessage] = field(default_factory=list)
    """Warnings and errors that were logged at the start."""
    explained: set[str] = field(default_factory=set)
    """Names and paths that checks have reported, so that messages about them are not needed."""
    import_failure: str = ""
    """Why a module of Forge cannot be imported."""

    @classmethod
    def start(cls) -> Setup:
        """Configure the process like `opentelemetry-instrument`, unless it has already done so."""
        setup = cls(dict(os.environ), ForgeInstrumentor())
        with logged(setup.messages):
            if isinstance(trace.get_tracer_provider(), PROXY):  # nothing is configured yet
                initialize()
            setup.import_failure = _import_forge(setup.targets)
            setup.exports = signal_exports()
        return setup

    @property
    def config(self) -> ForgeConfig | None:
        """The settings in effect; None if nothing is instrumented."""
        return self.instrumentor.config

    @property
    def targets(self) -> Sequence[Target]:
        """The functions of Forge to instrument; other libraries are optional."""
        components = (self.config or ForgeConfig()).components
        return [target for target in targets(components) if target.module.startswith("forge.")]

    @property
    def resource(self) -> Mapping[str, Any]:
        """The attributes of the resource of all signals; empty if there is none."""
        for export in self.exports:
            if export.by_sdk and (resource := resource_of(export.provider)) is not None:
                return dict(resource.attributes)
        return {}

    @property
    def file(self) -> Path | None:
        """The declarative configuration file."""
        name = self.environ.get(OTEL_CONFIG_FILE, "").strip()
        return Path(name) if name else None

    @cached_property
    def file_text(self) -> str:
        """The text of the file; empty if there is none, or it cannot be read."""
        try:
            return self.file.read_text(encoding="utf-8") if self.file else ""
        except (OSError, UnicodeDecodeError):
            return ""

    @cached_property
    def file_content(self) -> Mapping[str, Any]:
        """The content of the file; empty if it cannot be read, which OpenTelemetry reports."""
        try:
            import yaml  # noqa: PLC0415 - an extra, which the file needs as well

            content = yaml.safe_load(self.file_text)
        except Exception:  # noqa: BLE001 - reported by OpenTelemetry
            return {}
        return content if isinstance(content, dict) else {}


def _import_forge(wanted: Sequence[Target]) -> str:
    """Import all instrumented modules; return what went wrong with the first that cannot be imported."""
    for module in sorted({target.module for target in wanted}):
        try:
            import_module(module)
        except Exception as fault:  # noqa: BLE001 - reported
            return f"importing {module} failed: {type(fault).__name__}: {fault}"
    return ""
