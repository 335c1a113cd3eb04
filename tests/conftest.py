"""Fixtures of all tests."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.support import postgresql, vocabulary
from tests.support.coverage import Coverage
from tests.support.needs import lacking
from tests.support.runs import PATIENCE
from tests.support.telemetry import UNVERIFIED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

    from tests.support.ray import Nodes

TESTS = Path(__file__).parent

# Ray would give way to all other tests: a run then takes minutes, of which most is waiting for workers to start.
os.environ.setdefault("RAY_worker_niceness", "0")

TOGETHER = {
    "containers": ("tests/stack/containers/",),
    "ray": (
        "tests/forge/runner/ray/",
        "tests/forge_otel/instrumentors/ray_data/",
        "tests/forge_otel/instrumentors/test_executions.py",
        "tests/forge_otel/test_worker.py",
        "tests/stack/test_ray.py",
    ),
}
"""Folders and files whose tests share what takes long to start, and would slow each other down."""

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


@pytest.fixture(scope="module")
def local_cluster() -> None:
    """A Ray that the tests of a process share, until it ends."""
    from tests.support.ray import start_local_ray  # noqa: PLC0415 - imports Ray, which takes a second

    start_local_ray()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of Ray whose nodes come and go."""
    from tests.support.ray import several_nodes  # noqa: PLC0415 - as above

    with several_nodes() as nodes:
        yield nodes


def _plain_environment() -> None:
    # The last ones are those of `make test ARGS=…`, which another `make` that a test calls would take for its own.
    for name in [name for name in os.environ if name.startswith(("OTEL_", "FORGE_", "MAKE", "MFLAGS"))]:
        del os.environ[name]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Coverage(TESTS), "vocabulary-coverage")


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs PostgreSQL as slow, and begin with what takes longest, so that no worker of pytest-xdist is left
    with it at the end.
    """
    for item in items:
        if _needs_postgresql(item):
            item.add_marker(pytest.mark.slow)
    folders = [f"tests/{folder}/" for folder in ("repository", "stack", "recipes")]
    slowest: list[str | tuple[str, ...]] = [*TOGETHER.values(), *folders, "tests/"]
    items.sort(key=lambda item: next(rank for rank, paths in enumerate(slowest) if item.nodeid.startswith(paths)))


def _needs_postgresql(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return "postgresql_server" in item.fixturenames or parameters.get("storage_url") == "postgresql"


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep what is there for the whole session out of the garbage collector's way: a sixth of all processor time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Keep the tests of a file together, and those of `TOGETHER`; their fixtures are made once then."""
    return Files(config, log) if config.getvalue("dist") == "loadfile" else None


class Files(LoadFileScheduling):
    """Tests by file, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        shared = (name for name, paths in TOGETHER.items() if nodeid.startswith(paths))
        return next(shared, None) or super()._split_scope(nodeid)


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
        if isinstance(thread, threading._DummyThread):  # Ray's, which has called Python; it cannot be joined
            continue
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
