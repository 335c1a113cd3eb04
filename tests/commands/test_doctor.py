"""`forge-otel doctor`: what it finds in an environment, each fault made for real."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import socket
import sqlite3
import ssl
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased

from forge.storage.migrations import VERSION
from forge_otel.commands.doctor.problems import PROBLEMS
from forge_otel.commands.doctor.sampler import Effect, effect_of
from tests.forge_otel.test_auto_instrumentation import another_version_of_forge, found_first
from tests.stack.services import records
from tests.support.certificates import certify
from tests.support.needs import need_installed
from tests.support.otlp_files import configuration
from tests.support.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_installed")]

Finding = tuple[str, ...]
"""Level, subject, message; of a problem, also the remedy if there is one, and the problem's name."""

TIMEOUT = 600.0
"""Seconds after which a doctor hangs, on a machine that is busy, too."""

T = TypeVar("T", bound=Callable[..., Any])
_made: set[str] = set()


def makes(*problems: str) -> Callable[[T], T]:
    """Declare that a test makes these problems, and looks at what the doctor says of them."""
    _made.update(problems)
    return lambda test: test


@pytest.fixture(scope="module")
def _installed() -> None:
    need_installed("forge-otel", "opentelemetry-distro", "opentelemetry-configuration")


def doctor(*options: str, before: Sequence[str] = (), **environ: str) -> tuple[int, list[Finding], str]:
    """Its exit code, its findings but for the versions, and what it printed on stderr."""
    done = run(*options, "--json", before=before, **environ)
    versions, *findings = json.loads(done.stdout)
    version = importlib.metadata.version("opentelemetry-sdk")
    assert versions["subject"] == "versions"
    assert f"opentelemetry-sdk {version}" in versions["message"]
    return done.returncode, [tuple(filter(None, finding.values())) for finding in findings], done.stderr


def of(problem: str, findings: Sequence[Finding]) -> list[Finding]:
    """The findings of a problem."""
    return [finding[:-1] for finding in findings if finding[-1] == problem]


def environment(**environ: str) -> dict[str, str]:
    """An environment without other settings."""
    prefixes = ("OTEL_", "FORGE_", "STATSD_", "DD_", "TRACEPARENT")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)} | environ


def run(*options: str, before: Sequence[str] = (), **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it in an environment without other settings."""
    return subprocess.run(
        [*before, sys.executable, "-m", "forge_otel.commands.cli", "doctor", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env=environment(**environ),
    )


def distribution(folder: Path, name: str, version: str = "1.0", entry_points: str = "", top_level: str = "") -> None:
    """Install a distribution into a folder."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    if top_level:
        (metadata / "top_level.txt").write_text(top_level)


INSIDE = "spans of other libraries in a stage are recorded"
FOLLOWS = f"{INSIDE} if the sample is traced"
FOLLOW_PARENT = "parentbased_always_on and parentbased_traceidratio follow the sample"

ALL = ("ok", "forge", "all 40 functions are instrumented")
DEFAULTS = ("ok", "settings", "the defaults")
USUAL_SAMPLER = ("ok", "sampler", f"every run is traced; {FOLLOWS} (ParentBased{{root:AlwaysOnSampler, …)")
SERVICE = ("ok", "service", "corpus")
NAME = {"OTEL_SERVICE_NAME": "corpus"}
OTLP = {
    **NAME,
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@127.0.0.1:1?key=secret",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
}
SIGNALS = [
    ("ok", "traces", "OTLPSpanExporter to http://…@127.0.0.1:1/v1/traces"),
    ("ok", "metrics", "OTLPMetricExporter to http://…@127.0.0.1:1/v1/metrics"),
    ("ok", "logs", "OTLPLogExporter to http://…@127.0.0.1:1/v1/logs"),
]
NO_SIGNALS = [
    ("warning", "traces", "no SDK is configured, so there are no spans", "no-provider"),
    ("warning", "metrics", "no SDK is configured, so there are no metrics", "no-provider"),
    ("warning", "logs", "no SDK is configured, so there are no events", "no-provider"),
]
OFF = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}


def test_every_problem_is_made_by_a_test() -> None:
    assert _made == {problem.name for problem in PROBLEMS}


def test_nothing_is_wrong() -> None:
    variables = OTLP | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@127.0.0.1:1"}
    assert doctor(**variables) == (0, [ALL, DEFAULTS, USUAL_SAMPLER, SERVICE, *SIGNALS], "")


# Packages.


@makes("same-package", "import-failed")
def test_another_package_of_the_same_name(tmp_path: Path) -> None:
    """`python-forge` installs a package `forge` that has nothing of ours."""
    (tmp_path / "forge").mkdir()
    (tmp_path / "forge" / "__init__.py").write_text("")
    distribution(tmp_path, "python-forge", "18.6.0", top_level="forge\n")

    code, findings, _ = doctor("--send", **OTLP, **found_first(tmp_path), FORGE_PRICES="missing.yaml")

    assert code == 1
    assert findings[0] == (
        "error",
        "packages",
        "python-forge installs a package forge as well",
        "pip uninstall python-forge, then pip install --force-reinstall --no-deps forge-otel",
        "same-package",
    )
    message = "importing forge.costs.usage failed: ModuleNotFoundError: No module named 'forge.costs'"
    remedy = "install what the message names, or reinstall forge-otel"
    assert of("import-failed", findings) == [("error", "forge", message, remedy)]
    assert not [finding for finding in findings if finding[1] == "sent"]


