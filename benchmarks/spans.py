"""The cost of a span: creating it, and exporting it in several ways."""

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

ROUNDS, QUICK_ROUNDS = 12, 1
KINDS = {"light": "light span", "sdk": "SDK span"}


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """One way to export spans; `span_worker.py` makes it."""

    name: str
    label: str
    protocol: str = "http"
    packages: Sequence[str] = ()
    """Packages to install, in an environment of its own."""


EXPORTERS = (
    Exporter(name="discarding", label="discarded"),
    Exporter(name="http", label="SDK, OTLP/HTTP"),
    Exporter(name="grpc", label="SDK, OTLP/gRPC", protocol="grpc"),
    Exporter(
        name="fastotel",
        label="fastotel, OTLP/HTTP",
        packages=("fastotel", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-instrumentation"),
    ),
)


def measure(*, quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """Make and export both kinds of spans in all ways, in turns, each way in a process of its own.

    Quick means fewer rounds, and only what needs no environment of its own. Returns the results as JSON can hold them:
    processor seconds for one span, as the smallest and the median of the rounds.
    """
    rounds = QUICK_ROUNDS if quick else ROUNDS
    missing: dict[str, str] = {}
    versions: dict[str, dict[str, str]] = {}
    turns: dict[str, Callable[[], dict[str, float]]] = {}
    with ExitStack() as stack:
        sinks: dict[str, Worker] = {}
        for protocol in ("http", "grpc"):
            sinks[protocol] = Worker("benchmarks.sink", protocol)
            stack.callback(sinks[protocol].close)
        endpoints = {protocol: sink.hello() for protocol, sink in sinks.items()}
        for exporter in EXPORTERS:
            progress(f"preparing {exporter.label}")
            if exporter.packages and quick:
                missing[exporter.name] = "not when quick"
                continue
            try:
                worker = _start(exporter, endpoints[exporter.protocol])
                stack.callback(worker.close)
                versions[exporter.name] = worker.hello()
            except (NotInstallableError, WorkerError) as error:
                if not exporter.packages:
                    raise
                # The message goes to the terminal only: it may name what is private to this machine.
                print(f"{exporter.label}: {error}", file=sys.stderr)
                missing[exporter.name] = "not installable" if isinstance(error, NotInstallableError) else "does not run"
                continue
            for kind in KINDS:
                turns[f"{exporter.name} {kind}"] = partial(_ask, worker, sinks[exporter.protocol], kind)
        taken = harness.in_turns(turns, rounds, progress)
    return {
        "machine": harness.machine(),
        "rounds": rounds,
        "versions": versions,
        "rows": [
            _row(exporter, kind, taken.get(f"{exporter.name} {kind}"), missing.get(exporter.name))
            for exporter in EXPORTERS
            for kind in KINDS
        ],
    }


def _start(exporter: Exporter, endpoint: str) -> Worker:
    arguments = ("benchmarks.span_worker", exporter.name, endpoint)
    if not exporter.packages:
        return Worker(*arguments)
    return Worker(*arguments, python=python_with(exporter.packages), source=ROOT / "src")


def _ask(worker: Worker, sink: Worker, kind: str) -> dict[str, float]:
    before = sink.ask({})
    answer: dict[str, float] = worker.ask({"kind": kind})
    return {**answer, "bytes": sink.ask({}) - before}


def _row(exporter: Exporter, kind: str, taken: list[dict[str, float]] | None, missing: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"exporter": exporter.name, "label": exporter.label, "kind": kind}
    if taken is None:
        return {**row, "missing": missing}
    times = {name: harness.smallest_and_median([one[name] for one in taken]) for name in ("made", "caller", "total")}
    return {**row, **times, "bytes": min(one["bytes"] for one in taken)}
