"""The instrumentor: turns the telemetry on and off."""

from __future__ import annotations

import os
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from opentelemetry import context, propagate
from opentelemetry._logs import LoggerProvider
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .config.config import FileEntries, ForgeConfig
from .engine.scopes import current_identity
from .instrumentors import targets
from .patching import faults
from .patching.patches import Patches, Target
from .signals.telemetry import Telemetry


class ForgeInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments the pipelines of this process. There is one instance per process.

    `instrument()` takes `tracer_provider=`, `meter_provider=` and `logger_provider=`, by default the global ones,
    `config=`, by default the one of the `FORGE_OTEL_*` environment variables, and each field of `ForgeConfig` as a
    keyword, which overrides `config`. It may be called before or after `forge` is imported.

    Called again with any of these, `instrument()` replaces all of them, as if nothing had been instrumented before: the
    earlier providers are flushed, and a run in progress goes on with them. Called again without arguments, as by
    OpenTelemetry after a configuration file, it changes nothing.

    `uninstrument()` restores every instrumented class.
    """

    configuration = FileEntries
    """The dataclass that OpenTelemetry's declarative configuration makes of the `forge` entries."""

    _config: ForgeConfig | None = None
    _telemetry: Telemetry | None = None
    _patches: Patches | None = None

    @property
    def config(self) -> ForgeConfig | None:
        """The settings in effect, in a forked process the parent's; None if nothing was instrumented."""
        return self._config

    @property
    def telemetry(self) -> Telemetry | None:
        """The output; None if nothing is instrumented."""
        return self._telemetry

    @property
    def patched(self) -> Sequence[Target]:
        """The instrumented functions, without those of modules that are not imported yet."""
        return self._patches.placed if self._patches is not None else ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return no dependencies: a distribution that is not installed would disable the instrumentation silently."""
        return ()

    def instrument(self, **kwargs: Any) -> Any:
        """Instrument the pipelines of this process, or replace the providers and settings; see the class."""
        if not self.is_instrumented_by_opentelemetry:
            return super().instrument(**kwargs)
        given = {name: value for name, value in kwargs.items() if name not in _OF_THE_LOADER and value is not None}
        if given:
            self._instrument(**given)
        return None

    def _instrument(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        config: ForgeConfig | None = None,
        **settings: Any,
    ) -> None:
        for name, value, method in (
            ("tracer_provider", tracer_provider, "get_tracer"),
            ("meter_provider", meter_provider, "get_meter"),
            ("logger_provider", logger_provider, "get_logger"),
            ("config", config, "with_settings"),
        ):
            if value is not None and not hasattr(value, method):
                raise TypeError(f"{name}={value!r}: it is a {type(value).__name__}, which has no {method}()")
        chosen = (config or ForgeConfig.from_environment()).with_settings(settings)
        _instrumentors.add(self)
        earlier = self._telemetry
        try:
            telemetry = Telemetry(
                chosen,
                identity=current_identity,
                tracer_provider=tracer_provider,
                meter_provider=meter_provider,
                logger_provider=logger_provider,
            )
            self._config, self._telemetry = chosen, telemetry
            self._patches = self._patches or Patches()
            self._patches.apply(targets(chosen.components), telemetry)
        except BaseException as fault:
            if earlier is None:
                self._uninstrument()
            if not isinstance(fault, Exception):
                raise
            # An exception would stop the instrumentors of other libraries as well.
            faults.suppress(fault, "instrumenting")
            return
        if earlier is not None:
            with faults.protected("flushing the earlier providers"):
                telemetry.replace(earlier)

    def _uninstrument(self, **_: Any) -> None:
        if self._patches is not None:
            self._patches.remove()
        if self._telemetry is not None:
            self._telemetry.close()
        self._config = self._patches = self._telemetry = None

    def _forget(self) -> None:
        """Release the parent's telemetry in a forked process, where all layers are inert already."""
        if self._telemetry is not None:
            self._telemetry.forget()
        self._patches = self._telemetry = None
        self._is_instrumented_by_opentelemetry = False


def instrument_worker(
    carrier: Mapping[str, str] | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    config: ForgeConfig | None = None,
    **settings: Any,
) -> None:
    """Instrument a worker process, forked or spawned; to be called in the worker.

    A forked process inherits its parent's providers with their values and locks, so it needs new ones. Nothing is
    recorded there until this is called. The default configuration is the parent's in a forked process, and the one of
    the environment in a spawned process.

    `carrier` is the parent's trace context, as written by `opentelemetry.propagate.inject`; spans of the worker then
    belong to the parent's trace. If the process is instrumented already, for example by `opentelemetry-instrument`,
    only the carrier is used.
    """
    instrumentor = ForgeInstrumentor()
    if carrier:
        context.attach(propagate.extract(carrier, context.get_current()))
    if not instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.instrument(
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
            config=config or instrumentor.config,
            **settings,
        )


_OF_THE_LOADER = ("skip_dep_check", "raise_exception_on_conflict")
"""Arguments with which OpenTelemetry calls `instrument()` for every library that it finds."""

_instrumentors: weakref.WeakSet[ForgeInstrumentor] = weakref.WeakSet()


def _after_fork() -> None:
    for instrumentor in _instrumentors:
        instrumentor._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
