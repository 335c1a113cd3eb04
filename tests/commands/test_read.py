"""`forge-otel read`: what it prints of the telemetry in files."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forge_otel.commands.cli import main
from forge_otel.commands.read.report import METRICS
from forge_otel.semconv import metrics
from tests.commands.otlp import BEGIN, RUN, TRACE, attributes, exception, request, span, write
from tests.forge_otel.test_auto_instrumentation import TO_FILES, instrumented


def counter(name: str, count: int, time: int = 2, start: int = 1, **more: str) -> dict[str, Any]:
    values = {"forge.pipeline.name": "corpus"} | {key.replace("__", "."): value for key, value in more.items()}
    point = {
        "startTimeUnixNano": str(start),
        "timeUnixNano": str(time),
        "asInt": str(count),
        "attributes": attributes(values),
    }
    return {"name": name, "sum": {"dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": True}}


def durations(name: str, count: int, total: float, most: float, **more: str) -> dict[str, Any]:
    values = {"forge.pipeline.name": "corpus"} | {key.replace("__", "."): value for key, value in more.items()}
    point = {
        "startTimeUnixNano": "1",
        "timeUnixNano": "2",
        "count": str(count),
        "sum": total,
        "max": most,
        "attributes": attributes(values),
    }
    return {"name": name, "histogram": {"dataPoints": [point], "aggregationTemporality": 2}}


COUNTS = [
    counter("forge.sample.settled", 1, forge__sample__outcome="ready"),
    counter("forge.sample.settled", 1, forge__sample__outcome="skipped"),
    counter("forge.sample.settled", 7, forge__sample__outcome="dlq"),
    counter("forge.sample.settled", 0, forge__sample__outcome="failed"),
    counter("forge.stage.executions", 1, forge__stage__name="decode", forge__stage__outcome="success"),
    counter("forge.stage.executions", 7, forge__stage__name="decode", forge__stage__outcome="error"),
    counter("forge.stage.executions", 1, forge__stage__name="decode", forge__stage__outcome="skip"),
    counter("forge.stage.retries", 3, forge__stage__name="decode"),
    counter("forge.stage.failures", 7, forge__stage__name="decode", error__type="ValueError"),
    durations("forge.stage.duration", 3, 0.09, 0.05, forge__stage__name="decode", forge__stage__outcome="success"),
    durations("forge.stage.duration", 1, 0.25, 0.25, forge__stage__name="decode", forge__stage__outcome="error"),
    counter("forge.measurement.computations", 2, forge__measurement__key="len", forge__measurement__outcome="computed"),
    counter("forge.measurement.computations", 1, forge__measurement__key="len", forge__measurement__outcome="error"),
    counter("forge.measurement.cache.hits", 5, forge__measurement__key="len"),
    counter("somebody.elses", 5),
]


@pytest.fixture
def telemetry(tmp_path: Path) -> Path:
    """A folder with the telemetry of a run, as the exporter writes it."""
    folder = tmp_path / "telemetry"
    folder.mkdir()
    write(folder / "traces.jsonl", request("Spans", "spans", *RUN[3:]), request("Spans", "spans", *RUN[:3]))
    write(folder / "metrics.jsonl", request("Metrics", "metrics", *COUNTS))
    write(folder / "logs.jsonl", request("Logs", "logRecords", exception("b", "cannot\ndecode"), {"body": {}}))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["read", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def document(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(printed(capsys, "--json", *arguments))
    return read


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["read", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_the_pages_of_a_trace(
    telemetry: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_TRACE_URL", "http://traces.test/{trace_id}")
    logs = f"https://logs.test/{'long' * 50}?id={{trace_id}}&{{more}}"

    lines = printed(capsys, telemetry, "--logs-url", logs).splitlines()

    expected = {"trace": f"http://traces.test/{TRACE}", "logs": logs.replace("{trace_id}", TRACE)}
    assert lines[1:3] == [f"trace  {expected['trace']}", f"logs   {expected['logs']}"]
    (trace,) = document(capsys, telemetry, "--logs-url", logs)["traces"]
    assert trace["pages"] == expected


@pytest.mark.parametrize("url", ["http://traces.test", "traces.test/{trace_id}", "javascript://{trace_id}"])
def test_addresses_of_pages_that_are_none(telemetry: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    problem = f"invalid value for '--trace-url' (env var: 'FORGE_TRACE_URL'): '{url}' is not an http(s) URL with "
    assert problem + "{trace_id} in it" in refused(capsys, telemetry, "--trace-url", url)


def test_all_of_it(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = datetime.fromtimestamp(BEGIN / 1e9, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert printed(capsys, telemetry).splitlines() == [
        f"trace {TRACE}  {started}  corpus",
        "forge.pipeline corpus       2.5s",
        "├─ forge.sample a          100ms",
        "│  └─ forge.stage decode    80ms",
        "├─ forge.sample b          300ms  dlq",
        "│  └─ forge.stage decode   250ms  ValueError: cannot decode",
        "└─ forge.sample c           10ms  skipped",
        "",
        "corpus  9 samples: 1 ready, 1 skipped, 7 dlq",
        "stage   executions  errors  skips  retries  mean    max",
        "decode           9       7      1        3  85ms  250ms",
        "",
        "measurement  computed  cached  errors  mean  max",
        "len                 2       5       1     -    -",
        "",
        "slowest spans        took  sample     trace",
        "forge.stage decode  250ms       b  0af76519",
        "forge.stage decode   80ms       a  0af76519",
        "forge.sample         10ms       c  0af76519",
        "",
        "7 × ValueError in decode, first in sample b  trace 0af76519",
        "    cannot decode",
        f"    next: forge-otel trace waterfall b {telemetry}",
    ]


def test_by_default_the_folder_of_the_exporter(
    telemetry: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(telemetry.parent)
    assert printed(capsys) == printed(capsys, telemetry).replace(f" {telemetry}", "")


def test_a_document(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = document(capsys, telemetry)
    assert {key: value for key, value in read.items() if key not in ("traces", "slowest")} == {
        "spans": 6,
        "log_records": 2,
        "metric_points": 15,
        "unreadable": 0,
        "problems": [],
        "omitted_traces": 0,
        "runs": [],
        "pipelines": [
            {
                "pipeline": "corpus",
                "samples": {"ready": 1, "skipped": 1, "dlq": 7},
                "stages": [
                    {
                        "name": "decode",
                        "executions": 9,
                        "errors": 7,
                        "skips": 1,
                        "retries": 3,
                        "mean": pytest.approx(0.085),
                        "max": 0.25,
                    }
                ],
                "measurements": [
                    {"key": "len", "computed": 2, "cached": 5, "errors": 1, "mean": None, "max": None},
                ],
            }
        ],
        "failures": [
            {
                "pipeline": "corpus",
                "where": "decode",
                "error_type": "ValueError",
                "count": 7,
                "message": "cannot\ndecode",
                "sample_id": "b",
                "trace_id": TRACE,
                "next": f"forge-otel trace waterfall b {telemetry}",
            }
        ],
    }
    (trace,) = read["traces"]
    (run,) = trace.pop("roots")
    assert trace == {
        "trace_id": TRACE,
        "started": 1_700_000_000.0,
        "service": "corpus",
        "spans": 6,
        "failed_spans": 2,
        "omitted_spans": 0,
        "next": f"forge-otel trace waterfall {TRACE} {telemetry}",
        "pages": {},
    }
    assert run["children"][1] == {
        "name": "forge.sample",
        "span_id": "0000000000000004",
        "duration": 0.3,
        "sample_id": "b",
        "outcome": "dlq",
        "error": "ValueError: cannot\ndecode",
        "children": [
            {
                "name": "forge.stage decode",
                "span_id": "0000000000000005",
                "duration": 0.25,
                "sample_id": "b",
                "outcome": None,
                "error": "ValueError: cannot\ndecode",
                "children": [],
            }
        ],
    }
    assert read["slowest"][0] == {
        "name": "forge.stage decode",
        "duration": 0.25,
        "sample_id": "b",
        "trace_id": TRACE,
        "span_id": "0000000000000005",
        "next": f"forge-otel trace waterfall b {telemetry}",
    }


def labels(nodes: list[dict[str, Any]]) -> list[Any]:
    """The trees of spans, by the last digits of their ids."""
    return [[int(node["span_id"], 16), *labels(node["children"])] for node in nodes]


def test_a_limit_keeps_failures_first(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for limit, tree in (
        (6, [[1, [2, [3]], [4, [5]], [6]]]),
        (5, [[1, [2], [4, [5]], [6]]]),
        (3, [[1, [4, [5]]]]),
        (2, [[1, [4]]]),
        (1, [[1]]),
    ):
        (trace,) = document(capsys, "--limit", str(limit), telemetry)["traces"]
        assert labels(trace["roots"]) == tree
        assert trace["omitted_spans"] == 6 - limit
    shown = printed(capsys, "--limit", "1", telemetry)
    assert f"… 5 more spans; next: forge-otel trace waterfall {TRACE} {telemetry}\n" in shown


def test_a_limit_keeps_whole_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spans = [
        span(1, None, "run", (0, 100)),
        *(span(n, 1, "sample", (n, 10), "bad") for n in (2, 3, 4)),
        *(span(10 * n, n, "stage", (20 + n, 5), "bad") for n in (2, 3, 4)),
    ]
    file = write(tmp_path / "x", request("Spans", "spans", *spans))
    for limit, tree in ((5, [[1, [2, [20]], [3, [30]]]]), (4, [[1, [2, [20]], [3]]])):
        (trace,) = document(capsys, "--limit", str(limit), file)["traces"]
        assert labels(trace["roots"]) == tree


def test_the_latest_traces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spans = [span(n, None, f"run {n}", (n, 1), trace=f"{n:032x}") for n in (5, 1, 4, 2, 3)]
    file = write(tmp_path / "x", request("Spans", "spans", *spans))
    read = document(capsys, file)
    assert [trace["roots"][0]["name"] for trace in read["traces"]] == ["run 3", "run 4", "run 5"]
    assert read["omitted_traces"] == 2
    assert "2 earlier traces are not shown\n" in printed(capsys, file)


def test_counts_are_those_of_all_processes_at_their_latest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def of(count: int, time: int, start: int = 1, instance: str = "i-1") -> dict[str, Any]:
        settled = counter("forge.sample.settled", count, time, start, forge__sample__outcome="ready")
        return request("Metrics", "metrics", settled, instance=instance)

    file = write(tmp_path / "x", of(5, 20), of(2, 10), of(10, 5, instance="i-2"), of(100, 30, start=25))
    (pipeline,) = document(capsys, file)["pipelines"]
    assert pipeline["samples"] == {"ready": 115}


def test_deltas_are_added_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric = counter("forge.sample.settled", 2, forge__sample__outcome="ready")
    metric["sum"]["aggregationTemporality"] = 1
    file = write(tmp_path / "x", *[request("Metrics", "metrics", metric)] * 3)
    (pipeline,) = document(capsys, file)["pipelines"]
    assert pipeline["samples"] == {"ready": 6}


def test_without_events_failures_are_those_of_spans(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (failure,) = document(capsys, telemetry / "traces.jsonl")["failures"]
    assert failure == {
        "pipeline": "",
        "where": "forge.stage decode",
        "error_type": "ValueError",
        "count": 1,
        "message": "cannot\ndecode",
        "sample_id": "b",
        "trace_id": TRACE,
        "next": f"forge-otel trace waterfall b {telemetry / 'traces.jsonl'}",
    }


def test_no_file_counts_twice(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (telemetry / "again.jsonl").symlink_to(telemetry / "traces.jsonl")
    assert document(capsys, telemetry, telemetry, telemetry / "traces.jsonl")["spans"] == 6


def test_odd_traces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A parent that is elsewhere, spans in a circle, a span twice, one that ends before it starts."""
    circle = [span(1, 2, "a", (0, 1)), span(2, 1, "b", (0, 1))]
    deep = [span(n, n - 1, "deep", (n, 1)) for n in range(10, 3000)]
    file = write(tmp_path / "x", request("Spans", "spans", *circle, *deep, deep[0], span(4000, None, "odd", (5, -1))))
    (trace,) = document(capsys, "--limit", "5000", file)["traces"]
    assert trace["spans"] == 2 + 2990 + 1
    assert trace["omitted_spans"] == 2 + 2890
    assert [root["name"] for root in trace["roots"]] == ["odd", "deep"]
    assert trace["roots"][0]["duration"] == 0


