"""PromQL, built from the generated definitions: no metric and no label is written by hand.

```python
from forge_otel.semconv import attributes as a, metrics as m
from tools.generate import promql as q

errors = q.select(m.FORGE_STAGE_EXECUTIONS, {a.FORGE_STAGE_OUTCOME: a.ForgeStageOutcome.ERROR})
everything = q.select(m.FORGE_STAGE_EXECUTIONS, {a.FORGE_PIPELINE_NAME: q.matching("$pipeline")})
q.ratio(q.sum_by(q.growth(errors, "5m"), a.FORGE_STAGE_NAME), q.sum_by(q.growth(everything, "5m"), a.FORGE_STAGE_NAME))
q.quantile(0.95, m.FORGE_STAGE_DURATION, "5m", a.FORGE_STAGE_NAME)
q.newest(m.FORGE_PIPELINE_SUCCESS_RATIO)
str(...)  # the text
```

Labels are given as the keys of attributes, and `job`, `instance` and `le` as they are; windows as Prometheus' durations
or as Grafana's variables. What makes no sense in PromQL, but would silently give a number, raises `ValueError` here: a
label that the metric does not have, the rate of a gauge, a ratio gauge that is averaged or summed.

**Every process is a new series**, since `service.instance.id` differs, and most begin at their first value instead of
at zero. `increase()` and `rate()` do not see that first value, so a run of twenty seconds counts as nothing; `growth`
does. What rules and dashboards both ask is in `queries`; the SDK's metrics about itself are in `sdk`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from forge_otel.checker import prometheus_names
from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Instrument, Metric

JOB = "job"
INSTANCE = "instance"
BUCKET = "le"
TARGET = (JOB, INSTANCE)
"""The labels that tell processes apart: Prometheus makes them from the resource, and they are on every series."""

Part = Literal["bucket", "sum", "count"]
Operator = Literal["or", "and", "unless", "==", "!=", ">", "<", ">=", "<=", "+", "-", "*", "/"]

_PRECEDENCE: Mapping[str, int] = {
    **dict.fromkeys(("or",), 1),
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys(("==", "!=", ">", "<", ">=", "<="), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/"), 5),
}
_ATOM = 6
_WIDTH = 100
Vector = TypeVar("Vector", bound="Expression")
_DURATION = re.compile(r"([0-9]+(ms|[smhdwy]))+|\$[a-zA-Z_]+|\$\{[a-zA-Z_]+\}")


@dataclass(frozen=True, slots=True)
class Expression:
    """An instant vector or a scalar. Arithmetic works with Python's operators, on expressions and on numbers."""

    text: str
    precedence: int = _ATOM
    ratio_gauge: str | None = None
    """The ratio gauge that the values come from, if any: it must not be averaged."""

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        raise TypeError("an expression is neither true nor false: use & and | in place of and and or, with parentheses")

    def __add__(self, other: Expression | float) -> Expression:
        return combine(self, "+", other)

    def __sub__(self, other: Expression | float) -> Expression:
        return combine(self, "-", other)

    def __mul__(self, other: Expression | float) -> Expression:
        return combine(self, "*", other)

    def __rmul__(self, other: float) -> Expression:
        return combine(other, "*", self)

    def __truediv__(self, other: Expression | float) -> Expression:
        return combine(self, "/", other)

    def __gt__(self, other: Expression | float) -> Expression:
        return combine(self, ">", other)

    def __lt__(self, other: Expression | float) -> Expression:
        return combine(self, "<", other)

    def __ge__(self, other: Expression | float) -> Expression:
        return combine(self, ">=", other)

    def __or__(self, other: Expression | float) -> Expression:
        return combine(self, "or", other)

    def __and__(self, other: Expression | float) -> Expression:
        return combine(self, "and", other)


@dataclass(frozen=True, slots=True)
class Selector(Expression):
    """The series of one metric: what `rate` and the other functions over a window take."""

    metric: Metric | None = None


@dataclass(frozen=True, slots=True)
class Matcher:
    """What a label's value has to be, where that is not one value."""

    operator: Literal["!=", "=~", "!~"]
    value: str


Where = Mapping[str, str | Matcher] | None
"""What attributes have to be, by their keys."""


def unequal(value: str) -> Matcher:
    """Any value but this one; the label may be missing."""
    return Matcher("!=", value)


def matching(pattern: str) -> Matcher:
    """A value that the regular expression matches as a whole, such as Grafana's `$pipeline`."""
    return Matcher("=~", pattern)


