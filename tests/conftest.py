"""Fixtures of all tests."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support import postgresql, vocabulary
from tests.support.needs import lacking
from tests.support.runs import PATIENCE
from tests.support.telemetry import UNVERIFIED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

settings.register_profile("untimed", deadline=None)  # how long an example takes says more of the machine than of us
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def _plain_session() -> None:
    """The tests say themselves what is set; what the user of this machine has set must not matter."""
    _plain_environment()


@pytest.fixture(autouse=True)
def _plain_test() -> None:
    """Nor what another test has set: the demo sets variables for its process, which in some tests is this one."""
    _plain_environment()


def _plain_environment() -> None:
    for name in [name for name in os.environ if name.startswith(("OTEL_", "FORGE_"))]:
        del os.environ[name]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: the test looks at what all others did, and comes after them")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(autouse=True)
def _telemetry_keeps_to_the_vocabulary() -> Iterator[None]:
    yield
    recorded = UNVERIFIED.copy()
    UNVERIFIED.clear()
    if recorded:
        found = vocabulary.deviations(recorded)
        assert not found, "\n".join(map(str, found))


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Fails a test whose runs leave threads behind."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} is still there"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    if not postgresql.is_installed():
        lacking(f"needs PostgreSQL: {postgresql.INSTALL}")
    with postgresql.running_server() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: postgresql.Server) -> Iterator[str]:
    """An empty PostgreSQL database."""
    with postgresql_server.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once in SQLite and once in PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'forge.db'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url
