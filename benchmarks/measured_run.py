"""One run of a whole pipeline, in a process of its own: `python -m benchmarks.measured_run JSON`."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import resource
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forge import Measurement, Pipeline, Sample, SQLStorage, Stage, StreamingRunner, stage

from . import discarding, harness

TELEMETRY: dict[str, dict[str, Any] | None] = {
    "off": None,
    "untraced": {"sampling_rate": 0.0},
    "1 %": {"sampling_rate": 0.01},
    "100 %": {"sampling_rate": 1.0, "span_budget": 0},
}
"""The settings of `forge_otel`; None means that it is not even imported."""


WAITING = {"one at a time": 1, "four at a time": 4}
"""The synthetic pipeline in two kinds: how many samples may wait at the same time. Of one, waiting is what limits the
run; of four, the processor, so that telemetry cannot hide behind the waiting."""

MINIMAL_STAGES, MINIMAL_WAIT, MINIMAL_CONCURRENCY = 4, 0.002, 16
"""The minimal pipeline: asynchronous stages that wait for so many seconds, of so many samples at the same time."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The parameters of one run."""

    pipeline: str
    """`demo`, `minimal`, or a kind of the synthetic one."""
    samples: int
    telemetry: str
    endpoint: str | None
    """The receiver of telemetry, as OTLP over HTTP; None: exporters that discard it."""
    loops: int
    """The turns of an empty loop that take 50 µs."""


class Length(Measurement):
    key = "length"

    def compute(self, sample: Sample) -> int:
        return len(sample.data["text"])


class Words(Measurement):
    key = "words"

    def compute(self, sample: Sample) -> int:
        return len(sample.data["text"].split())


def synthetic(task: Task, folder: Path, waiting: int) -> Pipeline:
    """Three stages that do nothing, compute for 50 µs and wait for 1 ms, two measurements, and SQLite.

    So many samples may wait at the same time. Computing is a fixed number of steps, since a stage that looked at the
    clock would compute less when disturbed.
    """

    @stage
    def nothing(sample: Sample) -> Sample:
        return sample

    @stage
    def compute(sample: Sample) -> Sample:
        for _ in range(task.loops):
            pass
        return sample

    @stage(concurrency=waiting)
    def wait(sample: Sample) -> Sample:
        time.sleep(0.001)
        return sample

    def source() -> Iterator[Sample]:
        for number in range(task.samples):
            yield Sample(id=f"sample-{number}", data={"number": number, "text": "the quick brown fox"})

    stages: Sequence[Stage] = [nothing, compute, wait]
    return Pipeline(
        name="synthetic",
        source=source,
        stages=stages,
        measurements=[Length(), Words()],
        storage=SQLStorage(f"sqlite:///{folder / 'samples.db'}"),
    )


def minimal(task: Task) -> Pipeline:
    """Four asynchronous stages that only wait; nothing is measured or stored."""

    def waiting(number: int) -> Stage:
        @stage(name=f"wait {number}", concurrency=MINIMAL_CONCURRENCY)
        async def wait(sample: Sample) -> Sample:
            await asyncio.sleep(MINIMAL_WAIT)
            return sample

        return wait

    def source() -> Iterator[Sample]:
        for number in range(task.samples):
            yield Sample(id=f"sample-{number}", data=number)

    return Pipeline(name="minimal", source=source, stages=[waiting(number) for number in range(MINIMAL_STAGES)])


def demo(task: Task, folder: Path, stack: ExitStack) -> Pipeline:
    """The demo's pipeline, with so many files of the standard library."""
    sys.path.insert(0, str(harness.ROOT / "examples"))
    from annotation_service import AnnotationService  # noqa: PLC0415 - found on the path set above
    from code_corpus import code_corpus  # noqa: PLC0415 - found on the path set above

    pipeline: Pipeline = code_corpus(
        Path(sysconfig.get_path("stdlib")),
        limit=task.samples,
        storage=f"sqlite:///{folder / 'corpus.db'}",
        out=folder,
        annotate_url=stack.enter_context(AnnotationService()).url,
    )
    return pipeline


