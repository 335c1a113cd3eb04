"""The sample ids that a run has seen."""

from __future__ import annotations

import sqlite3
import threading

from ..errors import StorageError

IN_MEMORY = 100_000


class SeenIds:
    """A set of ids with bounded memory: beyond `IN_MEMORY`, ids go to a temporary file."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._lock = threading.Lock()
        self._in_memory = in_memory
        self._ids: set[str] = set()
        self._file: sqlite3.Connection | None = None

    def add(self, sample_id: str) -> bool:
        """Add an id; returns True if it is new.

        Raises:
            StorageError: the temporary file cannot be written.
        """
        with self._lock:
            if sample_id in self._ids:
                return False
            if len(self._ids) < self._in_memory:
                self._ids.add(sample_id)
                return True
            try:
                if self._file is None:
                    self._file = _temporary_database()
                key = sample_id.encode("utf-8", "surrogatepass")
                return self._file.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1
            except sqlite3.Error as error:
                raise StorageError(
                    f"cannot keep the ids of this run in a temporary file: {error}; free space on its disk, or name a "
                    "folder on another one with the variable SQLITE_TMPDIR, and run again"
                ) from error

    def close(self) -> None:
        """Forget all ids."""
        with self._lock:
            self._ids.clear()
            if self._file is not None:
                self._file.close()
                self._file = None


def _temporary_database() -> sqlite3.Connection:
    # SQLite removes the file of a database without a name; the caller's lock lets any thread use it.
    file = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    file.execute("PRAGMA journal_mode = OFF")
    file.execute("CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID")
    file.execute("BEGIN")  # never committed: nobody else reads it
    return file
