"""OpenTelemetry instrumentation of Forge pipelines: spans, metrics and log events, without changes to their code."""

from ._version import __version__
from .config.config import ForgeConfig
from .instrumentor import ForgeInstrumentor, instrument_worker

__all__ = ["ForgeConfig", "ForgeInstrumentor", "__version__", "instrument_worker"]
