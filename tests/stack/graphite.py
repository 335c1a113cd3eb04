"""StatsD's way: the bridge, Etsy's daemon with the configuration of the stack, and what stands for Graphite there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import urlencode

from tests.support.compose import described, options_of, variables_of
from tests.support.ports import free_port
from tests.support.tools import tool
from tools.stack.ready import Service

from .programs import Program, answers, text
from .services import CONFIGURATIONS

SOURCES = CONFIGURATIONS.parent / "src"
FLUSH_MS = 1000
"""How often StatsD sends to Graphite."""


def total(url: str, target: str) -> float:
    """The sum of all values of the series that a target of Graphite selects, as they came in.

    (What `render` answers is one value for each step, so a value that came a moment too late is missing there.)
    """
    answer = text(f"{url}/api/v1/export?{urlencode({'match[]': f'{{__graphite__={json.dumps(target)}}}'})}")
    return sum(sum(json.loads(series)["values"]) for series in answer.splitlines())


class Graphite(Program):
    """VictoriaMetrics, which takes Graphite's lines and answers Graphite's queries."""

    def __init__(self, folder: Path) -> None:
        self.line_port, port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        values = {
            "-graphiteListenAddr": f"127.0.0.1:{self.line_port}",
            "-httpListenAddr": f"127.0.0.1:{port}",
            "-storageDataPath": str(folder / "data"),
        }
        command: list[str | Path] = [tool("victoria-metrics"), *options_of("graphite", values)]
        super().__init__("graphite", command, folder, variables_of("graphite"))

    def run(self) -> Graphite:
        """Start it."""
        self.start(lambda: answers(f"{self.url}/health"))
        return self

    def total(self, target: str) -> float:
        """The sum of all values of the series that a target of Graphite selects."""
        return total(self.url, target)


class StatsD(Program):
    """Etsy's daemon with `collector-config/statsd/config.js`."""

    def __init__(self, folder: Path, graphite: Graphite) -> None:
        self.port, self._admin = free_port(), free_port()
        variables = {
            **variables_of("statsd", STATSD_BIND="127.0.0.1", GRAPHITE_HOST="127.0.0.1"),
            "STATSD_PORT": str(self.port),
            "STATSD_ADMIN_PORT": str(self._admin),
            "STATSD_FLUSH_MS": str(FLUSH_MS),
            "GRAPHITE_PORT": str(graphite.line_port),
        }
        command: list[str | Path] = ["node", tool("statsd"), CONFIGURATIONS / "statsd" / "config.js"]
        super().__init__("statsd", command, folder, variables)

    def run(self) -> StatsD:
        """Start it."""
        self.start(Service("statsd", f"127.0.0.1:{self._admin}", "").is_ready)
        return self


class Bridge(Program):
    """`forge-otel statsd-bridge` with the settings of the stack."""

    def __init__(self, folder: Path, statsd: StatsD) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        variables = {
            "PYTHONPATH": str(SOURCES),
            **variables_of("statsd-bridge", STATSD_HOST="127.0.0.1", STATSD_PORT=str(statsd.port)),
        }
        name, *_ = described()["statsd-bridge"]["command"]
        command: list[str | Path] = [sys.executable, "-m", "forge_otel.commands.cli", name, "--port", str(port)]
        super().__init__("bridge", command, folder, variables)

    def run(self) -> Bridge:
        """Start it."""
        self.start(lambda: answers(f"{self.url}/health"))
        return self
