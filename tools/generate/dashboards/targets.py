"""Queries of panels: to Prometheus, and to VictoriaLogs for events."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from grafana_foundation_sdk.builders import prometheus as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from forge_otel.checker import prometheus_names
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Event, Metric

from .. import promql as q
from .. import queries
from ..promql import Expression, Where
from .sources import JAEGER, PROMETHEUS, VICTORIA_LOGS
from .variables import PIPELINE, chosen

RATE = "$__rate_interval"
"""A window of at least four scrapes, and at least the distance between two points."""
STEP = "$__interval"
"""A window of the distance between two points, so that bars add up to the total."""
RANGE = "$__range"
TRACE = "trace_id"
"""The field of a log record's trace id in VictoriaLogs."""
EVENT = "event_name"
"""The field of an event's name in VictoriaLogs."""
_ROWS = 1000


def per_second(
    metric: Metric, by: tuple[str, ...] = (), where: Where = None, *, part: q.Part | None = None
) -> Expression:
    """Return the rate of a counter in all processes together, for counters with initial points: it misses the first
    increase of other counters, which need `queries.grown`.
    """
    return q.sum_by(q.rate(q.select(metric, where, part=part), RATE), *by)


def happened(metric: Metric, where: Where = None) -> Expression:
    """Return the growth of a counter in the time range; 0 if the selected pipelines had runs without an increase."""
    ran = queries.grown(m.FORGE_PIPELINE_STARTED, RANGE, (), chosen(PIPELINE))
    return queries.grown(metric, RANGE, (), where) | 0 * ran


def mean(histogram: Metric, by: tuple[str, ...] = (), where: Where = None) -> Expression:
    """Return the mean of a histogram's values since the previous point."""
    total, count = (q.sum_by(q.growth(q.select(histogram, where, part=part), RATE), *by) for part in ("sum", "count"))
    return total / (count > 0)


def named(*keys: str) -> str:
    """Return a legend with the values of these attributes."""
    return " / ".join(f"{{{{{prometheus_names.label(key)}}}}}" for key in keys)


def series(expression: Expression, legend: str, *, exemplars: bool = False) -> builders.Dataquery:
    """Return a range query, optionally with exemplars that link to traces."""
    query = builders.Dataquery().datasource(PROMETHEUS).expr(str(expression)).range().legend_format(legend)
    return query.exemplar(True) if exemplars else query


def now(expression: Expression, legend: str = "") -> builders.Dataquery:
    """Return an instant query at the end of the time range."""
    return builders.Dataquery().datasource(PROMETHEUS).expr(str(expression)).instant().legend_format(legend)


def cells(expression: Expression) -> builders.Dataquery:
    """Return an instant query for the column of a table."""
    return now(expression).format(PromQueryFormat.TABLE)


def buckets(expression: Expression) -> builders.Dataquery:
    """Return a range query for the buckets of a histogram."""
    return series(expression, named(q.BUCKET), exemplars=True).format(PromQueryFormat.HEATMAP)


@dataclass(frozen=True, slots=True)
class LogsQuery(Dataquery, Builder[Dataquery]):
    """A query in LogsQL, as the data source plug-in of VictoriaLogs takes it. The SDK has no builder for it."""

    expr: str
    query_type: str
    """`instant` for log records, `statsRange` for values over time."""
    legend_format: str = ""
    max_lines: int | None = None

    def build(self) -> Dataquery:
        """Return the query itself, which is all there is to build."""
        return self

    def to_json(self) -> dict[str, object]:
        """Return it in the JSON model of the plug-in."""
        lines = {} if self.max_lines is None else {"maxLines": self.max_lines}
        legend = {"legendFormat": self.legend_format} if self.legend_format else {}
        return {
            "datasource": VICTORIA_LOGS,
            "expr": self.expr,
            "queryType": self.query_type,
            "refId": "A",
            **legend,
            **lines,
        }


def events(event: Event, where: Where = None) -> str:
    """Return the LogsQL filter for an event. Attributes are fields in VictoriaLogs, with their own names."""
    return " ".join(_condition(key, wanted) for key, wanted in {EVENT: event.name, **(where or {})}.items())


def _condition(key: str, wanted: str | q.Matcher) -> str:
    if not isinstance(wanted, q.Matcher):
        return f'"{key}":="{wanted}"'
    # Grafana writes several chosen values as one regular expression, with their special characters escaped.
    value = re.sub(r"\$(\w+)", r"${\1:regex}", wanted.value)
    return {
        "!=": f'!"{key}":="{value}"',
        "=~": f'"{key}":~`^(?:{value})$`',
        "!~": f'!"{key}":~`^(?:{value})$`',
    }[wanted.operator]


def records(query: str) -> LogsQuery:
    """Return a query for log records; where there are more than fit, VictoriaLogs gives the newest."""
    return LogsQuery(query, "instant", max_lines=_ROWS)


def counted(query: str, *by: str) -> LogsQuery:
    """Return a query for the number of log records per step. Unlike a counter, it misses none."""
    return _values(query, "count()", by)


def greatest(query: str, key: str, *by: str) -> LogsQuery:
    """Return a query for the maximum of an attribute per step."""
    return _values(query, f'max("{key}")', by)


def _values(query: str, function: str, by: tuple[str, ...]) -> LogsQuery:
    fields = ", ".join(f'"{key}"' for key in by)
    legend = " / ".join(f"{{{{{key}}}}}" for key in by)
    return LogsQuery(f"{query} | stats by ({fields}) {function} as value", "statsRange", legend)


def trace_link(value: str) -> str:
    """Return the URL of a trace in Grafana; `value` is a template for its id."""
    return _explore(JAEGER, {"query": value})


def events_link(key: str, value: str) -> str:
    """Return the URL in Grafana of the log records whose attribute has the value of a template."""
    return _explore(VICTORIA_LOGS, {"queryType": "instant", "expr": _condition(key, value)})


def _explore(source: DataSourceRef, query: Mapping[str, Any]) -> str:
    reference = {"type": source.type_val, "uid": source.uid}
    pane = {
        "datasource": source.uid,
        "queries": [{"refId": "A", "datasource": reference, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    text = json.dumps({"forge": pane}, separators=(",", ":"))
    # Grafana substitutes ${…}, so it must not be quoted.
    parts = re.split(r"(\$\{[\w.]+\})", text)
    panes = "".join(part if part.startswith("${") else quote(part, safe="") for part in parts)
    return f"/explore?schemaVersion=1&panes={panes}"
