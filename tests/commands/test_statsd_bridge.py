"""`forge-otel statsd-bridge`, as a process: OTLP over HTTP in, StatsD out."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from prometheus_client.parser import text_string_to_metric_families

from tests.support.otlp import counter, histogram, measured, request
from tests.support.ports import free_port
from tests.support.runs import PATIENCE, wait
from tests.support.statsd import Listener

PROTOBUF = {"Content-Type": "application/x-protobuf"}
GZIPPED = {**PROTOBUF, "Content-Encoding": "gzip"}
JSON = {"Content-Type": "application/json"}
ONE = request(counter("done", (1, {"of": "a"}))).SerializeToString()


@dataclass
class Bridge:
    """A bridge that runs."""

    process: subprocess.Popen[str]
    url: str
    client: httpx.Client

    def post(self, body: bytes, headers: Mapping[str, str] = PROTOBUF) -> httpx.Response:
        return self.client.post(f"{self.url}/v1/metrics", content=body, headers=dict(headers))

    def own(self) -> dict[str, float]:
        """Its own metrics; those of requests by their code."""
        families = text_string_to_metric_families(self.client.get(f"{self.url}/metrics").text)
        return {
            sample.labels.get("code") or sample.name: sample.value for family in families for sample in family.samples
        }

    def stop(self) -> tuple[int, str]:
        """Its exit code, and what it wrote to standard error."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


@contextlib.contextmanager
def running_bridge(*options: str, **environ: str) -> Iterator[Bridge]:
    process = start(*options, **environ)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
            yield Bridge(process, line.split("/v1/metrics")[0], client)
    finally:
        process.kill()
        process.communicate()


def start(*options: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "forge_otel.commands.cli", "statsd-bridge", *(options or ("--port", "0"))],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def statsd() -> Iterator[Listener]:
    with Listener("udp") as listener:
        yield listener


@pytest.fixture(scope="module")
def bridge(statsd: Listener) -> Iterator[Bridge]:
    with running_bridge("--port", "0", "--max-body", "100000", STATSD_PORT=str(statsd.port)) as bridge:
        yield bridge


def response(answer: httpx.Response) -> ExportMetricsServiceResponse:
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    return ExportMetricsServiceResponse.FromString(answer.content)


def message(answer: httpx.Response) -> str:
    """What an answer says that is not 200."""
    is_json = answer.headers["Content-Type"].startswith("application/json")
    said: str = answer.json()["message"] if is_json else Status.FromString(answer.content).message
    return said


def test_protobuf(bridge: Bridge, statsd: Listener) -> None:
    answer = bridge.post(ONE)
    assert (answer.status_code, response(answer)) == (200, ExportMetricsServiceResponse())
    assert statsd.packet() == b"done:1|c|#of:a"


