"""What the telemetry costs, as ratios of interleaved runs in one process.

A stage call and a whole pipeline, each plain and instrumented, take turns. Of each the fastest repetition counts,
because what disturbs a measurement only ever makes it slower. The hand-written reference is what a careful user would
write with the SDK alone: a span, a histogram and two counters around the call.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from forge import BatchRunner, Pipeline, Sample, StreamingRunner, stage
from forge.executor import StageExecutor
from forge_otel import ForgeInstrumentor


class Discard(SpanExporter):
    """Takes spans and forgets them: what exporting costs depends on the exporter."""

    def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002 - the exporter's signature
        return SpanExportResult.SUCCESS


@stage
def same(sample: Sample) -> Sample:
    return sample


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    quick = parser.parse_args().quick
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    for name in ("opentelemetry-sdk", "wrapt", "forge-otel"):
        print(f"{name} {importlib.metadata.version(name)}")
    calls, rounds, samples = (500, 5, 500) if quick else (2000, 25, 5000)

    print("\nOne stage call, added to the plain call:")
    sample, executor = Sample(id="a", data=1), StageExecutor()
    variants: dict[str, Callable[[], float]] = {"plain": lambda: timed(lambda: executor.apply(same, sample), calls)}
    for label, sampler in (("not sampled", ALWAYS_OFF), ("sampled", ALWAYS_ON)):
        by_hand = hand_written(sampler)
        variants[f"by hand, {label}"] = lambda by_hand=by_hand: timed(  # type: ignore[misc]
            lambda: by_hand(executor.apply, same, sample), calls
        )
        variants[f"forge_otel, {label}"] = lambda sampler=sampler: instrumented(  # type: ignore[misc]
            sampler, lambda: timed(lambda: executor.apply(same, sample), calls)
        )
    best = interleaved(variants, rounds)
    for label in ("not sampled", "sampled"):
        hand, ours = (best[f"{who}, {label}"] - best["plain"] for who in ("by hand", "forge_otel"))
        print(f"  {label:12} by hand {hand * 1e6:6.2f} µs   forge_otel {ours * 1e6:6.2f} µs   ratio {ours / hand:.2f}")

    print(f"\nA pipeline of three stages that do nothing, {samples} samples, per sample:")
    for runner in (BatchRunner, StreamingRunner):

        def run(runner: type[BatchRunner | StreamingRunner] = runner) -> float:
            pipeline = Pipeline(name="bench", source=lambda: numbers(samples), stages=[*map(numbered, range(3))])
            started = time.perf_counter()
            runner().run(pipeline).drain()
            return (time.perf_counter() - started) / samples

        best = interleaved(
            {
                "off": run,
                "not sampled": lambda run=run: instrumented(ALWAYS_OFF, run),  # type: ignore[misc]
                "sampled": lambda run=run: instrumented(ALWAYS_ON, run),  # type: ignore[misc]
            },
            3 if quick else 7,
        )
        row = "   ".join(f"{name} {value * 1e6:7.1f} µs ({value / best['off']:.2f}×)" for name, value in best.items())
        print(f"  {runner.__name__:16} {row}")


def numbers(count: int) -> list[Sample]:
    return [Sample(id=str(number), data=number) for number in range(count)]


def numbered(number: int) -> stage:  # type: ignore[valid-type]
    return stage(name=f"stage {number}")(lambda sample: sample)


def timed(call: Callable[[], object], times: int) -> float:
    """Seconds for one call."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def interleaved(variants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The fastest of several rounds in which every variant has its turn."""
    results: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, measure in variants.items():
            results[name].append(measure())
    return {name: min(values) for name, values in results.items()}


def providers(sampler: Sampler) -> tuple[TracerProvider, MeterProvider]:
    tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(Discard()))
    return tracers, MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


def instrumented(sampler: Sampler, measure: Callable[[], float]) -> float:
    tracers, meters = providers(sampler)
    instrumentor = ForgeInstrumentor()
    instrumentor.instrument(tracer_provider=tracers, meter_provider=meters)
    try:
        return measure()
    finally:
        instrumentor.uninstrument()


def hand_written(sampler: Sampler) -> Callable[..., object]:
    """The call, inside what a user would write around it."""
    tracers, meters = providers(sampler)
    tracer, meter = tracers.get_tracer("by hand"), meters.get_meter("by hand")
    duration = meter.create_histogram("duration", "s")
    executions, failures = meter.create_counter("executions"), meter.create_counter("failures")

    def call(function: Callable[..., object], *arguments: object) -> object:
        started = time.perf_counter()
        with tracer.start_as_current_span("stage", attributes={"stage": "same", "sample": "a"}):
            result = function(*arguments)
        attributes = {"stage": "same", "outcome": "success"}
        duration.record(time.perf_counter() - started, attributes)
        executions.add(1, attributes)
        failures.add(0, attributes)
        return result

    return call


if __name__ == "__main__":
    main()
