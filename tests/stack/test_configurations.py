"""Every configuration, alone where it makes sense and with its overlays, is accepted and starts without a complaint."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.support.certificates import certify
from tests.support.compose import ROOT
from tests.support.tools import tool

from .pipelines import finish, start_worker
from .services import CONFIGURATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .conftest import Stack

BACKENDS = ("prometheus", "victoria-logs", "jaeger", "statsd")
ELSEWHERE = ("loki", "tempo", "otlp")
"""Backends that the stack does not run."""
COMBINATIONS = [
    ("local",),
    ("local", "files"),
    *(("local", backend) for backend in (*BACKENDS, *ELSEWHERE)),
    ("local", *BACKENDS),
    ("local", "jaeger", "tail-sampling"),
    ("local", "gateway"),
    ("local", "gateway", *BACKENDS),
    ("local", "gateway", *BACKENDS, "tail-sampling"),
    ("local", "gateway", *BACKENDS, "tail-sampling", "gateway-acknowledge"),
    ("local", "gateway", "gateway-kafka", *BACKENDS, "tail-sampling"),
    ("local", "agent"),
    ("local", "agent", "agent-dns"),
    ("local", "agent", "agent-kafka"),
    ("local", "agent", "statsd"),
]
VARIABLES = {
    "OTELCOL_TOKEN": "sesame",
    "OTELCOL_TLS_CERT": "cert.pem",
    "OTELCOL_TLS_KEY": "key.pem",
    "OTELCOL_TLS_CA": "cert.pem",
    "OTELCOL_GATEWAYS": "[127.0.0.1:1, 127.0.0.1:2]",
    "OTELCOL_GATEWAYS_NAME": "gateway",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where there is a certificate."""
    folder = tmp_path_factory.mktemp("certificate")
    certify(folder)
    return folder


def test_all_of_them_are_tried() -> None:
    files = {path.stem for path in CONFIGURATIONS.glob("*.yaml")} - {"builder"}

    assert files == {name for combination in COMBINATIONS for name in combination}


def validate(*files: Path, folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Let the Collector validate configuration files together."""
    options = [option for file in files for option in ("--config", str(file))]
    command = [str(tool("otelcol-forge")), "validate", *options]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("combination", COMBINATIONS, ids="+".join)
def test_they_are_valid(combination: tuple[str, ...], folder: Path) -> None:
    done = validate(*(CONFIGURATIONS / f"{name}.yaml" for name in combination), folder=folder, variables=VARIABLES)

    assert (done.returncode, done.stderr) == (0, "")


BLOCKS = re.findall(
    r"^## ([^\n]+)\n(?:(?!^##).)*?```yaml\n(.*?)```", (ROOT / "docs/backends.md").read_text(), re.M | re.S
)


@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_the_documented_backends_are_valid(block: str, tmp_path: Path) -> None:
    (tmp_path / "block.yaml").write_text(block)
    files = [CONFIGURATIONS / "local.yaml", CONFIGURATIONS / "otlp.yaml", tmp_path / "block.yaml"]
    keys = dict.fromkeys(re.findall(r"\$\{env:(\w+)\}", block), "sesame")
    done = validate(*files, folder=tmp_path, variables=keys)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_gateway_does_not_start_without_its_secrets(folder: Path) -> None:
    done = validate(CONFIGURATIONS / "local.yaml", CONFIGURATIONS / "gateway.yaml", folder=folder, variables={})

    assert done.returncode == 1
    assert "no bearer token provided" in done.stderr
    assert "TLS configuration must include both certificate and key" in done.stderr


def test_nothing_old_and_nothing_to_complain_about(stack: Stack, tmp_path: Path) -> None:
    collector = stack.collector(*BACKENDS, "tail-sampling").run()
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 1}))
    collector.stop()

    levels = re.findall(r"^\S+Z\t(\w+)\t(.*)$", collector.log.read_text(), re.MULTILINE)
    assert "info" in {level for level, _ in levels}
    # The backends are not there, and that is all there is to say.
    assert not [text for level, text in levels if level != "info" and "Exporting failed" not in text]
    assert not [text for _, text in levels if "deprecated" in text.lower()]


def test_secrets_come_from_the_environment() -> None:
    for path in CONFIGURATIONS.glob("*.yaml"):
        for line in re.findall(r"^\s*(?:token|password|key_file|cert_file|ca_file):\s*(.*)$", path.read_text(), re.M):
            assert line.startswith("${env:"), f"{path.name}: {line}"


def test_everything_listens_on_loopback_unless_told_otherwise() -> None:
    for path in CONFIGURATIONS.glob("*.yaml"):
        if path.stem == "builder":
            continue
        configuration = yaml.safe_load(path.read_text())
        for kind in ("receivers", "extensions", "exporters"):
            for endpoint in re.findall(r"'endpoint': '([^']*)'", str(configuration.get(kind, {}))):
                assert "127.0.0.1" in endpoint, f"{path.name}: {endpoint}"


def test_every_route_with_a_queue_is_isolated() -> None:
    routes = {}
    for backend in (*BACKENDS, *ELSEWHERE):
        configuration = yaml.safe_load((CONFIGURATIONS / f"{backend}.yaml").read_text())
        for name, pipeline in configuration["service"]["pipelines"].items():
            routes[name] = (pipeline["receivers"], pipeline["processors"][-1])

    assert routes.keys() == {
        *("metrics/prometheus", "logs/victoria_logs", "traces/jaeger", "metrics/statsd"),
        *("logs/loki", "traces/tempo", "traces/backend", "metrics/backend", "logs/backend"),
    }
    assert set(map(str, routes.values())) == {"(['forward'], 'batch/isolate')"}
    sampling = yaml.safe_load((CONFIGURATIONS / "tail-sampling.yaml").read_text())
    assert sampling["service"]["pipelines"]["traces/jaeger"]["processors"][-1] == "batch/isolate"
