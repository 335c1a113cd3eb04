"""Grafana dashboards, a module for each. The others find a new one by its tag."""

from __future__ import annotations

import warnings

from forge_otel.checker.model import Registry

with warnings.catch_warnings():
    # Grafana's SDK would rather have dashboards of version 2, which older Grafanas do not read from files.
    warnings.simplefilter("ignore", DeprecationWarning)
    from . import cost, measurements, runs, stages, storage, telemetry
    from .layout import text

FOLDER = "collector-config/grafana/dashboards"
_PAGES = (runs, stages, measurements, storage, cost, telemetry)


def files(registry: Registry) -> dict[str, str]:
    """The dashboards, by their path from the checkout's root."""
    pages = [module.page(registry) for module in _PAGES]
    return {f"{FOLDER}/{page.name}.json": text(page) for page in pages}
