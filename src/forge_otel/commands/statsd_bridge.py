"""`forge-otel statsd-bridge`."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from ..exporters.bridge import AddressError, Limits, serve
from ..exporters.statsd import StatsDSettings
from .errors import CommandError


def run(options: Namespace) -> int:
    """Run the bridge until it is stopped; return the exit code.

    Raises:
        CommandError: an environment variable is invalid, or the port cannot be opened.
    """
    settings, wrong = StatsDSettings.from_environment()
    if wrong:
        raise CommandError("; ".join(wrong))
    limits = Limits(body=options.max_body, requests=options.max_requests, connections=options.max_connections)
    try:
        asyncio.run(serve(settings, limits, options.host, options.port))
    except AddressError as error:
        raise CommandError(f"--host {options.host} --port {options.port}: cannot be opened: {error}") from None
    return 0
