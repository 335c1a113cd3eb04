"""Looking at everything that a pipeline's telemetry depends on in this environment.

What `opentelemetry-instrument` does at the start of a process is done here as well, and then looked at. So nothing is
computed a second time from variables and files, and whatever OpenTelemetry complains about is heard.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from platform import python_version
from typing import Final

from opentelemetry import trace
from opentelemetry.instrumentation.auto_instrumentation import initialize

from ..._version import __version__
from ...config.config import SWITCH, ForgeConfig
from ...instrumentor import ForgeInstrumentor
from ...instrumentors import targets
from ...patching.patches import Target
from ...signals.sdk import histograms, log_records, spans, switched_off
from . import sampler
from .finding import Finding, logged
from .signals import Signal, examine, signals

_DISTRIBUTION: Final = "forge-otel"
_ENTRY_POINTS: Final = "opentelemetry_instrumentor"
_CONFIGURATORS: Final = "opentelemetry_configurator"
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_NOISE: Final = (
    "Attempting to instrument while already instrumented",
    "OTEL_CONFIG_FILE is set; ignoring configurator kwargs",
)
"""What OpenTelemetry itself logs whenever there is a declarative configuration file."""


def diagnose(*, sending: bool) -> Iterator[Finding]:
    """Everything that there is to say; `sending` runs a small pipeline and sends its telemetry.

    A process that `opentelemetry-instrument` has started is looked at as it is.
    """
    heard: list[Finding] = []
    instrumentor = ForgeInstrumentor()
    with logged("start", heard):
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nobody has configured anything
            initialize()
        broken = _import_forge(instrumentor.config)
        there = signals()
        sdk = list(_sdk(there))
    yield _versions()
    yield from (finding for finding in heard if not finding.message.startswith(_NOISE))
    yield from _strangers()
    instrumented = broken or _instrumented(instrumentor)
    yield instrumented
    if instrumentor.config is not None:
        yield _settings(instrumentor.config)
    yield from sdk
    yield from map(examine, there)
    if sending and all(finding.level != "error" for finding in (instrumented, *sdk)):
        from .sending import send  # noqa: PLC0415 - it needs `forge`, which has been found whole

        yield from send(there)


def _versions() -> Finding:
    parts = [f"forge-otel {__version__}", f"Python {python_version()}"]
    for name in ("opentelemetry-sdk", "opentelemetry-distro"):
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            parts.append(f"no {name}")
    return Finding("ok", "versions", ", ".join(parts))


def _strangers() -> Iterator[Finding]:
    """Another distribution that brings a package `forge` has written over ours, or the other way round."""
    for name in metadata.packages_distributions().get("forge", ()):
        if name != _DISTRIBUTION:
            remedy = f"pip uninstall {name}, then pip install --force-reinstall --no-deps {_DISTRIBUTION}"
            yield Finding("error", "forge", f"{name} installs a package of the same name: {remedy}")


def _targets(config: ForgeConfig) -> Sequence[Target]:
    """The functions of Forge that are to be instrumented; other libraries need not be there."""
    return [target for target in targets(config.components) if target.module.startswith("forge.")]


def _import_forge(config: ForgeConfig | None) -> Finding | None:
    """Import everything that is instrumented, until something cannot be imported."""
    for module in sorted({target.module for target in _targets(config or ForgeConfig())}):
        try:
            import_module(module)
        except Exception as fault:  # noqa: BLE001 - that is what is looked for
            return Finding("error", "forge", f"importing {module} failed: {type(fault).__name__}: {fault}")
    return None


def _instrumented(instrumentor: ForgeInstrumentor) -> Finding:
    config = instrumentor.config
    if config is not None:
        wanted, patched = _targets(config), instrumentor.patched
        lacking = sorted({target.module for target in wanted if target not in patched})
        if lacking:
            return Finding("error", "forge", f"not instrumented, since it is another version: {', '.join(lacking)}")
        return Finding("ok", "forge", f"all {len(wanted)} functions are instrumented")
    disabled = [name.strip() for name in os.environ.get(_DISABLED, "").split(",")]
    if "forge" in disabled or "*" in disabled:
        return Finding("error", "forge", f"not instrumented: {_DISABLED} has {'forge' if 'forge' in disabled else '*'}")
    if not metadata.entry_points(group=_ENTRY_POINTS, name="forge"):
        why = f"no entry point: {_DISTRIBUTION} is on the path, but not installed; pip install 'forge-otel[auto]'"
        return Finding("error", "forge", f"not instrumented: {why}")
    return Finding("error", "forge", "not instrumented: OpenTelemetry did not load our instrumentor")


def _settings(config: ForgeConfig) -> Finding:
    usual = ForgeConfig()
    changed = [
        f"{field.name}={sorted(value) if isinstance(value, frozenset) else value!r}"
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != getattr(usual, field.name)
    ]
    return Finding("ok", "settings", ", ".join(changed) or "the defaults")


def _sdk(there: Sequence[Signal]) -> Iterator[Finding]:
    """What the SDK does with spans, and how fast, where it does anything."""
    if not any(signal.configured for signal in there):
        remedy = "`pip install 'forge-otel[auto]'` brings opentelemetry-distro, which does that from variables"
        known = metadata.entry_points(group=_CONFIGURATORS)
        yield Finding("error", "sdk", "none is configured" if known else f"nothing configures one: {remedy}")
    elif os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield Finding("error", "sdk", "OTEL_SDK_DISABLED=true: nothing is recorded")
    elif (asked := getattr(trace.get_tracer_provider(), "sampler", None)) is not None:
        yield sampler.examine(asked)
        yield from _short_ways()


def _short_ways() -> Iterator[Finding]:
    """Where this SDK is used in public only, which takes longer."""
    if switched_off():
        yield Finding("ok", "speed", f"{SWITCH}=off: only what the SDK has in public is used")
        return
    ways = {"durations": histograms.works(), "spans": spans.light_spans(), "events": log_records.whole()}
    unknown = [what for what, known in ways.items() if not known]
    if unknown:
        said = f"only what this SDK has in public is used for {' and '.join(unknown)}: it is not one that we know"
        yield Finding("ok", "speed", said)
