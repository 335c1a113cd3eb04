"""`forge run` on a pipeline of one's own: as a process, as its user starts it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from forge import SQLStorage
from forge.support.layout import to_text
from forge_otel.commands.cli import main, main_forge
from forge_otel.commands.telemetry.report import exports_in
from tests.support.collector import running_collector

pytestmark = pytest.mark.slow

PATIENCE = 180
FORGE = [Path(sys.executable).with_name("forge")]
PIPELINE = """
import sys
import time
from forge import Measurement, Pipeline, Sample, Skip, SQLStorage, stage


@stage
def parse(sample: Sample) -> Sample | Skip:
    print("parsing", sample.id)
    if sample.data == 3:
        raise ValueError("no [bold] number")
    return sample if sample.data else Skip("zero")


class Length(Measurement):
    key, version = "length", "1"

    def compute(self, sample: Sample) -> int:
        return 1


def lines(count):
    return [Sample(id=f"line-{number}", data=number) for number in range(count)]


def numbers(count: int = 5, storage: bool = True, pause: float = 0.0) -> Pipeline:
    def source():
        for sample in lines(count):
            yield sample
            time.sleep(pause)

    store = SQLStorage("sqlite:///numbers.db") if storage else None
    return Pipeline(name="numbers", source=source, stages=[parse], measurements=[Length()], storage=store)


def broken():
    yield 1
    raise OSError("the disk is gone")


good = Pipeline(name="good", source=lines(2), stages=[parse])
bad = Pipeline(name="bad", source=broken)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipes.py").write_text(PIPELINE)
    return tmp_path


