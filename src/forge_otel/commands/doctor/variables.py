"""Checks of environment variables: their names, and names in their values."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Set
from functools import cache
from importlib import metadata
from typing import Final

from opentelemetry.environment_variables import OTEL_PROPAGATORS
from opentelemetry.sdk.environment_variables import (
    OTEL_CONFIG_FILE,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_RESOURCE_ATTRIBUTES,
    OTEL_SERVICE_NAME,
    OTEL_TRACES_SAMPLER,
    OTEL_TRACES_SAMPLER_ARG,
)

from ...config.config import OPT_IN, PREFIX, SWITCH, ForgeConfig
from ...config.fields import settings_of
from ...exporters._settings import VARIABLES as STATSD
from ...exporters.otlp_file import OTLPFileSettings
from ...support.spelling import misspelled, similar
from . import problems
from .diagnostic import Diagnostic, Problem
from .startup import Setup

DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_RAISE: Final = "FORGE_OTEL_RAISE_FAULTS"
_PRICES: Final = "FORGE_PRICES"
_FILE: Final = "FORGE_OTEL_FILE_"

_SIGNALS: Final = ("TRACES", "METRICS", "LOGS")
_EXPORTERS: Final = {f"OTEL_{signal}_EXPORTER": f"opentelemetry_{signal.lower()}_exporter" for signal in _SIGNALS}
_PROTOCOLS: Final = (OTEL_EXPORTER_OTLP_PROTOCOL, *(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL" for signal in _SIGNALS))
_OTHER_NAMES: Final = {
    OTEL_TRACES_SAMPLER: "opentelemetry_traces_sampler",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "opentelemetry_resource_detector",
    "OTEL_PYTHON_CONTEXT": "opentelemetry_context",
    "OTEL_PYTHON_DISTRO": "opentelemetry_distro",
    "OTEL_PYTHON_CONFIGURATOR": "opentelemetry_configurator",
    DISABLED: "opentelemetry_instrumentor",
}
"""Variables with names of entry points, and their group; an unknown name is left out."""
_ANY: Final = ("*", "otel")
"""Names that have a meaning without an entry point."""
_REPLACED_BY_A_FILE: Final = (
    *_EXPORTERS,
    *_PROTOCOLS,
    OTEL_PROPAGATORS,
    OTEL_RESOURCE_ATTRIBUTES,
    OTEL_SERVICE_NAME,
    OTEL_TRACES_SAMPLER,
    OTEL_TRACES_SAMPLER_ARG,
)
_WITHOUT_ARGUMENT: Final = ("", "always_on", "always_off", "parentbased_always_on", "parentbased_always_off")


def misspelled_variables(setup: Setup) -> Iterator[Diagnostic]:
    """Find variables that resemble those that OpenTelemetry or forge-otel reads."""
    known = known_variables()
    for name in sorted(setup.environ.keys() - known):
        if "_" not in name or any(message.text.startswith(f"{name}=") for message in setup.messages):
            continue
        meant = similar(name, known) if name.startswith(PREFIX) else misspelled(name, known)
        if meant is not None and name not in _mentioned_variables():
            yield problems.MISSPELLED_VARIABLE.found("variable", f"{name} is not read", f"did you mean {meant}?")


@cache
def known_variables() -> Set[str]:
    """Return the variables that OpenTelemetry's packages declare, and ours."""
    declared: set[str] = set()
    for entry_point in metadata.entry_points(group="opentelemetry_environment_variables"):
        module = entry_point.load()
        declared |= {value for name, value in vars(module).items() if name in (value, f"_{value}")}
    for text in _sources("environment_variables"):
        declared |= set(re.findall(r"^(OTEL_[A-Z0-9_]+)", text, re.MULTILINE))
    ours = {PREFIX + name.upper() for name, setting in settings_of(ForgeConfig).items() if setting.parse}
    file = {_FILE + name.upper() for name in settings_of(OTLPFileSettings)}
    return {*declared, *ours, *file, *STATSD, OPT_IN, SWITCH, _RAISE, _PRICES}


@cache
def _mentioned_variables() -> Collection[str]:
    """Return all names in OpenTelemetry's packages that may be those of variables."""
    return {name for text in _sources("") for name in re.findall(r"OTEL_[A-Z0-9_]+", text)}


def _sources(part: str) -> Iterator[str]:
    """Yield the text of the modules of OpenTelemetry's distributions whose path contains `part`."""
    for distribution in metadata.distributions():
        if (distribution.name or "").startswith("opentelemetry"):
            for file in distribution.files or ():
                if file.suffix == ".py" and part in str(file):
                    try:
                        yield file.read_text(encoding="utf-8")
                    except OSError:
                        continue


def unknown_components(setup: Setup) -> Iterator[Diagnostic]:
    """Find exporters, protocols and id generators that are not installed: OpenTelemetry does not start with them."""
    if setup.file:
        return
    for variable, group in _EXPORTERS.items():
        known = {*_names(group), "otlp", "none"}
        yield from _unknown(setup, variable, known, problems.UNKNOWN_COMPONENT)
    yield from _unknown(
        setup, "OTEL_PYTHON_ID_GENERATOR", _names("opentelemetry_id_generator"), problems.UNKNOWN_COMPONENT
    )
    for variable in _PROTOCOLS:
        yield from _unknown(setup, variable, {"grpc", "http/protobuf"}, problems.UNKNOWN_COMPONENT)


