"""What the telemetry keeps about a run and about each sample, carried by their contexts."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import NonRecordingSpan

from ..semconv import attributes as a
from ..semconv import metrics
from ..semconv.attributes import ForgeTelemetryReason as Reason
from ..semconv.attributes import ForgeTelemetrySignal as Signal
from ..signals.metrics import PATIENCE, Buffer, Tally
from .deferred_spans import LONGEST, STEP
from .sampling import EventBudget, Sampler, SpanBudget

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext

    from ..semconv.definitions import Metric
    from ..signals.metrics import Series
    from ..signals.telemetry import Telemetry
    from .batch_lane import BatchLane
    from .call import Call
    from .deferred_spans import Step
    from .detected_usage import Spending
    from .lane import Lane
    from .write_lane import WriteLane

RUN: ContextVar[RunScope | None] = ContextVar("forge_otel_run", default=None)
"""The run that the current work belongs to."""

SAMPLE: ContextVar[SampleScope | None] = ContextVar("forge_otel_sample", default=None)
"""The sample that the current work belongs to; None in a batch, whose items carry theirs."""


def current_identity() -> Mapping[str, Any]:
    """The attributes of the run that the current work belongs to; none outside of runs."""
    run = RUN.get()
    return run.identity if run is not None else {}


class RunScope:
    """One run, from its begin to its end."""

    __slots__ = (
        "__weakref__",
        "_buffers",
        "_left_out",
        "_series",
        "_spans",
        "_spans_asked",
        "_suppressed",
        "admitted",
        "around",
        "call",
        "chosen",
        "clock",
        "ended",
        "event_budget",
        "faults_before",
        "identity",
        "is_slow",
        "lock",
        "measurement_batches",
        "measurements",
        "read",
        "recording",
        "sampler",
        "settled",
        "span_budget",
        "span_context",
        "stage_batches",
        "stages",
        "steps",
        "telemetry",
        "waits",
        "writes",
    )

    def __init__(
        self,
        telemetry: Telemetry,
        call: Call,
        identity: Mapping[str, Any],
        clock: Callable[[], float],
        faults_before: int,
    ) -> None:
        self.telemetry = telemetry
        self.call = call
        """The run's own span and attributes."""
        self.around: Context | None = None
        """What is current where no sample is, whose contexts are copies of the run's; known since the first one that is
        not traced.
        """
        self.identity = identity
        """What says on every span, metric and event which run it belongs to."""
        self.clock = clock
        """Readings in seconds; the run's own, so that durations agree with the run's record."""
        self.recording = call.span is not None and call.span.is_recording()
        """Whether its trace is recorded: if the run's span is not, nothing of the run is."""
        self.span_context = call.span.get_span_context() if call.span is not None else None
        self.ended = False
        """The run has given its account: what an abandoned thread still brings is not recorded."""
        self.faults_before = faults_before
        """How many faults of the telemetry there had been when the run began."""
        self.stages: dict[str, Lane] = {}
        """What is known about the run's stages beforehand, by name."""
        self.measurements: dict[str, Lane] = {}
        """The same for the measurements, by key."""
        self.stage_batches: dict[str, BatchLane] = {}
        """The same for stages that take batches."""
        self.measurement_batches: dict[str, BatchLane] = {}
        """The same for measurements that do."""
        self.is_slow: Callable[[float], bool] | None = None
        """Says whether a sample that took so many seconds is slow; to be asked for each one that settles, if given."""
        self.steps = 1
        """How many spans a sample is expected to have."""
        self.sampler = Sampler(telemetry.config.sampling_rate)
        self.span_budget = SpanBudget(telemetry.config.span_budget)
        self.event_budget = EventBudget(telemetry.config.event_budget)
        self._series: dict[tuple[str, str | None], Series] = {}
        self._buffers: list[Buffer] = []
        self.admitted = self.series(metrics.FORGE_SAMPLE_ADMITTED)
        """Counts the samples that were admitted."""
        self.read = self.tally([self.series(metrics.FORGE_SOURCE_DURATION)], [self.series(metrics.FORGE_SOURCE_READS)])
        """Of the samples that were read, how long that took."""
        self.settled: Mapping[str, Tally] = {
            outcome.value: self.tally(
                [self.series(metrics.FORGE_SAMPLE_DURATION, a.FORGE_SAMPLE_OUTCOME, outcome.value)],
                [self.series(metrics.FORGE_SAMPLE_SETTLED, a.FORGE_SAMPLE_OUTCOME, outcome.value)],
            )
            for outcome in a.ForgeSampleOutcome
        }
        """Of the samples that have settled, how long they took, by outcome."""
        self.writes: dict[int, WriteLane] = {}
        """What is known beforehand about what is stored, by the `id` of the storage."""
        self.chosen: set[str] = set()
        """The ids that the sampler chose, of those that have not settled."""
        self.waits: dict[str, Series] = {}
        """How long samples waited in front of a stage, by its name."""
        self._spans = itertools.count(int(self.recording))
        self._spans_asked = self._suppressed = 0
        self._left_out: dict[tuple[str, str], Buffer] = {}
        self.lock = threading.Lock()
        """Of what is counted here; held for a moment."""

    @property
    def spans(self) -> int:
        """How many spans of the run were recorded."""
        with self.lock:  # a count says how far it is only by going on
            self._spans_asked += 1
            return next(self._spans) - self._spans_asked + 1

    @property
    def suppressed(self) -> int:
        """How many spans and events of the run were left out by sampling and budgets."""
        for buffer in tuple(self._left_out.values()):
            buffer.drain(PATIENCE)
        return self._suppressed

    def count_span(self) -> None:
        next(self._spans)  # which several threads may do at the same time

    def suppress(self, signal: str, reason: str, records: int = 1) -> None:
        """So many spans or events are left out."""
        buffer = self._left_out.get((signal, reason))
        if buffer is None:
            with self.lock:
                buffer = self._left_out.get((signal, reason))
                if buffer is None:
                    buffer = self._left_out[signal, reason] = self._buffer_of_left_out(signal, reason)
        buffer.append(records)
        if self.ended:  # nobody else will look
            buffer.drain()

    def _buffer_of_left_out(self, signal: str, reason: str) -> Buffer:
        said = {a.FORGE_TELEMETRY_SIGNAL: signal, a.FORGE_TELEMETRY_REASON: reason}
        table = self.telemetry.series
        series = table.get(metrics.FORGE_TELEMETRY_SUPPRESSED, {**self.identity, **said})
        self._buffers.append(table.buffer(series.name, partial(self._count_left_out, series)))
        return self._buffers[-1]

    def _count_left_out(self, series: Series, records: Sequence[int]) -> None:
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

    def tally(self, durations: Sequence[Series], counts: Sequence[Series], totals: Sequence[Series] = ()) -> Tally:
        """A tally that is written at the run's end at the latest."""
        tally = Tally(self.telemetry.series, durations, counts, totals)
        self._buffers += [tally, tally.traced]
        return tally

    def may_emit(self, error_type: str) -> bool:
        """Whether the budget allows one more event about an error of this class; else it is counted as left out."""
        if self.event_budget.take(error_type):
            return True
        self.suppress(Signal.EVENT.value, Reason.BUDGET.value)
        return False

    def close_lanes(self) -> None:
        """Send every call the long way, which sees that the run has ended, or that nobody is listening any more."""
        self.forget_lanes()
        while self._buffers:
            self.telemetry.series.release(self._buffers.pop())

    def forget_lanes(self) -> None:
        """The same without a look at what has come by them."""
        lanes = (self.stages, self.measurements, self.stage_batches, self.measurement_batches, self.waits, self.writes)
        for known in lanes:
            known.clear()


