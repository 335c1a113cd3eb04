"""The configuration: one dataclass, set by keywords, `FORGE_OTEL_*` environment variables or a configuration file."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from ..support.spelling import similar
from .fields import (
    MAX_SECONDS,
    boolean,
    check_fields,
    flag,
    number,
    one_of,
    seconds,
    setting,
    settings_of,
    whole,
    word,
)

Events = Literal["default", "all", "none"]
Exceptions = Literal["logs", "span_events", "both"]
Hook = Callable[..., object]

_COMPONENTS: Final = (
    "runner",
    "stage",
    "measurement",
    "storage",
    "datatrove",
    "ray_data",
)

SWITCH: Final = "FORGE_OTEL_SDK_FAST_PATHS"
"""Environment variable that turns the fast paths into the SDK off, by the value `off`."""

PREFIX: Final = "FORGE_OTEL_"
"""Prefix of the environment variables that set fields of `ForgeConfig`."""

OPT_IN: Final = "OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN"
"""OpenTelemetry's own variable for the signal of exceptions, where the setting `exceptions` is not a variable of
ours."""

_OPTED_IN: Final[Mapping[str, str]] = {"logs": "logs", "logs/dup": "both"}
_OTHER_VARIABLES = ("FORGE_OTEL_RAISE_FAULTS", "FORGE_OTEL_STATSD_", "FORGE_OTEL_FILE_", SWITCH)
_logger = logging.getLogger("forge_otel")


def _components(value: Any) -> frozenset[str]:
    # A string alone is a collection too, of letters.
    if isinstance(value, Collection) and not isinstance(value, str) and value and all(n in _COMPONENTS for n in value):
        return frozenset(value)
    raise ValueError(f"must be a collection of one or more of {', '.join(_COMPONENTS)}")


def _ratio(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ValueError("must be a number from 0 to 1")


def _threshold(value: Any) -> Any:
    if value is None or value == "auto":
        return value
    try:
        return seconds(value)
    except ValueError:
        raise ValueError(f"must be a number of seconds from 0 to {MAX_SECONDS}, or auto") from None


def _hook(value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise ValueError("must be a function")


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _number_or_word(text: str) -> float | str:
    value = number(text)
    return word(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeConfig:
    """The settings of the telemetry.

    Every field except the hooks can also be set in an environment variable: `FORGE_OTEL_` and the field's name in
    capitals.

    Raises:
        ValueError: a field has a value that is not allowed.
    """

    # Each field is the only declaration of its setting: environment variables, file entries and the table in
    # docs/configuration.md are derived from it.

    components: frozenset[str] = field(default=frozenset(_COMPONENTS), metadata=setting(_components, _list))
    """Components to instrument: `runner`, `stage` (with the dead letters), `measurement`, `storage`, and the libraries
    `datatrove` and `ray_data`. Each works without the others. An environment variable separates the names by commas."""

    events: Events = field(default="default", metadata=setting(one_of(*get_args(Events)), word))
    """Log events to emit: `default` emits those that spans and metrics do not already cover, `all` adds one for each
    start and end, `none` emits none."""

    exceptions: Exceptions = field(default="logs", metadata=setting(one_of(*get_args(Exceptions)), word))
    """Where to record exceptions: `logs` as log events, `span_events` as events of their spans, for backends that take
    traces only, `both` as both. Where the variable is not set, `OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN=logs/dup` means
    `both`."""

    trace_per_sample: bool = field(default=False, metadata=setting(flag, boolean))
    """Give each sample a trace of its own, linked to the run's: for endless runs, and for tail sampling."""

    parent_from_environment: bool = field(default=False, metadata=setting(flag, boolean))
    """Take the parent of a run that starts outside of any span from `TRACEPARENT`, `TRACESTATE` and `BAGGAGE`: for jobs
    that a traced program starts."""

    sampling_rate: float = field(default=1.0, metadata=setting(_ratio, number))
    """Ratio of samples to trace, from 0 to 1, decided by a hash of the sample's id. Metrics count all samples. Samples
    that fail, are retried or are slow are traced at any rate."""

    slow_threshold: float | Literal["auto"] | None = field(default=None, metadata=setting(_threshold, _number_or_word))
    """Seconds after which a sample counts as slow; `auto` uses the 99th percentile of the samples settled so far."""

    span_budget: int = field(default=10_000, metadata=setting(whole(0), number))
    """Approximate maximum number of spans per run, a tenth of it reserved for errors, retries and slow samples; 0 means
    no limit."""

    event_budget: int = field(default=1_000, metadata=setting(whole(0), number))
    """Maximum number of events per run and `error.type`; 0 means no limit."""

    zero_points: bool = field(default=True, metadata=setting(flag, boolean))
    """Export an initial point of 0 for every counter that a pipeline is known to have, so that rates include the first
    increase."""

    zero_point_timeout: float = field(default=1.0, metadata=setting(seconds, number))
    """Maximum time in seconds that the first pull from the source waits for the export of the initial points."""

    shutdown_timeout: float = field(default=5.0, metadata=setting(seconds, number))
    """Maximum time in seconds for the delivery of telemetry at the end of a run, and of the process."""

    on_run_start: Hook | None = field(default=None, metadata=setting(_hook))
    """Called with `span, run` when a run starts."""
    on_run_end: Hook | None = field(default=None, metadata=setting(_hook))
    """Called with `span, run, result` when a run ends; `result` is the `RunResult`."""
    on_stage_start: Hook | None = field(default=None, metadata=setting(_hook))
    """Called with `span, stage, sample` before a stage; for a batch with a list of samples."""
    on_stage_end: Hook | None = field(default=None, metadata=setting(_hook))
    """Called with `span, stage, sample, verdict` after a stage; `verdict` is None if there was none."""
    on_measurement_start: Hook | None = field(default=None, metadata=setting(_hook))
    """Called with `span, measurement, sample` before a measurement; for a batch with a list of samples."""
    on_measurement_end: Hook | None = field(default=None, metadata=setting(_hook))
    """Called with `span, measurement, sample, result` after a measurement."""

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ForgeConfig:
        """Read the `FORGE_OTEL_*` environment variables, and `OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN`. Invalid ones of
        ours are logged, and the default is used.
        """
        variables = {
            name: text
            for name, text in environ.items()
            if name.startswith(PREFIX) and not name.startswith(_OTHER_VARIABLES) and text.strip()
        }
        texts = {name.removeprefix(PREFIX).lower(): text for name, text in variables.items()}
        opted_in = _OPTED_IN.get(word(environ.get(OPT_IN, "")))
        if opted_in is not None:
            texts.setdefault("exceptions", opted_in)
        return cls(**_valid(texts, _variable))

    def with_settings(self, settings: Mapping[str, Any]) -> ForgeConfig:
        """Return a copy with other values in the given fields.

        Raises:
            TypeError: there is no such field.
            ValueError: a field has a value that is not allowed.
        """
        for name in settings:
            if name not in _SETTINGS:
                raise TypeError(f"there is no setting {name!r}; there are {', '.join(_SETTINGS)}")
        return dataclasses.replace(self, **settings)


