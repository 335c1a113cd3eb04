"""The operations that took longest, failed most and waited most, in one pass and bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from forge.support.percentiles import Sketch

from ...semconv import attributes as a
from ...semconv import events, spans
from .. import next_commands
from .records import LogRecord, Span, number
from .sources import Problem, Source

MAX_OPERATIONS: Final = 1_000
"""Maximum number of operations, and of kinds of errors, that are told apart."""
OTHERS: Final = "(others)"
"""The name of all further ones."""
MAX_PROBLEMS: Final = 5
_CONTAINERS: Final = (spans.FORGE_SAMPLE.type, spans.FORGE_PIPELINE.type)
"""Spans that contain what happens to samples: their errors are those of other spans."""


@dataclass(slots=True)
class Where:
    """The span or log record that a row leads to."""

    trace_id: str = ""
    sample_id: str = ""
    run_id: str = ""

    @classmethod
    def of(cls, record: Span | LogRecord) -> Where:
        """Return the place of a record."""
        sample_id = record.attributes.get(a.FORGE_SAMPLE_ID, "")
        return cls(record.trace_id, str(sample_id), str(record.attributes.get(a.FORGE_RUN_ID, "")))

    def document(self, source: Source) -> dict[str, Any]:
        """Return it as a document, with the command that shows it."""
        return {
            "sample_id": self.sample_id or None,
            "run_id": self.run_id or None,
            "trace_id": self.trace_id or None,
            "next": self.next(source),
        }

    def next(self, source: Source) -> str | None:
        """Return the command that shows it."""
        if self.sample_id:
            return next_commands.waterfall(self.sample_id, source.options)
        return next_commands.waterfall(self.trace_id, source.options) if self.trace_id else None


@dataclass(slots=True)
class _Operation:
    durations: Sketch = field(default_factory=Sketch)
    total: float = 0.0
    errors: int = 0
    slowest: float = -1.0
    where: Where = field(default_factory=Where)

    def add(self, span: Span) -> None:
        duration = span.duration
        self.durations.add(duration)
        self.total += duration
        self.errors += span.failed
        if duration > self.slowest:
            self.slowest, self.where = duration, Where.of(span)


@dataclass(slots=True)
class _Error:
    count: int = 0
    first: int = 0
    message: str = ""
    where: Where = field(default_factory=Where)

    def add(self, record: Span, message: str) -> None:
        self.count += 1
        if self.count == 1 or record.start < self.first:
            self.first, self.message, self.where = record.start, message, Where.of(record)


@dataclass(slots=True)
class _Wait:
    queue: float = 0.0
    retries: float = 0.0
    retry_count: int = 0
    backpressure: float = 0.0
    longest: float = -1.0
    where: Where = field(default_factory=Where)

    @property
    def total(self) -> float:
        return self.queue + self.retries + self.backpressure

    def add(self, seconds: float, record: Span | LogRecord) -> None:
        if seconds > self.longest:
            where = Where.of(record)
            if where.sample_id or not self.where.sample_id:  # a sample leads further than a batch
                self.longest, self.where = seconds, where


class Top:
    """Aggregates of operations, errors and waits."""

    def __init__(self) -> None:
        self.spans = 0
        self.log_records = 0
        self.problems: list[str] = []
        self.problem_count = 0
        self._operations: dict[str, _Operation] = {}
        self._errors: dict[tuple[str, str], _Error] = {}
        self._waits: dict[str, _Wait] = {}

    def add_all(self, records: Iterable[Span | LogRecord | Problem]) -> None:
        """Add spans and log records; count the problems, and keep the first ones."""
        for record in records:
            if isinstance(record, Span):
                self._add_span(record)
            elif isinstance(record, LogRecord):
                self._add_log_record(record)
            else:
                self.problem_count += 1
                if len(self.problems) < MAX_PROBLEMS:
                    self.problems.append(str(record))

    def document(self, source: Source, limit: int) -> dict[str, Any]:
        """Return the first `limit` rows of each table."""
        return {
            "spans": self.spans,
            "log_records": self.log_records,
            "unreadable": self.problem_count,
            "operations": self._slowest(source, limit),
            "errors": self._failures(source, limit),
            "waits": self._longest_waits(source, limit),
        }

    def _add_span(self, span: Span) -> None:
        self.spans += 1
        name = span.name if span.name in self._operations or len(self._operations) < MAX_OPERATIONS else OTHERS
        operation = self._operations.get(name)
        if operation is None:
            operation = self._operations[name] = _Operation()
        operation.add(span)
        if span.failed:
            key = (name, str(span.attributes.get(a.ERROR_TYPE, "")))
            if key not in self._errors and len(self._errors) >= MAX_OPERATIONS:
                key = (OTHERS, "")
            self._errors.setdefault(key, _Error()).add(span, span.message)
        waited = number(span.attributes, a.FORGE_STAGE_QUEUE_WAIT)
        if waited is not None:
            wait = self._wait(span)
            wait.queue += waited
            wait.add(waited, span)

    def _add_log_record(self, record: LogRecord) -> None:
        self.log_records += 1
        if record.name == events.FORGE_STAGE_RETRY.name:
            delay = number(record.attributes, a.FORGE_STAGE_RETRY_DELAY)
            if delay is not None:
                wait = self._wait(record)
                wait.retries += delay
                wait.retry_count += 1
                wait.add(delay, record)
        elif record.name == events.FORGE_STAGE_SUMMARY.name:
            blocked = number(record.attributes, a.FORGE_SUMMARY_BACKPRESSURE)
            if blocked is not None:
                self._wait(record).backpressure += blocked

    def _wait(self, record: Span | LogRecord) -> _Wait:
        stage = str(record.attributes.get(a.FORGE_STAGE_NAME, ""))
        if stage not in self._waits and len(self._waits) >= MAX_OPERATIONS:
            stage = OTHERS
        return self._waits.setdefault(stage, _Wait())

    def _slowest(self, source: Source, limit: int) -> list[dict[str, Any]]:
        def p95(operation: _Operation) -> float:
            return operation.durations.quantile(0.95) or 0.0

        # A run, and a sample, takes as long as all that is in it.
        rows = [(name, each) for name, each in self._operations.items() if not name.startswith(_CONTAINERS)]
        rows = sorted(rows or self._operations.items(), key=lambda row: (-p95(row[1]), row[0]))
        return [
            {
                "name": name,
                "count": each.durations.count,
                "errors": each.errors,
                "p50": each.durations.quantile(0.5),
                "p95": p95(each),
                "p99": each.durations.quantile(0.99),
                "max": each.durations.maximum,
                "total": each.total,
                "slowest": each.where.document(source),
            }
            for name, each in rows[:limit]
        ]

    def _failures(self, source: Source, limit: int) -> list[dict[str, Any]]:
        below: dict[str, int] = {}
        for (name, error_type), error in self._errors.items():
            if not name.startswith(_CONTAINERS):
                below[error_type] = below.get(error_type, 0) + error.count
        rows = [
            (name, error_type, error)
            for (name, error_type), error in self._errors.items()
            if not (name.startswith(_CONTAINERS) and error.count <= below.get(error_type, 0))
        ]
        rows.sort(key=lambda row: (-row[2].count, row[2].first, row[0]))
        return [
            {
                "name": name,
                "error_type": error_type or None,
                "count": error.count,
                "message": error.message,
                "first": error.where.document(source),
            }
            for name, error_type, error in rows[:limit]
        ]

    def _longest_waits(self, source: Source, limit: int) -> list[dict[str, Any]]:
        rows = sorted(self._waits.items(), key=lambda row: (-row[1].total, row[0]))
        return [
            {
                "stage": stage,
                "total": wait.total,
                "queue": wait.queue,
                "retries": wait.retries,
                "retry_count": wait.retry_count,
                "backpressure": wait.backpressure,
                "longest": {"wait": max(0.0, wait.longest), **wait.where.document(source)},
            }
            for stage, wait in rows[:limit]
            if wait.total > 0
        ]


def top(source: Source, limit: int) -> tuple[dict[str, Any], Sequence[str]]:
    """Return the report on a source as a document, and the first lines that could not be read."""
    found = Top()
    found.add_all(source.records())
    return found.document(source, limit), found.problems
