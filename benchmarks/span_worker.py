"""The process of one way to export spans: `python -m benchmarks.span_worker NAME ENDPOINT`, spoken to by `spans.py`."""

from __future__ import annotations

import gc
import importlib
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Tracer, set_span_in_context

from forge_otel.signals.context import with_span
from forge_otel.signals.sdk.spans import end_span
from forge_otel.signals.spans import Spans

from . import discarding, harness

BURST = 1024
"""Spans made at once: fewer than the queues of the processors hold, so that none is dropped."""
BURSTS = 4
"""Bursts that are made each time; the fastest counts."""

NAME = "forge.stage decode"
BEGUN = {"forge.pipeline.name": "benchmark", "forge.stage.name": "decode"}
ENDED = {"forge.stage.outcome": "success"}
"""Those of the span of a stage call."""

Make = Callable[[Tracer, int], None]
"""Makes so many spans, one after the other, each of which is current until it ends."""


def light(tracer: Tracer, count: int) -> None:
    """Spans of `forge_otel`, made in the way of a stage call.

    Raises:
        RuntimeError: there are none for this tracer.
    """
    spans = Spans(tracer)
    try:
        if spans.light.why_not is not None:
            raise RuntimeError(f"no light spans: {spans.light.why_not}")
        for number in range(count):
            around = otel_context.get_current()
            attributes = {**BEGUN, "forge.sample.id": f"sample-{number}"}
            span = spans.start(NAME, around, SpanKind.INTERNAL, attributes, (), time.time_ns())
            token = otel_context.attach(with_span(span, around))
            otel_context.detach(token)
            end_span(span, ENDED, None, time.time_ns())
    finally:
        spans.restore()


def sdk(tracer: Tracer, count: int) -> None:
    """The same spans from the SDK."""
    for number in range(count):
        attributes = {**BEGUN, "forge.sample.id": f"sample-{number}"}
        span = tracer.start_span(NAME, kind=SpanKind.INTERNAL, attributes=attributes)
        token = otel_context.attach(set_span_in_context(span))
        otel_context.detach(token)
        span.set_attributes(ENDED)
        span.end()


KINDS: dict[str, Make] = {"light": light, "sdk": sdk}


def discard(_: str) -> SpanProcessor:
    return BatchSpanProcessor(discarding.span_exporter())


def sdk_http(endpoint: str) -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - one of several

    return BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces"))


def sdk_grpc(endpoint: str) -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - one of several

    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True))


def fastotel(endpoint: str) -> SpanProcessor:
    library: Any = importlib.import_module("fastotel")
    processor: SpanProcessor = library.OTLPSpanProcessor(endpoint=f"{endpoint}/v1/traces")
    return processor


PROCESSORS: dict[str, Callable[[str], SpanProcessor]] = {
    "discarding": discard,
    "http": sdk_http,
    "grpc": sdk_grpc,
    "fastotel": fastotel,
}


def provider(processor: SpanProcessor) -> TracerProvider:
    made = TracerProvider()
    made.add_span_processor(processor)
    return made


def burst(make: Make, tracer: Tracer, flush: Callable[[], object]) -> dict[str, float]:
    """Processor seconds for one span: of the thread that makes it, and of all threads until it is sent."""
    gc.collect()
    with tracer.start_as_current_span("parent"):
        started, mine = time.process_time(), time.thread_time()
        make(tracer, BURST)
        caller = time.thread_time() - mine
        flush()
        return {"caller": caller / BURST, "total": (time.process_time() - started) / BURST}


def main(name: str, endpoint: str) -> None:
    answers = harness.channel()
    logging.disable(logging.CRITICAL)
    plain, exporting = provider(SpanProcessor()), provider(PROCESSORS[name](endpoint))

    def answer(question: dict[str, Any]) -> dict[str, float]:
        """Seconds for one span: made, for a processor that does nothing; and with the processor that exports."""
        make = KINDS[question["kind"]]
        made = min(burst(make, plain.get_tracer(name), plain.force_flush)["total"] for _ in range(BURSTS))
        exported = [burst(make, exporting.get_tracer(name), exporting.force_flush) for _ in range(BURSTS)]
        return {"made": made, **{key: min(one[key] for one in exported) for key in ("caller", "total")}}

    harness.serve(answers, harness.versions("forge-otel", "opentelemetry-sdk", *VERSIONS.get(name, ())), answer)


VERSIONS = {
    "http": ("opentelemetry-exporter-otlp-proto-http",),
    "grpc": ("opentelemetry-exporter-otlp-proto-grpc", "grpcio"),
    "fastotel": ("fastotel",),
}


if __name__ == "__main__":
    main(*sys.argv[1:])
