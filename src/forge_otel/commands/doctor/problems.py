"""All problems that the doctor finds: the table in docs/doctor.md is generated from this list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .diagnostic import Problem

_FOUND: list[Problem] = []


def _warning(name: str, meaning: str, remedy: str) -> Problem:
    _FOUND.append(Problem(name, "warning", meaning, remedy))
    return _FOUND[-1]


def _error(name: str, meaning: str, remedy: str) -> Problem:
    _FOUND.append(Problem(name, "error", meaning, remedy))
    return _FOUND[-1]


# Packages.
SAME_PACKAGE = _error(
    "same-package",
    "Another distribution, such as `python-forge`, installs a package `forge` as well. The one installed last has "
    "overwritten files of the other.",
    "Uninstall it, then reinstall forge-otel.",
)
PACKAGE_TWICE = _warning(
    "package-twice",
    "A distribution is installed more than once on Python's path, so another version than expected may be imported.",
    "Remove one of them, or start Python without the other's folder on its path.",
)
PACKAGE_VERSIONS = _warning(
    "package-versions",
    "The versions of OpenTelemetry's packages do not fit together: a package requires another version of a second one "
    "than is installed.",
    "Upgrade all of them in one command, so that pip chooses versions that fit.",
)

# Environment variables.
MISSPELLED_VARIABLE = _warning(
    "misspelled-variable",
    "An environment variable has almost the name of one that OpenTelemetry or forge-otel reads. It is not read.",
    "Correct the name.",
)
UNKNOWN_COMPONENT = _error(
    "unknown-component",
    "A variable names an exporter, an OTLP protocol or an id generator that is not installed. OpenTelemetry then "
    "configures nothing at all.",
    "Correct the name, or install the package that has it.",
)
UNKNOWN_PROPAGATOR = _error(
    "unknown-propagator",
    "`OTEL_PROPAGATORS` names a propagator that is not installed. Then no program starts that imports OpenTelemetry.",
    "Correct the name, or install the package that has it.",
)
UNKNOWN_NAME = _warning(
    "unknown-name",
    "A variable names a sampler, a resource detector, an instrumentation or the like that is not installed. The "
    "default is used instead.",
    "Correct the name, or install the package that has it.",
)
UNUSED_VARIABLE = _warning(
    "unused-variable",
    "A variable has no effect because of another one: `OTEL_TRACES_SAMPLER_ARG` without a sampler that takes a ratio, "
    "or any variable of the SDK that the file in `OTEL_CONFIG_FILE` does not refer to.",
    "Set the other variable too, or move the value into the file.",
)
MISSING_FILE = _error(
    "missing-file",
    "A variable names a file that does not exist or cannot be read: a configuration, a certificate or a key.",
    "Correct the path. A relative one starts at the folder in which the process is started.",
)
RAISED_FAULTS = _warning(
    "raised-faults",
    "`FORGE_OTEL_RAISE_FAULTS=1` is set: a fault of the telemetry ends the pipeline. It is meant for tests of "
    "forge-otel.",
    "Unset it.",
)
WRONG_UNIT = _warning(
    "wrong-unit",
    "A duration is probably in another unit than its variable. In Python, `OTEL_EXPORTER_OTLP_TIMEOUT` and the like "
    "are seconds; intervals and delays such as `OTEL_METRIC_EXPORT_INTERVAL` are milliseconds.",
    "Convert the value.",
)
INVALID_PRICES = _error(
    "invalid-prices",
    "The file in `FORGE_PRICES` cannot be read, or something in it is wrong. Every run then fails when it starts.",
    "Correct the file at the line in the message.",
)
INVALID_SETTING = _warning(
    "invalid-setting",
    "A setting of forge-otel, in a variable or in the configuration file, has an unknown name or a value that is not "
    "allowed. The default is used instead.",
    "Correct it. The page on configuration lists all settings.",
)

# The start.
START = _warning(
    "start-warning",
    "OpenTelemetry logs a warning when it starts.",
    "Read the message; it usually names the variable or the package.",
)
START_FAILED = _error(
    "start-error",
    "OpenTelemetry logs an error when it starts. Often nothing is configured then, and the pipeline runs without "
    "telemetry.",
    "Read the message; it usually names the variable or the package.",
)
UNKNOWN_ENTRY = _error(
    "unknown-entry",
    "The declarative configuration file has an entry that neither OpenTelemetry nor an installed package knows. It is "
    "ignored, or the whole file is.",
    "Correct the name, or install the package that has it.",
)
INCOMPLETE_FILE = _warning(
    "incomplete-file",
    "The declarative configuration file leaves out a part, which no variable replaces: without `tracer_provider`, "
    "`meter_provider` or `logger_provider` there are no spans, metrics or events, without `resource` no service name, "
    "without `propagator` traces end at the process's border.",
    "Add what is missing: the recipe for a configuration file has all of it.",
)
NO_SERVICE_NAME = _warning(
    "no-service-name",
    "The telemetry has no service name: backends show it as `unknown_service`, together with that of all others "
    "without one.",
    "Set `OTEL_SERVICE_NAME`, or the resource attribute `service.name`.",
)
NO_INSTANCE_ID = _warning(
    "no-instance-id",
    "The resource has no `service.instance.id`, as in a configuration file without the detector `service`. The "
    "counters of several processes then look like one that is reset again and again.",
    "Add `detection/development: {detectors: [{service: {}}]}` to the resource in the file.",
)
NO_PROPAGATOR = _warning(
    "no-propagator",
    "The context of a trace is not passed on: what the pipeline calls, and its worker processes, begin traces of their "
    "own.",
    "Unset `OTEL_PROPAGATORS`, or let it contain `tracecontext`.",
)
UNREADABLE_PARENT = _warning(
    "unreadable-parent",
    "`TRACEPARENT` names no parent that a propagator can read, so runs begin traces of their own.",
    "Let what starts the process write `00-TRACE_ID-SPAN_ID-FLAGS` there, and let `OTEL_PROPAGATORS` contain "
    "`tracecontext`.",
)

# Instrumentation.
IMPORT_FAILED = _error(
    "import-failed",
    "A module of `forge` cannot be imported.",
    "Install what the message names, or reinstall forge-otel.",
)
NOT_INSTRUMENTED = _error(
    "not-instrumented",
    "OpenTelemetry does not load forge-otel's instrumentor, so pipelines have no telemetry.",
    "Remove `forge` from `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`, or install forge-otel instead of only having it on "
    "the path.",
)
MISSING_FUNCTION = _error(
    "missing-function",
    "A function to instrument does not exist in the installed version of `forge`. What it does has no telemetry.",
    "Install `forge` and `forge_otel` from the same release.",
)
NO_SDK = _error(
    "no-sdk",
    "No SDK is configured, so nothing is recorded.",
    "Install `forge-otel[auto]`, whose `opentelemetry-distro` configures one from variables.",
)
SDK_DISABLED = _error(
    "sdk-disabled",
    "`OTEL_SDK_DISABLED=true` is set, or `disabled: true` in the configuration file: nothing is recorded.",
    "Remove it.",
)

# Sampling.
SAMPLER_FAILED = _error("sampler-failed", "The sampler raises an exception.", "Correct or replace the sampler.")
NOTHING_SAMPLED = _warning(
    "nothing-sampled", "The sampler drops every run, so there are no spans.", "Set `OTEL_TRACES_SAMPLER`."
)
PARENT_IGNORED = _warning(
    "parent-ignored",
    "The sampler ignores whether the parent is sampled, so spans of other libraries inside stages are recorded without "
    "their parents.",
    "Use the sampler's `parentbased_` variant.",
)
THINNED_TWICE = _warning(
    "thinned-twice",
    "Both a sampler and `sampling_rate` leave traces out, so the traced share of samples is the product of the two.",
    "Let one of them thin: keep the sampler at `parentbased_always_on`, or `sampling_rate` at 1.",
)

# Destinations.
NO_PROVIDER = _warning(
    "no-provider", "No SDK is configured for a signal, so it is not recorded.", "See the errors above it."
)
NO_EXPORTER = _warning(
    "no-exporter",
    "A signal is recorded and goes nowhere. Without metrics, no alert and no dashboard works; without logs, there are "
    "no events.",
    "Set the signal's `OTEL_…_EXPORTER`, or ignore this if it is intended.",
)
EXCEPTIONS_LOST = _warning(
    "exceptions-lost",
    "The setting `exceptions` records exceptions in a signal that is not exported, or as events although `events` is "
    "`none`. So nothing says with which message and stack trace a stage has failed.",
    "Export the signal, or set `FORGE_OTEL_EXCEPTIONS` to the other one: `logs` or `span_events`.",
)
UNWRITABLE_FILE = _error(
    "unwritable-file",
    "An exporter writes to a file that cannot be written.",
    "Correct the path or its permissions.",
)
WRONG_PORT = _warning(
    "wrong-port",
    "An exporter sends by gRPC to port 4318, which is usually that of HTTP, or by HTTP to port 4317, that of gRPC.",
    "Change the port, or `OTEL_EXPORTER_OTLP_PROTOCOL`.",
)
WRONG_PATH = _warning(
    "wrong-path",
    "An exporter sends by HTTP to an unusual path. `OTEL_EXPORTER_OTLP_ENDPOINT` is a base, to which the signal's path "
    "such as `/v1/traces` is added; `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and the like are used as they are.",
    "Remove the path from the one, or add it to the other.",
)
NO_SCHEME = _warning(
    "no-scheme",
    "An endpoint has no scheme. By HTTP nothing can be sent then; gRPC then encrypts, which a Collector without "
    "certificate refuses.",
    "Write `http://` or `https://` before the host.",
)
SCRAPE_FAILED = _error(
    "scrape-failed",
    "The port at which Prometheus scrapes the metrics does not answer.",
    "Check `OTEL_EXPORTER_PROMETHEUS_HOST` and `OTEL_EXPORTER_PROMETHEUS_PORT`.",
)
PORT_IN_USE = _error(
    "port-in-use",
    "Another process listens at the port for Prometheus. A process that cannot open it starts without any telemetry: "
    "each needs a port of its own.",
    "Run the doctor while the pipeline does not run, or give each process another `OTEL_EXPORTER_PROMETHEUS_PORT`; or "
    "send metrics by OTLP.",
)

# Storage and sending.
STORAGE = _error("storage", "The database cannot be opened, or a newer release has written it.", "As the message says.")
NOT_DELIVERED = _error(
    "not-delivered",
    "A destination has not taken the telemetry of the test run within `shutdown_timeout`.",
    "Check the address in the message, and that the backend runs; the lines after it say what the exporter met.",
)
SEND_FAILED = _error("send-error", "An exporter logs a warning or an error while it sends.", "As the message says.")

# The doctor itself.
CHECK_FAILED = _error(
    "check-failed", "A check has failed itself, so its result is unknown.", "Report it as a bug, with the message."
)
INTERRUPTED = _error("interrupted", "The doctor was interrupted, so some results are missing.", "Run it again.")

PROBLEMS: Final[Sequence[Problem]] = tuple(_FOUND)
"""All problems, in the order of the table."""
