"""What a page on a run is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forge_otel.commands.errors import CommandError
from forge_otel.commands.trace.page_data import page_data
from forge_otel.commands.trace.sources import FileSource
from tests.commands.otlp import BEGIN, MS, TRACE, attributes, request, span, write

RUN = "71ef040a-91c3-479f-a6e0-63e75e7c4d75"


def sample(number: int, begin: int, took: int, error: str = "", run: str = RUN, **more: Any) -> list[dict[str, Any]]:
    """A sample that waits 10 ms for its stage, and is in it for half of its time; a call is in the stage."""
    about: dict[str, Any] = {"forge__run__id": run, "forge__sample__id": f"s{number}"}
    base = 10 * number
    stage: dict[str, Any] = {"forge__stage__name": "tag", "forge__stage__queue__wait": 0.01}
    result: dict[str, Any] = {"forge__sample__outcome": "dlq" if error else "ready"} | more
    return [
        span(base, 1, "forge.sample", (begin, took), error, **about, **result),
        span(base + 1, base, "forge.stage tag", (begin + 10, took // 2), error, **about, **stage),
        span(base + 2, base + 1, "POST", (begin + 10, 1)),
    ]


def run(*, run_id: str = RUN, trace: str = TRACE, start: int = 0, took: int = 1000) -> dict[str, Any]:
    about = {"forge__run__id": run_id, "forge__pipeline__name": "corpus", "forge__run__outcome": "completed"}
    return span(1, None, "forge.pipeline corpus", (start, took), trace=trace, **about)


def source(folder: Path, *spans: dict[str, Any], logs: list[dict[str, Any]] | None = None) -> FileSource:
    write(folder / "traces.jsonl", *(request("Spans", "spans", each) for each in spans))
    write(folder / "logs.jsonl", request("Logs", "logRecords", *(logs or [])))
    return FileSource([folder])


def readable(data: dict[str, Any], row: int) -> tuple[str, int, int, int, dict[str, Any]]:
    """The name, start and duration (in ms), parent and attributes of a span."""
    name, start, duration, parent, _, _, pairs, _ = data["spans"][row]
    values = data["values"]
    about = {values[key]: values[value] for key, value in zip(pairs[::2], pairs[1::2], strict=True)}
    return values[name], start // 1000, duration // 1000, parent, about


def test_a_run(tmp_path: Path) -> None:
    data = page_data(source(tmp_path, run(), *sample(2, 100, 60), *sample(1, 50, 40, "bad")), "", 100)
    assert data["run"] == {
        "id": RUN,
        "pipeline": "corpus",
        "trace_id": TRACE,
        "outcome": "completed",
        "type": None,
        "runner": None,
        "revision": None,
        "message": "",
        "start": BEGIN / 1e6,
        "duration": 1.0,
        "cost": None,
        "samples": {"ready": 1, "dlq": 1},
        "suppressed": None,
        "faults": None,
    }
    assert data["totals"] == {
        "spans": 7,
        "log_records": 0,
        "samples": 2,
        "kept_spans": 7,
        "kept_samples": 2,
        "other_runs": 0,
        "unreadable": 0,
    }
    assert (data["others"], data["samples"]) == (1, [[1, 3], [4, 3]])  # the run's span, then samples by start
    assert readable(data, 1) == ("forge.sample", 50, 40, 0, {
        "forge.sample.id": "s1", "forge.sample.outcome": "dlq", "error.type": "ValueError",
    })  # fmt: skip
    assert readable(data, 2)[:4] == ("forge.stage tag", 60, 20, 1)
    assert readable(data, 3)[:4] == ("POST", 60, 1, 2)
    assert [data["values"][data["spans"][row][5]] for row in (1, 4)] == ["bad", ""]
    (stage,) = data["stages"]
    assert (stage["name"], stage["exact"], stage["executions"], stage["max"]) == ("tag", False, 2, 0.03)


def test_where_samples_are(tmp_path: Path) -> None:
    data = page_data(source(tmp_path, run(), *sample(1, 0, 80), *sample(2, 10, 80)), "", 100)
    occupancy = data["occupancy"]
    assert (occupancy["start"], occupancy["width"], occupancy["bins"]) == (0.0, 0.001, 90)
    # Ten milliseconds in the queue, forty in the stage, thirty after it; the second sample ten milliseconds later.
    expected = {
        "waiting for tag": [1] * 20 + [0] * 70,
        "tag": [0] * 10 + [1] * 10 + [2] * 30 + [1] * 10 + [0] * 30,
        "outside of stages": [0] * 50 + [1] * 10 + [2] * 20 + [1] * 10,
    }
    assert {each["name"]: each["values"] for each in occupancy["series"]} == expected
    assert [each["stage"] for each in occupancy["series"]] == [0, 0, None]


def test_the_summary_counts_all_samples(tmp_path: Path) -> None:
    def event(name: str, **more: Any) -> dict[str, Any]:
        values = {"forge.run.id": RUN} | {key.replace("__", "."): value for key, value in more.items()}
        encoded = [
            {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else one["value"]}
            for (key, value), one in zip(values.items(), attributes(values), strict=True)
        ]
        time = str(BEGIN + 900 * MS)
        return {"eventName": name, "timeUnixNano": time, "traceId": TRACE, "spanId": f"{1:016x}", "attributes": encoded}

    logs = [
        event("forge.pipeline.summary", forge__summary__ready=700, forge__summary__dlq=0, forge__cost__amount=1.5),
        event("forge.stage.summary", forge__stage__name="tag", forge__summary__executions=700, forge__summary__p95=0.5),
        event("forge.stage.summary", forge__stage__name="idle", forge__summary__executions=0),
    ]
    data = page_data(source(tmp_path, run(), *sample(1, 0, 80), logs=logs), "", 100)
    assert (data["run"]["samples"], data["run"]["cost"]) == ({"ready": 700}, 1.5)
    assert [(row["name"], row["exact"], row["executions"], row["p95"]) for row in data["stages"]] == [
        ("tag", True, 700, 0.5),
        ("idle", True, 0, None),
    ]
    assert [(data["values"][log[0]], log[1], log[2]) for log in data["logs"]] == [
        ("forge.pipeline.summary", 900_000, 0),
        ("forge.stage.summary", 900_000, 0),
        ("forge.stage.summary", 900_000, 0),
    ]


def test_of_a_large_run_failures_are_kept_and_then_the_slowest(tmp_path: Path) -> None:
    samples = [each for n in range(1, 31) for each in sample(n, n, 20 + n, "bad" if n in (3, 4) else "")]
    data = page_data(source(tmp_path, run(), *samples), "", 12)
    assert (data["totals"]["spans"], data["totals"]["samples"]) == (91, 30)
    ids = [readable(data, first)[4]["forge.sample.id"] for first, _ in data["samples"]]
    assert ids == ["s3", "s4", "s30"]
    assert [count for _, count in data["samples"]] == [3, 3, 3]  # whole samples, with the calls in them
    assert data["totals"]["kept_spans"] == 10
    assert data["stages"][0]["executions"] == 30
    assert sum(next(each for each in data["occupancy"]["series"] if each["name"] == "tag")["values"]) == pytest.approx(
        sum((20 + n) // 2 for n in range(1, 31)), abs=0.1
    )


def test_traces_of_samples_of_their_own(tmp_path: Path) -> None:
    other = "ab" * 16
    spans = [each | {"traceId": other} for each in sample(1, 50, 40)]
    data = page_data(source(tmp_path, run(), *spans), "", 100)
    assert data["samples"] == [[1, 3]]  # with the call, which has no run's id


def test_the_latest_run_or_a_given_one(tmp_path: Path) -> None:
    other = "0b" * 16
    spans = [run(), run(run_id="0aaa", trace=other, start=500), run(run_id="0bbb", trace="cd" * 16, start=100)]
    files = source(tmp_path, *spans)
    assert page_data(files, "", 10)["run"]["id"] == "0aaa"
    assert page_data(files, "0b0b", 10)["run"]["id"] == "0aaa"
    totals = page_data(files, RUN[:4], 10)["totals"]
    assert (totals["spans"], totals["kept_spans"], totals["other_runs"]) == (1, 1, 2)
    for wanted, message in (
        ("x", f"--run x: no run or trace begins with it; there are {RUN}, 0bbb, 0aaa"),
        ("0", "--run 0: 3 runs begin with it; there are " + f"{RUN}, 0bbb, 0aaa"),
    ):
        with pytest.raises(CommandError) as caught:
            page_data(files, wanted, 10)
        assert str(caught.value) == message


def test_a_run_that_was_killed(tmp_path: Path) -> None:
    """Its span is missing, since it is written at the end."""
    (tmp_path / "x.jsonl").write_text("torn")
    spans = [each | {"attributes": each["attributes"] + attributes({"forge.pipeline.name": "corpus"})}
             for each in sample(1, 50, 40)]  # fmt: skip
    data = page_data(source(tmp_path, *spans), "", 100)
    assert (data["run"]["pipeline"], data["run"]["outcome"], data["run"]["trace_id"]) == ("corpus", None, "")
    assert data["samples"] == [[0, 3]]
    assert data["problems"] == [f"{tmp_path}/x.jsonl:1: is not JSON (Expecting value, column 1)"]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^no run in .*: it has no spans of a run$"):
        page_data(source(tmp_path, span(1, None, "x", (0, 1))), "", 100)
