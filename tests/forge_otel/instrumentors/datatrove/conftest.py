"""Fixtures of the tests with datatrove."""

from __future__ import annotations

import pytest
from fsspec.asyn import get_loop
from tqdm import tqdm


@pytest.fixture(scope="session", autouse=True)
def _no_new_threads() -> None:
    """Libraries of datatrove start a thread that stays: start it before any test looks at its threads, or never."""
    get_loop()
    tqdm.monitor_interval = 0
