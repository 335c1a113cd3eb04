"""The recipe for notebooks: its cells, run twice in a real kernel."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.collector import running_collector
from tests.support.needs import need_installed
from tests.support.recipes import copy_files, environment

if TYPE_CHECKING:
    from tests.support.collector import Collector

pytestmark = pytest.mark.slow

SPANS = [
    "forge.pipeline greetings",
    "forge.sample",
    "forge.sample",
    "forge.stage shout",
    "forge.stage shout",
]
EVENTS = ["forge.pipeline.start", "forge.pipeline.stop", "forge.pipeline.summary", "forge.stage.summary"]


@pytest.fixture(autouse=True)
def _installed() -> None:
    need_installed("forge-otel", "ipykernel", "nbclient")


def run_notebook(folder: Path, cells: list[str], endpoint: str) -> list[str]:
    """Run a notebook with these cells; returns what each of them printed, warnings and log records included."""
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": [
            {
                "id": str(number),
                "cell_type": "code",
                "source": cell,
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for number, cell in enumerate(cells)
        ],
    }
    (folder / "notebook.ipynb").write_text(json.dumps(notebook))
    done = subprocess.run(
        ["jupyter", "execute", "--output=done.ipynb", "notebook.ipynb"],
        cwd=folder,
        env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, IPYTHONDIR=str(folder / "ipython")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = json.loads((folder / "done.ipynb").read_text())["cells"]
    return ["".join("".join(output["text"]) for output in cell["outputs"]) for cell in run]


def received(collector: Collector) -> tuple[list[str], list[str], float]:
    settled = collector.metrics.get("forge.sample.settled", {})
    ready = settled.get("pipeline.name=greetings, sample.outcome=ready", 0)
    return list(collector.names), sorted(collector.events), ready


@pytest.mark.parametrize("is_shut_down", [True, False])
def test_cells_run_twice(tmp_path: Path, is_shut_down: bool) -> None:
    copy_files("jupyter", tmp_path)
    setup, pipeline = (tmp_path / "1-setup.py").read_text(), (tmp_path / "2-pipeline.py").read_text()
    if not is_shut_down:
        setup = setup[: setup.index("for earlier in")]
    with running_collector() as first, running_collector() as second:
        moved = f"import os\nos.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = {second.url!r}"
        printed = run_notebook(tmp_path, [setup, pipeline, moved, setup, pipeline, pipeline], first.url)

    line = r"greetings: completed in \S+ s; 2 admitted, 0 derived: 2 ready\n\n(?s:.*)"
    for number, expected in enumerate(["", line, "", "", line, line]):
        assert re.fullmatch(expected, printed[number]), printed
    assert received(first) == (SPANS, EVENTS, 2)
    assert received(second) == (sorted(2 * SPANS), sorted(2 * EVENTS), 4)
    assert first.resources[0]["service.name"] == "notebook"


def test_a_run_over_several_cells_keeps_its_providers(tmp_path: Path) -> None:
    copy_files("jupyter", tmp_path)
    setup, pipeline = (tmp_path / "1-setup.py").read_text(), (tmp_path / "2-pipeline.py").read_text()
    setup = setup[: setup.index("for earlier in")]
    opened = pipeline.replace(
        "print(BatchRunner().run(pipeline).drain())", "run = BatchRunner().run(pipeline)\n_ = next(run)"
    )
    with running_collector() as first, running_collector() as second:
        moved = f"import os\nos.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = {second.url!r}"
        run_notebook(tmp_path, [setup, opened, moved, setup, "print(len(list(run)))", pipeline], first.url)
    assert received(first) == (SPANS, EVENTS, 2)
    assert received(second) == (SPANS, EVENTS, 2)
