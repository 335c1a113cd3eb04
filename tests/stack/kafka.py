"""A Kafka broker, which is its own controller, on free ports of the loopback interface."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

from tests.support.needs import lacking
from tests.support.ports import free_port
from tests.support.tools import tool

from .programs import Program

SETTINGS = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
num.partitions=4
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
"""


class Kafka(Program):
    """A broker that makes topics, of four partitions, when somebody writes to them."""

    def __init__(self, folder: Path) -> None:
        java = shutil.which("java")
        if java is None:
            lacking("needs Java: apt-get install default-jre-headless")
        self._port = free_port()
        self.brokers = f"[127.0.0.1:{self._port}]"
        """As the configurations want it."""
        command = [java, "-Xmx256m", "-cp", str(tool("kafka").parent / "*")]
        settings = folder / "server.properties"
        super().__init__("kafka", [*command, "kafka.Kafka", settings], folder)
        settings.write_text(SETTINGS.format(port=self._port, controller=free_port(), folder=folder))
        identity = "MkU3OEVBNTcwNTJENDM2Qg"
        subprocess.run(
            [*command, "kafka.tools.StorageTool", "format", "--cluster-id", identity, "--config", str(settings)],
            check=True,
            capture_output=True,
        )

    def run(self) -> Kafka:
        """Start it."""
        self.start(self._accepts)
        return self

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True
