"""Transactions on a database that does not work for a while, and options of connections."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import URL, Engine, NullPool, event
from sqlalchemy.exc import DBAPIError, StatementError

from forge import Pipeline, StreamingRunner
from forge.errors import ConfigurationError, StorageError
from forge.pipeline.failure import FailureSource
from forge.pipeline.sample import SampleStatus
from forge.storage import SampleRecord, SQLStorage, WriteOutcome
from forge.storage.gate import Patience, patience
from forge.storage.records import DeadLetter
from forge.support.numbers import shown
from tests.support import pgbouncer
from tests.support.clock import FakeClock
from tests.support.needs import lacking
from tests.support.runs import PATIENCE, ledger, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.postgresql import Server

INSERTED, UPDATED, UNCHANGED = WriteOutcome.INSERTED, WriteOutcome.UPDATED, WriteOutcome.UNCHANGED


def ready(sample_id: str, **fields: Any) -> SampleRecord:
    return SampleRecord(pipeline="p", id=sample_id, **({"status": SampleStatus.READY, "run_id": "r"} | fields))


def failed(sample_id: str) -> SampleRecord:
    entry = DeadLetter(
        pipeline="p",
        sample_id=sample_id,
        source=FailureSource.STAGE,
        where="parse",
        error_type="ValueError",
        message="bad",
        attempts=1,
        time=100.0,
        data=b"1",
    )
    return ready(sample_id, status=SampleStatus.DLQ, dead_letter=entry)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that holds the write lock of `forge.db`."""
    storage = SQLStorage(f"sqlite:///{tmp_path / 'forge.db'}")
    storage.open()
    storage.close()
    connection = sqlite3.connect(tmp_path / "forge.db", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


# How long


OPERATIONS: dict[str, Callable[[SQLStorage], Any]] = {
    "write": lambda storage: storage.write([ready("a")]),
    "delete": lambda storage: storage.delete("p", ["a"]),
    "drop": lambda storage: storage.drop_dead_letters("p", ["a"]),
    "begin": lambda storage: storage.begin_run("r", "p", "", 1.0, {}),
    "end": lambda storage: storage.end_run("r", 1.0, "completed", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
@pytest.mark.parametrize("timeout", [60, 7.5])
def test_an_operation_is_tried_again_for_the_timeout(
    operation: Callable[[SQLStorage], Any], timeout: float, tmp_path: Path, locked: sqlite3.Connection
) -> None:
    clock = FakeClock()
    url = f"sqlite:///{tmp_path / 'forge.db'}"
    storage = SQLStorage(url, timeout=timeout, clock=clock)
    locked.execute("ROLLBACK")
    storage.open()
    locked.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError) as caught:
        operation(storage)
    assert clock.monotonic() == pytest.approx(timeout, abs=1e-9)
    assert str(caught.value) == (
        f"cannot use {url}: database is locked (tried for {timeout:.0f} s); another process holds the lock of the "
        "file: end it, or let it finish, and run again: samples that are finished are not processed again"
    )
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert not storage.gate.closed
    storage.close()


READS: dict[str, Callable[[SQLStorage], Any]] = {
    "read": lambda storage: storage.read("p", ["a"]),
    "query": lambda storage: storage.query("p"),
    "measured": lambda storage: storage.measured("p", [("a", "d")], "k", "1"),
    "costs": lambda storage: storage.costs("p", [("a", "d")], "k", "1"),
    "has costs": lambda storage: storage.has_costs("p"),
    "count": lambda storage: storage.count("p"),
    "dead letters": lambda storage: storage.dead_letters("p"),
    "state": lambda storage: storage.dead_letter_state("p"),
    "runs": lambda storage: storage.runs(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_reads_are_tried_again_as_well(read: Callable[[SQLStorage], Any], storage_url: str) -> None:
    clock = FakeClock()
    storage = SQLStorage(storage_url, timeout=1, clock=clock)
    storage.open()
    execute = (
        sqlite3.connect(storage_url.removeprefix("sqlite:///"))
        if storage.backend == "sqlite"
        else psycopg.connect(storage_url)
    )
    tables = ("samples", "measurements", "costs", "dead_letters", "runs")
    for table in tables:
        execute.execute(f"ALTER TABLE forge_{table} RENAME TO hidden_{table}")
    execute.commit()
    with pytest.raises(StorageError, match=r"; restore the tables, or let the next run create missing ones, and run"):
        read(storage)
    assert clock.monotonic() == pytest.approx(1, abs=1e-9)
    for table in tables:
        execute.execute(f"ALTER TABLE hidden_{table} RENAME TO forge_{table}")
    execute.commit()
    execute.close()
    read(storage)
    storage.close()


def test_an_iterator_of_ids_is_read_once_and_used_for_every_attempt(tmp_path: Path, locked: sqlite3.Connection) -> None:
    storage = SQLStorage(f"sqlite:///{tmp_path / 'forge.db'}")
    locked.execute("ROLLBACK")
    storage.write([ready("a"), ready("b"), ready("c")])
    locked.execute("BEGIN IMMEDIATE")
    release_when_closed(storage, locked)
    assert storage.delete("p", iter(["a", "b"])) == 2
    storage.close()


def release_when_closed(storage: SQLStorage, locked: sqlite3.Connection) -> None:
    """Release the lock as soon as somebody waits for it."""

    def release() -> None:
        deadline = time.monotonic() + PATIENCE
        while not storage.gate.closed:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        locked.execute("ROLLBACK")

    threading.Thread(target=release).start()


@pytest.mark.slow
def test_a_lock_is_waited_for_when_the_database_is_opened(tmp_path: Path, locked: sqlite3.Connection) -> None:
    clock = FakeClock()
    with pytest.raises(StorageError, match=r"database is locked \(tried for 60 s\)"):
        SQLStorage(f"sqlite:///{tmp_path / 'forge.db'}", clock=clock).open()
    assert clock.monotonic() == pytest.approx(60, abs=1e-9)
    storage = SQLStorage(f"sqlite:///{tmp_path / 'forge.db'}")
    release_when_closed(storage, locked)
    assert storage.write([ready("a")]).outcomes == (INSERTED,)
    storage.close()


@pytest.mark.slow
def test_a_run_learns_of_the_loss_before_the_gate_opens(tmp_path: Path, locked: sqlite3.Connection) -> None:
    storage, other = (SQLStorage(f"sqlite:///{tmp_path / 'forge.db'}", clock=FakeClock()) for _ in range(2))
    lost: list[tuple[str, bool]] = []

    def write() -> None:
        patience.set(Patience(storage=storage, lost=lambda error: lost.append((str(error), storage.gate.closed))))
        for each in (other, storage):  # the other one is no business of the run
            with pytest.raises(StorageError) as caught:
                each.write([ready("a")])
        assert lost == [(str(caught.value), True)]

    contextvars.copy_context().run(write)
    assert locked.in_transaction


@pytest.mark.slow
def test_a_process_that_is_forked_during_a_fault_does_not_wait(tmp_path: Path) -> None:
    program = """
import os, sqlite3, sys, threading, time
from forge.pipeline.sample import SampleStatus
from forge.storage import SampleRecord, SQLStorage

storage = SQLStorage(f"sqlite:///{sys.argv[1]}")
storage.open()
lock = sqlite3.connect(sys.argv[1], isolation_level=None)
lock.execute("BEGIN IMMEDIATE")

def write(name):
    storage.write([SampleRecord(pipeline="p", id=name, status=SampleStatus.READY)])

waiting = threading.Thread(target=write, args=["parent"])
waiting.start()
while not storage.gate.closed:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    print(storage.gate.closed, flush=True)
    os._exit(0)
status = os.waitpid(child, 0)[1]
lock.execute("ROLLBACK")
waiting.join()
print(status, storage.gate.closed, storage.count("p"))
storage.close()
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "forge.db")], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "False\n0 False 1\n"
    assert answer.stderr == ""


def test_a_long_fault_is_logged_once_with_its_end(
    tmp_path: Path, locked: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    class Clock(FakeClock):
        def advance(self, seconds: float) -> None:
            super().advance(seconds)
            if self.monotonic() > 10 and locked.in_transaction:
                locked.execute("ROLLBACK")

    url = f"sqlite:///{tmp_path / 'forge.db'}"
    storage = SQLStorage(url, clock=Clock())
    with caplog.at_level(logging.WARNING, "forge"):
        storage.write([ready("a")])
    assert [record.getMessage() for record in caplog.records] == [
        f"{url} does not work, and is tried again for up to 60 s: database is locked; meanwhile no new calls are made",
        f"{url} works again, after 10 s",
    ]
    storage.close()


def test_errors_of_the_content_are_not_tried_again(storage_url: str) -> None:
    clock = FakeClock()
    storage = SQLStorage(storage_url, clock=clock)
    storage.begin_run("r", "p", "", 1.0, {})
    with pytest.raises(DBAPIError):
        storage.begin_run("r", "p", "", 1.0, {})
    with pytest.raises((StatementError, TypeError)):
        storage.write([ready("a", data=object())])
    assert clock.monotonic() == 0
    storage.close()


# PostgreSQL


class Proxy:
    """Passes bytes between a client and the server; loses the answer to the first COMMIT that it is told to lose."""

    def __init__(self, server_port: int) -> None:
        self.lose = False
        self.lost = 0
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += [client, server]
            committing = threading.Event()
            threading.Thread(target=self._pass, args=(client, server, committing, True)).start()
            threading.Thread(target=self._pass, args=(server, client, committing, False)).start()

    def _pass(self, source: socket.socket, to: socket.socket, committing: threading.Event, from_client: bool) -> None:
        try:
            while data := source.recv(65536):
                if from_client and self.lose and b"COMMIT" in data:
                    self.lose = False
                    committing.set()
                elif not from_client and committing.is_set():
                    self.lost += 1  # the server has committed, and the client does not learn of it
                    break
                to.sendall(data)
        except OSError:
            pass
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(postgresql_server: Server) -> Iterator[Proxy]:
    proxy = Proxy(postgresql_server.port)
    yield proxy
    proxy.close()


@pytest.mark.slow
def test_a_commit_whose_answer_is_lost_is_not_done_twice(
    postgresql_url: str, postgresql_server: Server, proxy: Proxy
) -> None:
    storage = SQLStorage(postgresql_url.replace(f":{postgresql_server.port}/", f":{proxy.port}/"))
    storage.open()

    def losing(action: Callable[[], Any]) -> Any:
        before = proxy.lost
        proxy.lose = True
        result = action()
        assert proxy.lost == before + 1
        return result

    losing(lambda: storage.begin_run("r", "p", "", 1.0, {}))
    assert losing(lambda: storage.write([ready("a"), ready("b", data=b"12"), failed("c")])).outcomes == (INSERTED,) * 3
    result = losing(lambda: storage.write([ready("a"), ready("b", data=b"123"), ready("c")]))
    assert result.outcomes == (UNCHANGED, UPDATED, UPDATED)
    assert [key.sample_id for key in result.superseded] == ["c"]
    storage.write([failed("c")])
    assert [entry.sample_id for entry in losing(lambda: storage.drop_dead_letters("p", ["c"]))] == ["c"]
    assert losing(lambda: storage.delete("p", ["a", "absent"])) == 1
    losing(lambda: storage.end_run("r", 2.0, "completed", {}))
    assert [row.outcome for row in storage.runs()] == ["completed"]
    assert storage.count("p") == 2
    storage.close()


LOCKED = r": canceling statement due to lock timeout.*; another session holds locks on the tables: end it, or let it f"


class GateClock(FakeClock):
    """Notes at each wait between attempts whether the gate of the storage is closed."""

    storage: SQLStorage

    def __init__(self) -> None:
        super().__init__()
        self.closed: set[bool] = set()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.closed.add(self.storage.gate.closed)
        return super().wait(stop, seconds)


@contextlib.contextmanager
def locking(url: str, statement: str) -> Iterator[None]:
    """Hold the locks of a statement in another session, which the server ends if somebody waits without a limit."""
    with psycopg.connect(url) as other:
        other.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE:g}s'".encode())
        other.execute(statement.encode())
        yield


@pytest.mark.slow
@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_locked_table_is_waited_for_by_reads(read: Callable[[SQLStorage], Any], postgresql_url: str) -> None:
    clock = GateClock()
    storage = clock.storage = SQLStorage(postgresql_url, timeout=0.02, clock=clock)
    storage.open()
    tables = "forge_samples, forge_measurements, forge_costs, forge_dead_letters, forge_runs"
    with (
        locking(postgresql_url, f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"),
        pytest.raises(StorageError, match=LOCKED),
    ):
        read(storage)
    assert clock.monotonic() == pytest.approx(0.02, abs=1e-9)
    assert clock.closed == {True}
    assert not storage.gate.closed
    read(storage)
    storage.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement", ["SELECT pg_advisory_xact_lock(439956432741)", "LOCK TABLE forge_schema IN ACCESS EXCLUSIVE MODE"]
)
def test_a_migration_by_another_process_is_waited_for_when_the_database_is_opened(
    statement: str, postgresql_url: str
) -> None:
    clock = GateClock()
    storage = clock.storage = SQLStorage(postgresql_url, timeout=0.02, clock=clock)
    storage.open()
    storage.close()
    with locking(postgresql_url, statement), pytest.raises(StorageError, match=LOCKED):
        storage.open()
    assert clock.monotonic() == pytest.approx(0.02, abs=1e-9)
    assert clock.closed == {True}
    storage.open()
    storage.close()


def test_a_locked_version_of_the_schema_is_waited_for(postgresql_url: str) -> None:
    storage = SQLStorage(postgresql_url, timeout=0.02)
    storage.open()
    with (
        locking(postgresql_url, "LOCK TABLE forge_schema IN ACCESS EXCLUSIVE MODE"),
        pytest.raises(StorageError, match="canceling statement due to lock timeout"),
    ):
        storage.schema_version()
    longest = SQLStorage(postgresql_url, timeout=1e300)  # more than the server can count
    assert longest.schema_version() == storage.schema_version() > 0
    storage.close()


@pytest.mark.slow
def test_transactions_that_conflict_or_deadlock_are_repeated(postgresql_url: str) -> None:
    """Serializable transactions on the same rows fail with 40001 again and again, and mixed orders with 40P01."""
    storage = SQLStorage(
        postgresql_url, connect_args={"options": "-c default_transaction_isolation=serializable -c deadlock_timeout=10"}
    )
    storage.write([ready(str(number), data=b"") for number in range(20)])

    def write(name: int) -> int:
        return sum(
            storage.write([ready(str(number), data=f"{name} {turn}".encode()) for number in range(20)]).size
            for turn in range(10)
        )

    def lock_backwards(_: int) -> int:
        with psycopg.connect(postgresql_url, autocommit=True) as other:
            for _ in range(10):
                with contextlib.suppress(psycopg.errors.DeadlockDetected), other.transaction():
                    for number in range(19, -1, -1):
                        other.execute("UPDATE forge_samples SET run_id = 'x' WHERE id = %s", [str(number)])
        return 0

    with ThreadPoolExecutor(6) as threads:
        jobs = [threads.submit(write, name) for name in range(4)]
        jobs += [threads.submit(lock_backwards, name) for name in range(2)]
        sizes = [job.result() for job in jobs]
    assert sizes == [10 * 20 * 3] * 4 + [0, 0]
    with psycopg.connect(postgresql_url) as server:
        assert server.execute("SELECT DISTINCT revision FROM forge_samples").fetchall() == [(41,)]
    storage.close()


@pytest.mark.slow
def test_a_pooler_that_gives_each_transaction_another_connection(postgresql_url: str) -> None:
    if not pgbouncer.is_installed():
        lacking(f"needs PgBouncer: {pgbouncer.INSTALL}")
    with pgbouncer.pooled(postgresql_url) as url:
        clock = FakeClock()
        storage = SQLStorage(url, clock=clock)
        pipeline = Pipeline(name="p", source=samples(*range(500)), storage=storage)
        assert ledger(StreamingRunner().run(pipeline).drain()) == {"admitted": 500, "ready": 500}
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: storage.count("p"), range(400)))
        assert found == [500] * 400
        assert ledger(StreamingRunner().run(pipeline).drain()) == {"admitted": 500, "unchanged": 500}
        assert clock.monotonic() == 0  # nothing had to be repeated
        storage.close()
    with psycopg.connect(postgresql_url) as server:
        assert server.execute("SHOW lock_timeout").fetchall() == [("0",)]


# Options


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), True, "60", 10**400])
def test_a_timeout_that_is_none(timeout: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLStorage("sqlite://", timeout=timeout)
    assert str(caught.value) == f"SQLStorage: timeout must be a number of seconds from 0, not {shown(timeout)}"


def test_options_of_the_engine_and_the_driver(postgresql_url: str) -> None:
    storage = SQLStorage(
        f"{postgresql_url}?connect_timeout=3&prepare_threshold=2",
        pool_size=1,
        max_overflow=0,
        connect_args={"application_name": "corpus"},
    )
    storage.write([ready("a")])
    with psycopg.connect(postgresql_url) as server:
        names = server.execute(
            "SELECT application_name FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    assert names == [("corpus",)]
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.count("p") == 1
    assert repr(copy) == repr(storage)
    assert "***" in repr(storage)
    for each in (storage, copy):
        each.close()


@pytest.mark.skipif(sys.platform != "linux", reason="options of Linux")
def test_a_server_that_is_gone_is_noticed_in_seconds(postgresql_url: str) -> None:
    """A machine that vanishes does not end its connections, and TCP would wait for two hours."""
    found: list[list[int]] = []

    def look(connection: Any, _record: Any) -> None:
        with socket.socket(fileno=os.dup(connection.fileno())) as each:
            options = (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
            found.append([each.getsockopt(socket.IPPROTO_TCP, option) for option in options])

    event.listen(Engine, "connect", look)
    try:
        for url in (postgresql_url, f"{postgresql_url}?tcp_user_timeout=3000&keepalives_idle=7"):
            storage = SQLStorage(url)
            storage.open()
            storage.close()
    finally:
        event.remove(Engine, "connect", look)
    assert found == [[10_000, 10, 5], [3_000, 7, 5]]


def test_options_of_sqlite(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "forge.db"), query={"timeout": "0.5", "cached_statements": "10"})
    storage = SQLStorage(url, poolclass=NullPool, echo=False)  # type: ignore[arg-type]
    assert storage.write([ready("a")]).outcomes == (INSERTED,)
    storage.close()
    with_uri = SQLStorage(f"sqlite:///file:{tmp_path / 'forge.db'}?mode=rw&uri=true")
    assert with_uri.count("p") == 1
    with_uri.close()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("sqlite:///a.db", {"pool_sise": 2}, "Invalid argument(s) 'pool_sise' sent to create_engine()"),
        ("postgresql://host/a", {"pool_sise": 2}, "Invalid argument(s) 'pool_sise' sent to create_engine()"),
        ("sqlite:///a.db", {"isolation_level": "AUTOCOMMIT"}, "SQLStorage: isolation_level cannot be set, because "),
        ("sqlite://", {"pool_size": 5}, "SQLStorage: pool_size cannot be set, because the storage does"),
        ("postgresql://host/a", {"connect_args": {"autocommit": True}}, "connect_args['autocommit'] cannot be set"),
        ("postgresql://host/a?autocommit=true", {}, "autocommit cannot be set, because the storage does"),
        ("postgresql://h/a?prepare_threshold=x", {}, "prepare_threshold must be a number or none, not 'x'"),
        ("sqlite:///a.db?isolation_level=x", {}, "isolation_level cannot be set, because the storage does"),
        ("sqlite:///a.db?timeout=soon", {}, "timeout must be a number of seconds below a million, not 'soon'"),
        ("sqlite:///a.db?timeout=nan", {}, "timeout must be a number of seconds below a million, not 'nan'"),
        ("sqlite:///a.db?timeout=-1", {}, "timeout must be a number of seconds below a million, not '-1'"),
        ("sqlite:///a.db?timeout=1e10", {}, "timeout must be a number of seconds below a million, not '1e10'"),
        ("sqlite:///a.db?mode=ro", {}, "mode would be ignored; it needs uri=true, and a file: URI"),
        ("sqlite://host/a.db", {}, "a file has neither user nor host; write sqlite:///file.db for a file"),
        ("sqlite:///file:a?mode=memory&cache=shared&uri=true", {}, "each connection would have a database of its own"),
        ("sqlite:///file::memory:?uri=true", {}, "each connection would have a database of its own"),
        ("sqlite:///file:?uri=true", {}, "each connection would have a database of its own"),
        ("sqlite:///file:a.db?cache=shared&uri=true", {}, "connections with a shared cache lock each other out"),
        ("sqlite:///file:a.db%3Fcache=shared?uri=true", {}, "connections with a shared cache lock each other out"),
        ("sqlite:///file:a.db?nolock=1&uri=true", {}, "nolock switches the locks off"),
        ("sqlite:///file:a.db?immutable=1&uri=true", {}, "immutable switches the locks off"),
        ("sqlite:///file:a.db%3Fnolock=1%26nolock=0?uri=true", {}, "nolock switches the locks off"),
        ("sqlite:///file:a.db?vfs=unix-none&uri=true", {}, "the vfs unix-none switches the locks off"),
        ("sqlite:///file:a.db%3Fvfs=win32-none?uri=true", {}, "the vfs win32-none switches the locks off"),
        ("sqlite:///file:a.db?vfs=unix-dotfile&uri=true", {}, "a database of the vfs unix-dotfile has no write-ahead"),
        ("sqlite:///file:/a?vfs=memdb&uri=true", {}, "a database of the vfs memdb has no write-ahead log"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_where_it_is_given(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLStorage(url, **options)
    assert message in str(caught.value)


def test_passwords_among_the_parameters_are_not_shown() -> None:
    storage = SQLStorage("postgresql://me:secret@127.0.0.1:1/a?sslpassword=secret&passfile=x")
    assert "secret" not in repr(storage)
    with pytest.raises(StorageError) as caught:
        storage.open()
    assert "secret" not in str(caught.value)
