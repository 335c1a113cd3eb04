"""What the Compose files mount and say to their programs, given to these programs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.compose import SCALE, Service, mounts, option, project
from tests.support.tools import tool


class Container:
    """A folder that stands for a service's file system, and its options with the paths in there."""

    def __init__(self, service: Service, root: Path) -> None:
        self.root = root
        places = {**mounts(service, "bind"), **mounts(service, "volume")}
        for target, source in places.items():
            place = root / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if Path(source).is_file():
                shutil.copy(source, place)
            elif Path(source).is_dir():
                shutil.copytree(source, place)
            else:
                place.mkdir()
        self.options = [self._inside(part, places) for part in service["command"]]
        self.environment = {name: self._inside(value, places) for name, value in service.get("environment", {}).items()}

    def _inside(self, text: str, places: Mapping[str, str]) -> str:
        """A path of the container, in the folder. A path that nothing is mounted at stays, and is not found."""
        flag, separator, value = text.rpartition("=")
        return f"{flag}{separator}{self.root}{value}" if any(value.startswith(place) for place in places) else text

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=300
        )


@pytest.mark.slow
def test_the_collector_takes_its_files(tmp_path: Path) -> None:
    container = Container(project()["services"]["otelcol"], tmp_path)
    done = container.run(tool("otelcol-forge"), "validate", *container.options)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["otelcol", "otelcol-2", "gateway-1", "gateway-2"])
def test_agents_and_gateways_take_their_files(name: str, tmp_path: Path) -> None:
    container = Container(project(*SCALE)["services"][name], tmp_path)
    done = container.run(tool("otelcol-forge"), "validate", *container.options)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_prometheus_finds_agents_and_gateways(tmp_path: Path) -> None:
    container = Container(project(*SCALE)["services"]["prometheus"], tmp_path)
    done = container.run(tool("promtool"), "check", "config", option(container.options, "--config.file"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "etc/prometheus/otelcol.targets.yaml").read_text() == (
        '- targets: ["otelcol:8888", "otelcol-2:8888", "gateway-1:8888", "gateway-2:8888"]\n'
    )


def test_prometheus_takes_its_files_and_finds_the_collector(tmp_path: Path) -> None:
    container = Container(project()["services"]["prometheus"], tmp_path)
    done = container.run(tool("promtool"), "check", "config", option(container.options, "--config.file"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout
    assert (tmp_path / "etc/prometheus/otelcol.targets.yaml").read_text() == '- targets: ["otelcol:8888"]\n'


def test_jaeger_takes_its_file(tmp_path: Path) -> None:
    container = Container(project()["services"]["jaeger"], tmp_path)
    done = container.run(tool("jaeger"), "validate", *container.options)

    assert done.returncode == 0, done.stderr


def test_victoria_logs_takes_its_options(tmp_path: Path) -> None:
    container = Container(project()["services"]["victoria-logs"], tmp_path)
    # It reads all options before it finds out that the last one is unknown.
    done = container.run(tool("victoria-logs"), *container.options, "-last.option")

    assert done.returncode == 2
    assert "flag provided but not defined: -last.option" in done.stdout


def test_graphite_takes_its_options(tmp_path: Path) -> None:
    container = Container(project()["services"]["graphite"], tmp_path)
    done = container.run(tool("victoria-metrics"), *container.options, "-dryRun")

    assert done.returncode == 0, done.stderr


def test_prometheus_takes_its_options(tmp_path: Path) -> None:
    container = Container(project()["services"]["prometheus"], tmp_path)
    # It reads all options before it finds out that there is no such file.
    options = [part for part in container.options if not part.startswith("--config.file")]
    done = container.run(tool("prometheus"), *options, "--config.file=missing", "--log.level=warn")

    assert done.returncode == 2
    assert "missing: no such file or directory" in done.stderr
    assert "Unknown option" not in done.stderr
