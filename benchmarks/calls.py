"""The overhead of telemetry per stage call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from . import harness
from .contestants import CONTESTANTS, Contestant
from .environments import NotInstallableError, python_with
from .harness import ROOT, Worker, WorkerError
from .scenarios import SCENARIOS

ROUNDS = 20
QUICK_ROUNDS, QUICK_SHARE = 3, 8


def measure(*, quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Time all scenarios of all contestants, in turns.

    Quick means fewer calls, and only what needs no environment of its own. Returns the results as JSON can hold them:
    seconds for one call, plain and what was added to it, as the smallest and the median of the rounds. The plain call
    is timed in the same process, right before the instrumented one.
    """
    missing: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    found: dict[str, dict[str, str]] = {}
    with ExitStack() as stack:
        for contestant in CONTESTANTS.values():
            progress(f"preparing {contestant.label}")
            try:
                workers[contestant.name] = worker = _start(contestant, quick=quick)
                stack.callback(worker.close)
            except _NotMeasuredError as error:
                missing[contestant.name] = str(error)
        for name, worker in workers.items():
            try:
                found[name] = _hello(CONTESTANTS[name], worker)
            except _NotMeasuredError as error:
                missing[name] = str(error)
        turns: dict[str, Callable[[], dict[str, float]]] = {
            f"{scenario} {name}": partial(
                workers[name].ask, {"scenario": scenario, "share": QUICK_SHARE if quick else 1}
            )
            for scenario in SCENARIOS
            for name in found
            if scenario in CONTESTANTS[name].scenarios
        }
        taken = harness.in_turns(turns, QUICK_ROUNDS if quick else ROUNDS, progress)
    return {
        "machine": harness.machine(),
        "rounds": QUICK_ROUNDS if quick else ROUNDS,
        "versions": found,
        "rows": [
            _row(scenario, contestant, taken.get(f"{scenario} {contestant.name}"), missing.get(contestant.name))
            for contestant in CONTESTANTS.values()
            for scenario in contestant.scenarios
        ],
    }


class _NotMeasuredError(Exception):
    """A contestant does not take part; the message says why."""


def _start(contestant: Contestant, *, quick: bool) -> Worker:
    if not contestant.packages:
        return Worker("benchmarks.worker", contestant.name)
    if quick:
        raise _NotMeasuredError("not when quick")
    try:
        python = python_with(contestant.packages)
    except NotInstallableError as error:
        # The message goes to the terminal only: it may name what is private to this machine.
        print(f"{contestant.name} cannot be installed: {error}", file=sys.stderr)
        raise _NotMeasuredError("not installable") from None
    return Worker("benchmarks.worker", contestant.name, python=python, source=ROOT / "src")


def _hello(contestant: Contestant, worker: Worker) -> Any:
    try:
        return worker.hello()
    except WorkerError as error:
        if not contestant.packages:
            raise
        print(f"{contestant.name} does not run: {error}", file=sys.stderr)
        raise _NotMeasuredError("does not run") from None


def _row(
    scenario: str, contestant: Contestant, taken: list[dict[str, float]] | None, missing: str | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"scenario": scenario, "contestant": contestant.name, "label": contestant.label}
    if taken is None:
        return {**row, "missing": missing}
    plain = [pair["plain"] for pair in taken]
    instrumented = [pair["instrumented"] for pair in taken]
    added = [pair["instrumented"] - pair["plain"] for pair in taken]
    return {
        **row,
        "plain": harness.smallest_and_median(plain),
        "instrumented": harness.smallest_and_median(instrumented),
        # The smallest of each side: what disturbs a measurement only ever makes it slower.
        "added": {"min": min(instrumented) - min(plain), "median": harness.smallest_and_median(added)["median"]},
    }
