"""What the tests of recipes share."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stack.programs import Program, answers
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.recipes import environment
from tests.support.tools import tool

ROOT = Path(__file__).parents[2]

Environment = Callable[[str], dict[str, str]]
"""Returns the variables of the environment that a program is installed in."""


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that takes OTLP, started as the recipe for cron jobs says."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    (folder / "prometheus.yml").write_text(
        "otlp: {keep_identifying_resource_attributes: true}\nstorage: {tsdb: {out_of_order_time_window: 30m}}\n"
    )
    port = free_port()
    server = Program(
        "prometheus",
        [
            tool("prometheus"),
            "--config.file=prometheus.yml",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-otlp-receiver",
            "--enable-feature=created-timestamp-zero-ingestion,exemplar-storage",
        ],
        folder,
        environment(),
    )
    server.start(lambda: answers(f"http://127.0.0.1:{port}/-/ready"))
    yield Prometheus(f"http://127.0.0.1:{port}")
    server.kill()


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkout's wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob("*.whl")
    target = folder / "installed"
    zipfile.ZipFile(wheel).extractall(target)
    return target


@pytest.fixture
def orchestrator(installed: Path) -> Environment:
    """Return the variables of the environment that a program of `tools/stack` is installed in, with forge-otel."""

    def environment(name: str) -> dict[str, str]:
        path = os.pathsep.join([str(tool(name).parent), os.environ["PATH"]])
        variables = {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(installed),
            "PIP_NO_INDEX": "1",
            "FORGE_OTEL_SHUTDOWN_TIMEOUT": "60",
        }
        checked = subprocess.run(["pip", "check"], env=variables, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout
        return variables

    return environment
