"""What API calls used: reported inside stages and measurements, kept for the sample they were made for.

from forge import usage

usage.report(provider="openai", model="gpt-4o-mini", input_tokens=812, output_tokens=64)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import UsageError
from ..support.money import MONEY, ZERO, money_shares, shares, to_money

if TYPE_CHECKING:
    from ..pipeline.sample import Sample, SampleOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one call of an API used, or several together.

    Raises:
        UsageError: no provider, numbers that are none, negative, or that contradict each other.
    """

    provider: str
    """API provider, preferably a value of OpenTelemetry's `gen_ai.provider.name`."""
    model: str | None = None
    """Requested model; None for APIs without models."""
    input_tokens: int = 0
    """The cached ones are among them."""
    output_tokens: int = 0
    """Tokens generated."""
    cached_input_tokens: int = 0
    """Input tokens that the provider read from its cache."""
    calls: int = 1
    """Number of API calls."""
    amount: Decimal | None = None
    """US dollars; None where no price is known."""

    def __post_init__(self) -> None:
        numbers = (self.input_tokens, self.output_tokens, self.cached_input_tokens, self.calls)
        for number in numbers:
            if type(number) is not int or number < 0:
                self._refuse(numbers)
        if not isinstance(self.provider, str) or not self.provider:
            raise UsageError(f"usage: provider must be a string that is not empty, not {self.provider!r}")
        if self.model is not None and (not isinstance(self.model, str) or not self.model):
            raise UsageError(f"usage: model must be a string that is not empty, or None, not {self.model!r}")
        if self.cached_input_tokens > self.input_tokens:
            raise UsageError(
                f"usage: {self.cached_input_tokens} cached_input_tokens of {self.input_tokens} input_tokens; "
                "input_tokens includes the cached ones"
            )
        if self.amount is not None:
            try:
                amount = to_money(self.amount)
            except ValueError as error:
                raise UsageError(f"usage: amount {error}") from None
            object.__setattr__(self, "amount", amount)

    def with_amount(self, amount: Decimal) -> Usage:
        """The same usage, priced."""
        # A third of the time that `dataclasses.replace` takes.
        return Usage(
            provider=self.provider,
            model=self.model,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_input_tokens=self.cached_input_tokens,
            calls=self.calls,
            amount=amount,
        )

    def _refuse(self, numbers: Sequence[object]) -> None:
        names = ("input_tokens", "output_tokens", "cached_input_tokens", "calls")
        for name, number in zip(names, numbers, strict=True):
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise UsageError(f"usage: {name} must be a whole number and not negative, not {number!r}")


def report(
    *,
    provider: str,
    model: str | None = None,
    input_tokens: int = 0,
    output_tokens: int = 0,
    cached_input_tokens: int = 0,
    calls: int = 1,
    amount: Decimal | float | None = None,
) -> None:
    """Say what API calls used; it goes to the sample that is being processed.

    Called inside a stage or a measurement, sync or async, also from threads and tasks that its context reaches
    (`asyncio.to_thread` and tasks take it along; a thread of your own needs `contextvars.copy_context().run`). In a
    batch it is shared by the batch's samples, in whole numbers that add up. Outside of a pipeline it does nothing
    but check its arguments.

    `input_tokens` includes the `cached_input_tokens`. `provider` is best one of OpenTelemetry's
    `gen_ai.provider.name` (`openai`, `anthropic`, `aws.bedrock`, …). `amount` is in US dollars, for those who know it
    better than the price tables do.

    Raises:
        UsageError: no provider, numbers that are none, negative, or that contradict each other.
    """
    used = Usage(
        provider=provider,
        model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached_input_tokens,
        calls=calls,
        amount=amount,  # type: ignore[arg-type]  # made a decimal there
    )
    scope = _scope.get()
    if scope is not None:
        scope.record(scope.origin.costs.priced(used))


class Spender(StrEnum):
    """What makes API calls."""

    STAGE = "stage"
    MEASUREMENT = "measurement"


class Billable(Protocol):
    """A sample that is under way, as far as its costs go."""

    sample: Sample
    outcome: SampleOutcome | None
    """What it settled with."""
    was_ready: bool
    """It had been ready before this run."""
    pending_costs: PendingCosts | None
    """What was spent on it and is not booked yet; None as long as nothing was."""
    heirs: Sequence[Billable]
    """What it was split into: they share what was spent on it."""


B = TypeVar("B", bound=Billable)


