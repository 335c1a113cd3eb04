"""Queries of the ADR to Prometheus, the traces, the logs and StatsD, with their answers."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from tests.stack.graphite import Graphite
from tests.stack.services import Collector, Jaeger, PrometheusServer, VictoriaLogs

SERVICE = '"service.name":="forge-demo"'
EVENTS = f"{SERVICE} event_name:* | stats by (event_name) count() as records"
FAILURES = f'{SERVICE} event_name:in("forge.pipeline.exception", "forge.stage.exception", "forge.dlq.enqueue")'


@dataclass(frozen=True)
class Asked:
    """Who is asked, and about what."""

    prometheus: PrometheusServer
    jaeger: Jaeger
    logs: VictoriaLogs
    graphite: Graphite
    collector: Collector
    runs: list[dict[str, Any]]
    began: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Question:
    """A query of the ADR's, in our names. `WINDOW` stands for a window that begins before the runs."""

    title: str
    promql: str
    label: str
    form: str
    """How a value is printed."""

    def over(self, window: int) -> str:
        """Return the query with a window of so many seconds."""
        return self.promql.replace("WINDOW", f"{window}s")


THROUGHPUT = Question(
    "Throughput of the stages",
    "sum by (forge_stage_name) (rate(forge_stage_executions_total[WINDOW] anchored))",
    "forge_stage_name",
    "{:.2f} /s",
)
ERRORS = Question(
    "Error ratio of the stages",
    'sum by (forge_stage_name) (rate(forge_stage_executions_total{forge_stage_outcome="error"}[WINDOW] anchored))\n'
    "/ sum by (forge_stage_name) (rate(forge_stage_executions_total[WINDOW] anchored))",
    "forge_stage_name",
    "{:.2%}",
)
LATENCY = Question(
    "95th percentile of the stages' durations",
    "histogram_quantile(\n"
    "  0.95, sum by (le, forge_stage_name) (rate(forge_stage_duration_seconds_bucket[WINDOW] anchored))\n)",
    "forge_stage_name",
    "{:.4f} s",
)
HITS = Question(
    "Cache hit ratio of the measurements",
    "sum by (forge_measurement_key) (rate(forge_measurement_cache_hits_total[WINDOW] anchored))\n"
    "/ (sum by (forge_measurement_key) (rate(forge_measurement_cache_hits_total[WINDOW] anchored))\n"
    "   + sum by (forge_measurement_key) (rate(forge_measurement_cache_misses_total[WINDOW] anchored)))",
    "forge_measurement_key",
    "{:.2%}",
)
DEPTH = Question(
    "Depth of the dead letters",
    'max by (forge_stage_name) (forge_dlq_depth{forge_dlq_source="stage"}) > 0',
    "forge_stage_name",
    "{:.0f}",
)


def runs_in(prometheus: PrometheusServer) -> float:
    """How many runs Prometheus knows to have completed."""
    return prometheus.query("sum(forge_pipeline_completed_total)").get((), 0)


def is_in(graphite: Graphite, runs: list[dict[str, Any]]) -> bool:
    """Return True if Graphite has all executions of the runs: not all can be asked for in the same moment."""
    executions = _executions(runs)
    return sum(_executions_in(graphite, executions).values()) >= executions.total()


def spans_in(jaeger: Jaeger, collector: Collector) -> int:
    """How many spans Jaeger has of the traces that the Collector took in."""
    return sum(len(jaeger.spans(trace)) for trace in _traces(collector))


def records_in(logs: VictoriaLogs) -> int:
    """How many log records of the demo VictoriaLogs has."""
    (row,) = logs.query(f"{SERVICE} | stats count() as records")
    return int(row["records"])


def taken_in(prometheus: PrometheusServer) -> dict[str, float]:
    """How many spans and log records the Collector says that it took in."""
    return {
        signal: prometheus.query(f"sum(otelcol_receiver_accepted_{signal}_total)").get((), 0)
        for signal in ("spans", "log_records")
    }


def expected(runs: list[dict[str, Any]], window: int) -> dict[Question, Mapping[str, float] | None]:
    """Return the answers that follow from the records of the runs in a window of so many seconds; None for the
    percentiles, which do not.
    """
    return {
        THROUGHPUT: {name: count / window for name, count in _executions(runs).items()},
        ERRORS: _error_ratios(runs),
        LATENCY: None,
        HITS: _hit_ratios(runs),
        DEPTH: _depths(runs),
    }


def show(asked: Asked, console: Console) -> bool:
    """Print all answers; whether those that have to be exact are what the runs say of themselves."""
    window = math.ceil(time.time() - asked.began) + 1
    console.print("\n[bold]Prometheus[/]: the ADR's queries, in our names\n")
    agrees = [
        _ask(question, asked, window, values, console) for question, values in expected(asked.runs, window).items()
    ]
    agrees.append(_show_statsd(asked, console))
    agrees.append(_show_traces(asked, console))
    _show_logs(asked, console)
    agrees.append(_show_collector(asked, console))
    return all(agrees)


def _ask(question: Question, asked: Asked, window: int, values: Mapping[str, float] | None, console: Console) -> bool:
    query = question.over(window)
    found = {labels[0]: value for labels, value in asked.prometheus.query(query, question.label).items()}
    console.print(f"[bold]{question.title}[/]")
    _indented(console, query, 2, "cyan")
    table = _table(question.label, "Prometheus", *([] if values is None else ["the runs"]))
    for name, value in sorted(found.items()):
        table.add_row(name, question.form.format(value), *_beside(question.form, value, values, name))
    console.print(Padding(table, (0, 2, 1, 2)))
    return values is None or _same(found, values)


