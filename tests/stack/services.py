"""The Collector, Prometheus, Jaeger and VictoriaLogs on free ports of the loopback interface."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.compose import options_of, variables_of
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.tools import tool

from .programs import Program, answers, text

CONFIGURATIONS = Path(__file__).parents[2] / "collector-config"

_PARTS = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}
"""What OTLP's JSON calls the lists in a request, from the outside in."""


class Collector(Program):
    """A Collector with `local.yaml` and overlays from `collector-config/`.

    The variables are those that the configurations read; `settings` are merged in at the end, for what has none.
    """

    def __init__(
        self,
        folder: Path,
        *overlays: str,
        variables: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        name: str = "collector",
    ) -> None:
        self.grpc_port, self.http_port, self._health_port, self._metrics_port, self._own_port = (
            free_port() for _ in range(5)
        )
        self.data = folder / "data"
        files = [CONFIGURATIONS / f"{overlay}.yaml" for overlay in ("local", *overlays)]
        for overlay, given in (("ports", self._ports()), ("settings", settings)):
            if given is not None:
                files.append(folder / f"{overlay}.yaml")
                folder.mkdir(parents=True, exist_ok=True)
                files[-1].write_text(yaml.safe_dump(given))
        options = [option for file in files for option in ("--config", file)]
        super().__init__(
            name, [tool("otelcol-forge"), *options], folder, {"OTELCOL_DATA": str(self.data), **(variables or {})}
        )

    @property
    def otlp(self) -> str:
        """Where it takes OTLP over HTTP."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        """Where it takes OTLP over gRPC."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def scraped(self) -> str:
        """Where Prometheus finds the metrics that were sent to it."""
        return f"127.0.0.1:{self._metrics_port}"

    @property
    def own(self) -> str:
        """Where Prometheus finds its metrics about itself."""
        return f"127.0.0.1:{self._own_port}"

    def run(self) -> Collector:
        """Start it."""
        self.start(lambda: answers(f"http://127.0.0.1:{self._health_port}"))
        return self

    def spans(self) -> list[dict[str, Any]]:
        """All spans in its file."""
        return list(records(self.data, "traces"))

    def logs(self) -> list[dict[str, Any]]:
        """All log records in its file."""
        return list(records(self.data, "logs"))

    def counter(self, name: str, **labels: str) -> float:
        """The sum of one of its counters about itself, over the series that have these labels."""
        return sum(value for _, value in samples(text(f"http://{self.own}/metrics"), name, labels))

    def _ports(self) -> dict[str, Any]:
        own = yaml.safe_load((CONFIGURATIONS / "local.yaml").read_text())["service"]["telemetry"]
        own["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"].update(host="127.0.0.1", port=self._own_port)
        return {
            "receivers": {
                "otlp": {
                    "protocols": {
                        "grpc": {"endpoint": f"127.0.0.1:{self.grpc_port}"},
                        "http": {"endpoint": f"127.0.0.1:{self.http_port}"},
                    }
                }
            },
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{self._health_port}"}},
            "exporters": {"prometheus": {"endpoint": self.scraped}},
            "service": {"telemetry": own},
        }


