"""Which samples are traced, and how much one run may write.

Budgets are there so that neither a million samples nor a million errors fill a trace store.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Final
from zlib import crc32

from opentelemetry.trace import SpanContext

if TYPE_CHECKING:
    from opentelemetry.trace.span import TraceState

_HASHES: Final = 2**32
_GOLDEN: Final = 0x9E3779B1
"""2³² divided by the golden ratio, made odd (Knuth, The Art of Computer Programming, vol. 3, 6.4)."""


class Sampler:
    """Decides by a hash of the sample's id: so the same sample is traced, or is not, on every worker, in every retry,
    and whenever it is run again. A sample that is traced at one rate is so at every higher one.
    """

    __slots__ = ("_below",)

    def __init__(self, rate: float) -> None:
        self._below = int(rate * _HASHES)

    def traces(self, sample_id: str) -> bool:
        """Return True if the sample of this id is traced."""
        below = self._below
        if not 0 < below < _HASHES:
            return below > 0
        # The sum alone is linear: ids that differ in their last digit would differ in the same bits of it everywhere.
        # Multiplied, it spreads as well as a cryptographic hash does, which takes three times as long.
        checksum = crc32(sample_id.encode("utf-8", "surrogatepass"))
        return checksum * _GOLDEN % _HASHES < below


_THRESHOLDS: Final = 2**56
_THRESHOLD_DIGITS: Final = 14


def outer_share(context: SpanContext) -> float | None:
    """Return the share of traces that the sampler of a trace takes, by the threshold in the tracestate: from 0 to 1,
    None without a valid threshold.

    The format is that of "TraceState: Probability Sampling" in OpenTelemetry's specification: `ot=th:c8`, up to 14
    hexadecimal digits without trailing zeros, of the 56-bit number below which traces are dropped.
    """
    digits = dict(_fields(context.trace_state)).get("th", "")
    if not 0 < len(digits) <= _THRESHOLD_DIGITS or not all(digit in "0123456789abcdef" for digit in digits):
        return None
    return (_THRESHOLDS - int(digits.ljust(_THRESHOLD_DIGITS, "0"), 16)) / _THRESHOLDS


def without_threshold(context: SpanContext) -> SpanContext:
    """Return a context whose tracestate has no threshold: what is thinned again has another one than its trace."""
    fields = list(_fields(context.trace_state))
    kept = [(key, value) for key, value in fields if key != "th"]
    if len(kept) == len(fields):
        return context
    state = context.trace_state
    text = ";".join(f"{key}:{value}" for key, value in kept)
    state = state.update("ot", text) if kept else state.delete("ot")
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags, state)


def _fields(state: TraceState) -> list[tuple[str, str]]:
    """Return OpenTelemetry's entry of a tracestate as keys and values."""
    return [(key, value) for field in (state.get("ot") or "").split(";") for key, _, value in [field.partition(":")]]


class SpanBudget:
    """Spans that a run may still write; 0 means any number. A tenth of it is kept for errors, retries and slow samples.

    What is asked for is granted as a whole or not at all, so that no sample is traced in part.
    """

    __slots__ = ("_lock", "_most", "_taken", "has_refused")

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self.has_refused = False
        """True once spans were refused: those that are written represent the others no longer."""
        self._lock = threading.Lock()

    def take(self, spans: int, *, from_reserve: bool = False) -> bool:
        """Return True if so many spans may be written."""
        if not self._most:
            return True
        limit = self._most if from_reserve else self._most - self._most // 10
        with self._lock:
            if self._taken + spans > limit:
                self.has_refused = True
                return False
            self._taken += spans
            return True

    def correct(self, spans: int) -> None:
        """So many spans more were written than was asked for, or fewer where it is negative."""
        with self._lock:
            self._taken += spans


class EventBudget:
    """Events that a run may still write for each class of error; 0 means any number."""

    __slots__ = ("_asked", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: dict[str, itertools.count[int]] = {}
        """How often, for each class of error; each of several threads gets a number of its own."""

    def take(self, error_type: str) -> bool:
        """Return True if one more event may be written."""
        if not self._most:
            return True
        asked = self._asked.get(error_type)
        if asked is None:
            asked = self._asked.setdefault(error_type, itertools.count())
        return next(asked) < self._most
