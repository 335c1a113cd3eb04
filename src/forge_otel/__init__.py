"""Telemetry for data pipelines: spans, metrics and log events, patched on from outside."""

from ._version import __version__
from .config.config import ForgeConfig
from .instrumentor import ForgeInstrumentor, instrument_worker

__all__ = ["ForgeConfig", "ForgeInstrumentor", "__version__", "instrument_worker"]
