"""A run on two nodes of Ray, each with an agent of its own, while a gateway and a worker are killed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.model import running_model
from tests.support.needs import need_installed
from tests.support.ray import ON_NODES
from tests.support.waiting import wait_until

from . import ray_driver
from .gateways import start_agent
from .pipelines import Database, finish, start
from .programs import text
from .services import by_label

if TYPE_CHECKING:
    import subprocess

    from tests.support.ray import Nodes

    from .conftest import Stack
    from .services import Collector

pytestmark = ON_NODES

NODES = ("one", "two")

DURATION = "gen_ai_client_operation_duration_seconds"

PARTS = ("before", "during", "after")
"""Parts of the source: what comes before, during and after the absence of a gateway."""


def start_driver(ray: str, agent: Collector, model: str, folder: Path) -> subprocess.Popen[str]:
    """Start the pipeline as a user does. Of its variables, nodes have only where their own agent is."""
    settings = {
        "ray": ray,
        "model": model,
        "database": str(folder / "db"),
        "folder": str(folder),
        "parts": PARTS,
    }
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    return start(
        [instrument, sys.executable, ray_driver.__file__, json.dumps(settings)],
        OTEL_SERVICE_NAME="asking",
        OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_BSP_SCHEDULE_DELAY="200",
    )


def is_call(span: dict[str, Any]) -> bool:
    return bool(span["name"] == "chat small")


def test_a_killed_gateway_loses_nothing_and_a_killed_worker_what_it_had_not_exported(
    stack: Stack, gateways: list[Collector], nodes: Nodes, tmp_path: Path
) -> None:
    need_installed("forge-otel", "opentelemetry-distro", "opentelemetry-instrumentation-genai-openai")
    agents = {name: start_agent(stack, gateways, tmp_path, name=f"agent-{name}") for name in NODES}
    nodes.clear()
    for name, agent in agents.items():
        its = {"OTEL_EXPORTER_OTLP_ENDPOINT": agent.otlp, "OTEL_RESOURCE_ATTRIBUTES": f"k8s.node.name={name}"}
        nodes.add(cores=1, variables=its)

    def accepted_by(agent: Collector) -> int:
        return int(agent.counter("otelcol_receiver_accepted_spans_total"))

    def accepted() -> int:
        return sum(map(accepted_by, agents.values()))

    def found() -> dict[str, dict[str, Any]]:
        """All spans at the gateways, by their ids."""
        return {span["spanId"]: span for gateway in gateways for span in gateway.spans()}

    with running_model() as model:
        driver = start_driver(nodes.address, agents["one"], model.url, tmp_path)
        wait_until(lambda: any(map(is_call, found().values())), "a gateway has the trace of the run")
        [busy] = [gateway for gateway in gateways if gateway.spans()]
        busy.kill()
        before = accepted()
        (tmp_path / "during").touch()
        wait_until(lambda: accepted() >= before + ray_driver.SIZE, "the agents have what the gateway misses")
        wait_until((tmp_path / ray_driver.DIED).exists, "a worker has died")
        assert len(found()) < accepted()
        busy.run()
        (tmp_path / "after").touch()
        finish(driver)
    died = (tmp_path / ray_driver.DIED).read_text()

    # The sums of the run are those of its rows.
    database = Database(tmp_path / "db")
    record = database.record()
    ledger = record["ledger"]
    assert database.statuses() == {"ready": 48, "dlq": 6, "skipped": 6}
    assert (ledger["ready"], ledger["dlq"], ledger["skipped"], ledger["imbalance"]) == (48, 6, 6, 0)
    settled = {(status,): count for status, count in database.statuses().items()}

    def scraped() -> list[dict[tuple[str, ...], int]]:
        pages = (text(f"http://{gateway.scraped}/metrics") for gateway in gateways)
        return [dict(by_label(page, "forge_sample_settled_total", "forge_sample_outcome")) for page in pages]

    def summaries() -> list[dict[str, Any]]:
        logs = (log for gateway in gateways for log in gateway.logs())
        return [log["attributes"] for log in logs if log.get("eventName") == "forge.pipeline.summary"]

    def exported() -> Counter[str]:
        """How many calls each worker's spans show."""
        return Counter(span["resource"]["process.pid"] for span in found().values() if is_call(span))

    def without(counts: Counter[str]) -> dict[str, int]:
        return {pid: count for pid, count in counts.items() if pid != died}

    wait_until(
        lambda: without(exported()) == without(model.calls), "all calls of the workers that live are at a gateway"
    )
    wait_until(lambda: settled in scraped() and {} in scraped(), "one gateway has all metrics, the other none")
    wait_until(lambda: len(found()) == accepted(), "all spans that the agents accepted are at a gateway")
    wait_until(lambda: bool(summaries()), "a gateway has the summary of the run")

    # The driver's spans and those of the workers are one trace.
    spans = found()
    assert len({span["traceId"] for span in spans.values()}) == 1
    calls = [span for span in spans.values() if is_call(span)]
    own = {key: span for key, span in spans.items() if span["scope"] == "forge_otel"}
    stages = {key: span for key, span in own.items() if span["name"] == "forge.stage Ask"}
    assert len(calls) + len(own) == len(spans)
    assert {attributes["forge.summary.spans"] for attributes in summaries()} == {len(own)}
    assert len(stages) == record["stages"][0]["executions"] == len(PARTS) * ray_driver.SIZE

    # Each worker has sent to the agent of its node, and the driver to its own.
    sent = Counter(span["resource"].get("k8s.node.name", "one") for span in spans.values())
    assert {span["resource"].get("k8s.node.name") for span in calls} == set(NODES)
    assert sent == {name: accepted_by(agent) for name, agent in agents.items()}

    # Each process is an instance of its own.
    [driving] = {span["resource"]["service.instance.id"] for span in own.values()}
    instances = {(span["resource"]["process.pid"], span["resource"]["service.instance.id"]) for span in calls}
    workers, ids = zip(*instances, strict=True)
    assert len(set(workers)) == len({*ids} - {driving}) == len(instances) >= 2

    # So are its metrics, which it sends when it closes.
    instance_of = dict(instances)

    def measured() -> dict[str, int]:
        """How many calls each worker's metrics have, of those that live."""
        pages = [text(f"http://{gateway.scraped}/metrics") for gateway in gateways]
        counts = sum((by_label(page, f"{DURATION}_count", "instance") for page in pages), Counter[tuple[str, ...]]())
        return {pid: counts[(instance_of[pid],)] for pid in without(Counter(instance_of))}

    wait_until(lambda: measured() == without(model.calls), "the gateways have the metrics of the workers that live")

    # Each call is below the execution that made it. Lost is what the worker that died had not exported, and no more;
    # what it had exported of its last attempt is in the trace, below a span that nobody wrote.
    assert exported()[died] < model.calls[died]
    children = {span["parentSpanId"]: span["resource"]["process.pid"] for span in calls}
    assert {pid for key, pid in children.items() if key not in stages} <= {died}
    assert {key: children.get(key, died) for key in stages} == {
        key: str(span["attributes"]["process.pid"]) for key, span in stages.items()
    }
