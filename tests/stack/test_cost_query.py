"""The cost query of the README, on a real Prometheus that has three days of data."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forge_otel.semconv import attributes as a
from forge_otel.semconv import metrics as m
from tests.support.tools import tool
from tools.generate import promql as q
from tools.generate import queries

if TYPE_CHECKING:
    from .conftest import Stack

README = Path(__file__).parents[2] / "README.md"
DAY = 86_400
MINUTE = 60
NOW = int(time.time()) // DAY * DAY
BEGIN = NOW - 3 * DAY
ALL = range(72)

# US dollars, by the hour at which they were spent.
LONG = {2: 1.0, 20: 2.0, 30: 4.0, 40: 8.0, 70: 16.0}
"""By a process that runs all the time."""
SHORT = {33: 32.0}
"""By one that runs from hour 32 to 34 of the three days; its series begins when it has spent something."""
RESTARTED = {10: 64.0, 50: 128.0, 60: 256.0}
"""By one that is restarted at hour 55 under the same address, so that its counter begins again."""
OTHER = {5: 1024.0, 45: 1024.0}
"""With another model."""


def query() -> str:
    (found,) = re.findall(r"^```promql\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def test_it_asks_as_the_dashboards_do() -> None:
    embeddings = {a.GEN_AI_REQUEST_MODEL: q.matching("text-embedding-.*")}
    built = str(queries.grown(m.FORGE_COST_AMOUNT, "1d", (), embeddings))
    assert re.sub(r"[\s()]", "", query()) == re.sub(r"[\s()]", "", built)


def counter(instance: str, spent: dict[int, float], *, hours: range = ALL, model: str, reset: int = 0) -> Iterator[str]:
    """A counter at every minute of these hours, in the format that Prometheus imports."""
    labels = f'instance="{instance}",gen_ai_request_model="{model}",gen_ai_provider_name="openai"'
    for minute in range(hours.start * 60, hours.stop * 60):
        since = reset * 60 if minute >= reset * 60 else 0
        total = sum(amount for hour, amount in spent.items() if since <= hour * 60 <= minute)
        yield f"forge_cost_amount_total{{{labels}}} {total} {BEGIN + minute * MINUTE}"


@pytest.mark.slow
def test_it_says_what_a_day_cost(stack: Stack, tmp_path: Path) -> None:
    embedding = "text-embedding-3-small"
    lines = [
        "# TYPE forge_cost_amount counter",
        *counter("long", LONG, model=embedding),
        *counter("short", SHORT, model=embedding, hours=range(33, 34)),
        *counter("restarted", RESTARTED, model=embedding, reset=55),
        *counter("other", OTHER, model="gpt-4o-mini"),
        "# EOF",
    ]
    (tmp_path / "days.txt").write_text("\n".join(lines) + "\n")
    server = stack.prometheus()
    data = stack.folder / "prometheus" / "data"
    command = [
        str(tool("promtool")),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        str(tmp_path / "days.txt"),
        str(data),
    ]
    subprocess.run(command, check=True, capture_output=True)
    server.run()

    costs = [float(server.api.ask("query", query=query(), time=str(at))["result"][0]["value"][1]) for at in days()]
    # What is new counts exactly. `increase` sees what was spent between the first and the last minute of a day, and
    # extrapolates it to the day.
    whole = DAY / (DAY - MINUTE)
    assert costs == pytest.approx([1 + 2 + 64, (4 + 8) * whole + 32, (16 + 128 + 256) * whole])


def days() -> list[int]:
    """The last moment of each of the three days."""
    return [BEGIN + number * DAY - 1 for number in (1, 2, 3)]
