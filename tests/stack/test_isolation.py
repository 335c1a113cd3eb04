"""A backend that is down or never answers: the other routes get everything, once, and the sender never knows."""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from tests.support.ports import free_port

from .pipelines import finish, start_worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Stack

QUEUE = "65536"
"""Bytes: a few requests. A batch may have as many."""
MANY_REQUESTS = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32", "OTEL_BSP_SCHEDULE_DELAY": "20"}


@pytest.fixture(params=["down", "silent"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a backend should be: nobody listens there, or somebody who takes connections and never answers."""
    with ExitStack() as stack:
        port = free_port()
        if request.param == "silent":
            server = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
            port = server.getsockname()[1]
        yield f"http://127.0.0.1:{port}"


def test_a_full_queue_is_nobody_elses_business(stack: Stack, backend: str, tmp_path: Path) -> None:
    variables = {"JAEGER_ENDPOINT": backend, "OTELCOL_QUEUE_BYTES": QUEUE}
    collector = stack.collector("jaeger", variables=variables).run()

    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 300}, **MANY_REQUESTS))

    (summary,) = [log for log in collector.logs() if log.get("eventName") == "forge.pipeline.summary"]
    spans = Counter(span["spanId"] for span in collector.spans())
    assert len(spans) == summary["attributes"]["forge.summary.spans"]
    assert set(spans.values()) == {1}
    assert collector.counter("otelcol_receiver_refused_spans_total") == 0
    assert collector.counter("otelcol_receiver_failed_spans_total") == 0
    dropped = collector.counter("otelcol_exporter_enqueue_failed_spans_total", exporter="otlp_http/jaeger")
    assert 0 < dropped < len(spans)
