"""The settings for StatsD: its address and its dialect."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from ..config.fields import boolean, check_fields, flag, number, one_of, seconds, setting, settings_of, whole, word
from ..support.spelling import similar
from ._tags import Tags, check_tags, datadog_tags
from ._template import check_template, placeholders

Protocol = Literal["udp", "tcp"]
Flavor = Literal["dogstatsd", "statsd"]
Dimensions = Literal["tags", "name", "drop"]
Histograms = Literal["values", "summary"]

_PREFIX: Final = "FORGE_OTEL_STATSD_"
_DATADOG_TAGS: Final = "DD_TAGS"
_OTHER_VARIABLES: Final = {
    "host": "STATSD_HOST",
    "port": "STATSD_PORT",
    "service": "DD_SERVICE",
    "env": "DD_ENV",
    "version": "DD_VERSION",
    "entity_id": "DD_ENTITY_ID",
}
"""Variables that others read, too, by field."""
_ETHERNET_PAYLOAD: Final = 1432
_LOCAL_SOCKET_READ: Final = 8192


def _text(value: Any) -> str:
    if isinstance(value, str) and not any(character.isspace() or character == "\0" for character in value):
        return value
    raise ValueError("must be text without blanks")


def _label(value: Any) -> str:
    if isinstance(value, str) and value.isprintable():
        return value
    raise ValueError("must be text on one line")


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

    Each field can also be set in an environment variable: host and port in `STATSD_HOST` and `STATSD_PORT`; service,
    env, version and entity_id in Datadog's `DD_SERVICE`, `DD_ENV`, `DD_VERSION` and `DD_ENTITY_ID`; the others in
    `FORGE_OTEL_STATSD_` and the field's name in capitals. Tags are also read from `DD_TAGS`.

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

    name_template: str = field(default="{name}.{tags}", metadata=setting(check_template))
    """Template of names. `{name}` is the metric's own name, `{tags}` the values of its tags, if they are placed in the
    name. `{pipeline}`, `{service}`, `{env}`, `{version}` and `{instance}` (the process) have a place of their own."""

    tags: Tags = field(default=(), metadata=setting(check_tags))
    """Tags of every line, such as `team:ml,region:eu`. Those of `FORGE_OTEL_STATSD_TAGS` win over those of `DD_TAGS`.
    They are sent if attributes are placed in tags."""

    service: str = field(default="", metadata=setting(_label))
    """The tag `service`. By default the resource's `service.name`."""

    env: str = field(default="", metadata=setting(_label))
    """The tag `env`. By default the resource's `deployment.environment.name`."""

    version: str = field(default="", metadata=setting(_label))
    """The tag `version`. By default the resource's `service.version`."""

    entity_id: str = field(default="", metadata=setting(_label))
    """The tag `dd.internal.entity_id`, by which Datadog's agent finds the container. Only for `dogstatsd`."""

    histograms: Histograms = field(default="values", metadata=setting(one_of(*get_args(Histograms)), word))
    """`values` sends values that represent the histogram, `summary` its count and sum as counters, its minimum and
    maximum as gauges."""

    gauges: bool | None = field(default=None, metadata=setting(_or_none(flag), boolean))
    """Send gauges. By default only with tags, or with `{instance}` in the template: without them, several processes
    overwrite each other's gauges."""

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
                field_name = variable.removeprefix(_PREFIX).lower()
                meant = _OTHER_VARIABLES.get(field_name) or similar(variable, VARIABLES)
                hint = f"did you mean {meant}?" if meant else f"there are {', '.join(VARIABLES)}"
                invalid.append(f"{variable}={text!r}: there is no such variable; {hint}")
        shared = list(datadog_tags(environ.get(_DATADOG_TAGS, "")))
        invalid += [
            f"{_DATADOG_TAGS}={environ[_DATADOG_TAGS]!r}: {each}" for each in shared if isinstance(each, ValueError)
        ]
        found["tags"] = (*(each for each in shared if isinstance(each, tuple)), *found.get("tags", ()))
        return cls(**found), invalid

    @classmethod
    def from_entries(
        cls, entries: Mapping[str, Any], environ: Mapping[str, str] = os.environ
    ) -> tuple[StatsDSettings, list[str]]:
        """Read the entries of a configuration file, and the environment variables for the others; return the settings,
        and a message for each invalid entry and variable, which is left out.
        """
        settings, invalid = cls.from_environment(environ)
        found: dict[str, Any] = {}
        for name, value in entries.items():
            if value is None:
                continue
            try:
                if name not in _ENTRIES:
                    meant = similar(name, _ENTRIES)
                    hint = f"did you mean {meant}?" if meant else f"there are {', '.join(_ENTRIES)}"
                    raise ValueError(f"is not a setting; {hint}")
                declared = _SETTINGS[name]
                found[name] = declared.from_text(value) if isinstance(value, str) else declared.check(value)
            except ValueError as error:
                invalid.append(f"{name}: {value!r} of the StatsD exporter in the configuration file: it {error}")
        return dataclasses.replace(settings, **found), invalid

    @property
    def tag_placement(self) -> Dimensions:
        """The placement of attributes."""
        return self.dimensions or ("tags" if self.flavor == "dogstatsd" else "name")

    @property
    def sends_gauges(self) -> bool:
        """True if gauges are sent."""
        if self.gauges is not None:
            return self.gauges
        return self.tag_placement == "tags" or "instance" in placeholders(self.name_template)

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
_ENTRIES: Final = tuple(name for name in _SETTINGS if name != "interval")
"""The entries of a configuration file, whose reader has the interval."""
_VARIABLES: Final[Mapping[str, str]] = {_OTHER_VARIABLES.get(name, _PREFIX + name.upper()): name for name in _SETTINGS}
"""The fields, by environment variable."""
VARIABLES: Final = (*_VARIABLES, _DATADOG_TAGS)
"""All environment variables that are read."""
