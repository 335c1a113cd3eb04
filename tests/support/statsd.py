"""StatsD's other end: what reads its lines back, and a socket that takes them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .runs import PATIENCE

LINE = re.compile(
    r"(?P<name>[\w./-]+):(?P<value>-?[0-9]+(\.[0-9]+)?)\|(?P<kind>c|g|h|ms)"
    r"(\|@(?P<rate>0\.[0-9]+))?(\|#(?P<tags>[\w./-]+:[\w./-]+(,[\w./-]+:[\w./-]+)*))?"
)


@dataclass(frozen=True)
class Line:
    """One value. It stands for `weight` values."""

    name: str
    kind: str
    value: float
    weight: int
    tags: frozenset[str] = frozenset()


def read(packets: Iterable[bytes]) -> list[Line]:
    """The lines in packets; raises `ValueError` at anything that is not of their form."""
    lines = []
    for packet in packets:
        for text in packet.decode().split("\n"):
            match = LINE.fullmatch(text)
            if match is None:
                raise ValueError(f"not a line: {text!r}")
            tags = frozenset((match["tags"] or "").split(",")) - {""}
            weight = int(1 / float(match["rate"])) if match["rate"] else 1  # some daemons cut off the fraction
            lines.append(Line(match["name"], match["kind"], float(match["value"]), weight, tags))
    return lines


class Listener:
    """A socket on loopback that takes packets: `udp`, `tcp`, `unixgram` or `unix`."""

    def __init__(self, kind: str, path: Path | None = None, port: int = 0, host: str = "127.0.0.1") -> None:
        family = socket.AF_UNIX if kind.startswith("unix") else socket.AF_INET
        self._stream = kind in ("tcp", "unix")
        self._socket = socket.socket(family, socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.settimeout(PATIENCE)
        self._socket.bind(str(path) if path is not None else (host, port))
        if self._stream:
            self._socket.listen()
        self._connections: list[socket.socket] = []

    @property
    def port(self) -> int:
        """The port, of UDP and TCP."""
        port: int = self._socket.getsockname()[1]
        return port

    def packet(self) -> bytes:
        """The next packet, or all that a stream has until it ends with a newline."""
        if not self._stream:
            return self._socket.recv(65536)
        if not self._connections:
            connection, _ = self._socket.accept()
            connection.settimeout(PATIENCE)
            self._connections.append(connection)
        data = b""
        while not data.endswith(b"\n"):
            more = self._connections[-1].recv(65536)
            if not more:
                raise EOFError(data)
            data += more
        return data.removesuffix(b"\n")

    def hang_up(self) -> None:
        """Close the connection; the next packet has to come by a new one."""
        self._connections.pop().close()

    def end(self) -> None:
        """Give whoever waits at a socket for datagrams an empty packet."""
        with socket.socket(self._socket.family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self._socket.getsockname())

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._socket.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
