"""Gates: limits on the differences between two runs, for CI."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

from ..errors import ConfigurationError
from ..support.formatting import dollars, seconds
from ..support.money import plain
from ..support.text import on_one_line
from .difference import RunDifference, percent, relative_change

_GATE = re.compile(r"\s*(?P<value>[a-z0-9_]+)\s*(\[(?P<name>.*)\])?\s*(?P<conditions>[<>].*)", re.DOTALL)
_CONDITION = re.compile(r"\s*(?P<operator><=|>=|<|>)\s*(?P<number>[-+]?[0-9]+(\.[0-9]+)?)\s*(?P<percent>%?)\s*")
_AND = re.compile(r"\band\b")

OF_THE_RUN: Final = (
    *("admitted", "derived", "ready", "skipped", "unchanged", "split", "dlq", "failed"),
    *("gone", "new", "changed"),
    *("duration", "calls", "failed_calls", "input_tokens", "output_tokens", "unpriced"),
)
"""Values of a whole run."""
OF_STEPS: Final = ("executions", "skips", "errors", "retries", "computed", "cached", "p50", "p95", "p99", "max")
"""Values of each stage or measurement; without a name, a gate looks at all of them."""
OF_BOTH: Final = ("cost",)
"""Values of a whole run, and with a name of one stage or measurement."""
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SECONDS: Final = ("duration", "p50", "p95", "p99", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A limit on the change of a value from the first run to the second."""

    operator: str
    """`<`, `<=`, `>` or `>=`."""
    number: Decimal
    """Limit of the change, in the value's unit or in per cent."""
    relative: bool
    """True for per cent of the first run's value."""

    def holds(self, before: Any, after: Any) -> bool:
        """Return True if the change is beyond the limit."""
        if self.relative:
            change: Any = relative_change(before, after)
            limit = float(self.number) / 100
        else:
            change, limit = float(after - before), float(self.number)
        holds: dict[str, bool] = {
            "<": change < limit,
            "<=": change <= limit,
            ">": change > limit,
            ">=": change >= limit,
        }
        return holds[self.operator]

    def __str__(self) -> str:
        return f"{self.operator} {self.number}{' %' if self.relative else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A value whose change is beyond the limit of a gate."""

    gate: str
    """The gate as it was written."""
    value: str
    """Name of the value."""
    name: str | None
    """Stage or measurement; None for a value of the whole run."""
    before: Any
    """Value of the first run; None if it has none."""
    after: Any
    """Value of the second run; None if it has none."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {
            name: plain(value) for name in ("before", "after") if isinstance(value := getattr(self, name), Decimal)
        }

    def __str__(self) -> str:
        value = self.value if self.name is None else f"{self.value}[{on_one_line(self.name, 60)}]"
        if self.before is None or self.after is None:
            which = "first" if self.before is None else "second"
            return f"{self.gate}: {value} cannot be compared, because the {which} run has none"
        shown = seconds if self.value in _SECONDS else _dollars if self.value == "cost" else str
        change = self.after - self.before
        share = relative_change(self.before, self.after)
        sign = "−" if change < 0 else "+"
        relative = "" if share is None or share == float("inf") else f", {sign}{percent(abs(share))}"
        numbers = f"{shown(self.before)} → {shown(self.after)}"
        if self.value in ("gone", "new", "changed"):
            numbers = f"{change} of {self.before} samples"
        return f"{self.gate}: {value} {numbers} ({sign}{shown(abs(change))}{relative})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A limit that two runs must keep, such as `ready<-1%` or `p95[annotate]>20% and >0.1`.

    A gate fails if the change of its value from the first run to the second meets all conditions.
    """

    text: str
    """The gate as it was written."""
    value: str
    """Name of the value."""
    name: str | None
    """Stage or measurement; None for all of them, or for a value of the whole run."""
    conditions: Sequence[Condition]
    """All of them must be met for the gate to fail."""

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Parse a gate: `VALUE<NUMBER`, `VALUE[NAME]>NUMBER%`, with further conditions after `and`.

        Raises:
            ConfigurationError: it is none, or its value is unknown.
        """
        found = _GATE.fullmatch(text)
        if found is None:
            raise ConfigurationError(
                f"{text!r} is no gate; write VALUE<NUMBER or VALUE[NAME]>NUMBER%, such as 'ready<-1%' or "
                "'p95[annotate]>20% and >0.1'"
            )
        value, name = found["value"], found["name"]
        known = (*OF_THE_RUN, *OF_BOTH, *OF_STEPS)
        if value not in known:
            raise ConfigurationError(f"{text!r}: there is no value {value!r}; there are {', '.join(known)}")
        if name is not None and value in OF_THE_RUN:
            raise ConfigurationError(f"{text!r}: {value} is a value of the whole run, so it takes no [{name}]")
        conditions = []
        for part in _AND.split(found["conditions"]):
            condition = _CONDITION.fullmatch(part)
            if condition is None:
                raise ConfigurationError(
                    f"{text!r}: {part.strip()!r} is no condition; write <, <=, > or >= and a number, in per cent of "
                    "the first run's value if it ends with %"
                )
            conditions.append(
                Condition(
                    operator=condition["operator"],
                    number=Decimal(condition["number"]),
                    relative=bool(condition["percent"]),
                )
            )
        return cls(text=text.strip(), value=value, name=name, conditions=tuple(conditions))

    def violations(self, difference: RunDifference) -> list[Violation]:
        """Return the values that are beyond the limit.

        A value that one of the runs does not have cannot be compared, which is a violation if the gate names its stage
        or measurement.

        Raises:
            ConfigurationError: neither run has such a stage or measurement, or the samples of the runs were not
                recorded.
        """
        found = []
        for name, (before, after) in self._values(difference):
            if before is None or after is None:
                met = self.name is not None
            else:
                met = all(condition.holds(before, after) for condition in self.conditions)
            if met:
                found.append(Violation(gate=self.text, value=self.value, name=name, before=before, after=after))
        return found

    def _values(self, difference: RunDifference) -> list[tuple[str | None, tuple[Any, Any]]]:
        values = difference.values
        of_run = self.value in OF_THE_RUN or (self.value in OF_BOTH and self.name is None)
        if of_run or self.name is not None:
            if (self.value, self.name) in values:
                return [(self.name, values[self.value, self.name])]
            if of_run:
                raise ConfigurationError(
                    f"{self.text!r}: which samples were {self.value} is not known, because the samples of one of the "
                    "runs were not recorded"
                )
            names = [name for value, name in values if value == self.value and name is not None]
            raise ConfigurationError(
                f"{self.text!r}: neither run has {self.value} of {self.name!r}; they have it of "
                f"{', '.join(map(repr, names)) or 'nothing'}"
            )
        return [(name, pair) for (value, name), pair in values.items() if value == self.value]


def _dollars(amount: Decimal) -> str:
    return f"{dollars(amount)} USD"
