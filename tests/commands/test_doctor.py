"""`forge-otel doctor`: what it says about an environment, and about samplers."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

from forge.storage.migrations import VERSION
from forge_otel.commands.doctor.diagnostic import Diagnostic
from forge_otel.commands.doctor.sampler import check_sampler
from tests.forge_otel.test_auto_instrumentation import another_version_of_forge, found_first
from tests.stack.services import records
from tests.support.needs import need_installed
from tests.support.otlp_files import configuration
from tests.support.ports import free_port

INSIDE = "spans of other libraries in a stage are recorded"
OF_RUNS = "of runs are traced, the others have no spans"
FOLLOWS = f"{INSIDE} if the sample is traced"
STRAYS = f"{INSIDE} for untraced samples as well, as children of spans that do not exist"
BY_TRACE = f"{INSIDE} by trace id, so for all samples of a run or for none"
REMEDY = "parentbased_always_on and parentbased_traceidratio follow the sample"


# Samplers.


class Broken(Sampler):
    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        raise RuntimeError("no connection")

    def get_description(self) -> str:
        return "Remote"


PARENT_BASED = "(ParentBased{root:AlwaysOnSampler, …)"


@pytest.mark.parametrize(
    ("sampler", "level", "message"),
    [
        (ParentBased(ALWAYS_ON), "ok", f"every run is traced; {FOLLOWS} {PARENT_BASED}"),
        (
            ParentBased(TraceIdRatioBased(0.05)),
            "ok",
            f"about 5 % {OF_RUNS}; {FOLLOWS} (ParentBased{{root:TraceIdRatioBased{{0.05}}, …)",
        ),
        (ALWAYS_ON, "warning", f"every run is traced; {STRAYS}; {REMEDY} (AlwaysOnSampler)"),
        (
            TraceIdRatioBased(0.5),
            "warning",
            f"about 50 % {OF_RUNS}; {BY_TRACE}; {REMEDY} (TraceIdRatioBased{{0.5}})",
        ),
        (
            ParentBased(TraceIdRatioBased(0.002)),
            "ok",
            f"about 0.2 % {OF_RUNS}; {FOLLOWS} (ParentBased{{root:TraceIdRatioBased{{0.002}}, …)",
        ),
        (ALWAYS_OFF, "warning", "none of 10,000 runs would be traced (AlwaysOffSampler)"),
        (Broken(), "error", "Broken raised RuntimeError: no connection"),
    ],
    ids=["parent", "parent ratio", "always on", "ratio", "small ratio", "always off", "broken"],
)
def test_samplers(sampler: Sampler, level: Any, message: str) -> None:
    assert check_sampler(sampler) == Diagnostic(level, "sampler", message)


# Environments.


@pytest.fixture
def _installed() -> None:
    need_installed("forge-otel", "opentelemetry-distro", "opentelemetry-configuration")


def doctor(*options: str, before: Sequence[str] = (), **environ: str) -> tuple[int, list[tuple[str, str, str]], str]:
    """Its exit code, its findings but for the versions, and what it printed on stderr."""
    done = run(*options, "--json", before=before, **environ)
    versions, *findings = json.loads(done.stdout)
    version = importlib.metadata.version("opentelemetry-sdk")
    assert versions["subject"] == "versions"
    assert f"opentelemetry-sdk {version}" in versions["message"]
    return done.returncode, [tuple(finding.values()) for finding in findings], done.stderr


def run(*options: str, before: Sequence[str] = (), **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it in an environment without other settings."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("OTEL_", "FORGE_OTEL_"))}
    return subprocess.run(
        [*before, sys.executable, "-m", "forge_otel.commands.cli", "doctor", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**inherited, **environ},
    )


ALL = ("ok", "forge", "all 34 functions are instrumented")
DEFAULTS = ("ok", "settings", "the defaults")
USUAL_SAMPLER = ("ok", "sampler", f"every run is traced; {FOLLOWS} {PARENT_BASED}")
OTLP = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@127.0.0.1:1",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
}
SIGNALS = [
    ("ok", "traces", "OTLPSpanExporter to http://…@127.0.0.1:1/v1/traces"),
    ("ok", "metrics", "OTLPMetricExporter to http://…@127.0.0.1:1/v1/metrics"),
    ("ok", "logs", "OTLPLogExporter to http://…@127.0.0.1:1/v1/logs"),
]
NO_SIGNALS = [
    ("warning", "traces", "no SDK is configured, so there are no spans"),
    ("warning", "metrics", "no SDK is configured, so there are no metrics"),
    ("warning", "logs", "no SDK is configured, so there are no events"),
]


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
class TestEnvironments:
    def test_everything_is_well(self) -> None:
        assert doctor(**OTLP) == (0, [ALL, DEFAULTS, USUAL_SAMPLER, *SIGNALS], "")

    def test_settings_that_are_right_and_wrong(self) -> None:
        code, findings, _ = doctor(
            **OTLP, FORGE_OTEL_SAMPLING_RATE="0.01", FORGE_OTEL_EVENT="all", FORGE_OTEL_COMPONENTS="stage,runner"
        )

        level, subject, message = findings[0]
        assert code == 0
        assert (level, subject) == ("warning", "start")
        assert message.startswith("FORGE_OTEL_EVENT='all' is ignored: there is no such setting; there are components, ")
        assert ("ok", "settings", "components=['runner', 'stage'], sampling_rate=0.01") in findings

    @pytest.mark.parametrize(
        "variable", [{"FORGE_OTEL_EXCEPTIONS": "both"}, {"OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN": "logs/dup"}]
    )
    def test_the_signal_of_exceptions_that_is_in_effect(self, variable: dict[str, str]) -> None:
        assert ("ok", "settings", "exceptions='both'") in doctor(**OTLP, **variable)[1]

    def test_an_exporter_that_does_not_exist(self) -> None:
        message = "Requested component 'otpl' not found in entry point 'opentelemetry_traces_exporter'"
        assert doctor("--send", OTEL_TRACES_EXPORTER="otpl") == (
            1,
            [
                ("error", "start", f"Configuration of configurator failed: RuntimeError: {message}"),
                ("error", "forge", "not instrumented: OpenTelemetry did not load our instrumentor"),
                ("error", "sdk", "none is configured"),
                *NO_SIGNALS,
            ],
            "",
        )

    def test_no_exporters(self) -> None:
        code, findings, _ = doctor(
            "--send", **{f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
        )

        assert code == 0
        assert findings[-3:] == [
            ("warning", "traces", "no exporter, so spans are dropped: set OTEL_TRACES_EXPORTER"),
            ("warning", "metrics", "no exporter, so metrics are dropped: set OTEL_METRICS_EXPORTER"),
            ("warning", "logs", "no exporter, so events are dropped: set OTEL_LOGS_EXPORTER"),
        ]

    def test_an_instrumentation_that_is_disabled(self) -> None:
        said = "not instrumented: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS has forge"
        assert doctor("--send", **OTLP, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="logging, forge") == (
            1,
            [("error", "forge", said), USUAL_SAMPLER, *SIGNALS],
            "",
        )

    def test_an_sdk_that_is_disabled(self) -> None:
        assert doctor("--send", **OTLP, OTEL_SDK_DISABLED="true") == (
            1,
            [ALL, DEFAULTS, ("error", "sdk", "OTEL_SDK_DISABLED=true: nothing is recorded"), *SIGNALS],
            "",
        )

    def test_the_short_ways_are_switched_off(self) -> None:
        _, findings, _ = doctor(**OTLP, FORGE_OTEL_SDK_FAST_PATHS="off")
        assert ("ok", "speed", "FORGE_OTEL_SDK_FAST_PATHS=off: only the SDK's public API is used") in findings

    @pytest.mark.parametrize(
        ("variables", "why"),
        [
            ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "8"}, "span attributes are limited"),
            ({"OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true"}, "the SDK counts its own spans"),
        ],
    )
    def test_spans_that_the_sdk_has_to_start(self, variables: dict[str, str], why: str) -> None:
        _, findings, _ = doctor(**OTLP, **variables)
        speed = [finding for finding in findings if finding[1] == "speed"]
        assert speed == [("ok", "speed", f"the SDK starts the spans, which takes longer: {why}")]

    def test_another_package_of_the_same_name(self, tmp_path: Path) -> None:
        """`python-forge` installs a package `forge` that has nothing of ours."""
        (tmp_path / "forge").mkdir()
        (tmp_path / "forge" / "__init__.py").write_text("")
        (tmp_path / "python_forge-18.6.0.dist-info").mkdir()
        (tmp_path / "python_forge-18.6.0.dist-info" / "METADATA").write_text("Name: python-forge\nVersion: 18.6.0\n")
        (tmp_path / "python_forge-18.6.0.dist-info" / "top_level.txt").write_text("forge\n")

        code, findings, _ = doctor("--send", **OTLP, **found_first(tmp_path))

        assert code == 1
        remedy = "pip uninstall python-forge, then pip install --force-reinstall --no-deps forge-otel"
        assert findings[0] == ("error", "forge", f"python-forge installs a package of the same name: {remedy}")
        assert findings[1] == (
            "error",
            "forge",
            "importing forge.costs.usage failed: ModuleNotFoundError: No module named 'forge.costs'",
        )
        assert findings[-3:] == SIGNALS  # nothing is sent

    def test_another_version_of_forge(self, tmp_path: Path) -> None:
        code, findings, _ = doctor(**OTLP, **another_version_of_forge(tmp_path))

        assert code == 1
        (level, subject, message), *others = findings
        assert (level, subject) == ("warning", "start")
        module = "forge.execution.stage_executor"
        assert message.startswith(f"patching {module} failed; the pipeline continues without it: ")
        assert others[0] == ("error", "forge", f"not instrumented, because of its version: {module}")

    def test_a_process_that_is_instrumented_already(self) -> None:
        instrument = str(Path(sys.executable).parent / "opentelemetry-instrument")
        options = ["--traces_exporter", "console", "--metrics_exporter", "none", "--logs_exporter", "none"]
        code, findings, _ = doctor(before=[instrument, *options])

        assert code == 0
        assert findings == [
            ALL,
            DEFAULTS,
            USUAL_SAMPLER,
            ("ok", "traces", "ConsoleSpanExporter"),
            ("warning", "metrics", "no exporter, so metrics are dropped: set OTEL_METRICS_EXPORTER"),
            ("warning", "logs", "no exporter, so events are dropped: set OTEL_LOGS_EXPORTER"),
        ]

    def test_sending_by_a_configuration_file(self, tmp_path: Path) -> None:
        file = configuration(tmp_path, forge={"zero_points": False})

        assert doctor("--send", OTEL_CONFIG_FILE=str(file)) == (
            0,
            [
                ALL,
                ("ok", "settings", "zero_points=False"),
                USUAL_SAMPLER,
                ("ok", "traces", f"OTLPFileSpanExporter to {tmp_path / 'traces.jsonl'}"),
                ("ok", "metrics", f"OTLPFileMetricExporter to {tmp_path / 'metrics.jsonl'}"),
                ("ok", "logs", f"OTLPFileLogExporter to {tmp_path / 'logs.jsonl'}"),
                ("ok", "sent", "traces, metrics, logs of a run of the pipeline forge-otel-doctor with 2 samples"),
            ],
            "",
        )
        assert [span["name"] for span in records(tmp_path, "traces")].count("forge.pipeline forge-otel-doctor") == 1
        assert "forge.pipeline.summary" in [record.get("eventName") for record in records(tmp_path, "logs")]

    def test_bad_settings_of_statsd(self) -> None:
        code, findings, _ = doctor(
            OTEL_TRACES_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            OTEL_METRICS_EXPORTER="statsd",
            FORGE_OTEL_STATSD_NAME_TEMPLATE="{colour}.{name}",
            DD_TAGS="team:ml,stage:prod",
        )

        assert code == 0
        known = "{name}, {tags}, {pipeline}, {service}, {env}, {version}, {instance}"
        assert sorted(message for level, subject, message in findings if (level, subject) == ("warning", "start")) == [
            "DD_TAGS='team:ml,stage:prod': 'stage:prod' would replace a tag that the metrics have; it is ignored",
            (
                "FORGE_OTEL_STATSD_NAME_TEMPLATE='{colour}.{name}': it must not have the unknown placeholder {colour}; "
                f"there are {known}; it is ignored"
            ),
        ]

    def test_sending_to_nobody(self) -> None:
        endpoint = f"http://127.0.0.1:{free_port()}"
        variables = {**OTLP, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "FORGE_OTEL_SHUTDOWN_TIMEOUT": "0.5"}
        code, findings, errors = doctor(
            "--send", **variables, OTEL_EXPORTER_OTLP_TIMEOUT="3600", FORGE_OTEL_ZERO_POINTS="false"
        )

        sent = [(level, message) for level, subject, message in findings if subject == "sent"]
        assert code == 1
        assert ("error", f"not delivered: 5 spans to {endpoint}/v1/traces") in sent
        assert ("error", f"not delivered: 4 log records to {endpoint}/v1/logs") in sent
        [metrics] = [message for _, message in sent if message.startswith("not delivered: the metrics since ")]
        assert metrics.endswith(f" to {endpoint}/v1/metrics")
        assert any("refused" in message for _, message in sent)
        assert errors == ""

    def test_the_schema_of_a_database(self, tmp_path: Path) -> None:
        def found(url: str) -> tuple[int, tuple[str, str, str]]:
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
        assert found(url) == (1, ("error", "storage", f"schema version 99, newer than {VERSION}: {remedy}"))

    def test_a_line_for_each_finding(self) -> None:
        done = run(**OTLP, OTEL_TRACES_SAMPLER="always_off")

        assert done.stdout.splitlines()[0].endswith(f", storage schema {VERSION}")
        assert done.stdout.splitlines()[1:] == [
            "ok       forge     all 34 functions are instrumented",
            "ok       settings  the defaults",
            "warning  sampler   none of 10,000 runs would be traced (AlwaysOffSampler)",
            *(f"{level:7}  {subject:8}  {message}" for level, subject, message in SIGNALS),
        ]
