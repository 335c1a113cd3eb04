"""StatsD's other end: the grammars of its lines, and a socket that takes them."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .runs import PATIENCE

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
DOGSTATSD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,199}")
DOGSTATSD_TAG = re.compile(r"[^\W\d_][\w./-]*(:[\w./:-]*[\w./-])?")
ETSY_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
ETSY_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*:[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Line:
    """One value. It stands for `weight` values."""

    name: str
    kind: str
    value: float
    weight: int
    tags: frozenset[str] = frozenset()


def read(packets: Iterable[bytes], flavor: str = "dogstatsd") -> list[Line]:
    """The lines in packets; raises `ValueError` at anything that is not of the flavor's grammar."""
    lines: list[Line] = []
    for packet in packets:
        for text in packet.decode().split("\n"):
            try:
                line = GRAMMARS[flavor](text)
                if flavor == "statsd" and line.kind == "g" and line.value < 0 and not _is_set(lines, line):
                    raise ValueError("a gauge with a sign is changed, not set")
                lines.append(line)
            except ValueError as error:
                raise ValueError(f"{error}: {text!r}") from None
    return lines


def _is_set(before: list[Line], line: Line) -> bool:
    last = before[-1] if before else None
    return last is not None and (last.name, last.tags, last.value) == (line.name, line.tags, 0)


def dogstatsd(text: str) -> Line:
    """One line, by Datadog's page on its datagrams, with its rules for the names of metrics and for tags:
    https://docs.datadoghq.com/extend/dogstatsd/datagram_shell and …/getting_started/tagging.

    (The fields of later versions of the protocol, for a container and a time, and several values in a line are not in
    it: the exporter has no use for them.)
    """
    head, *fields = text.split("|")
    name, separator, number = head.partition(":")
    _check(separator and DOGSTATSD_NAME.fullmatch(name), "not a name of at most 200 letters, digits, _ and .")
    _check(NUMBER.fullmatch(number), "not a number")
    _check(fields and fields[0] in ("c", "g", "ms", "h", "s", "d"), "not a type")
    kind, *fields = fields
    weight, tags = 1, frozenset[str]()
    if fields and fields[0].startswith("@"):
        _check(kind in ("c", "h", "d", "ms"), "a sample rate for another type")
        weight = _weight(fields.pop(0))
    if fields and fields[0].startswith("#"):
        tags = _tags(fields.pop(0)[1:], DOGSTATSD_TAG)
        _check(all(len(tag) <= 200 for tag in tags), "a tag of more than 200 characters")
    _check(not fields, "further fields")
    return Line(name, kind, float(number), weight, tags)


def etsy(text: str) -> Line:
    """One line, as Etsy's daemon documents it in docs/metric_types.md, and takes it without a change: it removes or
    replaces other characters of a name, counts what is of no known type, and splits at every colon but those of tags.
    """
    line, separator, tags = text.partition("|#")
    key, colon, rest = line.partition(":")
    number, *fields = rest.split("|")
    _check(colon and ETSY_KEY.fullmatch(key), "not a name of letters, digits, _ and - between single dots")
    _check(NUMBER.fullmatch(number), "not a number")
    _check(fields and fields[0] in ("c", "ms", "g"), "not a type")
    kind, *rates = fields
    _check(len(rates) <= 1 and (not rates or kind in ("c", "ms")), "a field that its type does not have")
    _check(kind != "ms" or float(number) >= 0, "a negative time")
    of_line = _tags(tags, ETSY_TAG) if separator else frozenset[str]()
    return Line(key, kind, float(number), _weight(rates[0]) if rates else 1, of_line)


GRAMMARS: dict[str, Callable[[str], Line]] = {"dogstatsd": dogstatsd, "statsd": etsy}


def _check(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _weight(field: str) -> int:
    _check(re.fullmatch(r"@(0\.[0-9]+|1)", field) and float(field[1:]) > 0, "not a sample rate from 0 to 1")
    return int(1 / float(field[1:]))  # some daemons cut off the fraction


def _tags(text: str, grammar: re.Pattern[str]) -> frozenset[str]:
    tags = text.split(",")
    _check(all(map(grammar.fullmatch, tags)), "not tags")
    _check(len({tag.partition(":")[0] for tag in tags}) == len(tags), "a tag twice")
    return frozenset(tags)


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

    def rest(self) -> bytes:
        """All that a stream has until its end."""
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(PATIENCE)
            return b"".join(iter(lambda: connection.recv(65536), b""))

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
