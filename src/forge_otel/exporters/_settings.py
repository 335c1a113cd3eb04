"""The settings for StatsD: its address and its dialect."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from ..config.fields import boolean, check_fields, flag, number, one_of, seconds, setting, settings_of, whole, word

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
    except UnicodeError:  # its message is not helpful
        pass
    raise ValueError("must be a name or an address")


def _interval(value: Any) -> float:
    if seconds(value) > 0:
        return float(value)
    raise ValueError("must be a number of seconds greater than 0")


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsDSettings:
    """The address and the dialect of a StatsD daemon.

    Each field can also be set in an environment variable, `FORGE_OTEL_STATSD_` and the field's name in capitals; host
    and port in `STATSD_HOST` and `STATSD_PORT`.

    Raises:
        ValueError: a field has a value that is not allowed.
    """

    host: str = field(default="127.0.0.1", metadata=setting(_host))
    port: int = field(default=8125, metadata=setting(whole(1, 65535), number))
    protocol: Protocol = field(default="udp", metadata=setting(one_of(*get_args(Protocol)), word))

    socket: str = field(default="", metadata=setting(_text))
    """Path of a Unix socket, for datagrams or a stream; replaces host, port and protocol."""

    flavor: Flavor = field(default="dogstatsd", metadata=setting(one_of(*get_args(Flavor)), word))
    """`dogstatsd` has the type `h` for histograms, and weights values by their sampling rates. `statsd`, Etsy's daemon,
    has timers, `ms`, with sums and percentiles of the lines received."""

    dimensions: Dimensions | None = field(default=None, metadata=setting(_or_none(one_of(*get_args(Dimensions))), word))
    """Placement of attributes: in `tags`, in the `name`, or nowhere (`drop`), with points added up. By default `tags`
    for `dogstatsd` and `name` for `statsd`."""

    histograms: Histograms = field(default="values", metadata=setting(one_of(*get_args(Histograms)), word))
    """`values` sends values that represent the histogram, `summary` its count and sum as counters, its minimum and
    maximum as gauges."""

    gauges: bool | None = field(default=None, metadata=setting(_or_none(flag), boolean))
    """Send gauges. By default only with tags: without them, several processes overwrite each other's gauges."""

    instance_tag: bool = field(default=True, metadata=setting(flag, boolean))
    """Give gauges a tag `instance` with the resource's `service.instance.id`, if attributes are placed in tags."""

    max_values: int | None = field(default=None, metadata=setting(_or_none(whole(1)), number))
    """Approximate maximum number of lines per histogram; at least one per bucket. A line represents several values of a
    larger histogram. With `statsd`, count and percentiles are then correct, but the sum is too low by that factor. By
    default 100 for `dogstatsd`, which weights the sum as well, and 1000 for `statsd`."""

    interval: float = field(default=10.0, metadata=setting(_interval, number))
    """Seconds between two exports of the metric reader."""

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> tuple[StatsDSettings, list[str]]:
        """Read the environment variables; return the settings, and a message for each invalid variable, whose default
        is used.
        """
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
        """The placement of attributes."""
        return self.dimensions or ("tags" if self.flavor == "dogstatsd" else "name")

    @property
    def sends_gauges(self) -> bool:
        """True if gauges are sent."""
        return self.tag_placement == "tags" if self.gauges is None else self.gauges

    @property
    def value_limit(self) -> int:
        """Approximate maximum number of lines per histogram."""
        return self.max_values or (100 if self.flavor == "dogstatsd" else 1000)

    @property
    def packet_size(self) -> int:
        """Maximum size of a packet in bytes: the payload of an Ethernet frame, or the read size of daemons for sockets
        on the same machine.
        """
        return _LOCAL_SOCKET_READ if self.socket else _ETHERNET_PAYLOAD

    @property
    def address(self) -> str:
        """The address of the daemon, for messages."""
        return f"unix:{self.socket}" if self.socket else f"{self.protocol}://{self.host}:{self.port}"


_SETTINGS: Final = settings_of(StatsDSettings)
_VARIABLES: Final[Mapping[str, str]] = {
    f"STATSD_{name.upper()}" if name in ("host", "port") else _PREFIX + name.upper(): name for name in _SETTINGS
}
"""The fields, by environment variable."""
