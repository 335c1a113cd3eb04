"""The cost of telemetry in whole runs of pipelines: time, processor time, memory and bytes sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import process_time
from typing import Any

from . import harness
from .harness import Worker
from .measured_run import Task, command

COMPUTING = 50e-6
"""Seconds that the synthetic pipeline's second stage computes."""
SIZES = {1_000: 5, 10_000: 3, 100_000: 3, 1_000_000: 1}
"""Numbers of samples, and how often they are run: short runs are disturbed more easily, and cost less to repeat."""
DEMO = (100, 9)
"""Files, and how often."""
MINIMAL = (2_000, 12)
"""Samples of the minimal pipeline, and how often."""
EVERYTHING_UP_TO = 100_000
"""With more samples, not all spans are recorded: it would take half an hour to show what fewer samples show."""
USUAL = 10_000
"""The largest number of samples, unless more are asked for."""
QUICK_DEMO, QUICK_SYNTHETIC, QUICK_MINIMAL = (40, 1), {500: 1}, (300, 1)

PACKAGES = ("forge-otel", "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http")


@dataclass(frozen=True)
class Variant:
    """A pipeline's run with telemetry off, or on in one of several ways."""

    label: str
    telemetry: str
    """A key of `measured_run.TELEMETRY`."""
    sent: bool = True
    """Sent to another process, as OTLP over HTTP; otherwise exporters discard it."""


OFF = "off"
USUAL_VARIANTS = (Variant(OFF, OFF), Variant("1 %", "1 %"), Variant("100 %", "100 %"))
MINIMAL_VARIANTS = (
    Variant(OFF, OFF),
    Variant("untraced", "untraced", sent=False),
    Variant("1 %", "1 %", sent=False),
    Variant("100 %", "100 %", sent=False),
    Variant("100 %, OTLP/HTTP", "100 %"),
)


def measure(*, quick: bool, largest: int = USUAL, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run the demo's and the synthetic pipeline with telemetry off, at 1 % and at 100 %, in turns.

    Each run has a process of its own. Returns the results as JSON can hold them, in seconds and bytes.
    """
    sizes = QUICK_SYNTHETIC if quick else {size: rounds for size, rounds in SIZES.items() if size <= largest}
    slow = {size: rounds for size, rounds in sizes.items() if size <= USUAL}
    runs = [
        ("demo", *(QUICK_DEMO if quick else DEMO)),
        *(("one at a time", *size) for size in slow.items()),
        *(("four at a time", *size) for size in sizes.items()),
    ]
    rows = []
    with closing(Worker("benchmarks.sink", "http")) as sink:
        runner = _Runner(sink, _loops(COMPUTING), progress)
        for pipeline, samples, rounds in runs:
            variants = [one for one in USUAL_VARIANTS if one.label != "100 %" or samples <= EVERYTHING_UP_TO]
            rows += runner.rows(pipeline, samples, rounds, variants)
    return {"machine": harness.machine(), "versions": harness.versions(*PACKAGES), "rows": rows}


def measure_minimal(*, quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """The same for the minimal pipeline: off, untraced, at 1 % and at 100 %, and at 100 % sent over HTTP."""
    with closing(Worker("benchmarks.sink", "http")) as sink:
        rows = _Runner(sink, 0, progress).rows("minimal", *(QUICK_MINIMAL if quick else MINIMAL), MINIMAL_VARIANTS)
    return {"machine": harness.machine(), "versions": harness.versions(*PACKAGES), "rows": rows}


class _Runner:
    """Runs pipelines, each run in a process of its own, with a sink for their telemetry."""

    def __init__(self, sink: Worker, loops: int, progress: Callable[[str], None]) -> None:
        self._sink = sink
        self._endpoint: str = sink.hello()
        self._loops = loops
        self._progress = progress

    def rows(self, pipeline: str, samples: int, rounds: int, variants: Sequence[Variant]) -> list[dict[str, Any]]:
        """The rows of one pipeline of one size; the variants take turns, and the first of them is without telemetry."""
        turns = {}
        for one in variants:
            task = Task(
                pipeline=pipeline,
                samples=samples,
                telemetry=one.telemetry,
                endpoint=self._endpoint if one.sent else None,
                loops=self._loops,
            )
            turns[f"{pipeline}, {samples} samples, telemetry {one.label}"] = partial(self._run, task)
        taken = dict(zip(variants, harness.in_turns(turns, rounds, self._progress).values(), strict=True))
        off = taken[variants[0]]
        return [_row(pipeline, samples, one.label, runs, off) for one, runs in taken.items()]

    def _run(self, task: Task) -> dict[str, float]:
        before = self._sink.ask({})
        with closing(Worker(*command(task))) as worker:
            result: dict[str, float] = worker.hello()
        return {**result, "bytes": self._sink.ask({}) - before}


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
    for name in ("seconds", "cpu", "collector"):
        row[name] = harness.smallest_and_median([run[name] for run in taken])
    for name in ("seconds", "cpu"):
        # Against the run without telemetry in the same round: the machine is now faster, now slower.
        row[f"{name}_added"] = median(run[name] / plain[name] - 1 for run, plain in zip(taken, off, strict=True))
    return row | {
        name: median(run[name] for run in taken) for name in ("peak_memory", "bytes", "spans", "spans_dropped")
    }


def _loops(seconds: float) -> int:
    """Return how many turns of an empty loop take so many seconds of an undisturbed processor."""
    turns = 20_000
    best = float("inf")
    for _ in range(50):
        started = process_time()
        for _ in range(turns):
            pass
        best = min(best, process_time() - started)
    return round(turns * seconds / best)
