"""Etsy's StatsD daemon on free ports of the loopback interface."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.tools import tool
from tests.support.waiting import LONG, wait_until

from .programs import Program

BACKEND = """
const fs = require('fs');
exports.init = function (startup, config, events) {
  events.on('flush', function (time, metrics) { fs.writeFileSync(config.result, JSON.stringify(metrics)); });
  return true;
};
"""


class Etsy(Program):
    """The daemon with the percentiles 50, 90 and 99. It flushes once, when it is stopped."""

    def __init__(self, folder: Path, server: str = "udp") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self._admin = free_port(), free_port()
        self._result = folder / "metrics.json"
        (folder / "backend.js").write_text(BACKEND)
        configuration = {
            "address": "127.0.0.1",
            "port": self.port,
            "mgmt_address": "127.0.0.1",
            "mgmt_port": self._admin,
            "server": f"./servers/{server}",
            "backends": [str(folder / "backend.js")],
            "result": str(self._result),
            "flushInterval": 3_600_000,
            "percentThreshold": [50, 90, 99],
        }
        (folder / "statsd.js").write_text(json.dumps(configuration))
        super().__init__("statsd", ["node", tool("statsd"), "statsd.js"], folder)

    def run(self) -> Etsy:
        """Start it."""
        self.start(self._is_ready)
        return self

    def result(self, lines: int) -> dict[str, Any]:
        """Wait for so many lines and stop it; its counters, its gauges and what it computed of timers."""
        wait_until(lambda: self._own("metrics_received") >= lines, f"{lines} lines have arrived")
        self.stop()
        metrics: dict[str, Any] = json.loads(self._result.read_text())
        own = {name: metrics["counters"].pop(f"statsd.{name}") for name in ("metrics_received", "bad_lines_seen")}
        assert own == {"metrics_received": lines, "bad_lines_seen": 0}
        metrics["counters"].pop("statsd.packets_received")
        metrics["counters"].pop("end", None)
        metrics["gauges"].pop("statsd.timestamp_lag", None)
        return {kind: metrics[kind] for kind in ("counters", "gauges", "timer_data")}

    def received(self) -> int:
        """How many lines came by UDP until now: what is sent last is read last."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end:1|c", ("127.0.0.1", self.port))
        wait_until(lambda: self.counter("end") == 1, "the last line has arrived")
        return int(self._own("metrics_received"))

    def counter(self, name: str) -> float:
        """A counter as it is now."""
        match = re.search(rf"'?{re.escape(name)}'?: (-?[\d.]+)", self._ask("counters"))
        return float(match[1]) if match else 0.0

    def _own(self, name: str) -> float:
        return self.counter(f"statsd.{name}")

    def _is_ready(self) -> bool:
        try:
            return "END" in self._ask("counters")
        except ConnectionError:
            return False

    def _ask(self, command: str) -> str:
        with socket.create_connection(("127.0.0.1", self._admin), LONG) as connection:
            connection.sendall(f"{command}\n".encode())
            answer = b""
            while not answer.endswith(b"END\n\n"):
                answer += connection.recv(65536)
        return answer.decode()