def test_json_with_exemplars_and_fields_of_tomorrow(bridge: Bridge, statsd: Listener) -> None:
    sent = json_format.MessageToDict(request(histogram("latency", measured([0.5], [1.0]), unit="s")))
    [point] = sent["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["histogram"]["dataPoints"]
    point["exemplars"] = [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b17", "asDouble": 1}]
    point["tomorrow"] = {"a": [1]}

    answer = bridge.post(json.dumps(sent).encode(), JSON)

    assert (answer.status_code, answer.json()) == (200, {})
    assert statsd.packet() == b"latency:500|h"


@pytest.mark.slow
def test_the_tags_of_senders_and_of_the_bridge() -> None:
    """Its variables describe the bridge, so a sender's resource wins."""
    variables = {"DD_SERVICE": "bridge", "DD_ENTITY_ID": "pod-1", "FORGE_OTEL_STATSD_TAGS": "team:ml,env:prod"}
    with Listener("udp") as statsd, running_bridge(STATSD_PORT=str(statsd.port), **variables) as bridge:

        def sent(resource: dict[str, str]) -> bytes:
            bridge.post(request(counter("done", (1, {})), resource=resource).SerializeToString())
            return statsd.packet()

        constant = b"done:1|c|#team:ml,env:%s,service:%s,dd.internal.entity_id:pod-1"
        assert sent({"service.name": "a", "deployment.environment.name": "test"}) == constant % (b"test", b"a")
        assert sent({"service.name": "b"}) == constant % (b"prod", b"b")
        assert sent({"service.name": "unknown_service"}) == constant % (b"prod", b"bridge")


@pytest.mark.slow
def test_names_by_a_template() -> None:
    variables = {"FORGE_OTEL_STATSD_FLAVOR": "statsd", "FORGE_OTEL_STATSD_NAME_TEMPLATE": "{service}.{name}.{tags}"}
    metric = counter("forge.sample.settled", (2, {"forge.pipeline.name": "p", "forge.sample.outcome": "ready"}))
    with Listener("udp") as statsd, running_bridge(STATSD_PORT=str(statsd.port), **variables) as bridge:
        bridge.post(request(metric, resource={"service.name": "a"}).SerializeToString())
        assert statsd.packet() == b"a.forge.sample.settled.p.ready:2|c"


def test_gzip(bridge: Bridge, statsd: Listener) -> None:
    assert bridge.post(gzip.compress(ONE, mtime=0), GZIPPED).status_code == 200
    assert statsd.packet() == b"done:1|c|#of:a"


def test_nothing_to_send(bridge: Bridge) -> None:
    assert bridge.post(b"").status_code == 200
    assert bridge.post(b"{}", JSON).status_code == 200


def test_points_that_are_refused(bridge: Bridge, statsd: Listener) -> None:
    points = [(1, {"of": "a"}), (2, {"of": "b"})]
    sent = request(counter("total", *points, cumulative=True), counter("done", (1, {})))

    partial = response(bridge.post(sent.SerializeToString())).partial_success
    assert (partial.rejected_data_points, partial.error_message) == (2, "total: cumulative; send deltas (2)")
    assert statsd.packet() == b"done:1|c"

    answer = bridge.post(json_format.MessageToJson(sent).encode(), JSON).json()
    assert answer["partialSuccess"]["rejectedDataPoints"] == "2"
    assert statsd.packet() == b"done:1|c"


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"\xff\xff", PROTOBUF, 400, "the body is not an ExportMetricsServiceRequest: "),
        (b"{", JSON, 400, "the body is not an ExportMetricsServiceRequest in JSON: "),
        (b"[]", JSON, 400, "it is not an object"),
        (b'{"resourceMetrics": 1}', JSON, 400, "the body is not an ExportMetricsServiceRequest in JSON: "),
        (b"\xff", JSON, 400, "the body is not an ExportMetricsServiceRequest in JSON: "),
        (b"[" * 50_000, JSON, 400, "the body is not an ExportMetricsServiceRequest in JSON: "),
        (ONE, GZIPPED, 400, "the body is not valid gzip: "),
        (gzip.compress(ONE, mtime=0)[:-4], GZIPPED, 400, "the body is not valid gzip: "),
        (b"x" * 100_001, PROTOBUF, 413, "the body has more than 100000 bytes; send smaller batches"),
        (gzip.compress(b"x" * 100_001, mtime=0), GZIPPED, 413, "more than 100000 bytes"),
        (ONE, {"Content-Type": "text/plain"}, 415, "Content-Type text/plain: supported are application/x-protobuf and"),
        (ONE, {**PROTOBUF, "Content-Encoding": "zstd"}, 415, "Content-Encoding zstd: supported are gzip and identity"),
    ],
)
def test_what_is_not_taken(bridge: Bridge, body: bytes, headers: dict[str, str], status: int, says: str) -> None:
    answer = bridge.post(body, headers)
    assert answer.status_code == status
    assert says in message(answer)


def test_other_paths_and_methods(bridge: Bridge) -> None:
    assert bridge.client.get(f"{bridge.url}/v1/metrics").status_code == 405
    assert bridge.client.post(f"{bridge.url}/v1/traces").status_code == 404


