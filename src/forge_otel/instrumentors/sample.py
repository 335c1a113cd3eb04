"""Samples: their admission, sampling and settlement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import Link
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..engine.deferred_spans import SpanTemplate, count_suppressed, export_deferred
from ..engine.remote import carrier_of
from ..engine.scopes import RUN, SAMPLE, RunScope, SampleScope
from ..patching import faults
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import metrics, spans
from ..semconv.attributes import ForgeLinkType
from ..semconv.attributes import ForgeSampleOutcome as Outcome
from ..semconv.attributes import ForgeTelemetryReason as Reason
from ..signals.context import attach, get_current, with_span
from ..signals.metrics import FLUSH_SIZE
from ..signals.spans import end_span
from ..support.exceptions import message
from ..support.text import fit, fit_values
from .error_types import error_type

if TYPE_CHECKING:
    from forge import Run, Sample, SampleOutcome
    from forge.execution.item import Item

    from ..signals.telemetry import Telemetry

_SAMPLING, _BUDGET = Reason.SAMPLING.value, Reason.BUDGET.value
_FAILURES = frozenset((Outcome.DLQ.value, Outcome.FAILED.value))
_ROOT = trace.set_span_in_context(trace.INVALID_SPAN)
_propagator = TraceContextTextMapPropagator()


# Admission.


def _open(telemetry: Telemetry, item: Item, started: float | None = None) -> SampleScope | None:
    """Apply the sampler to a sample, and leave its scope and span current. Called in the item's context, of which all
    contexts of the sample are copies. `started` is the reading of the run's clock, if a worker has derived it.
    """
    run = RUN.get()
    if run is None or run.ended:
        SAMPLE.set(None)
        return None
    if not run.telemetry.is_closed:  # another one may have replaced it since the run began
        telemetry = run.telemetry
    sample = item.sample
    item.scope = scope = SampleScope(run, sample.id)
    SAMPLE.set(scope)
    if started is not None:
        scope.started = started
    if run.recording or telemetry.config.trace_per_sample:  # which asks the user's sampler about each sample
        try:
            if not run.sampler.traces(sample.id):
                _suppress(run, scope, _SAMPLING)
            else:
                _trace(telemetry, run, scope, sample)
        except Exception as fault:  # noqa: BLE001 - metrics count the sample nevertheless
            faults.suppress(fault, "the span of a sample")
    if run.has_workers:
        own = scope.span.get_span_context() if scope.span is not None else scope.refused
        item.carrier = carrier_of(own) if own is not None else ""
    return scope


def _trace(telemetry: Telemetry, run: RunScope, scope: SampleScope, sample: Sample) -> None:
    """Start the span of a sampled sample, unless the run's span budget is exhausted."""
    run.sampled_ids.add(sample.id)
    if not run.span_budget.take(run.steps):
        _suppress(run, scope, _BUDGET)
        return
    own_trace = telemetry.config.trace_per_sample
    attributes = _attributes(run, sample)
    scope.exported_id = attributes[a.FORGE_SAMPLE_ID]
    span = telemetry.spans.start(
        spans.FORGE_SAMPLE.type,
        _ROOT if own_trace else run.below(get_current()),
        spans.FORGE_SAMPLE.kind,
        attributes,
        _to_run(run) if own_trace else (),
        scope.at(scope.started),
    )
    attach(with_span(span, get_current()))
    if span.is_recording():
        scope.span, scope.spans = span, 1
        run.count_span()
    else:  # dropped by the user's sampler
        scope.refused = span.get_span_context()
        run.span_budget.correct(-run.steps)


def _suppress(run: RunScope, scope: SampleScope, reason: str) -> None:
    """Defer the span of a sample: it is exported only if the sample is tail-kept. The scope takes its place."""
    scope.defer(reason)
    if run.base_context is None:
        run.base_context = get_current()
    attach(with_span(scope, run.base_context))


def _attributes(run: RunScope, sample: Sample) -> dict[str, Any]:
    attributes = {**run.sample_attributes, a.FORGE_SAMPLE_ID: fit(sample.id)}
    if sample.parent is not None:
        attributes[a.FORGE_SAMPLE_PARENT_ID] = fit(sample.parent)
    return attributes


def _to_run(run: RunScope) -> list[Link]:
    return (
        run.telemetry.spans.links(ForgeLinkType.RUN, run.span_context)
        if run.recording and run.span_context is not None
        else []
    )


# Settlement.


def _close(scope: SampleScope, item: Item, outcome: SampleOutcome, error: BaseException | None) -> None:
    run = scope.run
    scope.settled = True
    if run.sampled_ids:
        run.sampled_ids.discard(scope.sample_id)
    if scope.usage is not None:
        scope.usage.count_detected()
    if scope.inside is not None or scope.open_calls:
        _abandon(scope, error if error is not None else asyncio.CancelledError())
    if run.ended:
        return
    duration = scope.clock() - scope.started
    instruments = run.settled[outcome]
    is_slow = run.is_slow is not None and run.is_slow(duration)
    if scope.span is not None:
        instruments.traced.add(duration, scope.span.get_span_context())
        _end_spans(scope, item, outcome, error, is_certain=is_slow or scope.tail_kept or outcome in _FAILURES)
        return
    durations = instruments.pending
    durations.append(duration)
    if len(durations) >= FLUSH_SIZE:
        run.drain()
    if scope.drop_reason is not None:
        if is_slow or scope.tail_kept or outcome in _FAILURES:
            _end_spans(scope, item, outcome, error, is_certain=True)
        else:
            count_suppressed(scope, scope.drop_reason)


