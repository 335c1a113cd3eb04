"""Pipelines: their parts, prices and storage under one name. Nothing here runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .costs.prices import Prices
from .errors import ConfigurationError
from .pipeline.measurement import Measurement, in_dependency_order
from .pipeline.serializer import JSONSerializer, Serializer
from .pipeline.stages import Stage, check_name
from .storage.dead_letters import DeadLetterQueue
from .support.money import to_money
from .support.numbers import is_finite, shown

if TYPE_CHECKING:
    from .storage import ArtifactStore, SQLStorage

T = TypeVar("T")


class Indexed(Protocol):
    """A collection with items at 0, 1, 2, … until it raises `IndexError`, such as a map-style data set."""

    def __getitem__(self, index: int, /) -> Any: ...


Items = Iterable[Any] | AsyncIterable[Any] | Indexed
Source = Items | Callable[[], Items]
"""Samples or plain data. An iterator can be run once; give a callable or a collection to run again."""


def has_iterator(source: Any) -> bool:
    """Return True if the source makes iterators, sync or async."""
    kind = type(source)  # a class has the `__iter__` of its instances
    return getattr(kind, "__iter__", None) is not None or getattr(kind, "__aiter__", None) is not None


def is_iterable(source: Any) -> bool:
    """Return True if `iter` or `aiter` takes the source."""
    kind = type(source)
    # `__iter__ = None` says that something is not iterable, whatever else it has.
    return has_iterator(source) or (hasattr(kind, "__getitem__") and not hasattr(kind, "__iter__"))


class Pipeline:
    """A source, stages, measurements and a storage under one name.

    `name` keys everything that is stored. `id` is a hash of the names, order and versions of stages and measurements:
    of what decides the results, not of how fast or where they are computed. `expected_interval` (seconds) declares
    how often the pipeline should succeed, for dashboards and alerts.

    `prices` are what API calls cost, by default those of the file that `FORGE_PRICES` names. A run that has spent
    `max_cost` (US dollars) admits no more samples, finishes those under way and ends as `cancelled`; what they still
    cost comes on top. `hourly_budget` (US dollars) declares what all runs together may spend in an hour, for dashboards
    and alerts; it stops nothing.

    A run in which more than `max_failures` samples fail ends at once, as `failed`, with `TooManyFailuresError`. An
    integer is a number of samples; a float from 0.0 to 1.0 is a share of the samples tried, once there are 100. By
    default, a run ends if all of the first 100 samples tried fail; 1.0 lets any number fail. Skipped and split samples
    and those that an earlier run finished do not count as tried, and a replay never ends that way.

    A run is stalled if its consumer waits and nothing settles for `stall_after` seconds: that is logged, in the run's
    record, and an event of the telemetry. None switches it off.

    Raises:
        ConfigurationError: for names that are used twice or that no storage can hold, missing or cyclic
            dependencies, or parts of the wrong kind.
    """

    def __init__(
        self,
        *,
        name: str,
        source: Source,
        stages: Sequence[Stage] = (),
        measurements: Sequence[Measurement] = (),
        storage: SQLStorage | None = None,
        artifacts: ArtifactStore | None = None,
        serializer: Serializer | None = None,
        expected_interval: float | None = None,
        prices: Prices | None = None,
        max_cost: Decimal | float | None = None,
        max_failures: float | None = None,
        hourly_budget: Decimal | float | None = None,
        stall_after: float | None = 300.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"Pipeline(name={name!r}): must be a string that is not empty")
        check_name(f"Pipeline(name={name!r}): name", name)
        what = f"pipeline {name!r}"
        if isinstance(source, str | bytes) or not (callable(source) or is_iterable(source)):
            raise ConfigurationError(f"{what}: the source must be iterable or callable, not {source!r}")
        _check_seconds(f"{what}: expected_interval", expected_interval)
        _check_seconds(f"{what}: stall_after", stall_after)
        if isinstance(storage, str):
            raise ConfigurationError(f"{what}: the storage must be SQLStorage({storage!r}), not its URL alone")
        if isinstance(artifacts, str):
            raise ConfigurationError(f"{what}: the artifacts must be ArtifactStore({artifacts!r}), not its URL alone")
        if prices is not None and not isinstance(prices, Prices):
            raise ConfigurationError(f"{what}: prices must be Prices, not {prices!r}")
        self.name = name
        self.prices = prices
        self.max_cost = _budget(f"{what}: max_cost", max_cost)
        self.max_failures = _failure_limit(f"{what}: max_failures", max_failures)
        self.hourly_budget = _budget(f"{what}: hourly_budget", hourly_budget)
        self.stall_after = stall_after
        self.source = source
        self.stages = _parts(f"{what}: stages", stages)
        self.storage = storage
        self.artifacts = artifacts
        self.serializer: Serializer = serializer or JSONSerializer()
        self.expected_interval = expected_interval
        seen: set[str] = set()
        for stage in self.stages:
            if not isinstance(stage, Stage):
                raise ConfigurationError(f"{what}: {stage!r} is no stage{_hint(stage)}")
            if not stage.name:
                raise ConfigurationError(f"{what}: {type(stage).__name__}.__init__ must call super().__init__()")
            if stage.name in seen:
                raise ConfigurationError(f"{what}: stage name {stage.name!r} is used twice")
            seen.add(stage.name)
        measured = _parts(f"{what}: measurements", measurements)
        for measurement in measured:
            if not isinstance(measurement, Measurement):
                raise ConfigurationError(f"{what}: {measurement!r} is no measurement{_hint(measurement)}")
        self.measurements = in_dependency_order(measured)
        self.id = self._identity()
        self._source_claimed = False
        self._dead_letters = DeadLetterQueue(storage, name, self.serializer) if storage is not None else None

    @property
    def definition(self) -> dict[str, Any]:
        """Names and versions of stages and measurements, from which the id is derived."""
        return {
            "name": self.name,
            "stages": [[stage.name, stage.version] for stage in self.stages],
            "measurements": [[measurement.key, measurement.version] for measurement in self.measurements],
        }

    @property
    def dead_letters(self) -> DeadLetterQueue:
        """The pipeline's dead letters.

        Raises:
            ConfigurationError: if the pipeline has no storage.
        """
        if self._dead_letters is None:
            raise ConfigurationError(f"pipeline {self.name!r} has no storage, so it keeps no dead letters")
        return self._dead_letters

    def claim_source(self) -> bool:
        """Claim a source that can be read once; returns True for the first run only."""
        first = not self._source_claimed
        self._source_claimed = True
        return first

    def _identity(self) -> str:
        text = json.dumps(self.definition, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Pipeline(name={self.name!r}, id={self.id!r})"


def _parts(what: str, given: Iterable[T]) -> tuple[T, ...]:
    if not isinstance(given, Iterable):
        raise ConfigurationError(f"{what} must be a list, not {given!r}")
    return tuple(given)


def _budget(what: str, given: Decimal | float | None) -> Decimal | None:
    if given is None:
        return None
    try:
        budget = to_money(given)
    except ValueError as error:
        raise ConfigurationError(f"{what} {error}") from None
    if not budget:
        raise ConfigurationError(f"{what} must be more than 0")
    return budget


def _check_seconds(what: str, given: float | None) -> None:
    if given is not None and not (is_finite(given) and given > 0):
        raise ConfigurationError(f"{what} must be a positive number of seconds, not {shown(given)}")


def _failure_limit(what: str, given: float | None) -> float | None:
    good = isinstance(given, int | float) and not isinstance(given, bool) and given >= 0
    if given is not None and not (good and (isinstance(given, int) or given <= 1)):
        raise ConfigurationError(
            f"{what} must be a whole number of samples, or a share of them from 0.0 to 1.0, not {shown(given)}"
        )
    return given


def _hint(part: Any) -> str:
    """Return a hint about a part that is neither a stage nor a measurement."""
    if isinstance(part, type) and issubclass(part, Stage | Measurement):
        return " (make an instance of it)"
    return " (decorate it with @stage)" if callable(part) else ""
