"""Diagnosis of everything that a pipeline's telemetry depends on in this environment.

Initializes the process like `opentelemetry-instrument`, and inspects the result. So environment variables and files are
not evaluated a second time, and OpenTelemetry's own warnings are reported.
"""

from __future__ import annotations

import contextlib
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
from ...signals.telemetry import SCOPE_NAME
from . import sampler
from .diagnostic import Diagnostic, logged
from .exports import SignalExport, check_export, signal_exports

_DISTRIBUTION: Final = "forge-otel"
_ENTRY_POINTS: Final = "opentelemetry_instrumentor"
_CONFIGURATORS: Final = "opentelemetry_configurator"
_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_EXPECTED_WARNINGS: Final = (
    "Attempting to instrument while already instrumented",
    "OTEL_CONFIG_FILE is set; ignoring configurator kwargs",
)
"""Warnings that OpenTelemetry logs for every declarative configuration file."""


def diagnose(*, sending: bool, storage: str | None = None) -> Iterator[Diagnostic]:
    """Yield all diagnostics; `sending` runs a small pipeline and sends its telemetry, `storage` is a database's URL.

    A process that `opentelemetry-instrument` has started is inspected as it is.
    """
    logged_problems: list[Diagnostic] = []
    instrumentor = ForgeInstrumentor()
    with logged("start", logged_problems):
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nothing is configured yet
            initialize()
        import_failure = _import_forge(instrumentor.config)
        exports = signal_exports()
        sdk = list(_sdk(exports))
    yield _versions()
    yield from (diagnostic for diagnostic in logged_problems if not diagnostic.message.startswith(_EXPECTED_WARNINGS))
    yield from _conflicting_distributions()
    instrumented = import_failure or _instrumented(instrumentor)
    yield instrumented
    if instrumentor.config is not None:
        yield _settings(instrumentor.config)
    yield from sdk
    yield from map(check_export, exports)
    if storage is not None and import_failure is None:
        yield _storage(storage)
    if sending and all(diagnostic.level != "error" for diagnostic in (instrumented, *sdk)):
        from .sending import send  # noqa: PLC0415 - needs `forge`, whose imports were checked above

        assert instrumentor.telemetry is not None
        yield from send(exports, instrumentor.telemetry)


def _versions() -> Diagnostic:
    parts = [f"forge-otel {__version__}", f"Python {python_version()}"]
    for name in ("opentelemetry-sdk", "opentelemetry-distro"):
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            parts.append(f"no {name}")
    with contextlib.suppress(Exception):  # a package of another name `forge`, reported below
        from forge.storage.migrations import VERSION  # noqa: PLC0415 - as above

        parts.append(f"storage schema {VERSION}")
    return Diagnostic("ok", "versions", ", ".join(parts))


def _storage(url: str) -> Diagnostic:
    """Report the version of a database's schema, which this changes nothing of."""
    from forge import SQLStorage  # noqa: PLC0415 - its imports were checked
    from forge.errors import ForgeError  # noqa: PLC0415
    from forge.storage.migrations import VERSION  # noqa: PLC0415

    try:
        stored = SQLStorage(url).schema_version()
    except ForgeError as error:
        return Diagnostic("error", "storage", str(error))
    if stored > VERSION:
        remedy = "install the release of forge-otel that wrote it, or use another database"
        return Diagnostic("error", "storage", f"schema version {stored}, newer than {VERSION}: {remedy}")
    if stored == 0:
        return Diagnostic("ok", "storage", f"no tables yet; the first run creates them, with schema version {VERSION}")
    if stored < VERSION:
        return Diagnostic("ok", "storage", f"schema version {stored}; the next run migrates it to {VERSION}")
    return Diagnostic("ok", "storage", f"schema version {stored}")


def _conflicting_distributions() -> Iterator[Diagnostic]:
    """Yield an error for other distributions with a package `forge`: the last one installed overwrites files."""
    for name in metadata.packages_distributions().get("forge", ()):
        if name != _DISTRIBUTION:
            remedy = f"pip uninstall {name}, then pip install --force-reinstall --no-deps {_DISTRIBUTION}"
            yield Diagnostic("error", "forge", f"{name} installs a package of the same name: {remedy}")


