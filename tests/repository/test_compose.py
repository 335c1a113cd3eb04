"""The Compose files, as the Compose specification's reference implementation reads them.

The tests need no container engine. So everything that one would stumble over is checked: what is mounted, who may write
to it, which ports are open, which variables are read, who calls whom. `test_compose_programs.py` gives the mounted
files to the programs.
"""

from __future__ import annotations

import functools
import operator
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from forge_otel.commands.cli import forge_otel
from tests.support import grafana
from tests.support.compose import (
    ROOT,
    SCALE,
    Service,
    dotenv,
    image_table,
    mounts,
    option,
    options_of,
    project,
    variables_of,
)
from tools.stack import ready

CONFIGURATIONS = ROOT / "collector-config"
PROVISIONING = CONFIGURATIONS / "grafana" / "provisioning"
COLLECTORS = {"otelcol", "otelcol-2", "gateway-1", "gateway-2"}
GO_PROGRAMS = {*COLLECTORS, "prometheus", "jaeger", "victoria-logs", "grafana", "graphite"}
ONCE = {"init", "secrets"}
"""They do their work and end."""


@pytest.fixture(scope="module")
def services() -> Mapping[str, Service]:
    found: Mapping[str, Service] = project()["services"]
    return found


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """The options that a command of `forge-otel` would be called with."""
    name, *options = arguments
    return forge_otel.commands[name].make_context(name, options).params


@pytest.fixture(scope="module")
def scaled() -> Mapping[str, Service]:
    found: Mapping[str, Service] = project(*SCALE)["services"]
    return found


