"""A local Ray for tests: real processes, without a dashboard."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray

ON_RAY = [
    pytest.mark.slow,
    pytest.mark.usefixtures("local_cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # of its own, about itself
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
"""Marks of files whose tests need Ray."""


@contextmanager
def local_ray(cores: int = 4) -> Iterator[None]:
    """Start Ray with so many cores, whatever the machine has, and end it."""
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
