"""`make stack-demo`: the stack without containers, two runs of the demo, and what the ADR asks of its telemetry.

Starts the Collector, Prometheus, Jaeger, VictoriaLogs, StatsD, Graphite and the bridge with the configuration files of
the stack, on free ports of the loopback interface. What they say is compared with what the runs say of themselves.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from forge import ExitCode
from tests.stack.graphite import Bridge, Graphite, StatsD
from tests.stack.pipelines import finish, start_demo
from tests.stack.services import Collector, Jaeger, PrometheusServer, VictoriaLogs
from tests.support.compose import described, variables_of
from tests.support.waiting import wait_until

from . import answers

HERE = Path(__file__).parent
PROGRAMS = ("otelcol-forge", "prometheus", "jaeger", "victoria-logs", "victoria-metrics", "statsd")
MARKER = ".stack-demo"
"""In a folder that may be emptied."""


@dataclass(frozen=True)
class Stack:
    """All that runs."""

    collector: Collector
    prometheus: PrometheusServer
    jaeger: Jaeger
    logs: VictoriaLogs
    graphite: Graphite


def main() -> int:
    """Run it; 0, 1 where a number differs from what the runs say, 2 where a program is missing."""
    parser = argparse.ArgumentParser(prog="make stack-demo", description=__doc__)
    parser.add_argument("--limit", default="200", metavar="N", help="files that each run reads at most (200)")
    parser.add_argument("--out", type=Path, default=Path("demo-out", "stack"), metavar="DIR", help="(demo-out/stack)")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / MARKER).exists():
        parser.error(f"--out {options.out}: has something in it that is not of this demo; choose another folder")
    find = subprocess.run([sys.executable, HERE, "--find", *PROGRAMS], stdout=subprocess.DEVNULL, check=False)
    if find.returncode != 0:
        print("make stack-tools builds all of them.", file=sys.stderr)
        return 2
    console = Console(highlight=False)
    try:
        return _demo(options, console)
    except KeyboardInterrupt:
        return 130


def _demo(options: argparse.Namespace, console: Console) -> int:
    out = options.out.absolute()
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARKER).touch()
    with _stack(out, console) as stack:
        began = time.time()
        runs = [_run(out, stack, console, "--limit", options.limit)]
        runs.append(_run(out, stack, console, "--limit", options.limit, "--rerun"))
        _wait_for_arrival(stack, runs)
        asked = answers.Asked(stack.prometheus, stack.jaeger, stack.logs, stack.graphite, stack.collector, runs, began)
        agrees = answers.show(asked, console)
        told = "Every count is what the runs say." if agrees else "[red]Not every number is what the runs say.[/]"
        console.print(f"\n{told} Each program's data and log are in [bold]{options.out}[/]:", soft_wrap=True)
        for what in (
            *("collector/data/traces.jsonl", "collector/data/logs.jsonl"),
            *("prometheus", "jaeger", "victoria-logs", "graphite"),
        ):
            console.print(f"  {options.out / what}", soft_wrap=True)
        if options.keep:
            for name, url in (
                ("Prometheus", stack.prometheus.url),
                ("Jaeger", stack.jaeger.url),
                ("VictoriaLogs", f"{stack.logs.url}/select/vmui"),
                ("OTLP over HTTP", stack.collector.otlp),
            ):
                console.print(f"{name}: {url}", soft_wrap=True)
            for what, url in runs[-1]["telemetry"]["pages"].items():
                console.print(f"The last run's {what}: {url}", soft_wrap=True)
            console.print("Ctrl-C stops everything.")
            while True:
                time.sleep(3600)
    return 0 if agrees else 1


@contextmanager
def _stack(folder: Path, console: Console) -> Iterator[Stack]:
    """Start everything at once, since nobody needs another one to begin; stop it in the end."""
    graphite = Graphite(folder / "graphite")
    statsd = StatsD(folder / "statsd", graphite)
    bridge = Bridge(folder / "bridge", statsd)
    jaeger = Jaeger(folder / "jaeger")
    logs = VictoriaLogs(folder / "victoria-logs")
    prometheus = PrometheusServer(folder / "prometheus", "prometheus.yml")
    variables = variables_of(
        "otelcol",
        OTELCOL_BIND="127.0.0.1",
        OTELCOL_DATA=str(folder / "collector" / "data"),
        FORGE_STATSD_BRIDGE_ENDPOINT=bridge.url,
        JAEGER_ENDPOINT=jaeger.otlp,
        PROMETHEUS_ENDPOINT=prometheus.url,
        VICTORIA_LOGS_ENDPOINT=logs.url,
    )
    _, *overlays = (Path(option).stem for option in described()["otelcol"]["command"])
    collector = Collector(folder / "collector", *overlays, variables=variables)
    (prometheus.folder / "otelcol.targets.yaml").write_text(json.dumps([{"targets": [collector.own]}]))
    programs = (graphite, statsd, bridge, jaeger, logs, prometheus, collector)
    began = time.monotonic()
    try:
        with (
            console.status("Starting the Collector and what it sends to …"),
            ThreadPoolExecutor() as starting,
        ):
            list(starting.map(lambda program: program.run(), programs))
        console.print(f"{len(programs)} programs are ready after {time.monotonic() - began:.0f} s.")
        yield Stack(collector, prometheus, jaeger, logs, graphite)
    finally:
        for program in reversed(programs):
            program.stop()


def _run(out: Path, stack: Stack, console: Console, *options: str) -> dict[str, Any]:
    """A run of the demo; what it says of itself."""
    command = f"forge-otel demo --otlp {stack.collector.otlp} {' '.join(options)}"
    pages = {
        name: re.sub(r"^http://[^/]+", url, described()["demo"]["environment"][name])
        for name, url in (("FORGE_TRACE_URL", stack.jaeger.url), ("FORGE_LOGS_URL", stack.logs.url))
    }
    with console.status(command):
        demo = start_demo(out / "demo", stack.collector.otlp, *options, **pages)
        run: dict[str, Any] = json.loads(finish(demo, ExitCode.OK, ExitCode.SAMPLES_FAILED))
    settled = ", ".join(f"{count} {outcome}" for outcome in ("ready", "dlq") if (count := run["ledger"][outcome]))
    console.print(f"[bold]{command}[/]: {run['outcome']} in {run['duration']:.1f} s, {settled}", soft_wrap=True)
    return run


def _wait_for_arrival(stack: Stack, runs: list[dict[str, Any]]) -> None:
    """Until Prometheus, Jaeger, VictoriaLogs and Graphite have all of it."""
    records = len(stack.collector.logs())
    written = {"spans": len(stack.collector.spans()), "log_records": records}
    conditions: dict[str, Callable[[], bool]] = {
        "all runs are in Prometheus": lambda: answers.runs_in(stack.prometheus) == len(runs),
        "all spans are in Jaeger": lambda: answers.spans_in(stack.jaeger, stack.collector) == written["spans"],
        "all log records are in VictoriaLogs": lambda: answers.records_in(stack.logs) == records,
        "the Collector's own metrics were scraped": lambda: answers.taken_in(stack.prometheus) == written,
        "all runs are in Graphite": lambda: answers.is_in(stack.graphite, runs),
    }
    for what, condition in conditions.items():
        wait_until(condition, what)


if __name__ == "__main__":
    sys.exit(main())
