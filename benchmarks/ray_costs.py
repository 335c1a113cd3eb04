"""Unit costs of runs on Ray: of the driver, of the exchange of blocks, and of what a worker exports."""

from __future__ import annotations

import importlib
import tempfile
import threading
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import ray
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from forge import BatchRunner, Pipeline, RayRunner, Sample, SQLStorage, Stage, StreamingRunner
from forge.runner.ray.exchange import Exchange
from forge_otel import ForgeInstrumentor
from forge_otel.commands.demo import examples

from . import harness, ray_driver
from .units import cost, points_of, series_of, spans_of

BLOCK_SIZES: Final = (16, 64)
"""Sizes of blocks that are compared."""
MESSAGES: Final = [
    {"role": "system", "content": "Answer with one of network, text, system, other."},
    {"role": "user", "content": "Opens a socket for each client, and closes it when the server has answered."},
]
WORKER_EXPORTS: Final = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one of each costs, in seconds, bytes or numbers."""

    sample: float = cost("driver, a sample: read, sent, stored in SQLite", "µs")
    sample_observed: float = cost("the same, with telemetry", "µs")
    step: float = cost("driver, a sample and stage", "µs")
    step_observed: float = cost("the same, with telemetry", "µs")
    block: float = cost("driver, a block and operator of Ray Data", "µs")
    home: float = cost("comes home, a sample and stage", "bytes")
    waiting: float = cost("driver's memory, a sample in flight", "bytes")
    call: float = cost("exchange, a call", "µs")
    driver_series: float = cost("driver, series in Prometheus", "")
    stage_series: float = cost("driver, more of them a stage", "")
    worker_series: float = cost("worker that calls a language model, series in Prometheus", "")
    worker_points: float = cost("such a worker, points an export", "")
    worker_bytes: float = cost("such a worker, an export of metrics", "bytes")
    plain_series: float = cost("worker that calls no instrumented library, series in Prometheus", "")
    span: float = cost("span of such a call", "bytes")


def measure(
    telemetry: Callable[[], AbstractContextManager[None]], *, quick: bool, progress: Callable[[str], None]
) -> tuple[Costs, Exports]:
    """Measure all unit costs, on the Ray that runs; returns them, and what a worker has exported."""
    samples, rounds = (1_500, 1) if quick else (16_000, 5)

    def observed(size: int) -> float:
        with telemetry():
            return driver_seconds(samples, size)

    small, large = BLOCK_SIZES
    measures = {
        "driver, small blocks": partial(driver_seconds, samples, small),
        "driver, large blocks": partial(driver_seconds, samples, large),
        "driver, large blocks, telemetry": partial(observed, large),
    }
    found = {name: min(values) for name, values in harness.in_turns(measures, rounds, progress).items()}
    progress("steps")
    home, step = ray_driver.per_sample_and_stage(ray_driver.Through)
    with telemetry():
        _, step_observed = ray_driver.per_sample_and_stage(ray_driver.Through)
    # A pipeline of one stage has two operators: the source, and the stage.
    block = max(0.0, (found["driver, small blocks"] - found["driver, large blocks"]) / (2 / small - 2 / large))
    fixed = 2 * block / large
    progress("series")
    plain, calling = worker_exports(Through()), worker_exports(Asking())
    few, many = driver_series(1), driver_series(5)
    costs = Costs(
        sample=found["driver, large blocks"] - fixed - step,
        sample_observed=found["driver, large blocks, telemetry"] - fixed - step_observed,
        step=step,
        step_observed=step_observed,
        block=block,
        home=home,
        waiting=memory_in_flight(),
        call=exchange_seconds(100 if quick else 2_000),
        driver_series=few - (many - few) / 4,
        stage_series=(many - few) / 4,
        worker_series=calling.series,
        worker_points=calling.points,
        worker_bytes=len(calling.metrics),
        plain_series=plain.series,
        span=calling.span_bytes,
    )
    return costs, calling


class Through(ray_driver.Through):
    """Leaves samples as they are."""

    name = "through"


def driver_seconds(samples: int, block_size: int) -> float:
    """Return the driver's processor seconds for a sample, in a run on Ray with one stage that does nothing.

    The first quarter is left out: workers start then.
    """
    source = (Sample(id=f"sample-{number}", data=number) for number in range(samples))
    warm = 0.0
    with tempfile.TemporaryDirectory() as folder:
        storage = SQLStorage(f"sqlite:///{folder}/samples.db")
        pipeline = Pipeline(name="costs", source=source, stages=[Through()], storage=storage)
        with RayRunner(block_size=block_size).run(pipeline) as run:
            for number, _ in enumerate(run, 1):
                if number == samples // 4:
                    warm = time.process_time()
            end = time.process_time()
    return (end - warm) / (samples - samples // 4)


def memory_in_flight() -> float:
    """Return the bytes that the driver keeps for a sample in flight, without those of its data."""
    pipeline = Pipeline(name="costs", source=[], stages=[Through()])
    run = BatchRunner().run(pipeline)
    run.context.run(run.begin)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [run.context.copy().run(ray_driver._admitted, run, number) for number in range(20)]
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return size / sum(map(len, kept))


class TimedExchange(Exchange):
    """An exchange that says what it has used."""

    async def cpu(self) -> float:
        return time.process_time()


def exchange_seconds(blocks: int) -> float:
    """Return the processor seconds of the exchange for a call, of those that are made for blocks in one stage."""
    remote: Any = ray.remote(TimedExchange)
    exchange = remote.options(num_cpus=0, max_concurrency=10_000).remote({})
    content = bytes(1_000)
    before = ray.get(exchange.cpu.remote())
    for number in range(blocks):
        calls = [
            exchange.put.remote(number, content),
            exchange.read.remote(number),
            exchange.begin.remote(0, number, "worker"),
            exchange.done.remote(0, number),
            exchange.home.remote(number),
        ]
        ray.get(calls)
    used: float = ray.get(exchange.cpu.remote()) - before
    ray.kill(exchange)
    return used / (blocks * len(calls))


def driver_series(stages: int) -> int:
    """Return the number of series of a run with so many stages, none of whose samples fails."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    instrumentor = ForgeInstrumentor()
    instrumentor.instrument(
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        meter_provider=meters,
        logger_provider=LoggerProvider(shutdown_on_exit=False),
    )
    try:
        parts = [Through(name=f"stage-{number}") for number in range(stages)]
        StreamingRunner().run(Pipeline(name="costs", source=["a"], stages=parts)).drain()
        data = reader.get_metrics_data()
    finally:
        instrumentor.uninstrument()
    assert data is not None
    return series_of(encode_metrics(data))