@pytest.fixture(scope="module", params=[(), SCALE], ids=["alone", "scaled"])
def every(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    """The project without the overlay, and with it."""
    return project(*request.param)


def published(service: Service) -> set[tuple[int, str]]:
    return {(int(port["published"]), port["protocol"]) for port in service.get("ports", ())}


def defaults(path: str, pattern: str) -> dict[str, str]:
    """The variables that a file in collector-config reads, with their defaults."""
    return dict(re.findall(pattern, (CONFIGURATIONS / path).read_text()))


def listening(services: Mapping[str, Service]) -> dict[str, set[int]]:
    """The ports that each service listens on for others, from its configuration."""
    local = yaml.safe_load((CONFIGURATIONS / "local.yaml").read_text())
    addresses = [
        *(protocol["endpoint"] for protocol in local["receivers"]["otlp"]["protocols"].values()),
        local["exporters"]["prometheus"]["endpoint"],
        local["extensions"]["health_check"]["endpoint"],
    ]
    own = local["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]
    statsd = defaults("statsd/config.js", r"process\.env\.(\w+) \|\| \"?([\w.]+)")
    jaeger = defaults("jaeger/jaeger.yaml", r"\$\{env:(\w+):-(\d+)\}")
    bridge = parsed(services["statsd-bridge"]["command"])
    return {
        "otelcol": {*(port_of(address) for address in addresses), own["port"]},
        "prometheus": {9090},
        "jaeger": {int(port) for port in jaeger.values()},
        "victoria-logs": {port_of(option(services["victoria-logs"]["command"], "-httpListenAddr"))},
        "grafana": {3000},
        "statsd-bridge": {bridge["port"]},
        "statsd": {int(statsd["STATSD_PORT"]), int(statsd["STATSD_ADMIN_PORT"])},
        "graphite": {port_of(option) for option in services["graphite"]["command"] if "Addr=" in option},
    }


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


class TestImages:
    def test_all_are_pinned_in_the_env_file(self, every: Mapping[str, Any]) -> None:
        pinned = {value for name, value in dotenv().items() if name.endswith("_IMAGE")}

        assert {service["image"] for service in every["services"].values() if "build" not in service} <= pinned
        assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-slim)?", image) for image in pinned)

    def test_every_variable_of_the_env_file_is_used_and_no_other(self) -> None:
        used = set(re.findall(r"\$\{(\w+)\}", (ROOT / "docker-compose.yml").read_text()))

        assert used == set(dotenv())

    def test_what_is_taken_for_granted_of_them_stands_in_one_table(self) -> None:
        assert {row["variable"] for row in image_table()} == {name for name in dotenv() if name.endswith("_IMAGE")}

    def test_health_is_asked_with_what_is_in_the_image(self, services: Mapping[str, Service]) -> None:
        table = {row["variable"]: row["programs"].split() for row in image_table()}
        names = {image: name for name, image in dotenv().items()}

        for service in services.values():
            if "wget" in service.get("healthcheck", {}).get("test", ()):
                assert "wget" in table[names[service["image"]]]

    def test_the_secrets_are_made_with_what_is_in_the_image(self, scaled: Mapping[str, Service]) -> None:
        (row,) = (row for row in image_table() if dotenv()[row["variable"]] == scaled["secrets"]["image"])

        assert row["programs"].split() == ["sh", "openssl"]

    @pytest.mark.parametrize(("file", "ignored"), [(".env", False), ("docker-compose.override.yml", True)])
    def test_a_users_own_file_is_ignored_and_the_env_file_is_not(self, file: str, ignored: bool) -> None:
        done = subprocess.run(["git", "check-ignore", "-q", file], cwd=ROOT, check=False)

        assert done.returncode == (0 if ignored else 1)

    @pytest.mark.parametrize(
        ("variable", "program"),
        [
            ("OTELCOL_IMAGE", "otelcol-forge"),
            ("PROMETHEUS_IMAGE", "prometheus"),
            ("JAEGER_IMAGE", "jaeger"),
            ("VICTORIA_LOGS_IMAGE", "victoria-logs"),
            ("STATSD_IMAGE", "statsd"),
            ("GRAPHITE_IMAGE", "victoria-metrics"),
        ],
    )
    def test_the_versions_are_those_that_the_tests_run(self, variable: str, program: str, tmp_path: Path) -> None:
        environment = {"FORGE_OTEL_TOOLS": str(tmp_path), "PATH": os.defpath}
        command: list[str | Path] = [sys.executable, ROOT / "tools" / "stack", "--find", program]
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr

        assert said.startswith(f"{program}-{dotenv()[variable].rpartition(':')[2].removeprefix('v')} is not here")


class TestOurImage:
    INSTRUCTIONS = (ROOT / "Dockerfile").read_text()

    def test_what_is_copied_is_there_and_sent_to_the_builder(self) -> None:
        copied = {
            source
            for line in re.findall(r"^COPY (?!--)(.+)$", self.INSTRUCTIONS, re.MULTILINE)
            for source in line.split()[:-1]
        }
        let_through = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))

        assert copied == let_through
        assert all((ROOT / source).exists() for source in copied)

    def test_it_is_made_of_the_pinned_python_and_of_extras_that_there_are(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        (extras,) = re.findall(r"'/src\[(.+)\]'", self.INSTRUCTIONS)

        assert f"ARG PYTHON_IMAGE={dotenv()['PYTHON_IMAGE']}\n" in self.INSTRUCTIONS
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
        assert 'ENTRYPOINT ["forge-otel"]' in self.INSTRUCTIONS
        assert "forge-otel" in project["scripts"]

    def test_the_demo_is_a_command_that_there_is(self, services: Mapping[str, Service]) -> None:
        (line,) = services["demo"]["command"]
        (command,) = re.findall(r"forge-otel ([^;]+);", line)
        options = parsed(command.split())

        assert str(options["out"]) in mounts(services["demo"], "volume")
        assert urlsplit(options["otlp"]).hostname == "otelcol"
        assert urlsplit(options["otlp"]).port == 4317


class TestSafety:
    def test_nobody_is_root_but_the_one_who_hands_out_the_volumes(self, every: Mapping[str, Any]) -> None:
        services = every["services"]

        assert {name for name, service in services.items() if service["user"].split(":")[0] == "0"} == {"init"}
        assert services["init"]["cap_add"] == ["CHOWN"]
        assert services["init"]["network_mode"] == "none"

    def test_everybody_is_confined(self, every: Mapping[str, Any]) -> None:
        for name, service in every["services"].items():
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name

    def test_logs_are_bounded(self, every: Mapping[str, Any]) -> None:
        for name in every["services"].keys() - ONCE:
            logging = every["services"][name]["logging"]
            assert logging == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}, name

    def test_memory_is_limited_and_go_knows(self, every: Mapping[str, Any]) -> None:
        services = every["services"]
        limits = {name: int(service["mem_limit"]) for name, service in services.items()}
        told = {
            name: int(service["environment"]["GOMEMLIMIT"].removesuffix("MiB")) * 2**20
            for name, service in services.items()
            if "GOMEMLIMIT" in service.get("environment", {})
        }

        assert told.keys() == GO_PROGRAMS & services.keys()
        assert {name for name in told if not 0.7 * limits[name] < told[name] < 0.9 * limits[name]} == set()

    def test_ports_are_open_on_this_machine_only(self, every: Mapping[str, Any]) -> None:
        ports = [port for service in every["services"].values() for port in service.get("ports", ())]
        numbers = [(port["published"], port["protocol"]) for port in ports]

        assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
        assert len(numbers) == len(set(numbers))

    def test_nothing_of_the_checkout_can_be_written(self, every: Mapping[str, Any]) -> None:
        bound = [
            mount
            for service in every["services"].values()
            for mount in service.get("volumes", ())
            if mount["type"] == "bind"
        ]

        assert all(mount.get("read_only") for mount in bound)
        assert [mount["source"] for mount in bound if not Path(mount["source"]).exists()] == []


