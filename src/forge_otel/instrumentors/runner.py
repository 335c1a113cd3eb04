"""Runs: their begin and end, the source, and every sample's way in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import Link
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .. import guard
from ..operation import Call, Emission, Ending, Operation, Point
from ..patching import Layer, Target
from ..scope import RUN, SAMPLE, RunScope, SampleScope
from ..semconv import attributes as a
from ..semconv import events, metrics, spans
from ..semconv.attributes import ForgeRunOutcome
from ..series import Attributes
from .errors import error_type
from .summary import last_run, summaries
from .zeros import zero_points

if TYPE_CHECKING:
    from forge import Run, RunOutcome, RunResult, Sample, SampleOutcome, Stage
    from forge.item import Item

    from ..telemetry import Telemetry


# The run.


def _start_run(run: Run) -> Attributes:
    return {
        a.FORGE_PIPELINE_NAME: run.pipeline.name,
        a.FORGE_PIPELINE_ID: run.pipeline.id,
        a.FORGE_RUN_ID: run.id,
        a.FORGE_RUNNER_NAME: run.runner,
    }


def _announce_run(call: Call) -> Sequence[Emission]:
    return [Emission(events.FORGE_PIPELINE_START, f"Run started: {call.arguments[0].pipeline.name}")]


def _end_run(call: Call, result: RunResult | None, fault: BaseException | None) -> Ending:
    run: Run = call.arguments[0]
    raised: BaseException | None = fault or call.notes[0]
    outcome = ForgeRunOutcome.FAILED.value if result is None else result.outcome.value
    kind = result.error_type if result is not None else error_type(fault) if fault is not None else None
    duration = result.duration if result is not None else call.elapsed
    said = {a.FORGE_RUN_OUTCOME: outcome, a.ERROR_TYPE: kind}
    emissions = []
    if outcome == ForgeRunOutcome.FAILED:
        body = f"Run failed: {run.pipeline.name}, {kind}"
        emissions.append(Emission(events.FORGE_PIPELINE_EXCEPTION, body, {a.ERROR_TYPE: kind}, raised))
    body = f"Run {outcome}: {run.pipeline.name}, after {duration:.3g} s"
    emissions.append(Emission(events.FORGE_PIPELINE_STOP, body, said))
    points = [
        Point(metrics.FORGE_PIPELINE_COMPLETED),
        Point(metrics.FORGE_PIPELINE_DURATION, duration),
    ]
    if result is not None:
        scope = run.context.get(RUN)
        assert scope is not None
        counted = {
            a.FORGE_SUMMARY_SPANS: scope.spans,
            a.FORGE_SUMMARY_FAULTS: call.telemetry.faults - scope.faults_before,
        }
        emissions += summaries(result, {**said, **counted})
        points += last_run(result)
    return Ending(attributes=said, error=raised, points=points, events=emissions)


RUN_OPERATION = Operation(
    name="a run",
    span=spans.FORGE_PIPELINE,
    start=_start_run,
    announce=_announce_run,
    end=_end_run,
    hooks="run",
    subject=lambda run: (run,),
)


def _open_run(telemetry: Telemetry, run: Run) -> None:
    """Start the run's span and leave it current: this is called in the run's context, of which all others of the run
    are copies.
    """
    RUN.set(None)  # a run inside a stage of another one is a run of its own
    SAMPLE.set(None)
    faults_before = telemetry.faults
    call = RUN_OPERATION.open(telemetry, run)
    if call is None:
        return
    identity = {a.FORGE_PIPELINE_NAME: run.pipeline.name, a.FORGE_RUN_ID: run.id}
    scope = RunScope(call, identity, run.clock.monotonic, faults_before)
    if call.span is not None and call.span.is_recording():
        scope.count_span()
    RUN.set(scope)
    call.make_current()
    with guard.protected("the state of a run"):
        telemetry.state.add(run)
    with guard.protected("the zero points"):
        telemetry.write_zeros(zero_points(run, telemetry.config.components))
    call.write(Point(metrics.FORGE_PIPELINE_STARTED))


def _begin(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def begin(self: Run) -> None:
        telemetry = layer.telemetry
        if telemetry is not None:
            with guard.protected("the start of a run"):
                _open_run(telemetry, self)
        original(self)

    return begin


def _end(original: Callable[..., RunResult], layer: Layer) -> Callable[..., RunResult]:
    def end(self: Run, outcome: RunOutcome, error: BaseException | None) -> RunResult:
        telemetry = layer.telemetry
        scope = self.context.get(RUN) if telemetry is not None else None
        if scope is None:
            return original(self, outcome, error)
        scope.call.notes.append(error)
        try:
            return scope.call.observe(original, self, outcome, error)
        finally:
            scope.ended = True
            with guard.protected("the state of a run"):
                telemetry.state.remove(self)

    return end


# The source.


def _end_pull(call: Call, sample: Sample | None, error: BaseException | None) -> Ending:
    if sample is None and error is None:
        return Ending()  # there was nothing more to read
    return Ending(
        attributes={a.ERROR_TYPE: error_type(error) if error is not None else None},
        points=[Point(metrics.FORGE_SOURCE_READS), Point(metrics.FORGE_SOURCE_DURATION, call.elapsed)],
    )


PULL = Operation(name="reading the source", end=_end_pull)


def _pull(original: Callable[..., Sample | None], layer: Layer) -> Callable[..., Sample | None]:
    def pull(self: Run) -> Sample | None:
        return PULL.call(layer, original, self)

    return pull


# Samples.


def _start_sample(item: Item) -> Attributes:
    return {a.FORGE_SAMPLE_ID: item.sample.id, a.FORGE_SAMPLE_PARENT_ID: item.sample.parent}


def _end_sample(call: Call, settled: tuple[SampleOutcome, BaseException | None] | None, _: Any) -> Ending:
    item: Item = call.arguments[0]
    if settled is None:
        return Ending()  # it came too late to be admitted
    outcome, error = settled
    kind = item.failure.error_type if item.failure else error_type(error) if error is not None else None
    return Ending(
        attributes={
            a.FORGE_SAMPLE_OUTCOME: outcome.value,
            a.FORGE_SKIP_REASON: item.skip[1] if item.skip else None,
            a.ERROR_TYPE: kind,
        },
        error=error,
        points=[Point(metrics.FORGE_SAMPLE_SETTLED), Point(metrics.FORGE_SAMPLE_DURATION, call.elapsed)],
    )


SAMPLE_OPERATION = Operation(name="a sample", span=spans.FORGE_SAMPLE, start=_start_sample, end=_end_sample)


def _open_sample(telemetry: Telemetry, item: Item) -> None:
    """Start the sample's span and leave it current: this is called in the item's context."""
    run = RUN.get()
    if run is None:
        return
    SAMPLE.set(None)
    if telemetry.config.trace_per_sample:
        links = [Link(run.call.span.get_span_context())] if run.call.span is not None else []
        root = trace.set_span_in_context(trace.INVALID_SPAN)
        call = SAMPLE_OPERATION.open(telemetry, item, parent=root, links=links)
    else:
        call = SAMPLE_OPERATION.open(telemetry, item)
    if call is not None:
        SAMPLE.set(SampleScope(call))
        call.make_current()


def _close_sample(scope: SampleScope, item: Item, outcome: SampleOutcome, error: BaseException | None) -> None:
    scope.settled = True
    # Calls that were abandoned on a thread that cannot be stopped: whatever they still bring comes too late.
    for call in tuple(scope.open):
        call.close(None, error or asyncio.CancelledError())
    with guard.protected("the link to an earlier trace"):
        _link_earlier(scope, item)
    scope.call.close((outcome, error))


def _link_earlier(scope: SampleScope, item: Item) -> None:
    """Where the sample had failed before, link to the trace of that. Which sample has is often known only after its
    admission, so it is done at the end.
    """
    if scope.call.span is None or item.dead_letter is None or not item.dead_letter.carrier:
        return
    earlier = trace.get_current_span(_propagator.extract(item.dead_letter.carrier))
    if earlier.get_span_context().is_valid:
        scope.call.span.add_link(earlier.get_span_context())


_propagator = TraceContextTextMapPropagator()


def _end_admission(call: Call, _: None, error: BaseException | None) -> Ending:
    # Without the run: it began before it could be observed, so it would be counted in part.
    return Ending() if error or not call.run else Ending(points=[Point(metrics.FORGE_SAMPLE_ADMITTED)])


def _end_derivation(call: Call, _: None, error: BaseException | None) -> Ending:
    children, stage = call.arguments[2:]
    if error or not call.run:
        return Ending()
    return Ending(points=[Point(metrics.FORGE_SAMPLE_DERIVED, len(children), {a.FORGE_STAGE_NAME: stage.name})])


ADMISSION = Operation(name="an admission", end=_end_admission)
DERIVATION = Operation(name="a split", end=_end_derivation)


def _admit(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def admit(self: Run, item: Item) -> None:
        telemetry = layer.telemetry
        # Before the item is admitted, since from then on it may settle at any time.
        if telemetry is not None:
            with guard.protected("the start of a sample"):
                _open_sample(telemetry, item)
        try:
            ADMISSION.call(layer, original, self, item)
        except BaseException:
            _refused([item])
            raise

    return admit


def _derive(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def derive(self: Run, parent: Item, children: Sequence[Item], stage: Stage) -> None:
        telemetry = layer.telemetry
        if telemetry is not None:
            for child in children:
                with guard.protected("the start of a sample"):
                    child.context.run(_open_sample, telemetry, child)
        try:
            DERIVATION.call(layer, original, self, parent, children, stage)
        except BaseException:
            _refused(children)
            raise

    return derive


def _refused(items: Sequence[Item]) -> None:
    for item in items:
        scope = item.context.get(SAMPLE)
        if scope is not None:
            scope.call.close(None)


def _settle(original: Callable[..., bool], layer: Layer) -> Callable[..., bool]:
    def settle(self: Run, item: Item, outcome: SampleOutcome, error: BaseException | None = None) -> bool:
        settled: bool = original(self, item, outcome, error)
        scope = item.context.get(SAMPLE) if settled and layer.telemetry is not None else None
        if scope is not None:
            with guard.protected("the end of a sample"):
                _close_sample(scope, item, outcome, error)
        return settled

    return settle


_MODULE = "forge.runner.run"

TARGETS = (
    Target(_MODULE, "Run.begin", _begin),
    Target(_MODULE, "Run.end", _end),
    Target(_MODULE, "Run.pull", _pull),
    Target(_MODULE, "Run.admit", _admit),
    Target(_MODULE, "Run.derive", _derive),
    Target(_MODULE, "Run.settle", _settle),
)
