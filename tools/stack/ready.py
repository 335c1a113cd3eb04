"""`make ready`: waits until everything that docker-compose.yml starts answers, and says where it is.

Asks from outside, since some of the images have nothing in them that could ask. Needs nothing but Python's standard
library.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from urllib.request import urlopen

ONCE = 3.0
"""Seconds that one question may take."""
PAUSE = 1.0
"""Seconds between two."""


@dataclass(frozen=True)
class Service:
    """A service of docker-compose.yml, and how to ask it."""

    name: str
    asked: str
    """`http://…`, which has to answer with success, or `host:port` of StatsD's commands."""
    use: str
    """What it is there for, with its address."""

    def is_ready(self) -> bool:
        """Whether it answers as it should."""
        ask: Callable[[str], bool] = _http if self.asked.startswith("http://") else _statsd
        try:
            return ask(self.asked)
        except (OSError, HTTPException):
            return False


SERVICES = (
    Service("otelcol", "http://127.0.0.1:13133", "OTLP at 127.0.0.1:4317 (gRPC) and http://127.0.0.1:4318"),
    Service("prometheus", "http://127.0.0.1:9090/-/ready", "metrics and alerts at http://127.0.0.1:9090"),
    Service("jaeger", "http://127.0.0.1:16686/api/services", "traces at http://127.0.0.1:16686"),
    Service("victoria-logs", "http://127.0.0.1:9428/health", "log records at http://127.0.0.1:9428/select/vmui"),
    Service("statsd-bridge", "http://127.0.0.1:4319/health", "OTLP becomes StatsD"),
    Service("statsd", "127.0.0.1:8126", "StatsD at 127.0.0.1:8125 (UDP)"),
    Service("graphite", "http://127.0.0.1:8428/health", "what StatsD has sent, in Grafana"),
    Service("grafana", "http://127.0.0.1:3000/api/health", "dashboards at http://127.0.0.1:3000"),
)


def main() -> int:
    """Wait; 0 when all answer, 1 when the time is over."""
    parser = argparse.ArgumentParser(prog="make ready", description="Wait until the stack answers.")
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="seconds to wait at most (180)")
    end = time.monotonic() + parser.parse_args().timeout
    waiting = list(SERVICES)
    while True:
        for service in [service for service in waiting if service.is_ready()]:
            print(f"{service.name:14} {service.use}", flush=True)
            waiting.remove(service)
        if not waiting:
            return 0
        if time.monotonic() >= end:
            names = " ".join(service.name for service in waiting)
            print(f"no answer from: {names}. See: docker compose logs {names}", file=sys.stderr)
            return 1
        time.sleep(PAUSE)


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
