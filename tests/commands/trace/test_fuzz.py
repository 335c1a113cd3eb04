"""Whatever is changed in telemetry, the commands end with an answer or a message."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_otel.commands.cli import main
from tests.commands.otlp import BEGIN, TRACE, attributes, exception, request

from .test_page_data import RUN, run, sample

LOGS = [
    exception("s1", "bad", **{"forge.run.id": RUN, "exception.type": "ValueError", "exception.stacktrace": "  File x"}),
    {
        "eventName": "forge.stage.retry",
        "timeUnixNano": str(BEGIN),
        "traceId": TRACE,
        "spanId": f"{11:016x}",
        "severityText": "INFO",
        "body": {"stringValue": "again"},
        "attributes": attributes({"forge.run.id": RUN, "forge.stage.name": "tag", "forge.stage.retry.delay": 1.0}),
    },
    {
        "eventName": "forge.stage.summary",
        "timeUnixNano": str(BEGIN),
        "traceId": TRACE,
        "attributes": attributes({"forge.run.id": RUN, "forge.stage.name": "tag", "forge.summary.backpressure": 1.0}),
    },
    {
        "eventName": "forge.pipeline.summary",
        "traceId": TRACE,
        "attributes": attributes({"forge.run.id": RUN, "forge.summary.ready": 1.0, "forge.cost.amount": 1.0}),
    },
]
LINK = {"traceId": TRACE, "spanId": f"{11:016x}", "attributes": attributes({"forge.link.type": "batch"})}
SPANS = [run(), *sample(1, 5, 40, "bad"), *(each | {"links": [LINK]} for each in sample(2, 5, 40))]
DOCUMENT = request("Spans", "spans", *SPANS) | request("Logs", "logRecords", *LOGS)
ODD = [
    *(
        None,
        True,
        0,
        -1,
        1e400,
        float("nan"),
        1e300,
        2**63 - 1,
        -(2**63),
        2**64,
        "",
        "NaN",
        "Infinity",
        "-1",
        "x" * 300,
    ),
    *("\x1b[31m", "\ud800", "é", [], {}, [None], {"doubleValue": "Infinity"}, {"intValue": "-5"}, {"boolValue": True}),
    *(
        {"doubleValue": 1e300},
        {"arrayValue": {"values": [{"stringValue": "a"}]}},
        {"stringValue": "s1"},
        {"stringValue": 7},
    ),
]
COMMANDS = (["top"], ["waterfall", "s1"], ["waterfall", TRACE], ["grep", "duration>0 x"], ["tail", "--filter", "tag"])


def changed(value: Any, path: list[int], new: Any) -> Any:
    """A copy of a document in which another value stands where the path leads."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = changed(value[key], path[1:], new)
    return copy


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_change_of_a_value_breaks_a_command(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    document = DOCUMENT
    for _ in range(data.draw(st.integers(1, 6))):
        path = data.draw(st.lists(st.integers(0, 30), min_size=6, max_size=10))
        document = changed(document, path, data.draw(st.sampled_from(ODD)))
    folder = tmp_path_factory.mktemp("odd")
    (folder / "a.jsonl").write_text(json.dumps(document) + "\n")
    for arguments in COMMANDS:
        for more in ([], ["--json"]):
            code = main(["trace", *arguments, str(folder), *more])
            out, err = capsys.readouterr()
            assert code in (0, 1, 2)
            assert "\x1b" not in out + err
            assert code != 2 or re.fullmatch(r"forge-otel trace \w+: .+\n", err)
            if more and out and arguments[0] != "tail":
                json.loads(out, parse_constant=pytest.fail)
    page = folder / "page.html"
    if main(["trace", "page", str(folder), "--html", str(page)]) == 0:
        found = re.search(r'<script type="application/json" id="data">(.*)</script>\n<script>', page.read_text())
        assert found
        json.loads(found[1], parse_constant=pytest.fail)
    capsys.readouterr()
    shutil.rmtree(folder)
