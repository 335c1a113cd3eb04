"""OpenTelemetry instrumentation of Forge pipelines: spans, metrics and log events, without changes to their code."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ._version import __version__

if TYPE_CHECKING:
    from .config.config import ForgeConfig
    from .instrumentor import ForgeInstrumentor, instrument_worker

__all__ = ["ForgeConfig", "ForgeInstrumentor", "__version__", "instrument_worker"]

_MODULES: Final = {
    "ForgeConfig": ".config.config",
    "ForgeInstrumentor": ".instrumentor",
    "instrument_worker": ".instrumentor",
}


def __getattr__(name: str) -> Any:
    # Late, for commands: OpenTelemetry cannot be imported in an environment with a wrong name in OTEL_PROPAGATORS, and
    # the doctor has to say so.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name], __name__), name)
    return value