def one_of(*values: str) -> str | Matcher:
    """One of these values."""
    return values[0] if len(values) == 1 else Matcher("=~", "|".join(re.escape(value) for value in values))


def not_matching(pattern: str) -> Matcher:
    """A value that the regular expression does not match as a whole."""
    return Matcher("!~", pattern)


def select(metric: Metric, where: Where = None, *, part: Part | None = None) -> Selector:
    """The metric's series whose attributes have these values. A histogram has three parts, one must be chosen."""
    if (metric.instrument == Instrument.HISTOGRAM) != (part is not None):
        raise ValueError(
            f"{metric.name} is a {metric.instrument}: histograms, and only they, have parts to choose from"
        )
    for key in where or ():
        if key not in (*metric.attributes, *TARGET):
            raise ValueError(f"{metric.name} has no attribute {key}; it has {', '.join(metric.attributes)}")
    matchers = ",".join(_matcher(key, said) for key, said in (where or {}).items())
    name = prometheus_names.name(metric) + (f"_{part}" if part else "")
    averaged = metric.name if metric.instrument == Instrument.GAUGE and metric.unit == "1" else None
    return Selector(f"{name}{{{matchers}}}" if matchers else name, ratio_gauge=averaged, metric=metric)


def recorded(name: str) -> Selector:
    """The series of a recording rule."""
    return Selector(name)


def number(value: float) -> Expression:
    """A scalar."""
    return Expression(f"{value:.15g}")


def rate(counter: Selector, window: str) -> Expression:
    """How fast each series grew, a second. For processes that live much longer than the window; see `growth`."""
    return _over("rate", _counter(counter), window)


def growth(counter: Selector, window: str) -> Expression:
    """How much each series grew within the window, with the value that a new series began at.

    A series that was not there when the window began grew by its latest value, any other one by its `increase()`. A
    series that was lost from sight for some time, because nothing could be delivered, counts as a new one.
    """
    new = combine(last(_counter(counter), window), "unless", offset(counter, window))
    return new | _over("increase", counter, window)


def last(series: Selector, window: str) -> Expression:
    """Each series' latest value within the window, also of processes that are gone. The sum of that is the total over
    many short processes."""
    return _over("last_over_time", series, window)


def peak(series: Selector, window: str) -> Expression:
    """Each series' highest value within the window."""
    return _over("max_over_time", series, window)


def low(series: Selector, window: str) -> Expression:
    """Each series' lowest value within the window."""
    return _over("min_over_time", series, window)


def mean(series: Selector, window: str) -> Expression:
    """Each series' mean over the window. Raises `ValueError` for a ratio gauge."""
    return _over("avg_over_time", _averaged(series), window)


def offset(series: Selector, ago: str) -> Expression:
    """Each series as it was then."""
    return replace(series, text=f"{series.text} offset {_duration(ago)}")


def sum_by(vector: Expression, *keys: str) -> Expression:
    """The sum; a number for each combination of these attributes. Raises `ValueError` for a ratio gauge."""
    return _aggregate("sum", _averaged(vector), keys)


def mean_by(vector: Expression, *keys: str) -> Expression:
    """The mean. Raises `ValueError` for a ratio gauge."""
    return _aggregate("avg", _averaged(vector), keys)


def max_by(vector: Expression, *keys: str) -> Expression:
    """The greatest."""
    return _aggregate("max", vector, keys)


def min_by(vector: Expression, *keys: str) -> Expression:
    """The smallest."""
    return _aggregate("min", vector, keys)


def count_by(vector: Expression, *keys: str) -> Expression:
    """How many series there are."""
    return _aggregate("count", vector, keys)


def magnitude(vector: Expression) -> Expression:
    """The values without their signs."""
    return replace(vector, text=f"abs{_nested(vector)}", precedence=_ATOM)


def top(limit: int, vector: Expression, *keys: str) -> Expression:
    """The series with the greatest values; so many for each combination of these attributes."""
    by = f" by ({_labels(keys)}) " if keys else ""
    return replace(vector, text=_called(f"topk{by}", number(limit), vector), precedence=_ATOM)


def ratio(part: Expression, whole: Expression) -> Expression:
    """What share of the whole the part is. Where there is no part it is 0, where the whole is 0 there is none.

    Both have the same labels: sums of counters' growth, as a rule.
    """
    return (part | 0 * whole) / (whole > 0)


