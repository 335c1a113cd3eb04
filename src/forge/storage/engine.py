"""Connections to SQLite and PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ..errors import ConfigurationError, StorageError
from .faults import code_of, reason_of
from .migrations import NewerSchemaError, is_current, migrate, version_of

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}

_LOCK_TIMEOUT = 60.0
"""Seconds for which operations are tried again while the database is locked or does not work, unless the storage has a
`timeout` of its own."""
_NETWORK: Mapping[str, str] = {
    "connect_timeout": "10",  # seconds in which a server must answer
    "tcp_user_timeout": "10000",  # milliseconds in which its machine must acknowledge what was sent to it
    "keepalives_idle": "10",  # seconds without an answer after which that is asked for,
    "keepalives_interval": "5",  # and asked for again: a machine that is gone does not end its connections
}
"""Parameters of libpq, unless the URL has others."""
_LOCK_WAIT = 1.0
"""Maximum seconds that a statement waits for a lock in PostgreSQL before the transaction is tried again."""
_LONGEST_LOCK_TIMEOUT = 2**31 - 1
"""Milliseconds that PostgreSQL can count."""
_READING: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""Options of PostgreSQL's transactions in a storage that is only read."""
_CREATION_LOCK = 0x666F726765
"""Number of the PostgreSQL lock under which tables are created."""

_RESERVED_OPTIONS = frozenset({"execution_options", "isolation_level", "pool"})
_RESERVED_PARAMETERS = frozenset({"autocommit", "context", "cursor_factory", "isolation_level", "row_factory"})
_FILE_PARAMETERS = frozenset({"cached_statements", "check_same_thread", "detect_types", "timeout", "uri"})
"""Parameters of a SQLite URL for the driver; others belong to a URI, which `uri=true` makes of the file's name."""
_FORMS = "write sqlite:///file.db for a file, or sqlite:// for a database in memory"


class Engines(NamedTuple):
    """The engines of one process."""

    write: Engine
    read: Engine


