"""What panels ask: of Prometheus, and of Loki for events."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from grafana_foundation_sdk.builders import loki
from grafana_foundation_sdk.builders import prometheus as builders
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.loki import LokiQueryDirection, LokiQueryType
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from opentelemetry.semconv._incubating.attributes.event_attributes import EVENT_NAME
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME

from forge_otel.checker import prometheus_names
from forge_otel.semconv import metrics as m
from forge_otel.semconv.definitions import Event, Metric

from .. import promql as q
from .. import queries
from ..promql import Expression, Where
from .sources import LOKI, PROMETHEUS, TEMPO
from .variables import PIPELINE, chosen

RATE = "$__rate_interval"
"""At least four scrapes, and never less than the distance between two points."""
STEP = "$__interval"
"""The distance between two points: what bars count adds up to the total."""
RANGE = "$__range"
TRACE = "trace_id"
"""Loki's own name for it."""
_ROWS = 1000


def per_second(
    metric: Metric, by: tuple[str, ...] = (), where: Where = None, *, part: q.Part | None = None
) -> Expression:
    """How fast a counter grew in all processes together. For those that begin at 0: of one that appears with its first
    event, that event is missed, and `queries.grown` is right."""
    return q.sum_by(q.rate(q.select(metric, where, part=part), RATE), *by)


def happened(metric: Metric, where: Where = None) -> Expression:
    """How often it happened in the time range; 0 where pipelines that were chosen had runs, and it did not."""
    ran = queries.grown(m.FORGE_PIPELINE_STARTED, RANGE, (), chosen(PIPELINE))
    return queries.grown(metric, RANGE, (), where) | 0 * ran


def mean(histogram: Metric, by: tuple[str, ...] = (), where: Where = None) -> Expression:
    """The mean of what a histogram saw since the point before."""
    total, count = (q.sum_by(q.growth(q.select(histogram, where, part=part), RATE), *by) for part in ("sum", "count"))
    return total / (count > 0)


def named(*keys: str) -> str:
    """A legend of these attributes' values."""
    return " / ".join(f"{{{{{prometheus_names.label(key)}}}}}" for key in keys)


def series(expression: Expression, legend: str, *, exemplars: bool = False) -> builders.Dataquery:
    """A value at each step; with exemplars, points that lead to traces."""
    query = builders.Dataquery().datasource(PROMETHEUS).expr(str(expression)).range().legend_format(legend)
    return query.exemplar(True) if exemplars else query


def now(expression: Expression, legend: str = "") -> builders.Dataquery:
    """One value, at the end of the time range."""
    return builders.Dataquery().datasource(PROMETHEUS).expr(str(expression)).instant().legend_format(legend)


def cells(expression: Expression) -> builders.Dataquery:
    """The values of a table's column, at the end of the time range."""
    return now(expression).format(PromQueryFormat.TABLE)


def buckets(expression: Expression) -> builders.Dataquery:
    """A histogram at each step."""
    return series(expression, named(q.BUCKET), exemplars=True).format(PromQueryFormat.HEATMAP)


def events(event: Event, where: Where = None) -> str:
    """The log records of one event, in LogQL. Attributes are structured metadata there, named as in Prometheus."""
    filters = {EVENT_NAME: event.name, **(where or {})}
    said = " | ".join(
        f'{prometheus_names.label(key)}{wanted.operator}"{wanted.value}"'
        if isinstance(wanted, q.Matcher)
        else f'{prometheus_names.label(key)}="{wanted}"'
        for key, wanted in filters.items()
    )
    return f'{{{prometheus_names.label(SERVICE_NAME)}=~".+"}} | {said}'


def records(query: str) -> loki.Dataquery:
    """Log records, the newest first."""
    newest = _loki(query).direction(LokiQueryDirection.BACKWARD)
    return newest.max_lines(_ROWS)


def counted(query: str, *by: str) -> loki.Dataquery:
    """How many log records there were in each step. Of events, unlike counters, not even one is missed."""
    return _loki(f"sum{_by(by)}(count_over_time({query} [$__auto]))").legend_format(named(*by))


def greatest(query: str, key: str, *by: str) -> loki.Dataquery:
    """The greatest value of an attribute in each step."""
    return _loki(
        f"max{_by(by)}(max_over_time({query} | unwrap {prometheus_names.label(key)} [$__auto]))"
    ).legend_format(named(*by))


def _loki(query: str) -> loki.Dataquery:
    return loki.Dataquery().datasource(LOKI).expr(query).query_type(LokiQueryType.RANGE)


def _by(keys: tuple[str, ...]) -> str:
    return f" by ({', '.join(prometheus_names.label(key) for key in keys)}) " if keys else " "


def trace_link(value: str) -> str:
    """The URL of a trace in Grafana; `value` is a template that gives its id."""
    return _explore(TEMPO, {"queryType": "traceql", "query": value})


def events_link(key: str, value: str) -> str:
    """The URL of the log records in Grafana whose attribute has the value that a template gives."""
    query = f'{{{prometheus_names.label(SERVICE_NAME)}=~".+"}} | {prometheus_names.label(key)}="{value}"'
    return _explore(LOKI, {"queryType": LokiQueryType.RANGE.value, "expr": query})


def _explore(source: DataSourceRef, query: Mapping[str, Any]) -> str:
    reference = {"type": source.type_val, "uid": source.uid}
    pane = {
        "datasource": source.uid,
        "queries": [{"refId": "A", "datasource": reference, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    text = json.dumps({"forge": pane}, separators=(",", ":"))
    # Grafana fills in what stands in ${…}, so that must stay as it is.
    parts = re.split(r"(\$\{[\w.]+\})", text)
    panes = "".join(part if part.startswith("${") else quote(part, safe="") for part in parts)
    return f"/explore?schemaVersion=1&panes={panes}"
