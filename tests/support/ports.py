"""Ports of the loopback interface."""

from __future__ import annotations

import random
import socket

_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that was not given out before.

    It is below those that Linux takes for the clients' side of connections, so that nobody gets it by chance.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