_SETTINGS: Final = settings_of(ForgeConfig)
_TEXT_SETTINGS: Final = tuple(name for name, declared in _SETTINGS.items() if declared.parse)


def _read_entries(self: Any, **entries: Any) -> None:
    present = {name: value for name, value in entries.items() if value is not None}
    for name, value in _valid(present, _entry).items():
        setattr(self, name, value)


FileEntries: Final[Any] = dataclasses.make_dataclass(
    "FileEntries",
    [(name, Any, None) for name in _TEXT_SETTINGS],
    init=False,
    namespace={"__init__": _read_entries, "__module__": __name__},
)
"""The entries under `instrumentation/development: python: forge:` of a declarative configuration file.

OpenTelemetry's loader constructs it with the entries as keywords, and passes the fields that are not None to
`instrument()`. An exception here would leave the pipelines without telemetry, so invalid entries are logged and left
out.
"""


def _valid(entries: Mapping[str, Any], describe: Callable[[str, Any], str]) -> dict[str, Any]:
    """Convert the valid entries to field values, and log the others."""
    valid = {}
    for name, value in entries.items():
        if name not in _TEXT_SETTINGS:
            meant = similar(name, _TEXT_SETTINGS)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(_TEXT_SETTINGS)}"
            _logger.warning("%s is ignored: there is no such setting; %s", describe(name, value), hint)
            continue
        try:
            valid[name] = _SETTINGS[name].from_text(value) if isinstance(value, str) else _SETTINGS[name].check(value)
        except ValueError as error:
            _logger.warning("%s is ignored: it %s", describe(name, value), error)
    return valid


def _variable(name: str, text: str) -> str:
    return f"{PREFIX}{name.upper()}={text!r}"


def _entry(name: str, value: Any) -> str:
    return f"{name}: {value!r} of forge in the configuration file"
