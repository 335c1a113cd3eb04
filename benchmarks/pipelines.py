"""What telemetry adds to a whole run of a pipeline: time, processor time, memory and bytes sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from statistics import median
from time import process_time
from typing import Any

from . import harness
from .harness import Worker
from .measured_run import TELEMETRY, Task, command

COMPUTING = 50e-6
"""Seconds that the synthetic pipeline's second stage computes."""
SIZES = {1_000: 9, 10_000: 7, 100_000: 3, 1_000_000: 1}
"""Numbers of samples, and how often they are run: short runs are disturbed more easily, and cost less to repeat."""
DEMO = (300, 5)
"""Files, and how often."""
EVERYTHING_UP_TO = 100_000
"""With more samples, not all spans are recorded: it would take half an hour to show what fewer samples show."""
USUAL = 10_000
"""The largest number of samples, unless more are asked for."""
QUICK_DEMO, QUICK_SYNTHETIC = (40, 1), {500: 1}


def measure(*, quick: bool, largest: int = USUAL, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run all pipelines with telemetry off, at 1 % and at 100 %, in turns, each time in a fresh process.

    Returns the results as JSON can hold them, in seconds and bytes.
    """
    loops = _loops(COMPUTING)
    sizes = QUICK_SYNTHETIC if quick else {size: rounds for size, rounds in SIZES.items() if size <= largest}
    slow = {size: rounds for size, rounds in sizes.items() if size <= USUAL}
    runs = [
        ("demo", *(QUICK_DEMO if quick else DEMO)),
        *(("one at a time", *size) for size in slow.items()),
        *(("four at a time", *size) for size in sizes.items()),
    ]
    rows = []
    with closing(Worker("benchmarks.sink")) as sink:
        task = partial(Task, endpoint=sink.hello(), loops=loops)
        for pipeline, samples, rounds in runs:
            what = f"{pipeline}, {samples} samples, telemetry"
            settings = [name for name in TELEMETRY if name != "100 %" or samples <= EVERYTHING_UP_TO]
            turns = {
                f"{what} {telemetry}": partial(
                    _run, sink, task(pipeline=pipeline, samples=samples, telemetry=telemetry)
                )
                for telemetry in settings
            }
            taken = harness.in_turns(turns, rounds, progress)
            off = taken[f"{what} off"]
            rows += [_row(pipeline, samples, telemetry, taken[f"{what} {telemetry}"], off) for telemetry in settings]
    return {
        "machine": harness.machine(),
        "versions": harness.versions("forge-otel", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"),
        "rows": rows,
    }


def _run(sink: Worker, task: Task) -> dict[str, float]:
    before = sink.ask({})
    with closing(Worker(*command(task))) as worker:
        result: dict[str, float] = worker.hello()
    return {**result, "bytes": sink.ask({}) - before}


def _row(
    pipeline: str, samples: int, telemetry: str, taken: Sequence[dict[str, float]], off: Sequence[dict[str, float]]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "pipeline": pipeline,
        "samples": samples,
        "telemetry": telemetry,
        "rounds": len(taken),
        "settled": taken[0]["settled"],
    }
    for name in ("seconds", "cpu"):
        row[name] = harness.smallest_and_median([run[name] for run in taken])
        # Against the run without telemetry in the same round: the machine is now faster, now slower.
        row[f"{name}_added"] = median(run[name] / plain[name] - 1 for run, plain in zip(taken, off, strict=True))
    return row | {
        name: median(run[name] for run in taken) for name in ("peak_memory", "bytes", "spans", "spans_dropped")
    }


def _loops(seconds: float) -> int:
    """How many turns of an empty loop take so many seconds of an undisturbed processor."""
    turns = 20_000
    best = float("inf")
    for _ in range(50):
        started = process_time()
        for _ in range(turns):
            pass
        best = min(best, process_time() - started)
    return round(turns * seconds / best)