KEYS = [
    *("resourceMetrics", "resource", "scopeMetrics", "metrics", "name", "unit", "sum", "gauge", "histogram"),
    *("dataPoints", "asInt", "asDouble", "attributes", "key", "value", "count", "bucketCounts", "explicitBounds"),
]
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.one_of(st.binary(max_size=60), JSON_VALUES.map(lambda value: json.dumps(value).encode())))
def test_no_body_makes_it_fail(bridge: Bridge, body: bytes) -> None:
    for headers in (JSON, PROTOBUF):
        assert bridge.post(body, headers).status_code in (200, 400)


@pytest.mark.slow
def test_more_requests_at_once_than_allowed() -> None:
    """Those that have begun and not sent all of their body count, too."""
    with (
        Listener("udp") as statsd,
        running_bridge("--port", "0", "--max-requests", "2", STATSD_PORT=str(statsd.port)) as bridge,
    ):
        slow = [http.client.HTTPConnection(bridge.url.removeprefix("http://"), timeout=PATIENCE) for _ in range(2)]
        for connection in slow:
            connection.putrequest("POST", "/v1/metrics")
            connection.putheader("Content-Type", "application/x-protobuf")
            connection.putheader("Content-Length", str(len(ONE)))
            connection.putheader("Expect", "100-continue")
            connection.endheaders()
            assert connection.sock is not None
            assert connection.sock.recv(100).startswith(b"HTTP/1.1 100")  # it is being handled

        answer = bridge.post(ONE)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert message(answer) == "more than 2 concurrent requests"
        assert bridge.client.get(f"{bridge.url}/health").text == "ok\n"

        for connection in slow:
            connection.send(ONE)
            assert connection.getresponse().status == 200
            connection.close()
        assert bridge.post(ONE).status_code == 200
        assert {statsd.packet() for _ in range(3)} == {b"done:1|c|#of:a"}


def connected(bridge: Bridge) -> socket.socket:
    host, port = bridge.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def read_answer(connection: socket.socket) -> None:
    answer = b""
    while not answer.endswith(b"ok\n"):
        more = connection.recv(1000)
        assert more, answer
        answer += more


def unfinished(bridge: Bridge, *before: bytes) -> socket.socket:
    """A connection with the beginning of a header."""
    connection = connected(bridge)
    for each in before:
        connection.sendall(each)
        read_answer(connection)
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    return connection


@pytest.mark.slow
def test_more_connections_than_allowed() -> None:
    with running_bridge("--port", "0", "--max-connections", "3") as bridge:
        assert bridge.client.get(f"{bridge.url}/health").text == "ok\n"  # the first one; it is kept
        slow = [unfinished(bridge), unfinished(bridge)]
        with connected(bridge) as refused:
            assert refused.recv(1) == b""
        assert bridge.own()["forge_statsd_bridge_refused_connections_total"] == 1
        for connection in slow:
            connection.sendall(b"\r\n\r\n")
            read_answer(connection)
            connection.close()


