"""Runs: their start and end, and reading the source."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..engine.call import CALL, Call, Clocks, observe, open_call
from ..engine.detected_usage import usage_attributes
from ..engine.operation import LogEvent, MetricPoint, Operation, Result
from ..engine.sampling import outer_share
from ..engine.scopes import RUN, SAMPLE, RunScope
from ..patching import faults
from ..patching.patches import Layer, Target
from ..semconv import attributes as a
from ..semconv import events, metrics, spans
from ..semconv.attributes import ForgeRunOutcome, ForgeRunType
from ..signals.context import missing_parent
from ..signals.metrics import Attributes
from ..support.exceptions import is_a
from . import measurement, stage, storage
from .error_types import error_type
from .initial_points import initial_points
from .run_summary import last_run, summaries
from .slow import slow_detection

if TYPE_CHECKING:
    from forge import Pipeline, Run, RunOutcome, RunResult, Sample
    from forge.runner.stalls import Stall

    from ..signals.telemetry import Telemetry


_propagator = TraceContextTextMapPropagator()
_baggage = W3CBaggagePropagator()
_WITH_WORKERS = frozenset({"ray"})
"""Runners whose stages are executed by worker processes."""

# The run.


def _start_run(run: Run) -> Attributes:
    from forge.runner.revision import code_revision  # noqa: PLC0415 - `forge` is imported by now

    return {
        a.FORGE_PIPELINE_NAME: run.pipeline.name,
        a.FORGE_PIPELINE_ID: run.pipeline.id,
        a.FORGE_RUN_ID: run.id,
        a.FORGE_RUN_TYPE: run.type.value,
        a.FORGE_RUNNER_NAME: run.runner,
        a.VCS_REF_HEAD_REVISION: code_revision(),
    }


_ON_SPAN_ONLY: Attributes = {a.VCS_REF_HEAD_REVISION: None}
"""Attributes that the events of a run lack; the summary gives them itself."""


def _announce_run(call: Call) -> Sequence[LogEvent]:
    return [LogEvent(events.FORGE_PIPELINE_START, f"Run started: {call.arguments[0].pipeline.name}", _ON_SPAN_ONLY)]


def _end_run(call: Call, result: RunResult | None, fault: BaseException | None) -> Result:
    run: Run = call.arguments[0]
    raised: BaseException | None = fault if fault is not None else call.notes[0]
    if _is_budget_stop(raised):
        raised = None
    outcome = ForgeRunOutcome.FAILED.value if result is None else result.outcome.value
    kind = result.error_type if result is not None else error_type(fault) if fault is not None else None
    duration = result.duration if result is not None else call.elapsed
    attributes = {a.FORGE_RUN_OUTCOME: outcome, a.ERROR_TYPE: kind}
    log_events = []
    if outcome == ForgeRunOutcome.FAILED:
        body = f"Run failed: {run.pipeline.name}, {kind}"
        log_events.append(LogEvent(events.FORGE_PIPELINE_EXCEPTION, body, {a.ERROR_TYPE: kind}, raised))
    body = f"Run {outcome}: {run.pipeline.name}, after {duration:.3g} s"
    log_events.append(LogEvent(events.FORGE_PIPELINE_STOP, body, attributes))
    points = [
        MetricPoint(metrics.FORGE_PIPELINE_COMPLETED),
        MetricPoint(metrics.FORGE_PIPELINE_DURATION, duration),
    ]
    if result is not None:
        scope = run.context.get(RUN)
        assert scope is not None
        counted = {
            a.FORGE_SUMMARY_SPANS: scope.spans,
            a.FORGE_SUMMARY_SUPPRESSED: scope.suppressed,
            a.FORGE_SUMMARY_FAULTS: call.telemetry.faults - scope.faults_before,
        }
        log_events += summaries(result, {**attributes, **counted})
        if run.type.value == ForgeRunType.FULL:
            points += last_run(result, run.clock.time())
        attributes = {**attributes, **usage_attributes(result.cost.charges)}
    log_events = [event._replace(attributes={**_ON_SPAN_ONLY, **event.attributes}) for event in log_events]
    return Result(attributes=attributes, error=raised, points=points, events=log_events, duration=duration)


def _is_budget_stop(reason: BaseException | None) -> bool:
    """Return True if a run ended because it reached its budget, which is not an error."""
    from forge.errors import BudgetReached  # noqa: PLC0415 - `forge` is imported by now

    return is_a(reason, BudgetReached)


RUN_OPERATION = Operation(
    name="a run",
    span=spans.FORGE_PIPELINE,
    start=_start_run,
    announce=_announce_run,
    end=_end_run,
    hooks="run",
    hook_arguments=lambda run: (run,),
    hook_result=copy.deepcopy,
)


def _stall_noticed(call: Call, _: None, __: BaseException | None) -> Result:
    stall: Stall = call.arguments[1]
    flight = f"{stall.active} sample{'' if stall.active == 1 else 's'} in flight"
    places = "; ".join([stall.reason.value, flight, *map(str, stall.stages)])
    body = f"Run stalled: {call.arguments[0].pipeline.name}, nothing settled for {stall.duration:.3g} s: {places}"
    attributes = {
        a.FORGE_STALL_REASON: stall.reason.value,
        a.FORGE_STALL_DURATION: stall.duration,
        a.FORGE_STALL_ACTIVE: stall.active,
        a.FORGE_STAGE_NAME: stall.stage,
    }
    return Result(events=[LogEvent(events.FORGE_PIPELINE_STALLED, body, {**_ON_SPAN_ONLY, **attributes})])


STALL = Operation(name="a stall", start=lambda run, _: _start_run(run), end=_stall_noticed)


def _open_run(telemetry: Telemetry, run: Run) -> None:
    """Start the run's span and leave it current. Called in the run's context, of which all contexts of the run are
    copies.
    """
    RUN.set(None)  # a run inside a stage of another run is independent
    SAMPLE.set(None)
    telemetry.prepare()
    faults_before = telemetry.faults
    clocks = Clocks(run.clock.monotonic, _wall_ns(run))
    parent = missing_parent(telemetry.config.parent_from_environment)
    if parent is not None:
        otel_context.attach(parent)
    above = trace.get_current_span()
    call = open_call(RUN_OPERATION, telemetry, run, clocks=clocks)
    if call is None:
        return
    identity = {a.FORGE_PIPELINE_NAME: run.pipeline.name, a.FORGE_RUN_ID: run.id}
    has_workers = run.runner in _WITH_WORKERS
    share = _share(telemetry, call, above)
    scope = RunScope(telemetry, call, identity, *clocks, faults_before, share, has_workers=has_workers)
    scope.undelivered_before = telemetry.delivery.failed
    RUN.set(scope)
    CALL.set(None)
    if call.context is not None:  # never detached: all contexts of the run are copies of this one
        otel_context.attach(call.context)
    with faults.protected("the fast paths of a run"):
        scope.is_slow = slow_detection(telemetry.config.slow_threshold)
        _open_paths(scope, run.pipeline)
    with faults.protected("the carrier of a run"):
        if call.span is not None and call.span.is_recording():
            _propagator.inject(run.carrier, trace.set_span_in_context(call.span))
    if has_workers:
        with faults.protected("the carrier of workers"):
            run.worker_carrier = {**_worker_carrier(), **run.worker_carrier}
    with faults.protected("the observables of a run"):
        telemetry.observables.add_run(run)
    with faults.protected("the initial points"):
        telemetry.write_initial_points(initial_points(run, telemetry.config.components))
    call.write(MetricPoint(metrics.FORGE_PIPELINE_STARTED))


def _worker_carrier() -> dict[str, str]:
    """Return what workers need beside the run's trace context: the baggage, and the configuration of the SDK."""
    carrier = {name: value for name, value in os.environ.items() if name.startswith(("OTEL_", "FORGE_OTEL_"))}
    _baggage.inject(carrier)
    return carrier


