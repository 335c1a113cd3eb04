"""Usage of API calls, reported inside stages and measurements and kept for the sample it was caused by.

from forge import usage

usage.report(provider="openai", model="gpt-4o-mini", input_tokens=812, output_tokens=64)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ..pipeline.exceptions import CLIENT_ERROR, NETWORK_ERROR, RATE_LIMIT, SERVER_ERROR, classify
from ..support.money import MONEY, ZERO, money_shares, shares
from .reading import Usage as Usage  # noqa: PLC0414 - public as `forge.usage.Usage`
from .reading import read

if TYPE_CHECKING:
    from ..pipeline.sample import Sample, SampleOutcome

logger = logging.getLogger("forge")


def report(
    *,
    provider: str,
    model: str | None = None,
    input_tokens: int | None = 0,
    output_tokens: int | None = 0,
    cached_input_tokens: int | None = 0,
    calls: int = 1,
    amount: Decimal | float | None = None,
    error: BaseException | str | None = None,
) -> None:
    """Report the usage of API calls for the sample that is being processed.

    Called inside a stage or a measurement, sync or async, also from threads and tasks that its context reaches
    (`asyncio.to_thread` and tasks take it along; a thread of your own needs `contextvars.copy_context().run`). In a
    batch it is shared by the batch's samples, in whole numbers that add up. Outside of a pipeline it does nothing
    but read its arguments.

    `input_tokens` includes the `cached_input_tokens`. `provider` is best one of OpenTelemetry's
    `gen_ai.provider.name` (`openai`, `anthropic`, `aws.bedrock`, …). `amount` is in US dollars, for those who know it
    better than the price tables do.

    `error` is the exception with which the calls failed, or its class (`rate_limit`) where the client returns errors
    as values. Failed calls cost nothing, unless tokens or an amount are given, and are never unpriced.

    Never raises, because the calls are paid for. Numbers that clients return as text or whole floats are taken. Input
    or output tokens that are None are unknown: the calls are counted, and unpriced unless an amount is given. So are
    calls whose usage makes no sense, such as negative numbers or more than 10¹² tokens, with one warning per run and
    model.
    """
    reading = read(
        provider=provider,
        model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached_input_tokens,
        calls=calls,
        amount=amount,
        error=error,
    )
    scope = _scope.get()
    if scope is not None:
        if reading.problem is not None:
            scope.origin.costs.unreadable(reading.usage, reading.problem)
        book(scope, reading.usage, known=reading.known)
    elif reading.problem is not None:
        logger.warning("usage: %s", reading.problem)


def book(
    attempt: UsageScope,
    usage: Usage,
    *,
    detected: bool = False,
    models: Iterable[str | None] = (),
    known: bool = True,
) -> bool:
    """Book the usage of API calls for an attempt; returns whether it was booked.

    `report` is the shorthand for the current attempt, which `current` returns. The amount is looked up in the price
    tables where the usage has none; calls of which it is not `known` what they used are counted, and unpriced.

    Mark calls as `detected` that an instrumentation of the API's client saw, and nobody reported. Where usage of the
    same provider and model was reported in the attempt, it is that of the same calls, and nothing is booked; failed
    calls only stand for failed ones, and others for others. `models`
    are further names under which the model may have been reported. Book what was detected when the attempt has come
    back, since most clients are asked for their usage after the call.
    """
    if detected:
        failed = usage.error_type is not None
        names = {(usage.provider, name, failed) for name in (usage.model, *models, None)}
        if not names.isdisjoint(attempt.reported):
            return False
    else:
        with _lock:  # several threads may report in one attempt
            attempt.reported = {*attempt.reported, (usage.provider, usage.model, usage.error_type is not None)}
    attempt.record(attempt.origin.costs.priced(usage) if known else usage)
    return True


class Spender(StrEnum):
    """Kind of component that makes API calls."""

    STAGE = "stage"
    MEASUREMENT = "measurement"


class Billable(Protocol):
    """A sample in flight, as seen by the cost ledger."""

    sample: Sample
    outcome: SampleOutcome | None
    """Outcome it settled with; None while it is in flight."""
    was_ready: bool
    """True if it had been ready before this run."""
    pending_costs: PendingCosts | None
    """Costs that are not booked yet; None if there are none."""
    heirs: Sequence[Billable]
    """Samples it was split into, which share its costs."""


B = TypeVar("B", bound=Billable)


class Account(Protocol):
    """A ledger that books usage, such as the cost ledger of a run."""

    def priced(self, usage: Usage) -> Usage:
        """Return the usage with its amount, if a price is known."""

    def unreadable(self, usage: Usage, problem: str) -> None:
        """Note that some of the usage could not be read."""

    def add(self, scope: UsageScope, usage: Usage) -> None:
        """Book usage for the samples of the scope."""

    def begin_call(self, scope: UsageScope, provider: str) -> None:
        """Note that the attempt is a call of this provider's API."""

    def end_call(self, scope: UsageScope) -> bool:
        """Note that the attempt has ended; returns True if its call is still to be counted."""