class TestVolumes:
    def test_each_is_given_to_the_user_of_those_who_write_to_it(self, every: Mapping[str, Any]) -> None:
        services = every["services"]
        owners = {
            volume: PurePosixPath(place).parent.name for place, volume in mounts(services["init"], "volume").items()
        }
        used = {
            source: service["user"].partition(":")[0]
            for name, service in services.items()
            if name != "init"
            for source in mounts(service, "volume").values()
        }

        assert services["init"]["command"][2] == 'cd /volumes; for user in *; do chown "$user" "$user"/*; done'
        assert owners == used
        assert every["volumes"].keys() == used.keys()

    def test_one_service_writes_to_each(self, every: Mapping[str, Any]) -> None:
        written = [
            mount["source"]
            for name, service in every["services"].items()
            if name != "init"
            for mount in service.get("volumes", ())
            if mount["type"] == "volume" and not mount.get("read_only")
        ]

        assert sorted(written) == sorted(every["volumes"])

    def test_who_has_one_waits_until_it_is_given(self, every: Mapping[str, Any]) -> None:
        for name, service in every["services"].items():
            if name != "init":
                assert service["depends_on"]["init"]["condition"] == "service_completed_successfully", name

    def test_what_is_kept_is_kept_there(self, services: Mapping[str, Service]) -> None:
        said = {
            "otelcol": services["otelcol"]["environment"]["OTELCOL_DATA"],
            "jaeger": services["jaeger"]["environment"]["JAEGER_DATA"],
            "victoria-logs": option(services["victoria-logs"]["command"], "-storageDataPath"),
            "prometheus": option(services["prometheus"]["command"], "--storage.tsdb.path"),
            "graphite": option(services["graphite"]["command"], "-storageDataPath"),
        }

        assert {name: [place] for name, place in said.items()} == {
            name: list(mounts(services[name], "volume")) for name in said
        }


