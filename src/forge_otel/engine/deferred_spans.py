"""Spans that are written after the fact: of samples that were not traced and turned out to be worth it.

A sample that is not traced keeps a trail, one step for each operation on it. When it settles it is dropped, or written
as spans with the times, parents, attributes and status that they would have had.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import Link

from ..semconv import attributes as a
from ..semconv.attributes import ForgeTelemetryReason as Reason
from ..semconv.attributes import ForgeTelemetrySignal as Signal
from ..signals.spans import end_span

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from ..semconv import definitions
    from .scopes import RunScope, SampleScope

_SPAN: Final = Signal.SPAN.value

LONGEST: Final = 64
"""How many steps of one sample are kept, the last ones; a stage may use the storage any number of times."""


class Record:
    """What a span says, but for its times."""

    __slots__ = ("attributes", "defined", "ended", "error", "name", "samples", "settled", "written")

    def __init__(  # noqa: PLR0917 - a record
        self,
        defined: definitions.Span,
        name: str,
        attributes: Mapping[str, Any],
        ended: Mapping[str, Any],
        error: BaseException | None = None,
        samples: int = 0,
    ) -> None:
        self.defined = defined
        self.name = name
        self.attributes = attributes
        """Those that it starts with; the sample's id need not be among them."""
        self.ended = ended
        self.error = error
        self.samples = samples
        """Of a batch, how many samples have it on their trail; else 0."""
        self.settled = itertools.count(1)
        """Counts those that have settled."""
        self.written = False

    def failed(self, error: BaseException) -> Record:
        """The same of a call that failed."""
        return Record(self.defined, self.name, self.attributes, self.ended, error)


Step = tuple[Record, float, float]
"""What was done, when it began by the run's clock, and the seconds that it took."""

STEP: Final = 3
"""How many places a step takes on a trail. As tuples, steps would cost more than what they measure: the garbage
collector looks at each of them.
"""


def write_late(scope: SampleScope, record: Record, links: Sequence[Link]) -> None:
    """A sample that was not traced settles, and is worth it: write its spans, if the run's budget allows it. The record
    is that of its own span.
    """
    trail = tuple(scope.trail)  # a call that was abandoned may come back meanwhile
    steps = [step for step in zip(*(trail[part::STEP] for part in range(STEP)), strict=True) if not step[0].written]
    if scope.run.span_budget.take(1 + len(steps), from_reserve=True):
        _write_sample(scope, steps, record, links)
    else:
        leave_out(scope, Reason.BUDGET.value)


def leave_out(scope: SampleScope, why: str) -> None:
    """A sample that was not traced settles: count the spans that it would have. That of a batch is counted with the
    last of its samples, unless it was written with another one.
    """
    left_out = 1 + len(scope.trail) // STEP
    if scope.shares_steps:
        for record in scope.trail[::STEP]:
            if record.samples and (record.written or next(record.settled) != record.samples):
                left_out -= 1
    scope.run.suppress(_SPAN, why, left_out)


def _write_sample(scope: SampleScope, steps: Sequence[Step], record: Record, links: Sequence[Link]) -> None:
    run, settled = scope.run, scope.clock()
    context = scope.get_span_context()
    began = time.time_ns() - round((settled - scope.started) * 1e9)

    def at(reading: float) -> int:
        return began + round((reading - scope.started) * 1e9)

    above = run.call.context
    if run.span_context is None or context.trace_id != run.span_context.trace_id:  # a trace of its own
        above = trace.set_span_in_context(trace.INVALID_SPAN)
    with run.telemetry.ids.used(context):
        span = _start(run, record, above, at(scope.started), links=links)
    inside = [trace.set_span_in_context(span)] * len(steps)
    for index in reversed(range(len(steps))):
        done, started, duration = steps[index]
        parent = _parent(steps, index)
        if done.samples:
            done.written = True
            child = _start(run, done, run.call.context, at(started), links=[Link(context)])
        else:
            child = _start(
                run, done, inside[index if parent is None else parent], at(started), sample_id=scope.sample_id
            )
        inside[index] = trace.set_span_in_context(child)
        ended = done.ended
        if scope.spending is not None and not done.samples:
            ended = {**ended, **scope.spending.said_by(done.name)}
        end_span(child, ended, done.error, at(started + duration))
    end_span(span, record.ended, record.error, at(settled))


def write_step(run: RunScope, step: Step, ended: int) -> None:
    """Write the span of what belongs to no sample, and was not traced; `ended` is a Unix time in nanoseconds."""
    record, _, duration = step
    span = _start(run, record, None, ended - round(duration * 1e9))
    end_span(span, record.ended, record.error, ended)


def _parent(steps: Sequence[Step], index: int) -> int | None:
    """The step within which another one began; it ended later, so it comes behind on the trail."""
    began = steps[index][1]
    for later in range(index + 1, len(steps)):
        _, started, duration = steps[later]
        if started < began <= started + duration:
            return later
    return None


def _start(
    run: RunScope,
    record: Record,
    context: Context | None,
    started: int,
    *,
    links: Sequence[Link] = (),
    sample_id: str | None = None,
) -> Span:
    attributes = {**record.attributes, a.FORGE_TRACE_LATE: True}
    if sample_id is not None and a.FORGE_SAMPLE_ID in record.defined.start_attributes:
        attributes[a.FORGE_SAMPLE_ID] = sample_id
    span = run.telemetry.spans.start(record.name, context, record.defined.kind, attributes, links, started)
    if span.is_recording():
        run.count_span()
    return span
