"""Kafka between an agent and two gateways: what it has is read, whoever is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import certify
from tests.support.waiting import LONG, wait_until

from .pipelines import Database, finish, start_worker
from .programs import text
from .services import by_label

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack
    from .kafka import Kafka
    from .services import Collector

WITH_FILES = {
    "service": {"pipelines": {"traces/file": {"exporters": ["file/traces"]}, "logs/file": {"exporters": ["file/logs"]}}}
}
"""So that the test can see what a gateway has."""
REJOINED = LONG
"""Seconds that clients of a broker may take, on a busy machine, to find out who is there and who reads what."""


@pytest.fixture
def kafka(stack: Stack) -> Kafka:
    return stack.kafka().run()


@pytest.fixture
def gateways(stack: Stack, kafka: Kafka, tmp_path: Path) -> list[Collector]:
    certify(tmp_path)
    variables = {
        "KAFKA_BROKERS": kafka.brokers,
        "OTELCOL_TOKEN": "sesame",
        "OTELCOL_TLS_CERT": str(tmp_path / "cert.pem"),
        "OTELCOL_TLS_KEY": str(tmp_path / "key.pem"),
    }
    return [
        stack.collector("gateway", "gateway-kafka", name=name, variables=variables, settings=WITH_FILES).run()
        for name in ("gateway-1", "gateway-2")
    ]


@pytest.fixture
def agent(stack: Stack, kafka: Kafka, gateways: list[Collector], tmp_path: Path) -> Collector:
    variables = {
        "KAFKA_BROKERS": kafka.brokers,
        "OTELCOL_TOKEN": "sesame",
        "OTELCOL_TLS_CA": str(tmp_path / "cert.pem"),
        "OTELCOL_GATEWAYS": f"[{', '.join(gateway.grpc for gateway in gateways)}]",  # agent.yaml wants it all the same
    }
    return stack.collector("agent", "agent-kafka", name="agent", variables=variables).run()


def wait_for_all(agent: Collector, gateways: list[Collector], database: Database) -> None:
    """Wait until the gateways have all that the agent took in; they may have some of it twice."""
    spans = agent.counter("otelcol_receiver_accepted_spans_total")
    records = agent.counter("otelcol_receiver_accepted_log_records_total")
    assert spans > 0 < records
    wait_until(
        lambda: len({span["spanId"] for gateway in gateways for span in gateway.spans()}) == spans,
        "the gateways have all spans",
        REJOINED,
    )
    wait_until(
        lambda: len({repr(log) for gateway in gateways for log in gateway.logs()}) == records,
        "the gateways have all log records",
        REJOINED,
    )
    statuses = {(status,): count for status, count in database.statuses().items()}

    def settled() -> list[dict[tuple[str, ...], int]]:
        pages = [text(f"http://{gateway.scraped}/metrics") for gateway in gateways if gateway.runs]
        return [dict(by_label(page, "forge_sample_settled_total", "forge_sample_outcome")) for page in pages]

    wait_until(lambda: statuses in settled(), "a gateway has the metrics", REJOINED)


@pytest.mark.slow
def test_each_trace_is_read_by_one_gateway(gateways: list[Collector], agent: Collector, tmp_path: Path) -> None:
    settings = {"good": 40, "bad": 2}
    finish(start_worker(agent.otlp, tmp_path / "db", settings, FORGE_OTEL_TRACE_PER_SAMPLE="true"))

    wait_for_all(agent, gateways, Database(tmp_path / "db"))
    first, second = ({span["traceId"] for span in gateway.spans()} for gateway in gateways)
    assert len(first) + len(second) == 43  # a trace for each sample, and the run's
    assert not first & second


@pytest.mark.slow
def test_nothing_is_lost_when_a_gateway_is_killed(gateways: list[Collector], agent: Collector, tmp_path: Path) -> None:
    database = tmp_path / "db"
    settings = {"good": 300, "bad": 20, "pause": str(tmp_path / "go")}
    variables = {"FORGE_OTEL_TRACE_PER_SAMPLE": "true", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    worker = start_worker(agent.otlp, database, settings, **variables)

    def reading() -> list[Collector]:
        """The gateways with spans: the broker decides which of them reads what the agent writes first."""
        return [gateway for gateway in gateways if gateway.spans()]

    wait_until(lambda: bool(reading()), "a gateway reads", REJOINED)
    reading()[0].kill()
    (tmp_path / "go").touch()
    finish(worker)

    wait_for_all(agent, gateways, Database(database))


@pytest.mark.slow
def test_nothing_is_lost_while_the_broker_is_down(
    kafka: Kafka, gateways: list[Collector], agent: Collector, tmp_path: Path
) -> None:
    kafka.kill()
    settings = {"good": 20, "bad": 2}
    finish(start_worker(agent.otlp, tmp_path / "db", settings, FORGE_OTEL_TRACE_PER_SAMPLE="true"))
    kafka.run()

    wait_for_all(agent, gateways, Database(tmp_path / "db"))