def _end_spans(
    scope: SampleScope, item: Item, outcome: SampleOutcome, error: BaseException | None, *, is_certain: bool
) -> None:
    """End the span of a sample, or export its deferred span with all deferred descendants."""
    run = scope.run
    kind = item.failure.error_type if item.failure else error_type(error) if error is not None else None
    ended = {
        a.FORGE_SAMPLE_OUTCOME: outcome.value,
        a.FORGE_SAMPLE_WEIGHT: run.weight(scope.span, is_certain=is_certain),
        a.FORGE_SKIP_REASON: item.skip[1] if item.skip else None,
        a.ERROR_TYPE: kind,
    }
    if scope.usage is not None:
        ended |= scope.usage.attributes_of(spans.FORGE_SAMPLE.type)
    failure = message(error) if error is not None else None
    if scope.span is None:
        template = SpanTemplate(
            spans.FORGE_SAMPLE, spans.FORGE_SAMPLE.type, _attributes(run, item.sample), ended, failure
        )
        links = _to_run(run) if run.telemetry.config.trace_per_sample else []
        export_deferred(scope, template, [*links, *_to_earlier(run, item)])
        scope.drop_steps()
        return
    for link in _to_earlier(run, item):
        scope.span.add_link(link.context, link.attributes)
    if item.skip or kind is not None:
        ended = dict(fit_values(ended))
    end_span(scope.span, ended, failure, scope.at(scope.clock()))
    run.span_budget.correct(scope.spans - run.steps)


def _abandon(scope: SampleScope, error: BaseException) -> None:
    """End calls that still run on a thread that cannot be stopped. Their later results are dropped."""
    path, opened = scope.inside, scope.opened
    if path is not None and scope.claim():
        path.abandon(scope, opened, error)
        scope.opened = 0.0
    for call in tuple(scope.open_calls):
        call.close(None, error)


def _to_earlier(run: RunScope, item: Item) -> list[Link]:
    """Return the link to the trace of the sample's earlier failure, if any. Created at the end, because the dead letter
    is often found only after the admission.
    """
    if item.dead_letter is None or not item.dead_letter.carrier:
        return []
    earlier = trace.get_current_span(_propagator.extract(item.dead_letter.carrier)).get_span_context()
    # Without the sampled flag, the span of the failure was not written.
    is_written = earlier.is_valid and earlier.trace_flags.sampled
    return run.telemetry.spans.links(ForgeLinkType.REPLAY, earlier) if is_written else []


# The seams.


def _admit(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def admit(self: Run, item: Item) -> None:
        telemetry = layer.telemetry
        if telemetry is None:
            original(self, item)
            return
        # Before the admission, since an admitted item may settle at any time.
        scope = None
        try:
            scope = _open(telemetry, item)
        except Exception as fault:  # noqa: BLE001 - the sample is admitted nevertheless
            faults.suppress(fault, "the start of a sample")
        try:
            original(self, item)
        except BaseException:
            _refuse([item])
            raise
        if scope is not None:
            try:
                scope.run.admitted.append(1)
            except Exception as fault:  # noqa: BLE001 - the sample is admitted nevertheless
                faults.suppress(fault, "the admission of a sample")

    return admit


def _derive(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def derive(self: Run, parent: Item, children: Sequence[Item], stage_name: str) -> None:
        telemetry = layer.telemetry
        if telemetry is None:
            original(self, parent, children, stage_name)
            return
        started = parent.scope.split_at if parent.scope is not None else None
        for child in children:
            with faults.protected("the start of a sample"):
                child.context.run(_open, telemetry, child, started)
        try:
            original(self, parent, children, stage_name)
        except BaseException:
            _refuse(children)
            raise
        with faults.protected("the count of derived samples"):
            run = parent.context.get(RUN)
            if run is not None and not run.ended:
                run.series(metrics.FORGE_SAMPLE_DERIVED, a.FORGE_STAGE_NAME, stage_name).append(len(children))

    return derive


def _refuse(items: Sequence[Item]) -> None:
    """End the spans of samples that were not admitted."""
    for item in items:
        scope = item.scope
        if scope is not None and scope.span is not None:
            with faults.protected("the end of a sample"):
                scope.span.end()


def _settle(original: Callable[..., bool], layer: Layer) -> Callable[..., bool]:
    def settle(self: Run, item: Item, outcome: SampleOutcome, error: BaseException | None = None) -> bool:
        settled: bool = original(self, item, outcome, error)
        scope = item.scope if settled and layer.telemetry is not None else None
        if scope is not None:
            try:
                _close(scope, item, outcome, error)
            except Exception as fault:  # noqa: BLE001 - the sample has settled nevertheless
                faults.suppress(fault, "the end of a sample")
        return settled

    return settle


_MODULE = "forge.runner.run"

TARGETS = (
    Target(_MODULE, "Run.admit", _admit),
    Target(_MODULE, "Run.derive", _derive),
    Target(_MODULE, "Run.settle", _settle),
)
