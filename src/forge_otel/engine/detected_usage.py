"""Usage of API calls: summed up for spans, and held back where it was detected instead of reported."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

from ..patching import faults
from ..semconv import attributes as a
from ..semconv import spans
from ..signals.metrics import Attributes
from ..signals.spans import span_name

if TYPE_CHECKING:
    from decimal import Decimal

    from forge import Charge
    from forge.costs.usage import Usage, UsageScope

    from .call import Call
    from .scopes import SampleScope


class UsageTotal:
    """A sum that grows; threads may add to it at once."""

    __slots__ = ("_amount", "_calls", "_input_tokens", "_lock", "_output_tokens")

    def __init__(self) -> None:
        self._calls = self._input_tokens = self._output_tokens = 0
        self._amount: Decimal | None = None
        self._lock = threading.Lock()

    def add(self, usage: Usage | Charge, amount: Decimal | None) -> None:
        """Add what was used, and what it cost; None where no price is known."""
        from forge.support.money import MONEY  # noqa: PLC0415 - usage was reported, so it is imported

        with self._lock:
            self._calls += usage.calls
            self._input_tokens += usage.input_tokens
            self._output_tokens += usage.output_tokens
            if amount is not None:
                self._amount = amount if self._amount is None else MONEY.add(self._amount, amount)

    def attributes(self) -> Attributes:
        """Return its attributes on a span; the exact amount becomes a double here."""
        with self._lock:
            return {
                a.FORGE_USAGE_CALLS: self._calls or None,
                a.FORGE_USAGE_INPUT_TOKENS: self._input_tokens or None,
                a.FORGE_USAGE_OUTPUT_TOKENS: self._output_tokens or None,
                a.FORGE_COST_AMOUNT: None if self._amount is None else float(self._amount),
            }


def amount_of(charge: Charge) -> Decimal | None:
    """Return the amount charged; None where no price is known."""
    return charge.amount if charge.amount or charge.calls > charge.unpriced else None


def usage_attributes(charges: Iterable[Charge]) -> Attributes:
    """Return the attributes on a span of these charges together."""
    used = UsageTotal()
    for charge in charges:
        used.add(charge, amount_of(charge))
    return used.attributes()


class DetectedCall(NamedTuple):
    """A call of an API that an instrumentation of its client saw."""

    attempt: UsageScope
    span: str
    """The name of the span that its usage is added to."""
    usage: Usage
    """Without its amount."""
    models: frozenset[str | None]
    """The names of its model: the one that was asked for, the one that answered."""
    known: bool
    """True if it is known what it used."""


class UsageAccumulator:
    """Usage of the API calls made for a sample or a batch, summed up for spans.

    Detected calls are held back until the stage or the measurement comes back. `forge` then decides whether they are
    booked: in one attempt, usage reported for a provider and a model takes the place of what was detected.
    """

    __slots__ = ("_detected", "_totals")

    def __init__(self) -> None:
        self._totals: dict[str, UsageTotal] = {}
        self._detected: list[DetectedCall] = []

    def total(self, span: str) -> UsageTotal:
        """The sum for the span of this name."""
        return self._totals.get(span) or self._totals.setdefault(span, UsageTotal())

    def attributes_of(self, span: str) -> Attributes:
        """The attributes of the span of this name; none where nothing was used."""
        total = self._totals.get(span)
        return total.attributes() if total is not None else {}

    def record_detected(self, call: DetectedCall) -> None:
        """Hold a call back."""
        self._detected.append(call)

    def count_detected(self) -> None:
        """Have `forge` book the calls that were held back, each once."""
        while self._detected:
            try:
                call = self._detected.pop(0)
            except IndexError:  # another thread has taken the last one
                return
            with faults.protected("a detected call"):
                token = BOOKED_FOR.set((self, call.span))
                try:
                    book(call)
                finally:
                    BOOKED_FOR.reset(token)


BOOKED_FOR: ContextVar[tuple[UsageAccumulator, str] | None] = ContextVar("forge_otel_booked_for", default=None)
"""Where usage that is being booked is added to, whatever is current: the accumulator, and the name of the span."""


def book(call: DetectedCall) -> None:
    """Have `forge` book a call, unless its usage was reported."""
    from forge.costs import usage  # noqa: PLC0415 - there is an attempt, so it is imported

    usage.book(call.attempt, call.usage, detected=True, models=call.models, known=call.known)


def usage_of(owner: SampleScope | Call) -> UsageAccumulator:
    """Return the usage of a sample or a batch; created on first use."""
    if owner.usage is None:
        with _lock:
            owner.usage = owner.usage or UsageAccumulator()
    return owner.usage


_lock: Final = threading.Lock()

_SPANS: Final = {
    "stage": (spans.FORGE_STAGE, a.FORGE_STAGE_NAME),
    "measurement": (spans.FORGE_MEASUREMENT, a.FORGE_MEASUREMENT_KEY),
}


def spender_attributes(kind: str, name: str) -> dict[str, str]:
    """The stage or the measurement as an attribute."""
    return {_SPANS[kind][1]: name}


def span_of(attempt: UsageScope) -> str:
    """The name of the span of the stage or the measurement, where it works on one sample."""
    kind = attempt.kind.value
    return span_name(_SPANS[kind][0], spender_attributes(kind, attempt.name))
