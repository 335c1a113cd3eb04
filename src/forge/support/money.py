"""Money: decimals of US dollars, added up without loss."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow

from .numbers import shown

MONEY = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[DivisionByZero, InvalidOperation, Overflow])
"""Decimal context for money, whatever the calling thread's is: sums below 10⁴² dollars are exact."""

PLACES = 18
"""Decimal places: amounts are rounded to attodollars; the finest known price of a token has eleven places."""
_FINEST = Decimal(1).scaleb(-PLACES)
_MOST = Decimal(10) ** 15

ZERO = Decimal(0)


def to_money(value: object) -> Decimal:
    """Convert a number to an amount of money; a float is taken as written, so 0.1 is a tenth.

    Raises:
        ValueError: it is no number, negative, not finite or beyond all measure.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError(f"must be a number of US dollars, not {shown(value)}")
    amount = Decimal(float.__repr__(value)) if isinstance(value, float) else Decimal(value)
    if not amount.is_finite() or not 0 <= amount < _MOST:
        raise ValueError(f"must be a number of US dollars that is finite and not negative, not {shown(value)}")
    return rounded(amount)


def rounded(amount: Decimal) -> Decimal:
    """Round an amount to `PLACES`."""
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)  # it is finite
    return amount if exponent >= -PLACES else amount.quantize(_FINEST, context=MONEY)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum."""
    added = ZERO
    for amount in amounts:
        added = MONEY.add(added, amount)
    return added


def shares(number: int, count: int) -> list[int]:
    """Split a whole number into `count` equal shares that add up; the first ones get one more."""
    share, rest = divmod(number, count)
    return [share + 1] * rest + [share] * (count - rest)


def money_shares(amount: Decimal, count: int) -> list[Decimal]:
    """Split an amount into `count` equal shares that add up, to the last of its places."""
    units = int(amount.scaleb(PLACES, context=MONEY))
    return [Decimal(share).scaleb(-PLACES, context=MONEY).normalize(MONEY) for share in shares(units, count)]


def plain(amount: Decimal) -> str:
    """Format an amount without exponent and trailing zeros."""
    return f"{amount.normalize(MONEY):f}"