def parse_url(url: str) -> URL:
    """Parse a database URL.

    Raises:
        ConfigurationError: it is none, names another kind of database or a form of SQLite that several connections
            cannot use, or has a parameter that does not belong there.
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
    problem = _sqlite_problem(parsed) if backend_of(parsed) == "sqlite" else _postgresql_problem(parsed)
    if problem is not None:
        raise ConfigurationError(f"SQLStorage({shown(parsed)!r}): {problem}")
    return parsed


def check_options(url: URL, options: Mapping[str, Any]) -> None:
    """Check options for SQLAlchemy's `create_engine`.

    Raises:
        ConfigurationError: one of them does not exist, or is the storage's own.
    """
    arguments = options.get("connect_args", {})
    ours = _RESERVED_OPTIONS & options.keys()
    if is_in_memory(url):
        ours |= {name for name in options if name == "creator" or name.startswith(("pool", "max_overflow"))}
    ours |= {f"connect_args[{name!r}]" for name in _RESERVED_PARAMETERS & arguments.keys()}
    if ours:
        raise ConfigurationError(f"SQLStorage: {', '.join(sorted(ours))} cannot be set, because the storage does")
    if options:
        try:
            _create(url, timeout=0, options=options)
        except (ImportError, StorageError):
            return  # reported when it is opened
        except (ArgumentError, TypeError) as error:
            raise ConfigurationError(f"SQLStorage: {reason_of(error)}") from None


def shown(url: URL) -> str:
    """Return the URL without passwords."""
    hidden = {name: "***" for name in url.query if "password" in name.lower()}
    return url.update_query_dict(hidden).render_as_string()


def backend_of(url: URL) -> str:
    """`sqlite` or `postgresql`."""
    return _DRIVERS[url.drivername].partition("+")[0]


def is_in_memory(url: URL) -> bool:
    """Return True if the database is lost when its connection is closed."""
    return backend_of(url) == "sqlite" and url.database in (None, "", ":memory:")


def connect(url: URL, *, timeout: float, options: Mapping[str, Any], read_only: bool = False) -> Engines:
    """Connect, create missing tables, and migrate those of an earlier release; with `read_only` only connect.

    `timeout` is the number of seconds to wait for a free connection, and for a lock unless `_LOCK_WAIT` is less;
    `options` are those of `create_engine`.

    Raises:
        StorageError: the driver or the folder is missing, or a newer release has migrated the database.
        SQLAlchemyError: the permission or the server is missing, the file is no database, or is locked.
    """
    is_sqlite = backend_of(url) == "sqlite"
    try:
        engine = _create(url, timeout=timeout, options=options, read_only=read_only)
    except ImportError as error:
        raise unusable(url, f'{error}; pip install "forge-otel[postgresql]" installs the driver') from error
    if read_only:
        reading = engine.execution_options(**({"sqlite_begin": "BEGIN"} if is_sqlite else _READING))
        with reading.connect() as connection:
            current = is_current(connection)
        if not current:
            engine.dispose()
            raise unusable(url, "it lacks tables, or those of this release; open it once without read_only")
        return Engines(reading, reading)
    try:
        with engine.begin() as connection:
            if not is_sqlite:
                # Two processes that create the same table at once would fail, even with IF NOT EXISTS. SQLite's lock is
                # held from the beginning of the transaction.
                connection.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCK)))
            migrate(connection)
    except NewerSchemaError as error:
        engine.dispose()
        raise unusable(url, str(error)) from None
    except SQLAlchemyError:
        engine.dispose()
        raise
    if is_sqlite:
        return Engines(engine, engine.execution_options(sqlite_begin="BEGIN"))
    # Several statements of one read see the same state of the database.
    return Engines(engine, engine.execution_options(isolation_level="REPEATABLE READ"))


def schema_version(url: URL, *, timeout: float) -> int:
    """Return the version of the schema without changing anything; 0 if there are no tables yet.

    Raises:
        StorageError: the database cannot be read, or is locked for `timeout` seconds.
    """
    return _inspected(url, timeout, version_of) or 0


def has_current_schema(url: URL, *, timeout: float) -> bool:
    """Return True if all tables are there, as this release writes them; StorageError as above."""
    return bool(_inspected(url, timeout, is_current))


def _inspected(url: URL, timeout: float, look: Callable[[Connection], int]) -> int | None:
    """Return what `look` returns; None if there is no database."""
    if is_in_memory(url):
        return None
    if backend_of(url) == "sqlite" and not url.query.get("uri") and not Path(url.database or "").exists():
        return None  # connecting would create the file
    try:
        engine = create_engine(_for_driver(_readable(url)), poolclass=NullPool, connect_args=_driver_arguments(url))
        if backend_of(url) == "postgresql":
            _limit_lock_waits(engine, timeout)
        with engine.connect() as connection:
            return look(connection)
    except (ImportError, SQLAlchemyError) as error:
        raise unusable(url, reason_of(error)) from error


def unusable(url: URL, reason: str) -> StorageError:
    """Return the error of a database that cannot be opened."""
    return StorageError(f"cannot use {shown(url)}: {' '.join(reason.split())}")


def _readable(url: URL) -> URL:
    """Return the URL under which a file can be read: without locks, if its folder takes no file of locks."""
    if backend_of(url) != "sqlite" or is_in_memory(url) or url.query.get("uri"):
        return url
    path = Path(url.database or "").absolute()
    uri = f"file:{quote(str(path))}"
    try:
        with closing(sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=0)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as error:
        log = path.with_name(f"{path.name}-wal")
        written = log.is_file() and log.stat().st_size > 0  # what it holds would be missing
        if code_of(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) and path.is_file() and not written:
            return url.set(database=uri).update_query_dict({"mode": "ro", "immutable": "1", "uri": "true"})
    return url


def _create(url: URL, *, timeout: float, options: Mapping[str, Any], read_only: bool = False) -> Engine:
    """Create the engine, without connecting."""
    settings: dict[str, Any] = {
        "hide_parameters": True,  # error messages go to logs and traces: no ids, no data
        **options,
        "connect_args": {**_driver_arguments(url), **options.get("connect_args", {})},
    }
    if "poolclass" not in options:
        settings = {"pool_timeout": min(timeout, threading.TIMEOUT_MAX), **settings}
    if backend_of(url) == "sqlite":
        return _sqlite_engine(url, settings, read_only)
    engine = create_engine(_for_driver(url), **{"pool_pre_ping": True, **settings})
    _limit_lock_waits(engine, min(timeout, _LOCK_WAIT))
    return engine


def _limit_lock_waits(engine: Engine, seconds: float) -> None:
    """Let statements of PostgreSQL fail that wait longer than this for a lock."""
    milliseconds = int(min(max(seconds * 1000, 1), _LONGEST_LOCK_TIMEOUT))  # 0 would be no limit

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # For this transaction only: a pooler gives its connections to others.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds:d}")


def _sqlite_engine(url: URL, settings: dict[str, Any], read_only: bool) -> Engine:
    if sqlite3.sqlite_version_info < (3, 35):
        raise unusable(url, f"SQLite 3.35 or newer is needed; this Python has {sqlite3.sqlite_version}")
    if is_in_memory(url):
        # A database in memory is its connection, so there must be one only.
        settings = {**settings, "pool_size": 1, "max_overflow": 0}
    elif url.database and not url.database.startswith("file:"):
        folder = Path(url.database).absolute().parent
        if not folder.is_dir():
            raise unusable(url, f"there is no folder {folder}; create it first")
    driver_url = _for_driver(_readable(url) if read_only else url)
    engine = create_engine(driver_url, **{"poolclass": QueuePool, **settings})

    # One statement for many rows: `executemany` gives up the interpreter lock twice for each of them.
    engine.dialect.use_insertmanyvalues_wo_returning = True

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # no BEGIN but ours
        if read_only:
            return
        # Readers go on while somebody writes. A commit survives the process, if not a power failure.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # A transaction that reads first and locks later fails when somebody else has written in between.
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get("sqlite_begin", "BEGIN IMMEDIATE"))

    return engine


def _driver_arguments(url: URL) -> dict[str, Any]:
    """Return the arguments of the driver's `connect`: ours, and those of the URL that have to be of a type."""
    if backend_of(url) == "sqlite":
        # A lock is waited for by trying again, because then the gate is closed.
        return {"timeout": float(_parameter(url, "timeout") or 0), "check_same_thread": False}
    # Poolers that give the connection to another client after each transaction lose prepared statements.
    threshold = _parameter(url, "prepare_threshold")
    arguments: dict[str, Any] = {"prepare_threshold": int(threshold) if threshold and threshold.isdecimal() else None}
    arguments |= {name: value for name, value in _NETWORK.items() if name not in url.query}
    return arguments


