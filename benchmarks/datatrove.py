"""Cost of the telemetry of a datatrove pipeline: `python -m benchmarks.datatrove`.

The same steps are taken in turns without and with the instrumentor, by one task in this process: a reader, two
filters, a formatter and a writer, which take little time for a document.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

from loguru import logger
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forge_otel import ForgeInstrumentor

DOCUMENTS = 20_000
ROUNDS = 9


def execute(folder: Path, number: int) -> float:
    """Return the processor time in seconds of a run."""
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415 - takes a second
    from datatrove.pipeline.filters import LambdaFilter  # noqa: PLC0415
    from datatrove.pipeline.formatters import PIIFormatter  # noqa: PLC0415
    from datatrove.pipeline.readers import JsonlReader  # noqa: PLC0415
    from datatrove.pipeline.writers import JsonlWriter  # noqa: PLC0415

    executor = LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(folder / "input")),
            LambdaFilter(lambda document: len(document.text) > 10),
            LambdaFilter(lambda document: "text" in document.text),
            PIIFormatter(),
            JsonlWriter(str(folder / f"output{number}"), compression=None),
        ],
        logging_dir=str(folder / f"logs{number}"),
    )
    logger.remove()
    began = time.process_time()
    executor.run()
    return time.process_time() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "input").mkdir()
        lines = (json.dumps({"text": f"a text that has the number {number}"}) for number in range(DOCUMENTS))
        (folder / "input" / "texts.jsonl").write_text("\n".join(lines))
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
        meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
        instrumentor = ForgeInstrumentor()
        plain, observed = [], []
        execute(folder, -1)
        for number in range(ROUNDS):
            plain.append(execute(folder, 2 * number))
            instrumentor.instrument(
                tracer_provider=traces, meter_provider=meters, logger_provider=LoggerProvider(shutdown_on_exit=False)
            )
            observed.append(execute(folder, 2 * number + 1))
            instrumentor.uninstrument()
    before, after = statistics.median(plain), statistics.median(observed)
    each = 1e6 / DOCUMENTS
    print(f"µs a document, median of {ROUNDS}: {before * each:.1f} without, {after * each:.1f} with telemetry")
    print(f"ratio {after / before:.3f}, {(after - before) * each:.1f} µs more")


if __name__ == "__main__":
    main()
