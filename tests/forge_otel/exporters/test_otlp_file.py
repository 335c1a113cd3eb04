"""The exporters to files: what they write, and that nothing of it ever harms anybody."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from forge_otel.exporters import _appending
from forge_otel.exporters._appending import append_line
from forge_otel.exporters.otlp_file import (
    OTLPFileLogExporter,
    OTLPFileMetricExporter,
    OTLPFileSettings,
    OTLPFileSpanExporter,
)
from tests.forge_otel.test_auto_instrumentation import SPANS, instrumented
from tests.support.needs import INSTALL, lacking

RESOURCE = Resource({"service.name": "corpus"})
SCOPE = InstrumentationScope("forge_otel", "1.2.3", "https://example.com/schema")
TRACE = 0x0102030405060708090A0B0C0D0E0F10


def context(span_id: int) -> SpanContext:
    return SpanContext(TRACE, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def span(name: str = "forge.sample", **fields: Any) -> ReadableSpan:
    return ReadableSpan(
        name,
        context(0xA1),
        resource=RESOURCE,
        instrumentation_scope=SCOPE,
        start_time=1_700_000_000_000_000_000,
        end_time=1_700_000_000_250_000_000,
        **fields,
    )


def documents(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def names(file: Path) -> list[str]:
    """The spans of a file, in which every line is a whole request."""
    assert file.read_bytes().endswith(b"\n")
    return [
        span["name"]
        for request in documents(file)
        for spans in request["resourceSpans"]
        for scope in spans["scopeSpans"]
        for span in scope["spans"]
    ]


ABOUT = {
    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "corpus"}}]},
    "scope": {"name": "forge_otel", "version": "1.2.3"},
    "schemaUrl": "https://example.com/schema",
}


def request_of(signal: str, records: str, record: Any) -> dict[str, Any]:
    """An export request with one record."""
    scope = {"scope": ABOUT["scope"], records: [record], "schemaUrl": ABOUT["schemaUrl"]}
    return {f"resource{signal}": [{"resource": ABOUT["resource"], f"scope{signal}": [scope]}]}


def test_spans_are_otlp_json(tmp_path: Path) -> None:
    exporter = OTLPFileSpanExporter(tmp_path / "{signal}.jsonl")
    written = span(
        parent=context(0xA2),
        kind=SpanKind.CLIENT,
        attributes={"forge.sample.id": "café", "count": 7, "ratio": 0.5, "raw": b"\xff\x00"},
        links=[Link(context(0xA3))],
        status=Status(StatusCode.ERROR, "broken"),
    )

    assert exporter.export([written]) is SpanExportResult.SUCCESS

    assert documents(tmp_path / "traces.jsonl") == [
        request_of(
            "Spans",
            "spans",
            {
                "traceId": "0102030405060708090a0b0c0d0e0f10",
                "spanId": "00000000000000a1",
                "parentSpanId": "00000000000000a2",
                "name": "forge.sample",
                "kind": 3,
                "startTimeUnixNano": "1700000000000000000",
                "endTimeUnixNano": "1700000000250000000",
                "attributes": [
                    {"key": "forge.sample.id", "value": {"stringValue": "café"}},
                    {"key": "count", "value": {"intValue": "7"}},
                    {"key": "ratio", "value": {"doubleValue": 0.5}},
                    {"key": "raw", "value": {"bytesValue": "/wA="}},
                ],
                "links": [{"traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "00000000000000a3", "flags": 256}],
                "status": {"code": 2, "message": "broken"},
                "flags": 256,
            },
        )
    ]
    assert "café" in (tmp_path / "traces.jsonl").read_text(encoding="utf-8")  # not escaped


def log_record(body: Any = "it failed") -> ReadableLogRecord:
    record = LogRecord(
        timestamp=1,
        observed_timestamp=2,
        context=set_span_in_context(NonRecordingSpan(context(0xA1))),
        severity_number=SeverityNumber.ERROR,
        severity_text="ERROR",
        body=body,
        event_name="forge.stage.exception",
    )
    return ReadableLogRecord(record, RESOURCE, SCOPE)


def test_log_records_are_otlp_json(tmp_path: Path) -> None:
    exporter = OTLPFileLogExporter(tmp_path / "{signal}.jsonl")

    assert exporter.export([log_record()]) is LogRecordExportResult.SUCCESS

    assert documents(tmp_path / "logs.jsonl") == [
        request_of(
            "Logs",
            "logRecords",
            {
                "timeUnixNano": "1",
                "observedTimeUnixNano": "2",
                "severityNumber": 17,
                "severityText": "ERROR",
                "body": {"stringValue": "it failed"},
                "flags": 1,
                "traceId": "0102030405060708090a0b0c0d0e0f10",
                "spanId": "00000000000000a1",
                "eventName": "forge.stage.exception",
            },
        )
    ]


def metrics(name: str = "done") -> MetricsData:
    exemplar = Exemplar({}, 1.5, 3, 0xA1, TRACE)
    cumulative = AggregationTemporality.CUMULATIVE
    count = Sum([NumberDataPoint({}, 1, 2, 4)], cumulative, True)
    times = Histogram([HistogramDataPoint({}, 1, 2, 1, 1.5, [0, 1], [1.0], 1.5, 1.5, exemplars=[exemplar])], cumulative)
    scope = ScopeMetrics(
        SCOPE, [Metric(name, "", "{sample}", count), Metric("took", "", "s", times)], SCOPE.schema_url or ""
    )
    return MetricsData([ResourceMetrics(RESOURCE, [scope], "")])


def test_metrics_are_otlp_json(tmp_path: Path) -> None:
    exporter = OTLPFileMetricExporter(tmp_path / "{signal}.jsonl")

    assert exporter.export(metrics()) is MetricExportResult.SUCCESS

    done, took = documents(tmp_path / "metrics.jsonl")[0]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    assert done == {
        "name": "done",
        "unit": "{sample}",
        "sum": {
            "dataPoints": [{"startTimeUnixNano": "1", "timeUnixNano": "2", "asInt": "4"}],
            "aggregationTemporality": 2,
            "isMonotonic": True,
        },
    }
    assert took["histogram"]["dataPoints"][0]["exemplars"] == [
        {
            "timeUnixNano": "3",
            "asDouble": 1.5,
            "spanId": "00000000000000a1",
            "traceId": "0102030405060708090a0b0c0d0e0f10",
        }
    ]


def test_the_files_lose_nothing_of_the_requests(tmp_path: Path) -> None:
    """Read back into protobuf, they are what the OTLP exporters send."""
    written = span(parent=context(0xA2), links=[Link(context(0xA3))])
    path = tmp_path / "{signal}.jsonl"
    OTLPFileSpanExporter(path).export([written])
    OTLPFileLogExporter(path).export([log_record()])
    OTLPFileMetricExporter(path).export(metrics())

    for name, sent in (
        ("traces", encode_spans([written])),
        ("logs", encode_logs([log_record()])),
        ("metrics", encode_metrics(metrics())),
    ):
        (document,) = documents(tmp_path / f"{name}.jsonl")
        assert ParseDict(_with_base64(document), type(sent)()) == sent


def _with_base64(value: Any) -> Any:
    """The document with ids as protobuf's own JSON has them."""
    if isinstance(value, list):
        return [_with_base64(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(inner)).decode()
        if key in {"traceId", "spanId", "parentSpanId"}
        else _with_base64(inner)
        for key, inner in value.items()
    }


