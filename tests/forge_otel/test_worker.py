"""Worker processes of Ray: what libraries record in them is exported by them, in the trace of the run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from opentelemetry import baggage, context, trace

from forge import Pipeline, RayRunner, Sample, stage
from tests.support.collector import Collector, running_collector
from tests.support.model import running_model
from tests.support.needs import need_installed
from tests.support.ray import ON_RAY
from tests.support.telemetry import Recorded, recording

pytestmark = ON_RAY


@stage
def ask(sample: Sample) -> Sample:
    """Ask a model, and look at the context."""
    with openai.OpenAI(base_url=sample.data["url"], api_key="unused", max_retries=0) as client:
        client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Well?"}])
    span = trace.get_current_span()
    return sample.with_data(
        {
            "baggage": baggage.get_baggage("team"),
            "trace_id": span.get_span_context().trace_id,
            "sampled": bool(span.get_span_context().trace_flags.sampled),
            "provider": type(trace.get_tracer_provider()).__name__,
        }
    )


@pytest.fixture
def model() -> Iterator[str]:
    """A model behind HTTP."""

    with running_model() as model:
        yield model.url


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that this process's environment names, and not that of the cluster."""
    need_installed("forge-otel", "opentelemetry-distro", "opentelemetry-instrumentation-genai-openai")
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=driver,team=data")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        yield collector


@contextmanager
def team(name: str) -> Iterator[None]:
    token = context.attach(baggage.set_baggage("team", name))
    try:
        yield
    finally:
        context.detach(token)


def run(url: str, count: int = 3, **settings: Any) -> tuple[Recorded, list[dict[str, Any]]]:
    """Run the pipeline; also returns what the stage saw."""
    source = [Sample(id=str(number), data={"url": url}) for number in range(count)]
    pipeline = Pipeline(name="p", source=source, stages=[ask])
    with recording(**settings) as recorded, team("blue"), RayRunner().run(pipeline) as running:
        seen = [sample.data for sample in running]
    return recorded, seen


def test_what_a_library_records_is_below_the_stage_of_its_sample(model: str, collector: Collector) -> None:
    recorded, seen = run(model)

    collector.wait_for_span("chat small", 3)
    assert {name for name in collector.names if name.startswith("forge")} == set()
    stages = [span.context for span in recorded.spans if span.name == "forge.stage ask"]
    below = {(span.trace_id.hex(), span.parent_span_id.hex()) for span in collector.spans if span.name == "chat small"}
    assert below == {(f"{each.trace_id:032x}", f"{each.span_id:016x}") for each in stages if each is not None}
    assert [each["baggage"] for each in seen] == ["blue"] * 3
    [resource] = [each for each in collector.resources if each["service.name"] == "shop"]
    [process] = {
        str((span.attributes or {})["process.pid"]) for span in recorded.spans if span.name == "forge.stage ask"
    }
    assert resource["process.pid"] == process
    assert resource["team"] == "data"
    assert resource["service.instance.id"] != "driver"


def test_what_a_library_used_is_booked_on_the_driver(model: str, collector: Collector) -> None:
    recorded, _ = run(model)

    of = "pipeline.name=p, stage.name=ask, gen_ai.provider.name=openai, gen_ai.request.model=small"
    points = recorded.points
    assert points["forge.cost.calls"] == {f"cost.use=useful, {of}": 3}
    assert sorted(value for value in points["forge.cost.tokens"].values() if value) == [6, 30]


@pytest.mark.usefixtures("collector")
def test_nothing_is_recorded_for_samples_that_are_not_traced(model: str) -> None:
    recorded, seen = run(model, sampling_rate=0.0)

    [pipeline] = [span for span in recorded.spans if span.name == "forge.pipeline p"]
    assert pipeline.context is not None
    assert [(each["trace_id"], each["sampled"]) for each in seen] == [(pipeline.context.trace_id, False)] * 3
    assert [each["baggage"] for each in seen] == ["blue"] * 3


@pytest.mark.usefixtures("collector")
def test_a_disabled_sdk_is_disabled_in_workers(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    _, seen = run(model)

    assert [each["provider"] for each in seen] == ["ProxyTracerProvider"] * 3


SCRIPT = """
from opentelemetry import baggage, trace
from forge_otel import worker

worker.start({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "team=blue"})
from forge.execution import executions

executions.executing(["00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00"])
print(baggage.get_baggage("team"), format(trace.get_current_span().get_span_context().trace_id, "032x"))
"""


def test_the_propagators_of_a_node_do_not_cut_the_context_of_the_run_off() -> None:
    environment = {**os.environ, "OTEL_PROPAGATORS": "none"}
    command = [sys.executable, "-c", SCRIPT]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == "blue 0af7651916cd43dd8448eb211c80319c\n"
