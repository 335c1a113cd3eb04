"""Versions of the schema, on SQLite and on PostgreSQL.

`written_by_0.1.0` has a database as that release wrote it: `sqlite3.Connection.iterdump`, and `pg_dump --inserts`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, inspect, text

from forge import BatchRunner, Measurement, Pipeline, Sample, Skip, SQLStorage, stage
from forge.errors import StorageError
from forge.storage import migrations
from forge.storage.migrations import VERSION, migrate
from tests.support.runs import ledger, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

OLD = Path(__file__).with_name("written_by_0.1.0")


@pytest.fixture
def old_url(storage_url: str) -> str:
    """A database that 0.1.0 has written."""
    backend = storage_url.partition(":")[0]
    script = (OLD / f"{backend}.sql").read_text()
    if backend == "sqlite":
        connection = sqlite3.connect(storage_url.removeprefix("sqlite:///"))
        connection.executescript(script)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    else:
        with psycopg.connect(storage_url) as server:
            server.execute(script.encode())
    return storage_url


def in_database(url: str, statement: str) -> list[Any]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        found = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return found


@stage
def parse(sample: Sample) -> Sample | Skip | list[Sample]:
    if sample.data == "skip":
        return Skip("empty")
    if sample.data == "bad":
        raise ValueError("no number: 'bad'")
    if sample.data == "many":
        return [sample.child("a", 1), sample.child("b", 2)]
    return sample.with_data(int(sample.data))


class Double(Measurement):
    key, version = "double", "1"

    def compute(self, sample: Sample) -> int:
        return int(sample.data) * 2


SOURCE = {
    "1": "1",
    "skipped": "skip",
    "bad": "bad",
    "many": "many",
    r"C:\u0000\users": "5",
    r"C:\u0000\bad": "bad",
    r"C:\u0000\many": "many",
}


def pipeline(url: str) -> Pipeline:
    """The pipeline that wrote the old database."""
    return Pipeline(
        name="old",
        source=[Sample(id=key, data=data) for key, data in SOURCE.items()],
        stages=[parse],
        measurements=[Double()],
        storage=SQLStorage(url),
    )


def schema(url: str) -> Any:
    """All tables as the database describes them."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    tables = inspect(engine)
    described = {
        name: (
            [{**column, "type": str(column["type"])} for column in tables.get_columns(name)],
            tables.get_pk_constraint(name)["constrained_columns"],
            sorted(map(str, tables.get_unique_constraints(name))),
            sorted(map(str, tables.get_indexes(name))),
        )
        for name in tables.get_table_names()
    }
    engine.dispose()
    return described


def test_a_new_database_has_the_latest_version(storage: SQLStorage, storage_url: str) -> None:
    assert storage.schema_version() == 0
    assert not Path(storage_url.removeprefix("sqlite:///")).exists()
    storage.open()
    assert storage.schema_version() == VERSION
    assert in_database(storage_url, "SELECT version FROM forge_schema") == [(VERSION,)]


def test_a_database_in_memory_has_no_version_before_its_first_use() -> None:
    assert SQLStorage("sqlite://").schema_version() == 0


def test_a_database_of_0_1_0_is_migrated_and_resumed(old_url: str) -> None:
    assert SQLStorage(old_url).schema_version() == 1
    work = pipeline(old_url)
    done = BatchRunner().run(work).drain()
    assert ledger(done) == {"admitted": 7, "unchanged": 5, "dlq": 2}
    assert SQLStorage(old_url).schema_version() == VERSION
    assert rows(SQLStorage(old_url), "old") == {
        **dict.fromkeys(["1", r"C:\u0000\users"], "ready"),
        **dict.fromkeys(["many", r"C:\u0000\many"], "split"),
        **dict.fromkeys(["many#a", "many#b", r"C:\u0000\many#a", r"C:\u0000\many#b"], "ready"),
        "skipped": "skipped",
        **dict.fromkeys(["bad", r"C:\u0000\bad"], "dlq"),
    }
    storage = SQLStorage(old_url)
    assert [record.id for record in storage.query("old", parent=r"C:\u0000\many").samples] == [
        r"C:\u0000\many#a",
        r"C:\u0000\many#b",
    ]
    assert [entry.sample_id for entry in storage.dead_letters("old")] == ["bad", r"C:\u0000\bad"]
    assert [run.outcome for run in storage.runs("old")] == ["completed", "completed"]
    storage.close()
    again = BatchRunner(resume=False).run(pipeline(old_url)).drain()
    assert (again.measurements[0].cached, again.measurements[0].computed) == (6, 0)


def test_a_migrated_database_has_the_tables_of_a_new_one(
    old_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if old_url.startswith("sqlite"):
        new: Any = contextlib.nullcontext(f"sqlite:///{tmp_path / 'new.db'}")
    else:
        new = request.getfixturevalue("postgresql_server").database()
    with new as new_url:
        for url in (old_url, new_url):
            storage = SQLStorage(url)
            storage.open()
            storage.close()
        assert schema(old_url) == schema(new_url)


def test_a_newer_database_is_refused_and_left_alone(storage: SQLStorage, storage_url: str) -> None:
    storage.open()
    storage.close()
    in_database(storage_url, "UPDATE forge_schema SET version = 99")
    with pytest.raises(StorageError) as caught:
        storage.open()
    assert str(caught.value).partition(": ")[2] == (
        f"a newer release of forge-otel has migrated it to schema version 99, and this one knows up to {VERSION}; "
        "install the newer release (pip install --upgrade forge-otel), or use another database"
    )
    assert storage.schema_version() == 99


def test_a_migration_that_fails_leaves_the_database_as_it_was(old_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = schema(old_url), in_database(old_url, "SELECT id FROM forge_samples ORDER BY id")

    def add_then_fail(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE forge_samples ADD COLUMN colour TEXT"))
        connection.execute(text("UPDATE forge_samples SET colour = 'red', nothing = 1"))

    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, add_then_fail))
    with pytest.raises(StorageError, match="nothing"):
        SQLStorage(old_url).open()
    assert (schema(old_url), in_database(old_url, "SELECT id FROM forge_samples ORDER BY id")) == before
    assert SQLStorage(old_url).schema_version() == 1


def test_migrations_run_once_each_from_the_stored_version(storage_url: str) -> None:
    ran: list[int] = []

    def step(number: int) -> migrations.Migration:
        return lambda _: ran.append(number)

    def to(steps: Sequence[int]) -> tuple[list[int], int]:
        engine = create_engine(storage_url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            migrate(connection, [step(number) for number in steps])
            version = migrations.version_of(connection)
        engine.dispose()
        seen = ran.copy()
        ran.clear()
        return seen, version

    assert to([2]) == ([], 2)  # a new one has the latest tables
    assert to([2]) == ([], 2)
    assert to([2, 3, 4]) == ([3, 4], 4)
    assert to([2, 3, 4]) == ([], 4)


def _open(url: str, start: Any, answers: Any) -> None:
    storage = SQLStorage(url)
    start.wait()
    storage.open()
    found = storage.read("old", [r"C:\u0000\users"]).samples
    answers.put((storage.schema_version(), [record.id for record in found]))
    storage.close()


@pytest.mark.slow
def test_processes_that_migrate_at_the_same_time(old_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_open, args=(old_url, start, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=300) for _ in processes] == [(VERSION, [r"C:\u0000\users"])] * 3
    for process in processes:
        process.join()
    assert in_database(old_url, "SELECT version FROM forge_schema") == [(VERSION,)]
