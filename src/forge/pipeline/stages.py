"""Stages, which transform samples."""

from __future__ import annotations

import inspect
import operator
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, SupportsIndex, overload

from ..errors import ConfigurationError
from ..support.numbers import MAX_COUNT, is_count, is_finite, shown
from ..support.text import is_encodable
from .retry import NO_RETRY, RetryPolicy
from .sample import Sample, Skip

MAX_NAME = 200
"""Maximum length of the name of a pipeline, stage or measurement, in bytes of UTF-8."""
MAX_VERSION = 100
"""The same for versions."""

StageResult = Sample | Skip | list[Sample]
"""One sample goes on, `Skip` ends it, a non-empty list splits it."""


MAX_CONCURRENCY: Final = 100_000
"""Largest `concurrency`: more than any system has threads, or connections for tasks."""


class Stage:
    """One step of a pipeline.

    Subclass it and write `process(sample)`, or, with `batch_size`, `process_batch(samples)`; either may be `async`.
    The settings below are class attributes, and keyword arguments of the constructor.

    A sync stage runs on threads: more of them help while it waits for I/O, not while it computes in Python. An async
    stage runs on the run's event loop, so it must not block.
    """

    name: str = ""
    """Unique in its pipeline; by default the class's or function's name."""
    version: str = "1"
    """Part of the pipeline's identity: change it when the stage's results change, and everything is redone."""
    concurrency: int = 1
    """Maximum number of concurrent calls, at most 100 000. With `RayRunner`, a sync stage has as many workers, and an
    async one makes so many calls in one worker; `(2, 16)` lets Ray choose a number of workers between the two."""
    min_concurrency: int | None = None
    """The first number of such a pair; None where one number was given."""
    resources: Mapping[str, float] | None = None
    """Resources that `RayRunner` reserves for each worker, such as `{"GPU": 1}`; by default one core."""
    timeout: float | None = None
    """Seconds for one call; a longer one fails with `StageTimeoutError`, of class `timeout`. None: unlimited."""
    retry: RetryPolicy = NO_RETRY
    """Policy for repeating failed calls; by default each call has one attempt."""
    latency_budget: float | None = None
    """Seconds that an execution should stay below; declared for dashboards and alerts, nothing is enforced."""
    batch_size: int | None = None
    """Maximum number of samples per call of `process_batch`; None calls `process` for each sample."""
    max_wait: float = 0.1
    """Seconds that a batch waits for more samples after its first."""
    queue_size: int | None = None
    """Maximum number of samples that wait in the stage's queue; by default two per slot, at least 16, and some more
    while calls take less time than handing a sample over."""
    provider: str | None = None
    """Provider whose API is called once per attempt: each attempt counts as a call. Omit it if `usage.report` is used.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = (
        "name",
        "version",
        "concurrency",
        "resources",
        "timeout",
        "retry",
        "latency_budget",
        "batch_size",
        "max_wait",
        "queue_size",
        "provider",
    )

    def __init__(self, **settings: Any) -> None:
        """Apply the given settings; others keep the values of the class.

        Raises:
            ConfigurationError: for an unknown setting or a value out of range, naming it.
        """
        apply_settings(self, settings)
        if not self.name:
            self.name = type(self).__name__
        self._check()

    def process(self, sample: Sample) -> StageResult | Awaitable[StageResult]:
        """Transform one sample. An exception fails it, after the retries that the policy allows."""
        raise NotImplementedError(f"{type(self).__name__} has no process()")

    def process_batch(self, samples: Sequence[Sample]) -> list[StageResult] | Awaitable[list[StageResult]]:
        """Transform several samples: one result for each, in the same order."""
        raise NotImplementedError(f"{type(self).__name__} has no process_batch()")

    def setup(self) -> Any:
        """Set up the stage, once before a run's first sample; may be `async` if the stage is."""

    def close(self) -> Any:
        """Release resources, once after a run's last sample, if `setup` succeeded."""

    @property
    def is_async(self) -> bool:
        """True if the method that processes samples is a coroutine function."""
        return inspect.iscoroutinefunction(self.process_batch if self.batch_size else self.process)

    @property
    def queue_limit(self) -> int:
        """Maximum number of samples that wait in the stage's queue."""
        return self.queue_size or default_queue_limit(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    def _check(self) -> None:
        self._check_settings()
        method = "process_batch" if self.batch_size else "process"
        if getattr(type(self), method) is getattr(Stage, method):
            raise ConfigurationError(f"stage {self.name!r}: {type(self).__name__} has no {method}()")

    def _check_settings(self) -> None:
        check_settings(f"stage {self.name!r}", self)
        if not isinstance(self.retry, RetryPolicy):
            raise ConfigurationError(f"stage {self.name!r}: retry must be a RetryPolicy, not {self.retry!r}")
        for key in ("name", "version"):
            value = getattr(self, key)
            if not isinstance(value, str):
                raise ConfigurationError(f"stage {self.name!r}: {key} must be a string, not {value!r}")
            check_name(f"stage {self.name!r}: {key}", value, MAX_NAME if key == "name" else MAX_VERSION)
        if self.provider is not None and (not isinstance(self.provider, str) or not self.provider):
            raise ConfigurationError(
                f"stage {self.name!r}: provider must be a string that is not empty, not {self.provider!r}"
            )


def check_name(what: str, name: str, limit: int = MAX_NAME) -> None:
    """Check that every storage can hold a name, together with the longest id of a sample.

    Raises:
        ConfigurationError: it is too long, or has a NUL or half a surrogate pair in it.
    """
    if not is_encodable(name):
        raise ConfigurationError(f"{what} must have no NUL and no half surrogate pair, which no storage can hold")
    if (size := len(name.encode())) > limit:
        raise ConfigurationError(f"{what} must have at most {limit} bytes in UTF-8, not {size}")


def apply_settings(thing: Any, settings: Mapping[str, Any]) -> None:
    """Set the given settings of a stage or measurement.

    Raises:
        ConfigurationError: for one that it does not have.
    """
    for key, value in settings.items():
        if key not in thing.SETTINGS:
            raise ConfigurationError(
                f"{type(thing).__name__}({key}=…): no such setting; there are {', '.join(thing.SETTINGS)}"
            )
        setattr(thing, key, value)


def default_queue_limit(thing: Any) -> int:
    """Return the default size of a queue: two samples per slot, at least 16."""
    slots: int = thing.concurrency * (thing.batch_size or 1)
    return max(16, 2 * slots)


def check_settings(what: str, thing: Any) -> None:
    """Check the settings that stages and measurements share, and take a pair of `concurrency` apart."""
    if isinstance(thing.concurrency, tuple | list):
        pair = thing.concurrency
        if len(pair) != 2 or not all(is_count(each, 1, MAX_CONCURRENCY) for each in pair) or pair[0] > pair[1]:
            raise ConfigurationError(
                f"{what}: concurrency must be a whole number, or two with the smaller one first, not {shown(pair)}"
            )
        thing.min_concurrency, thing.concurrency = pair
    check_resources(what, thing.resources)
    for key in ("concurrency", "batch_size", "queue_size"):
        value = getattr(thing, key, None)
        if value is None and key != "concurrency":
            continue
        most = MAX_CONCURRENCY if key == "concurrency" else MAX_COUNT
        if not is_count(value, 1, most):
            raise ConfigurationError(f"{what}: {key} must be a whole number from 1 to {most}, not {shown(value)}")
    for key in ("timeout", "latency_budget", "max_wait"):
        value = getattr(thing, key, None)
        if value is None and key != "max_wait":
            continue
        if not is_finite(value) or (value == 0 and key != "max_wait"):
            raise ConfigurationError(f"{what}: {key} must be a positive number of seconds, not {shown(value)}")


def check_resources(what: str, resources: Any) -> None:
    """Check that resources are names with amounts."""
    if resources is None:
        return
    good = isinstance(resources, Mapping) and all(
        isinstance(name, str) and name and is_finite(amount) and amount >= 0 for name, amount in resources.items()
    )
    if not good:
        raise ConfigurationError(
            f'{what}: resources must be names with amounts, such as {{"GPU": 1}}, not {shown(resources)}'
        )


class FunctionStage(Stage):
    """A stage made of a function by `@stage`; calling it calls the function."""

    def __init__(self, function: Callable[[Any], Any], **settings: Any) -> None:
        if not callable(function):
            raise ConfigurationError(f"@stage needs a function, not {function!r}; settings are keyword arguments")
        self.function = function
        self.__doc__ = function.__doc__
        # Callables other than functions, such as a `partial`, have no name of their own.
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__module__ = function.__module__
        settings.setdefault("name", self.__name__)
        # Bound on the instance, so that a call costs no further frame and `is_async` sees the function itself.
        self.process = self.process_batch = function  # type: ignore[method-assign,assignment]
        super().__init__(**settings)

    def __call__(self, argument: Any) -> Any:
        return self.function(argument)

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        # Where the decorated name is the stage, pickle finds the function in it by this name, not by its own.
        if inspect.isfunction(self.function) and _at(self.__module__, self.__qualname__) is self:
            self.function.__qualname__ = f"{self.__qualname__}.function"
        return super().__reduce_ex__(protocol)

    def _check(self) -> None:
        self._check_settings()


def _at(module: str, path: str) -> Any:
    """Return what an imported module has at a dotted path; None if there is nothing."""
    try:
        return operator.attrgetter(path)(sys.modules[module])
    except (KeyError, AttributeError):
        return None


@overload
def stage(function: Callable[[Any], Any], /) -> FunctionStage: ...
@overload
def stage(**settings: Any) -> Callable[[Callable[[Any], Any]], FunctionStage]: ...


def stage(
    function: Callable[[Any], Any] | None = None, /, **settings: Any
) -> FunctionStage | Callable[[Callable[[Any], Any]], FunctionStage]:
    """Make a stage of a function: `@stage`, or `@stage(concurrency=8, timeout=10, …)` with the settings of `Stage`.

    With `batch_size` the function takes a list of samples and returns a list of results.
    """
    if function is not None:
        return FunctionStage(function, **settings)

    def decorate(function: Callable[[Any], Any]) -> FunctionStage:
        return FunctionStage(function, **settings)

    return decorate
