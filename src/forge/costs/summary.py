"""The costs of a run, by purpose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from ..support.money import MONEY, ZERO, plain, total
from .usage import Spender


class Use(StrEnum):
    """Purpose that money was spent on. Where two apply, the later one counts."""

    USEFUL = "useful"
    """A sample that became ready."""
    SKIPPED = "skipped"
    """A sample that was skipped later."""
    FAILED = "failed"
    """A sample that failed, or was not finished when the run ended."""
    RETRIED = "retried"
    """An attempt that was made again."""
    REPEATED = "repeated"
    """A sample that had been ready before this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The cost of one stage or measurement with one model for one use."""

    kind: Spender
    """Origin of the calls: stage or measurement."""
    name: str
    """The stage's name or the measurement's key."""
    provider: str
    """API provider."""
    model: str | None
    """Model; None for APIs without models."""
    use: Use
    """Purpose that the money served, known once the sample has settled."""
    error_type: str | None = None
    """Class of the error with which the calls failed; None for calls that succeeded."""
    calls: int
    """Number of API calls."""
    input_tokens: int
    """Input tokens, cached ones included."""
    cached_input_tokens: int
    """Input tokens that the provider read from its cache."""
    output_tokens: int
    """Tokens generated."""
    amount: Decimal
    """US dollars."""
    unpriced: int
    """Calls without a known price, which add nothing to the amount; failed ones are not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSummary:
    """The costs of a run. Amounts are exact, in US dollars."""

    charges: Sequence[Charge] = field(default_factory=list)
    """One for each stage or measurement, provider, model, use and class of error."""
    saved: Mapping[str, Decimal] = field(default_factory=dict)
    """Savings through cached values, by measurement; not part of the amount."""
    ready: int = 0
    """Number of samples that became ready."""

    @property
    def amount(self) -> Decimal:
        """Total amount in US dollars."""
        return total(charge.amount for charge in self.charges)

    @property
    def calls(self) -> int:
        """Total number of API calls, failed ones included."""
        return sum(charge.calls for charge in self.charges)

    @property
    def failed_calls(self) -> int:
        """Number of API calls that failed."""
        return sum(charge.calls for charge in self.charges if charge.error_type is not None)

    @property
    def input_tokens(self) -> int:
        """Total input tokens, cached ones included."""
        return sum(charge.input_tokens for charge in self.charges)

    @property
    def cached_input_tokens(self) -> int:
        """Total input tokens read from providers' caches."""
        return sum(charge.cached_input_tokens for charge in self.charges)

    @property
    def output_tokens(self) -> int:
        """Total tokens generated."""
        return sum(charge.output_tokens for charge in self.charges)

    @property
    def unpriced(self) -> int:
        """Calls without a known price, which add nothing to the amount."""
        return sum(charge.unpriced for charge in self.charges)

    @property
    def by_name(self) -> dict[tuple[Spender, str], Decimal]:
        """Amounts by stage and measurement."""
        return self._amounts(lambda charge: (charge.kind, charge.name))

    @property
    def by_model(self) -> dict[tuple[str, str | None], Decimal]:
        """Amounts by (provider, model)."""
        return self._amounts(lambda charge: (charge.provider, charge.model))

    @property
    def by_use(self) -> dict[Use, Decimal]:
        """Amounts by use."""
        return self._amounts(lambda charge: charge.use)

    @property
    def per_ready_sample(self) -> Decimal | None:
        """The amount divided by the number of ready samples; None without ready samples."""
        return MONEY.divide(self.amount, Decimal(self.ready)) if self.ready else None

    @property
    def wasted_share(self) -> float | None:
        """Share of the amount, 0 to 1, that was not spent on ready samples; None if nothing was spent."""
        if not self.amount:
            return None
        useful = self.by_use.get(Use.USEFUL, ZERO)
        return float(MONEY.divide(MONEY.subtract(self.amount, useful), self.amount))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with amounts as strings to stay exact."""
        per_sample = self.per_ready_sample
        return {
            "amount": plain(self.amount),
            "calls": self.calls,
            "failed_calls": self.failed_calls,
            "input_tokens": self.input_tokens,
            "cached_input_tokens": self.cached_input_tokens,
            "output_tokens": self.output_tokens,
            "unpriced": self.unpriced,
            "saved": {measurement: plain(amount) for measurement, amount in self.saved.items()},
            "per_ready_sample": None if per_sample is None else plain(per_sample),
            "wasted_share": self.wasted_share,
            "charges": [
                {
                    "kind": charge.kind.value,
                    "name": charge.name,
                    "provider": charge.provider,
                    "model": charge.model,
                    "use": charge.use.value,
                    "error_type": charge.error_type,
                    "calls": charge.calls,
                    "input_tokens": charge.input_tokens,
                    "cached_input_tokens": charge.cached_input_tokens,
                    "output_tokens": charge.output_tokens,
                    "amount": plain(charge.amount),
                    "unpriced": charge.unpriced,
                }
                for charge in self.charges
            ],
        }

    def __str__(self) -> str:
        """Return one line; empty if nothing was used or saved."""
        return in_short(self.to_dict())

    def _amounts(self, key: Callable[[Charge], Any]) -> dict[Any, Decimal]:
        amounts: defaultdict[Any, Decimal] = defaultdict(lambda: ZERO)
        for charge in self.charges:
            amounts[key(charge)] = MONEY.add(amounts[key(charge)], charge.amount)
        return dict(amounts)


def in_short(cost: Mapping[str, Any]) -> str:
    """Return costs in the form of `CostSummary.to_dict` on one line; empty if nothing was used or saved."""
    parts = []
    if cost["charges"]:
        parts.append(f"{float(cost['amount']):.4g} USD")
        details = []
        if per_sample := float(cost["per_ready_sample"] or 0):
            details.append(f"{per_sample:.3g} a ready sample")
        if cost["wasted_share"]:
            details.append(f"{cost['wasted_share']:.0%} wasted")
        if cost["unpriced"]:
            details.append(f"{cost['unpriced']} of {cost['calls']} calls without a price")
        parts.append(f"({', '.join(details)})" if details else "")
    if saved := total(map(Decimal, cost["saved"].values())):
        parts.append(f"{float(saved):.4g} USD saved by the cache")
    return " ".join(filter(None, parts))
