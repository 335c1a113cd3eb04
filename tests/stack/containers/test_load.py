"""The stack under a steady load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import wait_until

from .conftest import SERVICES
from .memory import Peaks
from .runs import ledger, load, settled
from .stores import logs

if TYPE_CHECKING:
    from .engine import Engine


@pytest.mark.slow
def test_everything_stays_within_its_limits(up: Engine) -> None:
    with Peaks(up) as peaks:
        run = load(up, "steady", 24_000, 200)

        assert ledger(run) == {("ready",): 23_760.0, ("dlq",): 240.0}
        wait_until(lambda: settled("steady") == ledger(run), "Prometheus has what the ledger says")
        failures = 'event_name:="forge.stage.exception" "service.name":="steady"'
        wait_until(lambda: len(logs(failures)) == 240, "VictoriaLogs has the failures")
    assert peaks.used.keys() == {*SERVICES, "demo"}
    print(peaks)  # noqa: T201 - docs/stack.md shows it
    assert {name: used for name, used in peaks.used.items() if used >= peaks.limits[name]} == {}
    for name in SERVICES:
        found = up.inspect(name)
        assert not found["State"]["OOMKilled"], name
        assert found["RestartCount"] == 0, name
