"""Instrumentations of other libraries inside a stage whose span is light: what they emit belongs to that span."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.trace import SpanKind

from forge import Pipeline, Sample, stage
from forge.runner import Runner
from tests.support.http import running_server
from tests.support.runs import PATIENCE, both_runners, samples
from tests.support.sdk_versions import with_packages
from tests.support.telemetry import Recorded, recording

QUESTION: dict[str, Any] = {"model": "small", "messages": [{"role": "user", "content": "Well?"}]}


def ids(context: trace.SpanContext | None) -> tuple[int, int, int]:
    """The trace id, the span id and the flags."""
    assert context is not None
    return context.trace_id, context.span_id, context.trace_flags


def ids_of(recorded: Recorded, name: str) -> list[tuple[int, int, int]]:
    """Those of the spans with this name."""
    return sorted(ids(span.context) for span in recorded.spans if span.name == name)


def current_kind() -> str:
    """The class of the current span, which this does not touch."""
    return type(trace.get_current_span()).__name__


@pytest.fixture
def client_instrumentor() -> Iterator[OpenAIInstrumentor]:
    instrumentor = OpenAIInstrumentor()
    yield instrumentor
    instrumentor.uninstrument()


@pytest.mark.slow
@both_runners
def test_the_calls_of_an_instrumented_client_are_below_the_span_of_their_stage(
    runner: Runner, client_instrumentor: OpenAIInstrumentor
) -> None:
    found: list[str] = []
    with running_server() as url, recording() as recorded:
        settings: dict[str, Any] = {"base_url": f"{url}/200", "api_key": "none", "max_retries": 0, "timeout": PATIENCE}

        @stage
        def sync(sample: Sample) -> Sample:
            found.append(current_kind())
            with openai.OpenAI(**settings) as client:
                client.chat.completions.create(**QUESTION)
            return sample

        @stage
        async def coroutine(sample: Sample) -> Sample:
            found.append(current_kind())
            async with openai.AsyncOpenAI(**settings) as client:
                await client.chat.completions.create(**QUESTION)
            return sample

        client_instrumentor.instrument(tracer_provider=recorded.tracer_provider)
        runner.run(Pipeline(name="p", source=samples("a", "b"), stages=[sync, coroutine])).drain()
    assert found == ["LightSpan"] * 4
    calls = [span for span in recorded.spans if span.name == "chat small"]
    assert {(span.kind, (span.attributes or {})["server.address"]) for span in calls} == {
        (SpanKind.CLIENT, "127.0.0.1")
    }
    stages = sorted(ids_of(recorded, "forge.stage sync") + ids_of(recorded, "forge.stage coroutine"))
    assert len(stages) == 4
    assert sorted(ids(span.parent) for span in calls) == stages
    assert {ids(span.context)[0] for span in calls} == {trace_id for trace_id, _, _ in stages}


class Logs:
    """A logger of the user's, with the handler of the logging instrumentation."""

    def __init__(self) -> None:
        self.exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))
        self.logger = logging.Logger("user")  # noqa: LOG001 - one of this test only
        self.logger.addHandler(LoggingHandler(logger_provider=self.provider))

    @property
    def records(self) -> list[Any]:
        return [log.log_record for log in self.exporter.get_finished_logs()]


@pytest.fixture
def logging_instrumentor() -> Iterator[LoggingInstrumentor]:
    instrumentor = LoggingInstrumentor()
    yield instrumentor
    instrumentor.uninstrument()


