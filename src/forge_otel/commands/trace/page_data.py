"""The data of a page on one run: how many samples were where, stages with percentiles, samples with their spans.

Everything is counted; spans and log records are kept up to a limit, those of failed samples first, then of the slowest.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from forge.support.percentiles import Sketch

from ...semconv import attributes as a
from ...semconv import events
from ...semconv import spans as s
from ..errors import CommandError
from .occupancy import Occupancy
from .records import LogRecord, Span, number
from .sources import Problem, Source
from .waterfall import Key

MAX_RUNS: Final = 10_000
_MAX_STAGES: Final = 50
_MAX_PASSES: Final = 6
_MAX_TEXT: Final = 20_000
"""Maximum length of a text in the page, such as a stack trace."""
ELSEWHERE: Final = "outside of stages"
"""The place of samples that are measured or stored, or handed from one thread to another."""
WAITING: Final = "waiting for "
_BATCH_LINK: Final = "batch"


@dataclass(slots=True)
class Run:
    """A run, as its spans show it. Times are Unix times in nanoseconds."""

    id: str
    start: int
    end: int
    trace_id: str = ""
    """The trace of the run's span; empty if there is none, as after a kill."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    spans: int = 0

    def has(self, record: Span | LogRecord) -> bool:
        """Return True if a record is of this run, or of its trace and of no run."""
        run_id = record.attributes.get(a.FORGE_RUN_ID)
        return run_id == self.id or (run_id is None and bool(self.trace_id) and record.trace_id == self.trace_id)


@dataclass(slots=True)
class Stage:
    """The counts and durations of a stage."""

    first: int
    durations: Sketch = field(default_factory=Sketch)
    waits: Sketch = field(default_factory=Sketch)
    counts: Counter[str] = field(default_factory=Counter)
    summary: Mapping[str, Any] | None = None
    """The attributes of its summary event, which counts all samples, also those without spans."""

    def document(self, name: str) -> dict[str, Any]:
        """Return the row of a table."""
        if (summary := self.summary) is not None:
            return {
                "name": name,
                "exact": True,
                "executions": number(summary, a.FORGE_SUMMARY_EXECUTIONS),
                "errors": number(summary, a.FORGE_SUMMARY_ERRORS),
                "skips": number(summary, a.FORGE_SUMMARY_SKIPS),
                "retries": number(summary, a.FORGE_SUMMARY_RETRIES),
                "p50": number(summary, a.FORGE_SUMMARY_P50),
                "p95": number(summary, a.FORGE_SUMMARY_P95),
                "p99": number(summary, a.FORGE_SUMMARY_P99),
                "max": number(summary, a.FORGE_SUMMARY_MAX),
                "queue_wait_p95": number(summary, a.FORGE_SUMMARY_QUEUE_WAIT_P95),
                "backpressure": number(summary, a.FORGE_SUMMARY_BACKPRESSURE),
                "utilization": number(summary, a.FORGE_SUMMARY_UTILIZATION),
            }
        return {
            "name": name,
            "exact": False,
            "executions": self.durations.count,
            "errors": self.counts["errors"],
            "skips": self.counts["skips"],
            "retries": self.counts["retries"],
            "p50": self.durations.quantile(0.5),
            "p95": self.durations.quantile(0.95),
            "p99": self.durations.quantile(0.99),
            "max": self.durations.maximum if self.durations.count else None,
            "queue_wait_p95": self.waits.quantile(0.95),
            "backpressure": None,
            "utilization": None,
        }


