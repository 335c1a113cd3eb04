"""`make ready`: waits until every service that is up answers, and says where it is.

`docker compose ps` says which ones are up and where their ports are published, `docker compose config` where those of
one that is down would be, and this asks them from outside, since some of the images have nothing in them that could.
Needs nothing but Docker and Python's standard library.
"""

from __future__ import annotations

import argparse
import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any
from urllib.request import urlopen

ONCE = 3.0
"""Seconds that one question may take."""
PAUSE = 1.0
"""Seconds between two."""
USUAL = "127.0.0.1"
"""The address where the ports are published, unless `PUBLISH_ADDRESS` or an override says another one."""


@dataclass(frozen=True)
class Service:
    """A service of the Compose files, and how to ask it."""

    name: str
    asked: str
    """`http://…`, which has to answer with success, or `host:port` of StatsD's commands."""
    use: str
    """Its purpose, with its address."""

    def at(self, places: Mapping[int, str]) -> Service:
        """Return the same service at the addresses where its ports are published."""
        asked, use = self.asked, self.use
        for port, place in places.items():
            asked, use = asked.replace(f"{USUAL}:{port}", place), use.replace(f"{USUAL}:{port}", place)
        return replace(self, asked=asked, use=use)

    def is_ready(self) -> bool:
        """Return True if it answers as it should."""
        ask: Callable[[str], bool] = _http if self.asked.startswith("http://") else _statsd
        try:
            return ask(self.asked)
        except (OSError, HTTPException):
            return False


SERVICES = (
    Service("otelcol", "http://127.0.0.1:13133", "OTLP at 127.0.0.1:4317 (gRPC) and http://127.0.0.1:4318"),
    Service("otelcol-2", "http://127.0.0.1:13133", "OTLP at 127.0.0.1:4317 (gRPC) and http://127.0.0.1:4318"),
    Service("gateway-1", "http://127.0.0.1:13133", "takes what agents send"),
    Service("gateway-2", "http://127.0.0.1:13133", "takes what agents send"),
    Service("prometheus", "http://127.0.0.1:9090/-/ready", "metrics and alerts at http://127.0.0.1:9090"),
    Service("jaeger", "http://127.0.0.1:16686/api/services", "traces at http://127.0.0.1:16686"),
    Service("victoria-logs", "http://127.0.0.1:9428/health", "log records at http://127.0.0.1:9428/select/vmui"),
    Service("statsd-bridge", "http://127.0.0.1:4319/health", "OTLP becomes StatsD"),
    Service("statsd", "127.0.0.1:8126", "StatsD at 127.0.0.1:8125 (UDP)"),
    Service("graphite", "http://127.0.0.1:8428/health", "metrics of StatsD at http://127.0.0.1:8428/vmui"),
    Service("grafana", "http://127.0.0.1:3000/api/health", "dashboards at http://127.0.0.1:3000"),
)


def main() -> int:
    """Wait; 0 when all answer, 1 when the time is over or nothing is up, 2 without Docker, 130 when interrupted."""
    try:
        return _wait()
    except KeyboardInterrupt:
        return 130


def _wait() -> int:
    parser = argparse.ArgumentParser(prog="make ready", description="Wait until the stack answers.")
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="seconds to wait at most (180)")
    end = time.monotonic() + parser.parse_args().timeout
    try:
        waiting, options = _started()
    except OSError as error:
        print(f"make ready needs Docker, to ask which services are up: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        if not _has_compose():
            print("make ready needs Docker Compose: https://docs.docker.com/compose/install/", file=sys.stderr)
            return 2
        print(f"{shlex.join(error.cmd)} failed:\n{error.stderr.strip()}", file=sys.stderr)
        return 2
    if not waiting:
        print("nothing is up: start it with make up", file=sys.stderr)
        return 1
    while True:
        for service in [service for service in waiting if service.is_ready()]:
            print(f"{service.name:14} {service.use}", flush=True)
            waiting.remove(service)
        if not waiting:
            return 0
        if time.monotonic() >= end:
            names = [service.name for service in waiting]
            see = shlex.join(["docker", "compose", *options, "logs", *names])
            print(f"no answer from: {' '.join(names)}. See: {see}", file=sys.stderr)
            return 1
        time.sleep(PAUSE)


def _started() -> tuple[list[Service], list[str]]:
    """Return the services that have a container, also those that have died since, and the options that name the files
    that they were started with, where these are more than one.
    """
    listed = _compose("ps", "--all", "--format", "json").splitlines()
    containers = list(map(json.loads, filter(str.strip, listed)))
    found = {each["Service"]: each["Project"] for each in containers}
    projects = json.loads(_compose("ls", "--all", "--format", "json"))
    files = [file for each in projects if each["Name"] in found.values() for file in each["ConfigFiles"].split(",")]
    options = [option for file in files for option in ("--file", file)] if len(files) > 1 else []
    configured = json.loads(_compose(*options, "--profile", "*", "config", "--format", "json"))["services"]
    places = {name: published_at(service.get("ports", ())) for name, service in configured.items()}
    for each in containers:
        # As it was started, possibly with another PUBLISH_ADDRESS than that of today.
        places.setdefault(each["Service"], {}).update(publishing(each.get("Publishers") or ()))
    return [service.at(places[service.name]) for service in SERVICES if service.name in found], options


def published_at(ports: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Return where a service's ports are published, by port, as `docker compose config` has them."""
    return {
        port["target"]: _place(port.get("host_ip", ""), port["published"]) for port in ports if port.get("published")
    }


def publishing(ports: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Return where a container's ports are published, by port, as `docker compose ps` has them."""
    return {
        port["TargetPort"]: _place(port["URL"], port["PublishedPort"]) for port in ports if port.get("PublishedPort")
    }


def _place(address: str, port: object) -> str:
    """Return what to ask for a port that is published at an address, or at all of them."""
    if address in ("", "0.0.0.0", "::"):
        return f"{USUAL}:{port}"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _compose(*arguments: str) -> str:
    """Return what a Compose command writes."""
    command = ["docker", "compose", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _has_compose() -> bool:
    """Return True if Docker has its plug-in: without it, it complains of options, and explains all of its own."""
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def _http(url: str) -> bool:
    with urlopen(url, timeout=ONCE) as response:
        response.read()
    return True


def _statsd(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), ONCE) as connection:
        connection.sendall(b"health\n")
        return connection.recv(64).startswith(b"health: up")


if __name__ == "__main__":
    sys.exit(main())
