"""The report on telemetry in files, as a document: runs as trees, counts per stage, failures, the slowest spans."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...semconv import attributes as a
from ...semconv import events, metrics
from .. import next_commands
from ..trace.records import Span, number
from .records import Telemetry, Total

METRICS: Final = tuple(
    metric.name
    for metric in (
        metrics.FORGE_SAMPLE_SETTLED,
        metrics.FORGE_STAGE_EXECUTIONS,
        metrics.FORGE_STAGE_FAILURES,
        metrics.FORGE_STAGE_RETRIES,
        metrics.FORGE_STAGE_DURATION,
        metrics.FORGE_MEASUREMENT_COMPUTATIONS,
        metrics.FORGE_MEASUREMENT_CACHE_HITS,
        metrics.FORGE_MEASUREMENT_DURATION,
    )
)
"""The metrics of the report."""

_EXCEPTIONS: Final = frozenset(
    event.name
    for event in (
        events.FORGE_STAGE_EXCEPTION,
        events.FORGE_MEASUREMENT_EXCEPTION,
        events.FORGE_STORAGE_EXCEPTION,
        events.FORGE_PIPELINE_EXCEPTION,
    )
)
STAGE_COUNTS: Final = ("executions", "errors", "skips", "retries")
"""The counts of a stage."""
MEASUREMENT_COUNTS: Final = ("computed", "cached", "errors")
"""The counts of a measurement."""
MAX_TRACES: Final = 3
"""Number of traces in the report, unless one is asked for."""
_MAX_DEPTH: Final = 100
"""Maximum depth of a tree."""
MAX_PROBLEMS: Final = 5
"""Unreadable lines that are quoted."""
MAX_SLOW: Final = 5
"""Number of the slowest spans in the report."""


def report(telemetry: Telemetry, *, limit: int, source: Sequence[str] = ()) -> dict[str, Any]:
    """Return the report, with at most `limit` spans of each of the latest traces.

    The commands in it read the same `source`.
    """
    traces: defaultdict[str, list[Span]] = defaultdict(list)
    for span in telemetry.spans:
        traces[span.trace_id].append(span)
    ordered = sorted(traces.values(), key=lambda spans: min(span.start for span in spans))
    return {
        "spans": len(telemetry.spans),
        "log_records": telemetry.log_records,
        "metric_points": telemetry.points,
        "unreadable": len(telemetry.problems),
        "problems": telemetry.problems[:MAX_PROBLEMS],
        "traces": [_trace(spans, limit, source) for spans in ordered[-MAX_TRACES:]],
        "omitted_traces": max(0, len(ordered) - MAX_TRACES),
        "runs": _runs(telemetry),
        "pipelines": _pipelines(telemetry),
        "slowest": _slowest(telemetry.spans, source),
        "failures": _failures(telemetry, source),
    }


def _trace(spans: Sequence[Span], limit: int, source: Sequence[str]) -> dict[str, Any]:
    """Return a trace as trees of spans: failures and what they are in come first, then other spans from the top; the
    rest is counted.
    """
    by_id = {span.span_id: span for span in spans}
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in sorted(by_id.values(), key=lambda span: (span.start, span.span_id)):
        children[span.parent_id if span.parent_id in by_id else ""].append(span)
    kept = _kept(by_id, children, limit)
    roots = children[""]
    start = min(span.start for span in by_id.values())
    return {
        "trace_id": spans[0].trace_id,
        "started": round(start / 1e9, 6),
        "service": next((root.service for root in roots), spans[0].service),
        "spans": len(by_id),
        "failed_spans": sum(span.failed for span in by_id.values()),
        "omitted_spans": len(by_id) - len(kept),
        "next": next_commands.waterfall(spans[0].trace_id, source),
        "roots": [_node(root, children, kept) for root in roots if root.span_id in kept],
    }


def _kept(by_id: Mapping[str, Span], children: Mapping[str, Sequence[Span]], limit: int) -> set[str]:
    """Return the ids of spans to show. The ancestors of a shown span are shown, too."""
    ranks: dict[str, tuple[int, int]] = {}
    causes = {span.parent_id for span in by_id.values() if span.failed}
    level, depth = children.get("", ()), 0
    while level and depth < _MAX_DEPTH:  # spans in a circle are never reached
        for span in level:
            ranks[span.span_id] = (int(span.span_id in causes), span.start) if span.failed else (2, depth)
        level, depth = [child for span in level for child in children.get(span.span_id, ())], depth + 1
    if len(ranks) <= limit:
        return set(ranks)
    kept: set[str] = set()
    for span_id in sorted(ranks, key=lambda each: ranks[each]):  # sorting is stable: ties are in order of time
        path, step = [], span_id
        while step in by_id and step not in kept:
            path.append(step)
            step = by_id[step].parent_id
        if len(kept) + len(path) <= limit:
            kept.update(path)
    return kept


def _node(span: Span, children: Mapping[str, Sequence[Span]], kept: set[str]) -> dict[str, Any]:
    below = children.get(span.span_id, ())
    return {
        "name": span.name,
        "span_id": span.span_id,
        "duration": span.duration,
        "sample_id": span.attributes.get(a.FORGE_SAMPLE_ID),
        "outcome": _outcome(span),
        "error": _error(span),
        "children": [_node(child, children, kept) for child in below if child.span_id in kept],
    }


def _outcome(span: Span) -> Any:
    keys = (a.FORGE_RUN_OUTCOME, a.FORGE_SAMPLE_OUTCOME, a.FORGE_STAGE_OUTCOME, a.FORGE_MEASUREMENT_OUTCOME)
    return next((span.attributes[key] for key in keys if key in span.attributes), None)


def _error(span: Span) -> str | None:
    if not span.failed:
        return None
    return ": ".join(filter(None, (str(span.attributes.get(a.ERROR_TYPE, "")), span.message))) or "failed"


def _runs(telemetry: Telemetry) -> list[dict[str, Any]]:
    """Return how much of each run's telemetry is there, by the events that sum runs up."""
    found = Counter(span.attributes.get(a.FORGE_RUN_ID) for span in telemetry.spans)
    return [
        {
            "run_id": event.attributes.get(a.FORGE_RUN_ID),
            "pipeline": event.attributes.get(a.FORGE_PIPELINE_NAME),
            "spans": found[event.attributes.get(a.FORGE_RUN_ID)],
            "recorded_spans": _count(event.attributes, a.FORGE_SUMMARY_SPANS),
            "suppressed": _count(event.attributes, a.FORGE_SUMMARY_SUPPRESSED),
            "faults": _count(event.attributes, a.FORGE_SUMMARY_FAULTS),
        }
        for event in telemetry.events
        if event.name == events.FORGE_PIPELINE_SUMMARY.name
    ]