class TestConnections:
    def test_addresses_are_those_of_services_that_listen_there(self, services: Mapping[str, Service]) -> None:
        open_ports = listening(services)
        called = {
            (urlsplit(value).hostname, urlsplit(value).port)
            for service in services.values()
            for value in service.get("environment", {}).values()
            if value.startswith("http://")
        }
        for_people = {(host, port) for host, port in called if host == dotenv()["PUBLISH_ADDRESS"]}
        called -= for_people
        for service in (services["statsd-bridge"], services["statsd"]):
            environment = service["environment"]
            for name in ("STATSD", "GRAPHITE"):
                if host := environment.get(f"{name}_HOST"):
                    default = defaults("statsd/config.js", r"process\.env\.(\w+) \|\| (\d+)")[f"{name}_PORT"]
                    called.add((host, int(environment.get(f"{name}_PORT", default))))
        ((target,),) = (
            entry["targets"]
            for entry in yaml.safe_load((CONFIGURATIONS / "prometheus" / "otelcol.targets.compose.yaml").read_text())
        )
        called.add((target.partition(":")[0], port_of(target)))

        assert {port for _, port in for_people} == {16686, 9428}
        assert all(any((port, "tcp") in published(each) for each in services.values()) for _, port in for_people)
        assert len(called) == 9
        assert {(host, port) for host, port in called if port not in open_ports.get(str(host), ())} == set()

    def test_published_ports_are_listened_on(self, services: Mapping[str, Service]) -> None:
        open_ports = listening(services)

        for name, service in services.items():
            assert {port for port, _ in published(service)} <= open_ports.get(name, set()), name
            assert all(str(port["target"]) == port["published"] for port in service.get("ports", ())), name

    def test_services_are_reached_from_outside_their_container(self, services: Mapping[str, Service]) -> None:
        binds = {"otelcol": "OTELCOL_BIND", "jaeger": "JAEGER_BIND", "statsd": "STATSD_BIND"}

        assert {name: services[name]["environment"][variable] for name, variable in binds.items()} == dict.fromkeys(
            binds, "0.0.0.0"
        )
        assert parsed(services["statsd-bridge"]["command"])["host"] == "0.0.0.0"

    def test_the_collector_is_told_what_its_files_ask(self, services: Mapping[str, Service]) -> None:
        given = services["otelcol"]["environment"].keys() - {"GOMEMLIMIT"}
        read: dict[str, str] = {}
        for target in mounts(services["otelcol"], "bind").values():
            read |= defaults(Path(target).name, r"\$\{env:(\w+):-([^}]+)\}")

        assert given <= read.keys()
        assert {name for name, default in read.items() if "127.0.0.1" in default} <= given

    def test_the_bridges_default_is_the_collectors(self) -> None:
        endpoint = defaults("statsd.yaml", r"\$\{env:(\w+):-([^}]+)\}")["FORGE_STATSD_BRIDGE_ENDPOINT"]

        assert urlsplit(endpoint).port == parsed(["statsd-bridge"])["port"]

    def test_make_ready_asks_everybody(self, every: Mapping[str, Any]) -> None:
        services = every["services"]
        known = [
            service.at(ready.published_at(services[service.name]["ports"]))
            for service in ready.SERVICES
            if service.name in services
        ]
        asked = {service.name: int(re.findall(r":(\d+)", service.asked)[0]) for service in known}

        assert asked.keys() == services.keys() - {*ONCE, "demo"}
        for name, port in asked.items():
            assert (port, "tcp") in published(services[name])
        told = {int(port) for service in known for port in re.findall(r"127\.0\.0\.1:(\d+)", service.use)}
        assert told <= {port for service in services.values() for port, _ in published(service)}

    @pytest.mark.parametrize(
        ("address", "asked"),
        [
            ("127.0.0.2", "127.0.0.2:3001"),
            ("", "127.0.0.1:3001"),
            ("0.0.0.0", "127.0.0.1:3001"),
            ("::", "127.0.0.1:3001"),
            ("::1", "[::1]:3001"),
        ],
    )
    def test_make_ready_asks_where_the_ports_are_published(self, address: str, asked: str) -> None:
        configured = {"target": 3000, "published": "3001"} | ({"host_ip": address} if address else {})
        running = {"URL": address, "TargetPort": 3000, "PublishedPort": 3001}
        (grafana,) = (service for service in ready.SERVICES if service.name == "grafana")

        assert ready.published_at([configured]) == ready.publishing([running]) == {3000: asked}
        assert grafana.at({3000: asked}).asked == f"http://{asked}/api/health"
        assert grafana.at({3000: asked}).use == f"dashboards at http://{asked}"

    def test_make_ready_passes_over_what_is_not_published(self) -> None:
        assert ready.published_at([{"target": 3000}]) == {}
        assert ready.publishing([{"URL": "", "TargetPort": 3000, "PublishedPort": 0}]) == {}

    def test_make_ready_knows_nobody_else(self, scaled: Mapping[str, Service]) -> None:
        assert {service.name for service in ready.SERVICES} <= scaled.keys()