def _share(telemetry: Telemetry, call: Call, above: trace.Span) -> float | None:
    """Return the share of traces like those of the run's samples that the user's sampler takes; None if it decides
    unseen. `above` is the span around the run.
    """
    starts_here = not above.get_span_context().is_valid or getattr(above, "parent", above) is None
    if call.span is not None and (starts_here or not telemetry.config.trace_per_sample):
        share = outer_share(call.span.get_span_context())
        if share is not None:
            return share
    decided_here = starts_here or telemetry.config.trace_per_sample
    return 1.0 if decided_here and telemetry.spans.takes_every_root() else None


def _open_paths(scope: RunScope, pipeline: Pipeline) -> None:
    """Compile the fast paths of a run, except for operations with hooks and with the setting `events="all"`."""
    config = scope.telemetry.config
    scope.steps = 1 + len(pipeline.stages) + len(pipeline.measurements)
    scope.telemetry.runs.add(scope)
    for each in pipeline.stages:
        scope.waits[each.name] = scope.series(metrics.FORGE_STAGE_QUEUE_DURATION, a.FORGE_STAGE_NAME, each.name)
    if config.events == "all":
        return
    if pipeline.storage is not None and "storage" in config.components:
        scope.paths[id(pipeline.storage)] = storage.fast_path(scope, pipeline.storage)
    if config.on_stage_start is None and config.on_stage_end is None:
        for each in pipeline.stages:
            scope.paths[id(each)] = stage.fast_path(scope, each)
    if config.on_measurement_start is None and config.on_measurement_end is None:
        for measured in pipeline.measurements:
            scope.paths[id(measured)] = measurement.fast_path(scope, measured)


def _wall_ns(run: Run) -> Callable[[], int]:
    """Return the clock of a run's Unix time in nanoseconds."""
    now = run.clock.time
    return time.time_ns if now is time.time else lambda: round(now() * 1e9)


