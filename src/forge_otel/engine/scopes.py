"""The state of a run and of each of its samples, carried by their contexts.

A scope owns the layout of deferred steps, of `_STEP` places each. For speed, the wrappers of calls on one sample in
`fast_path.py` and `Arrival.record_each` in `remote.py` write the append of a step out.

An open call is ended exactly once, by its own return or by the settlement of a sample: a call enters the scope before
it looks at `settled`, and leaves it before it looks again; the settlement sets `settled` before it looks for open
calls. So one of them sees the other, and where both do, a claim decides: `SampleScope.claim` on the fast path,
`Call.claim` on the slow path and for batches. `SharedSpan` has a claim of the same kind: one of the samples of a batch
exports or counts its span.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, get_current_span

from ..semconv import attributes as a
from ..semconv import metrics, spans
from ..semconv.attributes import ForgeTelemetryReason as Reason
from ..semconv.attributes import ForgeTelemetrySignal as Signal
from ..signals.context import with_span
from ..signals.metrics import LOCK_TIMEOUT, BoundInstruments, Buffer
from ..signals.spans import start_attributes
from .deferred_spans import Step, late_attributes
from .sampling import EventBudget, Sampler, SpanBudget, outer_share, without_threshold

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span

    from ..semconv.definitions import Metric
    from ..signals.metrics import Series
    from ..signals.telemetry import Telemetry
    from .call import Call
    from .deferred_spans import SpanTemplate
    from .detected_usage import UsageAccumulator
    from .fast_path import FastPath, Opened

RUN: ContextVar[RunScope | None] = ContextVar("forge_otel_run", default=None)
"""The run that the current work belongs to."""

SAMPLE: ContextVar[SampleScope | None] = ContextVar("forge_otel_sample", default=None)
"""The sample that the current work belongs to; None in a batch, whose items carry theirs."""

MAX_STEPS: Final = 64
"""Deferred steps kept for one sample, the last ones: a stage may use the storage any number of times."""

_STEP: Final = 4
"""Places that a step takes in a scope's list. As tuples, steps would cost more than what they measure: the garbage
collector looks at each of them.
"""
_MAX_PLACES: Final = MAX_STEPS * _STEP


_NO_CALLS: Final[Mapping[Any, None]] = MappingProxyType({})


def current_identity() -> Mapping[str, Any]:
    """The attributes of the run that the current work belongs to; none outside of runs."""
    run = RUN.get()
    return run.identity if run is not None else {}


class RunScope:
    """One run, from its begin to its end."""

    __slots__ = (
        "__weakref__",
        "_buffers",
        "_series",
        "_spans",
        "_spans_asked",
        "_suppressed",
        "_suppressed_buffers",
        "admitted",
        "base_context",
        "call",
        "clock",
        "ended",
        "event_budget",
        "faults_before",
        "has_workers",
        "identity",
        "is_slow",
        "lock",
        "parent",
        "paths",
        "read",
        "recording",
        "sample_attributes",
        "sampled_ids",
        "sampler",
        "settled",
        "share",
        "span_budget",
        "span_context",
        "steps",
        "telemetry",
        "undelivered_before",
        "waits",
        "wall_ns",
        "worker_paths",
    )

    def __init__(  # noqa: PLR0915, PLR0917 - a record
        self,
        telemetry: Telemetry,
        call: Call,
        identity: Mapping[str, Any],
        clock: Callable[[], float],
        wall_ns: Callable[[], int],
        faults_before: int,
        share: float | None = None,
        *,
        has_workers: bool = False,
    ) -> None:
        self.telemetry = telemetry
        self.has_workers = has_workers
        """True if stages are executed by worker processes, which samples carry their context to."""
        self.call = call
        """The run's own span and attributes."""
        self.base_context: Context | None = None
        """The run's OpenTelemetry context, cached when the first untraced sample is admitted."""
        self.identity = identity
        """Attributes that name the run, on every span, metric and event."""
        self.sample_attributes = start_attributes(spans.FORGE_SAMPLE, identity)
        """Attributes with which the span of every sample starts."""
        self.clock = clock
        """Readings in seconds; the run's own, so that durations agree with the run's record."""
        self.wall_ns = wall_ns
        """Unix time in nanoseconds, by the same clock."""
        self.recording = call.span is not None and call.span.is_recording()
        """True if its trace is recorded: if the run's span is not, nothing of the run is."""
        self.span_context, self.parent = _as_parent(call.span, telemetry.config.sampling_rate)
        """Its span as the parent of others: the context, and a span to make current where the context differs."""
        self.share = share
        """The share of traces that the sampler takes, or of those like the run's; None if it is not known."""
        self.ended = False
        """The run has given its account: what an abandoned thread still brings is not recorded."""
        self.faults_before = faults_before
        self.undelivered_before = 0
        """Spans and log records in exports that had failed before the run."""
        """Number of faults of the telemetry when the run began."""
        self.paths: dict[int, FastPath] = {}
        """The fast path of each stage, measurement and storage of the run, by the `id` of that."""
        self.worker_paths: dict[tuple[int, str], FastPath] = {}
        """Fast paths of executions in worker processes, by the id of the worker as well."""
        self.is_slow: Callable[[float], bool] | None = None
        """Says whether a sample that took so many seconds is slow; to be asked for each one that settles, if given."""
        self.steps = 1
        """Expected number of spans of a sample."""
        self.sampler = Sampler(telemetry.config.sampling_rate)
        self.span_budget = SpanBudget(telemetry.config.span_budget)
        self.event_budget = EventBudget(telemetry.config.event_budget)
        self._series: dict[tuple[str, str | None], Series] = {}
        self._buffers: list[Buffer] = []
        self.admitted = self.series(metrics.FORGE_SAMPLE_ADMITTED)
        """Counts the samples that were admitted."""
        self.read = self.bind([self.series(metrics.FORGE_SOURCE_DURATION)], [self.series(metrics.FORGE_SOURCE_READS)])
        """Duration and number of reads of samples from the source."""
        self.settled: Mapping[str, BoundInstruments] = {
            outcome.value: self.bind(
                [self.series(metrics.FORGE_SAMPLE_DURATION, a.FORGE_SAMPLE_OUTCOME, outcome.value)],
                [self.series(metrics.FORGE_SAMPLE_SETTLED, a.FORGE_SAMPLE_OUTCOME, outcome.value)],
            )
            for outcome in a.ForgeSampleOutcome
        }
        """Duration and number of settled samples, by outcome."""
        self.sampled_ids: set[str] = set()
        """The ids that the sampler chose, of the samples that have not settled."""
        self.waits: dict[str, Series] = {}
        """Waiting times of samples in front of a stage, by its name."""
        self._spans = itertools.count(int(self.recording))
        self._spans_asked = self._suppressed = 0
        self._suppressed_buffers: dict[tuple[str, str], Buffer] = {}
        self.lock = threading.Lock()
        """Lock of the counts of this scope; held for a moment."""

    @property
    def spans(self) -> int:
        """Number of spans of the run that were recorded."""
        with self.lock:  # a count says how far it is only by going on
            self._spans_asked += 1
            return next(self._spans) - self._spans_asked + 1

    @property
    def suppressed(self) -> int:
        """Number of spans and events of the run that sampling and budgets left out."""
        for buffer in tuple(self._suppressed_buffers.values()):
            buffer.drain(LOCK_TIMEOUT)
        return self._suppressed

    def count_span(self) -> None:
        next(self._spans)  # which several threads may do at the same time

    def suppress(self, signal: str, reason: str, records: int = 1) -> None:
        """So many spans or events are left out."""
        buffer = self._suppressed_buffers.get((signal, reason))
        if buffer is None:
            with self.lock:
                buffer = self._suppressed_buffers.get((signal, reason))
                if buffer is None:
                    buffer = self._suppressed_buffers[signal, reason] = self._suppressed_buffer(signal, reason)
        buffer.append(records)
        if self.ended:  # nobody else will look
            buffer.drain()

    def _suppressed_buffer(self, signal: str, reason: str) -> Buffer:
        extra = {a.FORGE_TELEMETRY_SIGNAL: signal, a.FORGE_TELEMETRY_REASON: reason}
        table = self.telemetry.series
        series = table.get(metrics.FORGE_TELEMETRY_SUPPRESSED, {**self.identity, **extra})
        self._buffers.append(table.buffer(series.name, partial(self._count_suppressed, series)))
        return self._buffers[-1]

    def _count_suppressed(self, series: Series, records: Sequence[int]) -> None:
        total = sum(records)
        with self.lock:
            self._suppressed += total
        series.append(total)

    def series(self, metric: Metric, attribute: str = "", value: str | None = None) -> Series:
        """The run's series of a metric, with one more attribute; for what is written for every sample. The values are
        those that the pipeline's definition fixes.
        """
        key = (metric.name, value)
        series = self._series.get(key)
        if series is None:
            series = self.telemetry.series.get(metric, {**self.identity, attribute: value})
            self._series[key] = series
        return series

    def bind(
        self, durations: Sequence[Series], counts: Sequence[Series], totals: Sequence[Series] = ()
    ) -> BoundInstruments:
        """Bind instruments, to be written at the run's end at the latest."""
        bound = BoundInstruments(self.telemetry.series, durations, counts, totals)
        self._buffers += [bound, bound.traced]
        return bound

    def below(self, context: Context) -> Context:
        """Return a context for spans that start in another one: below the run's span without its threshold."""
        if self.parent is None or self.span_context is None:
            return context
        above = get_current_span(context).get_span_context()
        return with_span(self.parent, context) if above.span_id == self.span_context.span_id else context

    def weight(self, own: Span | None, *, is_certain: bool) -> float | None:
        """Return the number of samples that the span of one stands for; None if that is not known.

        `own` is its span, if it is open. Certain are those that would be written at every rate.
        """
        rate = self.telemetry.config.sampling_rate
        if rate >= 1 or self.span_budget.has_refused:
            return None
        share = self.share
        if own is not None and self.telemetry.config.trace_per_sample:
            theirs = outer_share(own.get_span_context())
            share = theirs if theirs is not None else share
        if not share:
            return None
        return 1 / share if is_certain else 1 / (share * rate)

    def may_emit(self, error_type: str) -> bool:
        """Return True if the budget allows one more event about an error of this class; count it as left out if not."""
        if self.event_budget.take(error_type):
            return True
        self.suppress(Signal.EVENT.value, Reason.BUDGET.value)
        return False

    def export(  # noqa: PLR0917 - what a span is made of
        self,
        template: SpanTemplate,
        context: SpanContext,
        parent: SpanContext | None,
        links: Sequence[Link],
        started: int,
        ended: int,
        sample_id: str | None = None,
        extra: Mapping[str, Any] = {},
    ) -> SpanContext:
        """Export a deferred span; times are Unix times in nanoseconds. Returns its context."""
        attributes = late_attributes(template, sample_id, extra)
        kind, failure, exceptions = template.defined.kind, template.failure, template.exceptions
        exported, recorded = self.telemetry.spans.export(
            template.name, context, parent, kind, attributes, links, failure, started, ended, exceptions
        )
        if recorded:
            self.count_span()
        return exported

    def drain(self) -> None:
        """Write what is buffered. Calls of samples do not look how much that is: the settlement of a sample does, of
        which there is one for all of its calls.
        """
        for buffer in tuple(self._buffers):
            buffer.drain()

    def close(self) -> None:
        """Send every call the slow path, which sees that the run has ended, and write what is buffered."""
        self.forget()
        while self._buffers:
            self.telemetry.series.release(self._buffers.pop())

    def forget(self) -> None:
        """Send every call the slow path, without a look at what is buffered."""
        self.paths.clear()
        self.worker_paths.clear()
        self.waits.clear()


