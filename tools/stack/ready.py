"""`make ready`: waits until every service that is up answers, and says where it is.

`docker compose ps` says which ones are up, `docker compose config` where they are published, and this asks them from
outside, since some of the images have nothing in them that could. Needs nothing but Docker and Python's standard
library.
"""

from __future__ import annotations

import argparse
import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any
from urllib.request import urlopen

ONCE = 3.0
"""Seconds that one question may take."""
PAUSE = 1.0
"""Seconds between two."""
USUAL = "127.0.0.1"
"""The address where the ports are published, unless `PUBLISH_ADDRESS` or an override says another."""


@dataclass(frozen=True)
class Service:
    """A service of the Compose files, and how to ask it."""

    name: str
    asked: str
    """`http://…`, which has to answer with success, or `host:port` of StatsD's commands."""
    use: str
    """What it is there for, with its address."""

    def at(self, ports: Sequence[Mapping[str, Any]]) -> Service:
        """Return the same service where its ports are published, as Compose's configuration says."""
        asked, use = self.asked, self.use
        for port in ports:
            here, there = f"{USUAL}:{port['target']}", f"{port['host_ip']}:{port['published']}"
            asked, use = asked.replace(here, there), use.replace(here, there)
        return replace(self, asked=asked, use=use)

    def is_ready(self) -> bool:
        """Whether it answers as it should."""
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
    Service("graphite", "http://127.0.0.1:8428/health", "what StatsD has sent, in Grafana"),
    Service("grafana", "http://127.0.0.1:3000/api/health", "dashboards at http://127.0.0.1:3000"),
)


def main() -> int:
    """Wait; 0 when all answer, 1 when the time is over or nothing is up, 2 without Docker."""
    parser = argparse.ArgumentParser(prog="make ready", description="Wait until the stack answers.")
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="seconds to wait at most (180)")
    end = time.monotonic() + parser.parse_args().timeout
    try:
        waiting, options = _started()
    except OSError as error:
        print(f"make ready needs Docker, to ask which services are up: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
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
    found = {each["Service"]: each["Project"] for each in map(json.loads, filter(str.strip, listed))}
    projects = json.loads(_compose("ls", "--all", "--format", "json"))
    files = [file for each in projects if each["Name"] in found.values() for file in each["ConfigFiles"].split(",")]
    options = [option for file in files for option in ("--file", file)] if len(files) > 1 else []
    configured = json.loads(_compose(*options, "--profile", "*", "config", "--format", "json"))["services"]
    return [service.at(configured[service.name]["ports"]) for service in SERVICES if service.name in found], options


def _compose(*arguments: str) -> str:
    """Return what a Compose command writes."""
    command = ["docker", "compose", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _http(url: str) -> bool:
    with urlopen(url, timeout=ONCE) as response:
        response.read()
    return True


def _statsd(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), ONCE) as connection:
        connection.sendall(b"health\n")
        return connection.recv(64).startswith(b"health: up")


if __name__ == "__main__":
    sys.exit(main())
