"""Diagnosis of everything that a pipeline's telemetry depends on in this environment.

Initializes the process like `opentelemetry-instrument`, and inspects the result. So environment variables and files are
not evaluated a second time, and OpenTelemetry's own warnings are reported.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from typing import Final

from opentelemetry import propagate, trace
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED

from ...config.config import SWITCH, ForgeConfig
from ...signals.context import environment_context
from ...signals.sdk import histograms, is_sdk, log_records, spans, switched_off
from ...signals.telemetry import SCOPE_NAME
from . import problems
from .configuration_file import incomplete_file, unknown_entries
from .diagnostic import Diagnostic, LogMessage, logged
from .exports import check_export, exceptions_lost, scrape_address, unencrypted_by_accident, unwritable_files
from .packages import DISTRIBUTION, package_versions, packages_twice, same_package, versions
from .sampler import check_sampler
from .startup import Setup
from .variables import (
    DISABLED,
    missing_files,
    misspelled_variables,
    prices,
    raised_faults,
    unknown_components,
    unknown_names,
    unused_variables,
    wrong_units,
)

Check = Callable[[Setup], Iterable[Diagnostic]]

_EXPECTED_WARNING: Final = "OTEL_CONFIG_FILE is set; ignoring configurator kwargs"
"""A warning that OpenTelemetry logs for every declarative configuration file."""


def diagnose(*, sending: bool, storage: str | None = None) -> Iterator[Diagnostic]:
    """Yield all diagnostics; `sending` runs a small pipeline and sends its telemetry, `storage` is a database's URL.

    A process that `opentelemetry-instrument` has started is inspected as it is.
    """
    setup = Setup.start()
    failed = False
    for check in CHECKS:
        for diagnostic in _guarded(check, setup):
            failed = failed or (diagnostic.level == "error" and check in _BEFORE_SENDING)
            yield diagnostic
    if storage is not None and not setup.import_failure:
        yield from _guarded(lambda _: _storage(storage), setup)
    if sending and not failed and setup.instrumentor.telemetry is not None:
        yield from _guarded(_send, setup)


def _guarded(check: Check, setup: Setup) -> Iterator[Diagnostic]:
    """Yield what a check finds; a check that fails does not end the others."""
    try:
        yield from check(setup)
    except Exception as fault:  # noqa: BLE001 - reported
        name = getattr(check, "__name__", "check").lstrip("_")
        yield problems.CHECK_FAILED.found("doctor", f"{name} raised {type(fault).__name__}: {fault}")


def _start(setup: Setup) -> Iterator[Diagnostic]:
    """Report what was logged at the start, unless a check says it better."""
    explained = re.compile("|".join(f"'{name}'|[ :]{name}[.]?$" for name in map(re.escape, setup.explained)) or "(?!)")
    secrets = [
        entry.strip()
        for name, value in setup.environ.items()
        if "HEADERS" in name
        for entry in (value, *value.split(","))
        if entry.strip()
    ]
    for message in setup.messages:
        text = message.text
        if text.startswith(_EXPECTED_WARNING) or explained.search(text):
            continue
        for secret in secrets:
            text = text.replace(secret, "…")
        if "Address already in use" in text:
            host, port = scrape_address(setup.environ, setup.file_content)
            yield problems.PORT_IN_USE.found("start", f"{host}:{port} for Prometheus is in use: {text}")
        elif message.logger.startswith("forge_otel") and "is ignored" in text:
            yield problems.INVALID_SETTING.found("settings", text, "" if "did you mean" in text else None)
        else:
            yield (problems.START_FAILED if message.is_error else problems.START).found("start", text, "")


def _instrumented(setup: Setup) -> Iterator[Diagnostic]:
    if setup.import_failure:
        yield problems.IMPORT_FAILED.found("forge", setup.import_failure)
        return
    if setup.config is not None:
        wanted, patched = setup.targets, setup.instrumentor.patched
        missing = sorted({target.module for target in wanted if target not in patched})
        if missing:
            message = f"not instrumented, because of its version: {', '.join(missing)}"
            yield problems.MISSING_FUNCTION.found("forge", message)
        else:
            yield Diagnostic("ok", "forge", f"all {len(wanted)} functions are instrumented")
        return
    disabled = [name.strip() for name in setup.environ.get(DISABLED, "").split(",")]
    if "forge" in disabled or "*" in disabled:
        name = "forge" if "forge" in disabled else "*"
        message = f"not instrumented: {DISABLED} has {name}"
        yield problems.NOT_INSTRUMENTED.found("forge", message, f"remove {name} from it")
    elif not metadata.entry_points(group="opentelemetry_instrumentor", name="forge"):
        message = f"not instrumented: no entry point: {DISTRIBUTION} is on the path, but not installed"
        yield problems.NOT_INSTRUMENTED.found("forge", message, "pip install 'forge-otel[auto]'")
    else:
        message = "not instrumented: OpenTelemetry did not load our instrumentor"
        yield problems.NOT_INSTRUMENTED.found("forge", message, "see the other errors")


def _settings(setup: Setup) -> Iterator[Diagnostic]:
    if setup.config is None:
        return
    defaults = ForgeConfig()
    changed = [
        f"{field.name}={sorted(value) if isinstance(value, frozenset) else value!r}"
        for field in dataclasses.fields(setup.config)
        if (value := getattr(setup.config, field.name)) != getattr(defaults, field.name)
    ]
    yield Diagnostic("ok", "settings", ", ".join(changed) or "the defaults")


def _sdk(setup: Setup) -> Iterator[Diagnostic]:
    """Yield diagnostics of the SDK: its configuration, its sampler, and the fast paths into it."""
    if setup.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
        yield problems.SDK_DISABLED.found("sdk", f"{OTEL_SDK_DISABLED}=true: nothing is recorded")
    elif setup.file_content.get("disabled") is True:
        yield problems.SDK_DISABLED.found("sdk", f"{setup.file} has disabled: true: nothing is recorded")
    elif not any(signal.configured for signal in setup.exports):
        if metadata.entry_points(group="opentelemetry_configurator"):
            # To OpenTelemetry a file without any provider is no error, so that no other error says why.
            is_started = setup.config is not None and setup.file
            remedy = f"add the missing providers to {setup.file}" if is_started else "see the other errors"
            yield problems.NO_SDK.found("sdk", "none is configured", remedy)
        else:
            remedy = "pip install 'forge-otel[auto]': its opentelemetry-distro configures one from variables"
            yield problems.NO_SDK.found("sdk", "nothing configures one", remedy)
    elif any(signal.configured for signal in setup.exports if signal.name == "traces"):
        sampler = getattr(trace.get_tracer_provider(), "sampler", None)
        rate = setup.config.sampling_rate if setup.config is not None else 1.0
        sampling = list(check_sampler(sampler, rate)) if sampler is not None else []
        yield from sampling
        nothing_sampled = any(found.problem == problems.NOTHING_SAMPLED.name for found in sampling)
        yield from _fast_paths(starts_spans=not nothing_sampled)


def _fast_paths(*, starts_spans: bool) -> Iterator[Diagnostic]:
    """Yield the SDK fast paths that are not used; a process that starts no spans needs none for them."""
    if switched_off():
        yield Diagnostic("ok", "speed", f"{SWITCH}=off: only the SDK's public API is used")
        return
    tracer = trace.get_tracer(SCOPE_NAME)
    why_not = spans.LightSpans(tracer).why_not
    if not is_sdk(type(tracer)):
        kind = type(trace.get_tracer_provider())
        message = f"light spans do not apply: {kind.__module__}.{kind.__qualname__} makes the spans, not the SDK"
        yield Diagnostic("ok", "speed", message)
    elif starts_spans and why_not is not None:
        yield Diagnostic("ok", "speed", f"the SDK starts the spans, which takes longer: {why_not}")
    fast_paths = {"durations": histograms.works(), "events": log_records.whole()}
    unsupported = [signal for signal, known in fast_paths.items() if not known]
    if unsupported:
        message = f"no fast path for {' and '.join(unsupported)}: this SDK is not supported, so its public API is used"
        yield Diagnostic("ok", "speed", message)


def _service(setup: Setup) -> Iterator[Diagnostic]:
    """Yield the name of the service, and the environment, under which a backend shows the telemetry."""
    name = str(setup.resource.get("service.name", ""))
    if not setup.resource:
        return
    if not name or name.startswith("unknown_service"):
        remedy = "set OTEL_SERVICE_NAME"
        if setup.file is not None:
            remedy = f"add service.name to the resource in {setup.file}"
        yield problems.NO_SERVICE_NAME.found("service", f"no service name: backends show {name or 'none'}", remedy)
    else:
        yield Diagnostic("ok", "service", name)
    if "service.instance.id" not in setup.resource:
        message = "no service.instance.id: counters of several processes are taken for one"
        other = "set service.instance.id in OTEL_RESOURCE_ATTRIBUTES, to another value in each process"
        yield problems.NO_INSTANCE_ID.found("service", message, None if setup.file else other)


def _propagators(setup: Setup) -> Iterator[Diagnostic]:
    if "traceparent" not in propagate.get_global_textmap().fields:
        message = "no propagator writes traceparent, so worker processes and called services begin their own traces"
        remedy = f"add propagator to {setup.file}" if setup.file else None
        yield problems.NO_PROPAGATOR.found("context", message, remedy)


def _parent(setup: Setup) -> Iterator[Diagnostic]:
    """Report whether runs join the trace that environment variables name."""
    if setup.config is None or not setup.environ.get("TRACEPARENT"):
        return
    if not setup.config.parent_from_environment:
        message = "TRACEPARENT is set; runs join its trace with FORGE_OTEL_PARENT_FROM_ENVIRONMENT=true"
        yield Diagnostic("ok", "context", message)
        return
    unreadable: list[LogMessage] = []
    with logged(unreadable):
        parent = trace.get_current_span(environment_context()).get_span_context()
    if unreadable:
        yield problems.UNREADABLE_PARENT.found("context", unreadable[0].text)
    else:
        yield Diagnostic("ok", "context", f"runs join the trace {trace.format_trace_id(parent.trace_id)}")


def _destinations(setup: Setup) -> Iterator[Diagnostic]:
    scrape = scrape_address(setup.environ, setup.file_content)
    for export in setup.exports:
        yield from check_export(export, scrape)
    if setup.file is None:
        yield from unencrypted_by_accident(setup.environ, setup.exports)
    yield from unwritable_files(setup.exports)
    if setup.config is not None and any(export.configured for export in setup.exports):
        yield from exceptions_lost(setup.config, setup.exports)


def _storage(url: str) -> Iterator[Diagnostic]:
    """Report the version of a database's schema, which this changes nothing of."""
    from forge import SQLStorage  # noqa: PLC0415 - its imports were checked
    from forge.errors import ForgeError  # noqa: PLC0415
    from forge.storage.migrations import VERSION  # noqa: PLC0415

    try:
        stored = SQLStorage(url).schema_version()
    except ForgeError as error:
        yield problems.STORAGE.found("storage", str(error), "")
        return
    if stored > VERSION:
        remedy = "install the release of forge-otel that wrote it, or use another database"
        yield problems.STORAGE.found("storage", f"schema version {stored}, newer than {VERSION}", remedy)
    elif stored == 0:
        message = f"no tables yet; the first run creates them, with schema version {VERSION}"
        yield Diagnostic("ok", "storage", message)
    elif stored < VERSION:
        yield Diagnostic("ok", "storage", f"schema version {stored}; the next run migrates it to {VERSION}")
    else:
        yield Diagnostic("ok", "storage", f"schema version {stored}")


def _send(setup: Setup) -> Iterator[Diagnostic]:
    from .sending import send  # noqa: PLC0415 - needs `forge`, whose imports were checked

    assert setup.instrumentor.telemetry is not None
    yield from send(setup.exports, setup.instrumentor.telemetry)


CHECKS: Final[Sequence[Check]] = (
    versions,
    same_package,
    packages_twice,
    package_versions,
    misspelled_variables,
    unknown_components,
    unknown_names,
    unused_variables,
    missing_files,
    raised_faults,
    wrong_units,
    unknown_entries,
    _start,
    incomplete_file,
    _instrumented,
    _settings,
    prices,
    _sdk,
    _service,
    _propagators,
    _parent,
    _destinations,
)
"""All checks, in the order of their output."""

_BEFORE_SENDING: Final = (_instrumented, _sdk)
"""Checks that have to succeed before a run can send anything."""