class Asking(Stage):
    """Asks a language model, with a client that an instrumentation observes."""

    name = "asking"
    url = ""

    def process(self, sample: Sample) -> Sample:
        client: Any = importlib.import_module("openai").OpenAI(base_url=self.url, api_key="unused", max_retries=0)
        with client:
            client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
        return sample


@dataclass
class Exports:
    """What one worker has exported."""

    series: int = 0
    points: int = 0
    span_bytes: float = 0.0
    metrics: bytes = b""
    """The last export of metrics."""
    spans: bytes = b""
    """The last export of spans."""


class _Receiver(ThreadingHTTPServer):
    """Receives OTLP over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: defaultdict[str, list[bytes]] = defaultdict(list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies[self.path.rpartition("/")[2]].append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
        pass


def worker_exports(part: Stage) -> Exports:
    """Return what a worker with this stage exports in a run of four samples, all of which are traced."""
    receiver = _Receiver()
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    traces = TracerProvider(shutdown_on_exit=False)
    instrumentor = ForgeInstrumentor()
    instrumentor.instrument(
        tracer_provider=traces,
        meter_provider=MeterProvider(shutdown_on_exit=False),
        logger_provider=LoggerProvider(shutdown_on_exit=False),
    )
    try:
        with examples.load_example("llm_server").LLMServer() as server:
            if isinstance(part, Asking):
                part.url = server.url
            run = RayRunner().run(Pipeline(name="costs", source=["a", "b", "c", "d"], stages=[part]))
            run.worker_carrier.update(
                {
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
                    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                    "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
                    **dict.fromkeys(WORKER_EXPORTS, "otlp"),
                }
            )
            assert run.drain().ledger.ready == 4
    finally:
        instrumentor.uninstrument()
        receiver.shutdown()
        receiver.server_close()
    found = Exports()
    if bodies := receiver.bodies["metrics"]:
        found.metrics = bodies[-1]
        request = ExportMetricsServiceRequest.FromString(found.metrics)
        found.series = series_of(request)
        found.points = len(points_of(request))
    if bodies := receiver.bodies["traces"]:
        found.spans = bodies[-1]
        found.span_bytes = len(found.spans) / spans_of(ExportTraceServiceRequest.FromString(found.spans))
    return found
