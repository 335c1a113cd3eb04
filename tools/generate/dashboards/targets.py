"""Queries of panels: to Prometheus, and to Loki for events."""

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
"""A window of at least four scrapes, and at least the distance between two points."""
STEP = "$__interval"
"""A window of the distance between two points, so that bars add up to the total."""
RANGE = "$__range"
TRACE = "trace_id"
"""Loki's name of the trace id."""
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


def events(event: Event, where: Where = None) -> str:
    """Return the LogQL query for an event. Attributes are structured metadata in Loki, named as in Prometheus."""
    conditions = {EVENT_NAME: event.name, **(where or {})}
    filters = " | ".join(
        f'{prometheus_names.label(key)}{wanted.operator}"{wanted.value}"'
        if isinstance(wanted, q.Matcher)
        else f'{prometheus_names.label(key)}="{wanted}"'
        for key, wanted in conditions.items()
    )
    return f'{{{prometheus_names.label(SERVICE_NAME)}=~".+"}} | {filters}'


def records(query: str) -> loki.Dataquery:
    """Return a query for log records, newest first."""
    newest = _loki(query).direction(LokiQueryDirection.BACKWARD)
    return newest.max_lines(_ROWS)


def counted(query: str, *by: str) -> loki.Dataquery:
    """Return a query for the number of log records per step. Unlike a counter, it misses none."""
    return _loki(f"sum{_by(by)}(count_over_time({query} [$__auto]))").legend_format(named(*by))


def greatest(query: str, key: str, *by: str) -> loki.Dataquery:
    """Return a query for the maximum of an attribute per step."""
    return _loki(
        f"max{_by(by)}(max_over_time({query} | unwrap {prometheus_names.label(key)} [$__auto]))"
    ).legend_format(named(*by))


def _loki(query: str) -> loki.Dataquery:
    return loki.Dataquery().datasource(LOKI).expr(query).query_type(LokiQueryType.RANGE)


def _by(keys: tuple[str, ...]) -> str:
    return f" by ({', '.join(prometheus_names.label(key) for key in keys)}) " if keys else " "


def trace_link(value: str) -> str:
    """Return the URL of a trace in Grafana; `value` is a template for its id."""
    return _explore(TEMPO, {"queryType": "traceql", "query": value})


def events_link(key: str, value: str) -> str:
    """Return the URL in Grafana of the log records whose attribute has the value of a template."""
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
    # Grafana substitutes ${…}, so it must not be quoted.
    parts = re.split(r"(\$\{[\w.]+\})", text)
    panes = "".join(part if part.startswith("${") else quote(part, safe="") for part in parts)
    return f"/explore?schemaVersion=1&panes={panes}"