@makes("package-twice", "package-versions")
def test_versions_that_do_not_fit_together(tmp_path: Path) -> None:
    distribution(tmp_path, "opentelemetry-proto", "1.0")
    found = importlib.metadata.distribution("opentelemetry-proto")
    common = "opentelemetry-exporter-otlp-proto-common"
    needs = importlib.metadata.version(common)

    code, findings, _ = doctor(**OTLP, **found_first(tmp_path))

    assert code == 0
    [twice] = of("package-twice", findings)
    hidden = f"hides {found.version} in {found.locate_file('')}"
    assert twice[2] == f"opentelemetry-proto 1.0 in {tmp_path} {hidden}"
    [versions] = of("package-versions", findings)
    assert (
        f"opentelemetry-exporter-otlp-proto-common {needs} requires opentelemetry-proto=={needs}, not 1.0"
        in versions[2]
    )


# Environment variables.


@makes("misspelled-variable", "unknown-name", "raised-faults", "invalid-setting", "invalid-prices", "no-propagator")
@makes("wrong-unit")
def test_variables_that_are_wrong(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("- model: gpt\n")

    code, findings, _ = doctor(
        **OTLP,
        OTEL_EXPORTER_OTLP_ENDPONT="http://collector:4318",
        OTEL_METRICS_EXPORT_INTERVAL="1000",
        OTEL_TRACES_SAMPLER="parentbased_always",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="loging",
        OTEL_PROPAGATORS="baggage",
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="60000",
        OTEL_METRIC_EXPORT_INTERVAL="15",
        OTEL_NODE_IP="10.0.0.1",  # as operators set it
        FORGE_OTEL_RAISE_FAULTS="1",
        FORGE_OTEL_SAMPLING_RATE="2",
        FORGE_OTEL_SAMPLE_RATE="0.5",
        FORGE_OTEL_COMPONENTS="stage,runner",
        FORGE_OTEL_STATSD_FLAVOUR="statsd",
        FORGE_PRICES=str(prices),
        STATSD_HOSTS="collector",
    )

    assert code == 1
    assert of("misspelled-variable", findings) == [
        ("warning", "variable", f"{name} is not read", f"did you mean {meant}?")
        for name, meant in {
            "FORGE_OTEL_STATSD_FLAVOUR": "FORGE_OTEL_STATSD_FLAVOR",
            "OTEL_EXPORTER_OTLP_ENDPONT": "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_METRICS_EXPORT_INTERVAL": "OTEL_METRIC_EXPORT_INTERVAL",
            "STATSD_HOSTS": "STATSD_HOST",
        }.items()
    ]
    sampler = "OTEL_TRACES_SAMPLER has parentbased_always, which is not installed"
    disabled = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS has loging, which is not installed"
    assert of("unknown-name", findings) == [
        ("warning", "variable", sampler, "did you mean parentbased_always_on?"),
        ("warning", "variable", disabled, "did you mean logging?"),
    ]
    message = "FORGE_OTEL_RAISE_FAULTS=1: a fault of the telemetry ends the pipeline"
    assert of("raised-faults", findings) == [("warning", "variable", message, "unset it")]
    assert [finding[2] for finding in of("invalid-setting", findings)] == [
        "FORGE_OTEL_SAMPLING_RATE='2' is ignored: it must be a number from 0 to 1",
        "FORGE_OTEL_SAMPLE_RATE='0.5' is ignored: there is no such setting; did you mean sampling_rate?",
    ]
    assert ("ok", "settings", "components=['runner', 'stage']") in findings
    [wrong] = of("invalid-prices", findings)
    assert wrong[2].startswith(f"{prices}")
    assert of("wrong-unit", findings) == [
        (
            "warning",
            "variable",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=60000 is 1000 minutes: the unit is a second in Python",
            "write 60 if milliseconds are meant",
        ),
        (
            "warning",
            "variable",
            "OTEL_METRIC_EXPORT_INTERVAL=15 is 15 ms: the unit is a millisecond",
            "write 15000 if seconds are meant",
        ),
    ]
    [context] = of("no-propagator", findings)
    assert context[3] == "unset OTEL_PROPAGATORS, or let it contain tracecontext"


@makes("unreadable-parent")
def test_a_parent_in_the_environment() -> None:
    variables = {**NAME, **OFF, "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    joining = {**variables, "FORGE_OTEL_PARENT_FROM_ENVIRONMENT": "true"}

    def context(environ: dict[str, str]) -> list[Finding]:
        code, findings, _ = doctor(**environ)
        assert code == 0
        return [finding for finding in findings if finding[1] == "context"]

    message = "TRACEPARENT is set; runs join its trace with FORGE_OTEL_PARENT_FROM_ENVIRONMENT=true"
    assert context(variables) == [("ok", "context", message)]
    assert context(joining) == [("ok", "context", "runs join the trace 0af7651916cd43dd8448eb211c80319c")]
    [unreadable] = context({**joining, "TRACEPARENT": "7"})
    message = "TRACEPARENT='7' is ignored: none of the propagators in OTEL_PROPAGATORS can read it"
    assert (unreadable[0], unreadable[2], unreadable[-1]) == ("warning", message, "unreadable-parent")


def test_bad_settings_of_statsd() -> None:
    variables = {
        **NAME,
        **OFF,
        "OTEL_METRICS_EXPORTER": "statsd",
        "FORGE_OTEL_STATSD_NAME_TEMPLATE": "{colour}.{name}",
        "DD_TAGS": "team:ml,stage:prod",
    }
    code, findings, _ = doctor(**variables, DD_TAG="team:ml")

    assert code == 0
    template = "FORGE_OTEL_STATSD_NAME_TEMPLATE='{colour}.{name}'"
    known = "{name}, {tags}, {pipeline}, {service}, {env}, {version}, {instance}"
    assert sorted(finding[2] for finding in of("invalid-setting", findings)) == [
        "DD_TAGS='team:ml,stage:prod': 'stage:prod' would replace a tag that the metrics have; it is ignored",
        f"{template}: it must not have the unknown placeholder {{colour}}; there are {known}; it is ignored",
    ]
    assert of("misspelled-variable", findings) == [
        ("warning", "variable", "DD_TAG is not read", "did you mean DD_TAGS?")
    ]
    statsd = "StatsDMetricExporter to udp://127.0.0.1:8125 (nothing confirms its arrival)"
    assert ("ok", "metrics", statsd) in findings


@makes("unknown-component", "start-error", "not-instrumented", "no-sdk", "no-provider")
@pytest.mark.parametrize(
    ("variable", "value", "meant"),
    [
        ("OTEL_TRACES_EXPORTER", "otpl", "did you mean otlp?"),
        ("OTEL_METRICS_EXPORTER", "prometeus", "did you mean prometheus?"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http", "did you mean http/protobuf?"),
    ],
)
def test_a_component_that_does_not_exist(variable: str, value: str, meant: str) -> None:
    unknown = ("error", "variable", f"{variable} has {value}, which is not installed", meant, "unknown-component")
    loaded = "not instrumented: OpenTelemetry did not load our instrumentor"
    assert doctor("--send", **{variable: value}) == (
        1,
        [
            unknown,
            ("error", "forge", loaded, "see the other errors", "not-instrumented"),
            ("error", "sdk", "none is configured", "see the other errors", "no-sdk"),
            *NO_SIGNALS,
        ],
        "",
    )
    _, findings, _ = doctor(OTEL_BSP_SCHEDULE_DELAY="soon", OTEL_BSP_MAX_QUEUE_SIZE="0")
    why = "ValueError: invalid literal for int() with base 10: 'soon'"
    assert [finding[2] for finding in of("start-error", findings)] == [
        f"Unable to parse value for OTEL_BSP_SCHEDULE_DELAY as integer. Defaulting to 5000.: {why}",
        "Configuration of configurator failed: ValueError: max_queue_size must be a positive integer.",
    ]


@makes("unknown-propagator")
def test_a_propagator_with_which_opentelemetry_cannot_be_imported() -> None:
    done = run("--json", **OTLP, OTEL_PROPAGATORS="tracecontext,bagage")

    assert done.returncode == 1
    first, _, *findings = json.loads(done.stdout)
    assert list(first.values()) == [
        "error",
        "variable",
        "OTEL_PROPAGATORS has bagage, which is not installed",
        "did you mean baggage?",
        "unknown-propagator",
    ]
    assert [finding["message"] for finding in findings if finding["subject"] == "forge"] == [ALL[2]]
    assert done.stderr == ""


@makes("start-warning", "missing-file")
def test_what_opentelemetry_warns_of_is_shown_without_secrets(tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    _, findings, errors = doctor(
        **OTLP,
        OTEL_EXPORTER_OTLP_HEADERS="api-key secret, tenant=one",
        OTEL_EXPORTER_OTLP_CERTIFICATE=str(missing),
    )

    warnings = of("start-warning", findings)
    assert [finding[2].rpartition(": ")[2] for finding in warnings] == ["…"]
    assert warnings[0][2].startswith("Header format invalid!")
    [file] = of("missing-file", findings)
    assert file[2] == f"OTEL_EXPORTER_OTLP_CERTIFICATE={missing}: No such file or directory (in {Path.cwd()})"
    assert "secret" not in f"{findings}{errors}"


@makes("unused-variable", "no-service-name")
def test_a_variable_that_another_makes_useless() -> None:
    variables = {name: value for name, value in OTLP.items() if name not in NAME}
    _, findings, _ = doctor(**variables, OTEL_TRACES_SAMPLER_ARG="0.1")

    message = "OTEL_TRACES_SAMPLER_ARG is not used by the default, parentbased_always_on"
    remedy = "set OTEL_TRACES_SAMPLER=parentbased_traceidratio"
    assert of("unused-variable", findings) == [("warning", "variable", message, remedy)]
    [unnamed] = of("no-service-name", findings)
    assert unnamed[2].startswith("no service name: backends show unknown_service")
    assert unnamed[3] == "set OTEL_SERVICE_NAME"


@makes("incomplete-file", "no-instance-id")
def test_a_file_that_leaves_out_parts(tmp_path: Path) -> None:
    file = tmp_path / "otel.yaml"
    readers: list[Any] = [{"periodic": {"exporter": {"console": {}}}}]
    parts = {"file_format": "1.0", "trace_provider": {}, "meter_provider": {"readers": readers}}
    file.write_text(yaml.safe_dump(parts))

    _, findings, _ = doctor(OTEL_CONFIG_FILE=str(file), OTEL_SERVICE_NAME="x", OTEL_TRACES_EXPORTER="otlp")

    missing = (
        "no tracer_provider (no spans), no logger_provider (no events), no resource (no service name), "
        "no propagator (no trace context for other processes), "
        "no forge in instrumentation/development: python (no settings of ours)"
    )
    remedy = "add what is missing: the recipe for a configuration file has all of it"
    assert of("incomplete-file", findings) == [
        ("warning", "file", f"{file} has {missing}", remedy),
    ]
    [unidentified] = of("no-instance-id", findings)
    assert unidentified[2] == "no service.instance.id: counters of several processes are taken for one"
    assert "detectors: [{service: {}}]" in unidentified[3]
    message = f"OTEL_TRACES_EXPORTER, OTEL_SERVICE_NAME: not used, because OTEL_CONFIG_FILE={file} replaces them"
    remedy = "write ${OTEL_TRACES_EXPORTER} into the file, or the value"
    assert of("unused-variable", findings) == [("warning", "variable", message, remedy)]

    file.write_text("file_format: '1.0'\n")
    _, findings, _ = doctor(OTEL_CONFIG_FILE=str(file))
    nothing = ("error", "sdk", "none is configured", f"add the missing providers to {file}")
    assert of("no-sdk", findings) == [nothing]
    assert [finding for finding in findings if finding[0] == "error"] == [(*nothing, "no-sdk")]


@makes("unknown-entry")
def test_entries_that_nobody_knows(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes" / "configuration-file.md").read_text(encoding="utf-8")
    text = page.partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "otel.yaml"
    file.write_text(text)
    assert doctor(OTEL_CONFIG_FILE=str(file))[1][:2] == [ALL, DEFAULTS]  # the file of the recipe is right

    for right, wrong in {
        "\ntracer_provider:": "\ntrace_provider:",
        "- tracecontext:": "- tracecontex:",
        "- batch:": "- bacth:",
        "otlp_http: {endpoint": "datadog: {endpoint",
        "    forge:": "    froge:",
    }.items():
        assert right in text
        text = text.replace(right, wrong)
    file.write_text(text)
    _, findings, _ = doctor(OTEL_CONFIG_FILE=str(file))

    exporters = "console, otlp_file/development, otlp_grpc, otlp_http"
    assert [finding[2:] for finding in of("unknown-entry", findings)] == [
        (f"{file} has tracecontex in propagator: composite, which is not known", "did you mean tracecontext?"),
        (f"{file} has trace_provider, which is not known", "did you mean tracer_provider?"),
        (
            f"{file} has datadog in meter_provider: readers: periodic: exporter, which is not known",
            f"there are {exporters}",
        ),
        (f"{file} has bacth in logger_provider: processors, which is not known", "did you mean batch?"),
        (
            f"{file} has froge in instrumentation/development: python, which is not known",
            "did you mean forge?",
        ),
    ]
    assert not [finding for finding in of("start-error", findings) if "tracecontex" in finding[2]]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    code, findings, _ = doctor(OTEL_CONFIG_FILE=str(tmp_path / "otel.yml"))

    assert code == 1
    [missing] = of("missing-file", findings)
    assert missing[2].startswith(f"OTEL_CONFIG_FILE={tmp_path / 'otel.yml'}: No such file or directory")
    assert of("start-error", findings) == []


# Instrumentation.


@makes("missing-function")
def test_another_version_of_forge(tmp_path: Path) -> None:
    code, findings, _ = doctor(**OTLP, **another_version_of_forge(tmp_path))

    assert code == 1
    module = "forge.execution.stage_executor"
    [start] = of("start-warning", findings)
    assert start[2].startswith(f"patching {module} failed; the pipeline continues without it: ")
    remedy = "install forge and forge_otel from the same release"
    missing = ("error", "forge", f"not instrumented, because of its version: {module}", remedy)
    assert of("missing-function", findings) == [missing]


def test_an_instrumentation_that_is_disabled() -> None:
    message = "not instrumented: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS has forge"
    variables = OTLP | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@127.0.0.1:1"}
    assert doctor("--send", **variables, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="logging, forge") == (
        1,
        [
            ("error", "forge", message, "remove forge from it", "not-instrumented"),
            USUAL_SAMPLER,
            SERVICE,
            *SIGNALS,
        ],
        "",
    )


@makes("sdk-disabled")
def test_an_sdk_that_is_disabled(tmp_path: Path) -> None:
    code, findings, _ = doctor("--send", **OTLP, OTEL_SDK_DISABLED="true")
    assert code == 1
    assert of("sdk-disabled", findings) == [
        ("error", "sdk", "OTEL_SDK_DISABLED=true: nothing is recorded", "remove it")
    ]

    file = tmp_path / "otel.yaml"
    file.write_text('file_format: "1.0"\ndisabled: true\n')
    _, findings, _ = doctor(OTEL_CONFIG_FILE=str(file))
    message = f"{file} has disabled: true: nothing is recorded"
    assert of("sdk-disabled", findings) == [("error", "sdk", message, "remove it")]


@pytest.mark.parametrize(
    "variable", [{"FORGE_OTEL_EXCEPTIONS": "both"}, {"OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN": "logs/dup"}]
)
def test_the_signal_of_exceptions_that_is_in_effect(variable: dict[str, str]) -> None:
    assert ("ok", "settings", "exceptions='both'") in doctor(**OTLP, **variable)[1]


def test_the_sdk_shortcuts_are_switched_off() -> None:
    _, findings, _ = doctor(**OTLP, FORGE_OTEL_SDK_FAST_PATHS="off")
    assert ("ok", "speed", "FORGE_OTEL_SDK_FAST_PATHS=off: only the SDK's public API is used") in findings


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "8"}, "span attributes are limited"),
        ({"OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true"}, "the SDK counts its own spans"),
    ],
)
def test_spans_that_the_sdk_has_to_start(variables: dict[str, str], why: str) -> None:
    _, findings, _ = doctor(**OTLP, **variables)
    speed = [finding for finding in findings if finding[1] == "speed"]
    assert speed == [("ok", "speed", f"the SDK starts the spans, which takes longer: {why}")]


LOOKING = """
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

class Looking(SpanProcessor):
    def on_start(self, span, parent_context=None): pass

def add():
    trace.get_tracer_provider().add_span_processor(Looking())
"""


@pytest.mark.parametrize(
    ("sampler", "why"),
    [
        ("always_on", "Looking looks at spans that start"),
        ("traceidratio", "the sampler TraceIdRatioBased decides on each span"),
    ],
)
def test_the_reason_is_told_with_samplers_that_ignore_the_parent_as_well(
    tmp_path: Path, sampler: str, why: str
) -> None:
    (tmp_path / "looking.py").write_text(LOOKING)
    distribution(tmp_path, "looking", entry_points="[opentelemetry_post_instrument]\nlooking = looking:add\n")
    _, findings, _ = doctor(**OTLP, **found_first(tmp_path), OTEL_TRACES_SAMPLER=sampler)
    assert len(of("parent-ignored", findings)) == 1
    assert ("ok", "speed", f"the SDK starts the spans, which takes longer: {why}") in findings


FOREIGN = """
from opentelemetry import trace
from opentelemetry.trace import NoOpTracer, TracerProvider

class Tracer(NoOpTracer): pass

class Provider(TracerProvider):
    def get_tracer(self, *_, **__): return Tracer()

class Configurator:
    def configure(self, **_): trace.set_tracer_provider(Provider())
"""


def test_light_spans_do_not_apply_to_a_provider_that_is_not_the_sdk(tmp_path: Path) -> None:
    (tmp_path / "foreign.py").write_text(FOREIGN)
    distribution(tmp_path, "foreign", entry_points="[opentelemetry_configurator]\nforeign = foreign:Configurator\n")
    _, findings, _ = doctor(**NAME, **found_first(tmp_path), OTEL_PYTHON_CONFIGURATOR="foreign")
    message = "light spans do not apply: foreign.Provider makes the spans, not the SDK"
    assert ("ok", "speed", message) in findings
    assert ("ok", "traces", "the provider is foreign.Provider") in findings


def test_a_process_that_is_instrumented_already() -> None:
    instrument = str(Path(sys.executable).parent / "opentelemetry-instrument")
    options = ["--traces_exporter", "console", "--metrics_exporter", "none", "--logs_exporter", "none"]
    code, findings, _ = doctor(before=[instrument, *options], **NAME)

    assert code == 0
    assert findings[:5] == [ALL, DEFAULTS, USUAL_SAMPLER, SERVICE, ("ok", "traces", "ConsoleSpanExporter to <stdout>")]
    assert [finding[1] for finding in of("no-exporter", findings)] == ["metrics", "logs"]


# Samplers.


@pytest.mark.parametrize(
    ("sampler", "effect"),
    [
        (ParentBased(ALWAYS_ON), Effect("ParentBased{root:AlwaysOnSampler, …", 1.0, 0.0)),
        (ALWAYS_ON, Effect("AlwaysOnSampler", 1.0, 1.0)),
        (ALWAYS_OFF, Effect("AlwaysOffSampler", 0.0, 0.0)),
        (TraceIdRatioBased(0.0), Effect("TraceIdRatioBased{0.0}", 0.0, 0.0)),
    ],
    ids=["parent", "always on", "always off", "ratio"],
)
def test_samplers(sampler: Any, effect: Effect) -> None:
    assert effect_of(sampler) == effect


@makes("parent-ignored", "thinned-twice")
def test_samplers_that_thin_twice() -> None:
    ratio = {"OTEL_TRACES_SAMPLER_ARG": "0.05", "FORGE_OTEL_SAMPLING_RATE": "0.1"}
    _, findings, _ = doctor(**OTLP, OTEL_TRACES_SAMPLER="traceidratio", **ratio)

    runs = "about 5 % of runs are traced, the others have no spans"
    by_trace = f"{INSIDE} by trace id, so for all samples of a run or for none"
    message = f"{runs}; {by_trace} (TraceIdRatioBased{{0.05}})"
    assert of("parent-ignored", findings) == [("warning", "sampler", message, FOLLOW_PARENT)]
    twice = "about 5 % of runs × sampling_rate 0.1: about 0.5 % of samples are traced"
    remedy = "let one of them thin: keep the sampler at parentbased_always_on, or sampling_rate at 1"
    assert of("thinned-twice", findings) == [("warning", "sampler", twice, remedy)]

    _, findings, _ = doctor(**OTLP, OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.05")
    assert of("thinned-twice", findings) == []
    assert ("ok", "sampler", f"{runs}; {FOLLOWS} (ParentBased{{root:TraceIdRatioBased{{0.05}}, …)") in findings

    _, findings, _ = doctor(**OTLP, OTEL_TRACES_SAMPLER="always_on", FORGE_OTEL_SAMPLING_RATE="0.1")
    strays = f"{INSIDE} for untraced samples as well, as children of spans that do not exist"
    message = f"every run is traced; {strays} (AlwaysOnSampler)"
    assert of("parent-ignored", findings) == [("warning", "sampler", message, FOLLOW_PARENT)]
    assert of("thinned-twice", findings) == []


BROKEN = """
from opentelemetry.sdk.trace.sampling import Sampler

class Remote(Sampler):
    def __init__(self, argument=None): pass
    def should_sample(self, *_, **__): raise RuntimeError("no connection")
    def get_description(self): return "Remote"
"""


@makes("sampler-failed", "nothing-sampled", "check-failed")
def test_a_sampler_that_fails_and_one_that_drops_all(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    entry_points = "[opentelemetry_traces_sampler]\nremote = broken:Remote\n"
    distribution(tmp_path, "broken", entry_points=f"{entry_points}[opentelemetry_environment_variables]\nx = nothing\n")
    code, findings, _ = doctor(**OTLP, **found_first(tmp_path), OTEL_TRACES_SAMPLER="remote")

    assert code == 1
    failed = ("error", "sampler", "Remote raised RuntimeError: no connection", "correct or replace the sampler")
    assert of("sampler-failed", findings) == [failed]
    message = "misspelled_variables raised ModuleNotFoundError: No module named 'nothing'"
    assert ("error", "doctor", message) in [finding[:3] for finding in of("check-failed", findings)]

    _, findings, _ = doctor(**OTLP, OTEL_TRACES_SAMPLER="always_off")
    message = "none of 10,000 runs would be traced (AlwaysOffSampler)"
    assert of("nothing-sampled", findings) == [("warning", "sampler", message, "set OTEL_TRACES_SAMPLER")]


# Destinations.


@makes("wrong-port", "wrong-path", "no-scheme")
def test_addresses_that_are_unlikely() -> None:
    _, findings, _ = doctor(
        **NAME,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://collector:4318",
        OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://collector:4317",
        OTEL_EXPORTER_OTLP_LOGS_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318",
        HTTP_PROXY="http://user:secret@proxy:8080",
        NO_PROXY="elsewhere",
    )

    grpc, http = "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    assert of("wrong-port", findings) == [
        (
            "warning",
            "traces",
            "gRPC to collector:4318: port 4318 is usually that of HTTP",
            f"set {http}, or use port 4317",
        ),
        (
            "warning",
            "metrics",
            "HTTP to http://collector:4317: port 4317 is usually that of gRPC",
            f"set {grpc}, or use port 4318",
        ),
    ]
    path = "HTTP to the path / of http://collector:4317: a Collector expects /v1/metrics"
    remedy = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT needs the whole path, OTEL_EXPORTER_OTLP_ENDPOINT none of it"
    assert of("wrong-path", findings) == [("warning", "metrics", path, remedy)]
    address = "collector:4318/v1/logs"
    message = f"{address} has no scheme, so nothing can be sent"
    assert of("no-scheme", findings) == [("warning", "logs", message, f"write http://{address} or https://{address}")]
    assert ("ok", "traces", "OTLPSpanExporter to collector:4318 (gRPC, not encrypted)") in findings
    proxied = "OTLPMetricExporter to http://collector:4317 (through the proxy http://…@proxy:8080)"
    assert ("ok", "metrics", proxied) in findings

    _, findings, _ = doctor(
        **NAME,
        OTEL_EXPORTER_OTLP_ENDPOINT="collector:4317",
        OTEL_EXPORTER_OTLP_LOGS_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="http://collector:4318/v1/logs/v1/logs",
        OTEL_METRICS_EXPORTER="none",
    )
    message = "collector:4317 has no scheme, so gRPC encrypts, which a Collector without certificate refuses"
    remedy = "write http://collector:4317, or https://collector:4317 if it has one"
    assert of("no-scheme", findings) == [("warning", "traces", message, remedy)]
    assert [finding[1] for finding in of("wrong-path", findings)] == ["logs"]


@makes("unwritable-file", "exceptions-lost")
def test_what_is_written_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    files = {**NAME, "OTEL_TRACES_EXPORTER": "otlp_file", "FORGE_OTEL_FILE_PATH": str(tmp_path / "file/traces.jsonl")}
    _, findings, _ = doctor(**files, OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none")

    message = f"{tmp_path / 'file/traces.jsonl'} cannot be written: {tmp_path / 'file'} is not a folder"
    unwritable = ("error", "traces", message, "correct the path or its permissions")
    assert of("unwritable-file", findings) == [unwritable]
    lost = "exceptions=logs: messages and stack traces of failures are not exported"
    assert of("exceptions-lost", findings) == [("warning", "settings", lost, "set FORGE_OTEL_EXCEPTIONS=span_events")]

    _, findings, _ = doctor(**{**files, "FORGE_OTEL_FILE_PATH": str(tmp_path)})
    message = f"{tmp_path} cannot be written: it is a folder"
    assert of("unwritable-file", findings) == [("error", "traces", message, "correct the path or its permissions")]

    delta = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    _, findings, _ = doctor(
        **OTLP, **delta, FORGE_OTEL_EVENTS="none", FORGE_OTEL_EXCEPTIONS="both", OTEL_TRACES_EXPORTER="none"
    )
    [(_, _, message, remedy)] = of("exceptions-lost", findings)
    assert message == "exceptions=both: messages and stack traces of failures are not exported"
    assert remedy == "export the signal, or set FORGE_OTEL_EXCEPTIONS to the other one: logs or span_events"
    assert ("ok", "metrics", "OTLPMetricExporter to http://…@127.0.0.1:1?… (delta temporality)") in findings


@makes("no-exporter")
def test_no_exporters() -> None:
    code, findings, _ = doctor("--send", **NAME, **OFF)

    assert code == 0
    lost = {
        "traces": "spans are dropped",
        "metrics": "metrics are dropped, and no alert or dashboard works",
        "logs": "events are dropped",
    }
    assert findings[-4:-1] == [
        ("warning", signal, f"no exporter, so {what}", f"set OTEL_{signal.upper()}_EXPORTER", "no-exporter")
        for signal, what in lost.items()
    ]


@makes("port-in-use", "scrape-failed")
def test_a_reader_that_is_scraped(tmp_path: Path) -> None:
    variables = {**NAME, **OFF, "OTEL_METRICS_EXPORTER": "prometheus"}
    port = free_port()
    address = {"OTEL_EXPORTER_PROMETHEUS_PORT": str(port), "OTEL_EXPORTER_PROMETHEUS_HOST": "127.0.0.1"}

    code, findings, _ = doctor("--send", **variables, **address)
    assert code == 0
    [(level, _, message)] = [finding for finding in findings if finding[1] == "metrics"]
    assert level == "ok"
    assert message.startswith(f"_AutoPrometheusMetricReader at http://127.0.0.1:{port}/metrics, which answers with ")
    assert "what a process counts after its last scrape is lost" in message
    assert not [finding for finding in findings if finding[1] == "sent"]  # nothing is

    with socket.create_server(("127.0.0.1", port)):
        code, findings, _ = doctor(**variables, **address)
    assert code == 1
    [taken] = of("port-in-use", findings)
    assert taken[2].startswith(f"127.0.0.1:{port} for Prometheus is in use: ")

    entry_points = (
        "[opentelemetry_metrics_exporter]\nsilent = opentelemetry.exporter.prometheus:PrometheusMetricReader\n"
    )
    distribution(tmp_path, "silent", entry_points=entry_points)
    variables["OTEL_METRICS_EXPORTER"] = "silent"
    code, findings, _ = doctor(**variables, **address, **found_first(tmp_path))
    assert code == 1
    [failed] = of("scrape-failed", findings)
    assert failed[1:3] == (
        "metrics",
        f"PrometheusMetricReader at http://127.0.0.1:{port}/metrics does not answer: [Errno 111] Connection refused",
    )


# Sending.


def test_sending_by_a_configuration_file(tmp_path: Path) -> None:
    file = configuration(tmp_path, forge={"zero_points": False})

    code, findings, errors = doctor("--send", OTEL_CONFIG_FILE=str(file))

    assert (code, errors) == (0, "")
    assert ("ok", "settings", "zero_points=False") in findings
    assert findings[-4:] == [
        ("ok", "traces", f"OTLPFileSpanExporter to {tmp_path / 'traces.jsonl'}"),
        ("ok", "metrics", f"OTLPFileMetricExporter to {tmp_path / 'metrics.jsonl'}"),
        ("ok", "logs", f"OTLPFileLogExporter to {tmp_path / 'logs.jsonl'}"),
        ("ok", "sent", "traces, metrics, logs of a run of the pipeline forge-otel-doctor with 2 samples"),
    ]
    assert [span["name"] for span in records(tmp_path, "traces")].count("forge.pipeline forge-otel-doctor") == 1
    assert "forge.pipeline.summary" in [record.get("eventName") for record in records(tmp_path, "logs")]


@makes("not-delivered", "send-error")
def test_sending_to_nobody() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    variables = {**OTLP, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "FORGE_OTEL_SHUTDOWN_TIMEOUT": "3"}
    code, findings, errors = doctor(
        "--send", **variables, OTEL_EXPORTER_OTLP_TIMEOUT="3600", FORGE_OTEL_ZERO_POINTS="false"
    )

    missing = [message for _, _, message in of("not-delivered", findings)]
    assert code == 1
    assert f"not delivered: 5 spans to {endpoint}/v1/traces" in missing
    assert f"not delivered: 4 log records to {endpoint}/v1/logs" in missing
    [metrics] = [message for message in missing if message.startswith("not delivered: the metrics since ")]
    assert metrics.endswith(f" to {endpoint}/v1/metrics")
    met = of("send-error", findings)
    remedy = "nothing listens there: check the endpoint, and that the Collector or the backend runs"
    assert all("refused" in finding[2] and endpoint in finding[2] for finding in met)
    assert {finding[3] for finding in met} == {remedy}
    assert errors == ""


NOTHING = "nothing answers within 10 s: check firewalls, proxies and the endpoint"
ENCRYPTED = "one side encrypts and the other does not, or does not trust its certificate"
HANGS_UP = "the server hangs up: it may expect another protocol (OTEL_EXPORTER_OTLP_PROTOCOL), or https://"
UNKNOWN_HOST = "the host's name is not known here"
EXPECTED = {
    ("grpc", "hangs"): {NOTHING},
    ("grpc", "refuses"): {"nothing listens there"},
    ("grpc", "is not known"): {UNKNOWN_HOST, NOTHING},  # where the name server takes longer
    ("grpc", "is busy"): {"the server may speak HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"},
    ("grpc", "encrypts"): {HANGS_UP},
    ("grpc", "does not encrypt"): {ENCRYPTED},
    ("http/protobuf", "hangs"): {NOTHING},
    ("http/protobuf", "refuses"): {"nothing listens there"},
    ("http/protobuf", "is not known"): {UNKNOWN_HOST, NOTHING},
    ("http/protobuf", "is busy"): {"the backend is overloaded, or it starts"},
    ("http/protobuf", "encrypts"): {HANGS_UP},
    ("http/protobuf", "does not encrypt"): {ENCRYPTED},
}
"""What the doctor says of a server, by protocol."""


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Run servers that are of no use; yields their URLs by what they do."""

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: Any) -> None:
            """Print nothing of a handshake that fails."""

    certify(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with (
        socket.create_server(("127.0.0.1", 0)) as hanging,
        Server(("127.0.0.1", 0), Busy) as busy,
        Server(("127.0.0.1", 0), Busy) as encrypting,
    ):
        encrypting.socket = context.wrap_socket(encrypting.socket, server_side=True)
        for server in (busy, encrypting):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield {
            "hangs": f"http://127.0.0.1:{hanging.getsockname()[1]}",
            "refuses": f"http://127.0.0.1:{free_port()}",
            "is not known": "http://collector.invalid:4319",
            "is busy": f"http://127.0.0.1:{busy.server_port}",
            "encrypts": f"http://127.0.0.1:{encrypting.server_port}",
            "does not encrypt": f"https://127.0.0.1:{busy.server_port}",
        }
        for server in (busy, encrypting):
            server.shutdown()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(
    "does", [("hangs", "is busy", "refuses"), ("is not known", "encrypts", "does not encrypt")], ids=" ".join
)
def test_sending_ends_whatever_the_servers_do(protocol: str, does: Sequence[str], tmp_path: Path) -> None:
    """Each signal goes to another server; only the doctor's own limit ends what would take an hour."""
    variables = {
        **NAME,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
        "FORGE_OTEL_SHUTDOWN_TIMEOUT": "10",
    }
    with servers(tmp_path) as urls:
        addresses = {}
        for signal, what in zip(("traces", "metrics", "logs"), does, strict=True):
            url = urls[what] if protocol == "grpc" else f"{urls[what]}/v1/{signal}"
            variables[f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"] = url
            addresses[what] = url.partition("//")[2] if protocol == "grpc" else url
        code, findings, _ = doctor("--send", **variables)

    assert code == 1
    for what, address in addresses.items():
        [missing] = [finding for finding in of("not-delivered", findings) if finding[2].endswith(f" to {address}")]
        remedies = [*missing[3:], *(finding[3] for finding in of("send-error", findings) if address in finding[2])]
        assert any(remedies[0].startswith(remedy) for remedy in EXPECTED[protocol, what]), (what, remedies)


# Storage.


@makes("storage")
def test_the_schema_of_a_database(tmp_path: Path) -> None:
    def found(url: str) -> tuple[int, Finding]:
        code, findings, _ = doctor("--storage", url, **OTLP)
        return code, findings[-1]

    url = f"sqlite:///{tmp_path / 'corpus.db'}"
    new = f"no tables yet; the first run creates them, with schema version {VERSION}"
    assert found(url) == (0, ("ok", "storage", new))
    connection = sqlite3.connect(tmp_path / "corpus.db")
    connection.execute("CREATE TABLE forge_samples (id TEXT)")
    assert found(url) == (0, ("ok", "storage", f"schema version 1; the next run migrates it to {VERSION}"))
    connection.execute("CREATE TABLE forge_schema (version INTEGER)")
    for version in (VERSION, 99):
        connection.execute(f"INSERT INTO forge_schema VALUES ({version})")
        connection.commit()
        if version == VERSION:
            assert found(url) == (0, ("ok", "storage", f"schema version {VERSION}"))
    connection.close()
    remedy = "install the release of forge-otel that wrote it, or use another database"
    newer = ("error", "storage", f"schema version 99, newer than {VERSION}", remedy, "storage")
    assert found(url) == (1, newer)


# Output.


def test_a_line_for_each_finding() -> None:
    variables = OTLP | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@127.0.0.1:1"}
    done = run(**variables, OTEL_TRACES_SAMPLER="always_off")

    assert done.stdout.splitlines()[0].endswith(f", storage schema {VERSION}")
    nothing = "none of 10,000 runs would be traced (AlwaysOffSampler) → set OTEL_TRACES_SAMPLER [nothing-sampled]"
    assert done.stdout.splitlines()[1:] == [
        "ok       forge     all 40 functions are instrumented",
        "ok       settings  the defaults",
        f"warning  sampler   {nothing}",
        "ok       service   corpus",
        *(f"{level:7}  {subject:8}  {message}" for level, subject, message in SIGNALS),
        "1 warning; --send tests whether telemetry arrives",
    ]


def in_a_terminal(**environ: str) -> list[str]:
    """The lines in a terminal of 80 columns."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, "-m", "forge_otel.commands.cli", "doctor"]
    with subprocess.Popen(command, env=environment(**environ), stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        output = b""
        with contextlib.suppress(OSError):  # its end, on Linux
            while part := os.read(ours, 4096):
                output += part
        assert process.wait(timeout=TIMEOUT) == 0
    os.close(ours)
    return output.decode().splitlines()


def test_the_output_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    command, *expected = page.partition("```text\n$ ")[2].partition("```")[0].splitlines()
    *variables, program, option = command.split()
    assert (program, option) == ("forge-otel", "doctor")

    def without_versions(lines: list[str]) -> list[str]:
        text = "\n".join(lines[lines.index("ok       settings  the defaults") - 3 :])
        return re.sub(r"unknown_service:\S+", "unknown_service:python", text).splitlines()

    lines = in_a_terminal(**dict(variable.split("=", 1) for variable in variables), NO_COLOR="1")
    assert without_versions(lines) == without_versions(expected)
    assert lines[0].startswith("ok       versions  forge-otel ")
    assert max(map(len, lines)) <= 80

    colored = in_a_terminal(**dict(variable.split("=", 1) for variable in variables), TERM="xterm")
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in colored] == lines
    assert {line[:5] for line in colored if "\x1b" in line} == {"\x1b[32m", "\x1b[33m"}


@makes("interrupted")
def test_one_document_although_it_is_interrupted_and_exporters_print() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        variables = environment(
            **NAME,
            OTEL_TRACES_EXPORTER="console",
            OTEL_METRICS_EXPORTER="console",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{hanging.getsockname()[1]}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            FORGE_OTEL_SHUTDOWN_TIMEOUT="3600",
        )
        command = [sys.executable, "-m", "forge_otel.commands.cli", "doctor", "--json", "--send"]
        with (
            subprocess.Popen(
                command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process,
            hanging.accept()[0],
        ):  # the events are on their way
            process.send_signal(2)
            out, errors = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 130
    findings = json.loads(out)
    assert findings[-1]["problem"] == "interrupted"
    assert "forge.pipeline forge-otel-doctor" in errors
