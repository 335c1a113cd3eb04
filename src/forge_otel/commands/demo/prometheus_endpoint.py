"""An endpoint that serves the metrics to Prometheus until they are scraped."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, cast

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, Metric, start_http_server

from .errors import DemoError


class PrometheusEndpoint:
    """Serves `/metrics` on a port of the loopback interface; 0 selects a free one.

    Raises:
        DemoError: the port is in use or not permitted.
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
