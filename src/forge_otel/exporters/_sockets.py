"""Sending packets by UDP, TCP or a Unix socket."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ._settings import StatsDSettings

_BURST: Final = 16
"""Number of packets between two pauses."""
_PAUSE: Final = 0.01
"""Seconds to pause after a burst: by default a daemon's UDP socket buffers about a hundred packets, and silently drops
further ones. The pause gives Etsy's daemon time to read them."""

_WARN_EVERY: Final = 60.0
_LOOK_UP_EVERY: Final = 60.0
"""Seconds after which the host is looked up again: it may have moved, which UDP does not report."""
_logger: Final = logging.getLogger("forge_otel")


class Sender:
    """Sends packets. Those that cannot be sent at once are lost and counted: a daemon that is down has no other effect.

    Not thread-safe. A forked process opens its own connection.
    """

    def __init__(
        self, settings: StatsDSettings, *, timeout: float = 2.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.sent = 0
        """Number of packets handed to the operating system. UDP may lose some of them."""
        self.lost = 0
        """Number of packets known to be lost."""
        self._settings = settings
        self._timeout = timeout
        self._clock = clock
        self._socket: socket.socket | None = None
        self._process = os.getpid()
        self._warned = -_WARN_EVERY
        self._looked_up = 0.0

    def send(self, packets: Sequence[bytes]) -> int:
        """Send all packets, waiting for the daemon up to `timeout` seconds; return the number of packets sent. After a
        failure all remaining packets are lost.
        """
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        if self._socket is not None and self._clock() - self._looked_up >= _LOOK_UP_EVERY:
            self._follow(self._socket)
        deadline = self._clock() + self._timeout
        for index, packet in enumerate(packets):
            if index % _BURST == _BURST - 1:
                time.sleep(_PAUSE)
                deadline += _PAUSE
            try:
                self._send(packet, deadline)
            except OSError as error:
                self.close()
                self._lose(len(packets) - index, error)
                return index
            self.sent += 1
        return len(packets)

    def close(self) -> None:
        """Close the socket. The next packet opens a new one."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _follow(self, connection: socket.socket) -> None:
        """Look up the host again, and close the connection if it is no longer one to the host."""
        if self._settings.socket:
            return
        try:
            found = self._addresses(connection.type)
            if connection.getpeername() not in (address for *_, address in found):
                self.close()
        except OSError:
            pass  # the last known address is better than none

    def _addresses(self, kind: int) -> Sequence[tuple[int, int, int, str, Any]]:
        self._looked_up = self._clock()
        return socket.getaddrinfo(self._settings.host, self._settings.port, type=kind)

    def _send(self, packet: bytes, deadline: float) -> None:
        if self._socket is not None and not _is_closed(self._socket):
            try:
                return self._write(self._socket, packet, deadline)
            except ConnectionError as error:
                # The daemon may have restarted. By UDP, this error means that an earlier packet was not received.
                if self._settings.protocol == "udp" and not self._settings.socket:
                    self._lose(1, error)
        self.close()
        self._socket = self._connect(deadline)
        return self._write(self._socket, packet, deadline)

    def _write(self, connection: socket.socket, packet: bytes, deadline: float) -> None:
        connection.settimeout(self._left(deadline))
        if connection.type == socket.SOCK_STREAM:
            connection.sendall(packet + b"\n")
        else:
            connection.send(packet)

    def _connect(self, deadline: float) -> socket.socket:
        left = self._left(deadline)
        where = self._settings
        if where.socket:
            try:
                return _connected(socket.AF_UNIX, socket.SOCK_DGRAM, where.socket, left)
            except OSError as error:
                if isinstance(error, ConnectionRefusedError | FileNotFoundError | PermissionError):
                    raise
                return _connected(socket.AF_UNIX, socket.SOCK_STREAM, where.socket, left)
        if where.protocol == "tcp":
            self._looked_up = self._clock()
            return socket.create_connection((where.host, where.port), left)
        found = self._addresses(socket.SOCK_DGRAM)
        # Daemons listen on IPv4 by default, and UDP does not report a missing listener: so localhost is 127.0.0.1.
        family, kind, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        return _connected(family, kind, address, left)

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError(f"not sent within {self._timeout:g} s")
        return left

    def _lose(self, packets: int, error: OSError) -> None:
        self.lost += packets
        now = self._clock()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            _logger.warning(
                "StatsD at %s: %s; packets lost so far: %d", self._settings.address, error.strerror or error, self.lost
            )


def _connected(family: int, kind: int, address: object, timeout: float) -> socket.socket:
    connection = socket.socket(family, kind)
    try:
        connection.settimeout(timeout)
        connection.connect(address)  # type: ignore[arg-type] # an address of this family
    except BaseException:
        connection.close()
        raise
    return connection


def _is_closed(connection: socket.socket) -> bool:
    """Return True if the daemon has closed its end of a stream, which the first write would not report."""
    if connection.type != socket.SOCK_STREAM:
        return False
    connection.setblocking(False)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
