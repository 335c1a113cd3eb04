"""Grafana dashboards, one module each. Dashboards link to each other by their tag."""

from __future__ import annotations

import warnings

from forge_otel.checker.model import Registry

with warnings.catch_warnings():
    # Grafana's SDK recommends dashboards of version 2, which older versions of Grafana cannot read from files.
    warnings.simplefilter("ignore", DeprecationWarning)
    from . import cost, measurements, runs, stages, storage, telemetry
    from .layout import text

FOLDER = "collector-config/grafana/dashboards"
_PAGES = (runs, stages, measurements, storage, cost, telemetry)


def files(registry: Registry) -> dict[str, str]:
    """Return the dashboards, by their path from the checkout's root."""
    pages = [module.page(registry) for module in _PAGES]
    return {f"{FOLDER}/{page.name}.json": text(page) for page in pages}
