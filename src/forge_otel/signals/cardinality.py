"""How many different attributes metrics may have: what the vocabulary says, which is less than the SDK's limit, beyond
which it takes the attributes away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Final

from ..semconv import attributes as a
from ..semconv.definitions import Metric

OTHER: Final = "_OTHER"
"""Stands for every value beyond a limit."""

MAX_SERIES: Final = 1900
"""How many series an instrument gets, before those that are left are told apart by their enumerations alone."""

MAX_VALUES: Final = {
    a.ERROR_TYPE: 30,
    a.FORGE_SKIP_REASON: 30,
    a.FORGE_STAGE_NAME: 50,
    a.FORGE_MEASUREMENT_KEY: 50,
}
"""How many values of an attribute a process puts on metrics."""

_ERROR_CLASSES: Final = ("rate_limit", "server_error", "client_error", "network_error", "timeout", "cancelled")
"""The values of `error.type` that the vocabulary names; they are among the 30 from the start."""

_ENUMERATED: Final = frozenset({
    a.FORGE_ARTIFACT_DEDUPLICATED,
    a.FORGE_COST_USE,
    a.FORGE_DLQ_SOURCE,
    a.FORGE_MEASUREMENT_OUTCOME,
    a.FORGE_RUN_OUTCOME,
    a.FORGE_SAMPLE_OUTCOME,
    a.FORGE_STAGE_OUTCOME,
    a.FORGE_STORAGE_DIRECTION,
    a.FORGE_STORAGE_OPERATION,
    a.FORGE_STORAGE_WRITE_RESULT,
    a.FORGE_TELEMETRY_REASON,
    a.FORGE_TELEMETRY_SIGNAL,
    a.GEN_AI_TOKEN_TYPE,
})  # fmt: skip
"""Attributes with values that the vocabulary lists."""

_logger = logging.getLogger("forge_otel")


class Cardinality:
    """What the metrics of a process have had so far. The first values and series are kept as they are; spans and events
    have the real values always.
    """

    def __init__(self) -> None:
        self._values: dict[str, set[Any]] = {name: set() for name in MAX_VALUES}
        self._values[a.ERROR_TYPE].update(_ERROR_CLASSES)
        self._series: dict[str, set[tuple[Any, ...]]] = {}
        self._warned: set[str] = set()
        # The garbage collector may run here, and with it code of the user's that is measured as well.
        self._lock = threading.RLock()

    def limit(self, metric: Metric, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes that a point of the metric gets: those allowed that have a value, within the limits."""
        kept = {name: attributes[name] for name in metric.attributes if attributes.get(name) is not None}
        overflows = []
        with self._lock:
            for name in kept.keys() & MAX_VALUES.keys():
                if not _admit(self._values[name], kept[name], MAX_VALUES[name]):
                    overflows.append((f"values of {name}", MAX_VALUES[name], f"{kept[name]!r} and all others"))
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
    """Whether it is among the first `most`; notes it where it is."""
    if value not in known:
        if len(known) >= limit:
            return False
        known.add(value)
    return True
