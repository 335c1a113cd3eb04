"""Results of exporters: what they did not deliver, and to which address."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .providers import endpoint_of, exporter_of, problem_of, queue_of

_UNITS: Final = {"traces": ("span", "spans"), "logs": ("log record", "log records")}


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Telemetry that an exporter did not deliver."""

    signal: str
    """`traces`, `metrics` or `logs`."""
    address: str
    """Address of the exporter, or its class if it has none."""
    count: int = 0
    """Number of spans or log records, without those that a full queue has dropped."""
    is_exact: bool = True
    """False if there may be more of them."""
    since: float | None = None
    """Unix time of the last delivery before, for metrics."""
    reason: str = ""
    """Why, if the exporter tells."""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self._what(), self.reason)))

    def _what(self) -> str:
        if self.since is not None:
            return f"the metrics since {time.strftime('%H:%M:%S', time.localtime(self.since))} to {self.address}"
        if not self.count:
            return f"some {self.signal} to {self.address}"
        least = "" if self.is_exact else "at least "
        return f"{least}{self.count} {_UNITS[self.signal][self.count != 1]} to {self.address}"


class ExportWatch:
    """Watches the exports of one processor or reader, by a wrapper around its exporter's `export`."""

    def __init__(self, signal: str, sender: Any) -> None:
        """Watch a processor or reader of the signal `traces`, `metrics` or `logs`."""
        self.signal = signal
        self.sender = sender
        """The processor or reader."""
        self.exporter: Any = exporter_of(sender)
        """Its exporter; None if it is not found."""
        self._size: Callable[[Any], int] = len if signal in _UNITS else lambda _: 1
        self._lock = threading.Lock()
        self._exporting = 0
        self._failed = 0
        self._delivered = self._failed_since = time.time()
        self._accumulates = True
        """True if the next export of metrics says again what a failed one would have said."""
        self._was_full = False
        """True if the queue was full, and may have dropped something."""
        self._before: Any = None
        self._wrapper: Any = None
        if self.exporter is not None:
            self._wrap()

    @property
    def address(self) -> str:
        """Address of the exporter, without a password; its class if it has none."""
        sender = self.exporter or self.sender
        endpoint = endpoint_of(sender)
        return re.sub("//[^/@]*@", "//…@", endpoint) if endpoint else type(sender).__qualname__

    def undelivered(self, *, flushed: bool) -> Undelivered | None:
        """Return what was not delivered, as far as it was seen; None if nothing is known to be missing.

        `flushed` is false if the last flush did not return.
        """
        with self._lock:
            exporting, failed, since = self._exporting, self._failed, self._failed_since
        reason = problem_of(self.exporter)
        queue = queue_of(self.sender)
        waiting = len(queue) if queue is not None else 0
        if self._wrapper is None:
            return None if flushed else Undelivered(self.signal, self.address, waiting, is_exact=False, reason=reason)
        if self.signal not in _UNITS:
            lost = failed or exporting or not flushed
            return Undelivered(self.signal, self.address, since=since, reason=reason) if lost else None
        count = exporting + failed + waiting
        if not count and flushed:
            return None
        # Neither what a full queue has dropped nor what is in an unknown one was seen.
        is_exact = queue is not None and not self._was_full and not self._is_full(0)
        return Undelivered(self.signal, self.address, count, is_exact=is_exact, reason=reason)

    @property
    def failed(self) -> int:
        """Number of spans or log records in exports that failed; 0 for metrics, which the next export says again."""
        with self._lock:
            return self._failed if self.signal in _UNITS else 0

    @property
    def was_full(self) -> bool:
        """True if the queue has been full, and may have dropped something."""
        with self._lock:
            return self._was_full or self._is_full(0)

    def remove(self) -> None:
        """Restore the exporter's `export`, unless somebody else has wrapped it since."""
        if self._wrapper is not None and vars(self.exporter).get("export") is self._wrapper:
            if self._before is None:
                del self.exporter.export
            else:
                self.exporter.export = self._before

    def forget(self) -> None:
        """Renew the lock in a forked process: a thread of the parent may hold it."""
        self._lock = threading.Lock()

    def _wrap(self) -> None:
        export = self.exporter.export

        def watched(batch: Any, *arguments: Any, **keywords: Any) -> Any:
            size, begun = self._size(batch), time.time()
            with self._lock:
                self._exporting += size
                self._was_full = self._was_full or self._is_full(size)
            delivered = False
            try:
                result = export(batch, *arguments, **keywords)
                delivered = getattr(result, "name", "SUCCESS") == "SUCCESS"
            finally:
                with self._lock:
                    self._exporting -= size
                    self._count(size, begun, delivered)
            return result

        try:
            self._before = vars(self.exporter).get("export")
            self.exporter.export = watched
        except (AttributeError, TypeError):  # it has slots: its results are not seen
            return
        self._wrapper = watched
        temporality = getattr(self.exporter, "_preferred_temporality", None) or {}
        self._accumulates = all(getattr(kind, "name", "") != "DELTA" for kind in temporality.values())

    def _is_full(self, taken: int) -> bool:
        """Return True if the queue was full before so many were taken out."""
        queue = queue_of(self.sender)
        limit = getattr(queue, "maxlen", None)
        return queue is not None and limit is not None and len(queue) + taken >= limit

    def _count(self, size: int, begun: float, delivered: bool) -> None:
        if not delivered:
            if not self._failed:
                self._failed_since = self._delivered
            self._failed += size
            return
        self._delivered = begun
        if self.signal not in _UNITS and self._accumulates:
            self._failed = 0
        if not self._failed:
            self._failed_since = begun
