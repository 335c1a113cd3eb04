"""The stack under a steady load, and an alert that fires and is resolved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stack.programs import wait_until

from .conftest import SERVICES
from .runs import ledger, load, settled
from .stores import alerts, logs

if TYPE_CHECKING:
    from .engine import Engine


@pytest.mark.slow
def test_everything_stays_within_its_limits(up: Engine) -> None:
    run = load(up, "steady", 24_000, 200)

    assert ledger(run) == {("ready",): 23_760.0, ("dlq",): 240.0}
    wait_until(lambda: settled("steady") == ledger(run), "Prometheus has what the ledger says")
    failures = 'event_name:="forge.stage.exception" "service.name":="steady"'
    wait_until(lambda: len(logs(failures)) == 240, "VictoriaLogs has the failures")
    for name in SERVICES:
        found = up.inspect(name)
        assert not found["State"]["OOMKilled"], name
        assert found["RestartCount"] == 0, name


@pytest.fixture(scope="module", autouse=True)
def overdue(up: Engine) -> None:
    """A pipeline that is expected every second, and has run once: five minutes later an alert fires."""
    load(up, "overdue", 1, 100, "1")


@pytest.mark.slow
def test_an_alert_fires_and_is_resolved(up: Engine) -> None:
    alert = ("ForgePipelineOverdue", "overdue")
    wait_until(lambda: alerts().get(alert) == "firing", "the alert fires", 400)

    load(up, "overdue", 1, 100, "86400")

    wait_until(lambda: alert not in alerts(), "the alert is resolved")
