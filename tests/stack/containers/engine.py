"""A container engine: under CI one of our own, on a user's machine the one that is there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.compose import ROOT
from tests.support.needs import lacking
from tests.support.tools import tool
from tests.support.waiting import LONG, wait_until

from .images import Image, images

PROJECT = "forge-otel-test"
"""Another project than that of a user's own stack, whose volumes the tests must not touch."""
ADDRESS = "127.0.0.20" if sys.platform == "linux" else "127.0.0.1"
"""Where its ports are published: other tests ask at the usual address, and a user's own stack may be there. Elsewhere
than on Linux that is the only one that there is.
"""
HINT = "needs a running Docker with Compose, or root to start one: apt-get install docker.io containerd runc iptables"


class Engine:
    """Docker, with Compose, told about this project."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        ours = {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_BAKE": "false", "PUBLISH_ADDRESS": ADDRESS}
        self._variables = dict(variables)
        self.environment = {**os.environ, **ours, **variables}

    def told(self, **variables: str) -> Engine:
        """Return the same engine with these variables as well."""
        return Engine({**self._variables, **variables})

    def run(
        self, *command: str, check: bool = True, timeout: float = 900, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout, with this engine."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            text=True,
            timeout=timeout,
            check=False,
            **{"capture_output": True, **options},
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    def docker(self, *arguments: str) -> str:
        """What a Docker command writes."""
        return str(self.run("docker", *arguments).stdout)

    def compose(self, *arguments: str) -> str:
        """What a Compose command writes."""
        return str(self.run("docker", "compose", *arguments).stdout)

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        identity = self.compose("ps", "--all", "--quiet", service).strip()
        (found,) = json.loads(self.docker("inspect", identity))
        return dict(found)


@contextmanager
def engine() -> Iterator[Engine]:
    """An engine that has the images; what runs in it of this project is removed at the end."""
    found = _running() if os.environ.get("CI") != "true" else None
    if found is not None:
        try:
            yield found
        finally:
            found.run("docker", "compose", "--profile", "demo", "down", "--volumes", "--remove-orphans", check=False)
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None or shutil.which("docker") is None:
        lacking(HINT)
    compose = tool("docker-compose")
    made = list(images())
    with tempfile.TemporaryDirectory(prefix="forge-otel-engine-") as folder, _daemon(Path(folder), compose) as own:
        for image in made:
            _import(own, image)
        try:
            yield own
        finally:
            own.run("docker", "compose", "--profile", "demo", "down", "--volumes", "--remove-orphans", check=False)


def _running() -> Engine | None:
    """The engine that is there already, if it has Compose."""
    own = Engine({})
    for question in (["docker", "info"], ["docker", "compose", "version"]):
        if shutil.which("docker") is None or own.run(*question, check=False).returncode != 0:
            return None
    return own


@contextmanager
def _daemon(folder: Path, compose: Path) -> Iterator[Engine]:
    """An engine of our own. Its images outlast it, beside the programs that they are made of."""
    plugins = folder / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(compose)
    socket = folder / "docker.sock"
    command = [
        "dockerd",
        f"--host=unix://{socket}",
        f"--data-root={compose.parent.parent / 'engine'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'pid'}",
    ]
    own = Engine({"DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(folder / "config")})
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:

        def answers() -> bool:
            assert daemon.poll() is None, (folder / "log").read_text()[-4000:]
            return own.run("docker", "info", check=False).returncode == 0

        wait_until(answers, "the engine answers")
        yield own
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(LONG)


def _import(own: Engine, image: Image) -> None:
    """Import an image, unless it is there and made of the same."""
    label = ["docker", "image", "inspect", "--format", '{{index .Config.Labels "made-from"}}', image.name]
    if own.run(*label, check=False).stdout.strip() == image.fingerprint:
        return
    root = image.root()
    command = ["docker", "import", *image.options, "-", image.name]
    with root.open("rb") if isinstance(root, Path) else root as content:
        done = subprocess.run(
            command,
            env=own.environment,
            input=content.read(),
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
