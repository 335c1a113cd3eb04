"""Receives OTLP, counts the bytes and forgets them; a process of its own: `python -m benchmarks.sink PROTOCOL`."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import harness

Received = Callable[[], int]
"""Returns how many bytes the bodies of all requests had."""


class Sink(ThreadingHTTPServer):
    """On a free port of the loopback interface."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received = 0
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


def over_http() -> tuple[str, Received]:
    """Start a sink; return its endpoint and its counter."""
    sink = Sink()
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{sink.server_port}", lambda: sink.received


def over_grpc() -> tuple[str, Received]:
    """The same for any method of any service, each of which answers with an empty message."""
    grpc: Any = importlib.import_module("grpc")
    received = 0
    lock = threading.Lock()

    def answer(request: bytes, _: object) -> bytes:
        nonlocal received
        with lock:
            received += len(request)
        return b""

    class Every(grpc.GenericRpcHandler):  # type: ignore[misc]  # it is a class
        def service(self, _: object) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Every()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    _running.append(server)
    return f"http://127.0.0.1:{port}", lambda: received


_running: list[Any] = []
"""Servers of gRPC stop when nobody refers to them."""

PROTOCOLS = {"http": over_http, "grpc": over_grpc}


def main(protocol: str) -> None:
    answers = harness.channel()
    endpoint, received = PROTOCOLS[protocol]()
    harness.serve(answers, endpoint, lambda _: received())


if __name__ == "__main__":
    main(sys.argv[1])
