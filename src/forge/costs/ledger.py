"""The cost ledger of a run in progress: costs are kept with a sample until it settles."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..errors import BudgetReached
from ..pipeline.sample import SampleOutcome
from ..support.money import MONEY, ZERO, plain, total
from .calls_in_progress import CallsInProgress
from .summary import Charge, CostSummary, Use
from .usage import Billable, CostTotals, Spender, Usage, UsageScope

if TYPE_CHECKING:
    from ..support.clock import Clock
    from .prices import Prices

logger = logging.getLogger("forge")

_USES = {
    SampleOutcome.READY: Use.USEFUL,
    SampleOutcome.SKIPPED: Use.SKIPPED,
    # An unchanged sample that is not ready was skipped by an earlier run.
    SampleOutcome.UNCHANGED: Use.SKIPPED,
    SampleOutcome.DLQ: Use.FAILED,
    SampleOutcome.FAILED: Use.FAILED,
}


_Entry = tuple[UsageScope, str, str | None, str | None]
"""An attempt, the provider, the model and the class of the calls' error."""
_Key = tuple[Spender, str, str, str | None, Use, str | None]
_Late = list[tuple[Billable, Charge]]
"""Charges booked at once, because their samples had settled already."""


class CostLedger:
    """The cost ledger of one run, guarded by the run's lock: costs and outcomes of samples change together."""

    def __init__(
        self,
        *,
        prices: Prices,
        clock: Clock,
        lock: threading.Lock,
        max_cost: Decimal | None,
        settled_late: Callable[[Any, Sequence[Charge]], None],
    ) -> None:
        self._prices = prices
        self._clock = clock
        self._lock = lock
        self._max_cost = max_cost
        self._spent = ZERO
        self._booked: defaultdict[_Key, CostTotals] = defaultdict(CostTotals)
        self._saved: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
        self._unpriced: set[tuple[str, str | None]] = set()
        self._unreadable: set[tuple[str, str | None]] = set()
        self._calls = CallsInProgress()
        self._closed = False
        self._settled_late = settled_late

    @property
    def amount(self) -> Decimal:
        """US dollars spent so far, also on samples that have not settled."""
        return self._spent

    def priced(self, usage: Usage) -> Usage:
        """Return the usage with its amount, if a price is known; log one warning for each model without a price."""
        if usage.amount is not None:
            return usage
        has_failed = usage.error_type is not None
        if has_failed and not (usage.input_tokens or usage.output_tokens):
            return usage.with_amount(ZERO)
        try:
            amount = self._prices.amount(usage, self._clock.time())
            if amount is not None:
                return usage.with_amount(amount)
        except Exception as error:  # noqa: BLE001 - a price that cannot be computed must not fail the paid sample
            self.unreadable(usage, f"the price cannot be computed: {error}")
            return usage
        model = (usage.provider, usage.model)
        if model not in self._unpriced and not has_failed:
            self._unpriced.add(model)
            what = f"model {usage.model!r} of {usage.provider!r}" if usage.model else f"calls of {usage.provider!r}"
            logger.warning("no price is known for %s, so the cost of this run is too low; see FORGE_PRICES", what)
        return usage

    def unreadable(self, usage: Usage, problem: str) -> None:
        """Log one warning for each model whose usage could not be read or priced."""
        model = (usage.provider, usage.model)
        if model not in self._unreadable:
            self._unreadable.add(model)
            what = f"model {usage.model!r} of {usage.provider!r}" if usage.model else f"calls of {usage.provider!r}"
            logger.warning("usage of %s: %s; so the cost of this run may be too low", what, problem)

    def add(self, scope: UsageScope, usage: Usage) -> None:
        """Book reported usage for the samples of the scope."""
        with self._lock:
            self._calls.reported(scope, usage)
            late = None if self._closed else self._take(scope, usage)
        if late is None:
            text = "%s %r reported usage of %r after the run's end, so it is not counted"
            logger.warning(text, scope.kind.value, scope.name, usage.provider)
            return
        for item, charge in late:
            self._settled_late(item, [charge])

    def begin_call(self, scope: UsageScope, provider: str) -> None:
        """Note that the attempt counts as a call of this provider's API."""
        with self._lock:
            self._calls.begin(scope, provider)

    def end_call(self, scope: UsageScope) -> bool:
        """Note that the attempt has ended; returns True if its call is still to be counted."""
        with self._lock:
            return self._calls.end(scope)

    def count_calls(self) -> None:
        """Count the calls in progress when the run ends."""
        with self._lock:
            calls = self._calls.take()
        for scope, provider in calls.items():
            self.add(scope, self.priced(Usage(provider=provider)))

    @property
    def budget_reached(self) -> BudgetReached | None:
        """The error for a budget that is used up; None while something is left, or without a budget."""
        if self._max_cost is None or self._spent < self._max_cost:
            return None
        return BudgetReached(
            f"the run spent {plain(self._spent)} USD of its max_cost of {plain(self._max_cost)} and then admitted no "
            "more samples; those under way were finished"
        )

    # The methods below are called with the lock held.

    def split(self, parent: Billable, children: Sequence[Billable]) -> None:
        """Share the costs of a split sample, and usage that is reported late, among its children."""
        parent.heirs = children
        pending_costs, parent.pending_costs = parent.pending_costs, None
        for key, spent in (pending_costs or {}).items():
            self._share(children, key, spent, [])

    def settle(self, item: Billable, outcome: SampleOutcome) -> Sequence[Charge]:
        """Book the costs of a sample that settles."""
        pending_costs, item.pending_costs = item.pending_costs, None
        return [self._book(item, outcome, key, spent) for key, spent in (pending_costs or {}).items()]

    def spent_on(self, item: Billable, measurement: str) -> Decimal:
        """Return the cost of computing a measurement, without attempts that were repeated."""
        return total(
            spent.amount
            for (scope, *_), spent in (item.pending_costs or {}).items()
            if scope.kind is Spender.MEASUREMENT and scope.name == measurement and not scope.repeated
        )

    def save(self, measurement: str, amount: Decimal) -> None:
        """Count the cost that a cached value has saved."""
        self._saved[measurement] = MONEY.add(self._saved[measurement], amount)

    def close(self) -> None:
        """Close the ledger: usage reported later is not counted."""
        self._closed = True

    def summary(self, ready: int) -> CostSummary:
        """Return the summary of everything booked."""
        return CostSummary(
            charges=[_charge(key, spent) for key, spent in sorted(self._booked.items(), key=_order)],
            saved=dict(sorted(self._saved.items())),
            ready=ready,
        )

    def _take(self, scope: UsageScope, usage: Usage) -> _Late:
        if usage.amount:
            self._spent = MONEY.add(self._spent, usage.amount)
        late: _Late = []
        key = (scope, usage.provider, usage.model, usage.error_type)
        if len(scope.items) == 1:
            self._put(scope.items[0], key, usage, late)
        else:
            self._share(scope.items, key, _sum(usage), late)
        return late

    def _share(self, items: Sequence[Billable], key: _Entry, spent: CostTotals, late: _Late) -> None:
        for item, share in zip(items, spent.shared(len(items)), strict=True):
            if share.calls or share.input_tokens or share.output_tokens or share.amount:
                self._put(item, key, share, late)

    def _put(self, item: Billable, key: _Entry, used: Usage | CostTotals, late: _Late) -> None:
        if item.heirs:
            self._share(item.heirs, key, _sum(used), late)
        elif item.outcome is not None:
            late.append((item, self._book(item, item.outcome, key, _sum(used))))
        else:
            if item.pending_costs is None:
                item.pending_costs = {}
            spent = item.pending_costs.get(key)
            if spent is None:
                spent = item.pending_costs[key] = CostTotals()
            spent.add(used)

    def _book(self, item: Billable, outcome: SampleOutcome, key: _Entry, spent: CostTotals) -> Charge:
        scope, provider, model, error_type = key
        use = Use.REPEATED if item.was_ready else Use.RETRIED if scope.repeated else _USES[outcome]
        booked = (scope.kind, scope.name, provider, model, use, error_type)
        self._booked[booked].add(spent)
        return _charge(booked, spent)


def _sum(used: Usage | CostTotals) -> CostTotals:
    spent = CostTotals()
    spent.add(used)
    return spent


def _charge(key: _Key, spent: CostTotals) -> Charge:
    kind, name, provider, model, use, error_type = key
    return Charge(
        kind=kind,
        name=name,
        provider=provider,
        model=model,
        use=use,
        error_type=error_type,
        calls=spent.calls,
        input_tokens=spent.input_tokens,
        cached_input_tokens=spent.cached_input_tokens,
        output_tokens=spent.output_tokens,
        amount=spent.amount,
        unpriced=spent.unpriced,
    )


def _order(booked: tuple[_Key, CostTotals]) -> tuple[str, ...]:
    kind, name, provider, model, use, error_type = booked[0]
    return kind, name, provider, model or "", use, error_type or ""
