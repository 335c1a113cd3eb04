"""A local Ray for tests: real processes, without a dashboard."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from tests.support.runs import PATIENCE

ON_RAY = [
    pytest.mark.slow,
    pytest.mark.usefixtures("local_cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # of its own, about itself
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
"""Marks of files whose tests need Ray."""
ON_NODES = [mark for mark in ON_RAY if mark.name != "usefixtures"]
"""Marks of files whose tests have a cluster of several nodes."""

NOTICES = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""Settings of a cluster with which it soon notices that a node has died."""


def start_local_ray(cores: int = 4) -> None:
    """Start Ray with so many cores, whatever the machine has, unless it runs already."""
    if not ray.is_initialized():
        ray.init(
            address="local", num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )


def kill_worker(title: str) -> int:
    """Kill a process of this process's own Ray by the title it has, as soon as there is one; returns its number."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith(title):
                    process.kill()
                    return process.pid
        time.sleep(0.02)
    raise AssertionError(f"no process {title}")


class Nodes:
    """A cluster of several nodes on this machine. The driver is on the first one, which has no cores."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def address(self) -> str:
        """Address of the cluster."""
        address: str = self._cluster.address
        return address

    def add(self, cores: int = 1, variables: Mapping[str, str] | None = None, **resources: float) -> Any:
        """Add a node with so many cores, and environment variables and resources of its own; returns it."""
        return self._cluster.add_node(num_cpus=cores, resources=resources, env_vars=dict(variables or {}))

    def kill(self, node: Any) -> None:
        """Kill all processes of a node."""
        self._cluster.remove_node(node, allow_graceful=False)

    def clear(self) -> None:
        """Kill all nodes but the first."""
        for node in list(self._cluster.worker_nodes):
            self.kill(node)

    def connect(self) -> None:
        """Connect this process, unless it is connected."""
        if not ray.is_initialized():
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)


@contextmanager
def several_nodes() -> Iterator[Nodes]:
    """Start a cluster with one node, and end it with those that were added."""
    ray.shutdown()  # that of other tests
    with tempfile.TemporaryDirectory(prefix="nodes") as folder, pytest.MonkeyPatch.context() as environment:
        # Otherwise it would be the current cluster of the machine, to which whoever starts Ray is connected.
        environment.setenv("RAY_TMPDIR", folder)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": NOTICES},
        )
        nodes = Nodes(cluster)
        try:
            nodes.connect()
            yield nodes
        finally:
            ray.shutdown()
            cluster.shutdown()