def _begin(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def begin(self: Run) -> None:
        telemetry = layer.telemetry
        if telemetry is not None:
            with faults.protected("the start of a run"):
                _open_run(telemetry, self)
        original(self)
        if telemetry is not None and self.pipeline.storage is not None:
            with faults.protected("the places of dead letters"):
                telemetry.observables.add_places(self.pipeline)

    return begin


def _stalled(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def stalled(self: Run, stall: Stall) -> None:
        observe(STALL, layer, original, self, stall)

    return stalled


def _losses(telemetry: Telemetry, scope: RunScope) -> dict[str, str]:
    """Return what telemetry has recorded and lost until the end of a run, for its record.

    What is still in queues then is in none of the numbers, nor is what the end itself writes.
    """
    delivery = telemetry.delivery
    return {
        "telemetry.spans": f"{scope.spans}",
        "telemetry.suppressed": f"{scope.suppressed}",
        "telemetry.faults": f"{telemetry.faults - scope.faults_before}",
        "telemetry.undelivered": f"{delivery.failed - scope.undelivered_before}",
        "telemetry.queue_full": "true" if delivery.was_full else "false",
    }


def _end(original: Callable[..., RunResult], layer: Layer) -> Callable[..., RunResult]:
    def end(self: Run, outcome: RunOutcome, error: BaseException | None) -> RunResult:
        telemetry = layer.telemetry
        scope = self.context.get(RUN) if telemetry is not None else None
        if scope is None:
            return original(self, outcome, error)
        scope.call.notes = (error,)
        with faults.protected("the losses of a run's telemetry"):
            self.carrier.update(_losses(telemetry, scope))
        try:
            return scope.call.observe(original, self, outcome, error)
        finally:
            scope.ended = True
            with faults.protected("the fast paths of a run"):
                scope.close()
            with faults.protected("the observables of a run"):
                scope.telemetry.observables.remove_run(self)

    return end


def _ended(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def ended(self: Run, exiting: bool) -> None:
        original(self, exiting)
        telemetry = layer.telemetry
        if telemetry is not None:
            with faults.protected("the flush at a run's end"):
                scope = self.context.get(RUN)
                if scope is not None and not scope.telemetry.is_closed:
                    telemetry = scope.telemetry
                telemetry.run_ended(scope, self.shutdown_timeout, exiting=exiting)

    return ended


def _exiting(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def exiting(timeout: float | None) -> None:
        original(timeout)
        telemetry = layer.telemetry
        if telemetry is not None:
            with faults.protected("the delivery at exit"):
                telemetry.exit(timeout)

    return exiting


# The source.


def _failed_to_pull(run: RunScope, began: float, error: BaseException) -> None:
    with faults.protected("reading the source"):
        run.series(metrics.FORGE_SOURCE_DURATION).append(run.clock() - began)
        run.series(metrics.FORGE_SOURCE_READS, a.ERROR_TYPE, error_type(error)).append(1)


def _pull(original: Callable[..., Sample | None], layer: Layer) -> Callable[..., Sample | None]:
    def pull(self: Run) -> Sample | None:
        run = RUN.get() if layer.telemetry is not None else None
        if run is None or run.ended:
            return original(self)
        began = run.clock()
        try:
            sample = original(self)
        except BaseException as error:
            _failed_to_pull(run, began, error)
            raise
        if sample is not None:  # None: the source is exhausted
            try:
                run.read.append(run.clock() - began)
            except Exception as fault:  # noqa: BLE001 - the sample must not be affected
                faults.suppress(fault, "reading the source")
        return sample

    return pull


def _source_blocked(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def source_blocked(self: Run, seconds: float) -> None:
        original(self, seconds)
        run = RUN.get() if layer.telemetry is not None else None
        if run is not None and not run.ended:
            with faults.protected("the wait of a source"):
                run.series(metrics.FORGE_SOURCE_BACKPRESSURE_TIME).append(seconds)

    return source_blocked


def _pulled(original: Callable[..., None], layer: Layer) -> Callable[..., None]:
    def pulled(self: Run, seconds: Sequence[float], error: BaseException | None = None) -> None:
        original(self, seconds, error)
        run = RUN.get() if layer.telemetry is not None else None
        if run is None or run.ended:
            return
        with faults.protected("reading the source"):
            for each in seconds if error is None else seconds[:-1]:
                run.read.append(each)
            if error is not None:
                run.series(metrics.FORGE_SOURCE_DURATION).append(seconds[-1])
                run.series(metrics.FORGE_SOURCE_READS, a.ERROR_TYPE, error_type(error)).append(1)

    return pulled


_MODULE = "forge.runner.run"

TARGETS = (
    Target(_MODULE, "Run.begin", _begin),
    Target(_MODULE, "Run.stalled", _stalled),
    Target(_MODULE, "Run.end", _end),
    Target(_MODULE, "Run.ended", _ended),
    Target(_MODULE, "Run.pull", _pull),
    Target(_MODULE, "Run.source_blocked", _source_blocked),
    Target(_MODULE, "Run.pulled", _pulled),
    Target("forge.runner.active_runs", "exiting", _exiting),
)