class TestAgentsAndGateways:
    def test_only_gateways_send_to_stores(self, scaled: Mapping[str, Service]) -> None:
        senders = {name for name, service in scaled.items() if "PROMETHEUS_ENDPOINT" in service.get("environment", {})}

        assert senders == {"gateway-1", "gateway-2", "grafana"}

    def test_agents_find_the_gateways_by_the_name_in_their_certificate(self, scaled: Mapping[str, Service]) -> None:
        names = {scaled[agent]["environment"]["OTELCOL_GATEWAYS_NAME"] for agent in ("otelcol", "otelcol-2")}
        answering = {
            name: alias
            for name, service in scaled.items()
            for network in service.get("networks", {}).values()
            for alias in (network or {}).get("aliases", ())
        }

        assert names == {"gateway"}
        assert answering == dict.fromkeys(("gateway-1", "gateway-2"), "gateway")
        assert "subjectAltName=DNS:gateway " in scaled["secrets"]["command"][2]

    def test_agents_do_not_have_the_gateways_key(self, scaled: Mapping[str, Service]) -> None:
        has = {name: mounts(scaled[name], "volume").get("/etc/otelcol/secrets") for name in COLLECTORS}

        assert has == {
            **dict.fromkeys(("otelcol", "otelcol-2"), "agent-secrets"),
            **dict.fromkeys(("gateway-1", "gateway-2"), "gateway-secrets"),
        }

    def test_gateways_are_reached_by_agents_only(self, scaled: Mapping[str, Service]) -> None:
        targets = {name: {port["target"] for port in scaled[name]["ports"]} for name in COLLECTORS}

        assert targets["otelcol"] == targets["otelcol-2"] == {4317, 4318, 13133}
        assert targets["gateway-1"] == targets["gateway-2"] == {13133}

    def test_they_are_told_what_their_files_ask(self, scaled: Mapping[str, Service]) -> None:
        for name in COLLECTORS:
            texts = [Path(source).read_text() for source in mounts(scaled[name], "bind").values()]
            read = {found for text in texts for found in re.findall(r"\$\{env:(\w+)", text)}
            required = {found for text in texts for found in re.findall(r"\$\{env:(\w+)\}", text)}
            given = scaled[name]["environment"].keys() - {"GOMEMLIMIT"}

            assert given <= read
            # The token is in a file, and the gateways have a name.
            assert required - given <= {"OTELCOL_TOKEN", "OTELCOL_GATEWAYS"}

    def test_each_sample_of_the_demo_has_a_trace_of_its_own(self, scaled: Mapping[str, Service]) -> None:
        assert scaled["demo"]["environment"]["FORGE_OTEL_TRACE_PER_SAMPLE"] == "true"


class TestMake:
    """What `make up` tells Compose."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A folder with a `docker` in it that prints the variables that it has from the Makefile."""
        docker = tmp_path / "docker"
        docker.write_text('#!/bin/sh\necho "$COMPOSE_FILE $CONFIGURATION"\n')
        docker.chmod(0o755)
        (tmp_path / "collector-config" / "prometheus").mkdir(parents=True)
        (tmp_path / "collector-config" / "prometheus" / "prometheus.yml").write_text("a")
        return tmp_path

    @staticmethod
    def told(folder: Path, *arguments: str) -> tuple[str, str]:
        """The files, and the checksum of what is mounted."""
        command = ["make", "--silent", "--file", str(ROOT / "Makefile"), *arguments]
        environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        files, _, checksum = done.stdout.rstrip("\n").partition(" ")
        return files, checksum

    @pytest.mark.parametrize("arguments", [["up", "SCALE=1"], ["down", "SCALE=1"], ["down"]])
    def test_agents_and_gateways_leave_a_users_own_file_in_its_place(self, folder: Path, arguments: list[str]) -> None:
        assert self.told(folder, *arguments)[0] == ":".join(SCALE)

        (folder / "docker-compose.override.yml").touch()

        assert self.told(folder, *arguments)[0] == ":".join((*SCALE, "docker-compose.override.yml"))

    def test_without_them_compose_finds_its_files(self, folder: Path) -> None:
        assert self.told(folder, "up")[0] == ""

    def test_containers_are_replaced_when_a_mounted_file_has_changed(
        self, every: Mapping[str, Any], folder: Path
    ) -> None:
        file = folder / "collector-config" / "prometheus" / "prometheus.yml"
        _, before = self.told(folder, "up")
        assert re.fullmatch(r"\d+-\d+", before)
        file.write_text("b")
        assert self.told(folder, "up")[1] != before
        file.write_text("a")
        assert self.told(folder, "up")[1] == before

        for name, service in every["services"].items():
            if mounts(service, "bind"):
                assert "configuration" in service["labels"], name


class TestWithoutContainers:
    """The programs of `make stack-demo` and of other tests get what stands there."""

    def test_options(self, services: Mapping[str, Service]) -> None:
        given = {"-httpListenAddr": "127.0.0.1:1", "-storageDataPath": "data"}
        options = options_of("victoria-logs", given)

        assert set(options) - set(services["victoria-logs"]["command"]) == {
            "-httpListenAddr=127.0.0.1:1",
            "-storageDataPath=data",
        }
        assert len(options) == len(services["victoria-logs"]["command"])
        assert "--web.enable-otlp-receiver" in options_of("prometheus", {})
        with pytest.raises(KeyError, match="-storage"):
            options_of("victoria-logs", {"-storage": "data"})

    def test_variables(self, services: Mapping[str, Service]) -> None:
        own = variables_of("statsd", STATSD_BIND="127.0.0.1")

        assert own == {**services["statsd"]["environment"], "STATSD_BIND": "127.0.0.1"}
        with pytest.raises(KeyError, match="STATSD_HOST"):
            variables_of("statsd", STATSD_HOST="127.0.0.1")


