"""Prices of API calls: the user's own table first, then the public prices of `genai-prices`."""

from __future__ import annotations

import fnmatch
import importlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..pipeline.exceptions import describe
from ..support.money import MONEY, ZERO, rounded, to_money
from ..support.numbers import shown

if TYPE_CHECKING:
    from .usage import Usage

logger = logging.getLogger("forge")

VARIABLE = "FORGE_PRICES"
"""Environment variable with the path of the user's own table."""

_KEYS = {
    "provider": "provider",
    "model": "model",
    "per": "per",
    "input": "input_price",
    "cached_input": "cached_input_price",
    "output": "output_price",
    "call": "call_price",
    "from": "valid_from",
    "until": "valid_until",
}
"""Keys of an entry in a file, and the attributes of `Price` that they set."""

_PUBLIC_NAMES = {
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gen_ai": "google",
    "x_ai": "x-ai",
}
"""Names in `genai-prices` for values of `gen_ai.provider.name` that it does not know, or takes for another provider."""

_PRICES = ("input_price", "cached_input_price", "output_price", "call_price")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of one model's calls, in US dollars. Parts without a price are free, except that cached input costs the
    same as input.

    Raises:
        ConfigurationError: for numbers or times that make no sense.
    """

    provider: str
    """A name, or a pattern such as `azure*`; case does not matter. `*` stands for any characters, `?` for one."""
    model: str = "*"
    """A name, or a pattern such as `gpt-4o*`; `*` fits calls without a model as well."""
    per: Decimal = Decimal(1)
    """Number of tokens that the token prices are for, such as 1e6."""
    input_price: Decimal | None = None
    """US dollars for `per` input tokens that are not cached."""
    cached_input_price: Decimal | None = None
    """US dollars for `per` cached input tokens; None: the same as `input_price`."""
    output_price: Decimal | None = None
    """US dollars for `per` output tokens."""
    call_price: Decimal | None = None
    """US dollars for one call, whatever `per` is."""
    valid_from: datetime | None = None
    """The first moment at which the price holds; without a time zone, in UTC."""
    valid_until: datetime | None = None
    """The first moment at which it holds no longer."""

    def __post_init__(self) -> None:
        for name in ("provider", "model"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ConfigurationError(f"price: {name} must be a string that is not empty")
            object.__setattr__(self, name, getattr(self, name).lower())
        for name in ("per", *_PRICES):
            value = getattr(self, name)
            if value is None and name != "per":
                continue
            try:
                object.__setattr__(self, name, to_money(value))
            except ValueError as error:
                raise ConfigurationError(f"price of {self.provider}: {name} {error}") from None
        if not self.per:
            raise ConfigurationError(f"price of {self.provider}: per must be more than 0")
        if all(getattr(self, name) is None for name in _PRICES):
            raise ConfigurationError(f"price of {self.provider}: it says no price for input, output or calls")
        for name in ("valid_from", "valid_until"):
            moment = getattr(self, name)
            if moment is not None and not isinstance(moment, datetime):
                raise ConfigurationError(f"price of {self.provider}: {name} must be a datetime, not {shown(moment)}")
            if moment is not None and moment.utcoffset() is None:
                object.__setattr__(self, name, moment.replace(tzinfo=UTC))
        if self.valid_from and self.valid_until and self.valid_from >= self.valid_until:
            raise ConfigurationError(f"price of {self.provider}: it ends before it begins")

    def fits(self, provider: str, model: str | None) -> bool:
        """Return True if the price applies to this model, at any time."""
        return _fits(self.provider, provider) and _fits(self.model, model or "")

    def holds(self, when: float) -> bool:
        """Return True if the price applies at this Unix time."""
        return (self.valid_from is None or self.valid_from.timestamp() <= when) and (
            self.valid_until is None or when < self.valid_until.timestamp()
        )

    def amount(self, usage: Usage) -> Decimal:
        """Return the cost of the usage."""
        cached_price = self.input_price if self.cached_input_price is None else self.cached_input_price
        tokens = ZERO
        for price, number in (
            (self.input_price, usage.input_tokens - usage.cached_input_tokens),
            (cached_price, usage.cached_input_tokens),
            (self.output_price, usage.output_tokens),
        ):
            if price and number:
                tokens = MONEY.add(tokens, MONEY.multiply(price, number))
        amount = MONEY.divide(tokens, self.per)
        if self.call_price:
            amount = MONEY.add(amount, MONEY.multiply(self.call_price, usage.calls))
        return rounded(amount)


def _fits(pattern: str, name: str) -> bool:
    # Brackets are part of the names of models, such as `sonnet[1m]`, not sets of characters.
    return fnmatch.fnmatchcase(name.lower(), pattern.replace("[", "[[]"))


class Prices:
    """A table of prices. The first entry that fits a call counts.

    Calls that none fits are looked up in `genai-prices`, if that is installed (`pip install "forge-otel[cost]"`) and
    `public` is not False: with the prices that came with it, of the time of the call. The network is not used.
    """

    def __init__(self, entries: Iterable[Price] = (), *, public: bool = True) -> None:
        self.entries = tuple(entries)
        for entry in self.entries:
            if not isinstance(entry, Price):
                raise ConfigurationError(f"Prices: {entry!r} is no Price")
        self.public = public
        self._fitting: dict[tuple[str, str | None], tuple[Price, ...]] = {}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prices:
        """Read a table from a YAML file.

        Raises:
            ConfigurationError: the file cannot be read, or something in it is wrong; names the file and the line.
        """
        return cls(_read(Path(path)))

    @classmethod
    def from_environment(cls) -> Prices:
        """Return the table that `FORGE_PRICES` names; an empty one if it is not set.

        Raises:
            ConfigurationError: as `load`.
        """
        path = os.environ.get(VARIABLE)
        return cls.load(path) if path else cls()

    def amount(self, usage: Usage, when: float) -> Decimal | None:
        """Return the cost in US dollars of calls made at `when` (Unix time); None if no price is known."""
        key = (usage.provider, usage.model)
        fitting = self._fitting.get(key)
        if fitting is None:
            fitting = self._fitting[key] = tuple(entry for entry in self.entries if entry.fits(*key))
        for entry in fitting:
            if entry.holds(when):
                return entry.amount(usage)
        return _public_amount(usage, when) if self.public and usage.model else None


def _public_amount(usage: Usage, when: float) -> Decimal | None:
    try:
        genai_prices: Any = importlib.import_module("genai_prices")
    except ImportError:
        return None
    used = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
    )
    try:
        with localcontext(MONEY):
            priced = genai_prices.calc_price(
                used,
                usage.model,
                provider_id=_PUBLIC_NAMES.get(usage.provider, usage.provider),
                genai_request_timestamp=datetime.fromtimestamp(when, UTC),
            )
            return to_money(priced.total_price)
    except LookupError:
        return None  # it knows no such provider or model
    except Exception as error:  # noqa: BLE001 - a price that cannot be computed must not fail the sample
        logger.warning("genai-prices failed on %s of %s: %s", usage.model, usage.provider, describe(error))
        return None


def _read(path: Path) -> list[Price]:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        raise ConfigurationError(f'{path}: reading prices needs PyYAML; pip install "forge-otel[cost]"') from None
    try:
        # As text, so that prices stay the decimals that were written; line by line known, for the errors.
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: the prices cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    top = _mapping(yaml, path, root)
    for key in top:
        if key not in ("currency", "prices"):
            raise ConfigurationError(
                f"{path}:{top[key].start_mark.line + 1}: unknown key {key!r}; there are currency, prices"
            )
    currency = top.get("currency")
    if currency is not None and currency.value != "USD":
        line = currency.start_mark.line + 1
        raise ConfigurationError(f"{path}:{line}: currency is {currency.value!r}; all prices must be in USD")
    listed = top.get("prices")
    if not isinstance(listed, yaml.SequenceNode):
        raise ConfigurationError(f"{path}: there must be a list called prices")
    return [_entry(yaml, path, node) for node in listed.value]


def _mapping(yaml: Any, path: Path, node: Any) -> Mapping[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1 if node is not None else 1
        raise ConfigurationError(f"{path}:{line}: there must be a mapping with keys and values")
    values: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigurationError(f"{path}:{line}: a key must be one word")
        if key.value in values:
            raise ConfigurationError(f"{path}:{line}: the key {key.value!r} is there a second time")
        values[key.value] = value
    return values


def _entry(yaml: Any, path: Path, node: Any) -> Price:
    entries = _mapping(yaml, path, node)
    taken: dict[str, Any] = {}
    for key, value in entries.items():
        where = f"{path}:{value.start_mark.line + 1}"
        if key not in _KEYS:
            raise ConfigurationError(f"{where}: unknown key {key!r}; there are {', '.join(_KEYS)}")
        if not isinstance(value, yaml.ScalarNode):
            raise ConfigurationError(f"{where}: {key} must be one value")
        try:
            taken[_KEYS[key]] = _value(key, value.value)
        except (ArithmeticError, ValueError):
            what = "a date or a time, such as 2025-01-31" if key in ("from", "until") else "a number"
            raise ConfigurationError(f"{where}: {key} must be {what}, not {value.value!r}") from None
    line = node.start_mark.line + 1
    if "provider" not in taken:
        raise ConfigurationError(f"{path}:{line}: the provider is missing")
    try:
        return Price(**taken)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}:{line}: {error}") from None


def _value(key: str, text: str) -> Any:
    if key in ("from", "until"):
        return datetime.fromisoformat(text)
    return text if key in ("provider", "model") else Decimal(text)
