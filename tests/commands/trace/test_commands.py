"""`forge-otel trace …`: what its commands print, and their exit codes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forge_otel.commands.cli import main
from forge_otel.commands.next_commands import command, waterfall
from tests.commands.otlp import RUN, TRACE, attributes, exception, request, span, write
from tests.forge_otel.test_auto_instrumentation import TO_FILES, instrumented

EVIL = "\x1b]0;evil\x07[red]"


@pytest.fixture
def telemetry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default folder, with the telemetry of a run."""
    folder = tmp_path / "telemetry"
    folder.mkdir()
    failed = exception("b", "cannot\ndecode") | {
        "spanId": f"{5:016x}",
        "severityText": "WARN",
        "body": {"stringValue": "Stage failed: decode"},
    }
    stack = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    x\n  File "b.py", line 2, in g\n    y\nV'
    )
    about = {"exception.type": "ValueError", "exception.stacktrace": stack}
    failed["attributes"] = [*failed["attributes"], *attributes(about)]
    waiting = attributes({"forge.stage.queue.wait": 0.01})
    spans = [
        {**each, "attributes": [*each["attributes"], *waiting]} if "stage" in each["name"] else each for each in RUN
    ]
    write(folder / "traces.jsonl", request("Spans", "spans", *spans))
    write(folder / "logs.jsonl", request("Logs", "logRecords", failed))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    assert main(["trace", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def document(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    return json.loads(printed(capsys, *arguments, "--json"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 2) -> str:
    assert main(["trace", *map(str, arguments)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_the_pages_of_a_trace(
    telemetry: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_LOGS_URL", "http://logs.test/?{trace_id}")

    lines = printed(capsys, "waterfall", "b", "--trace-url", "http://traces.test/{trace_id}").splitlines()

    assert lines[1:3] == [f"trace  http://traces.test/{TRACE}", f"logs   http://logs.test/?{TRACE}"]
    assert document(capsys, "waterfall", "b")["pages"] == {"logs": f"http://logs.test/?{TRACE}"}


def test_a_waterfall(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "waterfall", "b").splitlines()
    assert lines[0].startswith("sample b  ")
    assert lines[0].endswith(f"  corpus  300ms  trace {TRACE}")
    assert lines[1:] == [
        "forge.sample b        " + "█" * 60 + "   300ms  dlq",
        "└─ forge.stage decode ░░" + "█" * 50 + " " * 8 + "   250ms  failed",
        "     ✗ ValueError: cannot decode",
        '         File "b.py", line 2, in g',
        "",
        f"next: forge-otel trace waterfall {TRACE}",
    ]
    assert printed(capsys, "waterfall", "b", "--stacks").splitlines()[4:10] == [
        "       Traceback (most recent call last):",
        '         File "a.py", line 1, in f',
        "           x",
        '         File "b.py", line 2, in g',
        "           y",
        "       V",
    ]


def test_a_waterfall_of_a_trace(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "waterfall", TRACE[:8], "--limit", "2").splitlines()
    assert [line.partition(" █")[0].rstrip() for line in lines[1:5]] == [
        "forge.pipeline corpus",
        "└─ forge.sample b",
        "     ✗ ValueError: cannot decode",
        "… 4 of 6 spans are not shown: --limit N shows more",
    ]
    assert lines[-1] == "next: forge-otel trace waterfall b"
    assert document(capsys, "waterfall", TRACE, telemetry)["next"] == [f"forge-otel trace waterfall b {telemetry}"]


def test_top(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.rstrip() for line in printed(capsys, "top").splitlines()]
    assert lines == [
        "slowest operations  calls  errors   p50   p95   p99    max  slowest in",
        "forge.stage decode      2       1  80ms  80ms  80ms  250ms  b",
        "next: forge-otel trace waterfall b",
        "",
        "1 × ValueError in forge.stage decode, sample b",
        "    cannot decode",
        "    next: forge-otel trace waterfall b",
        "",
        "most time waited  total  in queues  before retries  held up  longest in",
        "                   20ms       20ms               -        -  a",
        "next: forge-otel trace waterfall a",
    ]
    assert document(capsys, "top")["operations"][0]["count"] == 2


def test_grep(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "grep", "error.type=ValueError forge.sample.id=b").splitlines()
    assert [line.partition("  ")[2] for line in lines[:3]] == [
        "forge.stage.exception  Stage failed: decode: cannot decode  sample b  trace 0af76519",
        "forge.sample  300ms  ValueError: cannot decode  sample b  trace 0af76519",
        "forge.stage decode  250ms  ValueError: cannot decode  sample b  trace 0af76519",
    ]
    assert lines[3:] == ["", "next: forge-otel trace waterfall b"]
    found = document(capsys, "grep", "duration>200ms")
    assert [record["name"] for record in found["records"]] == [
        "forge.pipeline corpus",
        "forge.sample",
        "forge.stage decode",
    ]
    assert found["records"][1] == {
        "type": "span",
        "time": 1_700_000_000.03,
        "name": "forge.sample",
        "duration": 0.3,
        "outcome": "dlq",
        "error": "ValueError: cannot\ndecode",
        "trace_id": TRACE,
        "span_id": f"{4:016x}",
        "service": "corpus",
        "attributes": {"forge.sample.id": "b", "forge.sample.outcome": "dlq", "error.type": "ValueError"},
        "next": "forge-otel trace waterfall b",
    }
    assert (found["count"], found["unreadable"]) == (3, 0)
    assert document(capsys, "grep", "", "--limit", "2")["count"] == 2


def test_grep_without_a_match(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "grep", "forge.sample.ids=b", code=1) == (
        "forge-otel trace grep: none of 7 records; no record has forge.sample.ids; there is forge.sample.id\n"
    )
    assert main(["trace", "grep", "zzz", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"records": [], "count": 0, "unreadable": 0}
    assert err == "forge-otel trace grep: none of 7 records\n"


def test_tail(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last ones by time, whatever their order in the files."""
    lines = printed(capsys, "tail", "-n", "2").splitlines()
    assert [line.split("  ")[1] for line in lines] == ["forge.sample", "forge.pipeline corpus"]
    lines = printed(capsys, "tail", "-n", "2", "--filter", "forge.sample.id=a", "--json").splitlines()
    assert [json.loads(line)["next"] for line in lines] == ["forge-otel trace waterfall a"] * 2
    assert printed(capsys, "tail", "-n", "0") == ""


@pytest.mark.slow
def test_tail_follows_files_that_do_not_exist_yet(tmp_path: Path) -> None:
    folder = tmp_path / "telemetry"
    arguments = [sys.executable, "-m", "forge_otel.commands.cli", "trace", "tail", "--follow", "--json"]
    with subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        assert tail.stdout
        assert tail.stderr
        folder.mkdir()
        write(folder / "traces.jsonl", request("Spans", "spans", *RUN[:1]))
        assert json.loads(tail.stdout.readline())["name"] == "forge.pipeline corpus"
        with (folder / "traces.jsonl").open("a") as opened:
            opened.write("hello\n" + json.dumps(request("Spans", "spans", *RUN[1:2])) + "\n")
        assert json.loads(tail.stdout.readline())["next"] == "forge-otel trace waterfall a"
        assert tail.stderr.readline() == (
            "forge-otel trace tail: skipped: telemetry/traces.jsonl:2: is not JSON (Expecting value, column 1)\n"
        )
        tail.send_signal(signal.SIGINT)
        assert tail.wait() == 130
        assert tail.stderr.read() == ""


@pytest.mark.parametrize("arguments", [["waterfall", "b"], ["top"], ["grep", "name=x"], ["tail"]])
def test_no_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(capsys, *arguments) == (
        f"forge-otel trace {arguments[0]}: telemetry: there is no such file or folder; "
        "OTEL_TRACES_EXPORTER=otlp_file, and the same for METRICS and LOGS, write telemetry/*.jsonl\n"
    )


@pytest.mark.parametrize("arguments", [["waterfall", "b"], ["top"], ["grep", "name=x"]])
def test_no_telemetry_in_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    (tmp_path / "a.jsonl").write_text("hello\n")
    problem = f"{tmp_path}/a.jsonl:1: is not JSON (Expecting value, column 1)"
    what = "spans" if arguments[0] == "waterfall" else "spans or log records"
    assert refused(capsys, *arguments, tmp_path) == (
        f"forge-otel trace {arguments[0]}: no {what} in {tmp_path}: {problem}\n"
    )


def test_lines_that_cannot_be_read_are_named(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (telemetry / "traces.jsonl").open("a") as opened:
        opened.write("hello\n" * 7)
    assert main(["trace", "top"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        *(
            f"forge-otel trace top: skipped: telemetry/traces.jsonl:{line}: is not JSON (Expecting value, column 1)"
            for line in range(2, 7)
        ),
        "forge-otel trace top: skipped: 2 more lines",
    ]


def test_text_cannot_change_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = span(1, None, EVIL, (0, 1), EVIL, forge__sample__id=EVIL, forge__stage__name=EVIL)
    evil["attributes"] += attributes({"forge.stage.queue.wait": 1.0, "forge.skip.reason": EVIL})
    log = exception(EVIL, EVIL) | {"severityText": EVIL, "body": {"stringValue": EVIL}, "spanId": f"{1:016x}"}
    write(tmp_path / "a.jsonl", request("Spans", "spans", evil), request("Logs", "logRecords", log))
    for arguments in (["waterfall", EVIL, "--stacks"], ["top"], ["grep", ""], ["tail"]):
        out = printed(capsys, *arguments, tmp_path)
        assert "\x1b" not in out
        assert "[red]" in out


@pytest.mark.parametrize("text", ["plain", "a b", "it's", EVIL, "-x", "naïve", "tab\there", "\\x41\n"])
def test_a_next_command_can_be_pasted(text: str) -> None:
    line = command("printf", "%s", text)
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, check=True).stdout == text.encode()


def test_a_next_command_with_half_surrogate_pairs() -> None:
    assert command("a", "\udce9 x", "\ud800") == r"a $'\xe9 x' $'\xed\xa0\x80'"


def test_next_commands_name_the_source() -> None:
    assert shlex.split(waterfall("-x", ["a b"])) == ["forge-otel", "trace", "waterfall", "--", "-x", "a b"]
    assert waterfall("x", ["--jaeger", "http://j"], "ab") == "forge-otel trace waterfall --trace ab --jaeger http://j x"


def test_jaeger_needs_a_url_and_no_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("localhost", "file:///etc/passwd", "http://", "http://[", "http://a:b", "http://a:0"):
        assert refused(capsys, "top", "--jaeger", url) == (
            f"forge-otel trace top: --jaeger {url}: is not a URL like http://127.0.0.1:16686\n"
        )
    assert refused(capsys, "top", tmp_path, "--jaeger", "http://127.0.0.1:1") == (
        "forge-otel trace top: --jaeger http://127.0.0.1:1: give either paths or --jaeger, not both\n"
    )
    assert refused(capsys, "top", "--jaeger", "http://127.0.0.1:1") == (
        "forge-otel trace top: http://127.0.0.1:1: cannot be asked for traces: [Errno 111] Connection refused\n"
    )


SCRIPT = """
from forge import BatchRunner, Pipeline, Sample, stage

@stage
def halve(sample):
    return sample.with_data(10 / sample.data)

BatchRunner().run(Pipeline(name="halves", source=[Sample(data=n, id=f"n {n}") for n in (2, 0)], stages=[halve])).drain()
"""


@pytest.mark.slow
def test_from_a_run_to_the_failed_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What to type next is always printed: from the errors to the sample, and to its line of code."""
    instrumented(tmp_path, SCRIPT, OTEL_SERVICE_NAME="halves", **TO_FILES)
    (error,) = document(capsys, "top", tmp_path / "telemetry")["errors"]
    assert (error["error_type"], error["count"], error["name"]) == ("ZeroDivisionError", 1, "forge.stage halve")
    program, *arguments = shlex.split(error["first"]["next"])
    assert program == "forge-otel"
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("sample n 0  ")
    assert "✗ ZeroDivisionError: division by zero" in out
    assert ", line 6, in halve" in out


@pytest.mark.slow
def test_styles_are_for_terminals(telemetry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm-256color"}
    line = [sys.executable, "-m", "forge_otel.commands.cli", "trace", "waterfall", "b"]
    terminal = ["script", "-qec", shlex.join(line), "/dev/null"]
    colourful = subprocess.run(terminal, stdout=subprocess.PIPE, env=environment, text=True, check=True).stdout
    plain = subprocess.run(
        terminal, stdout=subprocess.PIPE, env={**environment, "NO_COLOR": "1"}, text=True, check=True
    ).stdout
    assert "\x1b[31m✗ ValueError: cannot decode\x1b[0m" in colourful
    assert "\x1b[3" not in plain
    assert max(map(len, plain.splitlines()[1:5])) <= 60
