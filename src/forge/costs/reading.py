"""Usage of API calls, and reading it from the numbers that clients return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from ..errors import UsageError
from ..pipeline.exceptions import classify, is_a
from ..support.money import to_money
from ..support.numbers import shown

MOST: Final = 10**12
"""Largest number of tokens or calls in one report: far more than there are, and far less than sums can carry."""
_WHOLE: Final = "a whole number from 0 to 10¹²"
_OTHER: Final = "_OTHER"
"""Class of errors that cannot be read, as OpenTelemetry names it."""
_UNKNOWN: Final = "unknown"
"""Provider of calls whose provider cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The usage of one API call, or of several together.

    Raises:
        UsageError: no provider, or numbers that are none, out of range, or contradict each other.
    """

    provider: str
    """API provider, preferably a value of OpenTelemetry's `gen_ai.provider.name`."""
    model: str | None = None
    """Requested model; None for APIs without models."""
    input_tokens: int = 0
    """Tokens sent, cached ones included."""
    output_tokens: int = 0
    """Tokens generated."""
    cached_input_tokens: int = 0
    """Input tokens that the provider read from its cache."""
    calls: int = 1
    """Number of API calls."""
    amount: Decimal | None = None
    """US dollars; None if no price is known."""
    error_type: str | None = None
    """Class of the error with which the calls failed; None for calls that succeeded."""

    def __post_init__(self) -> None:
        numbers = (self.input_tokens, self.output_tokens, self.cached_input_tokens, self.calls)
        for number in numbers:
            if type(number) is not int or not 0 <= number <= MOST:
                self._refuse(numbers)
        if not isinstance(self.provider, str) or not self.provider:
            raise UsageError(f"usage: provider must be a string that is not empty, not {shown(self.provider)}")
        if self.model is not None and (not isinstance(self.model, str) or not self.model):
            raise UsageError(f"usage: model must be a string that is not empty, or None, not {shown(self.model)}")
        if self.error_type is not None and (not isinstance(self.error_type, str) or not self.error_type):
            raise UsageError(
                f"usage: error_type must be a string that is not empty, or None, not {shown(self.error_type)}"
            )
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
        """Return the same usage with an amount."""
        # A third of the time that `dataclasses.replace` takes.
        return Usage(
            provider=self.provider,
            model=self.model,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_input_tokens=self.cached_input_tokens,
            calls=self.calls,
            amount=amount,
            error_type=self.error_type,
        )

    def _refuse(self, numbers: Sequence[object]) -> None:
        names = ("input_tokens", "output_tokens", "cached_input_tokens", "calls")
        for name, number in zip(names, numbers, strict=True):
            if type(number) is not int or not 0 <= number <= MOST:
                raise UsageError(f"usage: {name} must be {_WHOLE}, not {shown(number)}")


class Reading(NamedTuple):
    """Usage that was read, as far as that was possible."""

    usage: Usage
    known: bool = True
    """False if it is not known what the calls used, so that they have no price."""
    problem: str | None = None
    """The part that made no sense; None if all was clear."""


def read(
    *,
    provider: Any,
    model: Any = None,
    input_tokens: Any = 0,
    output_tokens: Any = 0,
    cached_input_tokens: Any = 0,
    calls: Any = 1,
    amount: Any = None,
    error: Any = None,
) -> Reading:
    """Read usage from whatever an API's client returned. Never raises."""
    failure = None if error is None else _error_type(error)
    try:
        return Reading(
            Usage(
                provider=provider,
                model=model,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cached_input_tokens=cached_input_tokens,
                calls=calls,
                amount=amount,
                error_type=failure,
            )
        )
    except Exception:  # noqa: BLE001 - anything may have been given; now look closer
        reader = _Reader()
        return reader.read(provider, model, (input_tokens, output_tokens, cached_input_tokens, calls), amount, failure)


def _error_type(error: Any) -> str:
    try:
        if is_a(error, BaseException):
            return classify(error)
        return str(error) or _OTHER
    except Exception:  # noqa: BLE001 - anything may have been given
        return _OTHER


class _Reader:
    """Reads usage field by field."""

    def __init__(self) -> None:
        self._known = True
        self._problem: str | None = None

    def read(self, provider: Any, model: Any, numbers: Sequence[Any], amount: Any, error_type: str | None) -> Reading:
        provider = self._name("provider", provider) or _UNKNOWN
        model = None if model is None else self._name("model", model)
        input_tokens, output_tokens, cached_input_tokens, calls = numbers
        sent = self._number("input_tokens", input_tokens)
        received = self._number("output_tokens", output_tokens)
        cached = 0 if cached_input_tokens is None else self._number("cached_input_tokens", cached_input_tokens)
        calls = self._number("calls", 1 if calls is None else calls, otherwise=1)
        if cached > sent:
            if self._known:
                self._refuse(
                    f"{cached} cached_input_tokens of {sent} input_tokens; input_tokens includes the cached ones"
                )
            cached = 0
        money = None if amount is None else self._money(amount)
        usage = Usage(
            provider=provider,
            model=model,
            input_tokens=sent,
            output_tokens=received,
            cached_input_tokens=cached,
            calls=calls,
            amount=money,
            error_type=error_type,
        )
        return Reading(usage, self._known, self._problem)

    def _name(self, field: str, value: Any) -> str | None:
        if isinstance(value, str) and value:
            return value
        self._refuse(f"{field} must be a string that is not empty, not {shown(value)}")
        return None

    def _number(self, field: str, value: Any, otherwise: int = 0) -> int:
        if value is None:
            self._known = False
            return otherwise
        try:
            number = int(value)
            if not isinstance(value, bool) and 0 <= number <= MOST and (isinstance(value, str) or number == value):
                return number
        except Exception:  # noqa: BLE001, S110 - `int` calls the value's own methods
            pass
        self._refuse(f"{field} must be {_WHOLE}, not {shown(value)}")
        return otherwise

    def _money(self, amount: Any) -> Decimal | None:
        try:
            return to_money(amount if isinstance(amount, bool | int | float | Decimal) else Decimal(str(amount)))
        except Exception:  # noqa: BLE001 - the value's own methods, or no number
            self._refuse(f"amount must be a number of US dollars, not {shown(amount)}", known=self._known)
            return None

    def _refuse(self, problem: str, *, known: bool = False) -> None:
        self._known = known
        if self._problem is None:
            self._problem = problem
