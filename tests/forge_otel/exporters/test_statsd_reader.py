"""The metric reader for StatsD, its settings, and its sockets."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from forge_otel.exporters._sockets import Sender
from forge_otel.exporters.statsd import StatsDMetricExporter, StatsDMetricReader, StatsDSettings
from tests.forge_otel.test_auto_instrumentation import SCRIPT, instrumented
from tests.support.needs import INSTALL, lacking
from tests.support.ports import free_port
from tests.support.runs import PATIENCE
from tests.support.statsd import Listener, read


class Telemetry:
    """A provider with the reader."""

    def __init__(self, **settings: Any) -> None:
        self.reader = StatsDMetricReader(**settings)
        resource = Resource({"service.instance.id": "i-1"})
        self.provider = MeterProvider([self.reader], resource, shutdown_on_exit=False)
        self.meter = self.provider.get_meter("test")

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(self, *_: object) -> None:
        self.provider.shutdown()


@pytest.fixture
def udp() -> Iterator[Listener]:
    with Listener("udp") as listener:
        yield listener


def test_counters_and_histograms_are_deltas_and_gauges_are_not(udp: Listener) -> None:
    with Telemetry(port=udp.port) as telemetry:
        counter = telemetry.meter.create_counter("done")
        active = telemetry.meter.create_up_down_counter("active")
        latency = telemetry.meter.create_histogram("latency", "s", explicit_bucket_boundaries_advisory=[0.1, 1.0])
        seen = iter((10, 20))
        telemetry.meter.create_observable_counter("seen", [lambda _: [Observation(next(seen))]])
        for total in (2, 4):
            counter.add(5, {"of": "a"})
            active.add(2)
            latency.record(0.25)
            telemetry.provider.force_flush()
            assert sorted(udp.packet().decode().split("\n")) == [
                f"active:{total}|g|#instance:i-1",
                "done:5|c|#of:a",
                "latency:250|h",
                "seen:10|c",
            ]


def test_shutdown_sends_what_is_left(udp: Listener) -> None:
    with Telemetry(port=udp.port) as telemetry:
        telemetry.meter.create_counter("done").add(1)
    assert udp.packet() == b"done:1|c"
    assert (telemetry.reader.packets_sent, telemetry.reader.packets_lost) == (1, 0)


def test_it_exports_every_ten_seconds_whatever_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "60000")
    with Telemetry() as telemetry:
        assert isinstance(telemetry.reader, PeriodicExportingMetricReader)
        assert telemetry.reader._export_interval_millis == 10_000


def test_it_exports_by_itself(udp: Listener) -> None:
    with Telemetry(port=udp.port, interval=0.05) as telemetry:
        telemetry.meter.create_counter("done").add(1)
        assert udp.packet() == b"done:1|c"


@pytest.mark.parametrize("kind", ["udp", "tcp", "unixgram", "unix"])
def test_every_kind_of_socket(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "statsd.sock" if kind.startswith("unix") else None
    with Listener(kind, path) as listener:
        settings = {"socket": str(path)} if path else {"protocol": kind, "port": listener.port}
        with Telemetry(**settings) as telemetry:
            counter = telemetry.meter.create_counter("done")
            for value in (1, 2):
                counter.add(value)
                telemetry.provider.force_flush()
                assert listener.packet() == b"done:%d|c" % value


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_daemon_that_hangs_up_loses_nothing_that_comes_later(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "statsd.sock" if kind == "unix" else None
    with Listener(kind, path) as listener:
        settings = StatsDSettings(socket=str(path)) if path else StatsDSettings(protocol="tcp", port=listener.port)
        sender = Sender(settings)
        for value in (b"a:1|c", b"a:2|c", b"a:3|c"):
            assert sender.send([value]) == 1
            assert listener.packet() == value
            listener.hang_up()
        sender.close()
        assert (sender.sent, sender.lost) == (3, 0)


def test_a_daemon_that_starts_again_at_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "statsd.sock"
    sender = Sender(StatsDSettings(socket=str(path)))
    for value in (b"a:1|c", b"a:2|c"):
        with Listener("unixgram", path) as listener:
            assert sender.send([value]) == 1
            assert listener.packet() == value
        path.unlink()
    sender.close()


@pytest.mark.parametrize(
    "settings", [{"protocol": "tcp"}, {"socket": "/nowhere/statsd.sock"}, {"host": "nowhere.invalid"}]
)
def test_a_daemon_that_is_down_costs_the_packets_and_one_warning(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    sender = Sender(StatsDSettings(port=free_port(), **settings), clock=lambda: now)

    assert sender.send([b"a:1|c", b"a:2|c"]) == 0
    assert sender.send([b"a:3|c"]) == 0
    assert sender.lost == 3
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("; packets lost so far: 2")

    now += 60
    assert sender.send([b"a:4|c"]) == 0
    assert [message.rsplit(" ", 1)[1] for message in caplog.messages] == ["2", "4"]


def test_a_daemon_that_is_down_by_udp(caplog: pytest.LogCaptureFixture) -> None:
    """The system says so with the packet that follows."""
    port = free_port()
    sender = Sender(StatsDSettings(port=port))
    sender.send([b"a:1|c", b"a:2|c", b"a:3|c"])
    with Listener("udp", port=port) as listener:
        assert sender.send([b"a:4|c"]) == 1
        assert listener.packet() == b"a:4|c"
    sender.close()
    assert (sender.sent, sender.lost) == (4, 3)
    assert "Connection refused" in caplog.messages[0]


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_host_that_moved_is_found_within_a_minute(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups: list[str | None] = []
    addresses: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        assert host == "statsd.example"
        lookups.append(addresses[0] if addresses else None)
        if not addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [found for address in addresses for found in real(address, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    now = 1000.0
    with Listener(kind) as old, Listener(kind, port=old.port, host="127.0.0.2") as new:
        sender = Sender(StatsDSettings(host="statsd.example", port=old.port, protocol=kind), clock=lambda: now)

        def packet_after(seconds: float, *found: str) -> bytes:
            nonlocal now
            now += seconds
            addresses[:] = found
            return b"now:%d|g" % now if sender.send([b"now:%d|g" % now]) else b""

        assert packet_after(0, "127.0.0.1") == old.packet()
        assert packet_after(59, "127.0.0.2") == old.packet()
        assert len(lookups) == 1
        assert packet_after(1, "127.0.0.2") == new.packet()
        # An address that still belongs to the host is kept, as is one that cannot be looked up.
        assert packet_after(60, "127.0.0.1", "127.0.0.2") == new.packet()
        assert packet_after(60) == new.packet()
        assert packet_after(59, "127.0.0.1") == new.packet()
        assert lookups == ["127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.1", None]
        sender.close()
    assert (sender.sent, sender.lost) == (6, 0)


def test_a_daemon_that_takes_nothing_costs_a_bounded_time(caplog: pytest.LogCaptureFixture) -> None:
    with Listener("tcp") as listener:
        sender = Sender(StatsDSettings(protocol="tcp", port=listener.port), timeout=0.05)
        packets = [b"x" * 1_000_000] * 100
        sent = sender.send(packets)
        sender.close()
    assert sent < len(packets)
    assert (sender.sent, sender.lost) == (sent, len(packets) - sent)
    assert len(caplog.messages) == 1


def test_what_has_no_form_is_logged_once(udp: Listener, caplog: pytest.LogCaptureFixture) -> None:
    with Telemetry(port=udp.port) as telemetry:
        counter = telemetry.meter.create_counter("done")
        for _ in range(2):
            counter.add(1, {f"{number:050d}": "x" * 200 for number in range(8)})
            telemetry.provider.force_flush()
    assert caplog.messages == ["not sent to StatsD: done: too many tags: its line is longer than a packet"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")
def test_a_forked_process_does_not_send_what_its_parent_sends() -> None:
    with Listener("tcp") as listener:
        script = f"""
