"""Instrumentation of `forge` and of other libraries: for each component, the functions to wrap and the descriptions
of their calls.
"""

from __future__ import annotations

from collections.abc import Collection

from ..patching.patches import Target
from . import (
    costs,
    datatrove,
    dead_letters,
    executions,
    measurement,
    queues,
    ray_data,
    runner,
    sample,
    stage,
    storage,
)

_COMPONENTS = {
    "runner": (*runner.TARGETS, *sample.TARGETS, *executions.TARGETS, *costs.TARGETS),
    "stage": (*stage.TARGETS, *queues.TARGETS, *dead_letters.TARGETS),
    "measurement": measurement.TARGETS,
    "storage": storage.TARGETS,
    "datatrove": datatrove.TARGETS,
    "ray_data": ray_data.TARGETS,
}


def targets(components: Collection[str]) -> tuple[Target, ...]:
    """Return the functions to wrap for the given components."""
    return tuple(target for name, group in _COMPONENTS.items() if name in components for target in group)
