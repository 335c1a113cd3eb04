"""An endpoint that serves the metrics to Prometheus until they are scraped."""

from __future__ import annotations

import select
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final, cast

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, Metric, start_http_server

from ..errors import CommandError

SCRAPE: Final = 120.0
"""Maximum time in seconds for a scrape without a terminal."""


class PrometheusEndpoint:
    """Serves `/metrics` on a port of the loopback interface; 0 selects a free one.

    Raises:
        CommandError: the port is in use or not permitted.
    """

    def __init__(self, port: int) -> None:
        registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(registry=registry)
        self._scraped = threading.Event()
        registry.register(self)
        try:
            server, self._thread = start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as error:
            raise CommandError(
                f"--prometheus {port}: the port cannot be opened: {error.strerror}; choose another"
            ) from None
        # Closing the server then waits for pending responses.
        self._server = cast("Any", server)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"

    def collect(self) -> Iterable[Metric]:
        """Record a scrape; called by the registry. Yields no metrics."""
        self._scraped.set()
        return ()

    def expect_scrape(self) -> None:
        """Discard the scrapes so far: only one of the final values counts."""
        self._scraped.clear()

    def wait(self, timeout: float) -> bool:
        """Wait for a scrape; return False after `timeout` seconds without one."""
        return self._scraped.wait(timeout)

    def close(self) -> None:
        """Complete pending responses, and close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(prometheus: PrometheusEndpoint) -> None:
    """Wait until the final metrics are scraped once, or a key is pressed."""
    prometheus.expect_scrape()
    interactive = sys.stdin.isatty()
    until = "a key is pressed" if interactive else f"{SCRAPE:.0f} s have passed"
    print(f"serving {prometheus.url} until scraped once, or {until}", file=sys.stderr, flush=True)  # noqa: T201
    try:
        if interactive:
            with _single_keys(sys.stdin):
                while not prometheus.wait(0.2) and not select.select([sys.stdin], [], [], 0)[0]:
                    pass
        else:
            prometheus.wait(SCRAPE)
    except KeyboardInterrupt:
        pass


@contextmanager
def _single_keys(stream: IO[str]) -> Iterator[None]:
    """Read single keys from a terminal instead of lines."""
    import termios  # noqa: PLC0415 - not on every platform
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(stream)
    try:
        tty.setcbreak(stream)
        yield
        termios.tcflush(stream, termios.TCIFLUSH)
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)