def test_nothing_to_export_writes_nothing(tmp_path: Path) -> None:
    assert OTLPFileSpanExporter(tmp_path / "x").export([]) is SpanExportResult.SUCCESS
    assert not (tmp_path / "x").exists()


# --- settings


def test_settings() -> None:
    assert OTLPFileSettings() == OTLPFileSettings(path="telemetry/{signal}.jsonl")
    for path in ("", " ", "a\0b", 7, None):
        with pytest.raises(ValueError, match=r"^path=.*: it must be the path of a file$"):
            OTLPFileSettings(path=path)  # type: ignore[arg-type]


def test_the_variable_counts_unless_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert OTLPFileSpanExporter().path == tmp_path / "telemetry" / "traces.jsonl"
    monkeypatch.setenv("FORGE_OTEL_FILE_PATH", " out/{signal}-{signal}.txt ")
    assert OTLPFileMetricExporter().path == tmp_path / "out" / "metrics-metrics.txt"
    assert OTLPFileLogExporter("mine.jsonl").path == tmp_path / "mine.jsonl"
    with pytest.raises(ValueError, match="must be the path of a file"):
        OTLPFileLogExporter("")


def test_a_variable_that_there_is_not_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FORGE_OTEL_FILE_PTH", "x")
    for exporter in (OTLPFileSpanExporter, OTLPFileMetricExporter, OTLPFileLogExporter):
        exporter()
    assert caplog.messages == [
        "FORGE_OTEL_FILE_PTH='x': there is no such variable; there are FORGE_OTEL_FILE_PATH; it is ignored"
    ]


