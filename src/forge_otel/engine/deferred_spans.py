"""Deferred spans: steps of samples that are not traced, exported when a sample turns out to matter.

A sample that is not traced keeps a step for each operation on it. When it settles they are dropped, or exported as
spans with the times, parents, attributes and status that they would have had.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from ..semconv import attributes as a
from ..semconv.attributes import ForgeLinkType
from ..semconv.attributes import ForgeTelemetryReason as Reason
from ..semconv.attributes import ForgeTelemetrySignal as Signal
from ..signals.spans import are_plain, without_none
from ..support.text import fit, fit_values

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link

    from ..semconv import definitions
    from .scopes import RunScope, SampleScope

_SPAN: Final = Signal.SPAN.value
_BUDGET: Final = Reason.BUDGET.value
_LATE: Final[Mapping[str, Any]] = {a.FORGE_TRACE_LATE: True}


class SpanTemplate:
    """All that a span says but for its times and its sample; shared by the spans of many calls."""

    __slots__ = ("attributes", "defined", "ended", "exceptions", "failure", "is_plain", "name", "own", "shared")

    def __init__(  # noqa: PLR0917 - a record
        self,
        defined: definitions.Span,
        name: str,
        attributes: Mapping[str, Any],
        ended: Mapping[str, Any],
        failure: str | None = None,
        shared: SharedSpan | None = None,
        exceptions: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.defined = defined
        self.name = name
        self.attributes = attributes
        """Attributes at its start; the sample's id need not be among them."""
        self.ended = fit_values(without_none(ended))
        self.failure = failure
        """The message of the error, where the call failed."""
        self.exceptions = exceptions
        """The attributes of the exceptions that are events of the span."""
        self.shared = shared
        """The span of the batch: itself, or the one that it links to."""
        self.own: SpanContext | None = None
        """Context of the one span that has this template, if an event refers to it."""
        self.is_plain = are_plain(attributes) and are_plain(self.ended)
        """True if all attributes are of types that need no look from the SDK."""

    def varied(
        self, *, failure: str | None, shared: SharedSpan | None, exceptions: Sequence[Mapping[str, Any]] = ()
    ) -> SpanTemplate:
        """Return a copy for a call that failed with this message and these exceptions, or for a part of this batch."""
        other = object.__new__(SpanTemplate)
        other.defined, other.name = self.defined, self.name
        other.attributes, other.ended, other.is_plain = self.attributes, self.ended, self.is_plain
        other.failure, other.exceptions, other.shared, other.own = failure, exceptions, shared, None
        return other


class SharedSpan:
    """The span of a batch: a step of several samples, exported and counted once."""

    __slots__ = ("_left", "_lock", "_own", "_template", "context")

    def __init__(self, samples: int, context: SpanContext | None = None, own: SpanContext | None = None) -> None:
        self.context = context
        """Context of the span, once there is one."""
        self._own = own
        """The one that it will have, if an event refers to it."""
        self._template: SpanTemplate | None = None
        self._left = samples
        self._lock = threading.Lock()

    def defer(self, template: SpanTemplate) -> SpanTemplate:
        """Keep what the span would say, as a step of each of the samples."""
        self._template = template.varied(failure=template.failure, shared=self, exceptions=template.exceptions)
        return self._template

    def is_step(self, template: SpanTemplate) -> bool:
        """True for the batch's own step."""
        return template is self._template

    def reserve(self, run: RunScope) -> SpanContext | None:
        """The context of the span if it is the caller's to export; None if another sample has exported it."""
        with self._lock:
            if self.context is not None:
                return None
            self.context = self._own or run.telemetry.spans.reserve(run.span_context)
            return self.context

    def leave(self) -> bool:
        """A sample settles without it: True for the last one, if no other has exported it."""
        with self._lock:
            self._left -= 1
            return self._left == 0 and self.context is None


class Step(NamedTuple):
    """One operation on a sample: what its span would say, its start by the run's clock, and its duration in seconds.

    `waited` are the seconds that the sample had waited in the queue of a stage; None if it had not.
    """

    template: SpanTemplate
    started: float
    duration: float
    waited: float | None


