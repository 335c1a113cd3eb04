"""A run's trace in Jaeger: each span once, below its parent, with its errors and links."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from forge import ExitCode
from tests.support.waiting import wait_until
from tools.generate import links

from .pipelines import demo_input, finish, start_demo, start_worker
from .programs import text
from .services import CONFIGURATIONS

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack


def references(span: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    return [(each["traceID"], each["spanID"]) for each in span["references"] if each["refType"] == kind]


def test_a_run_in_jaeger(stack: Stack, tmp_path: Path) -> None:
    jaeger = stack.jaeger().run()
    collector = stack.collector("jaeger", variables={"JAEGER_ENDPOINT": jaeger.otlp}).run()
    demo = start_demo(tmp_path / "out", collector.otlp, "--input", str(demo_input(tmp_path / "in")))
    finish(demo, ExitCode.SAMPLES_FAILED)

    sent = {span["spanId"]: span for span in collector.spans()}
    (trace,) = {span["traceId"] for span in sent.values() if span["name"].startswith("forge.pipeline ")}
    ours = {id_: span for id_, span in sent.items() if span["traceId"] == trace}
    wait_until(lambda: len(jaeger.spans(trace)) == len(ours), "all spans are in Jaeger")
    found = {span["spanID"]: span for span in jaeger.spans(trace)}

    assert {id_: span["operationName"] for id_, span in found.items()} == {
        id_: span["name"] for id_, span in ours.items()
    }
    assert {id_: references(span, "CHILD_OF") for id_, span in found.items()} == {
        id_: [(trace, span["parentSpanId"])] if span.get("parentSpanId") else [] for id_, span in ours.items()
    }
    linked = {id_: [(link["traceId"], link["spanId"]) for link in span.get("links", ())] for id_, span in ours.items()}
    assert any(linked.values())
    assert {id_: references(span, "FOLLOWS_FROM") for id_, span in found.items()} == linked
    failed = {id_: span["attributes"]["error.type"] for id_, span in ours.items() if span["status"].get("code") == 2}
    assert failed
    assert {id_: span["tags"]["error.type"] for id_, span in found.items() if span["tags"].get("error")} == failed


def test_the_page_of_a_trace_links_its_log_records(stack: Stack) -> None:
    page = text(f"{stack.jaeger().run().url}/trace/0af7651916cd43dd8448eb211c80319c")

    (settings,) = re.findall(r"^JAEGER_CONFIG = (.+);$", page, re.MULTILINE)
    assert json.loads(settings) == json.loads((CONFIGURATIONS / "jaeger" / "ui.json").read_text())
    (link,) = json.loads(settings)["linkPatterns"]
    assert link["url"].startswith(links.LOGS)


def test_traces_outlive_a_kill(stack: Stack, tmp_path: Path) -> None:
    jaeger = stack.jaeger().run()
    collector = stack.collector("jaeger", variables={"JAEGER_ENDPOINT": jaeger.otlp}).run()
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 20}))
    sent = collector.spans()
    (trace,) = {span["traceId"] for span in sent}
    wait_until(lambda: len(jaeger.spans(trace)) == len(sent), "all spans are in Jaeger")

    jaeger.kill()
    jaeger.run()

    assert {span["spanID"] for span in jaeger.spans(trace)} == {span["spanId"] for span in sent}
