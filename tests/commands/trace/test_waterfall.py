"""A trace, or a sample in it, as a tree."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from forge_otel.commands.errors import CommandError
from forge_otel.commands.trace.sources import FileSource
from forge_otel.commands.trace.waterfall import document, find
from tests.commands.otlp import BEGIN, MS, RUN, TRACE, attributes, exception, request, span, write

RUN_ID = "71ef040a-91c3-479f-a6e0-63e75e7c4d75"


def linked(number: int, to: int, one: dict[str, Any]) -> dict[str, Any]:
    link = {"traceId": TRACE, "spanId": f"{to:016x}", "attributes": attributes({"forge.link.type": "batch"})}
    return one | {"links": [link]}


def run_of(count: int) -> list[dict[str, Any]]:
    """A run: each sample has a stage with a client call in it, and a batch stage. Every tenth fails."""
    spans = [span(1, None, "forge.pipeline corpus", (0, 10_000), forge__run__id=RUN_ID)]
    spans.append(span(2, 1, "forge.stage.batch tag", (50, 30)))
    for n in range(count):
        error = "bad" if n % 10 == 9 else ""
        base = 10 * (n + 1)
        spans += [
            span(base, 1, "forge.sample", (n, 100 + n), error, forge__sample__id=f"s{n}", forge__run__id=RUN_ID),
            span(base + 1, base, "forge.stage call", (n, 50), forge__sample__id=f"s{n}"),
            span(base + 2, base + 1, "POST", (n + 1, 40)),
            linked(base + 3, 2, span(base + 3, base, "forge.stage tag", (60, 20), error, forge__sample__id=f"s{n}")),
        ]
    random.Random(7).shuffle(spans)
    return spans


def files(folder: Path, *spans: dict[str, Any], logs: list[dict[str, Any]] | None = None) -> FileSource:
    """One span in each line, in whatever order they come."""
    write(folder / "traces.jsonl", *(request("Spans", "spans", each) for each in spans))
    write(folder / "logs.jsonl", request("Logs", "logRecords", *(logs or [])))
    return FileSource([folder])


def tree(nodes: list[dict[str, Any]]) -> list[Any]:
    return [[node["name"], *tree(node["children"])] for node in nodes]


def test_a_sample_with_all_below_it_and_its_batch(tmp_path: Path) -> None:
    retry = {
        "eventName": "forge.stage.retry",
        "timeUnixNano": str(BEGIN + 70 * MS),
        "traceId": TRACE,
        "spanId": f"{2:016x}",
        "severityText": "INFO",
        "body": {"stringValue": "Stage retries: tag"},
    }
    failed = exception("s9", "bad") | {"spanId": f"{103:016x}", "severityText": "WARN"}
    source = files(tmp_path, *run_of(30), logs=[failed, retry, exception("s8", "other")])
    found = document(find(source, "s9", limit=5), source)
    assert tree(found["roots"]) == [
        ["forge.sample", ["forge.stage call", ["POST"]], ["forge.stage tag"]],
        ["forge.stage.batch tag"],
    ]
    assert {key: found[key] for key in found if key not in ("roots", "started", "log_records")} == {
        "trace_id": TRACE,
        "sample_id": "s9",
        "run_id": RUN_ID,
        "service": "corpus",
        "duration": 0.109,
        "spans": 5,
        "omitted_spans": 0,
        "failed_spans": 2,
        "unreadable": 0,
        "next": [
            f"forge show {RUN_ID} s9",
            f"forge-otel trace waterfall {TRACE} {tmp_path}",
        ],
    }
    sample, batch = found["roots"]
    tag = sample["children"][1]
    assert (tag["offset"], tag["duration"], tag["outcome"], tag["error"]) == (0.051, 0.02, None, "ValueError: bad")
    assert tag["links"] == [{"trace_id": TRACE, "span_id": f"{2:016x}", "type": "batch"}]
    assert [record["name"] for record in tag["log_records"]] == ["forge.stage.exception"]
    assert [(record["name"], record["offset"]) for record in batch["log_records"]] == [("forge.stage.retry", 0.061)]
    assert found["log_records"] == []


@pytest.mark.parametrize("target", [TRACE, TRACE[:6].upper(), RUN_ID[:8]])
def test_a_trace_shows_failures_then_what_took_longest(tmp_path: Path, target: str) -> None:
    source = files(tmp_path, *run_of(30))
    found = document(find(source, target, limit=8), source)
    (run,) = found["roots"]
    samples = [child["attributes"]["forge.sample.id"] for child in run["children"]]
    assert samples == ["s9", "s19", "s28", "s29"]  # three failed, s28 took longest of the others
    assert tree(run["children"][:1]) == [["forge.sample", ["forge.stage tag"]]]
    assert (found["spans"], found["omitted_spans"], found["failed_spans"]) == (122, 114, 6)
    assert found["next"] == [f"forge-otel trace waterfall s9 {tmp_path}", f"forge show {RUN_ID}"]


def test_the_latest_trace_of_a_sample(tmp_path: Path) -> None:
    earlier = "ab" * 16
    spans = [
        span(1, None, "forge.sample", (0, 1), trace=earlier, forge__sample__id="-x y"),
        span(2, None, "forge.sample", (5, 2), forge__sample__id="-x y", forge__sample__parent__id="p"),
    ]
    source = files(tmp_path, *spans)
    found = document(find(source, "-x y", limit=5), source)
    assert (found["trace_id"], found["duration"]) == (TRACE, 0.002)
    assert found["next"] == [
        f"forge-otel trace waterfall p {tmp_path}",
        f"forge-otel trace waterfall --trace {earlier} -- '-x y' {tmp_path}",
        f"forge-otel trace waterfall {TRACE} {tmp_path}",
    ]
    assert document(find(source, "-x y", trace="ABAB", limit=5), source)["trace_id"] == earlier


@pytest.mark.parametrize("sample_id", ["naïve", 'a "b"', "a/b", "<a&b>", "a\\b", "a b#c"])
def test_ids_that_encoders_write_differently(tmp_path: Path, sample_id: str) -> None:
    """Lines are searched for the id before they are parsed."""
    spans = [span(1, None, "forge.sample", (0, 5), forge__sample__id=sample_id), span(2, 1, "POST", (1, 1))]
    source = files(tmp_path, *spans)
    for encode in (
        lambda text: text,
        lambda text: json.dumps(json.loads(text), ensure_ascii=False),
        lambda text: text.replace("/", "\\/").replace("<", "\\u003c"),
    ):
        file = tmp_path / "traces.jsonl"
        file.write_text("".join(encode(line) + "\n" for line in file.read_text().splitlines()))
        assert tree(document(find(source, sample_id, limit=5), source)["roots"]) == [["forge.sample", ["POST"]]]


def test_nothing_found(tmp_path: Path) -> None:
    source = files(tmp_path, span(1, None, "a", (0, 1)), span(2, None, "b", (0, 1), trace=TRACE[:8] + "f" * 24))
    unrecorded = "a sample may not have been recorded (sampling_rate, span budget)"
    for target, message in (
        ("nope", f"nope: no sample, trace or run has this id, among 2 spans in {tmp_path}; {unrecorded}"),
        (TRACE[:8], f"{TRACE[:8]}: 2 traces begin with it, such as {TRACE}, {TRACE[:8]}{'f' * 24}; give more of it"),
    ):  # fmt: skip
        with pytest.raises(CommandError) as caught:
            find(source, target, limit=5)
        assert str(caught.value) == message
    (tmp_path / "traces.jsonl").write_text("hello\n")
    with pytest.raises(CommandError, match=r"no spans in .*: .*traces\.jsonl:1: is not JSON"):
        find(source, "nope", limit=5)


def test_odd_traces(tmp_path: Path) -> None:
    """Spans in a circle, their own parents, below a parent that is elsewhere, and very deep ones."""
    circle = [span(1, 2, "a", (0, 1)), span(2, 1, "b", (0, 1)), span(3, 3, "own", (2, 1)), span(4, 99, "lost", (3, -1))]
    source = files(tmp_path, *circle)
    found = document(find(source, TRACE, limit=9), source)
    assert tree(found["roots"]) == [["own"], ["lost"]]
    deep = [span(n, n - 1, "deep", (n, 1), forge__sample__id="d") for n in range(10, 400)]
    source = files(tmp_path, *deep)
    found = document(find(source, "d", limit=9), source)
    assert found["spans"] == 390
    assert json.dumps(found).count('"deep"') == 101


def test_a_run_without_errors(tmp_path: Path) -> None:
    source = files(tmp_path, *RUN[:3])
    found = document(find(source, TRACE, limit=9), source)
    assert tree(found["roots"]) == [["forge.pipeline corpus", ["forge.sample", ["forge.stage decode"]]]]
    assert found["next"] == []
