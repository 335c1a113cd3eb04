"""The stack in containers, started once for all tests in this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .engine import Engine, engine
from .runs import OVERDUE, load

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICES = ("otelcol", "prometheus", "jaeger", "victoria-logs", "statsd-bridge", "statsd", "graphite")
"""All that `docker compose up` starts, but for the one that ends."""


@pytest.fixture(scope="package")
def containers() -> Iterator[Engine]:
    """An engine with the images, and nothing of this project in it."""
    with engine() as found:
        found.compose("--profile", "demo", "down", "--volumes", "--remove-orphans")
        yield found


@pytest.fixture(scope="package")
def up(containers: Engine) -> Engine:
    """The engine, in which the stack runs."""
    containers.compose("build")
    containers.compose("up", "--detach", "--wait")
    # Expected every second, and runs once: five minutes later, while other tests have run, an alert fires.
    load(containers, OVERDUE, 1, 100, "--interval", "1")
    return containers
