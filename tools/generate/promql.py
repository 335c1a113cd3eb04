"""PromQL expressions built from the generated definitions, without literal names of metrics and labels.

```python
from forge_otel.semconv import attributes as a, metrics as m
from tools.generate import promql as q

errors = q.select(m.FORGE_STAGE_EXECUTIONS, {a.FORGE_STAGE_OUTCOME: a.ForgeStageOutcome.ERROR})
everything = q.select(m.FORGE_STAGE_EXECUTIONS, {a.FORGE_PIPELINE_NAME: q.matching("$pipeline")})
q.ratio(q.sum_by(q.growth(errors, "5m"), a.FORGE_STAGE_NAME), q.sum_by(q.growth(everything, "5m"), a.FORGE_STAGE_NAME))
q.quantile(0.95, m.FORGE_STAGE_DURATION, "5m", a.FORGE_STAGE_NAME)
q.newest(m.FORGE_PIPELINE_LAST_RUN_SUCCESS_RATIO)
str(...)  # the text
```

Labels are given by the keys of attributes, except `job`, `instance` and `le`; windows are Prometheus durations or
Grafana variables. Meaningless expressions that Prometheus would evaluate nevertheless raise `ValueError`: a label that
the metric does not have, the rate of a gauge, the mean or sum of a ratio gauge.

**Every process is a new series**, since `service.instance.id` differs, and most series begin at their first value
instead of 0. `increase()` and `rate()` miss that first value, so a run of twenty seconds would count as nothing;
`growth` includes it. Queries shared by rules and dashboards are in `queries`, the SDK's own metrics in `sdk`.
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
"""The labels that identify processes. Prometheus derives them from the resource, and adds them to every series."""

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
    """An instant vector or a scalar. Python's operators combine expressions and numbers."""

    text: str
    precedence: int = _ATOM
    ratio_gauge: str | None = None
    """The ratio gauge that the values come from, if any, which must not be averaged."""

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
    """The series of one metric: the argument of `rate` and other functions over a window."""

    metric: Metric | None = None


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on a label's value other than equality."""

    operator: Literal["!=", "=~", "!~"]
    value: str


Where = Mapping[str, str | Matcher] | None
"""Conditions on attributes, by key."""


def unequal(value: str) -> Matcher:
    """Match any value but this one; the label may be missing."""
    return Matcher("!=", value)


def matching(pattern: str) -> Matcher:
    """Match values that the regular expression matches fully, such as Grafana's `$pipeline`."""
    return Matcher("=~", pattern)


def one_of(*values: str) -> str | Matcher:
    """Match one of several values."""
    return values[0] if len(values) == 1 else Matcher("=~", "|".join(re.escape(value) for value in values))


def not_matching(pattern: str) -> Matcher:
    """Match values that the regular expression does not match fully."""
    return Matcher("!~", pattern)


def select(metric: Metric, where: Where = None, *, part: Part | None = None) -> Selector:
    """Return the series of a metric that match the conditions. For a histogram one of its three parts is required."""
    if (metric.instrument == Instrument.HISTOGRAM) != (part is not None):
        raise ValueError(
            f"{metric.name} is a {metric.instrument}: histograms, and only they, have parts to choose from"
        )
    for key in where or ():
        if key not in (*metric.attributes, *TARGET):
            raise ValueError(f"{metric.name} has no attribute {key}; it has {', '.join(metric.attributes)}")
    matchers = ",".join(_matcher(key, condition) for key, condition in (where or {}).items())
    name = prometheus_names.name(metric) + (f"_{part}" if part else "")
    averaged = metric.name if metric.instrument == Instrument.GAUGE and metric.unit == "1" else None
    return Selector(f"{name}{{{matchers}}}" if matchers else name, ratio_gauge=averaged, metric=metric)


def recorded(name: str) -> Selector:
    """Return the series of a recording rule."""
    return Selector(name)


def number(value: float) -> Expression:
    """Return a scalar."""
    return Expression(f"{value:.15g}")


def rate(counter: Selector, window: str) -> Expression:
    """Return the growth of each series per second, for processes that outlive the window by far; see `growth`."""
    return _over("rate", _counter(counter), window)


def growth(counter: Selector, window: str) -> Expression:
    """Return the growth of each series within the window, including the first value of a new series.

    A series that did not exist at the start of the window grew by its latest value, others by their `increase()`. That
    extrapolates: of a process that exports 0 and 1 within a minute, it makes 2. A series with a gap, because nothing
    could be delivered, counts as new.
    """
    new = combine(last(_counter(counter), window), "unless", offset(counter, window))
    return new | _over("increase", counter, window)


def last(series: Selector, window: str) -> Expression:
    """Return the latest value of each series within the window, also for processes that have ended. Their sum is the
    total over many short processes.
    """
    return _over("last_over_time", series, window)


def peak(series: Selector, window: str) -> Expression:
    """Return the maximum of each series within the window."""
    return _over("max_over_time", series, window)


def low(series: Selector, window: str) -> Expression:
    """Return the minimum of each series within the window."""
    return _over("min_over_time", series, window)


def mean(series: Selector, window: str) -> Expression:
    """Return the mean of each series over the window. Raises `ValueError` for a ratio gauge."""
    return _over("avg_over_time", _averaged(series), window)


def offset(series: Selector, ago: str) -> Expression:
    """Return each series at an offset in the past."""
    return replace(series, text=f"{series.text} offset {_duration(ago)}")