import os
from opentelemetry.sdk.metrics import MeterProvider
from forge_otel.exporters.statsd import StatsDMetricReader

provider = MeterProvider([StatsDMetricReader(port={listener.port}, protocol="tcp")], shutdown_on_exit=False)
counter = provider.get_meter("test").create_counter("done")
counter.add(1)
provider.force_flush()
counter.add(10)
child = os.fork()
if child == 0:
    provider.force_flush()
    counter.add(100)
    provider.force_flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
provider.force_flush()
provider.shutdown()
"""
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        parent = listener.packet().decode()
        listener.hang_up()
        child = listener.packet().decode()
    assert parent == "done:1|c\ndone:10|c"
    assert child == "done:100|c"


def test_settings_from_variables() -> None:
    settings, wrong = StatsDSettings.from_environment(
        {
            "STATSD_HOST": "statsd.example",
            "STATSD_PORT": "9125",
            "FORGE_OTEL_STATSD_PROTOCOL": "TCP",
            "FORGE_OTEL_STATSD_FLAVOR": "statsd",
            "FORGE_OTEL_STATSD_DIMENSIONS": "drop",
            "FORGE_OTEL_STATSD_HISTOGRAMS": "summary",
            "FORGE_OTEL_STATSD_GAUGES": "True",
            "FORGE_OTEL_STATSD_INSTANCE_TAG": "false",
            "FORGE_OTEL_STATSD_MAX_VALUES": "50",
            "FORGE_OTEL_STATSD_INTERVAL": "2.5",
            "FORGE_OTEL_STATSD_SOCKET": "",
            "FORGE_OTEL_STATSD_NAME_TEMPLATE": "ml.{name}.{tags}",
            "FORGE_OTEL_STATSD_TAGS": "team:ml,region:eu",
            "FORGE_OTEL_EVENTS": "all",
        }
    )
    assert wrong == []
    assert settings == StatsDSettings(
        host="statsd.example",
        port=9125,
        protocol="tcp",
        flavor="statsd",
        dimensions="drop",
        histograms="summary",
        gauges=True,
        instance_tag=False,
        max_values=50,
        interval=2.5,
        name_template="ml.{name}.{tags}",
        tags=(("team", "ml"), ("region", "eu")),
    )
    assert StatsDSettings.from_environment({}) == (StatsDSettings(), [])


def test_settings_from_datadogs_variables() -> None:
    settings, wrong = StatsDSettings.from_environment(
        {
            "DD_TAGS": "team:data, canary,url:http://a",
            "DD_SERVICE": "labels",
            "DD_ENV": "prod",
            "DD_VERSION": "1.4",
            "DD_ENTITY_ID": "pod-1",
            "FORGE_OTEL_STATSD_TAGS": "team:ml",
        }
    )
    assert wrong == []
    assert settings == StatsDSettings(
        tags="team:ml,canary,url:http://a",  # type: ignore[arg-type] # checks make pairs of it
        service="labels",
        env="prod",
        version="1.4",
        entity_id="pod-1",
    )
    without_commas, _ = StatsDSettings.from_environment({"DD_TAGS": "team:ml canary"})
    assert without_commas.tags == (("team", "ml"), ("canary", ""))


@pytest.mark.parametrize("tags", ["team:ml,shard:3", ["team:ml", "shard:3"], {"team": "ml", "shard": 3}])
def test_tags_in_code_and_in_files(tags: Any) -> None:
    assert StatsDSettings(tags=tags).tags == (("team", "ml"), ("shard", "3"))


def test_wrong_tags_of_datadogs_variable_do_not_cost_the_others() -> None:
    text = "stage:prod,team:ml,a|b:c"
    settings, wrong = StatsDSettings.from_environment({"DD_TAGS": text})
    assert settings.tags == (("team", "ml"),)
    assert wrong == [
        f"DD_TAGS={text!r}: 'stage:prod' would replace a tag that the metrics have",
        (
            f"DD_TAGS={text!r}: 'a|b:c' is none: a tag begins with a letter, has only letters, digits and _ . / -, and "
            "has a value after its colon"
        ),
    ]


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "statsd.md").read_text()
    rows = {cell for line in page.splitlines() if line.startswith("| `") for cell in line.split("|")[1].split(",")}
    assert {field.name for field in dataclasses.fields(StatsDSettings)} <= {cell.strip(" `") for cell in rows}


WRONG = [
    ("STATSD_PORT", "tcp://10.0.0.1:8125", "must be a whole number from 1 to 65535"),
    ("STATSD_PORT", "0", "must be a whole number from 1 to 65535"),
    ("STATSD_HOST", "a b", "must be a name or an address"),
    ("STATSD_HOST", "a..b", "must be a name or an address"),
    ("FORGE_OTEL_STATSD_SOCKET", "/a b", "must be text without blanks"),
    ("FORGE_OTEL_STATSD_PROTOCOL", "unix", "must be one of udp, tcp"),
    ("FORGE_OTEL_STATSD_FLAVOR", "influx", "must be one of dogstatsd, statsd"),
    ("FORGE_OTEL_STATSD_DIMENSIONS", "labels", "must be one of tags, name, drop"),
    ("FORGE_OTEL_STATSD_HISTOGRAMS", "both", "must be one of values, summary"),
    (
        "FORGE_OTEL_STATSD_TAGS",
        "team:ml,te|am:ml",
        (
            "must be tags such as team:ml,region:eu; 'te|am:ml' is none: a tag begins with a letter, has only letters, "
            "digits and _ . / -, and has a value after its colon"
        ),
    ),
    (
        "FORGE_OTEL_STATSD_TAGS",
        "outcome:good",
        "must be tags such as team:ml,region:eu; 'outcome:good' would replace a tag that the metrics have",
    ),
    (
        "FORGE_OTEL_STATSD_TAGS",
        f"a:{'b' * 200}",
        f"must be tags such as team:ml,region:eu; 'a:{'b' * 200}' has more than 200 bytes",
    ),
    (
        "FORGE_OTEL_STATSD_NAME_TEMPLATE",
        "{colour}.{name}",
        (
            "must not have the unknown placeholder {colour}; there are {name}, {tags}, {pipeline}, {service}, {env}, "
            "{version}, {instance}"
        ),
    ),
    (
        "FORGE_OTEL_STATSD_NAME_TEMPLATE",
        "{name",
        (
            "must have a placeholder between every { and }; there are {name}, {tags}, {pipeline}, {service}, {env}, "
            "{version}, {instance}"
        ),
    ),
    (
        "FORGE_OTEL_STATSD_NAME_TEMPLATE",
        "a b.{name}",
        "must have only letters, digits and _ . - around its placeholders, not 'a b.'",
    ),
    (
        "FORGE_OTEL_STATSD_NAME_TEMPLATE",
        "{tags}",
        "must have the placeholder {name}: without it, different metrics would be one",
    ),
    ("DD_SERVICE", "a\tb", "must be text on one line"),
    ("FORGE_OTEL_STATSD_GAUGES", "1", "must be true or false"),
    ("FORGE_OTEL_STATSD_INSTANCE_TAG", "yes", "must be true or false"),
    ("FORGE_OTEL_STATSD_MAX_VALUES", "0", "must be a whole number from 1 to 1000000000"),
    ("FORGE_OTEL_STATSD_INTERVAL", "-1", "must be a number of seconds from 0 to 4000000"),
    ("FORGE_OTEL_STATSD_INTERVAL", "0", "must be a number of seconds greater than 0"),
    ("FORGE_OTEL_STATSD_INTERVAL", "inf", "must be a number of seconds from 0 to 4000000"),
    ("FORGE_OTEL_STATSD_INTERVAL", "9" * 400, "must be a number of seconds from 0 to 4000000"),
]


@pytest.mark.parametrize(("variable", "text", "allowed"), WRONG)
def test_a_wrong_variable_is_named(variable: str, text: str, allowed: str) -> None:
    settings, wrong = StatsDSettings.from_environment(
        {variable: text, "FORGE_OTEL_STATSD_MAX_VALUES": "7"} | {variable: text}
    )
    assert wrong == [f"{variable}={text!r}: it {allowed}"]
    assert settings == StatsDSettings(max_values=settings.max_values)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("FORGE_OTEL_STATSD_PORT", "did you mean STATSD_PORT?"),
        ("FORGE_OTEL_STATSD_ENV", "did you mean DD_ENV?"),
        ("FORGE_OTEL_STATSD_TAG", "did you mean FORGE_OTEL_STATSD_TAGS?"),
    ],
)
def test_an_unknown_variable_is_named(variable: str, hint: str) -> None:
    _, wrong = StatsDSettings.from_environment({variable: "8125"})
    assert wrong == [f"{variable}='8125': there is no such variable; {hint}"]


def test_a_wrong_keyword_raises() -> None:
    with pytest.raises(ValueError, match=r"port='8125': it must be a whole number from 1 to 65535"):
        StatsDMetricReader(port="8125")
    with pytest.raises(ValueError, match=r"gauges=1: it must be true or false"):
        StatsDSettings(gauges=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tags=5: it must be tags such as team:ml,region:eu"):
        StatsDMetricReader(tags=5)
    with pytest.raises(ValueError, match=r"name_template=None: it must be text such as \{name\}\.\{tags\}"):
        StatsDMetricReader(name_template=None)
    with pytest.raises(TypeError, match="colour"):
        StatsDMetricReader(colour="red")


def test_wrong_entries_of_a_file_are_left_out() -> None:
    settings, wrong = StatsDSettings.from_entries(
        {
            "host": "statsd.example",
            "port": "9125",
            "flavour": "statsd",
            "flavor": "influx",
            "tags": {"team": "ml"},
            "interval": 5,
            "socket": None,
        },
        {"STATSD_HOST": "other.example", "FORGE_OTEL_STATSD_GAUGES": "false", "FORGE_OTEL_STATSD_PROTOCOL": "x"},
    )
    assert settings == StatsDSettings(host="statsd.example", port=9125, gauges=False, tags=(("team", "ml"),))
    assert wrong == [
        "FORGE_OTEL_STATSD_PROTOCOL='x': it must be one of udp, tcp",
        "flavour: 'statsd' of the StatsD exporter in the configuration file: it is not a setting; did you mean flavor?",
        "flavor: 'influx' of the StatsD exporter in the configuration file: it must be one of dogstatsd, statsd",
        (
            "interval: 5 of the StatsD exporter in the configuration file: it is not a setting; there are host, port, "
            "protocol, socket, flavor, dimensions, name_template, tags, service, env, version, entity_id, histograms, "
            "gauges, instance_tag, max_values"
        ),
    ]


def test_the_exporter_of_a_file(udp: Listener, caplog: pytest.LogCaptureFixture) -> None:
    exporter = StatsDMetricExporter(port=udp.port, tags=["team:ml"], flavor="influx")
    resource = Resource({"service.name": "labels"})
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, math.inf)], resource, shutdown_on_exit=False)
    provider.get_meter("test").create_counter("done").add(1)
    provider.force_flush()
    provider.shutdown()
    assert udp.packet() == b"done:1|c|#service:labels,team:ml"
    assert caplog.messages == [
        (
            "flavor: 'influx' of the StatsD exporter in the configuration file: it must be one of dogstatsd, statsd; "
            "it is ignored"
        )
    ]


def test_a_reader_is_no_exporter() -> None:
    reader = StatsDMetricReader()
    with pytest.raises(TypeError, match="in a configuration file, the exporter is forge_statsd"):
        PeriodicExportingMetricReader(reader)  # type: ignore[arg-type] # as a file might name it
    reader.shutdown()


def test_a_reader_goes_on_with_a_wrong_variable(
    udp: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STATSD_PORT", str(udp.port))
    monkeypatch.setenv("FORGE_OTEL_STATSD_FLAVOR", "influx")
    with caplog.at_level(logging.WARNING), Telemetry() as telemetry:
        telemetry.meter.create_counter("done").add(1, {"a": "b"})
    assert udp.packet() == b"done:1|c|#a:b"
    assert caplog.messages == ["FORGE_OTEL_STATSD_FLAVOR='influx': it must be one of dogstatsd, statsd; it is ignored"]


@pytest.fixture
def _entry_point() -> None:
    """It exists only for what is installed."""
    if not entry_points(group="opentelemetry_metrics_exporter", name="statsd"):
        lacking(f"needs forge-otel installed anew: {INSTALL}")


@pytest.mark.usefixtures("_entry_point")
def test_the_entry_point_is_a_reader() -> None:
    [entry] = entry_points(group="opentelemetry_metrics_exporter", name="statsd")
    assert entry.load() is StatsDMetricReader
    assert issubclass(StatsDMetricReader, MetricReader)


@pytest.mark.slow
@pytest.mark.usefixtures("_entry_point")
def test_a_pipeline_that_knows_nothing_of_it(udp: Listener, tmp_path: Path) -> None:
    packets: list[bytes] = []

    def take() -> None:
        while packet := udp.packet():
            packets.append(packet)

    thread = threading.Thread(target=take)
    thread.start()
    output = instrumented(
        tmp_path,
        SCRIPT,
        OTEL_TRACES_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_METRICS_EXPORTER="statsd",
        OTEL_SERVICE_NAME="labels",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=prod,service.version=1.4",
        DD_VERSION="1.5",
        DD_ENTITY_ID="pod-1",
        FORGE_OTEL_STATSD_TAGS="team:ml",
        STATSD_PORT=str(udp.port),
    )
    udp.end()
    thread.join(PATIENCE)

    assert output.log == ""
    assert output.printed == ["['A', 'B']"]
    lines = read(packets)
    counted = {(line.name, line.tags): 0.0 for line in lines}
    for line in lines:
        if line.kind == "c":
            counted[line.name, line.tags] += line.value
    common = {
        *("pipeline:words", "service:labels", "env:prod", "version:1.5", "team:ml"),
        "dd.internal.entity_id:pod-1",
    }

    def count(name: str, *tags: str) -> float:
        return counted[name, frozenset({*common, *tags})]

    assert count("forge.sample.settled", "outcome:ready") == 2
    assert count("forge.stage.executions", "stage:upper", "outcome:success") == 2
    assert count("forge.stage.executions", "stage:upper", "outcome:error") == 0
    assert count("forge.pipeline.completed", "outcome:completed") == 1
    timed = [line for line in lines if line.name == "forge.stage.latency"]
    assert sum(line.weight for line in timed) == 2
    assert {(line.kind, line.tags) for line in timed} == {("h", frozenset({*common, "stage:upper"}))}


@pytest.mark.slow
@pytest.mark.usefixtures("_entry_point")
def test_a_configuration_file(udp: Listener, tmp_path: Path) -> None:
    """As the documentation shows it."""
    page = (Path(__file__).parents[3] / "docs" / "statsd.md").read_text()
    [documented] = re.findall(r"```yaml\n(.+?)```", page, re.DOTALL)
    (tmp_path / "otel.yaml").write_text(documented.replace("port: 8125", f"port: {udp.port}"))

    output = instrumented(tmp_path, SCRIPT, OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml"))

    assert output.printed == ["['A', 'B']"]
    lines = read([udp.packet()])
    assert lines
    assert {tag for line in lines for tag in line.tags} >= {"pipeline:words", "stage:upper", "team:ml", "region:eu"}
    assert all({"team:ml", "region:eu"} <= line.tags for line in lines)


def test_half_a_surrogate_pair_costs_no_other_metrics(udp: Listener) -> None:
    """Whoever's text it is: a name that is not UTF-8 in an attribute, a description, the resource."""
    reader = StatsDMetricReader(port=udp.port)
    resource = Resource({"service.instance.id": "i\udce9"})
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    meter = provider.get_meter("test\udce9", "1\udce9", attributes={"a": "\udce9"})
    meter.create_counter("done", description="caf\udce9").add(5, {"file": "caf\udce9\0", "all": ["caf\udce9"]})
    meter.create_up_down_counter("active").add(2, {"key\udce9": "b"})
    meter.create_histogram("latency").record(3, {"file": "caf\udce9"})
    provider.shutdown()
    assert sorted(udp.packet().decode().split("\n")) == [
        "active:2|g|#key_udce9:b,instance:i_udce9",
        "done:5|c|#file:caf_udce9_u0000",
        "latency:3|h|#file:caf_udce9",
    ]
