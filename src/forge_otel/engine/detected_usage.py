"""What API calls used: summed up for spans, and held back where it was seen instead of reported by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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


class Used:
    """A sum that grows; threads may add to it at once."""

    __slots__ = ("_amount", "_calls", "_input_tokens", "_lock", "_output_tokens")

    def __init__(self) -> None:
        self._calls = self._input_tokens = self._output_tokens = 0
        self._amount: Decimal | None = None
        self._lock = threading.Lock()

    def add(self, more: Usage | Charge, amount: Decimal | None) -> None:
        """Add what was used, and what it cost; None where no price is known."""
        from forge.support.money import MONEY  # noqa: PLC0415 - usage was reported, so it is imported

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
    span: str
    """The name of the span that says what it used."""
    usage: Usage
    """Without its amount."""
    models: frozenset[str | None]
    """The names of its model: the one that was asked for, the one that answered."""
    priceable: bool
    """Whether it is known what it used."""


class Spending:
    """What API calls used that were made for a sample or a batch.

    Calls that are seen are held back until the stage or the measurement comes back. In one attempt, what is reported by
    hand for a provider and a model takes the place of what is seen: most clients are asked what they used when the call
    is over, which is later than it is seen.
    """

    __slots__ = ("_by_hand", "_seen", "_used")

    def __init__(self) -> None:
        self._used: dict[str, Used] = {}
        self._seen: list[Seen] = []
        self._by_hand: set[tuple[Any, ...]] = set()

    def used(self, span: str) -> Used:
        """The sum that the span of this name says."""
        return self._used.get(span) or self._used.setdefault(span, Used())

    def said_by(self, span: str) -> Attributes:
        """What the span of this name says; nothing where nothing was used."""
        used = self._used.get(span)
        return used.attributes() if used is not None else {}

    def report(self, attempt: UsageScope, span: str, usage: Usage) -> None:
        """Something was reported by hand."""
        self._by_hand.add((attempt, usage.provider, usage.model))
        self.used(span).add(usage, usage.amount)

    def see(self, seen: Seen) -> None:
        """Hold a call back."""
        self._seen.append(seen)

    def count_seen(self) -> None:
        """Count the calls that were seen, and not reported by hand; each of them once."""
        while self._seen:
            try:
                seen = self._seen.pop(0)
            except IndexError:  # another thread has taken the last one
                return
            names = {(seen.attempt, seen.usage.provider, model) for model in (*seen.models, None)}
            if not names & self._by_hand:
                with faults.protected("a call that was seen"):
                    self.used(seen.span).add(*count(seen))


def count(seen: Seen) -> tuple[Usage, Decimal | None]:
    """Let the run count a call; returns what it used, and its price."""
    costs = seen.attempt.origin.costs
    usage = costs.priced(seen.usage) if seen.priceable else seen.usage
    costs.add(seen.attempt, usage)
    return usage, usage.amount


def spending_of(owner: SampleScope | Call) -> Spending:
    """What was spent on a sample or a batch; begun here where it is the first."""
    if owner.spending is None:
        with _lock:
            owner.spending = owner.spending or Spending()
    return owner.spending


_lock: Final = threading.Lock()

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
