"""The recipe for cron jobs: processes of a moment, each of whose runs a real Prometheus sees."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.stack.programs import answers
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.recipes import copy_files, queries, run_block, running_block, shell_blocks, with_programs
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

RECIPE = "cron"


def test_jobs_are_seen(tmp_path: Path) -> None:
    port = str(free_port())
    variables = with_programs(tmp_path, prometheus="prometheus")
    copy_files(RECIPE, tmp_path)
    job, server = shell_blocks(RECIPE, {"9090": port})
    prometheus = Prometheus(f"http://127.0.0.1:{port}")

    def values(query: str) -> dict[str, float]:
        return {
            next(iter(series["metric"].values()), ""): float(series["value"][1])
            for series in prometheus.ask("query", query=query)["result"]
        }

    with running_block(server, tmp_path, variables, "prometheus.log"):
        wait_until(lambda: answers(f"{prometheus.url}/-/ready"), "Prometheus is ready")
        for _ in range(2):
            done = run_block(job, tmp_path, variables)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith("greetings: completed in ")
        (tmp_path / "job.py").write_text(
            (tmp_path / "job.py")
            .read_text()
            .replace("return sample.with_data(sample.data.upper())", "raise ValueError")
        )
        failed = run_block(job, tmp_path, variables)
        assert failed.returncode == 3

        settled, failures, age, overdue = queries(RECIPE)
        assert values(settled) == {"dlq": 0, "failed": 2, "ready": 4, "skipped": 0, "split": 0, "unchanged": 0}
        increased = values(settled.replace("last_over_time(", "increase("))
        assert increased["ready"] >= 4
        assert increased["failed"] >= 2
        assert values(failures) == {"": 0}
        [(pipeline, seconds)] = values(age).items()
        assert pipeline == "greetings"
        assert 0 <= seconds < time.time()
        assert values(overdue) == {}
        assert list(values(overdue.replace("\n> ", "\n< "))) == ["greetings"]
