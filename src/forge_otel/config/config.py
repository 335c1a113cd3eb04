"""The configuration: one dataclass, from keywords, `FORGE_OTEL_*` variables or a configuration file."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from .fields import Setting, boolean, check_fields, flag, number, one_of, word

Events = Literal["default", "all", "none"]
Hook = Callable[..., object]

_COMPONENTS: Final = ("runner", "stage", "measurement", "storage")

SWITCH: Final = "FORGE_OTEL_SDK_FAST_PATHS"
"""The variable that switches the short ways into the SDK off, by the value `off`."""

_PREFIX = "FORGE_OTEL_"
_OTHER_VARIABLES = ("FORGE_OTEL_RAISE_FAULTS", "FORGE_OTEL_STATSD_", SWITCH)
_logger = logging.getLogger("forge_otel")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeConfig:
    """What is recorded, and how.

    Each field but the hooks can also be set by a variable, `FORGE_OTEL_` and the field's name in capitals.

    Raises:
        ValueError: a field has a value that is not allowed.
    """

    components: frozenset[str] = frozenset(_COMPONENTS)
    """What is instrumented: `runner`, `stage` (with the dead letters), `measurement`, `storage`. Each is useful without
    the others. In a variable the names are separated by commas."""

    events: Events = "default"
    """Which events are emitted: `default` are those that spans and metrics do not say already, `all` adds one for each
    start and end, `none` means none."""

    trace_per_sample: bool = False
    """Whether each sample is a trace of its own, linked to the run's: for runs without end, and for tail sampling."""

    sampling_rate: float = 1.0
    """The share of samples that are traced, from 0 to 1; a hash of a sample's id decides. Metrics count all of them,
    and samples that fail, are retried or slow are traced whatever it is."""

    slow_threshold: float | Literal["auto"] | None = None
    """Seconds after which a sample counts as slow; `auto` takes the 99th percentile of those that have settled."""

    span_budget: int = 10_000
    """How many spans a run writes at the most, a tenth of them kept for errors, retries and slow samples; 0 means any
    number."""

    event_budget: int = 1_000
    """How many events a run writes for each class of error at the most; 0 means any number."""

    zero_points: bool = True
    """Whether counters that a pipeline is known to have start at zero, so that rates see the first increase as well."""

    zero_point_timeout: float = 1.0
    """How long, in seconds, the first pull from the source waits at most until the zeros are exported."""

    on_run_start: Hook | None = None
    """Called with `span, run` when a run starts."""
    on_run_end: Hook | None = None
    """Called with `span, run, result` when a run ends; `result` is the `RunResult`."""
    on_stage_start: Hook | None = None
    """Called with `span, stage, sample` before a stage; a list of samples for a batch."""
    on_stage_end: Hook | None = None
    """Called with `span, stage, sample, verdict` after a stage; `verdict` is None if there was none."""
    on_measurement_start: Hook | None = None
    """Called with `span, measurement, sample` before a measurement; a list of samples for a batch."""
    on_measurement_end: Hook | None = None
    """Called with `span, measurement, sample, result` after a measurement."""

    def __post_init__(self) -> None:
        check_fields(self, _SETTINGS)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> ForgeConfig:
        """The configuration in the `FORGE_OTEL_*` variables. What is wrong there is logged, and the default used."""
        variables = {
            name: text
            for name, text in environ.items()
            if name.startswith(_PREFIX) and not name.startswith(_OTHER_VARIABLES) and text.strip()
        }
        return cls(**_valid({name.removeprefix(_PREFIX).lower(): text for name, text in variables.items()}, _variable))

    def with_settings(self, settings: Mapping[str, Any]) -> ForgeConfig:
        """A copy in which fields have other values.

        Raises:
            TypeError: there is no such field.
            ValueError: a field has a value that is not allowed.
        """
        for name in settings:
            if name not in _SETTINGS:
                raise TypeError(f"there is no setting {name!r}; there are {', '.join(_SETTINGS)}")
        return dataclasses.replace(self, **settings)


@dataclass(init=False)
class FileEntries:
    """The entries below `instrumentation/development: python: forge:` of a declarative configuration file.

    OpenTelemetry's loader makes one, and hands the fields that are not None to `instrument()`. An error in here would
    leave the pipelines without telemetry, so what is wrong is logged and left out.
    """

    components: Any = None
    events: Any = None
    trace_per_sample: Any = None
    sampling_rate: Any = None
    slow_threshold: Any = None
    span_budget: Any = None
    event_budget: Any = None
    zero_points: Any = None
    zero_point_timeout: Any = None

    def __init__(self, **entries: Any) -> None:
        given = {name: value for name, value in entries.items() if value is not None}
        for name, value in _valid(given, _entry).items():
            setattr(self, name, value)


def _valid(entries: Mapping[str, Any], describe: Callable[[str, Any], str]) -> dict[str, Any]:
    """Those entries that are right, as values of the fields; the others are logged."""
    valid = {}
    for name, value in entries.items():
        setting = _SETTINGS.get(name)
        if setting is None or setting.parse is None:
            known = ", ".join(name for name, setting in _SETTINGS.items() if setting.parse)
            _logger.warning("%s is ignored: there is no such setting; there are %s", describe(name, value), known)
            continue
        try:
            valid[name] = setting.check(setting.parse(value) if isinstance(value, str) else value)
        except ValueError as error:
            _logger.warning("%s is ignored: it %s", describe(name, value), error)
    return valid


def _variable(name: str, text: str) -> str:
    return f"{_PREFIX}{name.upper()}={text!r}"


def _entry(name: str, value: Any) -> str:
    return f"{name}: {value!r} of forge in the configuration file"


def _components(value: Any) -> frozenset[str]:
    # Text alone is a collection too, of letters.
    if isinstance(value, Collection) and not isinstance(value, str) and value and all(n in _COMPONENTS for n in value):
        return frozenset(value)
    raise ValueError(f"must be a collection of one or more of {', '.join(_COMPONENTS)}")


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValueError("must be a number of seconds, 0 or more")


def _share(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ValueError("must be a number from 0 to 1")


def _slow(value: Any) -> Any:
    if value is None or value == "auto":
        return value
    try:
        return _seconds(value)
    except ValueError:
        raise ValueError("must be a number of seconds, 0 or more, or auto") from None


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("must be a whole number, 0 or more")


def _hook(value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise ValueError("must be a function")


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _number_or_word(text: str) -> float | str:
    value = number(text)
    return word(value) if isinstance(value, str) else value


_SETTINGS: Final = {
    "components": Setting(_components, _list),
    "events": Setting(one_of(*get_args(Events)), word),
    "trace_per_sample": Setting(flag, boolean),
    "sampling_rate": Setting(_share, number),
    "slow_threshold": Setting(_slow, _number_or_word),
    "span_budget": Setting(_count, number),
    "event_budget": Setting(_count, number),
    "zero_points": Setting(flag, boolean),
    "zero_point_timeout": Setting(_seconds, number),
    "on_run_start": Setting(_hook),
    "on_run_end": Setting(_hook),
    "on_stage_start": Setting(_hook),
    "on_stage_end": Setting(_hook),
    "on_measurement_start": Setting(_hook),
    "on_measurement_end": Setting(_hook),
}
