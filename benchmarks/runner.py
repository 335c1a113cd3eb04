"""The overhead of the runners: samples taken through three empty stages.

Beside the runners stand a plain loop, `ThreadPoolExecutor.map` and Ray Data. All of them call the same stages on the
same samples and count how many came through; a runner also keeps order, queues, attempts, a context for each sample and
the record of the run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import harness
from .environments import NotInstallableError, python_with
from .harness import ROOT, Worker, WorkerError

REFERENCE = "pool"
SAMPLES, ROUNDS = 10_000, 15
QUICK_SAMPLES, QUICK_ROUNDS = 1_000, 3


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to take samples through stages; `runner_worker.py` says what it does."""

    name: str
    label: str
    packages: Sequence[str] = ()
    """Packages to install, in an environment of its own."""


WAYS = (
    Way(name="loop", label="a plain loop"),
    Way(name=REFERENCE, label="ThreadPoolExecutor.map"),
    Way(name="streaming", label="StreamingRunner, drained"),
    Way(name="streaming_iterated", label="StreamingRunner, iterated"),
    Way(name="streaming_ordered", label="StreamingRunner, ordered"),
    Way(name="batch", label="BatchRunner, drained"),
    Way(name="batch_iterated", label="BatchRunner, iterated"),
    Way(name="ray", label="Ray Data", packages=("ray", "ray[data]", "psutil")),
)


def measure(*, quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Time all ways in turns, each in a process of its own.

    Quick means fewer samples, and only what needs no environment of its own. Returns the results as JSON can hold them:
    seconds for one sample, of the processor (all threads and processes) and of the clock, as the smallest and the
    median of the rounds.
    """
    samples, rounds = (QUICK_SAMPLES, QUICK_ROUNDS) if quick else (SAMPLES, ROUNDS)
    missing: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    versions: dict[str, dict[str, str]] = {}
    with ExitStack() as stack:
        for way in WAYS:
            progress(f"preparing {way.label}")
            if way.packages and quick:
                missing[way.name] = "not when quick"
                continue
            try:
                worker = _start(way)
                stack.callback(worker.close)
                versions[way.name] = worker.hello()
            except (NotInstallableError, WorkerError) as error:
                if not way.packages:
                    raise
                # The message goes to the terminal only: it may name what is private to this machine.
                print(f"{way.label}: {error}", file=sys.stderr)
                missing[way.name] = "not installable" if isinstance(error, NotInstallableError) else "does not run"
            else:
                workers[way.name] = worker
        turns = {name: partial(worker.ask, samples) for name, worker in workers.items()}
        taken = harness.in_turns(turns, rounds, progress)
    return {
        "machine": harness.machine(),
        "samples": samples,
        "rounds": rounds,
        "versions": versions,
        "rows": [_row(way, taken.get(way.name), missing.get(way.name)) for way in WAYS],
    }


def _start(way: Way) -> Worker:
    if not way.packages:
        return Worker("benchmarks.runner_worker", way.name)
    return Worker("benchmarks.runner_worker", way.name, python=python_with(way.packages), source=ROOT / "src")


def _row(way: Way, taken: list[dict[str, float]] | None, missing: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"way": way.name, "label": way.label}
    if taken is None:
        return {**row, "missing": missing}
    times = {kind: harness.smallest_and_median([each[kind] for each in taken]) for kind in ("cpu", "seconds")}
    return {**row, **times}
