"""Runs on Ray with one, two and four workers, their unit costs, and a model of larger ones.

    python -m benchmarks.ray_scale [--quick] [--write docs/scale.md]

Every case is run in turns with all others, on one local Ray, since runs differ from one minute to the next.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import ray
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from rich.console import Console

from forge import Pipeline, RayRunner, Sample, Stage, StreamingRunner
from forge.runner import Runner
from forge_otel import ForgeInstrumentor

from . import discarding, harness, ray_costs, ray_model, report, stack_costs
from .tables import Table
from .units import rows_of

SECONDS: Final = 0.005
"""Time that a call of a stage takes."""
BLOCK_SIZE: Final = 16
WORKERS: Final = (1, 2, 4)
SAMPLING_RATE: Final = 0.01
PACKAGES: Final = ("forge-otel", "ray", "opentelemetry-sdk")


class Wait(Stage):
    """Waits, as for the answer of a service."""

    def process(self, sample: Sample) -> Sample:
        time.sleep(SECONDS)
        return sample


class Compute(Stage):
    """Uses a core."""

    def process(self, sample: Sample) -> Sample:
        end = time.thread_time() + SECONDS
        while time.thread_time() < end:
            pass
        return sample


@dataclass(frozen=True)
class Case:
    """A run that is measured."""

    kind: type[Stage]
    runner: str
    workers: int
    telemetry: bool


KINDS: Final = (Wait, Compute)
RUNNERS: Final = (StreamingRunner.name, RayRunner.name)


class Measured(NamedTuple):
    """What a run took."""

    start: float
    """Seconds until the first sample was ready."""
    rate: float
    """Samples per second, without the first quarter of them, in which workers start."""


@contextmanager
def telemetry() -> Iterator[None]:
    """Instrument, with exporters that discard everything."""
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(discarding.span_exporter()))
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(BatchLogRecordProcessor(discarding.log_exporter()))
    meters = MeterProvider([PeriodicExportingMetricReader(discarding.metric_exporter())], shutdown_on_exit=False)
    instrumentor = ForgeInstrumentor()
    instrumentor.instrument(
        tracer_provider=traces, meter_provider=meters, logger_provider=logs, sampling_rate=SAMPLING_RATE
    )
    try:
        yield
    finally:
        instrumentor.uninstrument()
        for provider in (traces, logs, meters):
            provider.shutdown()


def run(case: Case, samples: int) -> Measured:
    """Run a case."""
    runner: Runner = StreamingRunner() if case.runner == StreamingRunner.name else RayRunner(block_size=BLOCK_SIZE)
    source = [Sample(id=f"sample-{number}", data=number) for number in range(samples)]
    pipeline = Pipeline(name="scale", source=source, stages=[case.kind(name="stage", concurrency=case.workers)])
    if case.telemetry:
        with telemetry():
            return _timed(runner, pipeline, samples)
    return _timed(runner, pipeline, samples)


def _timed(runner: Runner, pipeline: Pipeline, samples: int) -> Measured:
    begun = time.perf_counter()
    first = warm = end = 0.0
    with runner.run(pipeline) as running:
        for number, _ in enumerate(running, 1):
            end = time.perf_counter()
            if number == 1:
                first = end
            if number == samples // 4:
                warm = end
    assert running.result is not None
    assert running.result.ledger.ready == samples
    return Measured(first - begun, (samples - samples // 4) / (end - warm))


def throughput(*, quick: bool, progress: Callable[[str], None]) -> Table:
    """Run all cases in turns; return the medians of their rates as a table."""
    samples, rounds, numbers = (96, 1, (1, 4)) if quick else (960, 3, WORKERS)
    cases = [Case(*each) for each in product(KINDS, RUNNERS, numbers, (False, True))]
    measures = {
        f"{case.kind.__name__}, {case.runner}, {case.workers}, {'with' if case.telemetry else 'without'} telemetry": (
            partial(run, case, samples)
        )
        for case in cases
    }
    results = dict(zip(cases, harness.in_turns(measures, rounds, progress).values(), strict=True))
    rows = []
    for kind, runner in product(KINDS, RUNNERS):
        base = median(each.rate for each in results[Case(kind, runner, 1, False)])
        for workers in numbers:
            off, on = (results[Case(kind, runner, workers, telemetry)] for telemetry in (False, True))
            rate = median(each.rate for each in off)
            ratio = median(with_.rate / without.rate for with_, without in zip(on, off, strict=True))
            start = median(each.start for each in off)
            rows.append(
                (
                    f"{'waits' if kind is Wait else 'computes'}, {runner}",
                    f"{workers}",
                    f"{start:.2f}",
                    f"{rate:,.0f}",
                    f"{rate / base:.2f}",
                    f"{ratio:.2f}",
                )
            )
    columns = ("stage and runner", "workers", "s to the first sample", "samples/s", "1 worker = 1", "with telemetry")
    return Table("Throughput", columns, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray_scale", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "throughput", "costs"), default="all")
    parser.add_argument("--quick", action="store_true", help="a first impression: one round, with few samples")
    parser.add_argument(
        "--stack", action="store_true", help="measure a Collector and a Prometheus, too (make stack-tools)"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables into this page")
    options = parser.parse_args(arguments)
    ray.init("local", num_cpus=max(WORKERS), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    with Console(stderr=True).status("") as status:
        run(Case(Wait, RayRunner.name, 1, False), 64)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # which Ray Data has set itself
        shown = _measured(options, status.update)
    for table in shown.values():
        print(f"{table.title}\n\n{table.as_markdown()}")
    circumstances = report.circumstances({"machine": harness.machine(), "versions": harness.versions(*PACKAGES)})
    print(circumstances)
    if options.write is not None:
        contents = {name: table.as_markdown() for name, table in shown.items()}
        page = report.filled(options.write.read_text(), {**contents, "scale-circumstances": circumstances + "\n"})
        options.write.write_text(page)
    return 0


def _measured(options: argparse.Namespace, progress: Callable[[str], None]) -> Mapping[str, Table]:
    """Measure what is asked for; return the tables by their marks in the page."""
    shown: dict[str, Table] = {}
    if options.what != "costs":
        shown["throughput"] = throughput(quick=options.quick, progress=progress)
    if options.what != "throughput":
        costs, exports = ray_costs.measure(telemetry, quick=options.quick, progress=progress)
        ray.shutdown()
        progress("Collector and Prometheus")
        stack = stack_costs.measure(exports.metrics, exports.spans, quick=options.quick) if options.stack else None
        rows = [*rows_of(costs), *(rows_of(stack) if stack is not None else ())]
        shown["costs"] = Table("Unit costs", ("", "measured", "unit"), rows)
        shown |= ray_model.tables(costs, stack)
    return shown


if __name__ == "__main__":
    sys.exit(main())