def export_deferred(scope: SampleScope, template: SpanTemplate, links: Sequence[Link]) -> None:
    """Export the spans of a sample that settles and was not traced, if the run's budget allows it.

    The template is that of its own span.
    """
    # Only those of batches that no other sample has exported.
    steps = [step for step in scope.steps() if not _is_exported(step.template)]
    if _grant(scope, 1 + len(steps)):
        _export_sample(scope, steps, template, links)
        if scope.dropped_steps:
            scope.run.suppress(_SPAN, scope.drop_reason or _BUDGET, scope.dropped_steps)
    else:
        count_suppressed(scope, _BUDGET)


def _grant(scope: SampleScope, spans: int) -> bool:
    """Return True if the run's budget allows so many spans; where it was asked before, it is told how many they are."""
    if scope.granted is None:
        return scope.run.span_budget.take(spans, from_reserve=True)
    if scope.granted:
        scope.run.span_budget.correct(spans - scope.granted)
    return scope.granted > 0


def count_suppressed(scope: SampleScope, reason: str) -> None:
    """Count the spans that a sample that settles would have had.

    A batch span is counted once, when its last sample settles, unless another sample has already exported it.
    """
    templates = scope.templates()
    suppressed = 1 + scope.dropped_steps + len(templates)
    for template in templates:
        shared = template.shared
        if shared is not None and shared.is_step(template) and not shared.leave():
            suppressed -= 1
    scope.run.suppress(_SPAN, reason, suppressed)
    if scope.granted:
        scope.run.span_budget.correct(-scope.granted)


def _is_exported(template: SpanTemplate) -> bool:
    shared = template.shared
    return shared is not None and shared.is_step(template) and shared.context is not None


def _export_sample(scope: SampleScope, steps: Sequence[Step], template: SpanTemplate, links: Sequence[Link]) -> None:
    run = scope.run
    own = scope.get_span_context()
    above = run.span_context
    if above is None or own.trace_id != above.trace_id:  # a trace of its own
        above = None
    settled = scope.clock()
    own = run.export(template, own, above, links, scope.at(scope.started), scope.at(settled))
    contexts = [own] * len(steps)
    # The batches first: others link to them.
    for done, started, duration, _ in steps:
        if done.shared is not None and done.shared.is_step(done):
            context = done.shared.reserve(run)
            if context is not None:
                # In a trace of its own, the sample's span may be dropped by the user's sampler.
                taken = own.trace_flags.sampled
                linked = run.telemetry.spans.links(ForgeLinkType.BATCH, own) if taken else ()
                began, ended = scope.at(started), scope.at(started + duration)
                done.shared.context = run.export(done, context, run.span_context, linked, began, ended)
    for index in reversed(range(len(steps))):
        done, started, duration, waited = steps[index]
        if done.shared is not None and done.shared.is_step(done):
            continue
        parent = _parent(steps, index)
        usage = scope.usage.attributes_of(done.name) if scope.usage is not None else {}
        extra = {**usage, a.FORGE_STAGE_QUEUE_WAIT: waited}
        batch = done.shared.context if done.shared is not None and run.recording else None
        contexts[index] = run.export(
            done,
            done.own or run.telemetry.spans.reserve(own),
            own if parent is None else contexts[parent],
            run.telemetry.spans.links(ForgeLinkType.BATCH, batch) if batch is not None else (),
            scope.at(started),
            scope.at(started + duration),
            scope.sample_id,
            extra,
        )


def export_alone(run: RunScope, template: SpanTemplate, context: Context, started: int, ended: int) -> None:
    """Export the span of what belongs to no sample, and was not traced; times are Unix times in nanoseconds."""
    parent = trace.get_current_span(context).get_span_context()
    run.export(template, template.own or run.telemetry.spans.reserve(parent), parent, (), started, ended)


def late_attributes(template: SpanTemplate, sample_id: str | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    """All attributes of a span that is exported after the fact."""
    if sample_id is not None and a.FORGE_SAMPLE_ID in template.defined.start_attributes:
        own = {a.FORGE_SAMPLE_ID: fit(sample_id)}
        return {**template.attributes, **own, **_LATE, **template.ended, **without_none(extra)}
    return {**template.attributes, **_LATE, **template.ended, **without_none(extra)}


def _parent(steps: Sequence[Step], index: int) -> int | None:
    """The step within which another one began; it ended later, so it comes behind."""
    began = steps[index].started
    for later in range(index + 1, len(steps)):
        template, started, duration, _ = steps[later]
        if template.shared is not None and template.shared.is_step(template):
            continue
        if started < began <= started + duration:
            return later
    return None
