"""A steady load, run in the demo's image: `python load.py NAME SAMPLES RATE`. One sample in a hundred fails.

`--interval S` are the seconds after which the next run is expected; with `--fails` the source raises at its end. Prints
the run's record, as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import suppress

from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import set_tracer_provider

from forge import Pipeline, Sample, SQLStorage, StreamingRunner, stage
from forge_otel import ForgeInstrumentor


def pipeline(options: argparse.Namespace) -> Pipeline:
    """Samples at a rate, with their numbers."""

    def source() -> Iterator[Sample]:
        began = time.monotonic()
        for number in range(options.samples):
            if (wait := began + number / options.rate - time.monotonic()) > 0:
                time.sleep(wait)
            yield Sample(id=f"sample-{number}", data=number)
        if options.fails:
            raise ConnectionResetError("the source is gone")

    @stage
    def double(sample: Sample) -> Sample:
        return sample.with_data(2 * sample.data)

    @stage
    def check(sample: Sample) -> Sample:
        if sample.data % 200 == 0:
            raise ValueError("every hundredth")
        return sample

    return Pipeline(
        name=options.name,
        source=source,
        stages=[double, check],
        storage=SQLStorage(f"sqlite:////demo/{options.name}.db"),
        expected_interval=options.interval,
    )


def main() -> None:
    """Run it once, with what a user would set up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("samples", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("--interval", type=float)
    parser.add_argument("--fails", action="store_true")
    options = parser.parse_args()
    set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_tracer_provider(tracers)
    set_logger_provider(loggers)
    ForgeInstrumentor().instrument()
    run = StreamingRunner(resume=False).run(pipeline(options))
    with suppress(ConnectionResetError):
        run.drain()
    assert run.result is not None
    print(json.dumps(run.result.to_dict()))  # noqa: T201


if __name__ == "__main__":
    main()