def sum_by(vector: Expression, *keys: str) -> Expression:
    """Return the sum, by these attributes. Raises `ValueError` for a ratio gauge."""
    return _aggregate("sum", _averaged(vector), keys)


def mean_by(vector: Expression, *keys: str) -> Expression:
    """Return the mean, by these attributes. Raises `ValueError` for a ratio gauge."""
    return _aggregate("avg", _averaged(vector), keys)


def max_by(vector: Expression, *keys: str) -> Expression:
    """Return the maximum, by these attributes."""
    return _aggregate("max", vector, keys)


def min_by(vector: Expression, *keys: str) -> Expression:
    """Return the minimum, by these attributes."""
    return _aggregate("min", vector, keys)


def count_by(vector: Expression, *keys: str) -> Expression:
    """Return the number of series, by these attributes."""
    return _aggregate("count", vector, keys)


def magnitude(vector: Expression) -> Expression:
    """Return the absolute values."""
    return replace(vector, text=f"abs{_nested(vector)}", precedence=_ATOM)


def top(limit: int, vector: Expression, *keys: str) -> Expression:
    """Return the `limit` series with the greatest values, by these attributes."""
    by = f" by ({_labels(keys)}) " if keys else ""
    return replace(vector, text=_called(f"topk{by}", number(limit), vector), precedence=_ATOM)


def ratio(part: Expression, whole: Expression) -> Expression:
    """Return the ratio of a part to the whole: 0 for a missing part, none for a whole of 0.

    Both have the same labels, and usually are sums of the growth of counters.
    """
    return (part | 0 * whole) / (whole > 0)


def quantile(share: float, histogram: Metric, window: str, *keys: str, where: Where = None) -> Expression:
    """Return a quantile of a histogram's values within the window, by these attributes."""
    buckets = select(histogram, where, part="bucket")
    return Expression(
        _called("histogram_quantile", number(share), sum_by(growth(buckets, window), BUCKET, *keys)),
    )


def newest(gauge: Metric, window: str = "1d", *, where: Where = None) -> Expression:
    """Return the gauge of each pipeline's last run, from the process whose run ended last, even if it has ended."""
    ended = last(select(m.FORGE_PIPELINE_END_TIMESTAMP, _only(where, m.FORGE_PIPELINE_END_TIMESTAMP)), window)
    newest_end = combine(ended, "==", max_by(ended, a.FORGE_PIPELINE_NAME), on=(a.FORGE_PIPELINE_NAME,), many="left")
    here = combine(last(select(gauge, where), window), "and", newest_end, on=(*TARGET, a.FORGE_PIPELINE_NAME))
    return max_by(here, *gauge.attributes)


def age(timestamp: Expression) -> Expression:
    """Return the seconds since a Unix time."""
    return Expression("time()") - timestamp


def combine(
    left: Expression | float,
    operator: Operator,
    right: Expression | float,
    *,
    on: Iterable[str] | None = None,
    many: Literal["left", "right"] | None = None,
) -> Expression:
    """Combine two vectors, matched on all labels or on the attributes `on`; `many` is the side with several series for
    one of the other side, whose labels are kept.
    """
    left, right = (side if isinstance(side, Expression) else number(side) for side in (left, right))
    precedence = _PRECEDENCE[operator]
    matched = "" if on is None else f" on ({_labels(on)})" + (f" group_{many} ()" if many else "")
    joined = f"{operator}{matched}"
    first = left.text if left.precedence == precedence else _operand(left, precedence)
    second = _nested(right) if right.precedence == precedence else _operand(right, precedence)
    fits = "\n" not in first and len(first) + len(joined) + len(second.partition("\n")[0]) < _WIDTH
    gap = " " if fits else "\n"
    return Expression(f"{first}{gap}{joined} {second}", precedence, left.ratio_gauge or right.ratio_gauge)


def _matcher(key: str, condition: str | Matcher) -> str:
    matcher = condition if isinstance(condition, Matcher) else None
    value = str(condition.value if isinstance(condition, Matcher) else condition)
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{prometheus_names.label(key)}{matcher.operator if matcher else "="}"{quoted}"'


def _only(where: Where, metric: Metric) -> Mapping[str, str | Matcher]:
    return {key: condition for key, condition in (where or {}).items() if key in (*metric.attributes, *TARGET)}


def _over(function: str, series: Selector, window: str) -> Expression:
    return Expression(f"{function}({series.text}[{_duration(window)}])", ratio_gauge=series.ratio_gauge)


def _duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 5m or 1h30m, or a variable such as $__rate_interval")
    return text


def _counter(series: Selector) -> Selector:
    if series.metric and series.metric.instrument not in (Instrument.COUNTER, Instrument.HISTOGRAM):
        raise ValueError(f"{series.metric.name} is a {series.metric.instrument}: only counters and histograms grow")
    return series


def _averaged(vector: Vector) -> Vector:
    if vector.ratio_gauge:
        raise ValueError(
            f"{vector.ratio_gauge} is the ratio of one run: the mean or the sum of ratios is meaningless. "
            "Divide the sums of the underlying counters, or show it with newest()"
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
    """Return an operand, in parentheses if the precedence requires them or if it spans several lines."""
    split = "\n" in side.text and side.precedence < _ATOM
    return _nested(side) if side.precedence < precedence or split else side.text


def _nested(expression: Expression) -> str:
    if "\n" not in expression.text and len(expression.text) < _WIDTH:
        return f"({expression.text})"
    return "(\n" + "\n".join(f"  {line}" for line in expression.text.splitlines()) + "\n)"
