"""Cost of the telemetry of a Ray Data pipeline: `python -m benchmarks.ray_data`.

The same dataset is executed in turns without and with the instrumentor, on one local Ray, since executions differ from
one minute to the next. Its tasks do next to nothing, so that as much as possible of the time is the driver's.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
from typing import Any

import ray
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forge_otel import ForgeInstrumentor

BLOCKS = 200
ROUNDS = 15


def execute(blocks: int) -> float:
    """Return the processor time in seconds that the driver needs for a dataset of so many blocks."""
    began = time.process_time()
    dataset = ray.data.range(blocks * 10, override_num_blocks=blocks).map_batches(_same)
    assert dataset.materialize().count() == blocks * 10
    return time.process_time() - began


def _same(batch: dict[str, Any]) -> dict[str, Any]:
    return batch


def main() -> None:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    instrumentor = ForgeInstrumentor()
    plain, observed = [], []
    execute(BLOCKS)
    for _ in range(ROUNDS):
        plain.append(execute(BLOCKS))
        instrumentor.instrument(
            tracer_provider=traces, meter_provider=meters, logger_provider=LoggerProvider(shutdown_on_exit=False)
        )
        observed.append(execute(BLOCKS))
        instrumentor.uninstrument()
    before, after = statistics.median(plain), statistics.median(observed)
    print(f"driver, {BLOCKS} blocks, median of {ROUNDS}: {before:.3f} s without, {after:.3f} s with telemetry")
    print(f"ratio {after / before:.3f}, {(after - before) / BLOCKS * 1e6:.0f} µs a block")


if __name__ == "__main__":
    main()
