"""What the runners themselves cost: samples per second through three stages that do nothing.

Beside the runners stand a plain loop, `ThreadPoolExecutor.map` and, where it is installed, Ray Data. All of them call
the same stages on the same samples and count how many came through; a runner also keeps order, queues, attempts, a
context for each sample and the record of the run. The variants take turns, and of each the fastest round counts,
because what disturbs a measurement only ever makes it slower.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from forge import BatchRunner, Pipeline, Sample, SampleOutcome, Stage, StreamingRunner, stage
from forge.runner import Runner

STAGES = 3
REFERENCE = "ThreadPoolExecutor.map"

Variant = Callable[[int], int]
"""Takes so many samples through the stages; returns how many came out."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples and rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    arguments = parser.parse_args()
    count, rounds = (2_000, 3) if arguments.quick else (10_000, 11)

    machine = describe_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    variants: dict[str, Variant] = {
        "plain loop": plain_loop,
        REFERENCE: thread_pool,
        "StreamingRunner": lambda count: drain(StreamingRunner(), count),
        "StreamingRunner, iterated": lambda count: iterate(StreamingRunner(), count),
        "StreamingRunner, ordered": lambda count: drain(StreamingRunner(ordered=True), count),
        "BatchRunner": lambda count: drain(BatchRunner(), count),
        "BatchRunner, iterated": lambda count: iterate(BatchRunner(), count),
    }
    if importlib.util.find_spec("ray") is not None:
        variants["Ray Data"] = ray_data()
    else:
        print('Ray Data is not measured: it is not installed here (pip install "ray[data]")')

    seconds = interleaved(variants, count, rounds)
    results: list[dict[str, Any]] = [
        {
            "variant": name,
            "seconds_per_sample": min(taken) / count,
            "samples_per_second": count / min(taken),
            "rate_ratio": min(seconds[REFERENCE]) / min(taken),
            "median_rate_ratio": statistics.median(
                reference / own for reference, own in zip(seconds[REFERENCE], taken, strict=True)
            ),
        }
        for name, taken in seconds.items()
    ]
    print(
        f"\n{count} samples, {STAGES} stages that do nothing, best of {rounds} rounds; rate as a share of {REFERENCE}:"
    )
    print(f"{'':28}{'µs/sample':>10}{'samples/s':>12}{'share':>8}{'median':>8}")
    for result in results:
        print(
            f"{result['variant']:28}{result['seconds_per_sample'] * 1e6:10.1f}{result['samples_per_second']:12,.0f}"
            f"{result['rate_ratio']:8.2f}{result['median_rate_ratio']:8.2f}"
        )
    if arguments.json is not None:
        document = {"machine": machine, "samples": count, "stages": STAGES, "rounds": rounds, "results": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def describe_machine() -> dict[str, str]:
    described = {
        "platform": platform.platform(),
        "CPUs": str(os.cpu_count()),
        "Python": platform.python_version(),
        "forge-otel": importlib.metadata.version("forge-otel"),
    }
    if importlib.util.find_spec("ray") is not None:
        described["ray"] = importlib.metadata.version("ray")
    return described


def interleaved(variants: dict[str, Variant], count: int, rounds: int) -> dict[str, list[float]]:
    """The seconds that each variant took in each of the rounds in which all of them had their turn."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            started = time.perf_counter()
            ready = run(count)
            seconds[name].append(time.perf_counter() - started)
            if ready != count:
                sys.exit(f"{name} brought {ready} of {count} samples through")
    return seconds


def numbers(count: int) -> Iterator[Sample]:
    for number in range(count):
        yield Sample(id=str(number), data=number)


def empty_stages() -> list[Stage]:
    return [stage(name=f"stage {number}")(lambda sample: sample) for number in range(STAGES)]


def through(stages: list[Stage], sample: Sample) -> SampleOutcome:
    result: Any = sample
    for each in stages:
        result = each.process(result)
    return SampleOutcome.READY


def plain_loop(count: int) -> int:
    stages, outcomes = empty_stages(), Counter[SampleOutcome]()
    for sample in numbers(count):
        outcomes[through(stages, sample)] += 1
    return outcomes[SampleOutcome.READY]


def thread_pool(count: int) -> int:
    """With as many threads as the streaming runner has slots for the stages."""
    stages, outcomes = empty_stages(), Counter[SampleOutcome]()
    with ThreadPoolExecutor(STAGES) as executor:
        for outcome in executor.map(lambda sample: through(stages, sample), numbers(count)):
            outcomes[outcome] += 1
    return outcomes[SampleOutcome.READY]


def pipeline_of(count: int) -> Pipeline:
    return Pipeline(name="bench", source=lambda: numbers(count), stages=empty_stages())


def drain(runner: Runner, count: int) -> int:
    return runner.run(pipeline_of(count)).drain().ledger.ready


def iterate(runner: Runner, count: int) -> int:
    return sum(1 for _ in runner.run(pipeline_of(count)))


def ray_data() -> Variant:
    """Ray Data on this machine; its processes are started before anything is measured. It fuses the stages into one."""
    import ray  # noqa: PLC0415 - installed or not

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)

    def run(count: int) -> int:
        dataset = ray.data.range(count)
        for each in empty_stages():
            dataset = dataset.map(each.process)
        return sum(1 for _ in dataset.iter_rows())

    run(1)
    return run


if __name__ == "__main__":
    main()
