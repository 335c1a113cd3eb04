"""Which series an expression reads, and which labels its result has, found by parsing it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cache

import promql_parser as ast

from forge_otel.checker import prometheus_names
from tools.generate import collector, recordings, sdk

from .vocabulary import registry

EVERYWHERE = frozenset(
    {"__name__", "job", "instance", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"}
)
"""Labels that all series have; the scope's where an exporter is told so."""
_VARIABLE = re.compile(r"\$(__\w+)|\$\{?(\w+)(:\w+)?\}?")
Labels = frozenset[str] | None


class UnknownNameError(Exception):
    """A metric that does not exist, or a label that the series do not have."""


def substituted(expression: str) -> str:
    """Grafana's variables replaced: its windows by a duration, a choice by a word."""
    return _VARIABLE.sub(lambda found: "5m" if found[1] else "chosen", expression)


@dataclass(frozen=True)
class Names:
    """The series that there are, with their labels."""

    series: Mapping[str, frozenset[str]]

    def check(self, expression: str) -> Labels:
        """The labels of the expression's result; None where it is a number.

        Raises:
            UnknownNameError: it reads a series or a label that there is not, or combines what never matches.
            ValueError: it is no PromQL.
        """
        return self._labels(ast.parse(expression))

    def _labels(self, node: ast.Expr) -> Labels:
        match node:
            case ast.VectorSelector():
                return self._selected(node)
            case ast.MatrixSelector():
                return self._selected(node.vector_selector)
            case ast.AggregateExpr():
                return self._aggregated(node)
            case ast.BinaryExpr():
                return self._combined(node)
            case ast.Call():
                return self._called(node)
            case ast.ParenExpr() | ast.SubqueryExpr() | ast.UnaryExpr():
                return self._labels(node.expr)
            case ast.NumberLiteral() | ast.StringLiteral():
                return None
        raise NotImplementedError(type(node))

    def _selected(self, node: ast.VectorSelector) -> Labels:
        if node.name is None or node.name not in self.series:
            raise UnknownNameError(f"there is no series {node.prettify()}")
        labels = self.series[node.name] | EVERYWHERE
        _need({matcher.name for matcher in node.matchers.matchers}, labels, node)
        return labels

    def _called(self, node: ast.Call) -> Labels:
        # label_replace and label_join would add labels, and nothing calls them.
        assert not node.func.name.startswith("label_"), node.prettify()
        vectors = [labels for argument in node.args if (labels := self._labels(argument)) is not None]
        if node.func.name == "scalar" or (not vectors and node.func.name != "vector"):
            return None
        labels = frozenset[str]().union(*vectors)
        return labels - {"le"} if node.func.name == "histogram_quantile" else labels

    def _aggregated(self, node: ast.AggregateExpr) -> Labels:
        labels = self._labels(node.expr)
        assert labels is not None, node.prettify()
        if node.modifier is None:
            return labels if str(node.op) in {"topk", "bottomk"} else frozenset()
        named = frozenset(node.modifier.labels)
        _need(named, labels, node)
        return named if node.modifier.type == ast.AggModifierType.By else labels - named

    def _combined(self, node: ast.BinaryExpr) -> Labels:
        left, right = self._labels(node.lhs), self._labels(node.rhs)
        if left is None or right is None:
            return right if left is None else left
        if str(node.op) == "or":
            return left | right
        matching = node.modifier.matching if node.modifier else None
        if matching is None:
            # Where the sides have series with different labels, as `or` leaves them, only some of these match.
            if not left - EVERYWHERE <= right - EVERYWHERE and not right - EVERYWHERE <= left - EVERYWHERE:
                raise UnknownNameError(f"{sorted(left)} never match {sorted(right)} in {node.prettify()}")
            return left
        on = frozenset(matching.labels)
        _need(on, left, node)
        _need(on, right, node)
        assert node.modifier is not None
        if str(node.op) in {"and", "unless"} or node.modifier.card == ast.VectorMatchCardinality.ManyToOne:
            return left | frozenset(node.modifier.group_labels or ())
        if node.modifier.card == ast.VectorMatchCardinality.OneToMany:
            return right | frozenset(node.modifier.group_labels or ())
        return on


def _need(wanted: Set[str], there: Set[str], node: ast.Expr) -> None:
    if missing := wanted - there:
        raise UnknownNameError(f"no label {', '.join(sorted(missing))} in {node.prettify()}")


@cache
def names() -> Names:
    """All series that there are: of the registry, of the SDK, of the Collector, of recordings."""
    known: dict[str, frozenset[str]] = {"target_info": frozenset({"service_version"})}

    def add(metric: prometheus_names.NamedMetric, keys: Iterable[str]) -> None:
        labels = frozenset(prometheus_names.label(key) for key in keys)
        for series in prometheus_names.series(metric):
            known[series] = labels | {"le"} if series.endswith("_bucket") else labels

    for metric in registry().metrics.values():
        add(metric, (reference.attribute.key for reference in metric.attributes))
    for other in (*sdk.ALL, *collector.ALL):
        add(other, other.attributes)
    for rule in recordings.ALL:
        known[rule.name] = Names(known).check(str(rule.expression)) or frozenset()
    return Names(known)
