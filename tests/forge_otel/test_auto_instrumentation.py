"""`opentelemetry-instrument`: a script that knows nothing of telemetry, in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import forge
from forge_otel.semconv import SCHEMA_URL
from tests.support.needs import need_installed
from tests.support.otlp_files import configuration

pytestmark = pytest.mark.slow

SCRIPT = """
from forge import BatchRunner, Pipeline, Sample, stage

@stage
def upper(sample):
    return sample.with_data(sample.data.upper())

pipeline = Pipeline(name="words", source=[Sample(data="a", id="a"), Sample(data="b", id="b")], stages=[upper])
with BatchRunner().run(pipeline) as run:
    print([sample.data for sample in run])
"""

SPANS = [
    "forge.pipeline words",
    "forge.sample",
    "forge.sample",
    "forge.stage upper",
    "forge.stage upper",
]
EVENTS = ["forge.pipeline.start", "forge.pipeline.stop", "forge.pipeline.summary", "forge.stage.summary"]

TO_FILES = {f"OTEL_{signal}_EXPORTER": "otlp_file" for signal in ("TRACES", "METRICS", "LOGS")}


@pytest.fixture(autouse=True)
def _installed() -> None:
    need_installed("forge-otel", "opentelemetry-distro", "opentelemetry-configuration")


@dataclass
class Output:
    """What a process printed."""

    printed: list[str] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    metrics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    scopes: set[tuple[str, str, str]] = field(default_factory=set)
    log: str = ""

    def settled(self) -> dict[str, int]:
        """By outcome, those that are not 0."""
        points = {point["attributes"][-1]["value"]["stringValue"]: int(point["asInt"]) for point in self._settled()}
        return {outcome: count for outcome, count in points.items() if count}

    def _settled(self) -> list[dict[str, Any]]:
        return self.metrics.get("forge.sample.settled", [])

    def read(self, line: str) -> None:
        """One line of OTLP in JSON."""
        data = json.loads(line)
        for resource in data.get("resourceSpans", ()):
            for scope in resource["scopeSpans"]:
                self._scope(scope)
                self.spans += [span["name"] for span in scope["spans"]]
        for resource in data.get("resourceLogs", ()):
            for scope in resource["scopeLogs"]:
                self._scope(scope)
                self.events += [record["eventName"] for record in scope["logRecords"] if record.get("eventName")]
        for resource in data.get("resourceMetrics", ()):
            for scope in resource["scopeMetrics"]:
                self._scope(scope)
                for metric in scope["metrics"]:
                    points = (metric.get("sum") or metric.get("gauge") or metric.get("histogram"))["dataPoints"]
                    self.metrics[metric["name"]] = points

    def _scope(self, data: dict[str, Any]) -> None:
        self.scopes.add((data["scope"]["name"], data["scope"].get("version", ""), data.get("schemaUrl", "")))


def instrumented(folder: Path, script: str = SCRIPT, **environ: str) -> Output:
    """Run a script under `opentelemetry-instrument`, and read what its exporters wrote to files in the folder."""
    file = folder / "script.py"
    file.write_text(script, encoding="utf-8")
    command = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
    assert command is not None
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("OTEL_", "FORGE_OTEL_"))}
    done = subprocess.run(
        [command, sys.executable, str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=folder,
        # With the instrumentation of `logging`, warnings would be exported, and not be seen on stderr.
        env={
            **inherited,
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "logging",
            "FORGE_OTEL_SHUTDOWN_TIMEOUT": "60",
            **environ,
        },
    )
    assert done.returncode == 0, done.stderr
    output = Output(done.stdout.splitlines(), log=done.stderr)
    for written in sorted([*folder.glob("*.jsonl"), *folder.glob("telemetry/*.jsonl")]):
        for line in written.read_text(encoding="utf-8").splitlines():
            output.read(line)
    return output


def test_everything_is_there(tmp_path: Path) -> None:
    output = instrumented(tmp_path, **TO_FILES)

    assert output.log == ""
    assert output.printed == ["['A', 'B']"]
    assert sorted(output.spans) == SPANS
    assert sorted(output.events) == EVENTS
    assert output.settled() == {"ready": 2}
    version = importlib.metadata.version("forge-otel")
    assert ("forge_otel", version, SCHEMA_URL) in output.scopes


def test_it_can_be_disabled(tmp_path: Path) -> None:
    output = instrumented(tmp_path, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="forge", **TO_FILES)

    assert output.log == ""
    assert output.printed == ["['A', 'B']"]
    assert (output.spans, output.events, output.metrics) == ([], [], {})


def test_without_an_sdk_the_script_works_as_before(tmp_path: Path) -> None:
    output = instrumented(tmp_path, OTEL_SDK_DISABLED="true", **TO_FILES)

    assert output.printed == ["['A', 'B']"]
    assert (output.spans, output.events, output.metrics) == ([], [], {})


def test_variables_count(tmp_path: Path) -> None:
    output = instrumented(tmp_path, FORGE_OTEL_COMPONENTS="stage", FORGE_OTEL_EVENTS="all", **TO_FILES)

    assert output.log == ""
    assert output.spans == ["forge.stage upper"] * 2
    assert output.events == ["forge.stage.start", "forge.stage.stop"] * 2


def found_first(folder: Path) -> dict[str, str]:
    """The environment in which Python looks into this folder before all others."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