class _Totals:
    """Totals of a run, counted in one pass, and the samples to keep."""

    def __init__(self, run: Run, max_samples: int) -> None:
        self.run = run
        self.spans = self.log_records = 0
        self.start, self.end = run.start, run.end
        self.outcomes: Counter[str] = Counter()
        self.stages: dict[str, Stage] = {}
        self.occupancy = Occupancy()
        self.summary: Mapping[str, Any] = {}
        self._max_samples = max_samples
        self._best: list[tuple[int, int, int, Key, str]] = []

    def add(self, record: Span | LogRecord) -> None:
        if isinstance(record, LogRecord):
            self.log_records += 1
            self._add_log_record(record)
            return
        self.spans += 1
        self.start, self.end = min(self.start, record.start), max(self.end, record.end)
        if record.name == s.FORGE_SAMPLE.type:
            self._add_sample(record)
        elif record.name == f"{s.FORGE_STAGE.type} {record.attributes.get(a.FORGE_STAGE_NAME)}":
            self._add_stage(record)

    @property
    def kept(self) -> dict[Key, str]:
        """The spans of the samples to keep, with the samples' ids."""
        return {key: sample_id for *_, key, sample_id in self._best}

    def _add_sample(self, span: Span) -> None:
        outcome = str(span.attributes.get(a.FORGE_SAMPLE_OUTCOME, ""))
        self.outcomes[outcome] += 1
        self.occupancy.add(ELSEWHERE, span.start, span.end)
        key = (span.trace_id, span.span_id)
        rank = (2 if span.failed else 0, span.end - span.start, -self.spans, key)
        entry = (*rank, str(span.attributes.get(a.FORGE_SAMPLE_ID, "")))
        if len(self._best) < self._max_samples:
            heapq.heappush(self._best, entry)
        else:
            heapq.heappushpop(self._best, entry)

    def _add_stage(self, span: Span) -> None:
        stage = self._stage(str(span.attributes[a.FORGE_STAGE_NAME]), span.start)
        name = str(span.attributes[a.FORGE_STAGE_NAME])
        stage.durations.add(span.duration)
        outcome = span.attributes.get(a.FORGE_STAGE_OUTCOME)
        stage.counts["errors" if span.failed else "skips" if outcome == "skip" else ""] += 1
        waited = number(span.attributes, a.FORGE_STAGE_QUEUE_WAIT)
        began = span.start
        if waited is not None and waited >= 0:
            stage.waits.add(waited)
            began = max(span.start - int(waited * 1e9), self.run.start)
            self.occupancy.add(WAITING + name, began, span.start)
        self.occupancy.add(name, span.start, span.end)
        if a.FORGE_SAMPLE_ID in span.attributes:
            self.occupancy.add(ELSEWHERE, began, span.end, -1)

    def _add_log_record(self, record: LogRecord) -> None:
        if record.name == events.FORGE_STAGE_SUMMARY.name:
            self._stage(str(record.attributes.get(a.FORGE_STAGE_NAME, "")), record.time).summary = record.attributes
        elif record.name == events.FORGE_STAGE_RETRY.name:
            self._stage(str(record.attributes.get(a.FORGE_STAGE_NAME, "")), record.time).counts["retries"] += 1
        elif record.name == events.FORGE_PIPELINE_SUMMARY.name:
            self.summary = record.attributes

    def _stage(self, name: str, at: int) -> Stage:
        if name not in self.stages and len(self.stages) >= _MAX_STAGES:
            name = "(others)"
        stage = self.stages.setdefault(name, Stage(at))
        stage.first = min(stage.first, at)
        return stage


def runs(source: Source) -> tuple[dict[str, Run], list[str]]:
    """Return the runs of a source by their ids, and the lines that cannot be read."""
    found: dict[str, Run] = {}
    problems = []
    for record in source.records():
        if isinstance(record, Problem):
            problems.append(str(record))
            continue
        run_id = record.attributes.get(a.FORGE_RUN_ID)
        if not isinstance(record, Span) or not isinstance(run_id, str):
            continue
        run = found.get(run_id)
        if run is None:
            if len(found) >= MAX_RUNS:
                continue
            run = found[run_id] = Run(run_id, record.start, record.end)
        run.spans += 1
        run.start, run.end = min(run.start, record.start), max(run.end, record.end)
        if record.name.startswith(s.FORGE_PIPELINE.type):
            run.trace_id, run.attributes, run.message = record.trace_id, record.attributes, record.message
        elif not run.attributes:
            run.attributes = {a.FORGE_PIPELINE_NAME: record.attributes.get(a.FORGE_PIPELINE_NAME, "")}
    return found, problems


def choose(found: Mapping[str, Run], wanted: str, source: Source, problems: Sequence[str]) -> Run:
    """Return the run whose id, or whose trace's, begins with `wanted`; the latest if it is empty.

    Raises:
        CommandError: there is no such run.
    """
    if not found:
        why = problems[0] if problems else "it has no spans of a run"
        raise CommandError(f"no run in {source.name}: {why}")
    ordered = sorted(found.values(), key=lambda run: (run.start, run.id))
    if not wanted:
        return ordered[-1]
    matches = [run for run in ordered if run.id.startswith(wanted) or run.trace_id.startswith(wanted.lower())]
    if len(matches) != 1:
        what = "no run or trace begins with it" if not matches else f"{len(matches)} runs begin with it"
        some = ", ".join(run.id for run in (matches or ordered)[-3:])
        raise CommandError(f"--run {wanted}: {what}; there are {some}")
    return matches[0]


