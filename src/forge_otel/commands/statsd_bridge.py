"""The command `forge-otel statsd-bridge`."""

from __future__ import annotations

import click

from .command import command, port, positive
from .errors import CommandError


@command("statsd-bridge", extra="statsd-bridge")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=port, default=4319, help="Port, 0 for any free one.")
@click.option(
    "--max-body",
    type=positive,
    default=4 * 1024 * 1024,
    metavar="BYTES",
    show_default="4 MiB",
    help="Maximum size of a request, also after decompression.",
)
@click.option("--max-requests", type=positive, default=32, metavar="N", help="Maximum concurrent requests.")
@click.option("--max-connections", type=positive, default=512, metavar="N", help="Maximum connections.")
def statsd_bridge(*, host: str, port: int, max_body: int, max_requests: int, max_connections: int) -> int:
    """Receive metrics by OTLP/HTTP and send them to StatsD.

    For the Collector, which has no StatsD exporter: receives OTLP at /v1/metrics, as protobuf or JSON, and forwards it.
    Serves /health, and its own metrics at /metrics. Configured by the environment variables STATSD_HOST, STATSD_PORT
    and FORGE_OTEL_STATSD_*. Stops at SIGTERM.
    """
    import asyncio  # noqa: PLC0415

    from ..exporters.bridge import AddressError, Limits, serve  # noqa: PLC0415
    from ..exporters.statsd import StatsDSettings  # noqa: PLC0415

    settings, wrong = StatsDSettings.from_environment()
    if wrong:
        raise CommandError("; ".join(wrong))
    limits = Limits(body=max_body, requests=max_requests, connections=max_connections)
    try:
        asyncio.run(serve(settings, limits, host, port))
    except AddressError as error:
        raise CommandError(f"--host {host} --port {port}: cannot be opened: {error}") from None
    return 0
