"""The cost of a run on Ray to its driver for each sample and stage: seconds, and bytes that come home.

Both are the slope between pipelines with few and with many stages, so what samples cost by themselves is not in them:
their data, their admission, their rows in the storage. Nothing of Ray runs: blocks are processed in this process, and
booked like those that come home. Telemetry is measured for samples that are not traced, and for those that are.

    python -m benchmarks.ray_driver
"""

from __future__ import annotations

import threading
import time
from statistics import median
from typing import Any, Final

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from forge import BatchRunner, Pipeline, Run, Sample, Stage
from forge.execution.item import Item
from forge.runner.ray.block_calls import BlockCall
from forge.runner.ray.blocks import Block, Row, StepRecord, pack, unpack
from forge.runner.ray.booking import Booking
from forge.runner.ray.worker import Work, WorkerSpec
from forge.runner.steps import steps_of
from forge_otel import ForgeInstrumentor

BLOCK_SIZE: Final = 64
FEW, MANY = 1, 9
"""Numbers of stages."""
ROUNDS: Final = 50
"""Blocks, of which the median counts."""


class Through(Stage):
    """Leaves samples as they are."""

    def process(self, sample: Sample) -> Sample:
        return sample


class ThroughInBatches(Stage):
    """The same, in batches."""

    batch_size = 16

    def process_batch(self, samples: list[Sample]) -> list[Sample]:  # type: ignore[override]
        return samples


def block_and_seconds(kind: type[Stage], stages: int) -> tuple[int, float]:
    """Return the bytes of a block that comes home, and the median seconds for reading and booking it."""
    pipeline = Pipeline(name="benchmark", source=[], stages=[kind(name=f"stage-{index}") for index in range(stages)])
    run = BatchRunner().run(pipeline)
    run.context.run(run.begin)
    booking = Booking(run, steps_of(run))
    works = [
        Work(
            WorkerSpec("benchmark", index, stage, pipeline.serializer, False, index == stages - 1, {}),
            None,
            "worker",
            threading.Event(),
        )
        for index, stage in enumerate(pipeline.stages)
    ]
    size, seconds = 0, []
    for number in range(ROUNDS):
        items = run.context.copy().run(_admitted, run, number)
        block = Block(number, [Row(item.sample.id, item.sample.data) for item in items], time.time())
        for index, work in enumerate(works):
            record = StepRecord(index, time.time(), 0.001, 0.001, "host", 1234, "0123456789abcdef" * 2, 1)
            BlockCall(work, block, record, {}).run()
            block.records.append(record)
        content = pack(block)
        size = len(content)
        begun = time.perf_counter()
        done, _ = run.context.copy().run(booking.book, unpack(content), items)
        seconds.append(time.perf_counter() - begun)
        assert len(done) == BLOCK_SIZE
    return size, median(seconds)


def _admitted(run: Run, number: int) -> list[Item]:
    """Return the samples of a block; called in the run's context."""
    items = [run._admission.item(Sample(id=f"sample-{number}-{index}", data=index)) for index in range(BLOCK_SIZE)]
    for item in items:
        item.context.run(run.admit, item)
    return items


def per_sample_and_stage(kind: type[Stage]) -> tuple[float, float]:
    """Return bytes and seconds for one sample in one stage."""
    (few, short), (many, long) = (block_and_seconds(kind, stages) for stages in (FEW, MANY))
    calls = BLOCK_SIZE * (MANY - FEW)
    return (many - few) / calls, (long - short) / calls


def main() -> None:
    instrumentor = ForgeInstrumentor()
    for rate in (None, 0.0, 1.0):
        how = ""
        if rate is not None:
            how = " with telemetry, traced" if rate else " with telemetry"
            providers: dict[str, Any] = {
                "tracer_provider": TracerProvider(shutdown_on_exit=False),
                "meter_provider": MeterProvider(shutdown_on_exit=False),
                "logger_provider": LoggerProvider(shutdown_on_exit=False),
            }
            instrumentor.instrument(**providers, sampling_rate=rate, span_budget=0)
        for kind in (Through, ThroughInBatches):
            size, seconds = per_sample_and_stage(kind)
            cost = f"{size:.1f} bytes and {seconds * 1e6:.2f} µs of the driver"
            print(f"{kind.__name__}{how}: {cost} for a sample and stage")
        if rate is not None:
            instrumentor.uninstrument()


if __name__ == "__main__":
    main()
