"""The settings for StatsD: where it is, and what it understands."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from ..config.fields import boolean, check_fields, flag, number, one_of, setting, settings_of, word

Protocol = Literal["udp", "tcp"]
Flavor = Literal["dogstatsd", "statsd"]
Dimensions = Literal["tags", "name", "drop"]
Histograms = Literal["values", "summary"]

_PREFIX: Final = "FORGE_OTEL_STATSD_"
_ETHERNET_PAYLOAD: Final = 1432
_LOCAL_SOCKET_READ: Final = 8192


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


def _whole(minimum: int, maximum: float = math.inf) -> Callable[[Any], int]:
    wanted = f"from {minimum} to {maximum}" if maximum < math.inf else f"of at least {minimum}"

    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return value
        raise ValueError(f"must be a whole number {wanted}")

    return check


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    raise ValueError("must be a number of seconds greater than 0")


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsDSettings:
    """Where the daemon is, and what it understands.

    Each field can also be set by a variable, `FORGE_OTEL_STATSD_` and the field's name in capitals; host and port by
    `STATSD_HOST` and `STATSD_PORT`.

    Raises:
        ValueError: a field has a value that is not allowed.
    """

    host: str = field(default="127.0.0.1", metadata=setting(_host))
    port: int = field(default=8125, metadata=setting(_whole(1, 65535), number))
    protocol: Protocol = field(default="udp", metadata=setting(one_of(*get_args(Protocol)), word))

    socket: str = field(default="", metadata=setting(_text))
    """The path of a Unix socket, for datagrams or a stream; used instead of host, port and protocol."""

    flavor: Flavor = field(default="dogstatsd", metadata=setting(one_of(*get_args(Flavor)), word))
    """`dogstatsd` has the type `h` for histograms, and weights a value by its rate. `statsd`, as of Etsy's daemon, has
    timers, `ms`, whose sum and percentiles come from the lines received."""

    dimensions: Dimensions | None = field(default=None, metadata=setting(_or_none(one_of(*get_args(Dimensions))), word))
    """Where attributes go: into `tags`, into the `name`, or nowhere (`drop`), in which case points are summed. By
    default `tags` for `dogstatsd` and `name` for `statsd`."""

    histograms: Histograms = field(default="values", metadata=setting(one_of(*get_args(Histograms)), word))
    """`values` sends values that stand for the histogram, `summary` its count and sum as counters, its minimum and its
    greatest value as gauges."""

    gauges: bool | None = field(default=None, metadata=setting(_or_none(flag), boolean))
    """Whether gauges are sent. By default only with tags: without, several processes overwrite each other's."""

    instance_tag: bool = field(default=True, metadata=setting(flag, boolean))
    """Whether gauges have a tag `instance` with the resource's `service.instance.id`, where there are tags."""

    max_values: int | None = field(default=None, metadata=setting(_or_none(_whole(1)), number))
    """How many lines a histogram may take, about; at least one for each of its buckets. When it has more values than
    that, a line stands for several. With `statsd`, count and percentiles are right then, but the sum is too low by that
    factor. By default 100 for `dogstatsd`, which weights the sum as well, and 1000 for `statsd`."""

    interval: float = field(default=10.0, metadata=setting(_seconds, number))
    """Seconds between two exports of a metric reader."""

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> tuple[StatsDSettings, list[str]]:
        """The settings in the variables, and what is wrong there: a line for each variable, whose default is used."""
        found: dict[str, Any] = {}
        invalid = []
        for variable, text in environ.items():
            name = _VARIABLES.get(variable)
            if name is not None and text.strip():
                try:
                    found[name] = _SETTINGS[name].from_text(text)
                except ValueError as error:
                    invalid.append(f"{variable}={text!r}: it {error}")
            elif name is None and variable.startswith(_PREFIX):
                invalid.append(f"{variable}={text!r}: there is no such variable; there are {', '.join(_VARIABLES)}")
        return cls(**found), invalid

    @property
    def tag_placement(self) -> Dimensions:
        """Where attributes go."""
        return self.dimensions or ("tags" if self.flavor == "dogstatsd" else "name")

    @property
    def sends_gauges(self) -> bool:
        """Whether gauges are sent."""
        return self.tag_placement == "tags" if self.gauges is None else self.gauges

    @property
    def value_limit(self) -> int:
        """How many lines a histogram may take."""
        return self.max_values or (100 if self.flavor == "dogstatsd" else 1000)

    @property
    def packet_size(self) -> int:
        """The most bytes of a packet: what fits into an Ethernet frame, or what daemons read at once from a socket on
        the same machine.
        """
        return _LOCAL_SOCKET_READ if self.socket else _ETHERNET_PAYLOAD

    @property
    def address(self) -> str:
        """Where packets go, for people."""
        return f"unix:{self.socket}" if self.socket else f"{self.protocol}://{self.host}:{self.port}"


_SETTINGS: Final = settings_of(StatsDSettings)
_VARIABLES: Final[Mapping[str, str]] = {
    f"STATSD_{name.upper()}" if name in ("host", "port") else _PREFIX + name.upper(): name for name in _SETTINGS
}
"""The fields by their variables."""
