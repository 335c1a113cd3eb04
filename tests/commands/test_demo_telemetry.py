"""The telemetry of the demos, as readers of files find it: it is OTLP, and nothing in it leads nowhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from forge import ExitCode

pytestmark = pytest.mark.slow

REQUESTS: Mapping[str, type[Message]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
PARTS = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
IDS = {"traceId", "spanId", "parentSpanId"}
SAMPLED = 1
REMOTE = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")

Span = tuple[str, str]
"""The ids of a trace and a span."""

MODES: Mapping[str, dict[str, str]] = {
    "everything": {},
    "one percent": {"FORGE_OTEL_SAMPLING_RATE": "0.01"},
    "own traces": {"FORGE_OTEL_TRACE_PER_SAMPLE": "true"},
    "little budget": {"FORGE_OTEL_SPAN_BUDGET": "100"},
}


class Telemetry:
    """What a demo has written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def requests(self, signal: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{signal}.jsonl").read_text().splitlines()]

    def records(self, signal: str) -> Iterator[dict[str, Any]]:
        resources, scopes, records = PARTS[signal]
        for request in self.requests(signal):
            for resource in request[resources]:
                for scope in resource[scopes]:
                    yield from scope[records]

    @cached_property
    def spans(self) -> dict[Span, dict[str, Any]]:
        return {ids(span): span for span in self.records("traces")}

    def roots(self) -> Counter[str]:
        """The first words of the names of spans without a parent."""
        return Counter(span["name"].partition(" ")[0] for span in self.spans.values() if not span.get("parentSpanId"))

    def orphans(self) -> dict[Span, str]:
        """The parents that are missing, with the names of spans below them."""
        parents = {(span["traceId"], span.get("parentSpanId", "")): span["name"] for span in self.spans.values()}
        return {parent: name for parent, name in parents.items() if parent[1] and parent not in self.spans}

    def targets(self) -> dict[str, set[Span]]:
        """The spans that links, exemplars, and log records of sampled spans lead to."""
        points = [point for metric in self.records("metrics") for point in data_points(metric)]
        logs = [log for log in self.records("logs") if log.get("flags", 0) & SAMPLED]
        return {
            "links": {ids(link) for span in self.spans.values() for link in span.get("links", ())},
            "exemplars": {ids(one) for point in points for one in point.get("exemplars", ()) if "spanId" in one},
            "logs": {ids(log) for log in logs},
        }

    def unsampled(self) -> set[Span]:
        """The spans that log records name without the flag of a sampled one."""
        logs = [log for log in self.records("logs") if "spanId" in log and not log.get("flags", 0) & SAMPLED]
        return {ids(log) for log in logs}


def ids(record: Mapping[str, Any]) -> Span:
    return record["traceId"], record["spanId"]


def data_points(metric: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [point for data in metric.values() if isinstance(data, dict) for point in data["dataPoints"]]


def demo(folder: Path, pipeline: str, variables: Mapping[str, str]) -> Telemetry:
    command = [sys.executable, "-m", "forge_otel.commands.cli", "demo", "--pipeline", pipeline, "--limit", "20"]
    done = subprocess.run(
        [*command, "--out", folder],
        env={**os.environ, "FORGE_OTEL_SHUTDOWN_TIMEOUT": "60", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {ExitCode.OK, ExitCode.SAMPLES_FAILED}, done.stderr
    return Telemetry(folder / "telemetry")


@pytest.fixture(scope="module", params=["corpus", "labels"])
def pipeline(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def telemetry(pipeline: str, mode: str, tmp_path_factory: pytest.TempPathFactory) -> Telemetry:
    return demo(tmp_path_factory.mktemp("demo"), pipeline, MODES[mode])


def test_nothing_leads_to_a_missing_span(telemetry: Telemetry, mode: str) -> None:
    assert telemetry.orphans() == {}
    roots = telemetry.roots()
    assert roots.pop("forge.pipeline") == 1
    assert set(roots) == ({"forge.sample"} if mode == "own traces" else set())
    for what, targets in telemetry.targets().items():
        assert targets or what == "links", what
        assert targets <= telemetry.spans.keys(), what
    assert telemetry.unsampled().isdisjoint(telemetry.spans)
    late = [span for span in telemetry.spans.values() if attributes(span).get("forge.trace.late")]
    assert bool(late) == (mode not in {"everything", "own traces"})


def attributes(record: Mapping[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in record.get("attributes", ())}


def test_a_remote_parent_is_the_only_one_that_is_missing(tmp_path: Path) -> None:
    variables = {"TRACEPARENT": f"00-{'-'.join(REMOTE)}-01", "FORGE_OTEL_PARENT_FROM_ENVIRONMENT": "true"}
    telemetry = demo(tmp_path, "corpus", variables)

    assert {span["traceId"] for span in telemetry.spans.values()} == {REMOTE[0]}
    assert telemetry.orphans() == {REMOTE: "forge.pipeline code_corpus"}
    assert not telemetry.roots()


def in_base64(value: Any) -> Any:
    """A request with ids as in the JSON of protobuf, not in hexadecimal digits as in OTLP's."""
    if isinstance(value, list):
        return [in_base64(each) for each in value]
    if isinstance(value, dict):
        return {
            key: base64.b64encode(bytes.fromhex(each)).decode() if key in IDS else in_base64(each)
            for key, each in value.items()
        }
    return value


@pytest.mark.parametrize("signal", PARTS)
def test_requests_are_those_of_the_protocol(telemetry: Telemetry, signal: str) -> None:
    """Each is the same after a way through protobuf's message and back."""
    requests = telemetry.requests(signal)

    assert requests
    for request in map(in_base64, requests):
        message = ParseDict(request, REQUESTS[signal]())
        assert MessageToDict(message, use_integers_for_enums=True) == request
