"""A declarative configuration that writes OTLP/JSON to files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def configuration(folder: Path, forge: Mapping[str, Any] | None = None) -> Path:
    """Write one to `otel.yaml` in the folder, with these entries of ours; the telemetry goes to `traces.jsonl`,
    `metrics.jsonl` and `logs.jsonl` beside it.
    """

    def sent_by(kind: str, signal: str) -> dict[str, Any]:
        return {kind: {"exporter": {"otlp_file": {"path": str(folder / f"{signal}.jsonl")}}}}

    file = folder / "otel.yaml"
    content = {
        "file_format": "1.0",
        "tracer_provider": {"processors": [sent_by("batch", "traces")]},
        "meter_provider": {"readers": [sent_by("periodic", "metrics")]},
        "logger_provider": {"processors": [sent_by("batch", "logs")]},
        "instrumentation/development": {"python": {"forge": dict(forge or {})}},
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file
