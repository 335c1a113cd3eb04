"""Ports of the loopback interface."""

from __future__ import annotations

import os
import random
import socket

_given: set[int] = set()
# Hypothesis seeds the usual generator in every process alike.
_random = random.SystemRandom()


def _range() -> range:
    """Ports below those that Linux takes for the clients' side of connections, so that nobody gets them by chance.

    Each worker of pytest-xdist has a part of its own: between a look at a port and its use, another might take it.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return range(15_000, 32_000)[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]


def free_port() -> int:
    """A port that nobody listens on, and that was not given out before."""
    while True:
        port = _random.choice(_range())
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
