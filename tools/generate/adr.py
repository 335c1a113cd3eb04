"""The page that answers ADR-007 line by line, and its queries in Prometheus."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from forge_otel.checker import prometheus_names
from forge_otel.checker.model import Metric, Registry
from forge_otel.semconv import metrics as m

from . import promql as q
from . import queries
from .adr_lines import PLACEHOLDER, lines
from .promql import Expression
from .recordings import THROUGHPUT
from .reference import FOLDER, HEADER, link, table

INTRODUCTION: Final = """\
The [ADR](../adr/0007-telemetry-integration.md) for this telemetry was written for Elixir's `telemetry`. This page has \
all of its lines: events with their measurements and metadata, metrics with their tags and buckets, spans, queries, \
log records, configuration. Names follow OpenTelemetry's conventions; those in StatsD are unchanged. Durations are in \
seconds, and in milliseconds in StatsD."""

WINDOW: Final = "5m"


@dataclass(frozen=True, slots=True)
class Query:
    """A query of the ADR, with the one that replaces it."""

    name: str
    original: str
    expression: Expression
    difference: str


QUERIES: Final = (
    Query(
        "Pipeline throughput (samples/sec)",
        "rate(forge_metrics_stage_executions_total[5m])",
        THROUGHPUT.expression,
        "The original counts a sample once for each stage. This one counts it once, when it settles.",
    ),
    Query(
        "Stage error rate",
        """\
sum(rate(forge_metrics_stage_executions_total{outcome="error"}[5m])) by (stage)
/
sum(rate(forge_metrics_stage_executions_total[5m])) by (stage)""",
        queries.error_ratio(WINDOW),
        "The original has no result for a stage without a series of errors, such as with `zero_points` off. Here its "
        "ratio is 0.",
    ),
    Query(
        "P95 stage latency",
        "histogram_quantile(0.95, sum(rate(forge_metrics_stage_latency_ms_bucket[5m])) by (le, stage))",
        q.quantile(0.95, m.FORGE_STAGE_DURATION, WINDOW, *queries.STAGE),
        "In seconds. The original gives no number for runs that ended before the second scrape: `rate` misses their "
        "values.",
    ),
    Query(
        "Cache hit rate",
        """\
sum(rate(forge_metrics_measurement_cache_hits_total[5m])) by (measurement_key)
/
sum(rate(forge_metrics_measurement_cache_hits_total[5m]) + rate(forge_metrics_measurement_cache_misses_total[5m])) by \
(measurement_key)""",
        queries.cache_hit_ratio(WINDOW),
        "The original has no result for a measurement with only one of the two series. This one divides the outcomes "
        "of one metric.",
    ),
    Query(
        "DLQ depth",
        "sum(forge_metrics_dlq_enqueued_total) by (stage)",
        q.max_by(q.select(m.FORGE_DLQ_DEPTH), *m.FORGE_DLQ_DEPTH.attributes),
        "The original sums up what was ever enqueued, which never falls. This one is the number in the storage. "
        "Several processes may report the same storage, so it is their maximum.",
    ),
)

QUERY_INTRODUCTION: Final = """\
The tests execute each of them in Prometheus, on the metrics of real runs. `rate` and `increase` miss the first value \
of a series, so a run that is shorter than the interval between two exports would count as nothing. The part with \
`unless` adds it."""


def files(registry: Registry) -> dict[str, str]:
    """Return the page.

    Raises:
        KeyError: a line names something that is not in the registry.
    """
    resolver = _Resolver(registry)
    rows = [[line.kind, line.text, resolver.text(line.here)] for line in lines()]
    parts = ["# ADR-007, line by line", "", INTRODUCTION, "", *table(["Kind", "In the ADR", "Here"], rows)]
    parts += ["## Queries", "", QUERY_INTRODUCTION, ""]
    for query in QUERIES:
        parts += [f"### {query.name}", "", query.difference, "", "In the ADR:", ""]
        parts += ["```promql", query.original, "```", "", "Here:", ""]
        parts += ["```promql", str(query.expression), "```", ""]
    return {f"{FOLDER}/adr.md": HEADER + "\n" + "\n".join(parts).rstrip() + "\n"}


class _Resolver:
    """Replaces the placeholders of a text by what the registry says."""

    def __init__(self, registry: Registry) -> None:
        self._definitions: Mapping[str, Mapping[str, Any]] = {
            "span": registry.spans,
            "metric": registry.metrics,
            "event": registry.events,
            "attribute": {**registry.upstream, **registry.attributes},
        }

    def text(self, text: str) -> str:
        return re.sub(PLACEHOLDER, self._replacement, text)

    def _replacement(self, found: re.Match[str]) -> str:
        kind, name = found.groups()
        if kind in self._definitions:
            return f"{kind} {link('adr', self._definitions[kind][name])}"
        metric: Metric = self._definitions["metric"][name]
        if kind == "statsd" and metric.statsd:
            return f"`{metric.statsd.name}`"
        if kind == "buckets" and metric.boundaries:
            return f"up to {', '.join(f'{bound:g}' for bound in metric.boundaries)} s"
        if kind == "prometheus":
            return ", ".join(f"`{series}`" for series in prometheus_names.series(metric))
        raise KeyError(found.group())
