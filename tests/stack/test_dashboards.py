"""What the dashboards ask of VictoriaLogs, asked of a real one: each query finds the log records that it is about."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.support.waiting import wait_until

from .pipelines import finish, start_worker
from .programs import text
from .services import CONFIGURATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .conftest import Stack
    from .services import VictoriaLogs

DASHBOARDS = CONFIGURATIONS / "grafana" / "dashboards"


def panels(panel: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for each in panel.get("panels", ()):
        yield each
        yield from panels(each)


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each query to VictoriaLogs, with where it stands."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        dashboard = json.loads(path.read_text())
        for annotation in dashboard["annotations"]["list"]:
            yield f"{path.stem}: {annotation['name']}", annotation["target"]
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                if target["datasource"]["uid"] == "victoria-logs":
                    yield f"{path.stem}: {panel['title']}", target


def ask(logs: VictoriaLogs, target: Mapping[str, Any], since: float, **chosen: str) -> list[dict[str, Any]]:
    """Ask as the plug-in does; Grafana has put the chosen values where its variables are."""
    query = re.sub(r"\$\{(\w+):regex\}", lambda found: chosen.get(found[1], ".*"), target["expr"])
    if target["queryType"] == "instant":
        return list(logs.query(query))
    asked = urlencode({"query": query, "start": f"{since:.0f}", "end": f"{time.time() + 60:.0f}", "step": "1d"})
    return list(json.loads(text(f"{logs.url}/select/logsql/stats_query_range?{asked}"))["data"]["result"])


def event(target: Mapping[str, Any]) -> str:
    (name,) = re.findall(r'^"event_name":="([\w.]+)"', target["expr"])
    return str(name)


def test_each_query_finds_its_log_records(stack: Stack, tmp_path: Path) -> None:
    logs = stack.victoria_logs().run()
    collector = stack.collector("victoria-logs", variables={"VICTORIA_LOGS_ENDPOINT": logs.url}).run()
    began = time.time()
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 2, "bad": 3, "fails": True}))
    finish(start_worker(collector.otlp, tmp_path / "db2", {"good": 2}))
    sent = collector.logs()
    wait_until(lambda: len(logs.query("*")) == len(sent), "all log records are in VictoriaLogs")
    events = Counter(log.get("eventName", "") for log in sent)
    stops = Counter(
        log["attributes"]["forge.run.outcome"] for log in sent if log.get("eventName") == "forge.pipeline.stop"
    )
    assert stops == {"failed": 1, "completed": 1}

    asked = dict(targets())
    for where, target in asked.items():
        assert ask(logs, target, began, pipeline="wor|ker") == [], where
        if where.split(": Runs ")[-1] in ("completed", "failed", "cancelled"):
            expected = stops[where.split(": Runs ")[-1]]
        else:
            expected = events[event(target)]
        found = ask(logs, target, began, pipeline="(other|worker)")
        if target["queryType"] == "instant":
            assert len(found) == expected, where
            assert {record["event_name"] for record in found} <= {event(target)}, where
    (outcomes, durations) = (asked[f"runs: {title}"] for title in ("Runs that ended", "Duration of each run"))
    assert outcomes["legendFormat"] == "{{forge.run.outcome}}"
    assert {
        series["metric"]["forge.run.outcome"]: sum(float(value) for _, value in series["values"])
        for series in ask(logs, outcomes, began)
    } == stops
    summaries = [log["attributes"] for log in sent if log.get("eventName") == "forge.pipeline.summary"]
    (series,) = ask(logs, durations, began)
    assert series["metric"]["forge.pipeline.name"] == "worker"
    assert max(float(value) for _, value in series["values"]) == max(
        summary["forge.summary.duration"] for summary in summaries
    )


def test_a_row_leads_to_the_log_records_of_its_run(stack: Stack, tmp_path: Path) -> None:
    logs = stack.victoria_logs().run()
    collector = stack.collector("victoria-logs", variables={"VICTORIA_LOGS_ENDPOINT": logs.url}).run()
    for database in ("db", "db2"):
        finish(start_worker(collector.otlp, tmp_path / database, {"good": 1, "bad": 1}))
    sent = collector.logs()
    wait_until(lambda: len(logs.query("*")) == len(sent), "all log records are in VictoriaLogs")

    (row, _) = logs.query('event_name:="forge.pipeline.summary"')
    found = logs.query(f'"forge.run.id":="{row["forge.run.id"]}"')
    of_the_trace = logs.query(f'trace_id:="{row["trace_id"]}"')

    run = [log for log in sent if log["attributes"].get("forge.run.id") == row["forge.run.id"]]
    assert Counter(log["event_name"] for log in found) == Counter(log["eventName"] for log in run)
    assert len(of_the_trace) == len([log for log in sent if log["traceId"] == row["trace_id"]])