def test_a_relative_path_is_that_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exporter = OTLPFileSpanExporter("traces.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    exporter.export([span()])
    assert names(tmp_path / "traces.jsonl") == ["forge.sample"]


def test_entry_points() -> None:
    for signal, exporter in (
        ("traces", OTLPFileSpanExporter),
        ("metrics", OTLPFileMetricExporter),
        ("logs", OTLPFileLogExporter),
    ):
        found = entry_points(group=f"opentelemetry_{signal}_exporter", name="otlp_file")
        if not found:
            lacking(f"needs the package with its entry points: {INSTALL}")
        assert {point.load() for point in found} == {exporter}


# --- what may go wrong


def test_a_missing_folder_is_created(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "traces.jsonl"
    exporter = OTLPFileSpanExporter(file)
    assert not file.parent.exists()
    exporter.export([span("one")])
    file.unlink()
    file.parent.rmdir()
    exporter.export([span("two")])
    assert names(file) == ["two"]


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process may not write to; root may write everywhere, so that it becomes somebody else."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.geteuid() != 0:
        yield folder
        return
    os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(0)


REMEDY = "set FORGE_OTEL_FILE_PATH, or `path` in code or a configuration file, to another file"


def test_a_folder_without_permission_is_logged_once(locked: Path, caplog: pytest.LogCaptureFixture) -> None:
    exporter = OTLPFileSpanExporter(locked / "traces.jsonl")
    results = [exporter.export([span()]) for _ in range(3)]
    assert results == [SpanExportResult.FAILURE] * 3
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"cannot write traces to {exporter.path}, so they are lost: ")


def test_a_full_disk_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    exporters = (OTLPFileSpanExporter("/dev/full"), OTLPFileMetricExporter("/dev/full"))
    for _ in range(2):
        assert exporters[0].export([span()]) is SpanExportResult.FAILURE
        assert exporters[1].export(metrics()) is MetricExportResult.FAILURE
    assert caplog.messages == [
        f"cannot write {signal} to /dev/full, so they are lost: No space left on device; {REMEDY}"
        for signal in ("traces", "metrics")
    ]


FILLING_UP = """
import json, logging, os, resource, sys
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext
from forge_otel.exporters.otlp_file import OTLPFileSpanExporter

class Messages(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())

messages, found = [], []
logging.getLogger().addHandler(Messages())
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
exporter = OTLPFileSpanExporter(sys.argv[1])
for name, attributes in (("first", {}), ("long", {"long": "x" * 5000}), ("last", {})):
    span = ReadableSpan(name, SpanContext(1, 2, False), attributes=attributes, start_time=1, end_time=2)
    result = exporter.export([span])
    found.append([result.name, exporter.problem, os.path.getsize(sys.argv[1])])
print(json.dumps([found, messages]))
"""
"""No file of the process may have more than 5000 bytes."""


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    command = [sys.executable, "-c", FILLING_UP, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found, messages = json.loads(done.stdout)
    (first, long, last) = found
    assert first[:2] == last[:2] == ["SUCCESS", ""]
    assert long == ["FAILURE", "File too large", first[2]]
    assert names(file) == ["first", "last"]
    assert messages == [f"cannot write traces to {file}, so they are lost: File too large; {REMEDY}"]


def test_after_a_killed_writer_the_next_line_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    file.write_text('{"resourceSpans":[{"resou')
    exporter = OTLPFileSpanExporter(file)
    for name in ("one", "two"):
        exporter.export([span(name)])
    torn, *rest = file.read_text().splitlines(keepends=True)
    assert torn == '{"resourceSpans":[{"resou\n'
    file.write_text("".join(rest))
    assert names(file) == ["one", "two"]


def test_rotation_by_others(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    exporter = OTLPFileSpanExporter(file)
    exporter.export([span("one")])
    file.rename(tmp_path / "traces.jsonl.1")  # logrotate's usual way
    exporter.export([span("two")])
    assert names(tmp_path / "traces.jsonl.1") == ["one"]
    assert names(file) == ["two"]
    os.truncate(file, 0)  # its option copytruncate
    exporter.export([span("three")])
    assert names(file) == ["three"]


@pytest.mark.slow
def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    """Each line is longer than a page, and than what a pipe takes at once."""
    file = tmp_path / "lines"
    script = (
        "import sys; from pathlib import Path; from forge_otel.exporters._appending import append_line\n"
        "for _ in range(200): append_line(Path(sys.argv[1]), sys.argv[2].encode() * 100_000 + b'\\n')"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(file), letter]) for letter in "abc"]
    assert [writer.wait(300) for writer in writers] == [0, 0, 0]
    lines = file.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert sorted(lines) == [letter * 100_000 for letter in (b"a", b"b", b"c") for _ in range(200)]


def test_a_process_that_keeps_the_lock_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_appending, "_LOCK_TIMEOUT", 0.0)
    file = tmp_path / "lines"
    with file.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        append_line(file, b"one\n")
    assert file.read_bytes() == b"one\n"