def _for_driver(url: URL) -> URL:
    return url.set(drivername=_DRIVERS[url.drivername]).difference_update_query(["prepare_threshold"])


def _sqlite_problem(url: URL) -> str | None:
    """Return the reason why a URL of SQLite cannot be used by several connections."""
    if url.username or url.password or url.host or url.port:
        return f"a file has neither user nor host; {_FORMS}"
    if "isolation_level" in url.query:
        return "isolation_level cannot be set, because the storage does"
    timeout = _parameter(url, "timeout") or "0"
    # The driver counts milliseconds in 32 bits.
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]*)?", timeout):
        return f"timeout must be a number of seconds below a million, not {timeout!r}"
    others = sorted(set(url.query) - _FILE_PARAMETERS)
    if (_parameter(url, "uri") or "").lower() not in {"true", "t", "yes", "y", "on", "1"}:
        return f"{', '.join(others)} would be ignored; it needs uri=true, and a file: URI" if others else None
    name, _, inside = (url.database or "").partition("?")
    pairs = [*parse_qsl(inside), *((key, value) for key, values in url.normalized_query.items() for value in values)]
    parameters = dict(pairs)  # of several with the same name, SQLite takes the last one,
    if name.removeprefix("file:") in {"", ":memory:"} or parameters.get("mode") == "memory":
        return f"each connection would have a database of its own, or lock the others out at once; {_FORMS}"
    vfs = parameters.get("vfs", "")
    if vfs in {"memdb", "unix-dotfile"}:
        return f"a database of the vfs {vfs} has no write-ahead log; {_FORMS}"
    if vfs.endswith("-none"):
        return f"the vfs {vfs} switches the locks off, which several connections need; {_FORMS}"
    if parameters.get("cache") == "shared":
        return f"connections with a shared cache lock each other out, without waiting; {_FORMS}"
    for parameter, value in pairs:
        if parameter in {"nolock", "immutable"} and value != "0":  # but of these the first one
            return f"{parameter} switches the locks off, which several connections need; {_FORMS}"
    return None


def _postgresql_problem(url: URL) -> str | None:
    """Return the reason why a URL of PostgreSQL cannot be used."""
    ours = sorted(_RESERVED_PARAMETERS & url.query.keys())
    if ours:
        return f"{', '.join(ours)} cannot be set, because the storage does"
    threshold = _parameter(url, "prepare_threshold")
    if threshold is not None and not threshold.isdecimal() and threshold.lower() != "none":
        return f"prepare_threshold must be a number or none, not {threshold!r}"
    return None


def _parameter(url: URL, name: str) -> str | None:
    """Return the last value of a parameter; None if it is not given."""
    values = url.normalized_query.get(name)
    return values[-1] if values else None