class Origin(Protocol):
    """A stage or a measurement of one run, as seen by the cost ledger."""

    @property
    def costs(self) -> Account: ...
    @property
    def spender(self) -> Spender: ...
    @property
    def name(self) -> str: ...


@dataclass(slots=True)
class CostTotals:
    """Running totals of usage and cost."""

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
        elif other.amount is None and other.error_type is None:
            self.unpriced += other.calls

    def shared(self, count: int) -> Iterator[CostTotals]:
        """Split the totals into shares that add up exactly."""
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
    """One attempt of a stage or measurement on one sample or batch, which receives reported usage."""

    # There is one for every call of a stage, so it holds no more than it must.
    __slots__ = ("items", "origin", "repeated", "reported")

    def __init__(self, origin: Origin, items: Sequence[Billable]) -> None:
        self.origin = origin
        self.items = items
        """Samples that share the reported usage."""
        self.repeated = False
        """True if another attempt followed, so that the costs of this one were spent in vain."""
        self.reported: Set[tuple[str, str | None, bool]] = _NOTHING
        """Providers and models of the usage that was reported, and True with those of calls that failed."""

    @property
    def kind(self) -> Spender:
        return self.origin.spender

    @property
    def name(self) -> str:
        """The stage's name or the measurement's key."""
        return self.origin.name

    def record(self, usage: Usage) -> None:
        """Book usage. Called once per report, in the reporter's context; `usage.amount` is set if a price is known."""
        self.origin.costs.add(self, usage)

    def again(self, items: Sequence[Billable]) -> UsageScope:
        """Return the scope of the attempt that repeats this one."""
        return UsageScope(self.origin, items)


_lock = threading.Lock()

_NOTHING: Set[tuple[str, str | None, bool]] = frozenset()

PendingCosts = dict[tuple[UsageScope, str, str | None, str | None], CostTotals]
"""Costs of a sample that has not settled, by attempt, provider, model and class of error."""

_scope: ContextVar[UsageScope | None] = ContextVar("forge_usage", default=None)

enter = _scope.set
"""Enter a scope: from now on, usage in the current context is reported to it."""


def current() -> UsageScope | None:
    """Return the attempt that usage is reported to here; None outside of stages and measurements."""
    return _scope.get()


@contextmanager
def reporting_to(scope: UsageScope) -> Iterator[None]:
    """Report usage to a scope inside the block."""
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


def begin_retry() -> None:
    """Begin the next attempt after a failed one: it receives the usage reported from now on."""
    scope = _scope.get()
    if scope is not None:
        scope.repeated = True
        _scope.set(scope.again(scope.items))


def narrow_to(items: Sequence[Billable]) -> None:
    """Narrow the scope: only these samples of the batch share the usage reported from now on."""
    scope = _scope.get()
    if scope is not None:
        _scope.set(scope.again(items))


def retry_each(items: Sequence[B]) -> Iterator[B]:
    """Yield the samples of a failed batch to repeat them alone, each in a scope of its own."""
    scope = _scope.get()
    if scope is None:
        yield from items
        return
    scope.repeated = True
    for item in items:
        _scope.set(scope.again([item]))
        yield item


_REFUSED: Final = frozenset({RATE_LIMIT, SERVER_ERROR, CLIENT_ERROR, NETWORK_ERROR})
"""Classes of errors that are the API's. With others, a timeout among them, the call may have been answered."""


class counting:  # noqa: N801 - used like a function
    """Count an attempt as one call of the provider's API, unless usage of it is reported before the attempt ends.

    Returns the function to call in place of the given one, sync or async.
    """

    # A class, because a generator sets the traceback of exceptions, which those of users may not allow.

    __slots__ = ("_function", "_provider", "_scope")

    def __init__(self, provider: str, function: Callable[[Any], Any]) -> None:
        self._provider = provider
        self._function = function
        self._scope = _scope.get()

    def __enter__(self) -> Callable[[Any], Any]:
        return self._function if self._scope is None else self._begun

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        scope = self._scope
        if scope is not None and scope.origin.costs.end_call(scope):
            kind = classify(error) if error is not None else None
            usage = Usage(provider=self._provider, error_type=kind if kind in _REFUSED else None)
            scope.record(scope.origin.costs.priced(usage))

    def _begun(self, argument: Any) -> Any:
        assert self._scope is not None
        self._scope.origin.costs.begin_call(self._scope, self._provider)
        return self._function(argument)