def witness(folder: Path) -> dict[str, str]:
    """Installs something that says so when OpenTelemetry has loaded all instrumentors; returns the environment for it.

    An instrumentor that raises anything makes OpenTelemetry leave out all that come after it, and this.
    """
    metadata = folder / "site" / "witness-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: witness\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(
        "[opentelemetry_post_instrument]\nwitness = witness:say\n", encoding="utf-8"
    )
    (folder / "site" / "witness.py").write_text(
        "import sys\n\ndef say():\n    print('all are loaded', file=sys.stderr)\n", encoding="utf-8"
    )
    return found_first(folder / "site")


def test_a_bad_variable_is_logged_and_harms_nobody(tmp_path: Path) -> None:
    output = instrumented(tmp_path, **witness(tmp_path), FORGE_OTEL_COMPONENTS="stages", **TO_FILES)

    components = "runner, stage, measurement, storage, datatrove, ray_data"
    assert output.log.splitlines() == [
        f"FORGE_OTEL_COMPONENTS='stages' is ignored: it must be a collection of one or more of {components}",
        "all are loaded",
    ]
    assert sorted(output.spans) == SPANS


def another_version_of_forge(folder: Path) -> dict[str, str]:
    """Copies Forge there, without one of the functions that we patch; returns the environment for it."""
    shutil.copytree(Path(forge.__file__).parent, folder / "forge")
    executor = folder / "forge" / "execution" / "stage_executor.py"
    executor.write_text(executor.read_text(encoding="utf-8").replace("before_retry", "on_retry"), encoding="utf-8")
    return found_first(folder)


def test_another_version_of_forge_is_logged_and_harms_nobody(tmp_path: Path) -> None:
    """A class that we patch is not there: the module stays as it is, the others are instrumented."""
    output = instrumented(tmp_path, **another_version_of_forge(tmp_path / "old"), **TO_FILES)

    [line] = output.log.splitlines()
    assert line.startswith("patching forge.execution.stage_executor failed; the pipeline continues without it: ")
    assert "before_retry" in line
    assert output.printed == ["['A', 'B']"]
    assert sorted(output.spans) == [span for span in SPANS if span != "forge.stage upper"]


USUAL = "OTEL_CONFIG_FILE is set; ignoring configurator kwargs: ['auto_instrumentation_version']"
"""Logged by `opentelemetry-instrument` whenever there is a file."""


def configured(folder: Path, *entries: str, **environ: str) -> tuple[Output, list[str]]:
    """Run the script with a declarative configuration file; returns what it printed, and what we logged."""
    file = configuration(folder, yaml.safe_load("\n".join(entries)))
    output = instrumented(folder, OTEL_CONFIG_FILE=str(file), **environ)
    return output, [line for line in output.log.splitlines() if line != USUAL]


def test_a_configuration_file(tmp_path: Path) -> None:
    entries = ["enabled: true", "components: [runner, stage]", "events: all", "trace_per_sample: true"]
    output, log = configured(tmp_path, *entries)

    assert log == []
    assert output.printed == ["['A', 'B']"]
    assert sorted(output.spans) == SPANS
    assert sorted(set(output.events) - set(EVENTS)) == ["forge.stage.start", "forge.stage.stop"]
    assert output.settled() == {"ready": 2}


def test_a_file_counts_more_than_variables(tmp_path: Path) -> None:
    output, log = configured(tmp_path, "components: [stage]", FORGE_OTEL_COMPONENTS="runner", FORGE_OTEL_EVENTS="none")

    assert log == []
    assert output.spans == ["forge.stage upper"] * 2
    assert output.events == []


def test_bad_entries_are_logged_and_the_others_count(tmp_path: Path) -> None:
    output, log = configured(tmp_path, "components: [stage]", "events: some", "sampling: 0.5")

    meant = "there is no such setting; did you mean sampling_rate?"
    assert log == [
        "events: 'some' of forge in the configuration file is ignored: it must be one of default, all, none",
        f"sampling: 0.5 of forge in the configuration file is ignored: {meant}",
    ]
    assert output.spans == ["forge.stage upper"] * 2
