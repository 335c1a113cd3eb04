"""What API calls used: summed up for spans, and held back where it was seen instead of reported by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from . import guard
from .semconv import attributes as a
from .semconv import spans
from .series import Attributes
from .trail import span_name

if TYPE_CHECKING:
    from decimal import Decimal

    from forge import Charge
    from forge.usage import Usage, UsageScope

    from .operation import Call
    from .scope import SampleScope


class Used:
    """A sum that grows; threads may add to it at once."""

    __slots__ = ("_amount", "_calls", "_input_tokens", "_lock", "_output_tokens")

    def __init__(self) -> None:
        self._calls = self._input_tokens = self._output_tokens = 0
        self._amount: Decimal | None = None
        self._lock = threading.Lock()

    def add(self, more: Usage | Charge, amount: Decimal | None) -> None:
        """Add what was used, and what it cost; None where no price is known."""
        from forge.money import MONEY  # noqa: PLC0415 - usage was reported, so it is imported

        with self._lock:
            self._calls += more.calls
            self._input_tokens += more.input_tokens
            self._output_tokens += more.output_tokens
            if amount is not None:
                self._amount = amount if self._amount is None else MONEY.add(self._amount, amount)

    def attributes(self) -> Attributes:
        """What a span says about it; the exact amount becomes a double here."""
        with self._lock:
            return {
                a.FORGE_USAGE_CALLS: self._calls or None,
                a.FORGE_USAGE_INPUT_TOKENS: self._input_tokens or None,
                a.FORGE_USAGE_OUTPUT_TOKENS: self._output_tokens or None,
                a.FORGE_COST_AMOUNT: None if self._amount is None else float(self._amount),
            }


def amount_of(charge: Charge) -> Decimal | None:
    """What was charged; None where no price is known."""
    return charge.amount if charge.amount or charge.calls > charge.unpriced else None


def used_in(charges: Iterable[Charge]) -> Attributes:
    """What a span says about these charges together."""
    used = Used()
    for charge in charges:
        used.add(charge, amount_of(charge))
    return used.attributes()


class Seen(NamedTuple):
    """A call of an API that an instrumentation of its client saw."""

    attempt: UsageScope
    usage: Usage
    """Without its amount."""
    models: frozenset[str | None]
    """The names of its model: the one that was asked for, the one that answered."""
    priceable: bool
    """Whether it is known what it used."""


class Calls:
    """The calls that were seen in a stage or a measurement, held back until that comes back.

    In one attempt, calls of one provider and model that are reported by hand take the place of those that are seen:
    most clients are asked what they used when the call is over, which is later than it is seen.
    """

    __slots__ = ("_by_hand", "_seen")

    def __init__(self) -> None:
        self._seen: list[Seen] = []
        self._by_hand: set[tuple[Any, ...]] = set()

    def see(self, seen: Seen) -> None:
        """Hold a call back."""
        self._seen.append(seen)

    def report(self, attempt: UsageScope, usage: Usage) -> None:
        """Something was reported by hand."""
        self._by_hand.add((attempt, usage.provider, usage.model))

    def due(self) -> list[Seen]:
        """What was seen, and not reported by hand; gives each call once."""
        found = []
        while self._seen:
            try:
                seen = self._seen.pop(0)
            except IndexError:  # another thread has taken the last one
                break
            names = {(seen.attempt, seen.usage.provider, model) for model in (*seen.models, None)}
            if not names & self._by_hand:
                found.append(seen)
        return found


def report_seen(spender: SampleScope | Call) -> None:
    """Report the calls that were seen in a stage or a measurement of a sample or a batch, and not reported by hand."""
    if spender.seen is None:
        return
    for seen in spender.seen.due():
        with guard.protected("a call that was seen"):
            count(seen, spender)


def count(seen: Seen, spender: SampleScope | Call | None) -> None:
    """Count a call, and keep it for the span of the stage or the measurement."""
    costs = seen.attempt.origin.costs
    usage = costs.priced(seen.usage) if seen.priceable else seen.usage
    if spender is not None:
        spender.use(span_of(seen.attempt)).add(usage, usage.amount)
    costs.add(seen.attempt, usage)


_SPANS: Final = {
    "stage": (spans.FORGE_STAGE, a.FORGE_STAGE_NAME),
    "measurement": (spans.FORGE_MEASUREMENT, a.FORGE_MEASUREMENT_KEY),
}


def who_spent(kind: str, name: str) -> dict[str, str]:
    """The stage or the measurement as an attribute."""
    return {_SPANS[kind][1]: name}


def span_of(attempt: UsageScope) -> str:
    """The name of the span of the stage or the measurement, where it works on one sample."""
    kind = attempt.kind.value
    return span_name(_SPANS[kind][0], who_spent(kind, attempt.name))
