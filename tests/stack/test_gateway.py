"""Agents send to gateways: over TLS, with a token, each trace and each process to one of them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import certify
from tests.support.waiting import wait_until

from .calls import CALLS, calls_in, post_calls
from .gateways import gateway_variables, start_agent, traces
from .pipelines import Database, finish, start_worker
from .programs import text
from .services import by_label, records, samples

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack
    from .services import Collector


def scrubbed(page: str, name: str) -> float:
    return sum(value for _, value in samples(page, name))


def test_every_trace_and_every_process_has_one_gateway(stack: Stack, gateways: list[Collector], tmp_path: Path) -> None:
    collector = start_agent(stack, gateways, tmp_path)
    settings = {"good": 40, "bad": 2}
    finish(start_worker(collector.otlp, tmp_path / "db", settings, FORGE_OTEL_TRACE_PER_SAMPLE="true"))

    accepted = collector.counter("otelcol_receiver_accepted_spans_total")
    wait_until(lambda: sum(len(gateway.spans()) for gateway in gateways) == accepted, "all spans are at a gateway")
    first, second = map(traces, gateways)
    assert first
    assert second
    assert not first.keys() & second.keys()
    assert len(first) + len(second) == 43  # a trace for each sample, and the run's

    statuses = {(status,): count for status, count in Database(tmp_path / "db").statuses().items()}

    def settled() -> list[dict[tuple[str, ...], int]]:
        pages = (text(f"http://{gateway.scraped}/metrics") for gateway in gateways)
        return [dict(by_label(page, "forge_sample_settled_total", "forge_sample_outcome")) for page in pages]

    wait_until(lambda: statuses in settled() and {} in settled(), "one gateway has all metrics, the other none")
    records = collector.counter("otelcol_receiver_accepted_log_records_total")
    wait_until(lambda: sum(len(gateway.logs()) for gateway in gateways) == records, "all log records are at a gateway")
    assert sorted(len(gateway.logs()) for gateway in gateways) == [0, records]


def test_a_gateway_does_not_count_again_what_an_agent_has_counted(
    stack: Stack, gateways: list[Collector], tmp_path: Path
) -> None:
    collector = start_agent(stack, gateways, tmp_path)
    settings = {"good": 5, "bad": 3, "text": "bob@example.com"}
    finish(start_worker(collector.otlp, tmp_path / "db", settings, FORGE_OTEL_TRACE_PER_SAMPLE="true"))
    post_calls(collector)

    def counts() -> list[tuple[float, float, dict[tuple[str, ...], int]]]:
        pages = [(text(f"http://{gateway.scraped}/metrics"), gateway) for gateway in gateways]
        return [
            (scrubbed(page, "scrubbed_spans_total"), scrubbed(page, "scrubbed_log_records_total"), calls_in(gateway))
            for page, gateway in pages
        ]

    def arrived() -> bool:
        spans, logs, calls = zip(*counts(), strict=True)
        return sum(spans) >= 6 and sum(logs) >= 7 and sum(map(len, calls)) >= 3

    wait_until(arrived, "the gateways have what the agent counted")
    spans, logs, calls = zip(*counts(), strict=True)
    assert (sum(spans), sum(logs)) == (6, 7)
    assert sorted(map(len, calls)) == [0, 3]
    assert {**calls[0], **calls[1]} == {("caller", scope): 1 for scope, _ in CALLS[:3]}


def test_nobody_gets_in_without_the_token(stack: Stack, gateways: list[Collector], tmp_path: Path) -> None:
    collector = start_agent(stack, gateways, tmp_path, token="mellon")
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 1}))

    wait_until(lambda: "Unauthenticated" in collector.log.read_text(), "the agent was sent away")
    assert [gateway.spans() for gateway in gateways] == [[], []]


def test_a_gateway_speaks_nothing_but_tls(gateways: list[Collector]) -> None:
    gateway = gateways[0]
    with socket.create_connection(("127.0.0.1", gateway.http_port)) as connection:
        connection.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n")

        wait_until(lambda: "sent an HTTP request to an HTTPS server" in gateway.log.read_text(), "it was refused")


@pytest.mark.slow
def test_an_agent_keeps_what_a_gateway_has_no_room_for(stack: Stack, tmp_path: Path) -> None:
    certify(tmp_path)
    logs, prometheus = stack.victoria_logs(), stack.prometheus()
    variables = {
        **gateway_variables(tmp_path),
        "VICTORIA_LOGS_ENDPOINT": logs.url,
        "PROMETHEUS_ENDPOINT": prometheus.url,
        "OTELCOL_QUEUE_BYTES": "65536",
    }
    overlays = ("gateway", "prometheus", "victoria-logs", "gateway-acknowledge")
    gateway = stack.collector(*overlays, name="gateway", variables=variables).run()
    collector = start_agent(stack, [gateway], tmp_path)
    settings = {"good": 40, "bad": 40, "text": "x" * 3_000}
    finish(start_worker(collector.otlp, tmp_path / "db", settings, OTEL_BLRP_MAX_EXPORT_BATCH_SIZE="4"))

    records = collector.counter("otelcol_receiver_accepted_log_records_total")
    failed = "otelcol_exporter_enqueue_failed_log_records_total"
    wait_until(lambda: gateway.counter(failed) > 0, "the gateway's queue is full")
    assert '"interval": "0s"' not in collector.log.read_text()  # between two attempts
    logs.run()

    def found() -> int:
        return int(logs.query('"service.name":="worker" | stats count() as records')[0]["records"])

    wait_until(lambda: found() == records, "VictoriaLogs has all log records")


def test_tail_sampling_keeps_what_is_worth_keeping(stack: Stack, tmp_path: Path) -> None:
    backend = stack.collector(name="backend").run()
    variables = {
        "JAEGER_ENDPOINT": backend.otlp,
        "OTELCOL_DECISION_WAIT": "1s",
        "OTELCOL_SAMPLING_PERCENTAGE": "0",
    }
    collector = stack.collector("jaeger", "tail-sampling", variables=variables).run()
    settings = {"good": 30, "bad": 3}
    # All spans of a trace come together: what comes later than the decision does not count.
    variables = {"FORGE_OTEL_TRACE_PER_SAMPLE": "true", "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    finish(start_worker(collector.otlp, tmp_path / "db", settings, **variables))

    everything = traces(collector)
    kept = {
        span["traceId"]
        for span in records(collector.data, "traces")
        if span["status"].get("code") == 2 or "forge.run.outcome" in span["attributes"]
    }
    assert len(everything) == 34
    assert len(kept) == 4
    expected = {trace: spans for trace, spans in everything.items() if trace in kept}
    wait_until(lambda: traces(backend) == expected, "the backend has them, and whole")