class TestGrafana:
    @pytest.fixture
    def file(self, services: Mapping[str, Service]) -> Any:
        """The file of the data sources, with the variables of the service in their places."""
        text = (PROVISIONING / "datasources" / "stack.yaml").read_text()
        for name, value in services["grafana"]["environment"].items():
            text = text.replace(f"${{{name}}}", value)
        assert re.findall(r"(?<!\$)\$\{?\w+", text) == []
        return yaml.safe_load(text)

    @pytest.fixture
    def sources(self, file: Any) -> Mapping[str, Any]:
        """The data sources by uid."""
        return {source["uid"]: source for source in file["datasources"]}

    def test_it_knows_what_stands_in_its_files(self, file: Any) -> None:
        dashboards = yaml.safe_load((PROVISIONING / "dashboards" / "forge.yaml").read_text())

        jsonschema.validate(file, grafana.DATA_SOURCES)
        jsonschema.validate(dashboards, grafana.DASHBOARDS)

    @pytest.mark.parametrize("place", [["isDefaults"], ["jsonData", "timeIntervall"], ["jsonData", "timeInterval"]])
    def test_it_does_not_know_everything(self, file: Any, place: list[str]) -> None:
        *way, last = place
        functools.reduce(operator.getitem, way, file["datasources"][0])[last] = "often"

        with pytest.raises(jsonschema.ValidationError, match="often"):
            jsonschema.validate(file, grafana.DATA_SOURCES)

    def test_the_dashboards_data_sources_are_there(self, sources: Mapping[str, Any]) -> None:
        used = {
            found
            for path in (CONFIGURATIONS / "grafana" / "dashboards").glob("*.json")
            for found in re.findall(r'"datasource": \{\s+"type": "([\w-]+)",\s+"uid": "([\w-]+)"', path.read_text())
        }

        assert used == {("prometheus", "prometheus"), ("victoriametrics-logs-datasource", "victoria-logs")}
        assert used <= {(source["type"], uid) for uid, source in sources.items()}

    def test_a_point_leads_to_its_trace_and_a_span_to_its_log_records_and_back(
        self, sources: Mapping[str, Any]
    ) -> None:
        (exemplar,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
        (field,) = sources["victoria-logs"]["jsonData"]["derivedFields"]
        to_logs = sources["jaeger"]["jsonData"]["tracesToLogsV2"]
        to_metrics = sources["jaeger"]["jsonData"]["tracesToMetrics"]

        assert (exemplar["name"], exemplar["datasourceUid"]) == ("trace_id", "jaeger")
        assert (field["matcherType"], field["matcherRegex"], field["datasourceUid"]) == ("label", "trace_id", "jaeger")
        assert to_logs["datasourceUid"] == "victoria-logs"
        assert to_logs["query"] == 'trace_id:="$${__trace.traceId}"'
        assert to_metrics["datasourceUid"] == "prometheus"

    def test_its_interval_is_that_at_which_pipelines_export(
        self, services: Mapping[str, Service], sources: Mapping[str, Any]
    ) -> None:
        interval = int(dotenv()["METRIC_EXPORT_SECONDS"])

        assert sources["prometheus"]["jsonData"]["timeInterval"] == f"{interval}s"
        assert services["demo"]["environment"]["OTEL_METRIC_EXPORT_INTERVAL"] == str(1000 * interval)

    def test_the_plug_in_of_its_data_source_is_preinstalled(
        self, services: Mapping[str, Service], sources: Mapping[str, Any]
    ) -> None:
        name, _, version = services["grafana"]["environment"]["GF_PLUGINS_PREINSTALL_SYNC"].partition("@")

        assert name == sources["victoria-logs"]["type"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)

    def test_who_only_reaches_it_may_change_nothing(self, services: Mapping[str, Service]) -> None:
        anonymous = {
            name: value
            for name, value in services["grafana"]["environment"].items()
            if name.startswith(("GF_AUTH_", "GF_USERS_VIEWERS", "GF_SECURITY_"))
        }

        assert anonymous == {
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        }

    def test_the_dashboards_are_where_it_looks(self, services: Mapping[str, Service]) -> None:
        (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "forge.yaml").read_text())["providers"]
        bound = mounts(services["grafana"], "bind")

        assert Path(bound[provider["options"]["path"]]) == CONFIGURATIONS / "grafana" / "dashboards"
        assert Path(bound["/etc/grafana/provisioning"]) == PROVISIONING
