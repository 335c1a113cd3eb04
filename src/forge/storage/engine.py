"""Connections to SQLite and PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from ..errors import ConfigurationError, StorageError
from .migrations import NewerSchemaError, migrate, version_of

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}

_LOCK_TIMEOUT = 60.0
"""Seconds that a writer waits for another one to let go of the SQLite file, or for a free connection."""
_CONNECT_TIMEOUT = "10"
"""Seconds in which a PostgreSQL server must answer, unless the URL says otherwise."""
_CREATION_LOCK = 0x666F726765
"""Number of the PostgreSQL lock under which tables are created."""


class Engines(NamedTuple):
    """The engines of one process."""

    write: Engine
    read: Engine
    pid: int


def parse_url(url: str) -> URL:
    """Parse a database URL.

    Raises:
        ConfigurationError: it is none, or names another kind of database.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            f"SQLStorage({url!r}): not a database URL; write sqlite:///file.db or postgresql://user@host/database"
        ) from None
    if parsed.drivername not in _DRIVERS:
        raise ConfigurationError(
            f"SQLStorage: {parsed.drivername!r} is no database it knows; there are {', '.join(_DRIVERS)}"
        )
    return parsed


def backend_of(url: URL) -> str:
    """`sqlite` or `postgresql`."""
    return _DRIVERS[url.drivername].partition("+")[0]


def is_in_memory(url: URL) -> bool:
    """Return True if the database is lost when its connection is closed."""
    return backend_of(url) == "sqlite" and url.database in (None, "", ":memory:")


def connect(url: URL) -> Engines:
    """Connect, create missing tables, and migrate those of an earlier release.

    Raises:
        StorageError: the driver, the folder, the permission or the server is missing, the file is no database, or a
            newer release has migrated it.
    """
    is_sqlite = backend_of(url) == "sqlite"
    try:
        engine = _sqlite_engine(url) if is_sqlite else _postgresql_engine(url)
    except ImportError as error:
        raise _unusable(url, f'{error}; pip install "forge-otel[postgresql]" installs the driver') from error
    try:
        with engine.begin() as connection:
            if not is_sqlite:
                # Two processes that create the same table at once would fail, even with IF NOT EXISTS. SQLite's lock is
                # held from the beginning of the transaction.
                connection.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCK)))
            migrate(connection)
    except NewerSchemaError as error:
        engine.dispose()
        raise _unusable(url, str(error)) from None
    except SQLAlchemyError as error:
        engine.dispose()
        raise _unusable(url, str(error.orig if isinstance(error, DBAPIError) else error)) from error
    # Several statements of one read see the same state of the database.
    reading = {"sqlite_begin": "BEGIN"} if is_sqlite else {"isolation_level": "REPEATABLE READ"}
    return Engines(engine, engine.execution_options(**reading), os.getpid())


def schema_version(url: URL) -> int:
    """Return the version of the schema without changing anything; 0 if there are no tables yet.

    Raises:
        StorageError: as for `connect`.
    """
    if backend_of(url) == "sqlite":
        if is_in_memory(url) or not (url.query.get("uri") or Path(url.database or "").exists()):
            return 0  # connecting would create the file
    else:
        url = _with_connect_timeout(url)
    try:
        engine = create_engine(_with_driver(url), poolclass=NullPool)
        with engine.connect() as connection:
            return version_of(connection)
    except (ImportError, SQLAlchemyError) as error:
        raise _unusable(url, str(error.orig if isinstance(error, DBAPIError) else error)) from error


def _sqlite_engine(url: URL) -> Engine:
    if sqlite3.sqlite_version_info < (3, 35):
        raise _unusable(url, f"SQLite 3.35 or newer is needed; this Python has {sqlite3.sqlite_version}")
    in_memory = is_in_memory(url)
    if url.database and not in_memory and not url.database.startswith("file:"):
        folder = Path(url.database).absolute().parent
        if not folder.is_dir():
            raise _unusable(url, f"there is no folder {folder}; create it first")
    engine = create_engine(
        _with_driver(url),
        hide_parameters=True,  # error messages go to logs and traces: no ids, no data
        poolclass=QueuePool,
        # A database in memory is its connection, so there must be one only.
        pool_size=1 if in_memory else 5,
        max_overflow=0 if in_memory else 10,
        pool_timeout=_LOCK_TIMEOUT,
        connect_args={"timeout": _LOCK_TIMEOUT, "check_same_thread": False},
    )

    # One statement for many rows: `executemany` gives up the interpreter lock twice for each of them.
    engine.dialect.use_insertmanyvalues_wo_returning = True

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # no BEGIN but ours
        # Readers go on while somebody writes. A commit survives the process, if not a power failure.
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # A transaction that reads first and locks later fails when somebody else has written in between.
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get("sqlite_begin", "BEGIN IMMEDIATE"))

    return engine


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging. If several processes open a new file at once, SQLite lets one succeed and the
    others fail without waiting."""
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _postgresql_engine(url: URL) -> Engine:
    url = _with_connect_timeout(url)
    return create_engine(_with_driver(url), hide_parameters=True, pool_pre_ping=True, pool_timeout=_LOCK_TIMEOUT)


def _with_connect_timeout(url: URL) -> URL:
    return url if "connect_timeout" in url.query else url.update_query_dict({"connect_timeout": _CONNECT_TIMEOUT})


def _with_driver(url: URL) -> URL:
    return url.set(drivername=_DRIVERS[url.drivername])


def _unusable(url: URL, reason: str) -> StorageError:
    return StorageError(f"cannot use {url.render_as_string()}: {' '.join(reason.split())}")
