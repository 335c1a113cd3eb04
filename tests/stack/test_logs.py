"""The ADR's three log lines, and what a stage logs, arrive in the file and in VictoriaLogs with their trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.waiting import wait_until

from .pipelines import finish, start_worker

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack
    from .services import Collector

FAILING = {"good": 1, "bad": 1, "fails": True}
LINES = {
    "forge.pipeline.exception": "ERROR",
    "forge.stage.exception": "WARN",
    "forge.dlq.enqueue": "INFO",
}
"""Pipeline failed, stage failed, sample to the dead letters: the events, and their severities."""


def span(collector: Collector, name: str, **wanted: str) -> dict[str, Any]:
    """The one span with this name and these attributes, whose keys have `_` for `.`."""
    (found,) = [
        span
        for span in collector.spans()
        if span["name"] == name
        and all(span["attributes"].get(key.replace("_", ".")) == value for key, value in wanted.items())
    ]
    return found


def test_in_the_file(stack: Stack, tmp_path: Path) -> None:
    collector = stack.collector().run()
    finish(start_worker(collector.otlp, tmp_path / "db", FAILING))

    run = span(collector, "forge.pipeline worker")
    found = {log["eventName"]: log for log in collector.logs() if log.get("eventName") in LINES}
    assert {name: log["severityText"] for name, log in found.items()} == LINES
    for log in found.values():
        assert log["traceId"] == run["traceId"]
        assert log["resource"]["service.name"] == "worker"
        assert log["attributes"]["forge.pipeline.name"] == "worker"
        assert log["attributes"]["forge.run.id"] == run["attributes"]["forge.run.id"]
    failed = span(collector, "forge.stage check", forge_sample_id="bad-0")
    assert found["forge.pipeline.exception"]["spanId"] == run["spanId"]
    assert found["forge.stage.exception"]["spanId"] == failed["spanId"]
    for name in ("forge.stage.exception", "forge.dlq.enqueue"):
        assert found[name]["attributes"]["forge.stage.name"] == "check"
        assert found[name]["attributes"]["forge.sample.id"] == "bad-0"
        assert found[name]["attributes"]["error.type"] == "ValueError"


def test_what_a_stage_logs_has_its_span(stack: Stack, tmp_path: Path) -> None:
    collector = stack.collector().run()
    finish(start_worker(collector.otlp, tmp_path / "db", FAILING))

    failed = span(collector, "forge.stage check", forge_sample_id="bad-0")
    (logged,) = [log for log in collector.logs() if log["body"]["stringValue"] == "looking at a bad one"]
    assert (logged["traceId"], logged["spanId"]) == (failed["traceId"], failed["spanId"])
    assert logged["severityText"] in ("WARN", "WARNING")


def test_in_victoria_logs(stack: Stack, tmp_path: Path) -> None:
    logs = stack.victoria_logs().run()
    collector = stack.collector("victoria-logs", variables={"VICTORIA_LOGS_ENDPOINT": logs.url}).run()
    finish(start_worker(collector.otlp, tmp_path / "db", FAILING))

    everything = len(collector.logs())
    wait_until(lambda: len(logs.query("service.name:=worker")) == everything, "all log records are in VictoriaLogs")
    for log in collector.logs():
        if (name := log.get("eventName")) not in LINES:
            continue
        (line,) = logs.query(f'event_name:="{name}"')
        assert line["_msg"] == log["body"]["stringValue"]
        assert line["severity_text"] == LINES[name]
        assert (line["trace_id"], line["span_id"]) == (log["traceId"], log["spanId"])
        assert line["service.name"] == "worker"
        for key, value in log["attributes"].items():
            assert type(value)(line[key]) == value