@both_runners
def test_the_log_records_of_a_stage_have_the_ids_of_its_span(
    runner: Runner, logging_instrumentor: LoggingInstrumentor
) -> None:
    logs = Logs()

    @stage
    def sync(sample: Sample) -> Sample:
        logs.logger.warning("in sync")
        return sample

    @stage
    async def coroutine(sample: Sample) -> Sample:
        logs.logger.warning("in coroutine")
        return sample

    with recording() as recorded:
        logging_instrumentor.instrument(
            tracer_provider=recorded.tracer_provider, inject_trace_context=True, enable_log_auto_instrumentation=False
        )
        runner.run(Pipeline(name="p", source=samples("a", "b"), stages=[sync, coroutine])).drain()
    for name in ("sync", "coroutine"):
        records = [record for record in logs.records if record.body == f"in {name}"]
        expected = ids_of(recorded, f"forge.stage {name}")
        assert len(expected) == 2
        assert sorted((record.trace_id, record.span_id, record.trace_flags) for record in records) == expected
        injected = sorted((each.attributes["otelTraceID"], each.attributes["otelSpanID"]) for each in records)
        assert injected == [(f"{trace_id:032x}", f"{span_id:016x}") for trace_id, span_id, _ in expected]
        assert [each.attributes["otelTraceSampled"] for each in records] == [True, True]
    # Nobody has changed them.
    stages = [span for span in recorded.spans if span.name.startswith("forge.stage ")]
    assert [type(span).__name__ for span in stages] == ["LightSpan"] * 4


@both_runners
def test_a_hook_of_the_logging_instrumentation_may_change_the_span_of_a_stage(
    runner: Runner, logging_instrumentor: LoggingInstrumentor
) -> None:
    logs = Logs()

    def hook(span: trace.Span, record: logging.LogRecord) -> None:
        record.recorded = span.is_recording()
        span.add_event(record.getMessage())

    @stage
    def logging_stage(sample: Sample) -> Sample:
        logs.logger.warning("sample %s", sample.id)
        return sample

    with recording() as recorded:
        logging_instrumentor.instrument(
            tracer_provider=recorded.tracer_provider, log_hook=hook, enable_log_auto_instrumentation=False
        )
        runner.run(Pipeline(name="p", source=samples("a", "b"), stages=[logging_stage])).drain()
    stages = [span for span in recorded.spans if span.name == "forge.stage logging_stage"]
    found = sorted(((record.trace_id, record.span_id, record.trace_flags), record.body) for record in logs.records)
    assert sorted((ids(span.context), event.name) for span in stages for event in span.events) == found
    assert sorted(body for _, body in found) == ["sample 0", "sample 1"]
    # Ray, where another test has started it, gives every record of the process a time of its own.
    assert [record.attributes["recorded"] for record in logs.records] == [True, True]


SCRIPT = """
import sys

import requests
import sqlalchemy
from opentelemetry import trace
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

from forge import BatchRunner, Pipeline, Sample, stage
from tests.support.telemetry import recording

engine = sqlalchemy.create_engine("sqlite://")


@stage
def fetch(sample):
    print(type(trace.get_current_span()).__name__)
    requests.post(sys.argv[1], json={})
    return sample


@stage
def query(sample):
    print(type(trace.get_current_span()).__name__)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
    return sample


with recording() as recorded:
    RequestsInstrumentor().instrument(tracer_provider=recorded.tracer_provider)
    # It does not know SQLAlchemy 2.1 yet, and works with it.
    SQLAlchemyInstrumentor().instrument(
        engine=engine, tracer_provider=recorded.tracer_provider, skip_dep_check=True
    )
    BatchRunner().run(Pipeline(name="p", source=[Sample(id="a", data=0)], stages=[fetch, query])).drain()
spans = {span.context.span_id: span for span in recorded.spans}
for span in recorded.spans:
    if not span.name.startswith("forge."):
        above = spans[span.parent.span_id]
        print(span.name, "is below", above.name, span.context.trace_id == above.context.trace_id)
"""


@pytest.mark.slow
def test_http_requests_and_queries_of_instrumented_libraries_are_below_the_span_of_their_stage() -> None:
    names = ("instrumentation-requests", "instrumentation-sqlalchemy", "util-http")
    release = version("opentelemetry-instrumentation")
    packages = with_packages(*(f"opentelemetry-{name}=={release}" for name in names), "greenlet")
    root = Path(__file__).parents[4]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root / "src", root, packages)))}
    with running_server() as url:
        command = [sys.executable, "-c", SCRIPT, f"{url}/200"]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        *("LightSpan", "LightSpan"),
        "POST is below forge.stage fetch True",
        "connect is below forge.stage query True",
        "SELECT is below forge.stage query True",
    ]