class SampleScope(NonRecordingSpan):
    """One sample, from its admission until it settles.

    Where it is not traced, it is itself what stands for its span, which may be written later and is not recorded: other
    instrumentations do not record either, and logs refer to it.
    """

    __slots__ = (
        "_claimed",
        "busy",
        "busy_since",
        "busy_span",
        "calls",
        "clock",
        "measurements",
        "notable",
        "notes",
        "run",
        "sample_id",
        "settled",
        "shares_steps",
        "span",
        "spans",
        "spending",
        "stages",
        "started",
        "trail",
        "why",
    )

    def __init__(self, run: RunScope, sample_id: str) -> None:
        self.run = run
        self.sample_id = sample_id
        self.clock = run.clock
        self.started = run.clock()
        self.span: Span | None = None
        """Its span, where it is traced."""
        self.spans = 0
        """How many spans it has."""
        self.why: str | None = None
        """Why it is not traced, where we left it out."""
        self.trail: list[Any] = []
        """What was done, where it is not traced: steps, one behind the other."""
        self.shares_steps = False
        """Steps on its trail are on those of others as well: it was in batches."""
        self.notable = False
        """It was retried: that is worth a trace."""
        self.notes: Sequence[Any] = ()
        """What is found out in a call that goes by a lane, such as retries."""
        self.stages: Mapping[str, Lane] = run.stages
        self.measurements: Mapping[str, Lane] = run.measurements
        """The lanes that its calls go by."""
        self.busy: Lane | None = None
        """The lane by which a call goes on. One can; others then go the long way."""
        self.busy_since = 0.0
        self.busy_span: Span | None = None
        """The call's span, where the sample is traced."""
        self._claimed = False
        self.calls: dict[Call, None] = {}
        """Other operations on this sample that have not come back; in the order in which they began."""
        self.settled = False
        """It is settling: what begins now is not recorded."""
        self.spending: Spending | None = None
        """What API calls used; None as long as there are none."""

    def get_span_context(self) -> SpanContext:
        """The ids of the span that may be written later. They are drawn when somebody asks for them, which of most
        samples nobody does.
        """
        context = self.__dict__.get("_context")
        if context is None:  # the first of several threads that ask decides
            telemetry = self.run.telemetry
            parent = None if telemetry.config.trace_per_sample else self.run.span_context
            context = self.__dict__.setdefault("_context", telemetry.ids.reserve(parent))
        return context  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sample_id!r})"

    @property
    def over(self) -> bool:
        """Whether nothing is held back for it any more."""
        return self.settled

    def add_step(self, step: Step) -> None:
        """Put a step on the trail, and take the first off if it is too long."""
        if step[0].samples:
            self.shares_steps = True
        self.trail.extend(step)
        if len(self.trail) > LONGEST * STEP:
            del self.trail[:STEP]

    def claim(self) -> bool:
        """Whether the call that goes on is the caller's to end: the call itself ends, or the sample settles meanwhile.

        Only where both happen in the same moment they have to ask. The call takes itself out of `busy` before it looks
        at `settled`, and the settling sample sets `settled` before it looks at `busy`: so one of them sees the other.
        """
        with self.run.lock:
            unclaimed, self._claimed = not self._claimed, True
        return unclaimed

    def end_busy(self) -> bool:
        """The call that went on by a lane has come back; says whether it is to be recorded."""
        self.busy = None
        return not self.settled or self.claim()
