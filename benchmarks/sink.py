"""Receives OTLP over HTTP, counts the bytes and forgets them; a process of its own: `python -m benchmarks.sink`."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import harness


class Sink(ThreadingHTTPServer):
    """On a free port of the loopback interface."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received = 0
        """Bytes in the bodies of all requests."""
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    server: Sink

    def do_POST(self) -> None:
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.received += size
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
        pass


def main() -> None:
    answers = harness.channel()
    sink = Sink()
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    harness.serve(answers, f"http://127.0.0.1:{sink.server_port}", lambda _: sink.received)


if __name__ == "__main__":
    main()
