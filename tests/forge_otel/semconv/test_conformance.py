"""What is emitted keeps to the vocabulary in unusual surroundings too: odd providers, odd exceptions, no run."""

from __future__ import annotations

import subprocess
import sys
import time
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry.metrics import Meter, MeterProvider

from forge import BatchRunner, Pipeline, RetryPolicy, Sample, stage
from forge.execution.item import Item
from forge.execution.stage_executor import StageExecutor
from forge_otel import ForgeInstrumentor
from tests.support.telemetry import Recorded, recording


@stage
def plain(sample: Sample) -> Sample:
    return sample


def run(*stages: Any) -> None:
    BatchRunner().run(Pipeline(name="p", source=[Sample(id="1", data=1)], stages=stages)).drain()


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_events_say_when_they_happened() -> None:
    with recording(events="all") as recorded:
        before = time.time_ns()
        run(plain)
        after = time.time_ns()
    times = [log.log_record.timestamp for log in recorded.log_exporter.get_finished_logs()]
    assert len(times) == 6  # start and stop of run and stage, two summaries
    assert all(moment is not None and before <= moment <= after for moment in times)


def test_an_exception_that_cannot_be_printed_is_recorded_as_any_other() -> None:
    @stage
    def mute(sample: Sample) -> Sample:
        raise UnspeakableError

    with recording() as recorded:
        run(mute)
    unspeakable = f"{__name__}.UnspeakableError"
    said = f"<exception str() failed: {unspeakable}>"
    status = {span.name: (span.status.status_code.name, span.status.description) for span in recorded.spans}
    assert status["forge.sample"] == status["forge.stage mute"] == ("ERROR", said)
    (event,) = (event for event in recorded.events if event.name == "forge.stage.exception")
    assert event.attributes["error.type"] == event.attributes["exception.type"] == unspeakable
    assert event.attributes["exception.message"] == said


@pytest.mark.parametrize("batch_size", [None, 1], ids=["one", "batch"])
def test_retry_outside_of_a_run_names_the_pipeline(batch_size: int | None) -> None:
    @stage(batch_size=batch_size, retry=RetryPolicy(max_attempts=2, initial_delay=0))
    def fails(_: Any) -> Any:
        raise ConnectionError("nobody there")

    sample = Sample(id="1", data=1, pipeline="p")
    with recording() as recorded:
        executor = StageExecutor()
        if batch_size:
            executor.apply_batch(fails, [Item(sample, copy_context())])
        else:
            executor.apply(fails, sample)
    (event,) = (event for event in recorded.events if event.name == "forge.stage.retry")
    expected = {
        "error.type": "network_error",
        "exception.message": "nobody there",
        "exception.type": "ConnectionError",
        "forge.pipeline.name": "p",
        "forge.sample.id": "1",
        "forge.stage.attempt": 1,
        "forge.stage.name": "fails",
        "forge.stage.retry.delay": 0.0,
    }
    if batch_size:
        del expected["forge.sample.id"]
    assert event.attributes == expected


class Slotted:
    """A provider of somebody else, to which there are no weak references."""

    __slots__ = ("_real",)

    def __init__(self, real: MeterProvider) -> None:
        self._real = real

    def get_meter(self, *arguments: Any) -> Meter:
        return self._real.get_meter(*arguments)


class Unhashable:
    """A provider of somebody else that compares by value."""

    def __init__(self, real: MeterProvider) -> None:
        self._real = real

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)

    __hash__ = None  # type: ignore[assignment]

    get_meter = Slotted.get_meter


@pytest.mark.parametrize("kind", [Slotted, Unhashable])
def test_providers_need_nothing_but_their_methods(kind: type[Slotted | Unhashable]) -> None:
    recorded = Recorded()
    provider = kind(recorded.meter_provider)
    instrumentor = ForgeInstrumentor()
    for runs in (1, 2):
        instrumentor.instrument(
            tracer_provider=recorded.tracer_provider,
            meter_provider=provider,
            logger_provider=recorded.logger_provider,
        )
        try:
            run(plain)
            points = recorded.points
        finally:
            instrumentor.uninstrument()
        assert points["forge.pipeline.started"] == {"pipeline.name=p, run.type=full, runner.name=batch": runs}
        assert points["forge.pipeline.active"] == {"pipeline.name=p, run.type=full, runner.name=batch": 0}


GLOBAL_PROVIDER_COMES_LATER = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from forge import BatchRunner, Pipeline, Sample, stage
from forge_otel import ForgeInstrumentor

@stage
def plain(sample):
    return sample

reader = InMemoryMetricReader()
instrumentor = ForgeInstrumentor()
instrumentor.instrument()
metrics.set_meter_provider(MeterProvider([reader]))
for _ in range(2):
    BatchRunner().run(Pipeline(name="p", source=[Sample(id="1", data=1)], stages=[plain])).drain()
    (resource,) = reader.get_metrics_data().resource_metrics
    print("forge.sample.active" in {metric.name for scope in resource.scope_metrics for metric in scope.metrics})
    instrumentor.uninstrument()
    instrumentor.instrument()
"""


@pytest.mark.slow
def test_state_is_seen_again_when_the_global_provider_came_after_the_first_instrument() -> None:
    # In a process of its own: a global provider is set once.
    done = subprocess.run(
        [sys.executable, "-c", GLOBAL_PROVIDER_COMES_LATER], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\nTrue\n"