def exporters(endpoint: str | None) -> tuple[Any, Any, Any]:
    """Exporters of spans, log records and metrics."""
    if endpoint is None:
        return discarding.span_exporter(), discarding.log_exporter(), discarding.metric_exporter()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    # Here, because where telemetry is off, none of it is imported.
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(), OTLPLogExporter(), OTLPMetricExporter()


class Telemetry:
    """`forge_otel` with the SDK's defaults behind it."""

    def __init__(self, endpoint: str | None, settings: dict[str, Any]) -> None:
        span_exporter, log_exporter, metric_exporter = exporters(endpoint)
        from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult  # noqa: PLC0415

        from forge_otel import ForgeInstrumentor  # noqa: PLC0415

        telemetry = self
        self._ended = itertools.count()
        self.exported = 0

        count, pass_on = self._ended.__next__, BatchSpanProcessor.on_end  # found here, since every span costs it

        class Processor(BatchSpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                count()
                pass_on(self, span)

        class Exporter(SpanExporter):
            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                telemetry.exported += len(spans)
                result: SpanExportResult = span_exporter.export(spans)
                return result

            def shutdown(self) -> None:
                span_exporter.shutdown()

        tracer_provider = TracerProvider()
        tracer_provider.add_span_processor(Processor(Exporter()))
        logger_provider = LoggerProvider()
        logger_provider.add_log_record_processor(BatchLogRecordProcessor(log_exporter))
        meter_provider = MeterProvider([PeriodicExportingMetricReader(metric_exporter)])
        self._shutdown: list[Callable[[], Any]] = [
            tracer_provider.shutdown,
            logger_provider.shutdown,
            meter_provider.shutdown,
        ]
        ForgeInstrumentor().instrument(
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
            **settings,
        )

    @property
    def dropped(self) -> int:
        """The number of spans that the SDK's full queue has dropped; to be read once, at the end."""
        return next(self._ended) - self.exported

    def finish(self) -> None:
        """Send what is left."""
        for shutdown in self._shutdown:
            shutdown()


@contextmanager
def collector_time() -> Iterator[list[float]]:
    """The processor seconds of each pass of the garbage collector within the block."""
    passes: list[float] = []
    began = 0.0

    def look(phase: str, _: object) -> None:
        nonlocal began
        if phase == "start":
            began = time.thread_time()
        else:
            passes.append(time.thread_time() - began)

    gc.callbacks.append(look)
    try:
        yield passes
    finally:
        gc.callbacks.remove(look)


def run(task: Task) -> dict[str, float]:
    """Run it; seconds, bytes and counts."""
    settings = TELEMETRY[task.telemetry]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        pipeline = _pipeline(task, Path(name), stack)
        telemetry = Telemetry(task.endpoint, settings) if settings is not None else None
        # Or the counters that the imports left decide how many full passes of the collector fall into the run.
        gc.collect()
        passes = stack.enter_context(collector_time())
        started, computed = time.perf_counter(), time.process_time()
        result = StreamingRunner().run(pipeline).drain()
        if telemetry is not None:
            telemetry.finish()
        seconds, cpu = time.perf_counter() - started, time.process_time() - computed
    return {
        "settled": result.ledger.settled,
        "seconds": seconds,
        "cpu": cpu,
        "collector": sum(passes),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "spans": telemetry.exported if telemetry is not None else 0,
        "spans_dropped": telemetry.dropped if telemetry is not None else 0,
    }


def _pipeline(task: Task, folder: Path, stack: ExitStack) -> Pipeline:
    if task.pipeline == "demo":
        return demo(task, folder, stack)
    if task.pipeline == "minimal":
        return minimal(task)
    return synthetic(task, folder, WAITING[task.pipeline])


def command(task: Task) -> list[str]:
    """The arguments of a process that runs it."""
    return ["benchmarks.measured_run", json.dumps(asdict(task))]


if __name__ == "__main__":
    answers = harness.channel()
    # A full queue of spans is a number in the results, not a thousand lines.
    logging.disable(logging.CRITICAL)
    done = run(Task(**json.loads(sys.argv[1])))
    harness.serve(answers, done, lambda _: None)
