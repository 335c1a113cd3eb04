"""Check of the names in `OTEL_PROPAGATORS`, before anything of OpenTelemetry is imported that would fail by them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata
from typing import Final

from ...support.spelling import similar
from . import problems
from .diagnostic import Diagnostic

_VARIABLE: Final = "OTEL_PROPAGATORS"


def unknown_propagators() -> Iterator[Diagnostic]:
    """Find propagators that are not installed; take them out of the environment, so that the rest can be checked."""
    value = os.environ.get(_VARIABLE, "")
    installed = sorted({point.name for point in metadata.entry_points(group="opentelemetry_propagator")} | {"none"})
    unknown = [name for name in map(str.strip, value.split(",")) if value and name not in (*installed, "None", "NONE")]
    for name in unknown:
        meant = similar(name, installed)
        remedy = f"did you mean {meant}?" if meant else f"there are {', '.join(installed)}"
        message = f"{_VARIABLE} has {name or 'an empty name'}, which is not installed"
        yield problems.UNKNOWN_PROPAGATOR.found("variable", message, remedy)
    if unknown:
        del os.environ[_VARIABLE]
