"""The slowest operations, the most errors, and the longest waits."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forge_otel.commands.trace import top as tops
from forge_otel.commands.trace.records import Span
from forge_otel.commands.trace.sources import FileSource
from forge_otel.commands.trace.top import OTHERS, Top, top
from tests.commands.otlp import BEGIN, RUN, TRACE, attributes, request, span, write


def log(name: str, **more: Any) -> dict[str, Any]:
    values = {key.replace("__", "."): value for key, value in more.items()}
    return {"eventName": name, "timeUnixNano": str(BEGIN), "traceId": TRACE, "attributes": attributes(values)}


SPANS = [
    *RUN,
    span(7, 1, "forge.stage annotate", (0, 10), forge__stage__name="annotate", forge__stage__queue__wait=0.5),
    span(8, 1, "forge.stage annotate", (0, 30), forge__stage__name="annotate", forge__stage__queue__wait=1.5,
         forge__sample__id="c d"),
]  # fmt: skip
LOGS = [
    log("forge.stage.retry", forge__stage__name="annotate", forge__stage__retry__delay=3.0),
    log("forge.stage.retry", forge__stage__name="annotate", forge__stage__retry__delay=1.0),
    log("forge.stage.summary", forge__stage__name="decode", forge__summary__backpressure=0.25),
]


def source(tmp_path: Path) -> FileSource:
    requests = request("Spans", "spans", *SPANS), request("Logs", "logRecords", *LOGS)
    return FileSource([write(tmp_path / "a.jsonl", *requests)])


def test_the_report(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    report, problems = top(source(tmp_path), 10)
    assert problems == []
    assert (report["spans"], report["log_records"], report["unreadable"]) == (8, 3, 0)
    decode, annotate = report["operations"]
    assert decode | {"p50": 0, "p95": 0, "p99": 0} == {
        "name": "forge.stage decode",
        "count": 2,
        "errors": 1,
        "p50": 0,
        "p95": 0,
        "p99": 0,
        "max": 0.25,
        "total": 0.33,
        "slowest": {
            "sample_id": "b",
            "run_id": None,
            "trace_id": TRACE,
            "next": f"forge-otel trace waterfall b {file}",
        },
    }
    assert annotate["slowest"]["next"] == f"forge-otel trace waterfall 'c d' {file}"
    assert report["errors"] == [
        {
            "name": "forge.stage decode",  # and not the sample, which failed because of it
            "error_type": "ValueError",
            "count": 1,
            "message": "cannot\ndecode",
            "first": decode["slowest"],
        }
    ]
    waits = [{key: row[key] for key in row if key != "longest"} for row in report["waits"]]
    assert waits == [
        {"stage": "annotate", "total": 6.0, "queue": 2.0, "retries": 4.0, "retry_count": 2, "backpressure": 0.0},
        {"stage": "decode", "total": 0.25, "queue": 0.0, "retries": 0.0, "retry_count": 0, "backpressure": 0.25},
    ]
    assert report["waits"][0]["longest"] == {
        "wait": 1.5,
        "sample_id": "c d",
        "run_id": None,
        "trace_id": TRACE,
        "next": f"forge-otel trace waterfall 'c d' {file}",
    }


def test_errors_of_samples_that_no_stage_explains(tmp_path: Path) -> None:
    alone = span(9, 1, "forge.sample", (0, 1), "no room", forge__sample__id="z")
    file = write(tmp_path / "a.jsonl", request("Spans", "spans", *RUN, alone, alone))
    report, _ = top(FileSource([file]), 10)
    assert [(row["name"], row["count"]) for row in report["errors"]] == [("forge.sample", 3), ("forge.stage decode", 1)]


def test_a_limit(tmp_path: Path) -> None:
    report, _ = top(source(tmp_path), 1)
    assert [len(report[key]) for key in ("operations", "errors", "waits")] == [1, 1, 1]


def test_problems_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("hello\n" * 9)
    report, problems = top(FileSource([tmp_path / "a.jsonl"]), 10)
    assert report["unreadable"] == 9
    assert len(problems) == tops.MAX_PROBLEMS


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_names() -> None:
    def records(count: int) -> Iterator[Span]:
        for number in range(count):
            about = {"error.type": f"E{number}", "forge.stage.name": f"s{number}", "forge.stage.queue.wait": 1.0}
            yield Span("t", f"{number:016x}", "", f"GET /{number}", 0, number, True, f"message {number}", about, {})

    found = Top()
    tracemalloc.start()
    try:
        found.add_all(records(3_000))
        before, _ = tracemalloc.get_traced_memory()
        found.add_all(records(10_000))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    report = found.document(FileSource([]), 5_000)
    assert [len(report[key]) for key in ("operations", "errors", "waits")] == [tops.MAX_OPERATIONS + 1] * 3
    (others,) = (row for row in report["operations"] if row["name"] == OTHERS)
    assert others["count"] == 2_000 + 9_000
    assert after - before < 1_000_000


def test_numbers_that_no_time_can_be_are_left_out(tmp_path: Path) -> None:
    waits = [float("nan"), float("inf"), 1e300, True, "soon", 2.0]
    spans = []
    for n, wait in enumerate(waits, 1):
        value = {"boolValue": True} if wait is True else {"stringValue" if wait == "soon" else "doubleValue": wait}
        about = [*attributes({"forge.stage.name": "tag"}), {"key": "forge.stage.queue.wait", "value": value}]
        spans.append(span(n, None, "forge.stage tag", (0, 1)) | {"attributes": about})
    report, problems = top(FileSource([write(tmp_path / "a.jsonl", request("Spans", "spans", *spans))]), 10)
    assert problems == []
    assert [(row["total"], row["queue"]) for row in report["waits"]] == [(2.0, 2.0)]