@pytest.mark.slow
def test_a_header_that_is_not_complete_in_time() -> None:
    """Also that of a second request, and where bytes go on coming."""
    with running_bridge("--port", "0") as bridge:
        slow = [unfinished(bridge), unfinished(bridge, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")]
        slow[0].settimeout(0.5)
        while True:
            try:
                assert slow[0].recv(1) == b""
                break
            except TimeoutError:
                slow[0].sendall(b"x")
            except ConnectionError:
                break
        with contextlib.suppress(ConnectionResetError):
            assert slow[1].recv(1) == b""
        for connection in slow:
            connection.close()
        assert bridge.client.get(f"{bridge.url}/health").text == "ok\n"


@pytest.mark.slow
def test_a_daemon_that_is_down_and_comes_back() -> None:
    port = free_port()
    with running_bridge(STATSD_PORT=str(port), FORGE_OTEL_STATSD_PROTOCOL="tcp") as bridge:
        answer = bridge.post(ONE)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert message(answer) == "StatsD cannot be reached"
        assert bridge.client.get(f"{bridge.url}/health").status_code == 200

        with Listener("tcp", port=port) as statsd:
            assert bridge.post(ONE).status_code == 200
            assert statsd.packet() == b"done:1|c|#of:a"
            code, said = bridge.stop()
    assert code == 0
    assert said == f"StatsD at tcp://127.0.0.1:{port}: Connection refused; packets lost so far: 1\n"


@pytest.mark.slow
def test_its_own_metrics() -> None:
    with Listener("udp") as statsd, running_bridge(STATSD_PORT=str(statsd.port)) as bridge:
        bridge.post(ONE)
        bridge.post(b"\xff")
        bridge.post(request(counter("total", (1, {}), (2, {}), cumulative=True)).SerializeToString())
        assert bridge.own() == {
            "200": 2,
            "400": 1,
            "forge_statsd_bridge_refused_points_total": 2,
            "forge_statsd_bridge_refused_connections_total": 0,
            "forge_statsd_bridge_packets_sent_total": 1,
            "forge_statsd_bridge_packets_lost_total": 0,
        }


@pytest.mark.slow
def test_many_clients_at_once_and_every_count_arrives() -> None:
    with Listener("udp") as statsd, running_bridge(STATSD_PORT=str(statsd.port)) as bridge:
        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(lambda _: bridge.post(ONE).status_code, range(64)))
        assert codes == [200] * 64
        assert [statsd.packet() for _ in range(64)] == [b"done:1|c|#of:a"] * 64


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_what_was_answered_has_been_sent(number: signal.Signals) -> None:
    with Listener("udp") as statsd, running_bridge(STATSD_PORT=str(statsd.port)) as bridge:
        answered = Counter[int]()
        received: list[bytes] = []
        enough = threading.Event()

        def receive() -> None:
            while packet := statsd.packet():
                received.append(packet)
                if len(received) == 20:
                    enough.set()

        def post_until_the_end() -> None:
            with httpx.Client(timeout=PATIENCE, trust_env=False) as client, contextlib.suppress(httpx.TransportError):
                while True:
                    answer = client.post(f"{bridge.url}/v1/metrics", content=ONE, headers=PROTOBUF)
                    answered[answer.status_code] += 1

        with ThreadPoolExecutor(5) as pool:
            ends = [pool.submit(receive), *(pool.submit(post_until_the_end) for _ in range(4))]
            wait(enough)
            bridge.process.send_signal(number)
            _, said = bridge.process.communicate(timeout=PATIENCE)
            statsd.end()
        assert [end.result() for end in ends] == [None] * 5
    assert (bridge.process.returncode, said) == (0, "")
    assert answered == {200: len(received)}


def refusal(*options: str, **environ: str) -> str:
    process = start(*options, **environ)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    return said


@pytest.mark.slow
def test_wrong_settings_end_it() -> None:
    assert refusal(STATSD_PORT="none", FORGE_OTEL_STATSD_FLAVOR="x") == (
        "forge-otel statsd-bridge: STATSD_PORT='none': it must be a whole number from 1 to 65535; "
        "FORGE_OTEL_STATSD_FLAVOR='x': it must be one of dogstatsd, statsd\n"
    )
    assert refusal(FORGE_OTEL_STATSD_TAGS="stage:prod") == (
        "forge-otel statsd-bridge: FORGE_OTEL_STATSD_TAGS='stage:prod': it must be tags such as team:ml,region:eu; "
        "'stage:prod' would replace a tag that the metrics have\n"
    )
    assert "'0' is not a whole number from 1 to 1000000000" in refusal("--max-requests", "0")


@pytest.mark.slow
def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("--port", str(port))
    assert said == (
        f"forge-otel statsd-bridge: --host 127.0.0.1 --port {port}: cannot be opened: Address already in use\n"
    )


@pytest.mark.slow
def test_a_host_that_nobody_knows() -> None:
    said = refusal("--host", "nowhere.invalid", "--port", "0")
    assert said.startswith("forge-otel statsd-bridge: --host nowhere.invalid --port 0: cannot be opened: ")
    assert "Unknown error" not in said


@pytest.mark.slow
def test_a_missing_extra() -> None:
    program = "import sys; sys.modules['aiohttp'] = None; from forge_otel.commands.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "statsd-bridge"], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert done.stderr == (
        "forge-otel statsd-bridge: aiohttp is not installed: pip install 'forge-otel[statsd-bridge]'\n"
    )
