"""What the tests of the stack share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .gateways import start_gateways
from .kafka import Kafka
from .programs import Program
from .services import Collector, Jaeger, PrometheusServer, VictoriaLogs

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path


class Stack:
    """Starts programs, each in a folder of its own; at the end all of them are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[Program] = []

    def collector(
        self,
        *overlays: str,
        name: str = "collector",
        variables: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Collector:
        """A Collector that is not running yet."""
        collector = Collector(self.folder / name, *overlays, variables=variables, settings=settings, name=name)
        self.programs.append(collector)
        return collector

    def prometheus(
        self,
        configuration: str = "prometheus.yml",
        *,
        name: str = "prometheus",
        rules: Path | None = None,
        lookback: str = "5m",
        **targets: str,
    ) -> PrometheusServer:
        """A Prometheus that is not running yet; `targets` are addresses by the names of its jobs."""
        server = PrometheusServer(self.folder / name, configuration, targets, rules=rules, lookback=lookback)
        self.programs.append(server)
        return server

    def jaeger(self) -> Jaeger:
        """A Jaeger that is not running yet."""
        jaeger = Jaeger(self.folder / "jaeger")
        self.programs.append(jaeger)
        return jaeger

    def kafka(self) -> Kafka:
        """A broker that is not running yet."""
        kafka = Kafka(self.folder / "kafka")
        self.programs.append(kafka)
        return kafka

    def victoria_logs(self) -> VictoriaLogs:
        """A VictoriaLogs that is not running yet."""
        logs = VictoriaLogs(self.folder / "victoria-logs")
        self.programs.append(logs)
        return logs


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Programs for one test."""
    stack = Stack(tmp_path)
    yield stack
    for program in stack.programs:
        program.kill()


@pytest.fixture
def gateways(stack: Stack, tmp_path: Path) -> list[Collector]:
    """A pair, whose certificate is in the test's folder."""
    return start_gateways(stack, tmp_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test fails, show what the programs wrote."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack):
        report.sections += [(f"log of {program.name}", program.tail()) for program in stack.programs]
    return report