def unknown_names(setup: Setup) -> Iterator[Diagnostic]:
    """Find samplers, resource detectors and instrumentations that are not installed."""
    for variable, group in _OTHER_NAMES.items():
        if not (setup.file and variable == OTEL_TRACES_SAMPLER):
            yield from _unknown(setup, variable, {*_names(group), *_ANY}, problems.UNKNOWN_NAME)


def _names(group: str) -> Collection[str]:
    return {entry_point.name for entry_point in metadata.entry_points(group=group)}


def _unknown(setup: Setup, variable: str, known: Collection[str], problem: Problem) -> Iterator[Diagnostic]:
    for name in filter(None, map(str.strip, setup.environ.get(variable, "").split(","))):
        if name not in known:
            meant = similar(name, sorted(known))
            remedy = f"did you mean {meant}?" if meant else f"there are {', '.join(sorted(known))}"
            setup.explained.add(name)
            yield problem.found("variable", f"{variable} has {name}, which is not installed", remedy)


def unused_variables(setup: Setup) -> Iterator[Diagnostic]:
    """Find variables without effect because of others."""
    sampler = setup.environ.get(OTEL_TRACES_SAMPLER, "").strip()
    if setup.file is None:
        if setup.environ.get(OTEL_TRACES_SAMPLER_ARG) and sampler in _WITHOUT_ARGUMENT:
            message = f"{OTEL_TRACES_SAMPLER_ARG} is not used by {sampler or 'the default, parentbased_always_on'}"
            remedy = f"set {OTEL_TRACES_SAMPLER}=parentbased_traceidratio"
            yield problems.UNUSED_VARIABLE.found("variable", message, remedy)
        return
    resource = {str(value) for value in setup.resource.values()}
    unused = [
        name
        for name in _REPLACED_BY_A_FILE
        if setup.environ.get(name) and name not in setup.file_text and setup.environ[name] not in resource
    ]
    if unused and setup.file_content:
        message = f"{', '.join(unused)}: not used, because {OTEL_CONFIG_FILE}={setup.file} replaces them"
        yield problems.UNUSED_VARIABLE.found("variable", message, f"write ${{{unused[0]}}} into the file, or the value")


def missing_files(setup: Setup) -> Iterator[Diagnostic]:
    """Find variables with files that cannot be read."""
    for name in sorted(known_variables()):
        path = setup.environ.get(name, "").strip()
        if path and name.startswith("OTEL_") and name.endswith(("_CERTIFICATE", "_CLIENT_KEY", "_CONFIG_FILE")):
            try:
                os.stat(path)
                readable = os.access(path, os.R_OK) and not os.path.isdir(path)
            except OSError as error:
                setup.explained.add(path)
                yield problems.MISSING_FILE.found("variable", f"{name}={path}: {error.strerror} (in {os.getcwd()})")
            else:
                if not readable:
                    setup.explained.add(path)
                    yield problems.MISSING_FILE.found("variable", f"{name}={path} cannot be read")


def wrong_units(setup: Setup) -> Iterator[Diagnostic]:
    """Find durations that are probably in another unit than the one of their variable."""
    for name in sorted(known_variables() & setup.environ.keys()):
        try:
            value = float(setup.environ[name])
        except ValueError:
            continue
        if name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("_TIMEOUT") and value >= 1000:
            message = f"{name}={value:g} is {value / 60:.0f} minutes: the unit is a second in Python"
            yield problems.WRONG_UNIT.found("variable", message, f"write {value / 1000:g} if milliseconds are meant")
        if name.endswith(("_EXPORT_INTERVAL", "_SCHEDULE_DELAY")) and 0 < value < 100:
            message = f"{name}={value:g} is {value:g} ms: the unit is a millisecond"
            yield problems.WRONG_UNIT.found("variable", message, f"write {value * 1000:g} if seconds are meant")


def raised_faults(setup: Setup) -> Iterator[Diagnostic]:
    """Find the variable that lets faults of the telemetry end pipelines."""
    if setup.environ.get(_RAISE) == "1":
        yield problems.RAISED_FAULTS.found("variable", f"{_RAISE}=1: a fault of the telemetry ends the pipeline")


def prices(setup: Setup) -> Iterator[Diagnostic]:
    """Read the file with prices."""
    if setup.environ.get(_PRICES) and not setup.import_failure:
        from forge.costs.prices import Prices  # noqa: PLC0415 - its imports were checked
        from forge.errors import ForgeError  # noqa: PLC0415

        try:
            count = len(Prices.from_environment().entries)
        except ForgeError as error:
            yield problems.INVALID_PRICES.found("prices", str(error))
        else:
            yield Diagnostic("ok", "prices", f"{count} in {setup.environ[_PRICES]}")
