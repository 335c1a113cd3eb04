"""The Collector reads the files of the exporter `otlp_file`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.forge_otel.test_auto_instrumentation import EVENTS, SPANS, TO_FILES, instrumented
from tests.support.waiting import wait_until

from .programs import text
from .services import records, samples

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack


def test_the_collector_gets_everything_from_the_files(stack: Stack, tmp_path: Path) -> None:
    instrumented(tmp_path, OTEL_SERVICE_NAME="corpus", **TO_FILES)
    files = tmp_path / "telemetry"

    collector = stack.collector("files", variables={"FORGE_TELEMETRY_FILES": str(files)}).run()
    wait_until(lambda: len(collector.spans()) >= len(SPANS), "the spans are there")
    wait_until(lambda: len(collector.logs()) >= len(EVENTS), "the log records are there")

    written = list(records(files, "traces"))
    assert sorted(span["name"] for span in collector.spans()) == sorted(span["name"] for span in written) == SPANS
    for key in ("traceId", "spanId", "parentSpanId", "kind", "startTimeUnixNano", "endTimeUnixNano", "attributes"):
        read, sent = (
            {span["spanId"]: span.get(key) or None for span in spans} for spans in (collector.spans(), written)
        )
        assert read == sent, key
    assert sorted(log["eventName"] for log in collector.logs()) == EVENTS
    assert {log["traceId"] for log in collector.logs()} == {span["traceId"] for span in written}
    assert {record["resource"]["service.name"] for record in (*collector.spans(), *collector.logs())} == {"corpus"}

    def settled() -> dict[str, float]:
        scraped = samples(text(f"http://{collector.scraped}/metrics"), "forge_sample_settled_total")
        return {labels["forge_sample_outcome"]: value for labels, value in scraped if value}

    wait_until(lambda: settled() == {"ready": 2}, "the metrics are there")
    assert collector.counter("otelcol_receiver_refused_spans_total") == 0
