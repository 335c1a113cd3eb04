"""A receiver of OTLP/HTTP on loopback that answers at once, when it is told to, or never."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE = 120.0


class Collector:
    """What a receiver has received, and a gate that holds its answers back while it is closed."""

    def __init__(self) -> None:
        self.url = ""
        self.gate = threading.Event()
        self.gate.set()
        self.spans: list[Span] = []
        self.events: list[str] = []
        """Names of events."""
        self.metrics: dict[str, dict[str, float]] = {}
        """The last value of every counter, by metric, and by attributes put as `pipeline.name=p`."""
        self.resources: list[dict[str, str]] = []
        """The different resources of spans, metrics and logs."""
        self.headers: dict[str, set[str]] = {}
        """All values of each header of the requests, by its name in lower case."""
        self._received: set[str] = set()
        self._changed = threading.Condition()

    @property
    def names(self) -> Sequence[str]:
        """Names of all spans."""
        return sorted(span.name for span in self.spans)

    def wait_for(self, metric: str, attributes: str, value: float) -> None:
        """Wait until a counter has a value."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.metrics.get(metric, {}).get(attributes) == value, PATIENCE)

    def wait_for_span(self, name: str, count: int = 1) -> None:
        """Wait until so many spans of a name have arrived."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.names.count(name) >= count, PATIENCE)

    def answer_when_received(self, *signals: str) -> None:
        """Hold all answers back until requests with all these signals have arrived."""
        self.gate.clear()

        def open_gate() -> None:
            with self._changed:
                if self._changed.wait_for(lambda: self._received >= set(signals), PATIENCE):
                    self.gate.set()

        threading.Thread(target=open_gate, daemon=True).start()

    def receive(self, signal: str, body: bytes) -> None:
        """Keep the content of a request."""
        with self._changed:
            self._received.add(signal)
            if signal == "traces":
                for traces in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self._keep_resource(traces.resource)
                    self.spans += [span for scope in traces.scope_spans for span in scope.spans]
            elif signal == "logs":
                for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                    self._keep_resource(logs.resource)
                    records = [record for scope in logs.scope_logs for record in scope.log_records]
                    self.events += [record.event_name for record in records if record.event_name]
            else:
                for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    self._keep_resource(resource.resource)
                    for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                        values = self.metrics.setdefault(metric.name, {})
                        for point in metric.sum.data_points:
                            values[_text(point.attributes)] = point.as_int or point.as_double
            self._changed.notify_all()

    def keep_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Keep the headers of a request."""
        with self._changed:
            for name, value in headers:
                self.headers.setdefault(name.lower(), set()).add(value)

    def _keep_resource(self, resource: Resource) -> None:
        attributes = {each.key: each.value.string_value for each in resource.attributes}
        if attributes not in self.resources:
            self.resources.append(attributes)


@contextlib.contextmanager
def running_collector() -> Iterator[Collector]:
    """Serve a collector."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            collector.keep_headers(self.headers.items())
            collector.receive(self.path.rpartition("/")[2], body)
            collector.gate.wait()
            with contextlib.suppress(OSError):  # whoever has waited may be gone
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        collector.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _text(attributes: Sequence[KeyValue]) -> str:
    values = {each.key.removeprefix("forge."): each.value.string_value or each.value.int_value for each in attributes}
    return ", ".join(f"{key}={value}" for key, value in sorted(values.items()))
