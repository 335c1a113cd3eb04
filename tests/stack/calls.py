"""Spans of other libraries, of which the Collector makes metrics."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import TYPE_CHECKING

from .programs import text
from .services import by_label

if TYPE_CHECKING:
    from .services import Collector

HTTP = {"http.request.method": "GET", "http.response.status_code": "500", "server.address": "labels.example.com"}
CALLS = (
    ("opentelemetry.instrumentation.httpx", HTTP),
    ("opentelemetry.instrumentation.psycopg", {"db.system.name": "postgresql", "db.operation.name": "SELECT"}),
    ("opentelemetry.util.genai", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}),
    ("somebody.else", {"some": "attribute"}),
    ("forge_otel", {"forge.stage.name": "annotate", **HTTP}),
)
"""Scopes, and the attributes of their spans: three calls, and two spans that are none."""


def post_calls(collector: Collector) -> None:
    """Send a span of each scope."""
    now = time.time_ns()
    spans = [
        {
            "scope": {"name": scope},
            "spans": [
                {
                    "traceId": "0123456789abcdef0123456789abcdef",
                    "spanId": f"{number:016x}",
                    "name": scope,
                    "kind": 3,
                    "startTimeUnixNano": str(now - 30_000_000),
                    "endTimeUnixNano": str(now),
                    "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in given.items()],
                }
            ],
        }
        for number, (scope, given) in enumerate(CALLS, 1)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "caller"}}]}
    body = json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": spans}]}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{collector.otlp}/v1/traces", body, headers)) as response:
        response.read()


def calls_in(collector: Collector) -> dict[tuple[str, ...], int]:
    """How many calls a Collector lets Prometheus scrape, by service and scope."""
    page = text(f"http://{collector.scraped}/metrics")
    return dict(by_label(page, "traces_span_metrics_calls_total", "job", "span_name"))
