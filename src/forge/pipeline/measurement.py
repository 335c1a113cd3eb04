"""Measurements: values computed on samples, cached by what they were computed from."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ..errors import ConfigurationError
from .sample import Sample
from .stages import MAX_NAME, MAX_VERSION, apply_settings, check_name, check_settings


class Measurement:
    """A value computed on every sample that came through the stages.

    Subclass it, name it with `key`, and write `compute(sample)`, or, with `batch_size`, `compute_batch(samples)`;
    either may be `async`. The value must be something the pipeline's serializer can store.

    A value is computed once for the same sample id, key, version and data. A new `version` computes it again and
    keeps the old one.
    """

    key: str = ""
    """Name of the value in `sample.measurements` and in the storage; unique within the pipeline, required."""
    version: str = "1"
    """Version of the computation, part of the pipeline's id: changing it computes all values again."""
    depends_on: Sequence[str] = ()
    """Keys of measurements that come first; their values are in `sample.measurements`."""
    concurrency: int = 1
    """Maximum number of concurrent calls, at most 100 000; as for stages, a pair is for `RayRunner`."""
    min_concurrency: int | None = None
    """The first number of a pair; None where one number was given."""
    resources: Mapping[str, float] | None = None
    """Resources that `RayRunner` reserves for each worker, as for stages."""
    timeout: float | None = None
    """Seconds for one call; a longer one fails with `StageTimeoutError`. None: unlimited."""
    batch_size: int | None = None
    """Maximum number of samples per call of `compute_batch`; None calls `compute` for each sample."""
    max_wait: float = 0.1
    """Seconds that a batch waits for more samples after its first."""

    SETTINGS: ClassVar[tuple[str, ...]] = (
        "key",
        "version",
        "depends_on",
        "concurrency",
        "resources",
        "timeout",
        "batch_size",
        "max_wait",
    )

    def __init__(self, **settings: Any) -> None:
        """Apply the given settings; others keep the values of the class.

        Raises:
            ConfigurationError: for an unknown setting or a value out of range, naming it.
        """
        apply_settings(self, settings)
        what = f"measurement {type(self).__name__}"
        for name in ("key", "version"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"{what}: {name} must be a string that is not empty, not {value!r}")
            check_name(f"{what}: {name}", value, MAX_NAME if name == "key" else MAX_VERSION)
        if isinstance(self.depends_on, str):
            raise ConfigurationError(f"{what}: depends_on must be a list of keys, not the string {self.depends_on!r}")
        check_settings(what, self)
        method = "compute_batch" if self.batch_size else "compute"
        if getattr(type(self), method) is getattr(Measurement, method):
            raise ConfigurationError(f"{what} has no {method}()")

    def compute(self, sample: Sample) -> Any | Awaitable[Any]:
        """Compute the value for one sample. An exception dead-letters the sample."""
        raise NotImplementedError(f"{type(self).__name__} has no compute()")

    def compute_batch(self, samples: Sequence[Sample]) -> Sequence[Any] | Awaitable[Sequence[Any]]:
        """Compute the values for several samples, in the same order."""
        raise NotImplementedError(f"{type(self).__name__} has no compute_batch()")

    @property
    def is_async(self) -> bool:
        """True if the method that computes values is a coroutine function."""
        return inspect.iscoroutinefunction(self.compute_batch if self.batch_size else self.compute)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self.key!r}, version={self.version!r})"


def in_dependency_order(measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Sort measurements so that each follows those it depends on, otherwise in the order given.

    Raises:
        ConfigurationError: for a key used twice, an unknown dependency, or a cycle, which it names.
    """
    by_key: dict[str, Measurement] = {}
    for measurement in measurements:
        if measurement.key in by_key:
            raise ConfigurationError(f"measurement key {measurement.key!r} is used twice")
        by_key[measurement.key] = measurement
    ordered: dict[str, Measurement] = {}

    def visit(key: str, path: tuple[str, ...]) -> None:
        if key in ordered:
            return
        if key in path:
            cycle = " → ".join((*path[path.index(key) :], key))
            raise ConfigurationError(f"measurements depend on each other in a cycle: {cycle}")
        for dependency in by_key[key].depends_on:
            if dependency not in by_key:
                raise ConfigurationError(f"measurement {key!r} depends on {dependency!r}, which the pipeline lacks")
            visit(dependency, (*path, key))
        ordered[key] = by_key[key]

    for key in by_key:
        visit(key, ())
    return tuple(ordered.values())