def page_data(source: Source, wanted: str, max_spans: int) -> dict[str, Any]:
    """Return the data of a page on one run.

    Raises:
        CommandError: there is no such run.
    """
    found, problems = runs(source)
    run = choose(found, wanted, source, problems)
    totals = _Totals(run, max_spans)
    for record in source.records():
        if not isinstance(record, Problem) and run.has(record):
            totals.add(record)
    spans, logs = _kept_records(source, run, totals, max_spans)
    rows = _Rows(run, spans, logs, totals.start)
    occupancy = totals.occupancy.document()
    stages = sorted(totals.stages.items(), key=lambda item: (item[1].first, item[0]))
    return {
        "run": {
            "id": run.id,
            "pipeline": str(run.attributes.get(a.FORGE_PIPELINE_NAME, "")),
            "trace_id": run.trace_id,
            "outcome": run.attributes.get(a.FORGE_RUN_OUTCOME),
            "type": run.attributes.get(a.FORGE_RUN_TYPE),
            "runner": run.attributes.get(a.FORGE_RUNNER_NAME),
            "revision": run.attributes.get(a.VCS_REF_HEAD_REVISION),
            "message": run.message,
            "start": run.start / 1e6,
            "duration": (totals.end - totals.start) / 1e9,
            "cost": number(totals.summary, a.FORGE_COST_AMOUNT),
            "samples": _sample_counts(totals),
            "suppressed": number(totals.summary, a.FORGE_SUMMARY_SUPPRESSED),
            "faults": number(totals.summary, a.FORGE_SUMMARY_FAULTS),
        },
        "totals": {
            "spans": totals.spans,
            "log_records": totals.log_records,
            "samples": totals.outcomes.total(),
            "kept_spans": len(spans),
            "kept_samples": len(rows.samples),
            "other_runs": len(found) - 1,
            "unreadable": len(problems),
        },
        "problems": problems,
        "occupancy": {
            "start": (occupancy["start"] - totals.start) / 1e9,
            "width": occupancy["width"] / 1e9,
            "bins": occupancy["bins"],
            "series": _ordered(occupancy["series"], [name for name, _ in stages]),
        },
        "stages": [stage.document(name) for name, stage in stages],
        "source": list(source.options),
        **rows.document(),
    }


def _sample_counts(totals: _Totals) -> dict[str, int]:
    """Return the number of samples by outcome: from the summary, which has all, or else from the spans."""
    keys = {
        "ready": a.FORGE_SUMMARY_READY,
        "skipped": a.FORGE_SUMMARY_SKIPPED,
        "unchanged": a.FORGE_SUMMARY_UNCHANGED,
        "split": a.FORGE_SUMMARY_SPLIT,
        "dlq": a.FORGE_SUMMARY_DLQ,
        "failed": a.FORGE_SUMMARY_FAILED,
    }
    if totals.summary:
        counts = {outcome: totals.summary.get(key) for outcome, key in keys.items()}
        return {outcome: count for outcome, count in counts.items() if isinstance(count, int) and count}
    return dict(totals.outcomes.most_common())


def _ordered(series: Mapping[str, Sequence[float]], stages: Sequence[str]) -> list[dict[str, Any]]:
    """Return the places in the order of stages, each after the wait for it; those outside of stages come last."""
    places = [(name, kind) for name in stages for kind in (WAITING + name, name)]
    ordered = [
        {"name": name, "stage": stages.index(stage), "values": series[name]} for stage, name in places if name in series
    ]
    if ELSEWHERE in series:
        ordered.append({"name": ELSEWHERE, "stage": None, "values": series[ELSEWHERE]})
    return ordered


def _kept_records(source: Source, run: Run, totals: _Totals, max_spans: int) -> tuple[dict[Key, Span], list[LogRecord]]:
    """Return the spans to keep, at most about `max_spans`, and the log records on them."""
    if totals.spans <= max_spans:
        keep: Callable[[Span], bool] = run.has
    else:
        # How many samples fit is known by how many spans one has.
        average = totals.spans / max(1, totals.outcomes.total())
        best = sorted(totals._best, reverse=True)[: max(1, int(max_spans / average))]
        keys = {entry[3] for entry in best}
        samples = {(entry[3][0], entry[4]) for entry in best}

        def keep(span: Span) -> bool:
            return (
                (span.trace_id, span.span_id) in keys
                or (span.trace_id, str(span.attributes.get(a.FORGE_SAMPLE_ID))) in samples
                or span.name.startswith(s.FORGE_PIPELINE.type)
            ) and run.has(span)

    kept: dict[Key, Span] = {}
    below: set[Key] = set()
    batches: set[Key] = set()
    logs: list[LogRecord] = []
    for _ in range(_MAX_PASSES):
        before = len(kept)
        logs.clear()
        for record in source.records():
            if isinstance(record, Problem):
                continue
            key = (record.trace_id, record.span_id)
            if isinstance(record, LogRecord):
                if key in kept:
                    logs.append(record)
                continue
            if key in kept:
                continue
            is_related = (record.trace_id, record.parent_id) in below or key in batches
            if keep(record) or (is_related and len(kept) < max_spans):
                kept[key] = record
                if not record.name.startswith(s.FORGE_PIPELINE.type) and key not in batches:
                    below.add(key)
                    batches.update(link[:2] for link in record.links if link[2] == _BATCH_LINK)
        if len(kept) == before:
            break
    logs.sort(key=lambda record: record.time)
    return kept, logs


