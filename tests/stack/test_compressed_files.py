"""Files that a Collector compresses: `forge-otel` reads them as it does others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge_otel.commands.cli import main
from tests.support.waiting import wait_until

from .pipelines import finish, start_worker

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack


def test_files_compressed_by_the_collector(stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "traces.jsonl.zst"
    settings: dict[str, Any] = {
        "exporters": {"file/zstd": {"path": str(file), "compression": "zstd"}},
        "service": {"pipelines": {"traces/zstd": {"receivers": ["otlp"], "exporters": ["file/zstd"]}}},
    }
    collector = stack.collector("local", settings=settings).run()
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 20}))
    sent = collector.spans()

    def spans() -> int:
        code = main(["trace", "top", "--json", str(file)])
        out = capsys.readouterr().out
        return json.loads(out)["spans"] if code == 0 else 0

    wait_until(lambda: spans() == len(sent) > 20, "all spans are in the file")
