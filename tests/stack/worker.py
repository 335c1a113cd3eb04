"""A pipeline with known numbers, in a process of its own, with what a user would set up: the SDK, exporters for OTLP.

The argument is a JSON object. `good`, `bad` and `limited` are how many samples pass, fail, and fail once because of a
rate limit; `fails` breaks the source at its end; `again` does what is finished once more; `replays` makes good what
failed, and replays it after the run; `text` is what an error message says; `pause` is a file that the last sample waits
for; `budget` is the latency budget of the stage `check`, and `interval` how often the pipeline should succeed, in
seconds; `faulty` sets a hook that raises; `spends` is how many dollars looking at a sample of each kind costs, where
null means that nobody knows, and `hourly_budget` how many all of it may cost in an hour; `name` is the pipeline's.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import set_tracer_provider

from forge import Measurement, Pipeline, RetryPolicy, Sample, SQLStorage, StreamingRunner, stage, usage
from forge_otel import ForgeInstrumentor

SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("good", "bad", "limited"), 0),
    **dict.fromkeys(("fails", "again", "faulty", "replays"), False),
    **dict.fromkeys(("pause", "budget", "interval", "hourly_budget")),
    "spends": {},
    "text": "bad",
    "name": "worker",
}
logger = logging.getLogger("worker")


class TooManyRequestsError(Exception):
    """What an API client might raise for HTTP status 429."""

    status_code = 429


class Length(Measurement):
    """How long a sample is."""

    key = "length"

    def compute(self, sample: Sample) -> int:
        return len(sample.data)


repaired: list[bool] = []
"""Not empty once bad samples pass."""


def pipeline(settings: Mapping[str, Any]) -> Pipeline:
    """Samples whose ids say what becomes of them."""
    failed: set[str] = set()

    def source() -> Iterator[Sample]:
        for kind in ("good", "bad", "limited"):
            for number in range(settings[kind]):
                yield Sample(id=f"{kind}-{number}", data=kind)
        if settings["pause"]:
            while not Path(settings["pause"]).exists():
                time.sleep(0.02)
            yield Sample(id="last", data="last")
        if settings["fails"]:
            raise ConnectionResetError("the source is gone")

    @stage
    def never_fails(sample: Sample) -> Sample:
        return sample

    @stage(retry=RetryPolicy(max_attempts=2, initial_delay=0.001), latency_budget=settings["budget"])
    def check(sample: Sample) -> Sample:
        if sample.data in settings["spends"]:
            amount = settings["spends"][sample.data]
            usage.report(provider="worker", model="eye", amount=None if amount is None else Decimal(amount))
        if sample.data == "bad" and not repaired:
            logger.warning("looking at a bad one")
            raise ValueError(settings["text"])
        if sample.data == "limited" and sample.id not in failed:
            failed.add(sample.id)
            raise TooManyRequestsError("come back later")
        return sample

    return Pipeline(
        name=settings["name"],
        source=source,
        stages=[never_fails, check],
        measurements=[Length()],
        storage=SQLStorage(f"sqlite:///{settings['database']}"),
        expected_interval=settings["interval"],
        hourly_budget=settings["hourly_budget"],
    )


def faulty(*_: object) -> None:
    """A hook with a mistake in it."""
    raise LookupError("a mistake")


def main() -> None:
    """Run it once, and end as a process should: everything is flushed."""
    settings = {**SETTINGS, **json.loads(sys.argv[1])}
    set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    # After the meters, for with them they measure themselves where that is switched on.
    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_tracer_provider(tracers)
    set_logger_provider(loggers)
    logger.addHandler(LoggingHandler())
    ForgeInstrumentor().instrument(**({"on_stage_end": faulty} if settings["faulty"] else {}))
    of = pipeline(settings)
    run = StreamingRunner(resume=not settings["again"]).run(of)
    try:
        run.drain()
    except ConnectionResetError:
        assert settings["fails"]
    assert run.result is not None
    if settings["replays"]:
        repaired.append(True)
        assert StreamingRunner().replay(of).drain().ledger.ready == settings["bad"]
    print(json.dumps(run.result.to_dict()))  # noqa: T201


if __name__ == "__main__":
    main()