def quantile(share: float, histogram: Metric, window: str, *keys: str, where: Where = None) -> Expression:
    """The quantile of what a histogram saw within the window, for each combination of these attributes."""
    buckets = select(histogram, where, part="bucket")
    return Expression(
        _called("histogram_quantile", number(share), sum_by(growth(buckets, window), BUCKET, *keys)),
    )


def newest(gauge: Metric, window: str = "1d", *, where: Where = None) -> Expression:
    """The gauge of each pipeline's last run: from the process whose run ended last, whether it still lives or not."""
    ended = last(select(m.FORGE_PIPELINE_END_TIME, _only(where, m.FORGE_PIPELINE_END_TIME)), window)
    newest_end = combine(ended, "==", max_by(ended, a.FORGE_PIPELINE_NAME), on=(a.FORGE_PIPELINE_NAME,), many="left")
    here = combine(last(select(gauge, where), window), "and", newest_end, on=(*TARGET, a.FORGE_PIPELINE_NAME))
    return max_by(here, *gauge.attributes)


def age(timestamp: Expression) -> Expression:
    """Seconds since a Unix time."""
    return Expression("time()") - timestamp


def combine(
    left: Expression | float,
    operator: Operator,
    right: Expression | float,
    *,
    on: Iterable[str] | None = None,
    many: Literal["left", "right"] | None = None,
) -> Expression:
    """Two vectors, matched on all labels or on these attributes; `many` is the side with several series to one of the
    other's, whose labels stay."""
    left, right = (side if isinstance(side, Expression) else number(side) for side in (left, right))
    precedence = _PRECEDENCE[operator]
    matched = "" if on is None else f" on ({_labels(on)})" + (f" group_{many} ()" if many else "")
    joined = f"{operator}{matched}"
    first = left.text if left.precedence == precedence else _operand(left, precedence)
    second = _nested(right) if right.precedence == precedence else _operand(right, precedence)
    fits = "\n" not in first and len(first) + len(joined) + len(second.partition("\n")[0]) < _WIDTH
    gap = " " if fits else "\n"
    return Expression(f"{first}{gap}{joined} {second}", precedence, left.ratio_gauge or right.ratio_gauge)


def _matcher(key: str, said: str | Matcher) -> str:
    matcher = said if isinstance(said, Matcher) else None
    value = str(said.value if isinstance(said, Matcher) else said)
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{prometheus_names.label(key)}{matcher.operator if matcher else "="}"{quoted}"'


def _only(where: Where, metric: Metric) -> Mapping[str, str | Matcher]:
    return {key: said for key, said in (where or {}).items() if key in (*metric.attributes, *TARGET)}


def _over(function: str, series: Selector, window: str) -> Expression:
    return Expression(f"{function}({series.text}[{_duration(window)}])", ratio_gauge=series.ratio_gauge)


def _duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration: 5m, 1h30m or a variable such as $__rate_interval")
    return text


def _counter(series: Selector) -> Selector:
    if series.metric and series.metric.instrument not in (Instrument.COUNTER, Instrument.HISTOGRAM):
        raise ValueError(f"{series.metric.name} is a {series.metric.instrument}: only counters and histograms grow")
    return series


def _averaged(vector: Vector) -> Vector:
    if vector.ratio_gauge:
        raise ValueError(
            f"{vector.ratio_gauge} is the ratio of one run: the mean or the sum of ratios says nothing. "
            "Divide the sums of the counters that it comes from, or show it with newest()"
        )
    return vector


def _aggregate(function: str, vector: Expression, keys: tuple[str, ...]) -> Expression:
    by = f" by ({_labels(keys)}) " if keys else ""
    return Expression(f"{function}{by}{_nested(vector)}", ratio_gauge=vector.ratio_gauge)


def _labels(keys: Iterable[str]) -> str:
    return ", ".join(prometheus_names.label(key) for key in keys)


def _called(function: str, *arguments: Expression) -> str:
    return f"{function}{_nested(Expression(', '.join(argument.text for argument in arguments)))}"


def _operand(side: Expression, precedence: int) -> str:
    """In parentheses where the precedence needs them, or where an expression of several lines reads better so."""
    split = "\n" in side.text and side.precedence < _ATOM
    return _nested(side) if side.precedence < precedence or split else side.text


def _nested(expression: Expression) -> str:
    if "\n" not in expression.text and len(expression.text) < _WIDTH:
        return f"({expression.text})"
    return "(\n" + "\n".join(f"  {line}" for line in expression.text.splitlines()) + "\n)"
