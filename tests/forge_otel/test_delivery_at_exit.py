"""Delivery at the end of runs and processes, with endpoints that are well, slow, hanging or gone: real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forge import SQLStorage
from tests.support.collector import PATIENCE, Collector, running_collector
from tests.support.needs import need_installed
from tests.support.ports import free_port

pytestmark = pytest.mark.slow

PREAMBLE = """
import itertools, os, signal, sys, threading
from forge import BatchRunner, Pipeline, Sample, SQLStorage, StreamingRunner, stage

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

@stage
def upper(sample):
    return sample.with_data(sample.data.upper())

@stage
def waits(sample):
    if sample.data == 20:
        say("started")
    if sample.data >= 20:
        threading.Event().wait()
    return sample

def words(name="words"):
    return Pipeline(name=name, source=[Sample(data=x, id=x) for x in "abc"], stages=[upper])

def endless():
    return Pipeline(name="endless", source=itertools.count, stages=[waits], storage=SQLStorage("sqlite:///forge.db"))
"""
RUN = "BatchRunner().run(words()).drain()\n"
SPANS = ["forge.pipeline words", *["forge.sample"] * 3, *["forge.stage upper"] * 3]
READY = "pipeline.name=words, sample.outcome=ready"


@contextmanager
def instrumented(folder: Path, script: str, endpoint: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Start a script under `opentelemetry-instrument`, whose exporters would try for an hour."""
    need_installed("forge-otel", "opentelemetry-distro")
    file = folder / "script.py"
    file.write_text(PREAMBLE + script, encoding="utf-8")
    command = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
    assert command is not None
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("OTEL_", "FORGE_OTEL_"))}
    settings = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        "OTEL_BLRP_SCHEDULE_DELAY": "3600000",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "logging",
        "FORGE_OTEL_ZERO_POINTS": "false",
        "FORGE_OTEL_SHUTDOWN_TIMEOUT": str(PATIENCE),
    }
    with subprocess.Popen(
        [command, sys.executable, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**inherited, **settings, **environ},
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def ended(started: subprocess.Popen[str]) -> tuple[int, str, list[str]]:
    """Wait for the end; returns the exit code, the output, and our lines on stderr."""
    output, errors = started.communicate(timeout=2 * PATIENCE)
    return started.returncode, output, sorted(line for line in errors.splitlines() if "forge-otel" in line)


def line(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().rstrip("\n")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


def assert_undelivered(lines: list[str], address: str, *, spans: int, logs: int) -> None:
    events, traces, metrics = lines
    assert traces == f"forge-otel: not delivered: {spans} spans to {address}/v1/traces"
    assert events == f"forge-otel: not delivered: {logs} log records to {address}/v1/logs"
    assert metrics.startswith("forge-otel: not delivered: the metrics since ")
    assert metrics.endswith(f" to {address}/v1/metrics")


def test_endpoint_that_hangs(collector: Collector, tmp_path: Path) -> None:
    collector.gate.clear()
    with instrumented(tmp_path, RUN, collector.url, FORGE_OTEL_SHUTDOWN_TIMEOUT="0.5") as started:
        returncode, _, lines = ended(started)
    assert returncode == 0
    assert_undelivered(lines, collector.url, spans=7, logs=4)


def test_closed_port(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with instrumented(tmp_path, RUN, address, FORGE_OTEL_SHUTDOWN_TIMEOUT="0.5") as started:
        returncode, _, lines = ended(started)
    assert returncode == 0
    assert_undelivered(lines, address, spans=7, logs=4)


def test_address_that_drops_everything(tmp_path: Path) -> None:
    # Nobody accepts, and the kernel's queue of connections is full: as behind a firewall.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with instrumented(tmp_path, RUN, address, FORGE_OTEL_SHUTDOWN_TIMEOUT="0.5") as started:
            returncode, _, lines = ended(started)
    assert returncode == 0
    assert_undelivered(lines, address, spans=7, logs=4)


def test_closed_port_of_grpc(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with instrumented(
        tmp_path,
        RUN,
        f"http://{address}",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        FORGE_OTEL_SHUTDOWN_TIMEOUT="0.5",
    ) as started:
        returncode, _, lines = ended(started)
    assert returncode == 0
    assert [text.rpartition(" ")[2] for text in lines] == [address] * 3
    assert f"forge-otel: not delivered: 7 spans to {address}" in lines


def test_slow_collector_gets_everything(collector: Collector, tmp_path: Path) -> None:
    # The signals are flushed at the same time: one after the other, each would wait for the answer to the first.
    collector.answer_when_received("traces", "metrics", "logs")
    with instrumented(tmp_path, RUN, collector.url) as started:
        assert ended(started) == (0, "", [])
    assert collector.names == SPANS
    assert collector.metrics["forge.sample.settled"][READY] == 3
    assert "forge.pipeline.summary" in collector.events


def test_one_dead_endpoint_takes_nothing_from_the_others(collector: Collector, tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}/v1/traces"
    with instrumented(
        tmp_path,
        RUN,
        collector.url,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=dead,
        FORGE_OTEL_SHUTDOWN_TIMEOUT="15",  # the dead one takes all of it; the others must be done by then
    ) as started:
        assert ended(started) == (0, "", [f"forge-otel: not delivered: 7 spans to {dead}"])
    assert collector.metrics["forge.sample.settled"][READY] == 3
    assert "forge.pipeline.summary" in collector.events


def test_run_is_delivered_when_it_has_ended(collector: Collector, tmp_path: Path) -> None:
    with instrumented(tmp_path, RUN + "os._exit(0)", collector.url) as started:
        assert ended(started) == (0, "", [])
    assert collector.names == SPANS
    assert collector.metrics["forge.sample.settled"][READY] == 3
    assert "forge.pipeline.summary" in collector.events


def test_run_shuts_nothing_down(collector: Collector, tmp_path: Path) -> None:
    script = """
from opentelemetry import trace
BatchRunner().run(words()).drain()
BatchRunner().run(words("again")).drain()
trace.get_tracer("own").start_span("own").end()
"""
    with instrumented(tmp_path, script, collector.url) as started:
        assert ended(started) == (0, "", [])
    assert collector.names == sorted([*SPANS, "forge.pipeline again", *SPANS[1:], "own"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_delivers_the_whole_run(number: signal.Signals, collector: Collector, tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGHUP, signal.SIG_DFL)\nStreamingRunner().run(endless()).drain()"
    with instrumented(tmp_path, script, collector.url) as started:
        assert line(started) == "started"
        started.send_signal(number)
        assert ended(started) == (-number, "", [])
    assert collector.names.count("forge.pipeline endless") == 1
    ids = {span.span_id for span in collector.spans}
    assert all(span.parent_span_id in ids for span in collector.spans if span.name != "forge.pipeline endless")
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    [run] = storage.runs("endless")
    storage.close()
    assert run.record is not None
    counts = run.record["ledger"]
    settled = collector.metrics["forge.sample.settled"]
    for outcome in ("ready", "failed"):  # the signal may come before the first sample is stored
        assert settled.get(f"pipeline.name=endless, sample.outcome={outcome}", 0) == counts[outcome]
    assert collector.metrics["forge.sample.admitted"]["pipeline.name=endless"] == counts["admitted"]
    [outcome] = {key for key, value in collector.metrics["forge.pipeline.completed"].items() if value}
    assert "run.outcome=cancelled" in outcome
    assert "forge.pipeline.summary" in collector.events


def test_signal_and_an_endpoint_that_hangs(collector: Collector, tmp_path: Path) -> None:
    collector.gate.clear()
    script = "StreamingRunner(shutdown_timeout=3).run(endless()).drain()"
    with instrumented(tmp_path, script, collector.url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        returncode, _, lines = ended(started)
    assert returncode == -signal.SIGTERM
    assert {text.rpartition(" ")[2] for text in lines} == {
        f"{collector.url}/v1/{name}" for name in ("logs", "metrics", "traces")
    }


def test_handler_of_the_application(collector: Collector, tmp_path: Path) -> None:
    script = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
StreamingRunner().run(endless()).drain()
"""
    with instrumented(tmp_path, script, collector.url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGTERM)
        assert ended(started) == (3, "", [])
    assert collector.names.count("forge.pipeline endless") == 1


def test_ctrl_c(collector: Collector, tmp_path: Path) -> None:
    script = """
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    StreamingRunner().run(endless()).drain()
except KeyboardInterrupt:
    os._exit(130)
"""
    with instrumented(tmp_path, script, collector.url) as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGINT)
        assert ended(started) == (130, "", [])
    assert collector.names.count("forge.pipeline endless") == 1
    assert "forge.pipeline.summary" in collector.events


def test_second_ctrl_c_waits_for_nothing(collector: Collector, tmp_path: Path) -> None:
    collector.gate.clear()
    script = """
signal.signal(signal.SIGINT, signal.default_int_handler)
StreamingRunner().run(endless()).drain()
"""
    with instrumented(tmp_path, script, collector.url, FORGE_OTEL_SHUTDOWN_TIMEOUT="3600") as started:
        assert line(started) == "started"
        started.send_signal(signal.SIGINT)
        collector.wait_for_span("forge.pipeline endless")
        started.send_signal(signal.SIGINT)
        returncode, _, lines = ended(started)
    assert returncode == -signal.SIGINT
    assert {text.rpartition(" ")[2] for text in lines} == {
        f"{collector.url}/v1/{name}" for name in ("logs", "metrics", "traces")
    }


def test_exit_handlers_of_the_user_that_run_before(collector: Collector, tmp_path: Path) -> None:
    script = """
import atexit
from opentelemetry import trace
BatchRunner().run(words()).drain()
atexit.register(lambda: trace.get_tracer("own").start_span("own").end())
"""
    with instrumented(tmp_path, script, collector.url) as started:
        assert ended(started) == (0, "", [])
    assert collector.names == sorted([*SPANS, "own"])


PROVIDER = """
import atexit
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from forge_otel import ForgeInstrumentor
provider = TracerProvider(shutdown_on_exit={shutdown})
provider.add_span_processor({processor}(OTLPSpanExporter(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces")))
ForgeInstrumentor().uninstrument()
ForgeInstrumentor().instrument(tracer_provider=provider)
"""
NO_GLOBAL = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}


def test_provider_that_the_user_shuts_down_is_left_to_them(collector: Collector, tmp_path: Path) -> None:
    script = (
        PROVIDER.format(shutdown=False, processor="BatchSpanProcessor")
        + """
def shut_down():
    provider.get_tracer("own").start_span("own").end()
    provider.shutdown()
atexit.register(shut_down)
BatchRunner().run(words()).drain()
"""
    )
    with instrumented(tmp_path, script, collector.url, **NO_GLOBAL) as started:
        assert ended(started) == (0, "", [])
    assert collector.names == sorted([*SPANS, "own"])


def test_provider_that_exports_every_span_at_once(collector: Collector, tmp_path: Path) -> None:
    with instrumented(
        tmp_path,
        PROVIDER.format(shutdown=True, processor="SimpleSpanProcessor") + RUN,
        collector.url,
        **NO_GLOBAL,
    ) as started:
        assert ended(started) == (0, "", [])
    assert collector.names == SPANS


def test_provider_that_was_replaced_is_delivered_in_bounded_time(collector: Collector, tmp_path: Path) -> None:
    collector.gate.clear()
    script = (
        PROVIDER.format(shutdown=True, processor="BatchSpanProcessor")
        + RUN
        + """
ForgeInstrumentor().instrument(tracer_provider=TracerProvider())
BatchRunner().run(words("again")).drain()
"""
    )
    with instrumented(tmp_path, script, collector.url, FORGE_OTEL_SHUTDOWN_TIMEOUT="0.5", **NO_GLOBAL) as started:
        assert ended(started) == (0, "", [f"forge-otel: not delivered: 7 spans to {collector.url}/v1/traces"])


def test_telemetry_that_was_switched_off_leaves_the_exit_to_the_sdk(collector: Collector, tmp_path: Path) -> None:
    script = (
        RUN
        + """
from opentelemetry import trace
from forge_otel import ForgeInstrumentor
ForgeInstrumentor().uninstrument()
trace.get_tracer("own").start_span("own").end()
"""
    )
    with instrumented(tmp_path, script, collector.url) as started:
        assert ended(started) == (0, "", [])
    assert collector.names == sorted([*SPANS, "own"])


def test_forked_process_leaves_the_exit_to_the_sdk(collector: Collector, tmp_path: Path) -> None:
    script = (
        RUN
        + """
from opentelemetry import trace
child = os.fork()
if child == 0:
    trace.get_tracer("own").start_span("child's").end()
    sys.exit()
say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    with instrumented(tmp_path, script, collector.url) as started:
        assert ended(started) == (0, "0\n", [])
    assert collector.names == sorted([*SPANS, "child's"])


ENDS = {
    "SIGKILL": ("StreamingRunner().run(endless()).drain()", -signal.SIGKILL),
    "os._exit": (
        """
threading.Thread(target=lambda: (sys.stdin.readline(), os._exit(7)), daemon=True).start()
StreamingRunner().run(endless()).drain()
""",
        7,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_end_without_notice_loses_one_interval_at_most(end: str, collector: Collector, tmp_path: Path) -> None:
    script, code = ENDS[end]
    with instrumented(
        tmp_path, script, collector.url, OTEL_METRIC_EXPORT_INTERVAL="200", OTEL_BSP_SCHEDULE_DELAY="200"
    ) as started:
        assert line(started) == "started"
        # What had happened before an export of each signal is delivered.
        collector.wait_for("forge.sample.settled", "pipeline.name=endless, sample.outcome=ready", 20)
        collector.wait_for_span("forge.sample")
        if end == "SIGKILL":
            started.kill()
        else:
            started.communicate("\n", timeout=PATIENCE)
        returncode, _, lines = ended(started) if end == "SIGKILL" else (started.returncode, "", [])
    assert (returncode, lines) == (code, [])
    storage = SQLStorage(f"sqlite:///{tmp_path}/forge.db")
    assert storage.count("endless") == 20
    [run] = storage.runs("endless")
    storage.close()
    assert run.outcome is None
    # The run's span was open, and what says how it ended is missing.
    assert "forge.pipeline endless" not in collector.names
    assert "forge.pipeline.summary" not in collector.events


def test_providers_that_the_user_has_shut_down(collector: Collector, tmp_path: Path) -> None:
    script = (
        RUN
        + """
from opentelemetry import _logs, metrics, trace
for provider in (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()):
    provider.shutdown()
"""
    )
    with instrumented(tmp_path, script, collector.url) as started:
        output, errors = started.communicate(timeout=2 * PATIENCE)
    assert (started.returncode, output, errors) == (0, "", "")  # nothing of the SDK's, either
    assert collector.names == SPANS
