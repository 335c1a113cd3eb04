"""Faults of the database: which of them are worth another try, and what a person can do about them."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidRequestError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_CONTENT_STATES = ("22", "23", "54", "P0001")
"""SQLSTATEs, or their classes, for content: invalid or too long data, violated constraints, an error of a trigger."""
_BUSY_STATES = ("40", "55P03", "57P03", "53300")
"""The same where others are in the way: conflicting transactions, a lock, a server that starts, no free connection."""
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_BUSY_WORDS = ("starting up", "shutting down", "recovery", "too many", "connection slots")
"""In messages of a server that refuses a connection, which come without a SQLSTATE."""


def is_fault(error: BaseException) -> bool:
    """Return True for an error of the database itself; False for one of the content, which another try cannot mend."""
    if not isinstance(error, DBAPIError):
        # Connections that were lost or are all in use. Others are mistakes, or values that the driver cannot send.
        return isinstance(error, DisconnectionError | InvalidRequestError | OSError | PoolTimeoutError)
    cause, state = error.orig, _state(error)
    if state:
        return not state.startswith(_CONTENT_STATES)
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if kinds & {"DataError", "IntegrityError"}:
        return False
    if isinstance(cause, sqlite3.Error):
        return "binding parameter" not in str(cause)
    return "ProgrammingError" not in kinds  # without a SQLSTATE it is psycopg's own: a value that it cannot send


def is_constraint(error: BaseException) -> bool:
    """Return True if a constraint or trigger refuses a row, which the database could hold otherwise."""
    if not isinstance(error, DBAPIError):
        return False
    return _state(error).startswith(("23", "P0001")) or isinstance(error.orig, sqlite3.IntegrityError)


def is_busy(error: BaseException) -> bool:
    """Return True for a fault that passes by itself: others use the database, or its server starts."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeoutError)
    if isinstance(error.orig, sqlite3.Error):
        return code_of(error.orig) in _BUSY_CODES
    state = _state(error)
    if state:
        return state.startswith(_BUSY_STATES)
    return any(words in str(error.orig) for words in _BUSY_WORDS)


def reason_of(error: BaseException) -> str:
    """Return the database's own message in one line, without the statement and its data."""
    message = str(error.orig if isinstance(error, StatementError) and error.orig is not None else error)
    return " ".join(message.split()) or type(error).__name__


def remedy_of(error: BaseException) -> str:
    """Return what a person can do about a fault."""
    if isinstance(error, PoolTimeoutError):
        return "all connections are in use: raise SQLStorage(pool_size=…)"
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        return _sqlite_remedy(error.orig)
    return _postgresql_remedy(_state(error) if isinstance(error, DBAPIError) else "")


def _sqlite_remedy(error: sqlite3.Error) -> str:
    for codes, remedy in _SQLITE_REMEDIES.items():
        if code_of(error) in codes:
            return remedy
    return "check the file and its disk"


def _postgresql_remedy(state: str) -> str:
    for states, remedy in _POSTGRESQL_REMEDIES.items():
        if state.startswith(states):
            return remedy
    return "check that the server is running and can be reached"


_SQLITE_REMEDIES = {
    _BUSY_CODES: "another process holds the lock of the file: end it, or let it finish",
    (sqlite3.SQLITE_FULL,): "free space on the disk",
    (sqlite3.SQLITE_IOERR,): "check the disk and its free space",
    (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH): (
        "make the file, its folder and its disk writable"
    ),
    (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB): "restore the file from a backup",
    (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA): "restore the tables, or let the next run create missing ones",
}
_POSTGRESQL_REMEDIES = {
    ("53100",): "free space on the server's disk",
    ("53300",): "close other connections, or raise the server's max_connections",
    ("53",): "the server lacks resources: see its log",
    ("55P03", "40"): "another session holds locks on the tables: end it, or let it finish",
    ("25006",): "the server is read-only: connect to the primary server, or make it writable",
    ("42501", "28"): "grant this user all rights on the tables",
    ("42", "3F"): "restore the tables, or let the next run create missing ones",
    ("XX",): "see the server's log",
}


def _state(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def code_of(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for errors of the driver."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
