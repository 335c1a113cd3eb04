"""Pipelines that run in containers of the demo's image, and what became of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.stack.services import records

from .stores import value

if TYPE_CHECKING:
    from .engine import Engine

OVERDUE = "overdue"
"""The pipeline that does not run as often as it should."""
LOAD = Path(__file__).with_name("load.py")
SETTLED = (
    'sum by (forge_sample_outcome) (max_over_time(forge_sample_settled_total{{forge_pipeline_name="{0}"}}[1h])) > 0'
)


def load(
    up: Engine, name: str, samples: int, rate: int, *more: str, agent: str = "otelcol", **variables: str
) -> dict[str, Any]:
    """Run the load in the demo's image, and return what it says of itself."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{agent}:4318",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "OTEL_SERVICE_NAME": name,
        "FORGE_OTEL_SHUTDOWN_TIMEOUT": "120",
        **variables,
    }
    options = [option for key, value in variables.items() for option in ("--env", f"{key}={value}")]
    done = up.run(
        *("docker", "compose", "--profile", "demo", "run", "--rm", "-T", "--no-deps", *options),
        *(
            "--volume",
            f"{LOAD}:/load.py:ro",
            "demo",
            " ".join(["python /load.py", name, str(samples), str(rate), *more]),
        ),
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ledger(run: dict[str, Any]) -> dict[tuple[str, ...], float]:
    return {(outcome,): float(run["ledger"][outcome]) for outcome in ("ready", "dlq")}


def settled(name: str) -> dict[tuple[str, ...], float]:
    return value(SETTLED.format(name), "forge_sample_outcome")


def of(service: str, folder: Path, signal: str) -> list[dict[str, Any]]:
    """What the Collector's files have of a service."""
    return [each for each in records(folder, signal) if each["resource"]["service.name"] == service]


def sent(written: list[dict[str, Any]]) -> int:
    """How many spans a run wrote within its budget, by its own account."""
    (number,) = {
        log["attributes"]["forge.summary.spans"] for log in written if log.get("eventName") == "forge.pipeline.summary"
    }
    return int(number)


def demo(up: Engine, *options: str) -> dict[str, Any]:
    """A run of the demo in its container, and what it says of itself."""
    patient = ("--env", "FORGE_OTEL_SHUTDOWN_TIMEOUT=120")
    command = f"forge-otel demo --otlp http://otelcol:4317 --out /demo --json {' '.join(options)}"
    done = up.run("docker", "compose", "--profile", "demo", "run", "--rm", "-T", *patient, "demo", command, check=False)
    assert done.returncode in (0, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def collected(up: Engine, folder: Path) -> Path:
    """A copy of the Collector's files as they are now."""
    copy = folder / f"otelcol-{time.time_ns()}"
    up.compose("cp", "otelcol:/var/lib/otelcol", str(copy))
    return copy
