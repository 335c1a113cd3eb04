"""The sample ids that a run has seen."""

from __future__ import annotations

import sqlite3
import threading

IN_MEMORY = 100_000


class SeenIds:
    """A set of ids with bounded memory: beyond `IN_MEMORY`, ids go to a temporary file."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._lock = threading.Lock()
        self._in_memory = in_memory
        self._ids: set[str] = set()
        self._file: sqlite3.Connection | None = None

    def add(self, sample_id: str) -> bool:
        """Add an id; returns True if it is new."""
        with self._lock:
            if sample_id in self._ids:
                return False
            if len(self._ids) < self._in_memory:
                self._ids.add(sample_id)
                return True
            if self._file is None:
                # SQLite removes the file of a database without a name; the lock above lets any thread use it.
                self._file = sqlite3.connect("", check_same_thread=False, isolation_level=None)
                self._file.execute("PRAGMA journal_mode = OFF")
                self._file.execute("CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID")
                self._file.execute("BEGIN")  # never committed: nobody else reads it
            key = sample_id.encode("utf-8", "surrogatepass")
            return self._file.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1

    def close(self) -> None:
        """Forget all ids."""
        with self._lock:
            self._ids.clear()
            if self._file is not None:
                self._file.close()
                self._file = None