def _as_parent(span: Span | None, rate: float) -> tuple[SpanContext | None, Span | None]:
    """Return the context of a run's span as the parent of others, and a span with it if that is not the span itself.

    Samples that are thinned again do not have the threshold of their trace.
    """
    if span is None:
        return None, None
    context = span.get_span_context()
    thinned = without_threshold(context) if rate < 1 else context
    return thinned, None if thinned is context else NonRecordingSpan(thinned)


class SampleScope(NonRecordingSpan):
    """One sample, from its admission until it settles.

    Where it is not traced, it stands for its own span, which may be exported later and is not recorded: other
    instrumentations do not record either, and logs refer to it.
    """

    # There is a scope for every sample. What every call looks at has a slot, which is read in a third of the time; the
    # defaults of the rest stand on the class.
    __slots__ = (
        "clock",
        "drop_reason",
        "exported_id",
        "inside",
        "kept",
        "opened",
        "paths",
        "run",
        "sample_id",
        "settled",
        "span",
        "started",
        "usage",
        "waited",
    )

    spans = 0
    """Spans that it has."""
    refused: SpanContext | None = None
    """The context of its span, where the user's sampler drops it."""
    tail_kept = False
    """True if it was retried, which is worth a trace."""
    granted: int | None = None
    """Spans that the run's budget has granted before the sample settles, 0 if it refused; None if it was not asked."""
    dropped_steps = 0
    """Steps that were dropped because there were too many."""
    split_at: float | None = None
    """Reading of the run's clock at which a worker split it; None where it was not split, or in this process."""
    notes: Sequence[Any] = ()
    """Findings of a call on the fast path, such as retries."""
    open_calls: Mapping[Call, None] = _NO_CALLS
    """Calls on the slow path that have not come back, in the order in which they began."""
    _began_ns: int | None = None

    def __init__(self, run: RunScope, sample_id: str) -> None:
        self.run = run
        self.sample_id = sample_id
        self.exported_id: str
        """The id as spans have it; set where it is traced."""
        self.clock = clock = run.clock
        self.started = clock()
        self.paths = run.paths
        self.span: Span | None = None
        """Its span, where it is traced."""
        self.drop_reason: str | None = None
        """The reason for which it is not traced, where that is ours: then it keeps steps."""
        self.kept: list[Any] | None = None
        """The steps that it keeps, `_STEP` places each: template, start, duration and queue wait. Calls of the
        pipeline's own stages and measurements, of which a sample has a limited number, add theirs here, past
        `add_step`, and so drop none."""
        self.inside: FastPath | None = None
        """The fast path on which a call is open. There is one at a time; others take the slow path."""
        self.opened: Opened = 0.0
        """The state of that call; of a batch, the `Call` itself, which is claimed in place of the scope."""
        self.settled = False
        """It is settling: what begins now is not recorded."""
        self.usage: UsageAccumulator | None = None
        """Usage of API calls; None as long as there are none."""
        self.waited: float | None = None
        """Seconds in the queue of the last stage; None if there was no queue."""

    def get_span_context(self) -> SpanContext:
        """The ids of the span that may be exported later. They are drawn when somebody asks for them, which of most
        samples nobody does.
        """
        context = self.__dict__.get("_context")
        if context is None:  # the first of several threads that ask decides
            telemetry = self.run.telemetry
            parent = None if telemetry.config.trace_per_sample else self.run.span_context
            context = self.__dict__.setdefault("_context", telemetry.spans.reserve(parent))
        return context  # type: ignore[no-any-return]

    def is_granted(self) -> bool:
        """Ask the run's budget now, since it fails or is retried. Returns True if its spans are exported later."""
        if self.granted is None:
            with self.run.lock:
                if self.granted is None:
                    spans = 2 + len(self.kept or ()) // _STEP  # its own, and that of what fails
                    self.granted = spans if self.run.span_budget.take(spans, from_reserve=True) else 0
        return self.granted > 0

    def late_flags(self) -> TraceFlags:
        """Return the trace flags of its spans, which are exported later if the run's budget allows it."""
        if not self.is_granted():
            return TraceFlags.get_default()
        run = self.run
        if run.telemetry.config.trace_per_sample or run.span_context is None:
            return run.telemetry.spans.root_flags(self.get_span_context().trace_id)
        return run.span_context.trace_flags

    def late_context(self) -> SpanContext:
        """Return the context of its span, which is exported later if the run's budget allows it."""
        own = self.get_span_context()
        return SpanContext(own.trace_id, own.span_id, False, self.late_flags(), own.trace_state)

    def __reduce__(self) -> tuple[type[NonRecordingSpan], tuple[SpanContext]]:
        return NonRecordingSpan, (self.get_span_context(),)  # copies and other processes get its ids

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sample_id!r})"

    @property
    def over(self) -> bool:
        """True if nothing is held back for it any more."""
        return self.settled

    def at(self, reading: float) -> int:
        """The Unix time in nanoseconds of a reading of the run's clock.

        All times of a sample come from one look at the wall clock, which may be set meanwhile.
        """
        began = self._began_ns
        if began is None:
            began = self._began_ns = self.run.wall_ns() - round((self.clock() - self.started) * 1e9)
        return began + round((reading - self.started) * 1e9)

    def enter_path(self, path: FastPath, opened: Opened) -> bool:
        """Begin a call on the fast path. False where the sample has settled, so that it is not to be recorded."""
        self.inside, self.opened = path, opened
        return not (self.settled and self.leave_path())

    def leave_path(self) -> bool:
        """The call on the fast path has come back. False where the settlement has ended it."""
        self.inside = None
        if self.settled and not self.claim():
            return False
        self.opened = 0.0  # the token of a traced call leads to a context that leads here
        return True

    def claim(self) -> bool:
        """True if the call on the fast path is the caller's to end: the call's itself, or the settlement's.

        Only where both happen in the same moment they have to ask.
        """
        return vars(self).setdefault("_claimed_by", claimant := object()) is claimant

    def enter(self, call: Call) -> bool:
        """Begin a call on the slow path. False where the sample has settled, so that it is not to be recorded.

        In this order: either the settlement finds the call, or the call sees that the sample has settled.
        """
        # Several threads may begin the first call at once: one of their dicts is kept.
        calls: dict[Call, None] = vars(self).setdefault("open_calls", {})
        calls[call] = None
        if not self.settled:
            return True
        calls.pop(call, None)
        return False

    def leave(self, call: Call) -> None:
        """Let the sample settle without ending a call."""
        if self.opened is call:  # a batch on the fast path
            self.inside, self.opened = None, 0.0
        elif self.open_calls:
            self.open_calls.pop(call, None)  # type: ignore[attr-defined]  # it has entered, so this is a dict

    def defer(self, reason: str) -> None:
        """Have no span, for this reason, and keep steps instead."""
        self.kept, self.drop_reason = [], reason

    def add_step(self, template: SpanTemplate, started: float, duration: float, waited: float | None = None) -> None:
        """Keep a step, and drop the first ones if there are too many."""
        assert self.kept is not None
        self.kept += (template, started, duration, waited)
        self._last_steps()

    def _last_steps(self) -> list[Any]:
        """Drop the first steps if there are too many. Returns the others."""
        steps = self.kept
        assert steps is not None
        while len(steps) > _MAX_PLACES:
            template = steps[0]
            del steps[:_STEP]
            # That of a batch is counted by the last of its samples.
            if template.shared is None or not template.shared.is_step(template) or template.shared.leave():
                self.dropped_steps += 1
        return steps

    def templates(self) -> Sequence[SpanTemplate]:
        """The templates of the last steps, in the order in which they ended."""
        return self._last_steps()[::_STEP]

    def steps(self) -> Iterator[Step]:
        """The last steps, in the order in which they ended."""
        steps = tuple(self._last_steps())  # a call that was abandoned may come back meanwhile
        return itertools.starmap(Step, zip(*(steps[place::_STEP] for place in range(_STEP)), strict=False))

    def drop_steps(self) -> None:
        """Keep no steps any longer."""
        if self.kept is not None:
            self.kept.clear()


def add_batch(
    scopes: Sequence[SampleScope],
    whole: SpanTemplate,
    part: SpanTemplate,
    started: float,
    duration: float,
    *,
    queued: bool,
) -> None:
    """Have each sample of a batch keep two steps: the batch, and its own part in it."""
    batch = (whole, started, duration, None, part, started, duration)
    for scope in scopes:
        kept: Any = scope.kept
        kept += batch
        kept.append(scope.waited if queued else None)
        if len(kept) > _MAX_PLACES:
            scope._last_steps()