def _show_statsd(asked: Asked, console: Console) -> bool:
    executions = _executions(asked.runs)
    found = _executions_in(asked.graphite, executions)
    console.print("[bold]StatsD[/], through the bridge, as it has arrived in Graphite\n")
    table = _table("stats.counters.forge.stage.executions.*.*.*.count", "Graphite", "the runs")
    for name, value in sorted(found.items()):
        table.add_row(name, f"{value:.0f}", *_beside("{:.0f}", value, executions, name))
    console.print(Padding(table, (0, 2, 1, 2)))
    return _same(found, executions)


def _show_traces(asked: Asked, console: Console) -> bool:
    console.print("[bold]Jaeger[/]: the runs' traces\n")
    written = _traces(asked.collector)
    found = {trace: float(len(asked.jaeger.spans(trace))) for trace in written}
    table = _table("trace", "spans", "the files")
    for trace, count in found.items():
        table.add_row(trace, f"{count:.0f}", *_beside("{:.0f}", count, written, trace))
    console.print(Padding(table, (0, 2)))
    _indented(console, f"A trace's page: {asked.jaeger.url}/trace/TRACE\n", 2)
    return _same(found, written)


def _show_logs(asked: Asked, console: Console) -> None:
    console.print("[bold]VictoriaLogs[/]: the events, and how often\n")
    table = _table("event_name", "")
    for row in sorted(asked.logs.query(EVENTS), key=lambda each: each["event_name"]):
        table.add_row(row["event_name"], row["records"])
    console.print(Padding(table, (0, 2, 1, 2)))
    console.print("[bold]Failures[/], each with the trace that it happened in")
    _indented(console, FAILURES, 2, "cyan")
    spans = {span["spanId"]: span for span in asked.collector.spans()}
    failures = asked.logs.query(f"{FAILURES} | sort by (_time desc) limit 4")
    if not failures:
        _indented(console, "none: nothing failed in these runs", 2)
    for line in failures:
        _indented(console, f"{line['severity_text']:5} {line['event_name']}: {line['_msg']}", 2)
        path = " › ".join(reversed(list(_path(spans, line["span_id"]))))
        _indented(console, f"trace {line['trace_id']}: {path}", 8, "dim")


def _show_collector(asked: Asked, console: Console) -> bool:
    console.print("\n[bold]The Collector[/], as Prometheus scraped it: what it took in\n")
    found = taken_in(asked.prometheus)
    written = {"spans": float(len(asked.collector.spans())), "log_records": float(len(asked.collector.logs()))}
    table = _table("otelcol_receiver_accepted_*_total", "Prometheus", "the files")
    for name, value in found.items():
        table.add_row(name, f"{value:.0f}", *_beside("{:.0f}", value, written, name))
    console.print(Padding(table, (0, 2)))
    return _same(found, written)


def _path(spans: Mapping[str, dict[str, Any]], span_id: str) -> Iterator[str]:
    """The names of a span and of those around it."""
    while span := spans.get(span_id):
        yield span["name"]
        span_id = span.get("parentSpanId", "")


def _indented(console: Console, lines: str, by: int, style: str = "") -> None:
    """Text as it is, of any length: it may be copied."""
    console.print(indent(lines, by * " "), style=style, soft_wrap=True, markup=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _beside(form: str, value: float, expected: Mapping[str, float] | None, name: str) -> list[str]:
    """Return the value of the runs, marked as equal or different; empty without values of the runs."""
    if expected is None:
        return []
    wanted = expected.get(name)
    if wanted is None:
        return ["[red]nothing[/]"]
    return [form.format(wanted) + (" [green]✓[/]" if math.isclose(value, wanted) else " [red]✗[/]")]


def _same(found: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    return found.keys() == expected.keys() and all(math.isclose(found[name], expected[name]) for name in found)


def _executions_in(graphite: Graphite, stages: Iterable[str]) -> dict[str, float]:
    return {name: graphite.total(f"stats.counters.forge.stage.executions.*.{name}.*.count") for name in stages}


def _executions(runs: list[dict[str, Any]], key: str = "executions") -> Counter[str]:
    return _summed(runs, "stages", "name", key)


def _error_ratios(runs: list[dict[str, Any]]) -> dict[str, float]:
    errors = _executions(runs, "errors")
    return {name: errors[name] / count for name, count in _executions(runs).items() if count}


def _hit_ratios(runs: list[dict[str, Any]]) -> dict[str, float]:
    cached = _summed(runs, "measurements", "key", "cached")
    computed = _summed(runs, "measurements", "key", "computed")
    return {key: cached[key] / (cached[key] + computed[key]) for key in computed}


def _depths(runs: list[dict[str, Any]]) -> Counter[str]:
    """The last run did everything again, so its dead letters are all that there are."""
    return _summed(runs[-1:], "dead_letters", "where", "count")


def _summed(runs: list[dict[str, Any]], part: str, name: str, key: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for run in runs:
        for each in run[part]:
            found[each[name]] += each[key]
    return found


def _traces(collector: Collector) -> Counter[str]:
    """The traces in the Collector's file, with the numbers of their spans."""
    return Counter(span["traceId"] for span in collector.spans())
