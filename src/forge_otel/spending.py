"""What API calls used, summed up for a span."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .semconv import attributes as a
from .series import Attributes

if TYPE_CHECKING:
    from decimal import Decimal

    from forge import Charge
    from forge.usage import Usage


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
