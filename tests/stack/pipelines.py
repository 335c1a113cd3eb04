"""Real pipelines in processes of their own, and what their databases say that they did."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge import ExitCode

SOURCES = Path(__file__).parents[2] / "src"
WORKER = Path(__file__).with_name("worker.py")
PATIENT = {"FORGE_OTEL_SHUTDOWN_TIMEOUT": "60", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
"""Settings of a sender that waits for the Collector as long as it may take on a busy machine."""


@dataclass(frozen=True)
class Database:
    """The database of a pipeline whose runs are over."""

    path: Path

    def statuses(self) -> Counter[str]:
        """How many samples have each status."""
        return self._count("SELECT status, count(*) FROM forge_samples GROUP BY status")

    def measured(self) -> Counter[str]:
        """How many values of each measurement there are."""
        return self._count("SELECT key, count(*) FROM forge_measurements GROUP BY key")

    def dead_letters(self) -> Counter[str]:
        """How many dead letters there are of each stage and class of error, put as `stage: class`."""
        return self._count("SELECT place || ': ' || error_type, count(*) FROM forge_dead_letters GROUP BY 1")

    def record(self) -> dict[str, Any]:
        """The record of the last run."""
        ((text,),) = self._rows("SELECT record FROM forge_runs ORDER BY started DESC LIMIT 1")
        record: dict[str, Any] = json.loads(text)
        return record

    def executions(self) -> Counter[tuple[str, str]]:
        """How often each stage came to each outcome in the last run."""
        found: Counter[tuple[str, str]] = Counter()
        for stage in self.record()["stages"]:
            for outcome, key in (("success", "successes"), ("skip", "skips"), ("error", "errors")):
                found[stage["name"], outcome] += stage[key]
        return +found

    def _count(self, query: str) -> Counter[str]:
        return Counter(dict(self._rows(query)))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


def start(arguments: Sequence[str | Path], **variables: str) -> subprocess.Popen[str]:
    """A Python process that knows our packages, waits for who gets its telemetry, and has these variables."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), **PATIENT, **variables}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], *codes: int) -> str:
    """Wait for its end, with one of these exit codes, by default 0; what it printed."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode in (codes or (ExitCode.OK,)), errors
    return output


def demo_input(folder: Path) -> Path:
    """Real files, and one of each kind that goes wrong."""
    package = Path(json.__file__).parent
    shutil.copytree(package, folder / "json", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "copy.py").write_bytes((package / "decoder.py").read_bytes())
    (folder / "nothing.py").write_text("import os\n")
    (folder / "syntax.py").write_text("def f(:\n")
    return folder


def start_demo(folder: Path, endpoint: str, *options: str, **variables: str) -> subprocess.Popen[str]:
    """`forge-otel demo`, which sends its telemetry to an OTLP endpoint, and keeps all of it in `folder/telemetry`."""
    arguments = ["-m", "forge_otel.commands.cli", "demo", "--otlp", endpoint, "--out", str(folder), "--json", *options]
    return start(arguments, **variables)


def start_worker(
    endpoint: str, database: Path, settings: Mapping[str, Any] | None = None, **variables: str
) -> subprocess.Popen[str]:
    """The pipeline in `worker.py`, on this database."""
    given = json.dumps({"database": str(database), **(settings or {})})
    return start([WORKER, given], OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SERVICE_NAME="worker", **variables)
