"""A steady load, run in the demo's image: `python load.py NAME SAMPLES RATE [INTERVAL]`. One sample in a hundred
fails.

`INTERVAL` are the seconds after which the next run is expected. Prints the run's record, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

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


def pipeline(name: str, samples: int, rate: float, interval: float | None) -> Pipeline:
    """Samples with the numbers of the milliseconds at which they are due."""

    def source() -> Iterator[Sample]:
        began = time.monotonic()
        for number in range(samples):
            if (wait := began + number / rate - time.monotonic()) > 0:
                time.sleep(wait)
            yield Sample(id=f"sample-{number}", data=number)

    @stage
    def double(sample: Sample) -> Sample:
        return sample.with_data(2 * sample.data)

    @stage
    def check(sample: Sample) -> Sample:
        if sample.data % 200 == 0:
            raise ValueError("every hundredth")
        return sample

    return Pipeline(
        name=name,
        source=source,
        stages=[double, check],
        storage=SQLStorage(f"sqlite:////demo/{name}.db"),
        expected_interval=interval,
    )


def main() -> None:
    """Run it once, with what a user would set up."""
    set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_tracer_provider(tracers)
    set_logger_provider(loggers)
    ForgeInstrumentor().instrument()
    name, samples, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    interval = float(sys.argv[4]) if len(sys.argv) > 4 else None
    result = StreamingRunner(resume=False).run(pipeline(name, samples, rate, interval)).drain()
    print(json.dumps(result.to_dict()))  # noqa: T201


if __name__ == "__main__":
    main()
