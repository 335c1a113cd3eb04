"""Serving the metrics to Prometheus, until they were fetched."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, cast

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, Metric, start_http_server

from .errors import DemoError


class PrometheusEndpoint:
    """`/metrics` on a port of the loopback interface; 0 takes a free one.

    Raises:
        DemoError: the port is in use or not allowed.
    """

    def __init__(self, port: int) -> None:
        registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(registry=registry)
        self._scraped = threading.Event()
        registry.register(self)
        try:
            server, self._thread = start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as error:
            raise DemoError(
                f"--prometheus {port}: the port cannot be opened: {error.strerror}; choose another"
            ) from None
        # Closing the server then waits for the answer that is on its way.
        self._server = cast("Any", server)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"

    def collect(self) -> Iterable[Metric]:
        """Called by the registry with each scrape; adds nothing to it."""
        self._scraped.set()
        return ()

    def expect_scrape(self) -> None:
        """Forget the scrapes so far: only one that sees the final numbers counts."""
        self._scraped.clear()

    def wait(self, timeout: float) -> bool:
        """Wait until the metrics were fetched; False when the time is over."""
        return self._scraped.wait(timeout)

    def close(self) -> None:
        """Answer what was asked and close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
