"""The settings for StatsD: where it is, and what it understands."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from ..config.fields import Setting, boolean, check_fields, flag, number, one_of, word

Protocol = Literal["udp", "tcp"]
Flavor = Literal["dogstatsd", "statsd"]
Dimensions = Literal["tags", "name", "drop"]
Histograms = Literal["values", "summary"]

_PREFIX: Final = "FORGE_OTEL_STATSD_"
_ETHERNET: Final = 1432
_LOCAL: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsDSettings:
    """Where the daemon is, and what it understands.

    Each field can also be set by a variable, `FORGE_OTEL_STATSD_` and the field's name in capitals; host and port by
    `STATSD_HOST` and `STATSD_PORT`.

    Raises:
        ValueError: a field has a value that is not allowed.
    """

    host: str = "127.0.0.1"
    port: int = 8125
    protocol: Protocol = "udp"

    socket: str = ""
    """The path of a Unix socket, for datagrams or a stream; used instead of host, port and protocol."""

    flavor: Flavor = "dogstatsd"
    """`dogstatsd` has the type `h` for histograms, and weights a value by its rate. `statsd`, as of Etsy's daemon, has
    timers, `ms`, whose sum and percentiles come from the lines received."""

    dimensions: Dimensions | None = None
    """Where attributes go: into `tags`, into the `name`, or nowhere (`drop`), in which case points are summed. By
    default `tags` for `dogstatsd` and `name` for `statsd`."""

    histograms: Histograms = "values"
    """`values` sends values that stand for the histogram, `summary` its count and sum as counters, its least and its
    greatest value as gauges."""

    gauges: bool | None = None
    """Whether gauges are sent. By default only with tags: without, several processes overwrite each other's."""

    instance_tag: bool = True
    """Whether gauges have a tag `instance` with the resource's `service.instance.id`, where there are tags."""

    max_values: int | None = None
    """How many lines a histogram may take, about; at least one for each of its buckets. When it has more values than
    that, a line stands for several. With `statsd`, count and percentiles are right then, but the sum is too low by that
    factor. By default 100 for `dogstatsd`, which weights the sum as well, and 1000 for `statsd`."""

    interval: float = 10.0
    """Seconds between two exports of a metric reader."""

    def __post_init__(self) -> None:
        check_fields(self, _SETTINGS)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> tuple[StatsDSettings, list[str]]:
        """The settings in the variables, and what is wrong there: a line for each variable, whose default is used."""
        found: dict[str, Any] = {}
        wrong = []
        for variable, text in environ.items():
            name = _VARIABLES.get(variable)
            if name is not None and text.strip():
                setting = _SETTINGS[name]
                try:
                    found[name] = setting.check(setting.parse(text) if setting.parse else text.strip())
                except ValueError as error:
                    wrong.append(f"{variable}={text!r}: it {error}")
            elif name is None and variable.startswith(_PREFIX):
                wrong.append(f"{variable}={text!r}: there is no such variable; there are {', '.join(_VARIABLES)}")
        return cls(**found), wrong

    @property
    def places_tags(self) -> Dimensions:
        """Where attributes go."""
        return self.dimensions or ("tags" if self.flavor == "dogstatsd" else "name")

    @property
    def sends_gauges(self) -> bool:
        """Whether gauges are sent."""
        return self.places_tags == "tags" if self.gauges is None else self.gauges

    @property
    def most_values(self) -> int:
        """How many lines a histogram may take."""
        return self.max_values or (100 if self.flavor == "dogstatsd" else 1000)

    @property
    def packet_size(self) -> int:
        """The most bytes of a packet: what fits into an Ethernet frame, or what daemons read at once from a socket on
        the same machine.
        """
        return _LOCAL if self.socket else _ETHERNET

    @property
    def address(self) -> str:
        """Where packets go, for people."""
        return f"unix:{self.socket}" if self.socket else f"{self.protocol}://{self.host}:{self.port}"


def _text(value: Any) -> str:
    if isinstance(value, str) and not any(character.isspace() or character == "\0" for character in value):
        return value
    raise ValueError("must be text without blanks")


def _host(value: Any) -> str:
    try:
        if isinstance(value, str) and value.isprintable() and " " not in value and value.encode("idna"):
            return value
    except UnicodeError:  # what it says helps nobody
        pass
    raise ValueError("must be a name or an address")


def _whole(least: int, most: float = math.inf) -> Callable[[Any], int]:
    wanted = f"from {least} to {most}" if most < math.inf else f"of at least {least}"

    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise ValueError(f"must be a whole number {wanted}")

    return check


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    raise ValueError("must be a number of seconds greater than 0")


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


_SETTINGS: Final[Mapping[str, Setting]] = {
    "host": Setting(_host),
    "port": Setting(_whole(1, 65535), number),
    "protocol": Setting(one_of(*get_args(Protocol)), word),
    "socket": Setting(_text),
    "flavor": Setting(one_of(*get_args(Flavor)), word),
    "dimensions": Setting(_or_none(one_of(*get_args(Dimensions))), word),
    "histograms": Setting(one_of(*get_args(Histograms)), word),
    "gauges": Setting(_or_none(flag), boolean),
    "instance_tag": Setting(flag, boolean),
    "max_values": Setting(_or_none(_whole(1)), number),
    "interval": Setting(_seconds, number),
}

_VARIABLES: Final[Mapping[str, str]] = {
    f"STATSD_{name.upper()}" if name in ("host", "port") else _PREFIX + name.upper(): name for name in _SETTINGS
}
"""The fields by their variables."""