class PrometheusServer(Program):
    """Prometheus with one of the configurations in `collector-config/prometheus/`, every second.

    `targets` are addresses by the names of its jobs; without, they are in files in the folder, as the configuration has
    it. `rules` are other rules than those of the configuration, `lookback` how long a value counts as the latest one.
    """

    def __init__(
        self,
        folder: Path,
        configuration: str,
        targets: Mapping[str, str] | None = None,
        *,
        rules: Path | None = None,
        lookback: str = "5m",
    ) -> None:
        source = CONFIGURATIONS / "prometheus" / configuration
        adapted = yaml.safe_load(source.read_text())
        adapted["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        adapted["rule_files"] = [str(rules)] if rules else [str(source.parent / each) for each in adapted["rule_files"]]
        if targets is not None:
            for job in adapted["scrape_configs"]:
                job.pop("file_sd_configs", None)
                addresses = [address for name, address in targets.items() if name == job["job_name"]]
                job["static_configs"] = [{"targets": addresses}]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(adapted))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api = Prometheus(self.url)
        super().__init__(
            "prometheus",
            [
                tool("prometheus"),
                *options_of("prometheus", {"--config.file": "prometheus.yml", "--storage.tsdb.path": "data"}),
                f"--web.listen-address=127.0.0.1:{self.port}",
                f"--query.lookback-delta={lookback}",
                "--log.level=warn",
            ],
            folder,
            variables_of("prometheus"),
        )

    def run(self) -> PrometheusServer:
        """Start it."""
        self.start(lambda: answers(f"{self.url}/-/ready"))
        return self

    def query(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The values of an expression now, by the values of these labels, of which the result has no others."""
        return self.api.query(expression, *labels)


class Jaeger(Program):
    """Jaeger with `collector-config/jaeger/jaeger.yaml`."""

    def __init__(self, folder: Path) -> None:
        port, query, health = free_port(), free_port(), free_port()
        self.otlp = f"http://127.0.0.1:{port}"
        """Where it takes OTLP over HTTP."""
        self.url = f"http://127.0.0.1:{query}"
        """Where its page and its API are."""
        self._health = f"http://127.0.0.1:{health}/status"
        super().__init__(
            "jaeger",
            [tool("jaeger"), *options_of("jaeger", {"--config": f"{CONFIGURATIONS / 'jaeger' / 'jaeger.yaml'}"})],
            folder,
            {
                **variables_of(
                    "jaeger",
                    JAEGER_BIND="127.0.0.1",
                    JAEGER_DATA=str(folder / "data"),
                    JAEGER_UI_CONFIG=str(CONFIGURATIONS / "jaeger" / "ui.json"),
                ),
                "JAEGER_OTLP_PORT": str(port),
                "JAEGER_QUERY_PORT": str(query),
                "JAEGER_QUERY_GRPC_PORT": str(free_port()),
                "JAEGER_HEALTH_PORT": str(health),
            },
        )

    def run(self) -> Jaeger:
        """Start it."""
        self.start(lambda: answers(self._health) and answers(f"{self.url}/api/services"))
        return self

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of a trace, with its tags as a dict; none if it is unknown."""
        return spans_of(self.url, trace_id)


class VictoriaLogs(Program):
    """VictoriaLogs, which has no configuration file: all it needs are options."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            "victoria-logs",
            [
                tool("victoria-logs"),
                *options_of("victoria-logs", {"-httpListenAddr": f"127.0.0.1:{port}", "-storageDataPath": "data"}),
            ],
            folder,
            variables_of("victoria-logs"),
        )

    def run(self) -> VictoriaLogs:
        """Start it."""
        self.start(lambda: answers(f"{self.url}/health"))
        return self

    def query(self, expression: str) -> list[dict[str, str]]:
        """The log records, or rows, that LogsQL selects."""
        return log_records(self.url, expression)


def spans_of(url: str, trace_id: str) -> list[dict[str, Any]]:
    """The spans of a trace in a Jaeger, each with its tags as a dict; none if it is unknown."""
    try:
        answer = json.loads(text(f"{url}/api/traces/{trace_id}"))
    except HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return []
    (trace,) = answer["data"]
    return _with_tags(trace["spans"])


def traces_of(url: str, service: str, limit: int) -> list[list[dict[str, Any]]]:
    """The spans of each trace of a service in a Jaeger, each span with its tags as a dict."""
    answer = json.loads(text(f"{url}/api/traces?{urlencode({'service': service, 'limit': limit})}"))
    return [_with_tags(trace["spans"]) for trace in answer["data"]]


def _with_tags(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**span, "tags": {tag["key"]: tag["value"] for tag in span["tags"]}} for span in spans]


def log_records(url: str, expression: str) -> list[dict[str, str]]:
    """The log records, or rows, that LogsQL selects in a VictoriaLogs."""
    lines = text(f"{url}/select/logsql/query?{urlencode({'query': expression})}").splitlines()
    return [json.loads(line) for line in lines]


def records(folder: Path, signal: str) -> Iterator[dict[str, Any]]:
    """The spans or log records in a Collector's files, each with its resource and its attributes as plain dicts."""
    resources, scopes, parts = _PARTS[signal]
    for file in sorted(folder.glob(f"{signal}*.jsonl")):
        *lines, _unfinished = file.read_text().split("\n")
        for line in lines:
            # Where a Collector was killed while it wrote, the next request follows what there is of that one.
            request = json.loads(line[line.rindex(f'{{"{resources}"') :])
            for resource in request[resources]:
                for scope in resource[scopes]:
                    for record in scope[parts]:
                        yield {
                            **record,
                            "attributes": attributes(record),
                            "resource": attributes(resource["resource"]),
                            "scope": scope["scope"].get("name", ""),
                        }


def attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as a dict; integers as such."""
    found = {}
    for each in holder.get("attributes", ()):
        ((kind, value),) = each["value"].items()
        found[each["key"]] = int(value) if kind == "intValue" else value
    return found


def samples(
    exposition: str, name: str, labels: Mapping[str, str] | None = None
) -> Iterator[tuple[dict[str, str], float]]:
    """The samples of one name in a text that Prometheus could scrape, of the series that have these labels."""
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == name and (labels or {}).items() <= sample.labels.items():
                yield sample.labels, sample.value


def by_label(exposition: str, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """The sums of a metric's samples, by the values of these labels; without those that are 0."""
    found: Counter[tuple[str, ...]] = Counter()
    for sample, value in samples(exposition, name):
        found[tuple(sample[label] for label in labels)] += int(value)
    return +found
