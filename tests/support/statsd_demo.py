"""The demo with StatsD beside its own exporters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forge import ExitCode

SCRIPT = """
import json, os, sys

from opentelemetry.sdk.metrics import MeterProvider

from forge_otel.commands.cli import main
from forge_otel.commands.telemetry import providers
from forge_otel.exporters.statsd import StatsDMetricReader

class Provider(MeterProvider):
    def __init__(self, readers, *arguments, **keywords):
        more = [StatsDMetricReader(**settings) for settings in json.loads(os.environ["READERS"])]
        super().__init__([*readers, *more], *arguments, **keywords)
        providers.MORE = more

providers.MeterProvider = Provider
code = main()
for reader in providers.MORE:
    reader.shutdown()
sys.exit(code)
"""


def run_demo(out: Path, readers: Sequence[Mapping[str, Any]], *options: str | Path) -> dict[str, Any]:
    """Run `forge-otel demo` with a reader of each of these settings; return its summary."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "demo", "--json", "--out", out, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FORGE_OTEL_SHUTDOWN_TIMEOUT": "60", "READERS": json.dumps(readers)},
    )
    assert done.returncode in {ExitCode.OK, ExitCode.SAMPLES_FAILED}, done.stderr
    assert "StatsD" not in done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document