class _Rows:
    """Spans and log records as rows of numbers, which refer to each other and to a list of all texts."""

    def __init__(self, run: Run, spans: Mapping[Key, Span], logs: Sequence[LogRecord], origin: int) -> None:
        self._run = run
        self._origin = origin
        self._values: dict[tuple[type, Any], int] = {}
        self.samples: list[list[int]] = []
        groups: defaultdict[Key | None, list[Span]] = defaultdict(list)
        for span in spans.values():
            groups[self._root(span, spans)].append(span)
        self._ordered = sorted(groups.pop(None, []), key=lambda span: (span.start, span.span_id))
        self._others = len(self._ordered)
        for key in sorted(groups, key=lambda key: (spans[key].start, key) if key else (0, ("", ""))):
            assert key is not None
            root = spans[key]
            inside = [span for span in groups[key] if span is not root]
            inside.sort(key=lambda span: (span.start, span.span_id))
            self.samples.append([len(self._ordered), len(inside) + 1])
            self._ordered += [root, *inside]
        self._row = {(span.trace_id, span.span_id): row for row, span in enumerate(self._ordered)}
        self._logs = logs

    def document(self) -> dict[str, Any]:
        """Return the rows of spans and log records, and the list of values."""
        spans = [self._span(span) for span in self._ordered]
        logs = [self._log(record) for record in self._logs]
        return {
            "others": self._others,
            "samples": self.samples,
            "spans": spans,
            "logs": logs,
            "values": [value for _, value in self._values],
        }

    def _root(self, span: Span, spans: Mapping[Key, Span]) -> Key | None:
        """Return the sample's span that a span is in, or None."""
        for _ in range(100):
            if span.name == s.FORGE_SAMPLE.type:
                return (span.trace_id, span.span_id)
            parent = spans.get((span.trace_id, span.parent_id))
            if parent is None:
                return None
            span = parent
        return None

    def _span(self, span: Span) -> list[Any]:
        links = [self._row[link[:2]] for link in span.links if link[2] == _BATCH_LINK and link[:2] in self._row]
        is_batch = span.name.startswith((s.FORGE_STAGE_BATCH.type, s.FORGE_MEASUREMENT_BATCH.type))
        return [
            self._value(span.name),
            (span.start - self._origin) // 1000,
            max(0, span.end - span.start) // 1000,
            self._row.get((span.trace_id, span.parent_id), -1),
            int(span.failed),
            self._value(span.message),
            self._attributes(span.attributes, is_sample=span.name == s.FORGE_SAMPLE.type),
            [] if is_batch else links,  # a batch has one for each of its samples
        ]

    def _log(self, record: LogRecord) -> list[Any]:
        return [
            self._value(record.name),
            (record.time - self._origin) // 1000,
            self._row.get((record.trace_id, record.span_id), -1),
            self._value(record.severity),
            self._value(record.body),
            self._attributes(record.attributes, is_sample=False),
        ]

    def _attributes(self, attributes: Mapping[str, Any], *, is_sample: bool) -> list[int]:
        """Return keys and values in turn, without those that are the same all over a run or a sample."""
        left_out = {a.FORGE_RUN_ID, a.FORGE_PIPELINE_NAME} | (set() if is_sample else {a.FORGE_SAMPLE_ID})
        return [
            index
            for key, value in attributes.items()
            if key not in left_out
            for index in (self._value(key), self._value(value))
        ]

    def _value(self, value: Any) -> int:
        if isinstance(value, str) and len(value) > _MAX_TEXT:
            value = value[: _MAX_TEXT - 1] + "…"
        elif isinstance(value, float) and not math.isfinite(value):
            value = str(value)  # JSON has no such number
        return self._values.setdefault((type(value), value), len(self._values))


def first_sample(data: Mapping[str, Any]) -> str | None:
    """Return the id of the first sample in a page's data that failed, or of the first one; None without samples."""
    roots = [data["spans"][first] for first, _ in data["samples"]]
    if not roots:
        return None
    _, _, _, _, _, _, pairs, _ = next((root for root in roots if root[4]), roots[0])
    found = {data["values"][key]: data["values"][value] for key, value in zip(pairs[::2], pairs[1::2], strict=True)}
    return str(found.get(a.FORGE_SAMPLE_ID, ""))