def test_a_pipe_that_nobody_reads_holds_nobody_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert OTLPFileSpanExporter(tmp_path / "pipe").export([span()]) is SpanExportResult.FAILURE
    assert len(caplog.messages) == 1
    assert "No such device or address" in caplog.messages[0]


def test_a_pipe_that_somebody_reads(tmp_path: Path) -> None:
    """Also what is more than the pipe takes at once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with pipe.open("wb"):  # until the reader is there
        exporter = OTLPFileSpanExporter(pipe)
        assert exporter.export([span(attributes={"long": "x" * 300_000})]) is SpanExportResult.SUCCESS
    reader.join()
    assert json.loads(read[0])["resourceSpans"]


BAD = "\udce9"
"""Half a surrogate pair, which protobuf does not take."""


def test_a_record_that_cannot_be_encoded_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exporter = OTLPFileSpanExporter(tmp_path / "{signal}.jsonl")
    batch = [span("one"), span(BAD), span("two"), span(BAD)]
    assert exporter.export(batch) is SpanExportResult.FAILURE
    assert names(tmp_path / "traces.jsonl") == ["one", "two"]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("some traces are lost: UnicodeEncodeError: ")

    logs = OTLPFileLogExporter(tmp_path / "{signal}.jsonl")
    assert logs.export([log_record("good"), log_record(BAD)]) is LogRecordExportResult.FAILURE
    assert len(documents(tmp_path / "logs.jsonl")) == 1


def test_text_of_metrics_that_protobuf_does_not_take_is_escaped(tmp_path: Path) -> None:
    exporter = OTLPFileMetricExporter(tmp_path / "metrics.jsonl")
    assert exporter.export(metrics(BAD)) is MetricExportResult.SUCCESS
    (document,) = documents(tmp_path / "metrics.jsonl")
    assert document["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["name"] == r"\udce9"


FORK = """
import os, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from forge_otel.exporters.otlp_file import OTLPFileSpanExporter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPFileSpanExporter(sys.argv[1])))
tracer = provider.get_tracer("test")

def spans(name):
    for _ in range(50):
        tracer.start_span(name).end()
    assert provider.force_flush()

spans("before")
child = os.fork()
if child == 0:
    spans("child")
    os._exit(0)
spans("parent")
assert os.waitpid(child, 0)[1] == 0
provider.shutdown()
"""


@pytest.mark.slow
def test_a_forked_process_writes_to_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "traces.jsonl"
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK, file], check=True, timeout=300)
    assert sorted(names(file)) == ["before"] * 50 + ["child"] * 50 + ["parent"] * 50


@pytest.mark.slow
def test_a_pipeline_whose_telemetry_cannot_be_written_runs_as_ever(tmp_path: Path) -> None:
    exporters = {f"OTEL_{signal}_EXPORTER": "otlp_file" for signal in ("TRACES", "METRICS", "LOGS")}
    output = instrumented(tmp_path, FORGE_OTEL_FILE_PATH="/dev/full", **exporters)
    assert output.printed == ["['A', 'B']"]
    assert sorted(re.sub(" since [0-9:]+", "", line) for line in output.log.splitlines()) == [
        *(
            f"cannot write {signal} to /dev/full, so they are lost: No space left on device; {REMEDY}"
            for signal in ("logs", "metrics", "traces")
        ),
        "forge-otel: not delivered: 4 log records to /dev/full: No space left on device",
        "forge-otel: not delivered: 5 spans to /dev/full: No space left on device",
        "forge-otel: not delivered: the metrics to /dev/full: No space left on device",
    ]


@pytest.mark.slow
def test_by_default_there_is_a_file_for_each_signal(tmp_path: Path) -> None:
    exporters = {f"OTEL_{signal}_EXPORTER": "otlp_file" for signal in ("TRACES", "METRICS", "LOGS")}
    output = instrumented(tmp_path, **exporters)
    assert output.log == ""
    assert sorted(path.name for path in (tmp_path / "telemetry").iterdir()) == [
        "logs.jsonl",
        "metrics.jsonl",
        "traces.jsonl",
    ]
    assert sorted(names(tmp_path / "telemetry" / "traces.jsonl")) == SPANS
