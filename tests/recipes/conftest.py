"""What the tests of recipes share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.programs import Program, answers
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.recipes import environment
from tests.support.tools import tool

PROMETHEUS = "127.0.0.1:9090"
"""Where the recipes have Prometheus."""


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that takes OTLP, started as the recipe for cron jobs says."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    (folder / "prometheus.yml").write_text(
        "otlp: {keep_identifying_resource_attributes: true}\nstorage: {tsdb: {out_of_order_time_window: 30m}}\n"
    )
    port = free_port()
    server = Program(
        "prometheus",
        [
            tool("prometheus"),
            "--config.file=prometheus.yml",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-otlp-receiver",
            "--enable-feature=created-timestamp-zero-ingestion,exemplar-storage",
        ],
        folder,
        environment(),
    )
    server.start(lambda: answers(f"http://127.0.0.1:{port}/-/ready"))
    yield Prometheus(f"http://127.0.0.1:{port}")
    server.kill()
