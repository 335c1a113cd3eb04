"""The StatsD bridge: receives metrics by OTLP/HTTP and sends them to StatsD, for the Collector, which has no exporter
for it.

A request is answered after its packets are sent, so the bridge buffers nothing that could be lost.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import signal
import socket
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily

from ._lines import Encoder
from ._settings import StatsDSettings
from ._sockets import Sender

_JSON: Final = "application/json"
_PROTOBUF: Final = "application/x-protobuf"
_READ_TIMEOUT: Final = 30.0
_HEADER_TIMEOUT: Final = 10.0
"""Seconds in which the header of a request must be complete, from the start of its connection or the last response."""
_STOP_TIMEOUT: Final = 5.0


class AddressError(Exception):
    """The bridge cannot listen on the address; the message has the reason."""


class _RefusedError(Exception):
    """A refused request."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the bridge."""

    body: int = 4 * 1024 * 1024
    """Maximum size of a request's body in bytes, also after decompression."""
    requests: int = 32
    """Maximum number of concurrent requests; further ones are answered with 429."""
    connections: int = 512
    """Maximum number of connections; further ones are closed at once."""


class Bridge:
    """The server; `close()` releases its socket and thread."""

    def __init__(self, settings: StatsDSettings, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._encoder = Encoder(settings, forwarding=True)
        self._sender = Sender(settings)
        # A single thread: the sender is not thread-safe, and the server must stay responsive.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="statsd-bridge")
        self._active = 0
        self._answered: Counter[int] = Counter()
        self._refused = 0
        self._refused_connections = 0
        self._without_request: set[object] = set()
        """Protocols of connections that have not received a complete header."""
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def application(self) -> web.Application:
        """Return the application with `/v1/metrics` for OTLP, `/health`, and `/metrics` for Prometheus."""
        application = web.Application(client_max_size=self._limits.body, middlewares=[self._begin])
        application.router.add_post("/v1/metrics", self._export)
        application.router.add_get("/health", self._health)
        application.router.add_get("/metrics", self._metrics)
        return application

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the bridge's own metrics; called by the registry."""
        requests = CounterMetricFamily("forge_statsd_bridge_requests", "Requests by response code.", labels=["code"])
        for status, count in sorted(self._answered.items()):
            requests.add_metric([str(status)], count)
        yield requests
        for name, text, value in (
            ("refused_points", "Points that StatsD does not support.", self._refused),
            ("refused_connections", "Connections above the maximum.", self._refused_connections),
            ("packets_sent", "Packets handed to the operating system.", self._sender.sent),
            ("packets_lost", "Packets known to be lost.", self._sender.lost),
        ):
            yield CounterMetricFamily(f"forge_statsd_bridge_{name}", text, value)

    def admit(self, connection: asyncio.Transport, server: web.Server) -> None:
        """Hand a new connection over to the server, or close it."""
        if len(server.connections) < self._limits.connections:
            protocol = server()
            self._without_request.add(protocol)
            asyncio.get_running_loop().call_later(_HEADER_TIMEOUT, self._drop_without_request, protocol, connection)
            connection.set_protocol(protocol)
            protocol.connection_made(connection)
        else:
            self._refused_connections += 1
            connection.close()

    def _drop_without_request(self, protocol: asyncio.Protocol, connection: asyncio.Transport) -> None:
        if protocol in self._without_request:
            self._without_request.discard(protocol)
            connection.abort()

    def close(self) -> None:
        """Finish accepted requests, and close the socket."""
        self._thread.shutdown()
        self._sender.close()

    @web.middleware
    async def _begin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._without_request.discard(request.protocol)
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _export(self, request: web.Request) -> web.Response:
        self._active += 1
        try:
            answer: Message = await self._handle(request)
            status, headers = 200, {}
        except _RefusedError as refusal:
            answer = Status(message=str(refusal))
            status = refusal.status
            headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        finally:
            self._active -= 1
        self._answered[status] += 1
        if request.content_type == _JSON:
            return web.json_response(json_format.MessageToDict(answer), status=status, headers=headers)
        return web.Response(body=answer.SerializeToString(), status=status, headers=headers, content_type=_PROTOBUF)

    async def _handle(self, request: web.Request) -> ExportMetricsServiceResponse:
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if request.content_type not in (_PROTOBUF, _JSON):
            raise _RefusedError(415, f"Content-Type {request.content_type}: supported are {_PROTOBUF} and {_JSON}")
        if encoding not in ("gzip", "identity"):
            raise _RefusedError(415, f"Content-Encoding {encoding}: supported are gzip and identity")
        if self._active > self._limits.requests:
            raise _RefusedError(429, f"more than {self._limits.requests} concurrent requests", retry_after=1)
        try:
            async with asyncio.timeout(_READ_TIMEOUT):
                body = await request.read()
        except TimeoutError:
            raise _RefusedError(408, f"the body was not received within {_READ_TIMEOUT:g} s") from None
        except web.HTTPRequestEntityTooLarge:
            raise self._too_large() from None
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._forward, body, encoding == "gzip", request.content_type == _JSON
        )

    def _forward(self, body: bytes, zipped: bool, is_json: bool) -> ExportMetricsServiceResponse:
        if zipped:
            body = self._unzipped(body)
        packets, refused = self._encoder.encode(_from_json(body) if is_json else _from_protobuf(body))
        sent = self._sender.send(packets)
        if packets and not sent:
            # Nothing was sent, so the request can be repeated.
            raise _RefusedError(503, "StatsD cannot be reached", retry_after=5)
        self._refused += refused.total()
        response = ExportMetricsServiceResponse()
        problems = [f"{reason} ({count})" for reason, count in refused.most_common(10)]
        if sent < len(packets):
            problems.append(f"{len(packets) - sent} of {len(packets)} packets could not be sent")
        if problems:
            response.partial_success.rejected_data_points = refused.total()
            response.partial_success.error_message = "; ".join(problems)
        return response

    def _unzipped(self, body: bytes) -> bytes:
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
                unzipped = file.read(self._limits.body + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise _RefusedError(400, f"the body is not valid gzip: {error}") from None
        if len(unzipped) > self._limits.body:
            raise self._too_large()
        return unzipped

    def _too_large(self) -> _RefusedError:
        return _RefusedError(413, f"the body has more than {self._limits.body} bytes; send smaller batches")


class _NewConnection(asyncio.Protocol):
    def __init__(self, bridge: Bridge, server: web.Server) -> None:
        self._bridge = bridge
        self._server = server

    def connection_made(self, transport: Any) -> None:
        self._bridge.admit(transport, self._server)


def _from_protobuf(body: bytes) -> ExportMetricsServiceRequest:
    try:
        return ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        raise _RefusedError(400, f"the body is not an ExportMetricsServiceRequest: {error}") from None


def _from_json(body: bytes) -> ExportMetricsServiceRequest:
    def without_exemplars(data: dict[str, Any]) -> dict[str, Any]:
        # OTLP encodes their ids in hexadecimal, protobuf's JSON in base64. StatsD does not need them.
        data.pop("exemplars", None)
        return data

    try:
        data = json.loads(body, object_hook=without_exemplars)
        if not isinstance(data, dict):
            raise ValueError("it is not an object")
        return json_format.ParseDict(data, ExportMetricsServiceRequest(), ignore_unknown_fields=True)
    except (ValueError, RecursionError, json_format.ParseError) as error:
        raise _RefusedError(400, f"the body is not an ExportMetricsServiceRequest in JSON: {error}") from None


async def serve(settings: StatsDSettings, limits: Limits, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        AddressError: the port cannot be opened.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    bridge = Bridge(settings, limits)
    # aiohttp would decompress bodies without a configurable limit.
    runner = web.AppRunner(
        bridge.application(),
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=_HEADER_TIMEOUT,
        shutdown_timeout=_STOP_TIMEOUT,
    )
    listener: asyncio.Server | None = None
    try:
        await runner.setup()
        assert runner.server is not None
        accept = partial(_NewConnection, bridge, runner.server)
        try:
            listener = await asyncio.get_running_loop().create_server(accept, host, port)
        except socket.gaierror as error:
            raise AddressError(error.strerror) from None
        except OSError as error:
            raise AddressError(os.strerror(error.errno or 0)) from None
        opened_host, opened_port, *_ = listener.sockets[0].getsockname()
        print(f"http://{opened_host}:{opened_port}/v1/metrics -> {settings.address}", flush=True)  # noqa: T201 - this is a command
        await stop.wait()
    finally:
        if listener is not None:
            listener.close()
        await runner.cleanup()
        bridge.close()
