"""The process of one way to take samples through stages: `python -m benchmarks.runner_worker NAME`, spoken to by
`runner.py`."""

from __future__ import annotations

import gc
import importlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from forge import BatchRunner, Pipeline, Sample, SampleOutcome, Stage, StreamingRunner, stage
from forge.runner import Runner

from . import harness

STAGES = 3

Variant = Callable[[int], int]
"""Takes so many samples through the stages; returns how many came out."""


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
    return Pipeline(name="benchmark", source=lambda: numbers(count), stages=empty_stages())


def drain(runner: Runner) -> Variant:
    return lambda count: runner.run(pipeline_of(count)).drain().ledger.ready


def iterate(runner: Runner) -> Variant:
    return lambda count: sum(1 for _ in runner.run(pipeline_of(count)))


def ray_data(count: int) -> int:
    """It fuses the stages into one, and takes batches of rows through it, in processes of its own."""
    data: Any = importlib.import_module("ray.data")
    dataset = data.range(count)
    for each in empty_stages():
        dataset = dataset.map(each.process)
    return sum(1 for _ in dataset.iter_rows())


def start_ray() -> None:
    """Start its processes before anything is measured."""
    ray: Any = importlib.import_module("ray")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    data: Any = importlib.import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)


VARIANTS: dict[str, Variant] = {
    "loop": plain_loop,
    "pool": thread_pool,
    "streaming": drain(StreamingRunner()),
    "streaming_iterated": iterate(StreamingRunner()),
    "streaming_ordered": drain(StreamingRunner(ordered=True)),
    "batch": drain(BatchRunner()),
    "batch_iterated": iterate(BatchRunner()),
    "ray": ray_data,
}


def processor_time() -> float:
    """Seconds of this process."""
    return time.process_time()


def processor_time_of_all() -> float:
    """The same with the processes that it has started, and those that they have."""
    psutil: Any = importlib.import_module("psutil")
    spent = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:  # those that ended are missing, so what is shown is too little
            continue
        spent += times.user + times.system
    return processor_time() + spent


def main(name: str) -> None:
    answers = harness.channel()
    run, spent = VARIANTS[name], processor_time
    if run is ray_data:
        start_ray()
        spent = processor_time_of_all
    run(100)

    def answer(count: int) -> dict[str, float]:
        """Seconds that so many samples take: of the processor, and of the clock."""
        gc.collect()
        started, before = time.perf_counter(), spent()
        ready = run(count)
        seconds, cpu = time.perf_counter() - started, spent() - before
        if ready != count:
            raise RuntimeError(f"{name} brought {ready} of {count} samples through")
        return {"seconds": seconds / count, "cpu": cpu / count}

    harness.serve(answers, harness.versions("forge-otel", *(["ray"] if run is ray_data else [])), answer)


if __name__ == "__main__":
    main(sys.argv[1])
