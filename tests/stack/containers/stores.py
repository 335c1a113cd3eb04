"""What the stores of the stack say, asked at the ports that docker-compose.yml publishes."""

from __future__ import annotations

import time
from typing import Any

from tests.stack.services import log_records, spans_of
from tests.support.prometheus import Prometheus

from .engine import ADDRESS

PROMETHEUS = Prometheus(f"http://{ADDRESS}:9090")
JAEGER = f"http://{ADDRESS}:16686"
LOGS = f"http://{ADDRESS}:9428"
GRAPHITE = f"http://{ADDRESS}:8428"


def value(expression: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The values of an expression in Prometheus, by labels."""
    return PROMETHEUS.query(expression, *labels)


def logs(expression: str) -> list[dict[str, str]]:
    """The log records that LogsQL selects."""
    return log_records(LOGS, expression)


def trace(identity: str) -> dict[str, dict[str, Any]]:
    """The spans of a trace in Jaeger, by id."""
    return {span["spanID"]: span for span in spans_of(JAEGER, identity)}


def exemplars(expression: str) -> set[tuple[str, str]]:
    """The ids of the traces and spans that the points of a metric lead to."""
    now = time.time()
    asked = PROMETHEUS.ask("query_exemplars", query=expression, start=f"{now - 3600:.0f}", end=f"{now + 1:.0f}")
    return {(each["labels"]["trace_id"], each["labels"]["span_id"]) for series in asked for each in series["exemplars"]}


def summaries() -> dict[str, str]:
    """The traces of all runs, by the runs' ids."""
    return {log["forge.run.id"]: log["trace_id"] for log in logs('event_name:="forge.pipeline.summary"')}


def alerts() -> dict[tuple[str, str], str]:
    """The states of the alerts that are pending or firing, by alert and pipeline."""
    return {
        (alert["labels"]["alertname"], alert["labels"].get("forge_pipeline_name", "")): alert["state"]
        for alert in PROMETHEUS.ask("alerts")["alerts"]
    }
