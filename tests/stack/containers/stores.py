"""What the stores of the stack say, asked at the ports that docker-compose.yml publishes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.stack.programs import text
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


def logs_of_page(identity: str) -> list[dict[str, str]]:
    """The log records that a trace's page in Jaeger links."""
    (settings,) = re.findall(r"^JAEGER_CONFIG = (.+);$", text(f"{JAEGER}/trace/{identity}"), re.MULTILINE)
    (link,) = json.loads(settings)["linkPatterns"]
    return logs(_query(link["url"].replace("#{traceID}", identity)))


def summaries() -> dict[str, str]:
    """The traces of all runs, by the runs' ids."""
    return {log["forge.run.id"]: log["trace_id"] for log in logs('event_name:="forge.pipeline.summary"')}


def alerts() -> dict[tuple[str, str], dict[str, Any]]:
    """The alerts that are pending or firing, by alert and pipeline."""
    return {
        (alert["labels"]["alertname"], alert["labels"].get("forge_pipeline_name", "")): alert
        for alert in PROMETHEUS.ask("alerts")["alerts"]
    }


def linked(alert: Mapping[str, Any]) -> tuple[list[dict[str, str]], list[str]]:
    """The log records and the ids of the traces on the pages that an alert links."""
    found = json.loads(text(f"{JAEGER}/api/traces?{urlsplit(alert['annotations']['traces_url']).query}"))
    return logs(_query(alert["annotations"]["logs_url"])), [each["traceID"] for each in found["data"]]


def _query(url: str) -> str:
    """The query of a page of VictoriaLogs."""
    (found,) = parse_qs(urlsplit(url).fragment.partition("?")[2])["query"]
    return found
