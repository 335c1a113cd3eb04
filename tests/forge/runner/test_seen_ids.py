"""The ids that a run has seen, in memory and in a temporary file."""

from __future__ import annotations

import sqlite3

import pytest

from forge import Pipeline, StreamingRunner
from forge.errors import StorageError
from forge.runner import seen_ids
from forge.runner.seen_ids import SeenIds
from tests.support.runs import samples


def test_ids_beyond_the_memory_are_kept_in_a_file() -> None:
    seen = SeenIds(in_memory=2)
    ids = ["a", "b", "c", "nul\0", "caf\udce9", r"caf\udce9"]
    assert [seen.add(each) for each in ids] == [True] * 6
    assert [seen.add(each) for each in ids] == [False] * 6
    seen.close()
    assert seen.add("a")


def test_a_full_temporary_disk_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    new = seen_ids._temporary_database

    def small() -> sqlite3.Connection:
        file = new()
        file.execute("PRAGMA max_page_count = 5")
        return file

    monkeypatch.setattr(seen_ids, "_temporary_database", small)
    monkeypatch.setattr(SeenIds.__init__, "__defaults__", (10,))
    run = StreamingRunner().run(Pipeline(name="p", source=samples(*range(20_000))))
    with pytest.raises(StorageError) as caught:
        run.drain()
    assert str(caught.value) == (
        "cannot keep the ids of this run in a temporary file: database or disk is full; free space on its disk, or "
        "name a folder on another one with the variable SQLITE_TMPDIR, and run again"
    )
    assert run.result is not None
    assert (run.result.outcome, run.result.ledger.active) == ("failed", 0)