class Account(Protocol):
    """Where usage is booked, such as the cost ledger of a run."""

    def priced(self, usage: Usage) -> Usage:
        """The usage with its amount, if a price is known."""

    def add(self, scope: UsageScope, usage: Usage) -> None:
        """Book usage for the samples of the scope."""

    def begin_call(self, scope: UsageScope, provider: str) -> None:
        """Note that the attempt is a call of this provider's API."""

    def end_call(self, scope: UsageScope) -> bool:
        """Note that the attempt has ended; returns True if its call is still to be counted."""


class Origin(Protocol):
    """A stage or a measurement of one run, as far as its costs go."""

    @property
    def costs(self) -> Account: ...
    @property
    def spender(self) -> Spender: ...
    @property
    def name(self) -> str: ...


@dataclass(slots=True)
class CostTotals:
    """A sum that grows."""

    calls: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    amount: Decimal = ZERO
    unpriced: int = 0

    def add(self, other: Usage | CostTotals) -> None:
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.cached_input_tokens += other.cached_input_tokens
        self.output_tokens += other.output_tokens
        if isinstance(other, CostTotals):
            self.unpriced += other.unpriced
        if other.amount:
            self.amount = MONEY.add(self.amount, other.amount)
        elif other.amount is None:
            self.unpriced += other.calls

    def shared(self, count: int) -> Iterator[CostTotals]:
        """Shares that add up to it."""
        if count == 1:
            return iter((self,))
        return (
            CostTotals(*each)
            for each in zip(
                shares(self.calls, count),
                shares(self.input_tokens, count),
                shares(self.cached_input_tokens, count),
                shares(self.output_tokens, count),
                money_shares(self.amount, count),
                shares(self.unpriced, count),
                strict=True,
            )
        )


class UsageScope:
    """One attempt of a stage or a measurement, on one sample or a batch: where usage is reported to."""

    # There is one for every call of a stage, so it holds no more than it must.
    __slots__ = ("items", "origin", "repeated")

    def __init__(self, origin: Origin, items: Sequence[Billable]) -> None:
        self.origin = origin
        self.items = items
        """The samples that share what is reported."""
        self.repeated = False
        """There was another attempt, so what was spent in this one was spent in vain."""

    @property
    def kind(self) -> Spender:
        return self.origin.spender

    @property
    def name(self) -> str:
        """The stage's name or the measurement's key."""
        return self.origin.name

    def record(self, usage: Usage) -> None:
        """Take up what was used. Called once for each report, in the context of whoever reported it; `usage.amount` is
        set where a price is known.
        """
        self.origin.costs.add(self, usage)

    def again(self, items: Sequence[Billable]) -> UsageScope:
        """The attempt that repeats this one."""
        return UsageScope(self.origin, items)


PendingCosts = dict[tuple[UsageScope, str, str | None], CostTotals]
"""What was spent on a sample that has not settled, by attempt, provider and model."""

_scope: ContextVar[UsageScope | None] = ContextVar("forge_usage", default=None)

enter = _scope.set
"""Report to this scope in the current context from now on."""


current = _scope.get
"""The scope that usage is reported to here; None outside of stages and measurements."""


@contextmanager
def reporting_to(scope: UsageScope) -> Iterator[None]:
    """Report to a scope inside the block."""
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


def begin_retry() -> None:
    """The current attempt failed and is repeated: what is reported from now on belongs to the next one."""
    scope = _scope.get()
    if scope is not None:
        scope.repeated = True
        _scope.set(scope.again(scope.items))


def narrow_to(items: Sequence[Billable]) -> None:
    """Only these samples of the batch share what is reported from now on."""
    scope = _scope.get()
    if scope is not None:
        _scope.set(scope.again(items))


def retry_each(items: Sequence[B]) -> Iterator[B]:
    """The current attempt of a batch failed and is repeated with each of its samples alone."""
    scope = _scope.get()
    if scope is None:
        yield from items
        return
    scope.repeated = True
    for item in items:
        _scope.set(scope.again([item]))
        yield item


@contextmanager
def counting(provider: str, function: Callable[[Any], Any]) -> Iterator[Callable[[Any], Any]]:
    """Around an attempt that calls the function, sync or async: it is one call of the provider's API, unless calls of
    it are reported by hand before the attempt ends.
    """
    scope = _scope.get()
    if scope is None:
        yield function
        return
    costs = scope.origin.costs

    def begun(argument: Any) -> Any:
        costs.begin_call(scope, provider)
        return function(argument)

    try:
        yield begun
    finally:
        if costs.end_call(scope):
            scope.record(costs.priced(Usage(provider=provider)))