def _count(attributes: Mapping[str, Any], key: str) -> int:
    return int(number(attributes, key) or 0)


def _pipelines(telemetry: Telemetry) -> list[dict[str, Any]]:
    """Return the counts of each pipeline, from its metrics: they are exact, whatever was sampled."""
    found: dict[str, _Counts] = {}

    def counts(attributes: Mapping[str, Any]) -> _Counts:
        return found.setdefault(str(attributes.get(a.FORGE_PIPELINE_NAME, "")), _Counts())

    for attributes, total in telemetry.totals(metrics.FORGE_SAMPLE_SETTLED.name):
        counts(attributes).samples[str(attributes.get(a.FORGE_SAMPLE_OUTCOME, ""))] += int(total.value)
    for attributes, total in telemetry.totals(metrics.FORGE_STAGE_EXECUTIONS.name):
        stage = counts(attributes).stages[str(attributes.get(a.FORGE_STAGE_NAME, ""))]
        stage.count("executions", total)
        stage.count({"error": "errors", "skip": "skips"}.get(str(attributes.get(a.FORGE_STAGE_OUTCOME)), ""), total)
    for attributes, total in telemetry.totals(metrics.FORGE_STAGE_RETRIES.name):
        counts(attributes).stages[str(attributes.get(a.FORGE_STAGE_NAME, ""))].count("retries", total)
    for attributes, total in telemetry.totals(metrics.FORGE_STAGE_DURATION.name):
        counts(attributes).stages[str(attributes.get(a.FORGE_STAGE_NAME, ""))].durations.add(total)
    for attributes, total in telemetry.totals(metrics.FORGE_MEASUREMENT_COMPUTATIONS.name):
        failed = attributes.get(a.FORGE_MEASUREMENT_OUTCOME) == "error"
        measurement = counts(attributes).measurements[str(attributes.get(a.FORGE_MEASUREMENT_KEY, ""))]
        measurement.count("errors" if failed else "computed", total)
    for attributes, total in telemetry.totals(metrics.FORGE_MEASUREMENT_CACHE_HITS.name):
        counts(attributes).measurements[str(attributes.get(a.FORGE_MEASUREMENT_KEY, ""))].count("cached", total)
    for attributes, total in telemetry.totals(metrics.FORGE_MEASUREMENT_DURATION.name):
        counts(attributes).measurements[str(attributes.get(a.FORGE_MEASUREMENT_KEY, ""))].durations.add(total)
    return [
        {
            "pipeline": name,
            "samples": {outcome: count for outcome, count in each.samples.items() if count},
            "stages": [row.document("name", stage, STAGE_COUNTS) for stage, row in each.stages.items()],
            "measurements": [row.document("key", key, MEASUREMENT_COUNTS) for key, row in each.measurements.items()],
        }
        for name, each in found.items()
    ]