def _targets(config: ForgeConfig) -> Sequence[Target]:
    """Return the functions of Forge to instrument; other libraries are optional."""
    return [target for target in targets(config.components) if target.module.startswith("forge.")]


def _import_forge(config: ForgeConfig | None) -> Diagnostic | None:
    """Import all instrumented modules; return an error for the first that cannot be imported."""
    for module in sorted({target.module for target in _targets(config or ForgeConfig())}):
        try:
            import_module(module)
        except Exception as fault:  # noqa: BLE001 - reported
            return Diagnostic("error", "forge", f"importing {module} failed: {type(fault).__name__}: {fault}")
    return None


def _instrumented(instrumentor: ForgeInstrumentor) -> Diagnostic:
    config = instrumentor.config
    if config is not None:
        wanted, patched = _targets(config), instrumentor.patched
        missing = sorted({target.module for target in wanted if target not in patched})
        if missing:
            return Diagnostic("error", "forge", f"not instrumented, because of its version: {', '.join(missing)}")
        return Diagnostic("ok", "forge", f"all {len(wanted)} functions are instrumented")
    disabled = [name.strip() for name in os.environ.get(_DISABLED, "").split(",")]
    if "forge" in disabled or "*" in disabled:
        return Diagnostic(
            "error", "forge", f"not instrumented: {_DISABLED} has {'forge' if 'forge' in disabled else '*'}"
        )
    if not metadata.entry_points(group=_ENTRY_POINTS, name="forge"):
        why = f"no entry point: {_DISTRIBUTION} is on the path, but not installed; pip install 'forge-otel[auto]'"
        return Diagnostic("error", "forge", f"not instrumented: {why}")
    return Diagnostic("error", "forge", "not instrumented: OpenTelemetry did not load our instrumentor")


def _settings(config: ForgeConfig) -> Diagnostic:
    defaults = ForgeConfig()
    changed = [
        f"{field.name}={sorted(value) if isinstance(value, frozenset) else value!r}"
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != getattr(defaults, field.name)
    ]
    return Diagnostic("ok", "settings", ", ".join(changed) or "the defaults")


def _sdk(exports: Sequence[SignalExport]) -> Iterator[Diagnostic]:
    """Yield diagnostics of the SDK: its configuration, its sampler, and the fast paths into it."""
    if not any(signal.configured for signal in exports):
        remedy = "`pip install 'forge-otel[auto]'` brings opentelemetry-distro, which does that from variables"
        known = metadata.entry_points(group=_CONFIGURATORS)
        yield Diagnostic("error", "sdk", "none is configured" if known else f"nothing configures one: {remedy}")
    elif os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield Diagnostic("error", "sdk", "OTEL_SDK_DISABLED=true: nothing is recorded")
    elif (current := getattr(trace.get_tracer_provider(), "sampler", None)) is not None:
        sampling = sampler.check_sampler(current)
        yield sampling
        yield from _fast_paths(sampled_with_parent=sampling.level == "ok")


def _fast_paths(*, sampled_with_parent: bool) -> Iterator[Diagnostic]:
    """Yield the SDK fast paths that are not used; a sampler without fast path has its own warning."""
    if switched_off():
        yield Diagnostic("ok", "speed", f"{SWITCH}=off: only the SDK's public API is used")
        return
    why_not = spans.LightSpans(trace.get_tracer(SCOPE_NAME)).why_not
    if sampled_with_parent and why_not is not None:
        yield Diagnostic("ok", "speed", f"the SDK starts the spans, which takes longer: {why_not}")
    fast_paths = {"durations": histograms.works(), "events": log_records.whole()}
    unsupported = [signal for signal, known in fast_paths.items() if not known]
    if unsupported:
        message = f"no fast path for {' and '.join(unsupported)}: this SDK is not supported, so its public API is used"
        yield Diagnostic("ok", "speed", message)