def summed_up(run_id: str, **counts: int) -> dict[str, Any]:
    """The event that sums a run up."""
    values: dict[str, Any] = {"forge.run.id": run_id, "forge.pipeline.name": "corpus"}
    values |= {f"forge.summary.{name}": count for name, count in counts.items()}
    return {"eventName": "forge.pipeline.summary", "body": {"stringValue": "…"}, "attributes": attributes(values)}


def test_runs_whose_telemetry_is_not_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spans = [
        {**span(1, None, "x", (0, 1)), "attributes": attributes({"forge.run.id": run})} for run in ("run-1", "run-2")
    ]
    file = write(
        tmp_path / "x",
        request("Spans", "spans", *spans),
        request(
            "Logs",
            "logRecords",
            summed_up("run-1", spans=1, suppressed=0, faults=0),
            summed_up("run-2", spans=9, suppressed=4, faults=2),
            summed_up("run-3"),
        ),
    )

    said = [line for line in printed(capsys, file).splitlines() if line.startswith("run ")]
    lacking = "8 of 9 recorded spans are missing, 4 spans and events left out by sampling or a budget"
    assert said == [f"run run-2 of corpus: {lacking}, 2 faults inside the telemetry"]
    assert document(capsys, file)["runs"][1] == {
        "run_id": "run-2",
        "pipeline": "corpus",
        "spans": 1,
        "recorded_spans": 9,
        "suppressed": 4,
        "faults": 2,
    }


