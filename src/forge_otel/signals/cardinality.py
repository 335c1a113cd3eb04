"""Caps attribute values and series per instrument below the SDK's cardinality limit, beyond which the SDK drops all
attributes; values beyond the cap become `_OTHER`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Final

from ..semconv import attributes as a
from ..semconv.definitions import Metric
from ..support.text import fit_values

OTHER: Final = "_OTHER"
"""The value that replaces every value beyond a limit."""

MAX_SERIES: Final = 1900
"""Maximum number of series per instrument; series beyond it keep only their enumerated attributes."""

MAX_ATTRIBUTE_VALUES: Final = {
    a.ERROR_TYPE: 30,
    a.FORGE_SKIP_REASON: 30,
    a.FORGE_STAGE_NAME: 50,
    a.FORGE_MEASUREMENT_KEY: 50,
    a.FORGE_PIPELINE_NAME: 100,
}
"""Maximum number of values per attribute on the metrics of a process."""

_ERROR_CLASSES: Final = ("rate_limit", "server_error", "client_error", "network_error", "timeout", "cancelled")
"""The values of `error.type` that the registry defines; they always count towards the limit."""

_ENUMERATED: Final = frozenset({
    a.FORGE_ARTIFACT_DEDUPLICATED,
    a.FORGE_COST_USE,
    a.FORGE_DLQ_SOURCE,
    a.FORGE_MEASUREMENT_OUTCOME,
    a.FORGE_RUN_OUTCOME,
    a.FORGE_RUN_TYPE,
    a.FORGE_SAMPLE_OUTCOME,
    a.FORGE_STAGE_OUTCOME,
    a.FORGE_STORAGE_DIRECTION,
    a.FORGE_STORAGE_OPERATION,
    a.FORGE_STORAGE_WRITE_RESULT,
    a.FORGE_TASK_OUTCOME,
    a.FORGE_TELEMETRY_REASON,
    a.FORGE_TELEMETRY_SIGNAL,
    a.GEN_AI_TOKEN_TYPE,
})  # fmt: skip
"""Attributes whose values the registry enumerates."""

_logger = logging.getLogger("forge_otel")


class Cardinality:
    """The attribute values and series used by a process so far. The first ones are kept; spans and events always have
    the original values.
    """

    def __init__(self) -> None:
        self._values: dict[str, set[Any]] = {name: set() for name in MAX_ATTRIBUTE_VALUES}
        self._values[a.ERROR_TYPE].update(_ERROR_CLASSES)
        self._series: dict[str, set[tuple[Any, ...]]] = {}
        self._warned: set[str] = set()
        # Reentrant: the garbage collector may run user code here that is measured as well.
        self._lock = threading.RLock()

    def limit(self, metric: Metric, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes for a point of the metric: the allowed ones that have a value, within the limits."""
        known_names = {name: attributes[name] for name in metric.attributes if attributes.get(name) is not None}
        kept = dict(fit_values(known_names))
        overflows = []
        with self._lock:
            for name in kept.keys() & MAX_ATTRIBUTE_VALUES.keys():
                if not _admit(self._values[name], kept[name], MAX_ATTRIBUTE_VALUES[name]):
                    overflows.append(
                        (f"values of {name}", MAX_ATTRIBUTE_VALUES[name], f"{kept[name]!r} and all others")
                    )
                    kept[name] = OTHER
            known = self._series.setdefault(metric.name, set())
            if not _admit(known, tuple(kept.items()), MAX_SERIES):
                overflows.append((f"series of {metric.name}", MAX_SERIES, "all names in others"))
                kept = {
                    name: value if name in _ENUMERATED else OTHER
                    for name, value in kept.items()
                    if name in _ENUMERATED or isinstance(value, str)
                }
        for what, limit, others in overflows:
            if what not in self._warned:
                self._warned.add(what)
                _logger.warning("more than %d %s on metrics: there %s are %s", limit, what, others, OTHER)
        return kept


def _admit(known: set[Any], value: Any, limit: int) -> bool:
    """Add a value unless the limit is reached; return True if the value is known."""
    if value not in known:
        if len(known) >= limit:
            return False
        known.add(value)
    return True
