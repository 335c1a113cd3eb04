"""The recipe of a complete configuration file: everything arrives, and nothing of ours is logged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.collector import Collector, running_collector
from tests.support.needs import need_installed
from tests.support.recipes import copy_files, environment, run_block, shell_blocks

pytestmark = pytest.mark.slow

PATIENT = {"shutdown_timeout: 5": "shutdown_timeout: 60"}
"""On a busy machine, delivery takes its time."""
UPSTREAM = "OTEL_CONFIG_FILE is set; ignoring configurator kwargs: ['auto_instrumentation_version']\n"


@pytest.fixture(autouse=True)
def _installed() -> None:
    need_installed("forge-otel", "opentelemetry-distro", "opentelemetry-configuration")


def run(command: str, folder: Path, **variables: str) -> tuple[str, str, Collector]:
    """Run a shell block; returns what it printed and logged, and what a Collector received."""
    with running_collector() as collector:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=environment(
                OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
                OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="logging",  # it would export warnings, instead of showing them
                PIP_NO_INDEX="1",
                **variables,
            ),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr, collector


@pytest.mark.parametrize(("block", "logged"), [(0, UPSTREAM), (1, "")])
def test_the_file_alone_makes_everything_work(tmp_path: Path, block: int, logged: str) -> None:
    copy_files("configuration-file", tmp_path, PATIENT)
    variables = "deployment.environment.name=staging,team=ml"
    command = shell_blocks("configuration-file")[block]
    printed, log, collector = run(command, tmp_path, OTEL_RESOURCE_ATTRIBUTES=variables)

    assert log == logged
    assert printed.startswith("greetings: completed in ")
    assert collector.names == [
        "forge.pipeline greetings",
        "forge.sample",
        "forge.sample",
        "forge.stage shout",
        "forge.stage shout",
    ]
    assert sorted(collector.events) == [
        "forge.pipeline.start",
        "forge.pipeline.stop",
        "forge.pipeline.summary",
        "forge.stage.summary",
    ]
    assert collector.metrics["forge.sample.settled"]["pipeline.name=greetings, sample.outcome=ready"] == 2
    [resource] = collector.resources
    assert resource["service.name"] == "greetings"
    assert resource["deployment.environment.name"] == "production"  # the file counts more than the variable
    assert resource["team"] == "ml"
    assert resource["service.instance.id"]


def test_the_doctor_misses_nothing_in_it(tmp_path: Path) -> None:
    copy_files("configuration-file", tmp_path)
    command = shell_blocks("configuration-file")[2]
    done = run_block(command, tmp_path, environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "no errors, no warnings; --send tests whether telemetry arrives"

    file = tmp_path / "otel.yaml"
    content = yaml.safe_load(file.read_text())
    del content["meter_provider"]
    file.write_text(yaml.safe_dump(content))
    assert "otel.yaml has no meter_provider (no metrics)" in run_block(command, tmp_path, environment()).stdout


def test_its_settings_are_in_effect(tmp_path: Path) -> None:
    copy_files("configuration-file", tmp_path, PATIENT)
    file = tmp_path / "otel.yaml"
    content = yaml.safe_load(file.read_text())
    content["instrumentation/development"]["python"]["forge"] |= {"events": "none", "sampling_rate": 0}
    file.write_text(yaml.safe_dump(content))
    _, log, collector = run("OTEL_CONFIG_FILE=otel.yaml opentelemetry-instrument python pipeline.py", tmp_path)

    assert log == UPSTREAM
    assert collector.names == ["forge.pipeline greetings"]
    assert collector.events == []


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        ("tracer_provider", "spans"),
        ("meter_provider", "metrics"),
        ("logger_provider", "events"),
    ],
)
def test_what_a_file_does_not_say_is_off(tmp_path: Path, left_out: str, missing: str) -> None:
    copy_files("configuration-file", tmp_path, PATIENT)
    file = tmp_path / "otel.yaml"
    content = yaml.safe_load(file.read_text())
    del content[left_out]
    file.write_text(yaml.safe_dump(content))
    _, _, collector = run("OTEL_CONFIG_FILE=otel.yaml opentelemetry-instrument python pipeline.py", tmp_path)

    received = {"spans": collector.spans, "metrics": collector.metrics, "events": collector.events}
    assert [name for name, records in received.items() if not records] == [missing]


def test_settings_do_not_need_an_entry_under_opentelemetry_instrument(tmp_path: Path) -> None:
    copy_files("configuration-file", tmp_path, PATIENT)
    file = tmp_path / "otel.yaml"
    content = yaml.safe_load(file.read_text())
    content["instrumentation/development"]["python"]["forge"] = {"enabled": False}
    content.pop("resource")
    file.write_text(yaml.safe_dump(content))
    _, _, collector = run(
        "OTEL_CONFIG_FILE=otel.yaml opentelemetry-instrument python pipeline.py", tmp_path, FORGE_OTEL_EVENTS="none"
    )
    assert len(collector.spans) == 5
    assert collector.events == []
    [resource] = collector.resources
    assert resource["service.name"].startswith("unknown_service:")
    assert "service.instance.id" not in resource

    _, _, collector = run("python main.py", tmp_path)
    assert collector.spans == []
