"""The `forge-otel` command: what it says about bad input, and how it ends."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pty
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from forge_otel import __version__
from forge_otel.commands.cli import main

PATIENCE = 180.0
COMMAND = [sys.executable, "-m", "forge_otel.commands.cli"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "one.py").write_text("def one():\n    return 1\n\ndef two():\n    return 2\n")
    return folder


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What the command says when it refuses: one line, with exit code 2."""
    code = main(list(map(str, arguments)))
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "missing"], "--input missing: there is no such folder"),
        (["--input", "file.py"], "--input file.py: not a folder"),
        (["--input", "empty"], "--input empty: no .py files below it; choose a folder with Python code"),
        (["--out", "file.py"], "--out file.py: cannot create this folder: File exists"),
        (["--out", "file.py/below"], "--out file.py/below: cannot create this folder: Not a directory"),
        (["--storage", "corpus.db"], "--storage: SQLStorage('corpus.db'): not a database URL; write sqlite:///"),
        (["--storage", "mysql://here/db"], "--storage: SQLStorage: 'mysql' is no database it knows"),
        (["--storage", "sqlite:///missing/corpus.db"], "--storage: "),
        (["--storage", "postgresql://127.0.0.1:1/db"], "--storage: "),
        (["--otlp", "localhost"], "--otlp localhost: not an endpoint; use http://host:4317 (gRPC) or"),
        (["--otlp", "ftp://host"], "--otlp ftp://host: not an endpoint"),
        (["--otlp", "http://host:port"], "--otlp http://host:port: not an endpoint"),
        (["--runner", "ray"], "--runner ray: RAY_ADDRESS is 10.0.0.1:6379, but the demo's services answer on this"),
        (["--limit", "0"], "invalid value for '--limit': '0' is not a whole number from 1 to 1000000000"),
        (["--max-cost", "0"], "invalid value for '--max-cost': '0' is not an amount of US dollars above 0"),
        (["--max-cost", "nan"], "invalid value for '--max-cost': 'nan' is not an amount of US dollars above 0"),
        (["--max-cost", "much"], "invalid value for '--max-cost': 'much' is not an amount of US dollars above 0"),
        (["--limit", "many"], "invalid value for '--limit': 'many' is not a whole number from 1 to 1000000000"),
        (["--prometheus", "65536"], "invalid value for '--prometheus': '65536' is not a port"),
        (["--nonsense"], "forge-otel demo: no such option '--nonsense' (see forge-otel demo --help)"),
    ],
)
def test_an_option_that_cannot_be_used(
    options: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("file.py").write_text("")
    Path("empty").mkdir()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    said = refusal(capsys, "demo", "--input", folder, "--out", "out", *options)
    assert said.startswith("forge-otel")
    assert message in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder; run the tests as another user")
def test_an_unreadable_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.chmod(0)
    said = refusal(capsys, "demo", "--input", folder, "--out", tmp_path / "out")
    assert said == f"forge-otel demo: --input {folder}: no permission to read it\n"


def test_a_port_in_use(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(capsys, "demo", "--input", folder, "--out", tmp_path / "out", "--prometheus", str(port))
    assert said == (
        f"forge-otel demo: --prometheus {port}: the port cannot be opened: Address already in use; choose another\n"
    )


@pytest.mark.slow
def test_a_missing_extra(folder: Path, tmp_path: Path) -> None:
    program = "import sys; sys.modules['aiohttp'] = None; from forge_otel.commands.cli import main; sys.exit(main())"
    process = subprocess.run(
        [sys.executable, "-c", program, "demo", "--input", folder, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr == "forge-otel demo: aiohttp is not installed: pip install 'forge-otel[demo]'\n"


@pytest.mark.parametrize("command", [["demo"], ["run", "pipeline:pipeline"]])
def test_ray_that_is_not_installed(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refusal(capsys, *command, "--runner", "ray")
    assert said == (f'forge-otel {command[0]}: --runner ray: RayRunner needs Ray: pip install "forge-otel[ray]"\n')


def test_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys) == "forge-otel: missing command (see forge-otel --help)\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"forge-otel {__version__}\n"


@pytest.mark.slow
def test_summary_and_lines_where_there_is_no_terminal(folder: Path, tmp_path: Path) -> None:
    process = subprocess.run(
        [*COMMAND, "demo", "--input", folder, "--out", tmp_path / "out"], capture_output=True, text=True, check=True
    )
    lines = [line.rstrip() for line in process.stdout.splitlines()]
    assert lines[0].startswith("code_corpus: completed in ")
    assert lines[0].endswith(" s; 1 admitted, 2 derived: 2 ready, 1 split")
    assert "\x1b" not in process.stdout + process.stderr


@pytest.mark.slow
def test_ctrl_c_ends_the_run_and_prints_what_was_done(tmp_path: Path) -> None:
    # Shells start what runs in the background with SIGINT ignored, and that is inherited.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from forge_otel.commands.cli import main; sys.exit(main())"
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "demo", "--json", "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FORGE_OTEL_SHUTDOWN_TIMEOUT": str(PATIENCE)},
    )
    pause = threading.Event()
    while not _rows(out / "corpus.db"):
        assert process.poll() is None
        pause.wait(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == f"forge-otel demo: interrupted; {RESUME}"
    document = json.loads(output)
    ledger = document["ledger"]
    assert document["outcome"] == "cancelled"
    assert (ledger["active"], ledger["imbalance"]) == (0, 0)
    assert document["telemetry"]["flushed"] is True
    stored = {"ready", "skipped", "split", "dlq"}
    assert _rows(out / "corpus.db") == +Counter({name: ledger[name] for name in stored})


def _rows(path: Path) -> Counter[str]:
    if not path.exists():
        return Counter()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return Counter(dict(connection.execute("SELECT status, count(*) FROM forge_samples GROUP BY status")))
        except sqlite3.OperationalError:  # the tables are not there yet
            return Counter()


@pytest.mark.slow
def test_prometheus_is_served_until_the_metrics_were_fetched(folder: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "demo", "--json", "--input", folder, "--out", tmp_path / "out", "--prometheus", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("serving http://127.0.0.1:")
    assert line.endswith("until scraped once, or 120 s have passed\n")
    with urllib.request.urlopen(line.split()[1]) as answer:
        text = answer.read().decode()
    output, _ = process.communicate()
    assert process.returncode == 0
    assert json.loads(output)["telemetry"]["prometheus"] == line.split()[1]
    settled = [one for one in text.splitlines() if one.startswith("forge_sample_settled_total{")]
    counts = {
        outcome: value
        for one in settled
        if (value := one.split()[-1])
        for outcome in ("ready", "split")
        if f'"{outcome}"' in one
    }
    assert counts == {"ready": "2.0", "split": "1.0"}


class Collector:
    """An OTLP endpoint: keeps what was posted, by path."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = {}
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.bodies.setdefault(self.path, []).append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()
    thread.join()


@pytest.mark.slow
def test_an_otlp_endpoint_gets_what_the_files_get(folder: Path, tmp_path: Path, collector: Collector) -> None:
    process = subprocess.run(
        [*COMMAND, "demo", "--json", "--input", folder, "--out", tmp_path / "out", "--otlp", collector.endpoint],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_SERVICE_NAME": "mine",
            "FORGE_OTEL_SHUTDOWN_TIMEOUT": str(PATIENCE),
        },
    )
    telemetry = json.loads(process.stdout)["telemetry"]
    records = {file["signal"]: file["records"] for file in telemetry["files"]}
    spans = [ExportTraceServiceRequest.FromString(body) for body in collector.bodies["/v1/traces"]]
    logs = [ExportLogsServiceRequest.FromString(body) for body in collector.bodies["/v1/logs"]]
    metrics = [ExportMetricsServiceRequest.FromString(body) for body in collector.bodies["/v1/metrics"]]
    assert records["traces"] == sum(
        len(scope.spans) for one in spans for resource in one.resource_spans for scope in resource.scope_spans
    )
    assert records["logs"] == sum(
        len(scope.log_records) for one in logs for resource in one.resource_logs for scope in resource.scope_logs
    )
    services = {
        attribute.value.string_value
        for one in metrics
        for resource in one.resource_metrics
        for attribute in resource.resource.attributes
        if attribute.key == "service.name"
    }
    assert services == {"mine"}
    assert telemetry["endpoint"] == collector.endpoint
    assert telemetry["flushed"] is True


@pytest.mark.slow
def test_an_endpoint_that_does_not_answer_is_told(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    process = subprocess.run(
        [*COMMAND, "demo", "--json", "--input", folder, "--out", tmp_path / "out", "--otlp", endpoint],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
        env={**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600", "FORGE_OTEL_SHUTDOWN_TIMEOUT": "3"},
    )
    telemetry = json.loads(process.stdout)["telemetry"]
    assert telemetry["flushed"] is False
    # The files have everything.
    assert sorted(text.rpartition(" to ")[2] for text in telemetry["undelivered"]) == [
        f"{endpoint}/v1/{signal}" for signal in ("logs", "metrics", "traces")
    ]
    assert process.stderr == ""
    assert "Transient error" in (tmp_path / "out" / "demo.log").read_text()


RESUME = "the same command continues where this one stopped"


@pytest.mark.slow
def test_sigterm_gives_the_terminal_its_cursor_back(tmp_path: Path) -> None:
    ours, terminal = pty.openpty()
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "demo", "--json", "--out", out], stdout=subprocess.PIPE, stderr=terminal, text=True
    )
    os.close(terminal)
    written = b""

    def read() -> None:
        nonlocal written
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 65536):
                written += part

    reader = threading.Thread(target=read)
    reader.start()
    pause = threading.Event()
    while not _rows(out / "corpus.db") or b"\x1b[?25l" not in written:
        assert process.poll() is None
        pause.wait(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    reader.join()
    os.close(ours)
    assert (process.returncode, output) == (-signal.SIGTERM, "")
    text = written.decode()
    assert text.count("\x1b[?25h") == text.count("\x1b[?25l") == 1
    assert text.endswith(f"forge-otel demo: terminated; {RESUME}\r\n")


def test_ctrl_c_outside_of_a_run_is_one_line(tmp_path: Path) -> None:
    program = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from forge_otel.commands import semconv
def interrupted(**_):
    signal.raise_signal(signal.SIGINT)
semconv.check_registry.callback = interrupted
from forge_otel.commands.cli import main
sys.exit(main(["semconv", "check", {str(tmp_path)!r}]))
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (130, "")
    assert process.stderr == "forge-otel semconv check: interrupted; run it again to start over\n"
