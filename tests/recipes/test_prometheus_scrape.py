"""The recipe for Prometheus: a real one scrapes the service, and answers the page's queries."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.stack.programs import answers, text
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.recipes import copy_files, queries, running_block, shell_blocks, with_programs
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

RECIPE = "prometheus-scrape"


def test_a_service_is_scraped(tmp_path: Path) -> None:
    ours, theirs = str(free_port()), str(free_port())
    replaced = {"9464": ours, "9090": theirs, "15s": "1s", "sleep(5)": "sleep(0.2)"}
    variables = with_programs(tmp_path, prometheus="prometheus")
    copy_files(RECIPE, tmp_path, replaced)
    service, server = shell_blocks(RECIPE, replaced)
    prometheus = Prometheus(f"http://127.0.0.1:{theirs}")

    def values(query: str) -> dict[str, float]:
        return {
            next(iter(series["metric"].values()), ""): float(series["value"][1])
            for series in prometheus.ask("query", query=query)["result"]
        }

    with (
        running_block(service, tmp_path, variables, "service.log"),
        running_block(server, tmp_path, variables, "prometheus.log"),
    ):
        wait_until(lambda: answers(f"{prometheus.url}/-/ready"), "Prometheus is ready")
        rate, completed, age = queries(RECIPE)
        wait_until(lambda: values(rate).get("ready", 0) > 0, "there is a rate")
        exposed = text(f"http://127.0.0.1:{ours}/metrics")
        assert 'forge_pipeline_completed_total{forge_pipeline_name="greetings"' in exposed
        rates = values(rate)
        assert {outcome for outcome, value in rates.items() if value == 0} == {
            "dlq",
            "failed",
            "skipped",
            "split",
            "unchanged",
        }
        wait_until(lambda: values(completed).get("completed", 0) >= 2, "two runs are over")
        runs = values(completed)
        assert runs["completed"] >= 2
        assert (runs["failed"], runs["cancelled"]) == (0, 0)
        [(pipeline, seconds)] = values(age).items()
        assert pipeline == "greetings"
        assert 0 <= seconds < time.time()
    assert "not delivered" not in (tmp_path / "service.log").read_text()