def test_what_is_not_telemetry_is_skipped_and_named(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = telemetry / "traces.jsonl"
    rest = file.read_text()
    bad = [
        '{"resourceSpans":[{"resou',
        "[]",
        '{"spans": []}',
        json.dumps(request("Spans", "spans", {"name": "x"})),
        json.dumps(request("Metrics", "metrics", counter("forge.stage.retries", 1) | {"sum": 7})),
        json.dumps(request("Spans", "spans", span(9, None, "x", (0, 1)) | {"startTimeUnixNano": "soon"})),
    ]
    file.write_text("\n".join(bad) + "\n" + rest)
    assert main(["read", str(telemetry)]) == 0
    out, err = capsys.readouterr()
    assert "forge.pipeline corpus" in out
    assert err.splitlines() == [
        f"forge-otel read: skipped: {file}:1: is truncated JSON (Unterminated string starting at, column 20)",
        f"forge-otel read: skipped: {file}:2: is not OTLP JSON",
        f"forge-otel read: skipped: {file}:3: is not OTLP JSON",
        f"forge-otel read: skipped: {file}:4: a span has no ids",
        f"forge-otel read: skipped: {file}:5: sum is not an object",
        "forge-otel read: skipped: 1 more lines",
    ]


HINT = "OTEL_TRACES_EXPORTER=otlp_file, and the same for METRICS and LOGS, write telemetry/*.jsonl"


def test_no_telemetry_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.jsonl").write_text("")
    (tmp_path / "y.jsonl").write_text("hello\n")
    for name, problem in (
        ("none", f"{{}}: there is no such file or folder; {HINT}"),
        ("empty", "{}: this folder has no *.jsonl files"),
        ("x.jsonl", "no telemetry in {}: the files are empty"),
        ("y.jsonl", "no telemetry in {}: {}:1: is not JSON (Expecting value, column 1)"),
    ):
        path = tmp_path / name
        assert refused(capsys, path) == f"forge-otel read: {problem.format(path, path)}\n"


def test_text_cannot_change_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;evil\x07"
    spans = [span(1, None, evil, (0, 1), evil, trace=evil, forge__sample__id=evil), span(2, None, "x", (0, 1))]
    file = write(
        tmp_path / "x", request("Spans", "spans", *spans), request("Logs", "logRecords", exception(evil, evil))
    )
    assert "\x1b" not in printed(capsys, "--limit", "1", file)


@pytest.mark.slow
def test_styles_are_for_terminals(telemetry: Path) -> None:
    command = [sys.executable, "-m", "forge_otel.commands.cli", "read", str(telemetry)]
    ours, theirs = pty.openpty()
    outputs = []
    for variables in ({}, {"NO_COLOR": "1"}):
        subprocess.run(command, stdout=theirs, check=True, env={**os.environ, **variables})
        outputs.append(os.read(ours, 100_000).decode())
    os.close(ours)
    os.close(theirs)
    assert "\x1b[31mValueError: cannot decode\x1b[0m" in outputs[0]
    assert "\x1b" not in outputs[1]


def test_its_metrics_are_in_the_registry() -> None:
    assert set(METRICS) <= {metric.name for metric in metrics.ALL}


SCRIPT = """
from forge import BatchRunner, Pipeline, Sample, stage

@stage
def halve(sample):
    return sample.with_data(10 / sample.data)

BatchRunner().run(Pipeline(name="halves", source=[Sample(data=n, id=str(n)) for n in (2, 0)], stages=[halve])).drain()
"""


@pytest.mark.slow
def test_a_real_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instrumented(tmp_path, SCRIPT, OTEL_SERVICE_NAME="halves", **TO_FILES)
    read = document(capsys, tmp_path / "telemetry")
    assert read["unreadable"] == 0
    (trace,) = read["traces"]
    assert trace["service"] == "halves"
    (run,) = trace["roots"]
    assert run["name"] == "forge.pipeline halves"
    assert [(sample["sample_id"], sample["outcome"], sample["error"]) for sample in run["children"]] == [
        ("2", "ready", None),
        ("0", "failed", "ZeroDivisionError: division by zero"),
    ]
    (whole,) = read["runs"]
    assert (whole["pipeline"], whole["suppressed"], whole["faults"]) == ("halves", 0, 0)
    assert whole["spans"] == whole["recorded_spans"] == read["spans"]
    (pipeline,) = read["pipelines"]
    assert pipeline["samples"] == {"ready": 1, "failed": 1}
    (stage,) = pipeline["stages"]
    assert (stage["executions"], stage["errors"], stage["skips"], stage["retries"]) == (2, 1, 0, 0)
    assert [(each["where"], each["error_type"], each["count"], each["sample_id"]) for each in read["failures"]] == [
        ("halve", "ZeroDivisionError", 1, "0")
    ]
