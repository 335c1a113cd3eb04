"""A trace, or what happened to one sample, found in several passes over a source.

Only what is shown is kept: of a sample its spans, those below them, and the batches they belong to; of a whole trace
the spans that failed and the longest ones, with all that contain them.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ...semconv import attributes as a
from ...semconv import spans as s
from .. import next_commands
from ..errors import CommandError
from .records import LogRecord, Span
from .sources import Problem, Source

MIN_PREFIX: Final = 4
"""Minimum length of a part of a trace id."""
MAX_TRACES: Final = 10_000
"""Maximum number of traces in which a sample is looked for."""
_MAX_DEPTH: Final = 100
_BATCH_LINK: Final = "batch"

Key = tuple[str, str]
"""The ids of a trace and of a span."""


@dataclass(slots=True)
class Found:
    """A trace, or a sample in it, with the spans and log records to show."""

    trace_id: str
    sample_id: str = ""
    spans: dict[Key, Span] = field(default_factory=dict)
    logs: list[LogRecord] = field(default_factory=list)
    total: int = 0
    """Number of all spans of the trace, or of the sample."""
    other_traces: Sequence[str] = ()
    """Earlier traces with this sample, the latest first."""
    problems: list[str] = field(default_factory=list)


def find(source: Source, target: str, *, trace: str = "", limit: int) -> Found:
    """Return the sample with this id, in the trace whose id begins with `trace` or in the latest.

    If there is none, return the trace whose id, or whose run's id, begins with `target`, with at most `limit` spans.

    Raises:
        CommandError: there is no such trace or sample.
    """
    source = source.narrowed(target)
    matches = _matches(source, target.strip(), trace.lower())
    if matches.samples:
        *others, (_, trace_id) = sorted((start, trace_id) for trace_id, start in matches.samples.items())
        found = Found(trace_id, target, problems=matches.problems)
        found.other_traces = [each for _, each in reversed(others)]
        _collect_sample(source, found)
    elif matches.traces:
        if len(matches.traces) > 1:
            some = ", ".join(sorted(matches.traces)[:3])
            raise CommandError(f"{target}: {len(matches.traces)} traces begin with it, such as {some}; give more of it")
        (trace_id,) = matches.traces
        found = Found(trace_id, problems=matches.problems)
        _collect_trace(source, found, limit)
    else:
        raise CommandError(_nothing(source, target, trace))
    _collect_logs(source, found)
    return found


@dataclass(slots=True)
class _Matches:
    samples: dict[str, int] = field(default_factory=dict)
    """The traces with the sample, and when it started there."""
    traces: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def _matches(source: Source, target: str, trace: str) -> _Matches:
    found = _Matches()
    prefix = target.lower() if len(target) >= MIN_PREFIX else "\0"
    for record in source.records([target]):
        if isinstance(record, Problem):
            found.problems.append(str(record))
        elif isinstance(record, Span):
            if str(record.attributes.get(a.FORGE_SAMPLE_ID)) == target and record.trace_id.startswith(trace):
                known = found.samples.get(record.trace_id)
                if known is not None or len(found.samples) < MAX_TRACES:
                    found.samples[record.trace_id] = record.start if known is None else min(known, record.start)
            is_run = record.name.startswith(s.FORGE_PIPELINE.type)
            if record.trace_id.startswith(prefix) or (
                is_run and str(record.attributes.get(a.FORGE_RUN_ID, "")).startswith(prefix)
            ):
                found.traces.add(record.trace_id)
    return found


def _nothing(source: Source, target: str, trace: str) -> str:
    count, problem = 0, "it has no spans"
    for record in source.records():
        if isinstance(record, Problem) and not count:
            problem = str(record)
        count += isinstance(record, Span)
    if not count:
        return f"no spans in {source.name}: {problem}"
    inside = f" in a trace that begins with {trace}" if trace else ""
    seen = f"{count} spans in {source.name}"
    return (
        f"{target}: no sample, trace or run has this id{inside}, among {seen}; "
        "a sample may not have been recorded (sampling_rate, span budget)"
    )


def _collect_sample(source: Source, found: Found) -> None:
    """Keep the spans of a sample, then in further passes those below them and the batches that they link to."""
    own: set[Key] = set()
    batches: set[Key] = set()
    for depth in range(_MAX_DEPTH):
        before = len(found.spans), len(batches)
        for record in source.records([found.sample_id, *(span_id for _, span_id in own | batches)]):
            if not isinstance(record, Span) or record.trace_id != found.trace_id:
                continue
            key = (record.trace_id, record.span_id)
            if key in found.spans:
                continue
            mine = str(record.attributes.get(a.FORGE_SAMPLE_ID)) == found.sample_id
            if mine or (record.trace_id, record.parent_id) in own:
                own.add(key)
                found.spans[key] = record
                batches.update(link[:2] for link in record.links if link[2] == _BATCH_LINK)
            elif key in batches:
                found.spans[key] = record
        if depth and before == (len(found.spans), len(batches)):
            break
    found.total = len(found.spans)


def _collect_trace(source: Source, found: Found, limit: int) -> None:
    """Keep the spans that failed and then the longest ones, and in further passes those that contain them."""
    best: list[tuple[bool, bool, int, int, Span]] = []
    for record in source.records([found.trace_id]):
        if isinstance(record, Span) and record.trace_id == found.trace_id:
            found.total += 1
            rank = (not record.parent_id, record.failed, record.end - record.start, -found.total, record)
            if len(best) < limit:
                heapq.heappush(best, rank)
            else:
                heapq.heappushpop(best, rank)
    found.spans = {(span.trace_id, span.span_id): span for *_, span in best}
    for _ in range(_MAX_DEPTH):
        missing = {(span.trace_id, span.parent_id) for span in found.spans.values() if span.parent_id}
        missing -= found.spans.keys()
        before = len(found.spans)
        if missing:
            for record in source.records([found.trace_id]):
                if isinstance(record, Span) and (key := (record.trace_id, record.span_id)) in missing:
                    found.spans[key] = record
        if len(found.spans) == before:
            break


def _collect_logs(source: Source, found: Found) -> None:
    texts = [found.sample_id, *(span_id for _, span_id in found.spans)] if found.sample_id else [found.trace_id]
    for record in source.records(texts):
        if isinstance(record, LogRecord) and record.trace_id == found.trace_id:
            key = (record.trace_id, record.span_id)
            is_samples = found.sample_id and str(record.attributes.get(a.FORGE_SAMPLE_ID)) == found.sample_id
            if key in found.spans or is_samples:
                found.logs.append(record)
    found.logs.sort(key=lambda record: record.time)


def document(found: Found, source: Source) -> dict[str, Any]:
    """Return what was found as a document: spans as trees, each with its log records."""
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in sorted(found.spans.values(), key=lambda span: (span.start, span.span_id)):
        is_root = (span.trace_id, span.parent_id) not in found.spans or span.parent_id == span.span_id
        children["" if is_root else span.parent_id].append(span)
    logs: defaultdict[str, list[LogRecord]] = defaultdict(list)
    for record in found.logs:
        key = (record.trace_id, record.span_id)
        logs[record.span_id if key in found.spans else ""].append(record)
    start = min(span.start for span in found.spans.values())
    roots = [_node(span, children, logs, start) for span in children[""]]
    first = next(iter(children[""]), next(iter(found.spans.values())))
    run_id = next((str(run) for span in found.spans.values() if (run := span.attributes.get(a.FORGE_RUN_ID))), None)
    return {
        "trace_id": found.trace_id,
        "sample_id": found.sample_id or None,
        "run_id": run_id,
        "service": first.service or None,
        "started": round(start / 1e9, 6),
        "duration": (max(max(span.end, span.start) for span in found.spans.values()) - start) / 1e9,
        "spans": found.total,
        "omitted_spans": found.total - len(found.spans),
        "failed_spans": sum(span.failed for span in found.spans.values()),
        "roots": roots,
        "log_records": [_log(record, start) for record in logs.get("", ())],
        "unreadable": len(found.problems),
        "next": list(_next(found, source, run_id)),
    }


def _next(found: Found, source: Source, run_id: str | None) -> Iterator[str]:
    if found.sample_id:
        if run_id:
            yield next_commands.show(run_id, found.sample_id)
        parents = {
            str(each) for span in found.spans.values() if (each := span.attributes.get(a.FORGE_SAMPLE_PARENT_ID))
        }
        for parent in sorted(parents):
            yield next_commands.waterfall(parent, source.options)
        for trace_id in found.other_traces[:3]:
            yield next_commands.waterfall(found.sample_id, source.options, trace_id)
        yield next_commands.waterfall(found.trace_id, source.options)
    else:
        failed = [span for span in found.spans.values() if span.failed and a.FORGE_SAMPLE_ID in span.attributes]
        for span in sorted(failed, key=lambda span: span.start)[:1]:
            yield next_commands.waterfall(str(span.attributes[a.FORGE_SAMPLE_ID]), source.options)
        if run_id:
            yield next_commands.show(run_id)


def _node(
    top: Span, children: Mapping[str, Sequence[Span]], logs: Mapping[str, Sequence[LogRecord]], start: int
) -> dict[str, Any]:
    root: dict[str, Any] = {"children": []}
    waiting: list[tuple[Span, dict[str, Any], int]] = [(top, root, 0)]
    while waiting:
        span, parent, depth = waiting.pop()
        node = {
            "name": span.name,
            "span_id": span.span_id,
            "offset": (span.start - start) / 1e9,
            "duration": span.duration,
            "outcome": outcome(span.attributes),
            "error": error(span),
            "attributes": dict(span.attributes),
            "links": [{"trace_id": link[0], "span_id": link[1], "type": link[2]} for link in span.links],
            "log_records": [_log(record, start) for record in logs.get(span.span_id, ())],
            "children": [],
        }
        parent["children"].append(node)
        if depth < _MAX_DEPTH:
            waiting += [(child, node, depth + 1) for child in reversed(children.get(span.span_id, ()))]
    node_of_top: dict[str, Any] = root["children"][0]
    return node_of_top


def _log(record: LogRecord, start: int) -> dict[str, Any]:
    return {
        "name": record.name or None,
        "offset": (record.time - start) / 1e9,
        "severity": record.severity or None,
        "body": record.body,
        "attributes": dict(record.attributes),
    }


def outcome(attributes: Mapping[str, Any]) -> Any:
    """Return the outcome of a run, sample, stage or measurement; None if there is none."""
    keys = (a.FORGE_RUN_OUTCOME, a.FORGE_SAMPLE_OUTCOME, a.FORGE_STAGE_OUTCOME, a.FORGE_MEASUREMENT_OUTCOME)
    return next((attributes[key] for key in keys if key in attributes), None)


def error(span: Span) -> str | None:
    """Return the error of a span as `TYPE: MESSAGE`; None if it did not fail."""
    if not span.failed:
        return None
    return ": ".join(filter(None, (str(span.attributes.get(a.ERROR_TYPE, "")), span.message))) or "failed"