def forge(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FORGE, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        env={**os.environ, "FORGE_OTEL_SHUTDOWN_TIMEOUT": "60"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def document(folder: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(forge(folder, "run", *arguments, "--json", code=code).stdout)
    return found


def test_the_report_comes_last_and_the_exit_code_is_the_runs(folder: Path) -> None:
    done = forge(folder, "run", "pipes:numbers", code=3)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("parsing ")]
    assert lines[0].startswith("numbers: completed in ")
    assert lines[0].endswith(" s; 5 admitted, 0 derived: 3 ready, 1 skipped, 1 dlq")
    assert lines[1:4] == [
        "  1 × ValueError in parse, sample 'line-3': no [bold] number",
        "  1 skipped in parse: zero",
        "",
    ]
    assert [line.split()[:5] for line in lines if line.startswith("parse")] == [["parse", "5", "1", "1", "0"]]
    show, dlq = lines[-2:]
    assert re.fullmatch("next: forge show [0-9a-f]{8} --storage sqlite:///numbers.db", show)
    assert dlq == "next: forge dlq list --storage sqlite:///numbers.db"
    for line in (show, dlq):
        forge(folder, *line.split()[2:])
    assert forge(folder, "run", "pipes:good").stdout.splitlines()[0] == "parsing line-0"


def test_the_document_is_the_record_and_nothing_else_is_in_stdout(folder: Path) -> None:
    done = forge(folder, "run", "pipes:numbers", "--set", "count=3", "--json")
    found = json.loads(done.stdout)
    assert "parsing line-0" in done.stderr
    storage = SQLStorage(f"sqlite:///{folder}/numbers.db")
    [row] = storage.runs("numbers")
    storage.close()
    assert row.id == found["run_id"]
    assert found["ledger"]["ready"] == 2
    assert found["verdict"] == row.record["verdict"]
    assert "telemetry" not in found
    assert "next: " not in done.stderr


def test_a_document_with_an_id_that_no_encoding_has(folder: Path) -> None:
    (folder / "unencodable.py").write_text(
        "from forge import Pipeline, Sample, stage\n"
        "@stage\n"
        "def fail(sample):\n"
        "    raise ValueError\n"
        "p = Pipeline(name='p', source=[Sample(id='a\\udce9', data=1)], stages=[fail], max_failures=1.0)\n"
    )
    done = forge(folder, "run", "unencodable:p", "--json", code=3)
    assert json.loads(done.stdout)["failures"][0]["sample_id"] == "a\udce9"


def test_the_next_command_is_one_of_the_same_program(folder: Path) -> None:
    command: list[str | Path] = [Path(sys.executable).with_name("forge-otel"), "run", "pipes:numbers"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert re.search("^next: forge-otel show [0-9a-f]{8} --storage sqlite:///numbers.db$", done.stdout, re.MULTILINE)


def test_a_closed_pipe_ends_the_report(folder: Path) -> None:
    script = f"{shlex.quote(str(FORGE[0]))} run pipes:good | true; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, check=False).returncode == 141


def test_settings_limits_and_runners(folder: Path) -> None:
    found = document(folder, "pipes:numbers", "--set", "count=50", "--limit", "3", "--runner", "batch")
    assert (found["type"], found["runner"], found["ledger"]["admitted"]) == ("partial", "batch", 3)
    found = document(folder, "pipes:numbers", "--set", "count=3")
    assert found["ledger"]["unchanged"] == 3
    found = document(folder, "pipes:numbers", "--set", "count=3", "--rerun")
    assert (found["ledger"]["ready"], found["measurements"][0]["cached"]) == (2, 2)
    assert found["runner"] == "streaming"


def test_an_error_of_the_run_is_shown_with_its_stack_trace(folder: Path) -> None:
    done = forge(folder, "run", "pipes:bad", code=1)
    assert 'raise OSError("the disk is gone")' in done.stderr
    assert done.stdout.startswith("bad: failed (OSError: the disk is gone) in ")


def test_telemetry_in_files_with_the_name_of_the_pipeline(folder: Path) -> None:
    for _ in range(2):
        found = document(folder, "pipes:good", "--files", "telemetry")
    assert [(file["signal"], file["records"] > 0) for file in found["telemetry"]["files"]] == [
        ("traces", True),
        ("metrics", True),
        ("logs", True),
    ]
    requests = [json.loads(line) for line in (folder / "telemetry" / "traces.jsonl").read_text().splitlines()]
    assert len(requests) == 2  # the second run has appended
    [resource] = requests[0]["resourceSpans"]
    attributes = {each["key"]: each["value"] for each in resource["resource"]["attributes"]}
    assert attributes["service.name"] == {"stringValue": "good"}
    done = forge(folder, "run", "pipes:good", "--files", "telemetry", "--trace-url", "http://jaeger/trace/{trace_id}")
    assert re.search(r"^trace  http://jaeger/trace/[0-9a-f]{32}$", done.stdout, re.MULTILINE)
    assert "last flush succeeded" in done.stdout
    assert done.stdout.endswith("next: forge-otel read telemetry\n")


def test_the_report_says_what_telemetry_has_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_OTEL_SAMPLING_RATE", "0")
    found = document(folder, "pipes:good", "--files", "telemetry")["telemetry"]
    spans = found["suppressed"]["spans"]
    assert spans > 0
    assert (found["suppressed"]["events"], found["faults"]) == (0, 0)
    lines = forge(folder, "run", "pipes:good", "--files", "telemetry").stdout.splitlines()
    assert f"left out by sampling or a budget: {spans} spans" in lines

    lossy = {**found, "dropped": {"spans": 2, "log_records": 1}, "suppressed": {"spans": 0, "events": 3}, "faults": 4}
    assert to_text(list(exports_in(lossy))).splitlines()[-4:-1] == [
        "left out by sampling or a budget: 3 events",
        "dropped because a queue was full: 2 spans, 1 log records",
        "faults inside the telemetry: 4",
    ]


def test_telemetry_to_an_endpoint(folder: Path) -> None:
    with running_collector() as collector:
        found = document(folder, "pipes:good", "--otlp", collector.url)
    assert sorted(collector.names) == [
        "forge.pipeline good",
        "forge.sample",
        "forge.sample",
        "forge.stage parse",
        "forge.stage parse",
    ]
    assert found["telemetry"]["endpoint"] == collector.url
    assert found["telemetry"]["files"] == []


def test_metrics_for_prometheus_are_served_until_they_are_scraped(folder: Path) -> None:
    with subprocess.Popen(
        [*FORGE, "run", "pipes:good", "--prometheus", "0"],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        line = next(line for line in iter(process.stderr.readline, "") if line.startswith("serving "))
        with urllib.request.urlopen(line.split()[1]) as answer:
            assert b"forge_sample_settled_total" in answer.read()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("number", "storage", "code", "said"),
    [
        (signal.SIGINT, "yes", 130, "forge run: interrupted; the same command continues where this one stopped"),
        (signal.SIGINT, "no", 130, "forge run: interrupted; the same command starts over: it has no storage"),
        (signal.SIGTERM, "yes", -15, "forge run: terminated; the same command continues where this one stopped"),
    ],
)
def test_a_signal_ends_the_run(folder: Path, number: signal.Signals, storage: str, code: int, said: str) -> None:
    settings = ["--set", "count=100000", "--set", "pause=0.01", "--set", f"storage={storage}"]
    with subprocess.Popen(
        [*FORGE, "run", "pipes:numbers", *settings],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("parsing ")
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert said in err.splitlines()
    assert ("numbers: cancelled in " in out) == (number is signal.SIGINT)
    if storage == "yes":
        store = SQLStorage(f"sqlite:///{folder}/numbers.db")
        assert [row.outcome for row in store.runs("numbers")] == ["cancelled"]
        store.close()


@pytest.mark.parametrize("program", [main, main_forge])
def test_bad_input_is_refused(program: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program(["run", "pipes_that_are_not_there:x"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    name = "forge-otel run" if program is main else "forge run"
    assert said.err.startswith(f"{name}: there is no module 'pipes_that_are_not_there' in ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "is not a whole number from 1 to"),
        (["--runner", "spark"], "'spark' is not one of"),
        (["--otlp", "nowhere"], "--otlp nowhere: not an endpoint; use http://host:4317 (gRPC)"),
        (["--files", "pipes.py"], "--files: cannot write telemetry to pipes.py: File exists"),
    ],
)
def test_bad_options_are_refused(folder: Path, options: list[str], message: str) -> None:
    done = forge(folder, "run", "pipes:good", *options, code=2)
    assert message in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
