"""`local.yaml`: what arrives in its files and at its endpoint is what the pipeline's database says."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from forge import ExitCode
from forge_otel.checker import prometheus_names
from tests.support.needs import need_installed
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tools.generate import collector as own

from .calls import CALLS, calls_in, post_calls
from .pipelines import Database, demo_input, finish, start, start_demo, start_worker
from .programs import text
from .services import by_label, records

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Stack


def test_a_run_arrives_whole(stack: Stack, tmp_path: Path) -> None:
    collector = stack.collector().run()

    demo = start_demo(tmp_path / "out", collector.otlp, "--input", str(demo_input(tmp_path / "in")))
    document = json.loads(finish(demo, ExitCode.SAMPLES_FAILED))

    assert document["telemetry"]["failed_exports"] == 0
    database = Database(tmp_path / "out" / "corpus.db")
    scraped = text(f"http://{collector.scraped}/metrics")
    assert {"ready", "split", "skipped", "dlq"} == set(database.statuses())
    assert by_label(scraped, "forge_sample_settled_total", "forge_sample_outcome") == {
        (status,): count for status, count in database.statuses().items()
    }
    assert by_label(scraped, "forge_measurement_computations_total", "forge_measurement_key") == {
        (key,): count for key, count in database.measured().items()
    }
    assert by_label(scraped, "forge_dlq_enqueued_total", "forge_stage_name", "error_type") == {
        tuple(where.split(": ")): count for where, count in database.dead_letters().items()
    }
    assert (
        by_label(scraped, "forge_stage_executions_total", "forge_stage_name", "forge_stage_outcome")
        == database.executions()
    )
    sent = tmp_path / "out" / "telemetry"
    assert {span["spanId"] for span in collector.spans()} == {span["spanId"] for span in records(sent, "traces")}
    assert len(collector.spans()) == document["telemetry"]["files"][0]["records"]
    assert len(collector.logs()) == document["telemetry"]["files"][2]["records"]
    assert collector.counter("otelcol_receiver_accepted_spans_total") == len(collector.spans())


def test_what_the_doctor_sends_arrives(stack: Stack) -> None:
    need_installed("forge-otel", "opentelemetry-distro")
    collector = stack.collector().run()

    variables = {
        "OTEL_SERVICE_NAME": "corpus",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    *_, last, summary = finish(start(["-m", "forge_otel.commands.cli", "doctor", "--send"], **variables)).splitlines()

    sent = "traces, metrics, logs of a run of the pipeline forge-otel-doctor with 2 samples"
    assert last == f"ok       sent      {sent}"
    assert summary == "no errors, no warnings"
    names = Counter(span["name"] for span in collector.spans())
    assert names == {"forge.pipeline forge-otel-doctor": 1, "forge.sample": 2, "forge.stage echo": 2}
    settled = by_label(
        text(f"http://{collector.scraped}/metrics"), "forge_sample_settled_total", "forge_sample_outcome"
    )
    assert settled[("ready",)] == 2
    assert "forge.pipeline.summary" in [record["eventName"] for record in collector.logs()]


def test_what_the_doctor_says_of_the_other_protocol_at_a_port(stack: Stack) -> None:
    need_installed("forge-otel", "opentelemetry-distro")
    collector = stack.collector().run()

    variables = {
        "OTEL_SERVICE_NAME": "corpus",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.otlp,
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://{collector.grpc}/v1/metrics",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://{collector.grpc}",
        "FORGE_OTEL_SHUTDOWN_TIMEOUT": "20",  # what does not arrive is waited for as long
    }
    doctor = start(["-m", "forge_otel.commands.cli", "doctor", "--send", "--json"], **variables)
    findings = json.loads(finish(doctor, 1))

    sent = [(finding["message"], finding["remedy"]) for finding in findings if finding["problem"] == "send-error"]
    speaks_grpc = "the server may speak gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or use HTTP's port"
    speaks_http = "the server may speak HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or use gRPC's port"
    hangs_up = "the server hangs up: it may expect another protocol (OTEL_EXPORTER_OTLP_PROTOCOL), or https://"
    # What a client sees of a server that hangs up depends on who is first.
    assert {remedy for _, remedy in sent} - {hangs_up} <= {speaks_grpc, speaks_http}
    assert len(sent) == 2
    assert all(collector.grpc in message or f":{collector.http_port}" in message for message, _ in sent)
    missing = [finding["message"] for finding in findings if finding["problem"] == "not-delivered"]
    assert [message.partition(" to ")[2] for message in missing] == [
        f"127.0.0.1:{collector.http_port}",
        f"http://{collector.grpc}/v1/metrics",
    ]


def test_log_records_also_go_to_standard_output(stack: Stack, tmp_path: Path) -> None:
    collector = stack.collector().run()

    demo = start_demo(tmp_path / "out", collector.otlp, "--input", str(demo_input(tmp_path / "in")))
    finish(demo, ExitCode.SAMPLES_FAILED)

    written = collector.log.read_text()
    for record in collector.logs():
        assert record["body"]["stringValue"] in written


def test_only_calls_of_others_get_span_metrics(stack: Stack) -> None:
    soon: dict[str, Any] = {"connectors": {"span_metrics": {"metrics_flush_interval": "200ms"}}}
    collector = stack.collector(settings=soon).run()

    post_calls(collector)

    wait_until(lambda: len(calls_in(collector)) >= 3, "there are span metrics")
    assert calls_in(collector) == {("caller", scope): 1 for scope, _ in CALLS[:3]}


def test_its_own_metrics_have_the_names_that_dashboards_read(stack: Stack, tmp_path: Path) -> None:
    variables = {"JAEGER_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTELCOL_QUEUE_BYTES": "65536"}
    collector = stack.collector("jaeger", variables=variables).run()
    server = stack.prometheus(otelcol=collector.own).run()
    finish(start_worker(collector.otlp, tmp_path / "db", {"good": 300}, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="32"))

    # A counter of what went wrong is there when something did: here a queue is too small for the spans.
    wrong = {each.name for each in (*own.SEND_FAILED, *own.ENQUEUE_FAILED) if "spans" not in each.name}
    wrong.add("otelcol_exporter_send_failed_spans")
    expected = {prometheus_names.name(each) for each in own.ALL if each.name not in wrong}

    def stored() -> set[str]:
        return {name for (name,) in server.query('count by (__name__) ({job="otelcol"})', "__name__")}

    wait_until(lambda: expected <= stored(), "Prometheus has them all")
