"""The recipe for a service: batches for ever, until SIGTERM ends the one in progress."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from forge import SQLStorage
from tests.support.collector import running_collector
from tests.support.recipes import copy_files, environment, run_block, running_block, shell_blocks
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

RECIPE = "service"
PATIENCE = 60


@pytest.mark.parametrize("seconds", ["0.5", "3600"])
def test_batches_until_a_signal(tmp_path: Path, seconds: str) -> None:
    copy_files(RECIPE, tmp_path)
    with running_collector() as collector:
        service, look = shell_blocks(RECIPE, {"http://127.0.0.1:4318": collector.url, "INTERVAL=60000": "INTERVAL=500"})
        variables = environment(BATCH_SECONDS=seconds, FORGE_OTEL_SHUTDOWN_TIMEOUT=str(PATIENCE))
        ready = "pipeline.name=numbers, sample.outcome=ready"
        with running_block(service, tmp_path, variables, "log") as started:
            if seconds == "3600":  # metrics come while a run goes on
                wait_until(
                    lambda: collector.metrics.get("forge.sample.settled", {}).get(ready, 0) > 0, "there are counts"
                )
            else:
                log = tmp_path / "log"
                wait_until(lambda: log.read_text().count("numbers: completed in ") >= 2, "two batches are over")
            started.send_signal(signal.SIGTERM)
            assert started.wait(4 * PATIENCE) == -signal.SIGTERM
        said = (tmp_path / "log").read_text()
        assert "not delivered" not in said

        storage = SQLStorage(f"sqlite:///{tmp_path / 'numbers.db'}")
        runs = storage.runs("numbers")
        stored = storage.count("numbers")
        storage.close()
        assert collector.metrics["forge.sample.settled"][ready] == stored
        assert collector.names.count("forge.pipeline numbers") == len(runs)
        outcomes = {run.outcome for run in runs}
        if seconds == "3600":
            assert outcomes == {"cancelled"}
            assert run_block(look, tmp_path, environment()).stdout == "cancelled\n"
        else:
            assert "completed" in outcomes
            assert said.count("numbers: completed in ") >= 2