class _Row:
    """The counts and the durations of a stage or a measurement."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.durations = Total()

    def count(self, name: str, total: Total) -> None:
        self.counts[name] += int(total.value)

    def document(self, field: str, name: str, counts: Sequence[str]) -> dict[str, Any]:
        known = self.durations.count
        mean, longest = (self.durations.value / known, self.durations.max) if known else (None, None)
        return {field: name, **{each: self.counts[each] for each in counts}, "mean": mean, "max": longest}


class _Counts:
    """The counts of a pipeline."""

    def __init__(self) -> None:
        self.samples: Counter[str] = Counter()
        self.stages: defaultdict[str, _Row] = defaultdict(_Row)
        self.measurements: defaultdict[str, _Row] = defaultdict(_Row)


def _slowest(spans: Sequence[Span], source: Sequence[str]) -> list[dict[str, Any]]:
    """Return the slowest spans among those that contain no other."""
    parents = {(span.trace_id, span.parent_id) for span in spans}
    leaves = [span for span in spans if (span.trace_id, span.span_id) not in parents]
    leaves.sort(key=lambda span: (-span.duration, span.start))
    return [
        {
            "name": span.name,
            "duration": span.duration,
            "sample_id": span.attributes.get(a.FORGE_SAMPLE_ID),
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "next": _next(span.attributes, span.trace_id, source),
        }
        for span in leaves[:MAX_SLOW]
    ]


def _next(attributes: Mapping[str, Any], trace_id: str, source: Sequence[str]) -> str | None:
    """Return the command that shows a sample, or else a trace."""
    target = str(attributes.get(a.FORGE_SAMPLE_ID, "")) or trace_id
    return next_commands.waterfall(target, source) if target else None


def _failures(telemetry: Telemetry, source: Sequence[str]) -> list[dict[str, Any]]:
    """Return the failures by place and class of error, from the events, or without events from the spans."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}

    def add(attributes: Mapping[str, Any], message: str, trace_id: str) -> None:
        where = next((str(attributes[key]) for key in _PLACES if key in attributes), "")
        pipeline = str(attributes.get(a.FORGE_PIPELINE_NAME, ""))
        error_type = str(attributes.get(a.ERROR_TYPE, ""))
        first = {
            "pipeline": pipeline,
            "where": where,
            "error_type": error_type,
            "count": 0,
            "message": message,
            "sample_id": attributes.get(a.FORGE_SAMPLE_ID),
            "trace_id": trace_id,
            "next": _next(attributes, trace_id, source),
        }
        found.setdefault((pipeline, where, error_type), first)["count"] += 1

    exceptions = [event for event in telemetry.events if event.name in _EXCEPTIONS]
    for event in sorted(exceptions, key=lambda event: event.time):
        add(event.attributes, str(event.attributes.get(a.EXCEPTION_MESSAGE, "")), event.trace_id)
    if not exceptions:
        causes = {(span.trace_id, span.parent_id) for span in telemetry.spans if span.failed}
        for span in sorted(telemetry.spans, key=lambda span: span.start):
            if span.failed and (span.trace_id, span.span_id) not in causes:
                add({a.FORGE_STAGE_NAME: span.name, **span.attributes}, span.message, span.trace_id)
    # Events are limited per run; the counts of the metrics are exact.
    for attributes, total in telemetry.totals(metrics.FORGE_STAGE_FAILURES.name):
        pipeline, stage, error_type = (
            str(attributes.get(key, "")) for key in (a.FORGE_PIPELINE_NAME, a.FORGE_STAGE_NAME, a.ERROR_TYPE)
        )
        if failure := found.get((pipeline, stage, error_type)):
            failure["count"] = max(failure["count"], int(total.value))
    return sorted(found.values(), key=lambda failure: -int(failure["count"]))


_PLACES: Final = (a.FORGE_STAGE_NAME, a.FORGE_MEASUREMENT_KEY, a.FORGE_STORAGE_BACKEND, a.FORGE_PIPELINE_NAME)
"""The attributes that tell where a failure was, the closest first."""
